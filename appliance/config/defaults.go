// defaults.go: the value of every key that is left out.
package config

import (
	"time"

	"github.com/inferd/inferd/inference"
)

// Default is a new Config with every default filled in. It is valid.
func Default() *Config {
	return &Config{
		Listen:       Listen{GRPC: "127.0.0.1:8500", HTTP: "127.0.0.1:8501"},
		ModelsDir:    "/var/lib/inferd/models",
		StateDir:     "/var/lib/inferd",
		Defaults:     defaultOptions(),
		Runtime:      Runtime{Isolation: IsolationAuto, Zygote: true, Sandbox: SandboxAuto, GPU: GPU{AllowGrowth: true}, CanaryInterval: time.Minute},
		Updater:      Updater{Watch: true, PollInterval: 5 * time.Second, SettleTime: 2 * time.Second, EmptyGrace: time.Minute, KeepCopyLimit: 1 << 30},
		Memory:       Memory{Evict: true},
		Queue:        defaultQueue(),
		RequestLog:   defaultRequestLog(),
		Admission:    Admission{MaxRequests: 8192},
		Limits:       defaultLimits(),
		GRPC:         GRPC{ReloadConfig: LocalCallers},
		OIP:          OIP{ServerName: "inferd", Repository: LocalCallers, StreamRequests: 128},
		Stream:       defaultStream(),
		Monitoring:   Monitoring{Paths: []string{"/metrics", "/monitoring/prometheus/metrics"}},
		Log:          Log{Format: FormatText, Level: "info"},
		DrainTimeout: 20 * time.Second,
	}
}

func defaultOptions() ModelOptions {
	return ModelOptions{
		VersionPolicy:   VersionPolicy{Latest: 1},
		DefaultDeadline: 30 * time.Second,
		RunTimeout:      30 * time.Second,
		Tags:            []string{"serve"},
		Optimize:        OptimizeAuto,
		DenyOps:         true,
		Compatibility:   Compatible,
		KeepLastGood:    true,
		NaN:             Refuse,
		Rollout:         Rollout{Strategy: Immediate, Share: 0.1, KeyHeader: inference.DefaultKeyHeader},
		Probation:       Probation{Time: time.Minute, Requests: 1000, Errors: 0.01, NaN: 0.01, Latency: 1.5, Memory: 64 << 20, Deaths: 1},
		Transition:      TransitionAuto,
		RequestLog:      defaultModelLog(),
		Batching:        Batching{Enabled: true, LargeBatchSplitting: Auto},
	}
}
