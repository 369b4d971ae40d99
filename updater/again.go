// again.go: what a worker that is started again loads: the bytes that were good, or nothing.
package updater

import (
	"context"
	"fmt"
	"sync"

	"github.com/inferd/inferd/inference"
)

// loadedFiles is what a live version was loaded from, for the goroutine that starts its worker again.
type loadedFiles struct {
	mu     sync.Mutex
	digest string // of the folder, as it was loaded
	tree   *tree  // guarded by mu: nil until the folder was summed up
	kept   string // guarded by mu: a second place with the same bytes; empty when there is none
}

// set takes over what is journalled.
func (f *loadedFiles) set(g *good) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := g.Tree
	f.tree, f.kept = &t, g.Kept
}

func (f *loadedFiles) get() (digest string, t *tree, kept string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.digest, f.tree, f.kept
}

// again is asked before the version's worker is started again. It answers with the folder to load: the one that was loaded while its
// bytes are the same, else the kept copy while that one's are. Otherwise the version is condemned, unless its folder only cannot be
// read at the moment, and the error says why.
func (l *loop) again(ctx context.Context, m *model, v *version, files *loadedFiles) (dir string, err error) {
	var unread error
	digest, t, kept := files.get()
	if t == nil { // not summed up yet: what it looks like from outside must do
		if l.c.same(v.dir, digest) {
			return v.dir, nil
		}
		err = errTorn
	} else if err, unread = l.c.still(ctx, v.dir, *t); err == nil && unread == nil {
		return v.dir, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	reason := fmt.Sprintf("when its worker ended, %s did not hold what was loaded from it any more: %v", v.dir, err)
	if unread != nil {
		reason = fmt.Sprintf("when its worker ended, %s could not be read: %v", v.dir, unread)
	}
	if kept != "" && kept != v.dir {
		if differs, e := l.c.still(ctx, kept, *t); differs == nil && e == nil {
			l.post(func() { l.standIn(m, v, files, kept, reason) })
			return kept, nil
		}
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if unread != nil { // a mount that is away, a disk that fails: nothing is known against the files
		return "", inference.Errorf(inference.Unavailable, inference.ReasonModel, "%s", reason)
	}
	l.post(func() {
		if v.files != files || l.stopping || l.models[m.Name] != m {
			return
		}
		v.spoilt = true
		l.condemn(m, v, inference.DataLoss, reason, fmt.Sprintf("restore its files, or take them as they are with `inferd models retry %s %d`", m.Name, v.number))
	})
	return "", inference.Errorf(inference.DataLoss, inference.ReasonModel, "%s", reason)
}

// still reports how the folder differs from what it held, nil when it does not; or why it cannot be read.
func (c *Controller) still(ctx context.Context, dir string, t tree) (differs, unread error) {
	now, err := treeOf(ctx, dir, nil)
	if err != nil {
		return nil, err
	}
	return t.difference(now), nil
}

// standIn shows that the live version's worker runs from the kept copy.
func (l *loop) standIn(m *model, v *version, files *loadedFiles, kept, reason string) {
	if v.files != files || v.state != StateLive || l.stopping {
		return
	}
	v.reason, m.dirty = joinReasons(v.reason, reason+"; it was started again from the kept copy in "+kept), true
	l.log.Warn("worker is started again from the version's kept copy", "model", m.Name, "version", v.number, "path", kept, "reason", reason)
	l.note(m, "kept copy used", v.number, reason)
	l.publish(m)
}
