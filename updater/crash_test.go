// crash_test.go: kill -9 at each named step of an update, then a start on what is left.
package updater

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

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// A child is this test binary, run as an inferd that serves version 1 and is killed at a step of its update to version 2.
const (
	crashDir  = "UPDATER_CRASH_DIR"
	crashStep = "UPDATER_CRASH_STEP"
)

// crashChild serves m of the directory until version 2 has come to the step, and kills itself there.
func crashChild(dir, step string) error {
	db, err := storage.Open(filepath.Join(dir, "state.db"), storage.Options{})
	if err != nil {
		return err
	}
	w := &world{dir: filepath.Join(dir, "m"), catalog: inference.NewCatalog(), loads: make(map[string]int), log: &lines{}}
	c, err := New(w.catalog, Options{
		Models: []Model{{Name: "m", BasePath: w.dir}}, PollInterval: 50 * time.Millisecond, SettleTime: 20 * time.Millisecond,
		Read: readFake, Load: w.load, Journal: db.State(), Build: "test",
		Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
			return &fakeServable{w: w, runner: r}
		},
	})
	if err != nil {
		return err
	}
	armed := make(chan struct{})
	c.hook = func(at string) {
		select {
		case <-armed:
		default:
			return
		}
		if at == step {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // it does not return
			select {}
		}
	}
	go func() {
		_, _ = c.Wait(context.Background(), func(s Status) bool {
			m, _ := s.Model("m")
			return slices.Contains(m.Live, 1)
		})
		for {
			if all, err := c.History("m", 100); err == nil && slices.ContainsFunc(all, func(e Event) bool { return e.What == "good" }) {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		close(armed)
		_ = os.Rename(filepath.Join(dir, "2"), filepath.Join(w.dir, "2"))
	}()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Run(ctx); err != nil {
		return err
	}
	return fmt.Errorf("step %s was never reached", step)
}

func TestKilledAtEachStep(t *testing.T) {
	for _, step := range []string{"trying", "warming", "loaded", "published", "good", "retired"} {
		t.Run(step, func(t *testing.T) {
			b := newBox(t)
			dir := filepath.Dir(b.dir)
			b.state = filepath.Join(dir, "state.db")
			put(t, b.sub("1"), "")
			put(t, filepath.Join(dir, "2"), "")
			kill := func() {
				t.Helper()
				cmd := exec.CommandContext(t.Context(), os.Args[0])
				cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStep+"="+step)
				out, err := cmd.CombinedOutput()
				var exit *exec.ExitError
				if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("the child ended with %v: %s", err, out)
				}
			}
			kill()
			db, err := storage.Open(b.state, storage.Options{})
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(CheckJournal(db.State()), db.Close()); err != nil {
				t.Error(err)
			}
			var order []string
			b.run(func(w *world, _ *Options) {
				w.during = func(c Candidate) { order = append(order, filepath.Base(c.Dir)) }
			}, func(w *world) {
				w.pass(8 * time.Second)
				w.wantLive(2) // a kill is no verdict on the version
				events := strings.Join(w.events(), ", ")
				interrupted := strings.Contains(events, "interrupted 2")
				// The note of the publication is written behind it, so a kill right then may come before the note.
				if step != "published" && interrupted != (step == "trying" || step == "warming" || step == "loaded") {
					t.Errorf("history: %s", events)
				}
				// Where version 1 is known to have served, and 2 is not, 1 comes first.
				want := "1 2"
				if step == "good" || step == "published" || step == "retired" {
					want = ""
				}
				if got := strings.Join(order, " "); want != "" && got != want {
					t.Errorf("loaded %s, want %s", got, want)
				}
			})
		})
	}
}

// A version in whose load inferd ends twice is not tried at the next start; `retry` tries it.
func TestInterruptedTwice(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("2"), "")
	db, err := storage.Open(b.state, storage.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, _, err := printOf(b.sub("2"))
	if err != nil {
		t.Fatal(err)
	}
	r := &chronicle{Trying: &trying{Number: 2, Print: p.Digest, Count: interruptLimit, At: time.Now()}}
	if err := errors.Join(db.State().Record("m", encode(r)), db.Close()); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b.run(nil, func(w *world) {
			w.pass(6 * time.Second)
			w.wantLive()
			if v, _ := w.model().Version(2); v.State != StateQuarantined || !strings.Contains(v.Reason, "inferd ended 2 times") || w.loadCount("2") != 0 {
				t.Fatalf("%+v", v)
			}
		})
	}
	b.run(nil, func(w *world) {
		w.pass(6 * time.Second)
		w.ask(w.c.Retry(w.t.Context(), "m", 2, ""))
		w.pass(6 * time.Second)
		w.wantLive(2)
	})
}
