// root.go: the models directory, whose every folder is a model.
package updater

import (
	"slices"
	"time"
)

// rootDir is the models directory.
type rootDir struct {
	dir string
	turns
	looked  bool
	on      string               // as a model's
	absent  map[string]time.Time // since when a model's folder is gone
	problem string
}

func (l *loop) tendRoot(now time.Time) {
	r := l.root
	if r.pending {
		return
	}
	if r.due.After(now) {
		l.wakeAt(&r.wake, r.due)
		return
	}
	r.pending = true
	var j *job
	j = l.looks.add(turnAsked, func() {
		go func() {
			started := time.Now()
			found := l.c.lookAt(r.dir)
			l.post(func() {
				l.looks.end(j)
				r.pending = false
				if !l.stopping {
					l.sawRoot(found, started, time.Now())
				}
			})
		}()
	})
}

// sawRoot makes a model of every folder, and removes those whose folder is gone.
func (l *loop) sawRoot(found rootLook, started, now time.Time) {
	r := l.root
	r.ended, r.due = now, now.Add(l.poll(found.On, now.Sub(started)))
	if r.again {
		r.again, r.due = false, now.Add(lookGap)
	}
	problem := found.Hint
	if found.Err != nil {
		problem = found.Err.Error()
	} else if len(found.Skipped) > 0 {
		problem = "folders whose names no request can carry are left out, rename them: " + quoteAll(found.Skipped)
	}
	if problem != r.problem {
		r.problem = problem
		if problem != "" {
			l.log.Warn("models directory has a problem", "path", r.dir, "reason", problem)
		}
		l.c.publish(func(p *published) { p.problem = problem })
	}
	l.setRootPolled(found)
	if !r.looked {
		l.bringBack(found.Models, now)
	}
	if found.Base == baseThere {
		l.sawFolders(found.Models, now)
	}
	if l.watcher != nil {
		l.watcher.set(rootOwner, found.Watch)
	}
	r.looked = true
	l.wakeAt(&r.wake, r.due)
	l.checkScanned()
}

// bringBack makes models of what served when inferd ended and is kept, where the models directory is not there at the start, or their
// folders are not in it: a disk that is not mounted yet, or never again. A directory that is there decides after EmptyGrace.
func (l *loop) bringBack(there []string, now time.Time) {
	for _, name := range sortedKeys(l.records) {
		rec := l.records[name]
		if l.models[name] != nil || slices.Contains(there, name) || !slices.ContainsFunc(rec.Good, func(g good) bool { return g.Kept != "" && slices.Contains(rec.Live, g.Number) }) {
			continue
		}
		config := Model{Name: name, BasePath: joinPath(l.root.dir, name)}
		l.o.Discovered(&config)
		m := l.add(config)
		l.log.Warn("model's folder is not there: it serves from its kept copy", "model", name, "path", config.BasePath)
		l.reconfigure(m, config, now)
	}
}

func (l *loop) sawFolders(names []string, now time.Time) {
	r := l.root
	taken := make(map[string]bool)
	for _, m := range l.models {
		if m.configured {
			taken[m.BasePath] = true
		}
	}
	absent := make(map[string]time.Time)
	there := make(map[string]bool, len(names))
	for _, name := range names {
		config := Model{Name: name, BasePath: joinPath(r.dir, name)}
		if m := l.models[name]; (m != nil && m.configured) || taken[config.BasePath] {
			continue
		}
		there[name] = true
		if m := l.models[name]; m != nil && !m.leaving.IsZero() {
			m.leaving = time.Time{}
			m.hint(l, now)
		}
		l.o.Discovered(&config)
		m := l.models[name]
		switch {
		case m == nil:
			m = l.add(config)
			l.log.Info("model found", "model", name, "path", config.BasePath)
		case !m.gone:
			continue
		}
		l.reconfigure(m, config, now)
	}
	for _, name := range sortedKeys(l.models) {
		m := l.models[name]
		if m.configured || m.gone || there[name] {
			continue
		}
		since, ok := r.absent[name]
		if !ok {
			since = now
		}
		if now.Sub(since) >= l.o.EmptyGrace || taken[m.BasePath] {
			m.leaving = time.Time{}
			l.remove(m, "its folder in the models directory is gone, or is a configured model's now", now)
			continue
		}
		absent[name] = since
		if m.leaving.IsZero() {
			m.leaving = since.Add(l.o.EmptyGrace)
			m.hint(l, now) // the look says so
		}
		if m.leaving.Before(r.due) {
			r.due = m.leaving
		}
	}
	r.absent = absent
}
