// look.go: one model's looks at its base path, and what they find.
package updater

import (
	"slices"
	"time"
)

// turns are when a path is looked at: a model's base path, or the models directory.
type turns struct {
	wake    sleeper
	pending bool      // a look is queued or under way
	again   bool      // a hint came meanwhile
	due     time.Time // of the next look
	ended   time.Time // the last look's end
}

// hint asks for a look as soon as the gap between looks allows.
func (t *turns) hint(l *loop, now time.Time) {
	if t.pending {
		t.again = true
		return
	}
	if next := t.ended.Add(lookGap); next.After(now) {
		now = next
	}
	if t.due.IsZero() || now.Before(t.due) {
		t.due = now
	}
	l.wakeAt(&t.wake, t.due)
}

// startLook queues a look.
func (l *loop) startLook(m *model) {
	m.pending = true
	base := m.BasePath
	var j *job
	j = l.looks.add(m.lookTurn(), func() {
		started := time.Now()
		go func() {
			found := l.c.look(base)
			l.post(func() {
				l.looks.end(j)
				m.pending = false
				if !l.stopping && l.models[m.Name] == m {
					l.saw(m, base, found, started, time.Now())
				}
			})
		}()
	})
}

// saw takes in what a look found.
func (l *loop) saw(m *model, base string, found look, started, now time.Time) {
	m.ended, m.due = now, now.Add(spread(l.poll(found.On, now.Sub(started)), l.o.PollInterval))
	if m.again || base != m.BasePath {
		m.again, m.due = false, now.Add(lookGap)
	}
	if base != m.BasePath || m.gone {
		l.tend(m, now)
		return
	}
	m.unseen = false
	first := !m.looked
	m.looked, m.base, m.lookedAt, m.disk = true, found.Base, started, found.Disk
	m.sawEmpty(found, started)
	l.setPolled(m, found)
	if found.Base == baseThere {
		l.sawVersions(m, found.Folders, first)
	}
	l.setProblem(m, m.problemOf(&l.o, found), found)
	if l.watcher != nil {
		l.watcher.set(m.Name, found.Watch)
	}
	m.dirty = m.dirty || first
	l.tend(m, now)
	for _, t := range m.lookTimes(&l.o) {
		if t.Before(m.due) {
			m.due = t
		}
	}
	if m.due.Before(m.ended) {
		m.due = m.ended.Add(lookGap)
	}
	l.wakeAt(&m.wake, m.due)
	if first {
		l.checkScanned()
	}
}

// lookTimes are the moments at which a look without any news decides something.
func (m *model) lookTimes(o *Options) []time.Time {
	var out []time.Time
	if m.spared(o) {
		out = append(out, m.emptySince.Add(o.EmptyGrace))
	}
	for _, v := range m.versions {
		if !v.present || v.state == StateQuarantined || (v.state == StateLive && (v.changed || v.loaded == v.sight.Print.Digest)) {
			continue
		}
		if ok, wait := v.sight.settled(m.lookedAt, o.SettleTime); !ok {
			out = append(out, m.lookedAt.Add(wait))
		} else if q := v.sight.quiet(m.lookedAt); v.incomplete != "" && !v.final && q < o.StallTime {
			out = append(out, m.lookedAt.Add(o.StallTime-q))
		}
	}
	return out
}

func (l *loop) sawVersions(m *model, folders []folder, first bool) {
	for _, v := range m.versions {
		v.present = v.kept
	}
	for _, f := range folders {
		if f.Err != nil {
			// What cannot be read through is as good as changed when the error changes.
			f.Print.Digest = "error: " + f.Err.Error()
		}
		v := m.versions[f.Dir]
		unknown := v == nil
		if unknown {
			v = &version{number: f.Number, dir: f.Dir}
			m.versions[f.Dir] = v
			l.set(m, v, StateSeen, "")
		}
		v.present = true
		before := v.sight.Print.Digest
		v.sight = see(v.sight, f.Print, m.lookedAt, first)
		switch changed := before != "" && before != v.sight.Print.Digest; {
		case v.spoilt:
			v.spoilt = false
			if changed {
				l.stillBad(m, v)
			}
		case changed:
			l.filesChanged(m, v)
		}
		if unknown && first && l.o.OnlyGood && m.rec.good(v.number) == nil && !slices.Contains(m.rec.Proven, v.number) {
			v.leftAlone = v.sight.Print.Digest
			l.log.Warn("version is left alone, for this is a safe start and it never was good", "model", m.Name, "version", v.number, "path", v.dir)
		}
		if unknown {
			l.arrived(m, v, first)
		}
		if settled, _ := v.sight.settled(m.lookedAt, l.o.SettleTime); settled && f.Err == nil && v.state == StateLive && !v.changed && v.loaded != v.sight.Print.Digest {
			v.changed, m.dirty = true, true
			v.reason = joinReasons(v.reason, "its files were changed after it was loaded; what was loaded still serves; publish changes as a new version")
			l.log.Warn("version changed on disk after it was loaded: not read again", "model", m.Name, "version", v.number, "path", v.dir)
		}
	}
	l.dropAbsent(m)
}

// dropAbsent forgets idle versions whose folders are gone, and calls off the load of one.
func (l *loop) dropAbsent(m *model) {
	for _, v := range m.ordered() {
		if v.present {
			continue
		}
		switch v.state {
		case StateLive:
			v.sealAt = time.Time{} // at once when it is back
		case StateSeen, StateSettling, StateQuarantined, StateRetired:
			l.drop(m, v)
		case StateLoading, StateWarming:
			if m.loading == v {
				m.cancel()
			}
		}
	}
}

// filesChanged forgets what was found out about other files.
func (l *loop) filesChanged(m *model, v *version) {
	switch v.state {
	case StateQuarantined:
		l.log.Info("version's files changed: it is tried again", "model", m.Name, "version", v.number)
		l.forgive(m, v, "its files changed")
		l.reset(m, v, "its files changed")
	case StateSeen, StateSettling, StateRetired:
		m.rec.release(v.number, v.dir)
		l.reset(m, v, "its files are still changing")
	}
}

// reset makes a version as new.
func (l *loop) reset(m *model, v *version, why string) {
	v.tried, v.incomplete, v.final, v.info = "", "", false, nil
	v.attempts, v.retryAt = 0, time.Time{}
	l.set(m, v, StateSettling, why)
}
