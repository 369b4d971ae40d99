// restart_test.go: what a restart knows, with a real state file under it.
package updater

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/storage"
)

// box is a models directory and a state file that outlive the inferds that are started on them.
type box struct {
	t     *testing.T
	dir   string // the base path of m
	state string
	fail  func() error // of every Record
}

func newBox(t *testing.T) *box {
	dir := t.TempDir()
	return &box{t: t, dir: filepath.Join(dir, "m"), state: filepath.Join(dir, "state", "state.db")}
}

func (b *box) sub(n string) string { return filepath.Join(b.dir, n) }

// failing is a journal whose disk may be full.
type failing struct {
	Journal
	b *box
}

func (f failing) Record(model string, state []byte, events ...[]byte) error {
	if f.b.fail != nil {
		if err := f.b.fail(); err != nil {
			return err
		}
	}
	return f.Journal.Record(model, state, events...)
}

// run is one life of an inferd on the box.
func (b *box) run(change func(w *world, o *Options), body func(w *world)) {
	b.t.Helper()
	db, err := storage.Open(b.state, storage.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	start(b.t, func(w *world, o *Options) {
		w.dir = b.dir
		if err := os.MkdirAll(b.dir, 0o755); err != nil {
			b.t.Fatal(err)
		}
		o.Models[0].BasePath = b.dir
		o.Journal, o.Build = failing{db.State(), b}, "test"
		if change != nil {
			change(w, o)
		}
	}, func(_ *testing.T, w *world) { body(w) })
	if err := db.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// events is the history of m, oldest first: "published 1".
func (w *world) events() []string {
	w.t.Helper()
	all, err := w.c.History("m", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range slices.Backward(all) {
		out = append(out, e.What+" "+itoa(e.Version))
	}
	return out
}

func itoa(n int64) string { return strings.TrimSpace(string(encode(n))) }

func TestHistory(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Second)
		put(t, b.sub("3"), "load INVALID_ARGUMENT")
		w.pass(5 * time.Second)
		w.wantLive(2)
		want := "seen 1, trying 1, published 1, good 1, seen 2, trying 2, published 2, good 2, retired 1, seen 3, trying 3, refused 3"
		if got := strings.Join(w.events(), ", "); got != want {
			t.Fatalf("history:\n%s\nwant\n%s", got, want)
		}
	})
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(2)
	})
}

// A refused version stays refused over restarts, until its files, or what refused it, are others.
func TestQuarantineSurvives(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	put(t, b.sub("2"), "die")
	life := func(change func(w *world, o *Options), loads int, live ...int64) {
		t.Helper()
		b.run(change, func(w *world) {
			w.pass(8 * time.Second)
			w.wantLive(live...)
			if n := w.loadCount("2"); n != loads {
				t.Fatalf("version 2 was loaded %d times, want %d; %v", n, loads, w.events())
			}
			if len(live) > 0 && live[0] == 1 {
				if all := w.wantPublic("2 END UNAVAILABLE, 1 AVAILABLE"); !strings.Contains(all[0].Message, "model m version 2 refused") {
					t.Fatalf("message: %s", all[0].Message)
				}
			}
		})
	}
	life(nil, 1, 1)
	life(nil, 0, 1)
	life(nil, 0, 1)
	life(func(_ *world, o *Options) { o.Build = "newer" }, 1, 1)
	life(func(_ *world, o *Options) { o.Build = "newer" }, 0, 1)
	put(t, b.sub("2"), "")
	life(func(_ *world, o *Options) { o.Build = "newer" }, 1, 2)
}

// What served before a restart serves again before anything new is tried, so a bad newest version makes no start slow.
func TestRestartBringsBackFirst(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
	})
	put(t, b.sub("2"), "slow") // came while inferd was down, and its load takes for ever
	b.run(nil, func(w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		if v, _ := w.model().Version(2); v.State != StateLoading {
			t.Fatalf("version 2: %+v", v)
		}
	})
	// Without a record of what served, the newest would have been the first: the order comes from the journal.
	if err := os.Remove(b.state); err != nil {
		t.Fatal(err)
	}
	b.run(nil, func(w *world) {
		w.pass(4 * time.Second)
		w.wantLive()
	})
}

// Files that were cut back after their version went live are found out at the start, and the last good version serves.
func TestFilesCutBack(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "runs")
		w.pass(5 * time.Second)
		w.wantLive(2)
	})
	whole := read(t, filepath.Join(b.sub("2"), "data"))
	if err := os.Truncate(filepath.Join(b.sub("2"), "data"), int64(len(whole)-1)); err != nil {
		t.Fatal(err)
	}
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		all := w.wantPublic("2 END FAILED_PRECONDITION, 1 AVAILABLE")
		if !strings.Contains(all[0].Message, "data has") || w.loadCount("2") != 0 {
			t.Fatalf("loads %d, message: %s", w.loadCount("2"), all[0].Message)
		}
		// Put back as they were, they are good again.
		if err := os.WriteFile(filepath.Join(b.sub("2"), "data"), whole, 0o600); err != nil {
			t.Fatal(err)
		}
		w.pass(8 * time.Second)
		w.wantLive(2)
	})
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	all, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// Every file and folder of a version is synced before what it replaces goes.
func TestSyncedBeforeRetired(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	var (
		mu     sync.Mutex
		synced []string
		broken bool
	)
	setBroken := func(to bool) {
		mu.Lock()
		defer mu.Unlock()
		broken, synced = to, nil
	}
	b.run(func(w *world, _ *Options) {
		w.tweak = func(c *Controller) {
			c.sync = func(f *os.File) error {
				mu.Lock()
				defer mu.Unlock()
				if broken {
					return syscall.EIO
				}
				if m := w.model(); strings.HasPrefix(f.Name(), b.sub("2")) && len(m.Live) != 2 {
					t.Errorf("synced while %v is live", m.Live)
				}
				synced = append(synced, f.Name())
				return nil
			}
		}
	}, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		setBroken(true)
		w.pass(8 * time.Second)
		w.wantLive(2, 1) // a disk that keeps nothing: both stay
		if v, _ := w.model().Version(2); !strings.Contains(v.Reason, "cannot be put on disk") {
			t.Fatalf("version 2: %+v", v)
		}
		setBroken(false)
		w.pass(sealRetry + time.Second)
		w.wantLive(2)
		mu.Lock()
		defer mu.Unlock()
		want := []string{filepath.Join(b.sub("2"), "data"), filepath.Join(b.sub("2"), "saved_model.pb"), b.sub("2"), b.dir}
		if !slices.Equal(synced, want) {
			t.Fatalf("synced %v, want %v", synced, want)
		}
	})
}

// A disk that takes no record stops nothing; what could not be written is written when there is room.
func TestJournalDiskFull(t *testing.T) {
	b := newBox(t)
	var full atomic.Bool
	full.Store(true)
	b.fail = func() error {
		if full.Load() {
			return syscall.ENOSPC
		}
		return nil
	}
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
		put(t, b.sub("3"), "die")
		w.pass(5 * time.Second)
		w.wantLive(2)
		if s := w.c.Status(); !strings.Contains(s.Journal, "no space") || len(w.events()) != 0 {
			t.Fatalf("journal: %q, %v", s.Journal, w.events())
		}
		full.Store(false)
		w.pass(journalRetry + time.Second)
		if s := w.c.Status(); s.Journal != "" || !slices.Contains(w.events(), "refused 3") {
			t.Fatalf("journal: %q, %v", s.Journal, w.events())
		}
	})
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(2)
		if n := w.loadCount("3"); n != 0 {
			t.Fatalf("version 3 was loaded %d times", n)
		}
	})
}

// unreadable is a journal that is not there.
type unreadable struct{ Journal }

func (unreadable) States() (map[string][]byte, error)     { return nil, errors.New("no state file") }
func (unreadable) Record(string, []byte, ...[]byte) error { return errors.New("no state file") }
func (unreadable) History(string, int) ([][]byte, error)  { return nil, errors.New("no state file") }

func TestWithoutJournalFile(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Journal = unreadable{}
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		put(t, w.sub(2), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
		if s := w.c.Status(); s.Journal != "no state file" {
			t.Fatalf("journal: %q", s.Journal)
		}
	})
}

func (w *world) ask(text string, err error) string {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
	return text
}

func TestRollback(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		ctx := w.t.Context()
		w.pass(5 * time.Second)
		if _, err := w.c.Rollback(ctx, "m", "uid 1"); err == nil || !strings.Contains(err.Error(), "known to be good") {
			t.Fatal(err)
		}
		if _, err := w.c.Rollback(ctx, "x", "uid 1"); err == nil {
			t.Fatal("an unknown model was rolled back")
		}
		put(t, b.sub("3"), "")
		w.pass(5 * time.Second)
		w.wantLive(3)
		put(t, b.sub("2"), "") // never served: a rollback does not go there
		w.pass(5 * time.Second)
		if text := w.ask(w.c.Rollback(ctx, "m", "uid 1")); !strings.Contains(text, "from version 3 to version 1") {
			t.Fatal(text)
		}
		w.pass(5 * time.Second)
		w.wantLive(1)
		if m := w.model(); m.Intent != "rolled back from version 3 to version 1 by uid 1" || w.loadCount("2") != 0 {
			t.Fatalf("%+v", m)
		}
		all, err := w.c.History("m", 100)
		if err != nil || !slices.ContainsFunc(all, func(e Event) bool { return e.What == "rolled back" && e.By == "uid 1" && e.Version == 3 }) {
			t.Fatalf("%+v %v", all, err)
		}
	})
	b.run(nil, func(w *world) { // it holds over a restart, and a higher version ends it
		w.pass(6 * time.Second)
		w.wantLive(1)
		put(t, b.sub("4"), "")
		w.pass(6 * time.Second)
		w.wantLive(4)
		if m := w.model(); m.Intent != "" {
			t.Fatal(m.Intent)
		}
	})
}

// A rollback to a version that does not load any more leaves what serves alone.
func TestRollbackFails(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Second)
		if err := os.WriteFile(filepath.Join(b.sub("1"), "saved_model.pb"), []byte("die"), 0o600); err != nil {
			t.Fatal(err)
		}
		w.ask(w.c.Rollback(w.t.Context(), "m", ""))
		w.pass(8 * time.Second)
		w.wantLive(2)
		if m := w.model(); m.Intent != "" || !slices.Contains(w.events(), "rollback failed 2") {
			t.Fatalf("%s %v", m.Intent, w.events())
		}
	})
}

func TestPinAndRetry(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	put(t, b.sub("2"), "die")
	b.run(nil, func(w *world) {
		ctx := w.t.Context()
		w.pass(6 * time.Second)
		w.wantLive(1)
		for _, err := range []error{
			second(w.c.Pin(ctx, "m", 7, "")), second(w.c.Pin(ctx, "m", 2, "")), second(w.c.Unpin(ctx, "m", "")), second(w.c.Retry(ctx, "m", 7, "")),
		} {
			if err == nil {
				t.Fatal("a wish that makes no sense was granted")
			}
		}
		w.ask(w.c.Pin(ctx, "m", 1, "uid 2"))
		put(t, b.sub("3"), "")
		w.pass(6 * time.Second)
		w.wantLive(1)
	})
	b.run(nil, func(w *world) {
		w.pass(6 * time.Second)
		w.wantLive(1)
		if m := w.model(); m.Intent != "pinned to version 1 by uid 2" {
			t.Fatal(m.Intent)
		}
		w.ask(w.c.Unpin(w.t.Context(), "m", ""))
		w.pass(6 * time.Second)
		w.wantLive(3)
		if n := w.loadCount("2"); n != 0 {
			t.Fatalf("version 2 was loaded %d times", n)
		}
		if err := os.RemoveAll(b.sub("3")); err != nil {
			t.Fatal(err)
		}
		w.pass(6 * time.Second)
		w.wantLive(1)
		w.ask(w.c.Retry(w.t.Context(), "m", 2, "")) // it dies again, and stays away again
		w.pass(6 * time.Second)
		if n := w.loadCount("2"); n != 1 {
			t.Fatalf("version 2 was loaded %d times", n)
		}
		w.wantLive(1)
	})
}

func second(_ string, err error) error { return err }
