// sandbox.go: whether models are confined, as configuration and kernel have it, and what is said and done where they are not.
package appliance

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/worker"
)

// confinement is what models are confined to. It is immutable.
type confinement struct {
	cfg    config.Runtime
	kernel worker.Confinement
}

func newConfinement(cfg *config.Config) confinement {
	return confinement{cfg.Runtime, worker.ProbeConfinement()}
}

// sandbox is for the worker host: nil where models are not to be confined.
func (c confinement) sandbox(cfg func() *config.Config) *worker.Sandbox {
	if c.cfg.Sandbox == config.SandboxOff {
		return nil
	}
	return worker.NewSandbox(worker.Places{Secret: func() []string { return cfg().Secrets() }, Models: func() []string { return modelFolders(cfg()) }})
}

// modelFolders are the folders in which versions lie, and in which a shared process reads.
func modelFolders(cfg *config.Config) []string {
	dirs := []string{KeepDir(cfg)}
	if cfg.ModelsDir != "" {
		dirs = append(dirs, cfg.ModelsDir)
	}
	for _, m := range cfg.Models {
		dirs = append(dirs, m.BasePath)
	}
	return dirs
}

// whole reports whether models are kept from everything that is not theirs.
func (c confinement) whole() bool {
	return c.cfg.Sandbox != config.SandboxOff && c.cfg.Isolation != config.IsolationNone && c.kernel.Full()
}

// String says it in the status.
func (c confinement) String() string {
	switch {
	case c.cfg.Sandbox == config.SandboxOff:
		return "off"
	case c.cfg.Isolation == config.IsolationNone:
		return "none, with isolation none"
	default:
		return c.kernel.String()
	}
}

// verdicts names what verdicts on versions are made under: what one sandbox refuses, another or none may let pass.
func (c confinement) verdicts() string {
	if c.refusal() != nil {
		return "confinement required"
	}
	return c.String()
}

// gap says what a model may do that it should not, "" where it may not; severity is how much that matters: little to who has chosen it.
func (c confinement) gap() (severity health.Severity, text string) {
	switch {
	case c.whole():
		return 0, ""
	case c.cfg.Sandbox == config.SandboxOff:
		return health.Info, "models are not confined: runtime.sandbox is off, so a model may do whatever inferd may"
	case c.cfg.Isolation == config.IsolationNone:
		return health.Info, "models are not confined: with runtime.isolation none they run in inferd's own process, and may do whatever it may"
	case c.kernel.Seccomp:
		return health.Warning, fmt.Sprintf("models are not confined: %s; a filter of system calls keeps them from the network, from other processes and from writing files, "+
			"but a model may read every file that inferd may read (the queue, other models): serve only models that you trust, or use a newer kernel; runtime.require_sandbox refuses to load any", c.kernel.NoLandlock)
	default:
		return health.Warning, fmt.Sprintf("models are not confined: this kernel confines with %v; serve only models that you trust, or use a newer kernel; runtime.require_sandbox refuses to load any", c.kernel)
	}
}

// refusal is why nothing is loaded, nil where it may be.
func (c confinement) refusal() *inference.Error {
	if !c.cfg.RequireSandbox || c.whole() {
		return nil
	}
	return &inference.Error{Code: inference.FailedPrecondition, Reason: inference.ReasonRuntime, Err: inference.ErrUnconfined,
		Msg: fmt.Sprintf("runtime.require_sandbox is set, and models can be confined with %v", c)}
}

// tell makes the condition.
func (c confinement) tell(h *health.Tracker) {
	severity, text := c.gap()
	if text == "" {
		return
	}
	if r := c.refusal(); r != nil {
		severity, text = health.Unready, "no model is loaded: "+r.Msg+"; use a newer kernel, or write require_sandbox: false"
	}
	h.Set(health.Condition{Code: health.CodeSandbox, Severity: severity, Message: text})
}

// metric is 1 while models are confined.
func (c confinement) metric() prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "inferd_models_confined",
		Help: "1 when models are kept from all files but their own, from the network and from other processes, else 0."}, func() float64 {
		if c.whole() {
			return 1
		}
		return 0
	})
}

// Hide keeps this process's memory, descriptors and environment from others of its user: a worker is such a one where there is no Landlock, and
// so is whatever else gets the user's rights. No core dump is written of it either, which would have requests and tokens in it. root sees it
// as before. The workers stay visible to this process, which counts their memory: they are made anew by exec, which undoes this.
func Hide() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) // any Linux that Go runs on can
}

// finding is what doctor says of it.
func (c confinement) finding() Finding {
	severity, text := c.gap()
	f := Finding{Severity: FindingOK, Subject: "sandbox", Message: text}
	switch refusal := c.refusal(); {
	case text == "":
		f.Message = fmt.Sprintf("models are confined with %v", c)
	case refusal != nil:
		f.Severity, f.Message = FindingWrong, "no model would be loaded: "+refusal.Msg+"; use a newer kernel, or write require_sandbox: false"
	case severity == health.Warning:
		f.Severity = FindingWarning
	}
	return f
}
