// watch_test.go: watches with the real inotify in a few tests, and with a scripted one where it must fail.
package updater

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/inferd/inferd/inference"
)

// scriptedNotifier is an fsnotify that a test drives.
type scriptedNotifier struct {
	mu      sync.Mutex
	fail    error
	watches map[string]bool
	adds    int
	events  chan fsnotify.Event
	errs    chan error
}

func newScriptedNotifier() *scriptedNotifier {
	return &scriptedNotifier{watches: make(map[string]bool), events: make(chan fsnotify.Event), errs: make(chan error)}
}

func (n *scriptedNotifier) Add(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.adds++
	if n.fail != nil {
		return n.fail
	}
	n.watches[path] = true
	return nil
}

func (n *scriptedNotifier) Remove(path string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.watches[path] {
		return fsnotify.ErrNonExistentWatch
	}
	delete(n.watches, path)
	return nil
}

func (n *scriptedNotifier) Close() error { return nil }

func (n *scriptedNotifier) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return sortedKeys(n.watches)
}

func (n *scriptedNotifier) setFail(err error) {
	n.mu.Lock()
	n.fail = err
	n.mu.Unlock()
}

func TestWatcherHints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newScriptedNotifier()
		w := watcherOf(n, n.events, n.errs)
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go w.run(ctx)
		take := func() []string {
			synctest.Wait()
			owners, all := w.take()
			if all {
				return []string{"all"}
			}
			return sortedKeys(owners)
		}
		want := func(name string, got []string, owners ...string) {
			t.Helper()
			if !slices.Equal(got, owners) {
				t.Errorf("%s: got %q, want %q", name, got, owners)
			}
		}
		dir := func(path, child string, ino uint64) watched {
			return watched{Path: path, Child: child, ID: identity{1, ino}}
		}
		w.set("a", []watched{dir("/m/a", "", 2), dir("/m", "a", 1)})
		want("what is added may have missed news", take(), "a")
		w.set("b", []watched{dir("/m/b", "", 3), dir("/m", "b", 1)})
		want("the other", take(), "b")
		w.set("a", []watched{dir("/m/a", "", 2), dir("/m", "a", 1)})
		want("nothing new", take())
		w.set("link", []watched{dir("/link", "", 2)})
		want("another path to a", take(), "link")
		want("one watch per folder", n.list(), "/m", "/m/a", "/m/b")

		event := func(path string, op fsnotify.Op) []string {
			n.events <- fsnotify.Event{Name: path, Op: op}
			return take()
		}
		want("an entry of a", event("/m/a/1", fsnotify.Create), "a", "link")
		want("an entry of b", event("/m/b/1", fsnotify.Write), "b")
		want("a itself, seen from above and from inside", event("/m/a", fsnotify.Chmod), "a", "link")
		want("a stranger beside them", event("/m/c", fsnotify.Create))

		// a is removed and made again; the inode number may be the old one's, and still it must be watched anew.
		want("a is gone", event("/m/a", fsnotify.Remove), "a", "link")
		n.mu.Lock()
		delete(n.watches, "/m/a")
		n.mu.Unlock()
		w.set("a", []watched{dir("/m/a", "", 2), dir("/m", "a", 1)})
		want("a is back", take(), "a")
		want("watched again", n.list(), "/m", "/m/a", "/m/b")

		// A path that leads elsewhere now, without any event.
		w.set("b", []watched{dir("/m/b", "", 9), dir("/m", "b", 1)})
		want("b was replaced", take(), "b")

		w.set("a", nil)
		w.set("link", nil)
		take()
		want("what nobody wants is not watched", n.list(), "/m", "/m/b")
		n.errs <- fsnotify.ErrEventOverflow
		want("overflow", take(), "all")
		if err := w.broken(); err != nil {
			t.Errorf("an overflow is no lasting trouble: %v", err)
		}
		n.setFail(syscall.ENOSPC)
		w.set("c", []watched{dir("/c", "", 20)})
		take()
		if err := w.broken(); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the limit: %v", err)
		}
		n.setFail(nil)
		w.set("c", []watched{dir("/c", "", 20)})
		want("room again", take(), "c")
		if err := w.broken(); err != nil {
			t.Errorf("still in trouble: %v", err)
		}
	})
}

// TestWatchReplacedWithoutEvent: reconcile must not give up the new watch together with the old one of the same path.
func TestWatchReplacedWithoutEvent(t *testing.T) {
	n := newScriptedNotifier()
	w := watcherOf(n, n.events, n.errs)
	w.reconcile("m", []watched{{Path: "/m", ID: identity{1, 1}}})
	w.reconcile("m", []watched{{Path: "/m", ID: identity{1, 2}}})
	if got := n.list(); !slices.Equal(got, []string{"/m"}) {
		t.Fatalf("watches: %v", got)
	}
	w.event(fsnotify.Event{Name: "/m/1", Op: fsnotify.Create})
	if owners, _ := w.take(); !owners["m"] {
		t.Fatal("no hint")
	}
	if n.adds != 2 {
		t.Fatalf("%d adds", n.adds)
	}
}

// TestWatchLimit: where watches cannot be had, one line says so and polling finds the changes.
func TestWatchLimit(t *testing.T) {
	for name, watch := range map[string]func() (*watcher, error){
		"no watches": func() (*watcher, error) {
			n := newScriptedNotifier()
			n.fail = syscall.ENOSPC
			return watcherOf(n, n.events, n.errs), nil
		},
		"no inotify": func() (*watcher, error) { return nil, limitError(syscall.EMFILE) },
	} {
		t.Run(name, func(t *testing.T) {
			start(t, func(w *world, o *Options) {
				o.PollOnly = false
				put(t, w.sub(1), "")
				w.watch = watch
			}, func(t *testing.T, w *world) {
				w.pass(4 * time.Second)
				w.wantLive(1)
				put(t, w.sub(2), "")
				w.pass(3*time.Second + 100*time.Millisecond) // a poll each second, though PollInterval is 5, and the settle time
				w.wantLive(2)
				w.pass(time.Hour)
				if s := w.c.Status(); s.Watch == "" || w.log.count("cannot all be watched") != 1 {
					t.Fatalf("said %d times; status %q", w.log.count("cannot all be watched"), s.Watch)
				}
			})
		})
	}
}

// TestWatchedLater: where there is no inotify at the start, it is tried again, and then an event brings a version, no poll.
func TestWatchedLater(t *testing.T) {
	var n *scriptedNotifier
	tries := 0
	start(t, func(w *world, o *Options) {
		n = newScriptedNotifier() // in the bubble
		o.PollOnly, o.PollInterval = false, time.Hour
		put(t, w.sub(1), "")
		w.watch = func() (*watcher, error) {
			if tries++; tries < 4 {
				return nil, limitError(syscall.EMFILE)
			}
			return watcherOf(n, n.events, n.errs), nil
		}
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		if s := w.c.Status(); !strings.Contains(s.Watch, "max_user_instances") {
			t.Fatalf("said: %q", s.Watch)
		}
		w.pass(time.Minute)
		if s := w.c.Status(); s.Watch != "" || tries != 4 || w.log.count("cannot all be watched") != 1 || w.log.count("watched again") != 1 {
			t.Fatalf("said: %q after %d tries", s.Watch, tries)
		}
		put(t, w.sub(2), "")
		n.events <- fsnotify.Event{Name: w.sub(2), Op: fsnotify.Create}
		w.pass(10 * time.Second)
		w.wantLive(2)
	})
}

// TestWatched: the real inotify, with polling so slow that only an event can be what brings each change about.
func TestWatched(t *testing.T) {
	base := t.TempDir()
	root := filepath.Join(base, "models")
	deep := filepath.Join(base, "not", "yet", "there")
	link := filepath.Join(base, "link")
	for _, d := range []string{root, filepath.Join(base, "one", "1"), filepath.Join(base, "two", "2")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(base, "one", "1"), "")
	put(t, filepath.Join(base, "two", "2"), "")
	if err := os.Symlink(filepath.Join(base, "one"), link); err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, catalog: inference.NewCatalog(), loads: make(map[string]int), log: &lines{}}
	c, err := New(w.catalog, Options{
		ModelsDir: root, Models: []Model{{Name: "deep", BasePath: deep}, {Name: "link", BasePath: link}},
		PollInterval: time.Hour, SettleTime: 20 * time.Millisecond, Read: readFake, Load: w.load,
		Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
			return &fakeServable{w: w, runner: r}
		},
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if probe, err := newWatcher(); err != nil {
		t.Skipf("inotify is not to be had here: %v", err)
	} else {
		probe.fs.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		c.Run(ctx)
		close(ended)
	}()
	defer func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Log(w.log.buf.String())
		}
	}()
	live := func(model string, numbers ...int64) {
		t.Helper()
		wait, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		s, err := c.Wait(wait, func(s Status) bool {
			m, _ := s.Model(model)
			return slices.Equal(m.Live, numbers)
		})
		if err != nil {
			t.Fatalf("%s: want %v live: %v; %+v", model, numbers, err, s)
		}
	}
	live("link", 1)
	for _, model := range []string{"a", "b"} { // a folder that comes while we run, with all that is in it
		put(t, filepath.Join(root, model, "1"), "")
		live(model, 1)
	}
	tmp := filepath.Join(root, ".tmp")
	put(t, tmp, "")
	if err := os.Rename(tmp, filepath.Join(root, "a", "2")); err != nil {
		t.Fatal(err)
	}
	live("a", 2)
	if err := os.RemoveAll(filepath.Join(root, "a", "2")); err != nil {
		t.Fatal(err)
	}
	live("a", 1)
	put(t, filepath.Join(deep, "1"), "") // three folders above it did not exist
	live("deep", 1)
	for i := range 5 { // a version folder of one number that comes and goes
		if err := os.RemoveAll(filepath.Join(deep, "1")); err != nil {
			t.Fatal(err)
		}
		live("deep")
		put(t, filepath.Join(deep, "1"), fmt.Sprint(i))
		live("deep", 1)
	}
	if err := errors.Join(os.Symlink(filepath.Join(base, "two"), link+"2"), os.Rename(link+"2", link)); err != nil {
		t.Fatal(err)
	}
	live("link", 2)
	put(t, filepath.Join(base, "two", "3"), "") // and the folder behind the new link is watched
	live("link", 3)
	if err := os.RemoveAll(filepath.Join(root, "b")); err != nil {
		t.Fatal(err)
	}
	live("b")
	if s := c.Status(); s.Watch != "" {
		t.Fatalf("watching is broken: %s", s.Watch)
	}
}

// TestBaseIsWatchedAlone: what is written beside a models directory, as the queue is, is no news; that the directory is moved away and comes back is.
func TestBaseIsWatchedAlone(t *testing.T) {
	state := t.TempDir()
	models := filepath.Join(state, "models")
	mkdir := func(path string) {
		t.Helper()
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(models)
	w, err := newWatcher()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.fs.Close() }()
	// next is the next event that comes, which is never one of the queue's.
	next := func() fsnotify.Event {
		t.Helper()
		select {
		case e := <-w.events:
			w.event(e)
			return e
		case <-time.After(30 * time.Second):
			t.Fatal("no event came")
		}
		panic("not reached")
	}
	look := func() { w.reconcile("root", baseWatches(models)) }
	look()
	for n := range 100 {
		if err := os.WriteFile(filepath.Join(state, "queue.db"), []byte{byte(n)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	mkdir(filepath.Join(models, "m"))
	if e := next(); filepath.Base(e.Name) != "m" {
		t.Fatalf("%v is news", e)
	}
	if err := os.Rename(models, models+".away"); err != nil {
		t.Fatal(err)
	}
	if e := next(); e.Name != models || !e.Has(fsnotify.Rename) {
		t.Fatalf("its going said %v", e)
	}
	for _, path := range w.dropped {
		w.drop(path)
	}
	look()
	mkdir(models)
	if e := next(); e.Name != models || !e.Has(fsnotify.Create) {
		t.Fatalf("its coming back said %v", e)
	}
	if owners, _ := w.take(); !owners["root"] {
		t.Fatal("the owner was not told")
	}
}
