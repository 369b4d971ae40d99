// links_test.go: versions that are symbolic links: switched, and leading nowhere for a while.
package updater

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// link makes name lead to target, in one step, as `ln -sfn` does.
func link(t *testing.T, target, name string) {
	t.Helper()
	if err := os.Symlink(target, name+".new"); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

// TestLinkedVersion: a version that is a link is one like any other: what it leads to is tried when that changes, unless it serves, and
// a link onto a mount that is away takes nothing down.
func TestLinkedVersion(t *testing.T) {
	start(t, func(w *world, _ *Options) {
		put(t, w.sub(1), "")
		put(t, filepath.Join(w.dir, "..", "builds", "bad"), "run INTERNAL")
		put(t, filepath.Join(w.dir, "..", "builds", "good"), "")
		link(t, "../builds/bad", w.sub(2))
	}, func(t *testing.T, w *world) {
		builds := filepath.Join(filepath.Dir(w.dir), "builds")
		w.pass(8 * time.Second)
		w.wantLive(1)
		link(t, "../builds/good", w.sub(2)) // the refused one leads elsewhere now
		w.pass(8 * time.Second)
		w.wantLive(2)
		put(t, filepath.Join(builds, "other"), "other")
		link(t, "../builds/other", w.sub(2))
		w.pass(8 * time.Second)
		w.wantLive(2)
		if v, _ := w.model().Version(2); !v.Changed || w.loadCount("2") != 2 {
			t.Fatalf("loaded %d times; %+v", w.loadCount("2"), v)
		}

		put(t, filepath.Join(builds, "three"), "")
		link(t, "../builds/three", w.sub(3))
		w.pass(8 * time.Second)
		w.wantLive(3)
		if err := os.Rename(builds, builds+".away"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(3)
		if m := w.model(); !strings.Contains(m.Problem, "version 3 serves, but its folder cannot be read") {
			t.Fatalf("said: %q", m.Problem)
		}
		if err := os.Rename(builds+".away", builds); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(3)
		if v, _ := w.model().Version(3); v.Changed || v.Reason != "" || w.model().Problem != "" || w.loadCount("3") != 1 {
			t.Fatalf("%q; loaded %d times; %+v", w.model().Problem, w.loadCount("3"), v)
		}
		if err := os.Remove(w.sub(3)); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Second)
		w.wantLive(2)
	})
}
