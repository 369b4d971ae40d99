// serving_test.go: each flag that TensorFlow Serving knows, one by one.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// knownFlags is every flag of tensorflow_model_server with a value for it, and what the value does to the YAML of the configuration:
// a line that appears, "ignored", or "refused".
var knownFlags = map[string][2]string{
	"port":                                        {"=9", `  grpc: :9`},
	"grpc_socket_path":                            {"=/s", `  grpc_socket: /s`},
	"rest_api_port":                               {"=9", `  http: :9`},
	"rest_api_num_threads":                        {"=9", "ignored"},
	"rest_api_timeout_in_ms":                      {"=9000", `  default_deadline: 9s`},
	"rest_api_enable_cors_support":                {"", `  cors: true`},
	"enable_batching":                             {"", `    enabled: true`},
	"batching_parameters_file":                    {"=DIR/batching", `    max_batch_size: 7`},
	"model_config_file":                           {"=DIR/models", `  - name: listed`},
	"model_name":                                  {"=m", `  - name: m`},
	"model_base_path":                             {"=/other", `    base_path: /other`},
	"num_load_threads":                            {"=9", "ignored"},
	"num_unload_threads":                          {"=9", "ignored"},
	"max_num_load_retries":                        {"=9", "ignored"},
	"load_retry_interval_micros":                  {"=-99999999999", "ignored"},
	"file_system_poll_wait_seconds":               {"=9", `  poll_interval: 9s`},
	"flush_filesystem_caches":                     {"=false", "ignored"},
	"tensorflow_session_parallelism":              {"=9", `  inter_op_threads: 9`},
	"tensorflow_session_config_file":              {"=DIR/session", `  intra_op_threads: 6`},
	"tensorflow_intra_op_parallelism":             {"=9", `  intra_op_threads: 9`},
	"tensorflow_inter_op_parallelism":             {"=9", `  inter_op_threads: 9`},
	"use_alts_credentials":                        {"", "refused"},
	"ssl_config_file":                             {"=DIR/ssl", `    ssl_config_file: DIR/ssl`},
	"platform_config_file":                        {"=/s", "ignored"},
	"per_process_gpu_memory_fraction":             {"=0.25", `    memory_fraction: 0.25`},
	"saved_model_tags":                            {"=a,b", `  tags: [a, b]`},
	"grpc_channel_arguments":                      {"=a=1,b=2", "ignored"},
	"grpc_max_threads":                            {"=9", "ignored"},
	"enable_model_warmup":                         {"=false", "ignored"},
	"num_request_iterations_for_warmup":           {"=9", "ignored"},
	"monitoring_config_file":                      {"=DIR/monitoring", `  paths: [/metrics, /monitoring/prometheus/metrics, /mine]`},
	"remove_unused_fields_from_bundle_metagraph":  {"", "ignored"},
	"prefer_tflite_model":                         {"", "ignored"},
	"num_tflite_pools":                            {"=9", "ignored"},
	"num_tflite_interpreters_per_pool":            {"=9", "ignored"},
	"enable_signature_method_name_check":          {"", "ignored"},
	"xla_cpu_compilation_enabled":                 {"", "ignored"},
	"xla_gpu_compilation_enabled":                 {"", "ignored"},
	"enable_profiler":                             {"=false", "ignored"},
	"thread_pool_factory_config_file":             {"=/s", "ignored"},
	"mixed_precision":                             {"=bfloat16", "ignored"},
	"skip_initialize_tpu":                         {"", "ignored"},
	"enable_grpc_healthcheck_service":             {"", "ignored"},
	"enable_serialization_as_tensor_content":      {"", `  tensor_content: true`},
	"allow_version_labels_for_unavailable_models": {"", `  reload_any_label: true`},
	"enable_per_model_batching_parameters":        {"", "ignored"},
	"model_config_file_poll_wait_seconds":         {"=9", `  config_poll: 9s`},
	"version":                                     {"", "version"},
}

func TestEveryServingFlag(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t)
	for name, text := range map[string]string{
		"ssl":        fmt.Sprintf("server_cert: %q server_key: %q", cert, key),
		"batching":   "max_batch_size { value: 7 }",
		"models":     `model_config_list { config { name: "listed" base_path: "/l" } }`,
		"session":    "intra_op_parallelism_threads: 6",
		"monitoring": `prometheus_config { enable: true path: "/mine" }`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range servingFlags {
		if _, ok := knownFlags[f.name]; !ok {
			t.Errorf("--%s has no test", f.name)
		}
	}
	for name, c := range knownFlags {
		t.Run(name, func(t *testing.T) {
			base := []string{"--model_base_path=/m"}
			if name == "batching_parameters_file" {
				base = append(base, "--enable_batching")
			}
			before, _, err := ParseTFServing(base)
			if err != nil {
				t.Fatal(err)
			}
			after, ignored, err := ParseTFServing(append(base, "--"+name+strings.ReplaceAll(c[0], "DIR", dir)))
			var start *StartError
			switch c[1] {
			case "version":
				if !errors.Is(err, ErrVersion) {
					t.Errorf("error %v", err)
				}
				return
			case "refused":
				if !errors.As(err, &start) {
					t.Errorf("error %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			changed := !bytes.Equal(before.YAML(), after.YAML())
			mentioned := slices.ContainsFunc(ignored, func(i Ignored) bool { return i.Name == "--"+name && i.Reason != "" })
			if c[1] == "ignored" {
				if changed || !mentioned {
					t.Errorf("changed %v, named as ignored %v", changed, mentioned)
				}
				return
			}
			c[1] = strings.ReplaceAll(c[1], "DIR", dir)
			has := func(c *Config, line string) bool { return strings.Contains(string(c.YAML()), "\n"+line+"\n") }
			if has(before, c[1]) || !has(after, c[1]) || mentioned {
				t.Errorf("no line %q, or named as ignored %v:\n%s", c[1], mentioned, after.YAML())
			}
		})
	}
}

func TestServingFilesAreBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(path, bytes.Repeat([]byte("#"), MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, flag := range []string{"model_config_file", "batching_parameters_file", "tensorflow_session_config_file", "monitoring_config_file"} {
		_, _, err := ParseTFServing([]string{"--model_base_path=/m", "--enable_batching", "--" + flag + "=" + path})
		var faults Faults
		if !errors.As(err, &faults) || !strings.Contains(err.Error(), "larger than") {
			t.Errorf("--%s: %v", flag, err)
		}
	}
}

func TestServingHelp(t *testing.T) {
	if _, _, err := ParseTFServing([]string{"--nosuchflag", "--help"}); !errors.Is(err, ErrHelp) {
		t.Errorf("error %v", err)
	}
	usage := ServingUsage()
	for name := range knownFlags {
		if !strings.Contains(usage, "--"+name+" (") {
			t.Errorf("--%s is not in the usage", name)
		}
	}
}
