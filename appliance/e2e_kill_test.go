// e2e_kill_test.go: a whole inferd, its own process, killed at each named step of an update; then a start on what is left.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/storage"
	"github.com/inferd/inferd/updater"
)

// envStep is "step:file": the core kills itself at the step once the file is there.
const envStep = "INFERD_TEST_STEP"

// envLong asks for the long form of a test.
const envLong = "INFERD_LONG"

// stepKiller is the core's Options.step. It kills only once the doors are open, for whoever started the core waits for that.
func stepKiller(opened <-chan struct{}) func(name string) {
	step, armed, ok := strings.Cut(os.Getenv(envStep), ":")
	if !ok {
		return nil
	}
	return func(name string) {
		if _, err := os.Stat(armed); err == nil && name == step {
			<-opened
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it comes at once
		}
	}
}

// short reports whether the short form of a test is asked for, and says so.
func short(t testing.TB) bool {
	t.Helper()
	if os.Getenv(envLong) != "" {
		return false
	}
	t.Logf("SHORT form: %s=1 has the long one", envLong)
	return true
}

// died waits for the core's end by SIGKILL.
func (c *core) died(t *testing.T) {
	t.Helper()
	ended := watch(t, c.cmd.Process.Pid)
	ended(t)
	var exit *exec.ExitError
	if err := c.cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the core ended with %v", err)
	}
}

// audit checks the state file of a core that has ended.
func audit(t *testing.T, cfg *config.Config) {
	t.Helper()
	db, err := storage.Open(filepath.Join(cfg.StateDir, stateFile), storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(updater.CheckJournal(db.State()), db.Close()); err != nil {
		t.Error(err)
	}
}

// until waits for a status of the core.
func (c *core) until(t *testing.T, cfg *config.Config, what string, ok func(*control.Status) bool) {
	t.Helper()
	client := control.Dial(cfg.Listen.Control)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ; ; time.Sleep(10 * time.Millisecond) {
		st, err := client.Status(ctx)
		if err == nil && ok(st) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("never came: %s; %+v %v", what, st, err)
		}
	}
}

// good waits until the journal counts the version as good.
func (c *core) good(t *testing.T, cfg *config.Config, number int64) {
	t.Helper()
	client := control.Dial(cfg.Listen.Control)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ; ; time.Sleep(10 * time.Millisecond) {
		events, err := client.History(ctx, "m", 100)
		if slices.ContainsFunc(events, func(e updater.Event) bool { return e.What == "good" && e.Version == number }) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("version %d was never noted as good: %v %v", number, events, err)
		}
	}
}

// TestDaemonKilledAtEachStep: whatever step of a first load, an update or a rollback a kill -9 comes at, what is left of the journal is in
// order, a start serves what served, and the update or rollback is brought to its end.
func TestDaemonKilledAtEachStep(t *testing.T) {
	all := []string{"trying", "warming", "loaded", "published", "good", "retired"}
	steps := map[string][]string{"first load": all[:5], "update": all, "rollback": {"trying", "warming", "loaded", "published", "retired"}}
	if short(t) {
		steps = map[string][]string{"first load": {"loaded"}, "update": {"trying", "loaded", "published", "good"}, "rollback": {"loaded", "published"}}
	}
	for _, c := range []struct {
		name   string
		begin  []int64 // live one after the other before it
		served int64   // at the time of the kill
		want   int64   // in the end
	}{{"first load", nil, 0, 1}, {"update", []int64{1}, 1, 2}, {"rollback", []int64{1, 2}, 2, 1}} {
		for _, step := range steps[c.name] {
			t.Run(c.name+"/"+step, func(t *testing.T) {
				lib := library(t)
				cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = lib })
				base, armed := filepath.Join(cfg.ModelsDir, "m"), filepath.Join(filepath.Dir(cfg.ModelsDir), "armed")
				publish := func(n int64) { modeltest.WriteVersion(t, base, n, modeltest.Affine(0, float32(n))) }
				t.Setenv(envStep, step+":"+armed)
				first := startCore(t, cfg)
				for _, n := range c.begin {
					publish(n)
					first.good(t, cfg, n)
					first.until(t, cfg, fmt.Sprintf("version %d alone live", n), func(st *control.Status) bool {
						old := version(st, "m", n-1)
						return isLive(st, "m", n) && (old == nil || old.Stage == "retired")
					})
				}
				if err := os.WriteFile(armed, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				if c.want > c.served {
					publish(c.want)
				} else {
					client := control.Dial(cfg.Listen.Control)
					_, err := client.Verb(t.Context(), "rollback", "m", 0)
					client.Close()
					if err != nil {
						t.Fatal(err)
					}
				}
				first.died(t)
				audit(t, cfg)

				t.Setenv(envStep, "")
				second := startCore(t, cfg)
				answered := second.answers(t, cfg, c.want)
				if len(answered) > 2 || slices.ContainsFunc(answered, func(n int64) bool { return n != c.served && n != c.want }) {
					t.Errorf("versions %v answered, want %d at most before %d", answered, c.served, c.want)
				}
				// Before the publication only what served before may come first.
				if early := step == "trying" || step == "warming" || step == "loaded"; early && c.served != 0 && c.name == "update" && answered[0] != c.served {
					t.Errorf("versions %v answered, and %d served when it was killed", answered, c.served)
				}
				second.good(t, cfg, c.want)
				kill(t, second.cmd.Process.Pid, syscall.SIGTERM)
				if err := second.cmd.Wait(); err != nil {
					t.Errorf("after SIGTERM: %v", err)
				}
				audit(t, cfg)
			})
		}
	}
}

// answers asks until the version answers that is wanted and is alone, and returns which versions answered, in order. Once one has, no
// request may fail.
func (c *core) answers(t *testing.T, cfg *config.Config, want int64) (seen []int64) {
	t.Helper()
	client := control.Dial(cfg.Listen.Control)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		y, err := c.ask(ctx)
		switch {
		case ctx.Err() != nil:
			t.Fatalf("version %d never answered: %v, %v", want, seen, err)
		case err != nil && len(seen) > 0:
			t.Fatalf("after versions %v answered: %v", seen, err)
		case err != nil:
			continue
		}
		if n := int64(y); len(seen) == 0 || seen[len(seen)-1] != n {
			seen = append(seen, n)
		}
		st, err := client.Status(ctx)
		if err != nil || seen[len(seen)-1] != want {
			continue
		}
		if n := slices.IndexFunc(st.Models, func(m control.Model) bool { return m.Name == "m" }); n >= 0 &&
			!slices.ContainsFunc(st.Models[n].Versions, func(v control.Version) bool { return v.Number != want && v.Stage != "retired" && v.Stage != "seen" }) {
			return seen
		}
	}
}
