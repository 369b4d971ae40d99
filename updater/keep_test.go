// keep_test.go: good versions that are kept a second time, and what that is good for after their folders were overwritten or removed.
package updater

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// keeping makes the box keep good versions.
func (b *box) keeping(w *world, o *Options) {
	o.KeepDir, o.KeepCopyBytes = b.store(), 1<<20
	o.Models[0].KeepLastGood = true
}

func (b *box) store() string { return filepath.Join(filepath.Dir(b.state), "versions") }

// wantKept compares what lies in the store: "1 2".
func (w *world) wantKept(b *box, want string) {
	w.t.Helper()
	entries, err := os.ReadDir(filepath.Join(b.store(), "m"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "-")
		got = append(got, number)
	}
	if text := strings.Join(got, " "); text != want {
		w.t.Fatalf("kept: %s, want %s", text, want)
	}
}

func remove(t *testing.T, dir string) {
	t.Helper()
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
}

func overwrite(t *testing.T, dir, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "saved_model.pb"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
}

// from is the folder that the model's answers come from.
func (w *world) from() string {
	w.t.Helper()
	h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.Release()
	return h.Version().Dir
}

// What is live and the good version before it are kept, and nothing else.
func TestKeptAreLiveAndLastGood(t *testing.T) {
	b := newBox(t)
	b.run(b.keeping, func(w *world) {
		for i, want := range []string{"1", "1 2", "2 3", "3 4"} {
			put(t, w.sub(i+1), "")
			w.pass(8 * time.Second)
			w.wantLive(int64(i + 1))
			w.wantKept(b, want)
		}
		if m := w.model(); slices.ContainsFunc(m.Versions, func(v VersionStatus) bool { return v.Kept }) {
			t.Fatalf("copies that nothing needs show: %+v", m.Versions)
		}
		put(t, w.sub(5), "die")
		w.pass(8 * time.Second)
		w.wantKept(b, "3 4")
	})
}

// A restart brings back what served although its folder was removed, overwritten or cut back, or its base path is not there.
func TestRestartFromTheKeptCopy(t *testing.T) {
	for name, harm := range map[string]func(b *box){
		"removed":     func(b *box) { remove(t, b.sub("2")) },
		"overwritten": func(b *box) { overwrite(t, b.sub("2"), "die") },
		"cut back":    func(b *box) { _ = os.Truncate(filepath.Join(b.sub("2"), "data"), 0) },
		"incomplete":  func(b *box) { remove(t, filepath.Join(b.sub("2"), "data")) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.run(b.keeping, func(w *world) {
				put(t, b.sub("1"), "")
				w.pass(6 * time.Second)
				put(t, b.sub("2"), "right")
				w.pass(8 * time.Second)
				w.wantLive(2)
			})
			harm(b)
			for range 2 {
				served := false
				b.run(func(w *world, o *Options) {
					b.keeping(w, o)
					w.during = func(c Candidate) { served = served || c.Number == 2 }
				}, func(w *world) {
					w.pass(8 * time.Second)
					if name == "removed" { // somebody removed it: the one before takes its place once it is proven, as while inferd runs
						w.wantLive(1)
						return
					}
					w.wantLive(2)
					if dir := w.from(); !strings.HasPrefix(dir, b.store()) {
						t.Fatalf("served from %s", dir)
					}
					if v, _ := w.model().Version(2); !served || !v.Kept || !strings.Contains(v.Reason, "kept copy") {
						t.Fatalf("%+v", v)
					}
				})
			}
			if name == "removed" {
				return
			}
			b.run(b.keeping, func(w *world) {
				w.pass(8 * time.Second)
				put(t, b.sub("3"), "")
				w.pass(8 * time.Second)
				w.wantLive(3)
				w.wantKept(b, "2 3")
			})
		})
	}
}

// All of the folders gone, the kept copy serves until the base path has been empty for long enough; and where it is not there at all
// (a disk that is not mounted yet), until it is.
func TestRestartWithoutFolders(t *testing.T) {
	b := newBox(t)
	grace := func(w *world, o *Options) {
		b.keeping(w, o)
		o.EmptyGrace = time.Minute
	}
	put(t, b.sub("2"), "")
	b.run(grace, func(w *world) {
		w.pass(8 * time.Second)
		w.wantLive(2)
	})
	away := b.dir + ".away"
	if err := os.Rename(b.dir, away); err != nil {
		t.Fatal(err)
	}
	b.run(func(w *world, o *Options) {
		grace(w, o)
		remove(t, b.dir) // the harness makes it
	}, func(w *world) {
		w.pass(10 * time.Minute)
		w.wantLive(2)
		if err := os.Rename(away, b.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(20 * time.Second)
		w.wantLive(2)
		if w.from() != b.sub("2") {
			t.Fatalf("served from %s although the folder is back", w.from())
		}
	})
	remove(t, b.sub("2"))
	b.run(grace, func(w *world) {
		w.pass(30 * time.Second)
		w.wantLive(2)
		w.pass(time.Minute)
		w.wantLive()
		put(t, b.sub("1"), "")
		w.pass(10 * time.Second)
		w.wantLive(1)
	})
}

// A rollback goes back to the bytes that were good, whatever has become of their folder.
func TestRollbackToTheKeptCopy(t *testing.T) {
	for name, harm := range map[string]func(b *box){
		"removed":     func(b *box) { remove(t, b.sub("1")) },
		"overwritten": func(b *box) { overwrite(t, b.sub("1"), "other") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.run(b.keeping, func(w *world) {
				put(t, b.sub("1"), "")
				w.pass(6 * time.Second)
				put(t, b.sub("2"), "")
				w.pass(8 * time.Second)
				w.wantLive(2)
				harm(b)
				w.pass(8 * time.Second)
				w.wantLive(2)
				w.ask(w.c.Rollback(w.t.Context(), "m", "uid 1"))
				w.pass(8 * time.Second)
				w.wantLive(1)
				if dir := w.from(); !strings.HasPrefix(dir, b.store()) {
					t.Fatalf("served from %s", dir)
				}
			})
			b.run(b.keeping, func(w *world) { // and it holds
				w.pass(8 * time.Second)
				w.wantLive(1)
				put(t, b.sub("3"), "")
				w.pass(8 * time.Second)
				w.wantLive(3)
			})
		})
	}
}

// A kept copy that is damaged itself is not served: the good version before it is.
func TestDamagedCopy(t *testing.T) {
	b := newBox(t)
	b.run(b.keeping, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(6 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(8 * time.Second)
		w.wantLive(2)
		remove(t, b.sub("1"))
	})
	copies, err := filepath.Glob(filepath.Join(b.store(), "m", "2-*"))
	if err != nil || len(copies) != 1 {
		t.Fatal(copies, err)
	}
	overwrite(t, copies[0], "damage")
	overwrite(t, b.sub("2"), "damage")
	b.run(b.keeping, func(w *world) {
		w.pass(8 * time.Second)
		w.wantLive(1)
		if dir := w.from(); !strings.HasPrefix(dir, b.store()) || w.loadCount("2") != 0 {
			t.Fatalf("served from %s", dir)
		}
	})
}

// A worker that is started again gets the bytes that were loaded first: from the folder, from the kept copy, or not at all.
func TestWorkerStartedAgain(t *testing.T) {
	ask := func(w *world) (string, error) {
		w.mu.Lock()
		again := w.again
		w.mu.Unlock()
		return again(w.t.Context())
	}
	catch := func(w *world) {
		w.during = func(c Candidate) {
			w.mu.Lock()
			w.again = c.Again
			w.mu.Unlock()
		}
	}
	b := newBox(t)
	b.run(func(w *world, o *Options) {
		b.keeping(w, o)
		catch(w)
	}, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(6 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(8 * time.Second)
		if dir, err := ask(w); err != nil || dir != b.sub("2") {
			t.Fatal(dir, err)
		}
		overwrite(t, b.sub("2"), "other")
		w.pass(8 * time.Second)
		dir, err := ask(w)
		if err != nil || !strings.HasPrefix(dir, b.store()) {
			t.Fatal(dir, err)
		}
		w.pass(time.Second)
		w.wantLive(2)
		if v, _ := w.model().Version(2); !strings.Contains(v.Reason, "kept copy") || !slices.Contains(w.events(), "kept copy used 2") {
			t.Fatalf("%+v %v", v, w.events())
		}
		overwrite(t, dir, "damage")
		if dir, err = ask(w); err == nil {
			t.Fatal(dir)
		}
		w.pass(8 * time.Second)
		w.wantLive(1)
		w.wantPublic("2 END DATA_LOSS, 1 AVAILABLE")
		over, cancel := context.WithCancel(w.t.Context())
		cancel()
		w.mu.Lock()
		again := w.again
		w.mu.Unlock()
		if _, err := again(over); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
	t.Run("nothing kept", func(t *testing.T) {
		b := newBox(t)
		b.run(func(w *world, _ *Options) { catch(w) }, func(w *world) {
			put(t, b.sub("1"), "")
			w.pass(6 * time.Second)
			put(t, b.sub("2"), "")
			w.pass(8 * time.Second)
			away := b.sub("2") + ".away"
			if err := os.Rename(b.sub("2"), away); err != nil {
				t.Fatal(err)
			}
			if _, err := ask(w); err == nil || !strings.Contains(err.Error(), "could not be read") {
				t.Fatal(err)
			}
			if err := os.Rename(away, b.sub("2")); err != nil {
				t.Fatal(err)
			}
			w.pass(8 * time.Second)
			w.wantLive(2) // nothing is known against it
			overwrite(t, b.sub("2"), "other")
			if dir, err := ask(w); err == nil {
				t.Fatal(dir)
			}
			w.pass(8 * time.Second)
			w.wantLive(1)
		})
	})
}

// A forgotten model's copies go, and those that an earlier life left behind.
func TestCopiesOfForgottenModels(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(b.keeping, func(w *world) {
		w.pass(8 * time.Second)
		w.wantKept(b, "1")
		if err := w.c.Reconfigure(nil); err != nil {
			t.Fatal(err)
		}
		w.pass(20 * time.Minute)
		if left, _ := os.ReadDir(b.store()); len(left) != 0 {
			t.Fatal(left)
		}
	})
	stray := filepath.Join(b.store(), "x")
	put(t, filepath.Join(stray, "1-ab"), "")
	b.run(b.keeping, func(w *world) {
		w.pass(8 * time.Second)
		if _, err := os.Stat(stray); !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		w.wantKept(b, "1")
	})
}

func holds(c *Controller, dir string, sum tree) bool {
	differs, unread := c.still(context.Background(), dir, sum)
	return differs == nil && unread == nil
}

// A version that is too large to be copied is hard linked, and one that cannot be kept serves all the same.
func TestWaysToKeep(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "1"), "x")
	if err := os.Symlink("data", filepath.Join(dir, "1", "link")); err != nil {
		t.Fatal(err)
	}
	c, err := New(inference.NewCatalog(), Options{Read: readFake, Load: (&world{}).load,
		Serve: func(*inference.Version, inference.Runner, Candidate, Proof) inference.Servable { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	sum, err := treeOf(t.Context(), filepath.Join(dir, "1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	for limit, want := range map[int64][]duplicate{1 << 20: {byReflink, byCopy}, 0: {byReflink, byLink}} {
		to := filepath.Join(dir, "store", "m", keptName(1, sum))
		how, print, err := c.keep(t.Context(), filepath.Join(dir, "1"), sum, to, limit)
		if err != nil || !slices.Contains(want, how) || !c.same(to, print) || !holds(c, to, sum) {
			t.Fatalf("limit %d: %v %v", limit, how, err)
		}
	}
	c.opts.DiskFloor = func() int64 { return 1 << 62 } // no disk has that much
	if how, _, err := c.keep(t.Context(), filepath.Join(dir, "1"), sum, filepath.Join(dir, "store", "m", keptName(1, sum)), 1<<20); err != nil || how == byCopy {
		t.Fatalf("below the disk's floor: %v %v", how, err)
	}
	c.opts.DiskFloor = nil
	other := sum
	other.Sum = "another"
	to := filepath.Join(dir, "store", "m", "1-other")
	if _, _, err := c.keep(t.Context(), filepath.Join(dir, "1"), other, to, 1<<20); err == nil {
		t.Fatal("other bytes were kept")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "store", "m", "*other*")); len(left) != 0 {
		t.Fatal(left)
	}
	for model, want := range map[string]string{"m": "m", "..": "%2E.", "a b": "a%20b", strings.Repeat("é", 100): ""} {
		if got := storeName(model); (want != "" && got != want) || len(got) > 200 || strings.Contains(got, "/") {
			t.Errorf("%q is stored as %q", model, got)
		}
	}
}

// Where the models directory is not there at a start (a disk that is not mounted), what served serves from the kept copies, and when
// the directory comes its folders decide.
func TestRestartWithoutModelsDirectory(t *testing.T) {
	b := newBox(t)
	root := filepath.Dir(b.dir) // the state lies beside, and is no model: it has no version
	models := filepath.Join(root, "models")
	change := func(w *world, o *Options) {
		b.keeping(w, o)
		o.Models, o.ModelsDir, o.EmptyGrace = nil, models, time.Minute
		o.Discovered = func(m *Model) { m.KeepLastGood = true }
	}
	put(t, filepath.Join(models, "m", "1"), "")
	put(t, filepath.Join(models, "gone", "1"), "die")
	b.run(change, func(w *world) {
		w.pass(8 * time.Second)
		w.wantLive(1)
	})
	if err := os.Rename(models, models+".away"); err != nil {
		t.Fatal(err)
	}
	b.run(change, func(w *world) {
		w.pass(10 * time.Minute)
		w.wantLive(1)
		if _, known := w.c.Status().Model("gone"); known {
			t.Error("a model that never served was brought back")
		}
		if err := os.Rename(models+".away", models); err != nil {
			t.Fatal(err)
		}
		w.pass(20 * time.Second)
		if w.from() != filepath.Join(models, "m", "1") {
			t.Fatalf("served from %s", w.from())
		}
	})
	// A mount point without its mount is an empty directory.
	remove(t, filepath.Join(models, "m"))
	b.run(change, func(w *world) {
		w.pass(30 * time.Second)
		w.wantLive(1)
		w.pass(2 * time.Minute)
		w.wantLive()
	})
}

// What serves is not left for an older kept copy when its folder is replaced by one that is still being copied.
func TestReplacedFolderGoesNotBack(t *testing.T) {
	b := newBox(t)
	b.run(func(w *world, o *Options) {
		b.keeping(w, o)
		w.tweak = func(c *Controller) {
			c.sync = func(f *os.File) error {
				if strings.Contains(f.Name(), storeTemporary+"2-") {
					return syscall.ENOSPC // so that version 2 is not kept
				}
				return nil
			}
		}
	}, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(6 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(8 * time.Second)
		w.wantLive(2)
		remove(t, b.sub("1"))
		w.pass(6 * time.Second)
		remove(t, b.sub("2"))
		writeFiles(t, b.sub("3"), "data") // as rsync --delete leaves it for a while
		for range 12 {
			w.pass(time.Second / 2)
			w.wantLive(2)
		}
		put(t, b.sub("3"), "")
		w.pass(8 * time.Second)
		w.wantLive(3)
		if w.loadCount(filepath.Base(b.sub("1"))) != 1 {
			t.Error("version 1 was loaded again")
		}
	})
}
