// e2e_runtime_test.go: TensorFlow runtimes side by side: changed under load, refused, and fallen back from at the start.
package appliance

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/runtimes"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tfrt"
)

// installRuntimes puts links to the runtime of the tests under those versions; one that begins with a - wants a C library that is yet to come,
// which only opening it shows.
func installRuntimes(t testing.TB, cfg *config.Config, versions ...string) {
	t.Helper()
	lib := library(t)
	t.Setenv(tfrt.EnvRuntime, "")
	cfg.Runtime.Library = ""
	for _, v := range versions {
		v, broken := strings.CutPrefix(v, "-")
		dir := filepath.Join(cfg.StateDir, "runtimes", v)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(lib, "lib*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if broken && strings.Contains(f, "framework") {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				changed := bytes.ReplaceAll(b, []byte("\x00GLIBC_2.14\x00"), []byte("\x00GLIBC_9.14\x00"))
				if bytes.Equal(changed, b) {
					t.Skip("the runtime's library names no GLIBC_2.14, so the tests cannot break it")
				}
				if err := os.WriteFile(filepath.Join(dir, filepath.Base(f)), changed, 0o755); err != nil {
					t.Fatal(err)
				}
				continue
			}
			if err := os.Symlink(f, filepath.Join(dir, filepath.Base(f))); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// processes waits until the appliance has that many: that one has ended changes no status.
func (s *server) processes(n int) {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got := children(os.Getpid())
		if len(got) == n {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("%d processes, not %d", len(got), n)
		}
	}
}

func (s *server) runtime() string { return RuntimeInUse(s.Status().Runtime.Library) }

func (s *server) condition(code string) string {
	for _, c := range s.Status().Conditions {
		if c.Code == code {
			return c.Message
		}
	}
	return ""
}

// The runtime is changed while requests run: none fails, every worker is another afterwards, and the old ones are gone. One that is no good, or under
// which one model is not, changes nothing.
func TestRuntimeIsChangedUnderLoad(t *testing.T) {
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Defaults.KeepLastGood = false })
	installRuntimes(t, cfg, "2.20.0", "2.20.1", "-9.0.0")
	if _, err := runtimes.In(cfg.StateDir).Choose("2.20.1", "the test"); err != nil {
		t.Fatal(err)
	}
	s := run(t, cfg)
	for _, m := range []string{"m", "n"} {
		s.publish(m, 1, modeltest.Affine(0, 1))
	}
	before := map[string]int{"m": s.live("m", 1).Worker.PID, "n": s.live("n", 1).Worker.PID}
	if got := s.runtime(); got != "2.20.1" {
		t.Fatalf("runtime %s is in use", got)
	}
	clients := s.startLoad("m", 2, func(x float32, y []float32, err error) (int64, string) {
		if err != nil || len(y) != 1 || y[0] != 1 {
			return 0, fmt.Sprintf("answered %v, %v to %v", y, err, x)
		}
		return 1, ""
	})
	clients.more(20)
	text, err := s.UseRuntime(t.Context(), "2.20.0", "the test")
	if err != nil {
		t.Fatal(err)
	}
	if want := "runtime 2.20.0 is in use and chosen: 2 live versions have been loaded, proven and taken over"; text != want {
		t.Errorf("%q", text)
	}
	clients.more(50)
	for m, pid := range before {
		if now := s.live(m, 1).Worker.PID; now == pid {
			t.Errorf("model %s is still in process %d", m, pid)
		}
	}
	s.processes(3) // the zygote and two workers
	choice, err := runtimes.In(cfg.StateDir).Choice()
	if got := s.runtime(); got != "2.20.0" || err != nil || choice.Version != "2.20.0" || choice.By != "the test" {
		t.Errorf("runtime %s is in use, %+v is chosen, %v", got, choice, err)
	}

	// One that cannot be opened.
	pid := s.live("m", 1).Worker.PID
	if _, err := s.UseRuntime(t.Context(), "9.0.0", "the test"); err == nil || !strings.Contains(err.Error(), "GLIBC_9.14") {
		t.Errorf("a runtime that cannot be opened: %v", err)
	}
	s.until("that is said", func(*control.Status) bool {
		return strings.Contains(s.condition(health.CodeRuntimeChoice), "runtime 9.0.0 was tried and is not used")
	})

	// A good one, under which one model cannot be loaded: its files are others by now, and nothing was kept of them.
	if err := os.WriteFile(filepath.Join(s.models, "n", "1", "saved_model.pb"), []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.UseRuntime(t.Context(), "2.20.1", "the test"); err == nil || !strings.Contains(err.Error(), "model n version 1: its files changed") {
		t.Errorf("with a model that cannot be loaded: %v", err)
	}
	if _, err := s.UseRuntime(t.Context(), "2.19.0", "the test"); err == nil || !strings.Contains(err.Error(), "there is no runtime 2.19.0") {
		t.Errorf("one that is not there: %v", err)
	}
	clients.more(50)
	if got, now := s.runtime(), s.live("m", 1).Worker.PID; got != "2.20.0" || now != pid {
		t.Errorf("runtime %s is in use, model m in process %d, which was %d", got, now, pid)
	}
	removeAll(t, filepath.Join(s.models, "n"))
	s.processes(2)

	// What comes later is loaded with it too, and it can be changed back.
	if _, err := s.UseRuntime(t.Context(), "2.20.1", "the test"); err != nil {
		t.Fatal(err)
	}
	if got := s.condition(health.CodeRuntimeChoice); got != "" {
		t.Errorf("the condition stays: %s", got)
	}
	s.publish("late", 1, modeltest.Affine(0, 1))
	s.live("late", 1)
	if good, refused := clients.end(); refused != 0 || good < 100 {
		t.Errorf("%d answers, %d refused", good, refused)
	}
}

// A version that serves under no runtime's golden cases but the old one's would be caught like this: while one is loading or on probation nothing is
// changed, and a caller that goes away leaves nothing behind.
func TestRuntimeChangeIsCalledOff(t *testing.T) {
	cfg := testConfig(t, nil)
	installRuntimes(t, cfg, "2.20.0", "2.20.1")
	s := run(t, cfg)
	s.publish("m", 1, modeltest.Affine(0, 1))
	pid := s.live("m", 1).Worker.PID
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.UseRuntime(ctx, "2.20.0", "the test"); err == nil {
		t.Error("it was changed for nobody")
	}
	if now := s.live("m", 1).Worker.PID; now != pid || s.runtime() != "2.20.1" {
		t.Errorf("process %d, runtime %s", now, s.runtime())
	}
	s.processes(2)
	if _, err := s.UseRuntime(t.Context(), "2.20.0", "the test"); err != nil {
		t.Error(err)
	}
}

func TestStartFallsBackToAnotherRuntime(t *testing.T) {
	for _, c := range []struct {
		name, chosen string
		installed    []string
		want         string // in use
		says         string
	}{
		{"the chosen one cannot be opened", "9.0.0", []string{"-9.0.0", "2.20.0"}, "2.20.0", "could not be opened"},
		{"the highest cannot be opened", "", []string{"-9.0.0", "2.20.0"}, "2.20.0", "could not be opened"},
		{"the chosen one is gone", "8.0.0", []string{"2.20.0"}, "2.20.0", "runtime 8.0.0, which was chosen, cannot be used: it is not there any more"},
		{"all is well", "2.20.0", []string{"2.20.0", "2.20.1"}, "2.20.0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := testConfig(t, nil)
			installRuntimes(t, cfg, c.installed...)
			if c.chosen != "" {
				if err := os.WriteFile(filepath.Join(cfg.StateDir, "runtime.json"), fmt.Appendf(nil, `{"version": %q}`, c.chosen), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := run(t, cfg)
			s.publish("m", 1, modeltest.Affine(0, 1))
			s.live("m", 1)
			if got := s.runtime(); got != c.want {
				t.Errorf("runtime %s is in use", got)
			}
			if got := s.condition(health.CodeRuntimeChoice); !strings.Contains(got, c.says) || (got == "") != (c.says == "") {
				t.Errorf("condition %q", got)
			}
		})
	}
}
