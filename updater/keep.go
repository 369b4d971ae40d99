// keep.go: the kept copies of what is journalled as good, and when they stand in for the folders that they were made of.
package updater

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// keeper is the store's state for one model. It is owned by the loop.
type keeper struct {
	busy, again bool
	failed      map[string]bool // by tree: could not be kept, and is not tried again
}

// keeps reports whether the model's good versions are kept a second time.
func (l *loop) keeps(m *model) bool { return l.o.KeepDir != "" && l.o.Journal != nil && m.KeepLastGood }

// startKeep brings the store into line with the record: what is live, and the newest good version beside it, has a copy there; nothing
// else has. One such job per model runs at a time.
func (l *loop) startKeep(m *model) {
	k := &m.keeper
	if l.o.KeepDir == "" || l.o.Journal == nil || l.stopping || l.removing[storeName(m.Name)] {
		return
	}
	if k.busy {
		k.again = true
		return
	}
	var todo *good
	counted := m.rec.counted(m.live())
	for i := range m.rec.Good {
		g := &m.rec.Good[i]
		switch {
		case !l.keeps(m) || !slices.Contains(counted, g):
			g.Kept, g.KeptPrint = "", ""
		case g.Kept == "" && g.Dir != "" && todo == nil && !k.failed[g.Tree.Sum]:
			next := *g
			todo = &next
		}
	}
	m.rec.dropLost()
	l.offer(m)
	home := filepath.Join(l.o.KeepDir, storeName(m.Name))
	stays := make(map[string]bool)
	for _, g := range m.rec.Good {
		stays[g.Kept] = true
	}
	for _, v := range m.versions {
		stays[v.dir] = true // in use, or about to be forgotten: the next sweep finds it
	}
	k.busy = true
	l.jobs++
	var (
		t    tree
		dir  string
		what = func(ctx context.Context) (duplicate, string, error) { return 0, "", nil }
		to   string
		n    int64
	)
	if todo != nil {
		t, dir, n = todo.Tree, todo.Dir, todo.Number
		to = filepath.Join(home, keptName(n, t))
		stays[to] = true
		what = func(ctx context.Context) (duplicate, string, error) {
			return l.c.keep(ctx, dir, t, to, l.o.KeepCopyBytes)
		}
	}
	go func() {
		swept := sweep(home, stays)
		how, print, err := what(l.ctx)
		l.post(func() {
			l.jobs--
			k.busy = false
			if swept != nil {
				l.log.Warn("kept copies that nothing needs could not be removed", "model", m.Name, "err", swept)
			}
			if l.stopping || l.models[m.Name] != m {
				return
			}
			if todo != nil {
				l.kept(m, n, t, to, how, print, err)
			}
			if again := k.again || todo != nil; again {
				k.again = false
				l.startKeep(m)
			}
			l.tend(m, time.Now())
		})
	}()
}

// kept takes in that the version was kept, or why it could not be.
func (l *loop) kept(m *model, number int64, t tree, to string, how duplicate, print string, err error) {
	g := m.rec.good(number)
	if g == nil || g.Tree.Sum != t.Sum {
		m.keeper.again = true // it is another one by now; what was kept is swept away
		return
	}
	if err != nil {
		if m.keeper.failed == nil {
			m.keeper.failed = make(map[string]bool)
		}
		m.keeper.failed[t.Sum] = true
		l.log.Warn("good version is not kept a second time: a restart needs its folder as it is", "model", m.Name, "version", number, "err", err)
		if v := m.serving(number); v != nil {
			v.reason, m.dirty = joinReasons(v.reason, fmt.Sprintf("its files are not kept a second time (%v): a restart needs the folder as it is", err)), true
		}
		return
	}
	g.Kept, g.KeptPrint, g.How, m.dirty = to, print, how, true
	if v := m.serving(number); v != nil {
		v.files.set(g)
	}
	l.log.Debug("good version is kept", "model", m.Name, "version", number, "path", to, "reason", how.String())
	l.scribe.write(m.Name, m.rec)
	l.c.hook("kept")
}

// sweep removes what is in home but not in stays.
func sweep(home string, stays map[string]bool) error {
	entries, err := os.ReadDir(home)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	errs := []error{err}
	for _, e := range entries {
		if path := filepath.Join(home, e.Name()); !stays[path] {
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// sweepStore removes the copies of models of which nothing is remembered. It is called before the loop runs.
func (l *loop) sweepStore() {
	if l.o.KeepDir == "" {
		return
	}
	stays := make(map[string]bool)
	for name := range l.records {
		stays[storeName(name)] = true
	}
	entries, err := os.ReadDir(l.o.KeepDir)
	if err != nil {
		return // it is made when something is kept
	}
	for _, e := range entries {
		if !stays[e.Name()] {
			l.removeHome(e.Name())
		}
	}
}

// removeStore removes a forgotten model's copies.
func (l *loop) removeStore(model string) {
	if l.o.KeepDir != "" {
		l.removeHome(storeName(model))
	}
}

// removeHome removes a model's folder in the store. A model that has it again meanwhile keeps nothing until it is gone.
func (l *loop) removeHome(name string) {
	home := filepath.Join(l.o.KeepDir, name)
	l.removing[name] = true
	l.jobs++
	go func() {
		err := os.RemoveAll(home)
		l.post(func() {
			l.jobs--
			delete(l.removing, name)
			if err != nil {
				l.log.Warn("kept copies that nothing needs could not be removed", "path", home, "err", err)
			}
			for _, m := range l.models {
				if storeName(m.Name) == name {
					l.startKeep(m)
				}
			}
		})
	}()
}

// offer makes the kept copies versions of the model, and forgets those that are no more.
func (l *loop) offer(m *model) {
	there := make(map[string]bool)
	for i := range m.rec.Good {
		g := &m.rec.Good[i]
		if g.Kept == "" {
			continue
		}
		there[g.Kept] = true
		if m.versions[g.Kept] != nil {
			continue
		}
		v := &version{number: g.Number, dir: g.Kept, kept: true, present: true, state: StateSeen, since: time.Now(), files: new(loadedFiles)}
		v.sight = sight{Print: Print{Digest: g.KeptPrint, Renamed: true, Files: g.Tree.Count, Bytes: g.Tree.Bytes}, Since: time.Now()}
		m.versions[g.Kept] = v
		l.judged(m, v)
	}
	for dir, v := range m.versions {
		if v.kept && !there[dir] {
			switch v.state {
			case StateSeen, StateSettling, StateQuarantined, StateRetired:
				l.drop(m, v)
			}
		}
	}
}

// called reports whether a kept copy of the number is as good as a folder: it served when inferd ended, an operator or a trial may go back to
// it, it is pinned, or its folder is there and cannot be used. Else it only stands in where nothing else serves.
func (m *model) called(number int64) bool {
	if m.first[number] || m.intended(number) || m.falls(number) {
		return true
	}
	for _, v := range m.versions {
		if !v.kept && v.present && v.number == number {
			return true
		}
	}
	return false
}

// intended reports whether an operator asked for the number.
func (m *model) intended(number int64) bool {
	return (m.rec.Back != nil && m.rec.Back.To == number) || (m.rec.Pin != nil && m.rec.Pin.Number == number)
}

// spoilt ends the use of a kept copy that was refused.
func (l *loop) spoilt(m *model, v *version) {
	for i := range m.rec.Good {
		if g := &m.rec.Good[i]; g.Kept == v.dir {
			g.Kept, g.KeptPrint = "", ""
		}
	}
	m.rec.dropLost()
}

// keptText says in the status that a version is served from its kept copy.
func (m *model) keptText(v *version) string {
	for _, o := range m.versions {
		if o.number == v.number && !o.kept && o.present {
			return "served from the kept copy in " + v.dir + ": the folder " + o.dir + " does not hold what was good"
		}
	}
	return "served from the kept copy in " + v.dir + ": its folder is gone; publish it again, or a higher number"
}

// refuseKept is refuse for a kept copy.
func (l *loop) refuseKept(m *model, v *version, code inference.Code, reason string) {
	l.spoilt(m, v)
	l.refuseFor(m, v, code, "its kept copy is of no use: "+reason, "publish it again, or a higher number")
}
