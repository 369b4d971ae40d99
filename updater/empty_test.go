// empty_test.go: base paths that turn up empty or missing, and folders that leave the models directory.
package updater

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestEmptyGrace(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.EmptyGrace = time.Minute
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		if err := os.Rename(w.sub(1), w.dir+"1"); err != nil {
			t.Fatal(err)
		}
		w.pass(50 * time.Second)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, " is empty since ") || !strings.Contains(m.Problem, "; still serving version 1; it is unloaded at ") {
			t.Fatalf("said: %s", m.Problem)
		}
		if err := os.Rename(w.dir+"1", w.sub(1)); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.wantLive(1)
		if m := w.model(); m.Problem != "" {
			t.Fatalf("still said: %s", m.Problem)
		}
		if err := os.RemoveAll(w.sub(1)); err != nil {
			t.Fatal(err)
		}
		w.pass(40 * time.Second)
		w.wantLive(1)
		// Missing is not empty: nothing is unloaded, and the time begins anew.
		if err := os.Remove(w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist") {
			t.Fatalf("said: %s", m.Problem)
		}
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		w.pass(50 * time.Second)
		w.wantLive(1)
		w.pass(20 * time.Second)
		w.wantLive()
		if m := w.model(); !strings.Contains(m.Problem, "no version under") {
			t.Fatalf("said: %s", m.Problem)
		}
	})
}

// TestLeavingModelsDir: a model whose folder is gone from the models directory stays for the grace time; so does everything in it when
// the directory turns up empty, as a mount point does; one that is missing takes nothing away.
func TestLeavingModelsDir(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.ModelsDir, o.Models, o.EmptyGrace = w.dir, nil, time.Minute
		put(t, filepath.Join(w.dir, "m", "1"), "")
		put(t, filepath.Join(w.dir, "n", "1"), "")
	}, func(t *testing.T, w *world) {
		away := w.dir + ".away"
		move := func(from, to string) {
			t.Helper()
			if err := os.Rename(from, to); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(4 * time.Second)
		w.wantLive(1)
		move(filepath.Join(w.dir, "m"), away)
		w.pass(50 * time.Second)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist; still serving version 1; it is unloaded at ") {
			t.Fatalf("said: %s", m.Problem)
		}
		move(away, filepath.Join(w.dir, "m"))
		w.pass(time.Hour)
		w.wantLive(1)
		if m := w.model(); m.Problem != "" || m.Removed {
			t.Fatalf("%+v", m)
		}
		move(w.dir, away) // the models directory is missing
		w.pass(time.Hour)
		w.wantLive(1)
		if err := os.Mkdir(w.dir, 0o755); err != nil { // empty
			t.Fatal(err)
		}
		w.pass(50 * time.Second)
		w.wantLive(1)
		if err := os.Remove(w.dir); err != nil {
			t.Fatal(err)
		}
		move(away, w.dir)
		w.pass(time.Hour)
		w.wantLive(1)
		if err := os.RemoveAll(filepath.Join(w.dir, "m")); err != nil {
			t.Fatal(err)
		}
		w.pass(70 * time.Second)
		w.wantLive()
		if !w.model().Removed || !w.catalog.Available("n") {
			t.Fatalf("%+v", w.model())
		}
	})
}

// TestAwayBeforeItIsGood: files that are away while they are to be put on disk are not taken for others: the version is good when they
// are back, and gives what it replaces free.
func TestAwayBeforeItIsGood(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(func(w *world, o *Options) {
		o.EmptyGrace = time.Hour
		w.tweak = func(c *Controller) {
			c.sync = func(*os.File) error {
				if w.loadCount("2") > 0 {
					<-w.gate
				}
				return nil
			}
		}
	}, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Second)
		w.wantLive(2, 1)
		if err := os.Rename(b.dir, b.dir+".away"); err != nil {
			t.Fatal(err)
		}
		close(w.gate)
		w.pass(time.Minute)
		w.wantLive(2, 1)
		if v, _ := w.model().Version(2); !strings.Contains(v.Reason, "cannot be put on disk") {
			t.Fatalf("said: %q", v.Reason)
		}
		if err := os.Rename(b.dir+".away", b.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(2)
		if v, _ := w.model().Version(2); v.Reason != "" {
			t.Fatalf("still said: %q", v.Reason)
		}
	})
}
