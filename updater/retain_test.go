// retain_test.go: old version folders that may be removed, and those that may not.
package updater

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// folders are the numeric folders of m: "1 2".
func (w *world) folders() string {
	w.t.Helper()
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

func TestRetain(t *testing.T) {
	type step struct {
		number int
		script string
		want   string // folders, some seconds after number was put there
	}
	for name, test := range map[string]struct {
		retain int
		change func(o *Options)
		steps  []step
	}{
		"off":           {steps: []step{{1, "", "1"}, {2, "", "1 2"}, {3, "", "1 2 3"}, {4, "", "1 2 3 4"}}},
		"two":           {retain: 2, steps: []step{{1, "", "1"}, {2, "", "1 2"}, {3, "", "2 3"}, {4, "", "3 4"}}},
		"the last good": {retain: 1, steps: []step{{1, "", "1"}, {2, "", "1 2"}, {3, "", "2 3"}}},
		"refused":       {retain: 2, steps: []step{{1, "", "1"}, {2, "die", "1 2"}, {3, "", "1 2 3"}, {4, "", "3 4"}, {5, "die", "3 4 5"}}},
		"never tried":   {retain: 1, steps: []step{{10, "", "10"}, {1, "", "1 10"}, {11, "", "1 10 11"}, {12, "", "1 11 12"}}},
		"labelled": {retain: 1, change: func(o *Options) { o.Models[0].Labels = map[string]int64{"old": 1} },
			steps: []step{{1, "", "1"}, {2, "", "1 2"}, {3, "", "1 2 3"}, {4, "", "1 3 4"}}},
		"wanted": {retain: 1, change: func(o *Options) { o.Models[0].Policy.Latest = 3 },
			steps: []step{{1, "", "1"}, {2, "", "1 2"}, {3, "", "1 2 3"}, {4, "", "1 2 3 4"}, {5, "", "2 3 4 5"}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.run(func(w *world, o *Options) {
				o.Models[0].Retain = test.retain
				if test.change != nil {
					test.change(o)
				}
			}, func(w *world) {
				for _, s := range test.steps {
					put(w.t, w.sub(s.number), s.script)
					w.pass(12 * time.Second)
					if g := w.folders(); !sameFolders(g, s.want) {
						w.t.Fatalf("after %d: folders %s, want %s; %v", s.number, g, s.want, w.events())
					}
				}
			})
		})
	}
}

func sameFolders(a, b string) bool {
	x, y := strings.Fields(a), strings.Fields(b)
	slices.Sort(x)
	slices.Sort(y)
	return slices.Equal(x, y)
}

// A pinned version stays, and so does everything that a rollback is about.
func TestRetainLeavesIntent(t *testing.T) {
	b := newBox(t)
	b.run(func(_ *world, o *Options) { o.Models[0].Retain = 1 }, func(w *world) {
		put(t, w.sub(1), "")
		w.pass(10 * time.Second)
		w.ask(w.c.Pin(w.t.Context(), "m", 1, ""))
		for i := 2; i <= 3; i++ {
			put(t, w.sub(i), "")
			w.pass(10 * time.Second)
		}
		w.wantLive(1)
		if got := w.folders(); got != "1 2 3" {
			w.t.Fatal(got)
		}
		w.ask(w.c.Unpin(w.t.Context(), "m", ""))
		w.pass(10 * time.Second)
		w.wantLive(3)
		w.ask(w.c.Rollback(w.t.Context(), "m", ""))
		w.pass(10 * time.Second)
		w.wantLive(1)
		if got := w.folders(); got != "1 2 3" {
			w.t.Fatal(got)
		}
	})
}

// A link to a version goes alone, what a removal left is removed with the next.
func TestRemoveFolder(t *testing.T) {
	base := t.TempDir()
	put(t, filepath.Join(base, "elsewhere", "1"), "")
	if err := os.Symlink(filepath.Join("elsewhere", "1"), filepath.Join(base, "1")); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(base, "2"), "")
	put(t, filepath.Join(base, removedPrefix+"3-x"), "")
	for _, dir := range []string{"1", "2"} {
		if err := removeFolder(filepath.Join(base, dir)); err != nil {
			t.Fatal(err)
		}
	}
	if err := removeLeftovers(base); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(filepath.Join(base, "*")); len(left) != 1 || filepath.Base(left[0]) != "elsewhere" {
		t.Fatal(left)
	}
	if _, err := os.Stat(filepath.Join(base, "elsewhere", "1", "data")); err != nil {
		t.Fatal(err)
	}
	if err := removeFolder(filepath.Join(base, "7")); !os.IsNotExist(err) {
		t.Fatal(err)
	}
}

// The status warns when versions that are not served fill the disk.
func TestCrowdedDisk(t *testing.T) {
	b := newBox(t)
	room := disk{Free: 50 << 20, Whole: 1000 << 20}
	b.run(func(w *world, _ *Options) {
		w.tweak = func(c *Controller) {
			real := c.look
			c.look = func(base string) look {
				found := real(base)
				found.Disk = room
				for i := range found.Folders {
					found.Folders[i].Print.Bytes = 30 << 20
				}
				return found
			}
		}
	}, func(w *world) {
		for i := 1; i <= 2; i++ {
			put(t, w.sub(i), "")
			w.pass(6 * time.Second)
		}
		if m := w.model(); m.Crowded != "" {
			w.t.Fatal(m.Crowded)
		}
		put(t, w.sub(3), "")
		w.pass(12 * time.Second)
		want := fmt.Sprintf("50 MB of 1000 MB are free under %s, and versions that are not served take 60 MB of it: 2, 1", w.dir)
		if m := w.model(); !strings.HasPrefix(m.Crowded, want) {
			w.t.Fatal(m.Crowded)
		}
	})
}

// A version of many files is put on disk with all of its file system, once.
func TestManyFilesAreSyncedAtOnce(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	for i := range syncfsFiles {
		writeFiles(t, b.sub("1"), fmt.Sprintf("f%d", i))
	}
	var whole []string
	b.run(func(w *world, _ *Options) {
		w.tweak = func(c *Controller) {
			c.sync = func(f *os.File) error { w.fault("synced alone: " + f.Name()); return nil }
			c.syncFS = func(dir string) error { whole = append(whole, dir); return nil }
		}
	}, func(w *world) {
		w.pass(6 * time.Second)
		w.wantLive(1)
		if !slices.Equal(whole, []string{b.sub("1")}) || !slices.Contains(w.events(), "good 1") {
			w.t.Fatal(whole, w.events())
		}
	})
}
