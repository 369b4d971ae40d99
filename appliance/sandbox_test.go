// sandbox_test.go: what is said and done where models are confined, not wholly, or not at all.
package appliance

import (
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/worker"
)

func TestConfinementIsTold(t *testing.T) {
	full := worker.Confinement{Landlock: 5, Seccomp: true}
	old := worker.Confinement{NoLandlock: "this kernel has no Landlock", Seccomp: true}
	bare := worker.Confinement{NoLandlock: "this kernel has no Landlock"}
	for _, c := range []struct {
		name      string
		kernel    worker.Confinement
		sandbox   config.Sandbox
		isolation config.Isolation
		severity  string // "" where all is well
		says      string
		status    string
		doctor    string
	}{
		{"whole", full, config.SandboxAuto, config.IsolationAuto, "", "", "Landlock ABI 5 and seccomp", FindingOK},
		{"no Landlock", old, config.SandboxAuto, config.IsolationAuto, "warning", "no Landlock; a filter of system calls keeps", "seccomp alone, for this kernel has no Landlock", FindingWarning},
		{"nothing", bare, config.SandboxAuto, config.IsolationAuto, "warning", "confines with nothing", "nothing, for this kernel has no Landlock, and no seccomp filters", FindingWarning},
		{"off", full, config.SandboxOff, config.IsolationAuto, "info", "runtime.sandbox is off", "off", FindingOK},
		{"in the core", full, config.SandboxAuto, config.IsolationNone, "info", "inferd's own process", "none, with isolation none", FindingOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := config.Default()
			cfg.Runtime.Sandbox, cfg.Runtime.Isolation = c.sandbox, c.isolation
			is := confinement{cfg.Runtime, c.kernel}
			if is.String() != c.status || is.whole() != (c.severity == "") || is.refusal() != nil {
				t.Errorf("%q, whole %v, refusal %v", is, is.whole(), is.refusal())
			}
			h := health.New()
			is.tell(h)
			got := health.Condition{}
			for _, x := range h.Report().Conditions {
				if x.Code == health.CodeSandbox {
					got = x
				}
			}
			if severity := got.Severity; (severity != 0 || c.severity != "") && severity.String() != c.severity || !strings.Contains(got.Message, c.says) {
				t.Errorf("condition %+v", got)
			}
			if f := is.finding(); f.Severity != c.doctor || f.Subject != "sandbox" || !strings.Contains(f.Message, c.says) || f.Message == "" {
				t.Errorf("doctor: %+v", f)
			}
			required := is
			required.cfg.RequireSandbox = true
			if (required.refusal() == nil) != is.whole() || (required.finding().Severity == FindingWrong) == is.whole() {
				t.Errorf("required: %v, %+v", required.refusal(), required.finding())
			}
		})
	}
}
