// watch.go: fsnotify as a hint. Whatever it says or fails to say only means "look again", now or at the next poll.
package updater

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/fsnotify/fsnotify"
)

// identity is a folder wherever its path leads: inotify watches inodes, and two paths to one inode share one watch.
type identity struct{ dev, ino uint64 }

// watched is one folder that some model wants news of. With a Child only news of that entry counts.
type watched struct {
	Path  string
	Child string
	ID    identity
}

// notifier is what the watcher needs of fsnotify.
type notifier interface {
	Add(path string) error
	Remove(path string) error
	Close() error
}

// watcher turns file system events into owners to look at again. The loop calls set and take, which never block; adding watches, which
// touches the file system, happens on a goroutine of its own.
type watcher struct {
	fs     notifier
	events <-chan fsnotify.Event
	errs   <-chan error
	news   chan struct{} // cap 1: there is something to take
	work   chan struct{} // cap 1: there is something to add

	mu      sync.Mutex
	wanted  map[string][]watched // guarded by mu: by owner
	changed map[string]bool      // guarded by mu: owners whose list is new to the adder
	hints   map[string]bool      // guarded by mu: owners to look at again
	all     bool                 // guarded by mu: everyone is to be looked at again
	trouble map[string]error     // guarded by mu: why watching is not complete, by owner; by "" what concerns everyone
	dropped []string             // guarded by mu: paths whose watch is known to be gone

	// byPath is who wants news of a path that is being watched, by the path that was given to fsnotify. guarded by mu
	byPath map[string]map[registration]bool
	// byID is that path, and idOf the folder behind it. owned by the adder
	byID map[identity]string
	idOf map[string]identity
	// of is what each owner has in byPath. owned by the adder
	of map[string]map[place]identity
}

type registration struct{ owner, child string }

type place struct {
	path string // as given to fsnotify
	registration
}

// newWatcher opens fsnotify; the error says that there will be polling only.
func newWatcher() (*watcher, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, limitError(err)
	}
	return watcherOf(w, w.Events, w.Errors), nil
}

func watcherOf(n notifier, events <-chan fsnotify.Event, errs <-chan error) *watcher {
	return &watcher{
		fs: n, events: events, errs: errs,
		news: make(chan struct{}, 1), work: make(chan struct{}, 1),
		trouble: make(map[string]error),
		wanted:  make(map[string][]watched), changed: make(map[string]bool), hints: make(map[string]bool),
		byPath: make(map[string]map[registration]bool), byID: make(map[identity]string),
		idOf: make(map[string]identity), of: make(map[string]map[place]identity),
	}
}

func limitError(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the limit of watched folders is reached (raise fs.inotify.max_user_watches with sysctl): %w", err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("the limit of inotify instances or open files is reached (raise fs.inotify.max_user_instances with sysctl): %w", err)
	default:
		return err
	}
}

// set replaces what the owner wants news of.
func (w *watcher) set(owner string, dirs []watched) {
	w.mu.Lock()
	if len(dirs) == 0 {
		delete(w.wanted, owner)
	} else {
		w.wanted[owner] = dirs
	}
	w.changed[owner] = true
	w.mu.Unlock()
	wake(w.work)
}

// take empties the hints. all means everyone.
func (w *watcher) take() (owners map[string]bool, all bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	owners, all = w.hints, w.all
	w.hints, w.all = make(map[string]bool), false
	return owners, all
}

// broken is why watching is not complete, nil while it is.
func (w *watcher) broken() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.trouble[""]; err != nil {
		return err
	}
	for _, owner := range sortedKeys(w.trouble) {
		return w.trouble[owner]
	}
	return nil
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run reads events and adds watches until ctx ends, then closes fsnotify.
func (w *watcher) run(ctx context.Context) {
	var group sync.WaitGroup
	group.Go(func() { w.add(ctx) })
	w.read(ctx)
	w.fs.Close() //nolint:errcheck // nothing was written
	group.Wait()
}

func (w *watcher) read(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-w.events:
			if !ok {
				w.fail("", errors.New("fsnotify stopped"))
				return
			}
			w.event(e)
		case err, ok := <-w.errs:
			if !ok {
				w.fail("", errors.New("fsnotify stopped"))
				return
			}
			// An overflow lost events; anything else may have.
			w.mu.Lock()
			w.all = true
			w.mu.Unlock()
			wake(w.news)
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				w.fail("", err)
			}
		}
	}
}

// fail records the owner's trouble; nil takes it back.
func (w *watcher) fail(owner string, err error) {
	w.mu.Lock()
	had := w.trouble[owner] != nil
	if err == nil {
		delete(w.trouble, owner)
	} else {
		w.trouble[owner] = err
	}
	w.mu.Unlock()
	if had != (err != nil) {
		wake(w.news)
	}
}

// event hints at everyone who wants news of the folder or of the entry in it.
func (w *watcher) event(e fsnotify.Event) {
	w.mu.Lock()
	for r := range w.byPath[filepath.Dir(e.Name)] {
		if r.child == "" || r.child == filepath.Base(e.Name) {
			w.hints[r.owner] = true
		}
	}
	for r := range w.byPath[e.Name] {
		w.hints[r.owner] = true
	}
	// A path that was removed, moved or replaced leads elsewhere from now on: its watch, if any is left, is of something else.
	if len(w.byPath[e.Name]) > 0 && e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 {
		w.dropped = append(w.dropped, e.Name)
	}
	n := len(w.hints)
	w.mu.Unlock()
	if n > 0 {
		wake(w.news)
	}
}

// add brings fsnotify's watches to what the owners want.
func (w *watcher) add(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.work:
		}
		w.mu.Lock()
		changed, dropped := w.changed, w.dropped
		w.changed, w.dropped = make(map[string]bool), nil
		lists := make(map[string][]watched, len(changed))
		for owner := range changed {
			lists[owner] = w.wanted[owner]
		}
		w.mu.Unlock()
		for _, path := range dropped {
			w.drop(path)
		}
		for owner, list := range lists {
			w.reconcile(owner, list)
		}
	}
}

// drop forgets the watch on path; those who want it bring it back with their next look.
func (w *watcher) drop(path string) {
	w.unwatch(path)
	w.mu.Lock()
	delete(w.byPath, path)
	w.mu.Unlock()
	for _, places := range w.of {
		for p := range places {
			if p.path == path {
				delete(places, p)
			}
		}
	}
}

// unwatch takes the watch on path away, if there is one.
func (w *watcher) unwatch(path string) {
	id, ok := w.idOf[path]
	if !ok {
		return
	}
	w.fs.Remove(path) //nolint:errcheck // the kernel has mostly taken it away already
	delete(w.idOf, path)
	if w.byID[id] == path {
		delete(w.byID, id)
	}
}

// reconcile adds what the owner newly wants and gives up what it no longer does. Where something was added or is not there any more, news may have
// been missed before, so the owner is hinted at once more.
func (w *watcher) reconcile(owner string, list []watched) {
	before := w.of[owner]
	now := make(map[place]identity, len(list))
	added, gone := false, false
	var trouble error
	for _, d := range list {
		path, known := w.byID[d.ID]
		if !known {
			path = d.Path
			w.unwatch(path) // the path may have led to another folder before
			if err := w.fs.Add(path); err != nil {
				if errors.Is(err, syscall.ENOENT) {
					gone = true // since it was looked at
				} else if !errors.Is(err, fsnotify.ErrClosed) {
					trouble = fmt.Errorf("watch %s: %w", path, limitError(err))
				}
				continue
			}
			w.byID[d.ID], w.idOf[path] = path, d.ID
		}
		p := place{path: path, registration: registration{owner: owner, child: d.Child}}
		if id, had := before[p]; !had || id != d.ID {
			added = true
		}
		now[p] = d.ID
	}
	w.fail(owner, trouble)
	w.mu.Lock()
	for p := range now {
		if w.byPath[p.path] == nil {
			w.byPath[p.path] = make(map[registration]bool)
		}
		w.byPath[p.path][p.registration] = true
	}
	var unused []place
	for p := range before {
		if _, still := now[p]; still {
			continue
		}
		delete(w.byPath[p.path], p.registration)
		if len(w.byPath[p.path]) == 0 {
			delete(w.byPath, p.path)
			unused = append(unused, p)
		}
	}
	again := added || gone
	if again {
		w.hints[owner] = true
	}
	w.mu.Unlock()
	for _, p := range unused {
		w.unwatch(p.path)
	}
	if len(now) == 0 {
		delete(w.of, owner)
	} else {
		w.of[owner] = now
	}
	if again {
		wake(w.news)
	}
}
