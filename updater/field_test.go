// field_test.go: what file systems and kernels do to a watcher out there, with the real ones and the real clock.
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
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/tools/namespace"
)

// realTime runs a controller of the model m until the test's end, with inotify and the real clock. No poll helps it unless change says so.
func realTime(t *testing.T, change func(w *world, o *Options)) *world {
	t.Helper()
	w := &world{t: t, dir: filepath.Join(t.TempDir(), "m"), catalog: inference.NewCatalog(), loads: make(map[string]int), log: &lines{}}
	o := Options{
		Models: []Model{{Name: "m", BasePath: w.dir}}, PollInterval: time.Hour, SettleTime: 20 * time.Millisecond, Read: readFake, Load: w.load,
		Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
			return &fakeServable{w: w, runner: r}
		},
		Log: slog.New(slog.NewTextHandler(w.log, nil)),
	}
	if change != nil {
		change(w, &o)
	}
	var err error
	if w.c, err = New(w.catalog, o); err != nil {
		t.Fatal(err)
	}
	if w.watch != nil {
		w.c.watch = w.watch
	}
	if w.tweak != nil {
		w.tweak(w.c)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(w.log.buf.String())
		}
	})
	return w
}

// until waits for a status.
func (w *world) until(what string, ok func(Status) bool) Status {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	s, err := w.c.Wait(ctx, ok)
	if err != nil {
		w.t.Fatalf("never came: %s; %+v\n%s", what, s, w.log.buf.String())
	}
	return s
}

// live waits until these versions of the model serve.
func (w *world) live(model string, numbers ...int64) {
	w.t.Helper()
	w.until(fmt.Sprintf("%s %v live", model, numbers), func(s Status) bool {
		m, _ := s.Model(model)
		return slices.Equal(m.Live, numbers)
	})
}

// TestNestedCreation: folders that are made one in the other while we run are watched down to the last.
func TestNestedCreation(t *testing.T) {
	if probe, err := newWatcher(); err != nil {
		t.Skipf("inotify is not to be had here: %v", err)
	} else {
		_ = probe.fs.Close()
	}
	var source string
	w := realTime(t, func(w *world, o *Options) {
		source, _ = realReader(w, o)
		o.ModelsDir, o.Models, o.StallTime = w.dir, nil, time.Hour
	})
	if err := os.MkdirAll(filepath.Join(w.dir, "new", "1", "variables"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ file, missing string }{
		{"saved_model.pb", "variables/variables.index"}, {"variables/variables.index", "variables/variables.data-00000-of-00001"}, {"variables/variables.data-00000-of-00001", ""},
	} {
		content := read(t, filepath.Join(source, step.file))
		if err := os.WriteFile(filepath.Join(w.dir, "new", "1", step.file), content, 0o644); err != nil {
			t.Fatal(err)
		}
		if step.missing == "" {
			break
		}
		w.until(step.missing+" is missed", func(s Status) bool {
			m, _ := s.Model("new")
			v, _ := m.Version(1)
			return strings.Contains(v.Reason, step.missing)
		})
	}
	w.live("new", 1)
}

// TestEventsLost: the kernel drops events when nobody reads them; whatever was lost, everyone is looked at again.
func TestEventsLost(t *testing.T) {
	limit := strings.TrimSpace(string(read(t, "/proc/sys/fs/inotify/max_queued_events")))
	var most int
	if _, err := fmt.Sscan(limit, &most); err != nil || most > 1<<16 {
		t.Skipf("%s events fit into the queue: too many to make", limit)
	}
	var (
		flood string
		seen  *watcher
		lost  atomic.Bool
		looks atomic.Int64
		held  = make(chan struct{})
	)
	w := realTime(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		flood = filepath.Join(filepath.Dir(w.dir), "flood")
		writeFiles(t, flood, "x", "y")
		o.Models = append(o.Models, Model{Name: "flood", BasePath: flood, Optional: true})
		w.tweak = func(c *Controller) {
			inner := c.look
			c.look = func(base string) look { looks.Add(1); return inner(base) }
		}
		w.watch = func() (*watcher, error) {
			real, err := newWatcher()
			if err != nil {
				return nil, err
			}
			events, errs := make(chan fsnotify.Event), make(chan error)
			go func() { // the reader gets nothing while it is held
				<-held
				for {
					select {
					case e := <-real.events:
						select {
						case events <- e:
						case <-t.Context().Done():
						}
					case err := <-real.errs:
						if errors.Is(err, fsnotify.ErrEventOverflow) {
							lost.Store(true)
						}
						select {
						case errs <- err:
						case <-t.Context().Done():
						}
					case <-t.Context().Done():
						return
					}
				}
			}()
			seen = watcherOf(real.fs, events, errs)
			return seen, nil
		}
	})
	w.live("m", 1)
	poll(t, "the base paths are watched", func() bool { return seen.watches(w.dir) && seen.watches(flood) })
	// A new watch asks for one more look; only what comes after it is found by the overflow alone.
	before := int64(-1)
	poll(t, "the looks have ended", func() bool {
		n := looks.Load()
		same := n == before
		before = n
		time.Sleep(4 * lookGap)
		return same
	})
	for i := range 2 * most { // in turn, for two alike in a row count as one; and fsnotify has room for some more
		if err := os.Chmod(filepath.Join(flood, []string{"x", "y"}[i%2]), 0o600+os.FileMode(i)%64); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(flood, "..", "two"), "")
	if err := os.Rename(filepath.Join(flood, "..", "two"), w.sub(2)); err != nil { // nobody hears of it
		t.Fatal(err)
	}
	close(held)
	w.live("m", 2)
	poll(t, "events were lost", lost.Load)
	if s := w.c.Status(); s.Watch != "" {
		t.Errorf("an overflow is no lasting trouble: %s", s.Watch)
	}
}

// poll asks until it is so.
func poll(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func (w *watcher) watches(path string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.byPath[path]) > 0
}

// TestRealWatchLimit: the kernel gives no more watches than the namespace may have; polling finds what they would have told of, the
// status says what to do, and when the limit is raised watching goes on.
func TestRealWatchLimit(t *testing.T) {
	if !namespace.Inside(t, false) {
		return
	}
	namespace.Limit(t, "max_inotify_watches", "1")
	w := realTime(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		o.PollInterval = 100 * time.Millisecond
	})
	w.live("m", 1)
	s := w.until("the limit is said", func(s Status) bool { return s.Watch != "" })
	if !strings.Contains(s.Watch, "the limit of watched folders is reached (raise fs.inotify.max_user_watches") {
		t.Errorf("said: %s", s.Watch)
	}
	put(t, w.sub(2), "")
	w.live("m", 2)
	namespace.Limit(t, "max_inotify_watches", "1000")
	w.until("watched again", func(s Status) bool { return s.Watch == "" })
	if n := w.log.count("folders cannot all be watched"); n != 1 || w.log.count("folders are watched again") != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestRealInstanceLimit: no inotify at all.
func TestRealInstanceLimit(t *testing.T) {
	if !namespace.Inside(t, false) {
		return
	}
	namespace.Limit(t, "max_inotify_instances", "0")
	w := realTime(t, func(w *world, o *Options) { o.PollInterval = 100 * time.Millisecond })
	s := w.until("the limit is said", func(s Status) bool { return s.Watch != "" })
	if !strings.Contains(s.Watch, "raise fs.inotify.max_user_instances") {
		t.Errorf("said: %s", s.Watch)
	}
	for n := range 2 {
		put(t, w.sub(n+1), "")
		w.live("m", int64(n+1))
	}
}

// TestMountComesAndGoes: a base path that is a mount point: nothing serves before the mount is there, and nothing ends while it is away.
func TestMountComesAndGoes(t *testing.T) {
	if !namespace.Inside(t, true) {
		return
	}
	var disk string
	w := realTime(t, func(w *world, o *Options) {
		disk = filepath.Join(filepath.Dir(w.dir), "disk")
		put(t, filepath.Join(disk, "1"), "")
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		o.PollInterval, o.EmptyGrace = 50*time.Millisecond, time.Hour // the kernel tells nobody of mounts
	})
	said := func(what string) {
		t.Helper()
		w.until(what, func(s Status) bool {
			m, _ := s.Model("m")
			return m.Looked && (what == "" && m.Problem == "" || what != "" && strings.Contains(m.Problem, what))
		})
	}
	said("no version under")
	for range 3 {
		namespace.Mount(t, disk, w.dir, "", syscall.MS_BIND, "")
		said("")
		w.live("m", 1)
		namespace.Unmount(t, w.dir)
		said("is empty since")
		w.live("m", 1)
	}
	if n := w.loadCount("1"); n != 1 {
		t.Errorf("version 1 was loaded %d times", n)
	}
	namespace.Mount(t, "tmpfs", w.dir, "tmpfs", 0, "size=1m") // another disk, with another version
	put(t, w.sub(2), "")
	w.live("m", 2)
	namespace.Unmount(t, w.dir)
	if err := os.Remove(w.dir); err != nil { // and missing altogether
		t.Fatal(err)
	}
	said("does not exist")
	w.live("m", 2)
}

// TestOverlayIsPolled: changes beneath an overlay are told to nobody who watches it. It is known for what it is, and polled.
func TestOverlayIsPolled(t *testing.T) {
	if !namespace.Inside(t, true) {
		return
	}
	top := filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(top, 0o755); err != nil {
		t.Fatal(err)
	}
	namespace.Mount(t, "tmpfs", top, "tmpfs", 0, "size=1m")
	lower, upper, work := filepath.Join(top, "lower"), filepath.Join(top, "upper"), filepath.Join(top, "work")
	for _, dir := range []string{lower, upper, work} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	w := realTime(t, func(w *world, _ *Options) {
		put(t, filepath.Join(lower, "1"), "")
		if err := os.Mkdir(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		namespace.Mount(t, "overlay", w.dir, "overlay", 0, fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,userxattr", lower, upper, work))
	})
	w.live("m", 1)
	m, _ := w.c.Status().Model("m")
	if !strings.Contains(m.Polled, "lies on an overlay") || !strings.Contains(m.Polled, "every 1s") {
		t.Errorf("said: %q", m.Polled)
	}
	put(t, filepath.Join(upper, "2"), "") // the poll interval is an hour
	w.live("m", 2)
}
