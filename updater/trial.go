// trial.go: a version on probation: how its trial begins, is looked at, goes on after a restart, and ends.
package updater

import (
	"fmt"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

const (
	trialTick  = time.Second     // between two looks at a trial
	trialLooks = 5               // at least, however short the time is
	keptPoints = 512             // memory points of a trial
	pastStep   = 5 * time.Minute // the recent past of a version begins one to two of these ago
	pastLeast  = 200             // requests in the recent past; with fewer its whole life counts
)

// probation is what is remembered of a trial over a restart. While there is one the version Against is kept, and no newer version begins.
type probation struct {
	Number  int64  `json:"number"`
	Print   string `json:"print"`
	Against int64  `json:"against"`
	// Beside says that the old version stays loaded meanwhile. Else going back loads it first.
	Beside bool      `json:"beside,omitempty"`
	Step   int       `json:"step,omitempty"` // of Rollout.Steps
	At     time.Time `json:"at"`             // it began
	// Before is the old version's recent past, Gain the bytes per request that its worker gained in it.
	Before Measures `json:"before"`
	Gain   float64  `json:"gain,omitempty"`
	Known  bool     `json:"known,omitempty"` // Before has been measured
}

// trial is a trial under way. It is owned by the loop; after a restart it is made when the version is live again.
type trial struct {
	v         *version
	since     time.Time // of the step, or of the restart
	next      time.Time // of the next look
	measuring bool
	looks     int
	begun     bool     // start and oldStart are known
	start     Measures // the new version's at the step's beginning
	oldStart  Measures
	e         evidence // at the last look
	points    []memoryPoint
}

// past are measures of a live version from before: what it did since is its recent past.
type past struct {
	older, newer Measures
	at           time.Time // of newer
	measuring    bool
}

// onTrial reports whether the live version is on probation.
func (m *model) onTrial(v *version) bool { return m.trial != nil && m.trial.v == v }

// stays reports whether the version is wanted beside the policy.
func (m *model) stays(v *version) bool {
	return m.falls(v.number) && (m.rec.Trial == nil || m.rec.Trial.Beside)
}

// falls reports whether the number is the one to go back to while a trial lasts, or the one that was gone back to at the end of the last one.
func (m *model) falls(number int64) bool {
	if t := m.rec.Trial; t != nil && t.Against == number {
		return true
	}
	h := m.rec.Haven
	return h != nil && *h == number && m.rec.Pin == nil && (m.rec.Back == nil || m.rec.Back.To == *h)
}

// trialBars reports whether a trial holds up the version, and why.
func (m *model) trialBars(v *version) (string, bool) {
	t := m.rec.Trial
	switch {
	case t == nil || v.state == StateLive:
	case v.number > t.Number:
		return fmt.Sprintf("waits for the verdict on version %d, which is on probation; `inferd models promote %s` or `rollback %s` ends that", t.Number, m.Name, m.Name), true
	case v.number == t.Number && t.Beside && m.trial == nil && m.comes(t.Against):
		return fmt.Sprintf("waits until version %d, which it is compared with, serves again", t.Against), true
	}
	return "", false
}

// comes reports whether a version that was good before is on its way to serve again, with nothing but its load ahead.
func (m *model) comes(number int64) bool {
	g := m.rec.good(number)
	return g != nil && m.serving(number) == nil && slices.ContainsFunc(m.ordered(), func(v *version) bool {
		return v.number == number && v.present && (v.kept || v.sight.Print.Digest == g.Print) && v.retryAt.IsZero() && v.doom == nil &&
			v.state != StateQuarantined && v.state != StateDraining
	})
}

// beginTrial puts a version that is about to be published on probation, or goes on with a trial that a restart interrupted.
func (l *loop) beginTrial(m *model, v *version, servable inference.Servable, replaced *version) {
	watched, ok := servable.(Measured)
	r := m.rec.Trial
	if r != nil && r.Number == v.number && (v.kept || r.Print == v.loaded) && ok {
		l.log.Info("probation goes on", "model", m.Name, "version", v.number)
	} else {
		var old *version
		if r = nil; ok && m.Probation.Time > 0 && m.rec.Pin == nil && replaced == nil && !m.servedBefore(v) {
			old = m.replacedBy(v)
		}
		if old == nil {
			return
		}
		r = &probation{Number: v.number, Print: v.loaded, Against: old.number, Beside: old.state == StateLive, At: time.Now()}
		if !r.Beside {
			r.Before, r.Gain, r.Known = old.aside.Before, old.aside.Gain, true
		}
		m.rec.Trial = r
		l.log.Info("version is on probation", "model", m.Name, "version", v.number, "from", r.Against, "wait", m.Probation.Time.String())
	}
	watched.Watch(true)
	if old := m.serving(r.Against); old != nil && len(m.Rollout.Steps) > 0 {
		watch(old, true)
	}
	m.trial = &trial{v: v, since: time.Now(), next: time.Now()}
}

func watch(v *version, on bool) {
	if s, ok := v.servable.(Measured); ok {
		s.Watch(on)
	}
}

// servedBefore reports whether the version served when inferd ended, and was not on probation then.
func (m *model) servedBefore(v *version) bool {
	g := m.rec.good(v.number)
	return m.first[v.number] && g != nil && (v.kept || g.Print == v.loaded)
}

// replacedBy is the version whose requests v is about to take, and which it is compared with: the highest that serves, or the one that
// stepped aside. nil when there is none, or v does not take them.
func (m *model) replacedBy(v *version) *version {
	for _, old := range m.serves() {
		if old.number > v.number {
			return nil
		}
		if old.doom == nil {
			return old
		}
	}
	if old := m.stepped; old != nil && old.number < v.number && old.aside != nil {
		return old
	}
	return nil
}

// tendTrial does what is due for the trial, or ends it where it has no more sense.
func (l *loop) tendTrial(m *model, now time.Time) {
	defer l.applyRoute(m)
	l.tendPast(m, now)
	r, t := m.rec.Trial, m.trial
	if r == nil {
		return
	}
	switch b := m.rec.Back; {
	case m.rec.Pin != nil && m.rec.Pin.Number == r.Number:
		l.passed(m, "it was pinned")
		return
	case m.rec.Pin != nil:
		l.calledOff(m, fmt.Sprintf("version %d was pinned", m.rec.Pin.Number))
		return
	case b != nil && b.From == r.Number:
		l.calledOff(m, "it was rolled back")
		return
	case m.Probation.Time <= 0:
		l.passed(m, "probation was turned off")
		return
	case t == nil:
		if m.looked && m.base == baseThere && !m.trialComes() {
			l.calledOff(m, "its files are gone, refused or others than they were, or the policy wants it no more")
		}
		return
	case t.v.state != StateLive || t.v.doom != nil:
		l.calledOff(m, t.v.reason)
		return
	}
	if old := m.serving(r.Against); old != nil && old.doom != nil {
		l.passed(m, fmt.Sprintf("version %d was found bad", r.Against))
		return
	}
	if !t.measuring && !t.next.After(now) {
		l.measureTrial(m, t)
	}
}

// trialComes reports whether the version of a trial that a restart interrupted may still be published.
func (m *model) trialComes() bool {
	r := m.rec.Trial
	return eligible(m.policy(), r.Number) && slices.ContainsFunc(m.ordered(), func(v *version) bool {
		return v.number == r.Number && v.present && v.state != StateQuarantined && (v.kept || v.sight.Print.Digest == r.Print)
	})
}

// measureTrial looks at both versions on a goroutine of its own.
func (l *loop) measureTrial(m *model, t *trial) {
	t.measuring = true
	fresh, _ := t.v.servable.(Measured)
	var other Measured
	old := m.serving(m.rec.Trial.Against)
	if old != nil {
		other, _ = old.servable.(Measured)
	}
	l.jobs++
	go func() {
		a, b := fresh.Measure(), Measures{}
		if other != nil {
			b = other.Measure()
		}
		l.post(func() {
			l.jobs--
			t.measuring = false
			if m.trial == t && !l.stopping && t.v.state == StateLive {
				if old != nil && old.state != StateLive {
					other = nil // its numbers may be those of a worker that was ending
				}
				l.consider(m, t, old, a, b, other != nil)
				l.tend(m, time.Now())
			}
		})
	}()
}

// consider takes in a look: fresh is the new version's measures, other the old one's, when it is still there.
func (l *loop) consider(m *model, t *trial, old *version, fresh, other Measures, beside bool) {
	now, r, p := time.Now(), m.rec.Trial, m.Probation
	t.v.memory = fresh.Memory
	if !r.Known && beside {
		r.Before, r.Gain = old.past.recent(other)
		r.Known = true
		l.scribe.write(m.Name, m.rec)
	}
	if !t.begun {
		t.begun, t.oldStart = true, other // the new one has counted from its first request
	}
	t.looks++
	if fresh.Memory > 0 {
		if len(t.points) >= keptPoints {
			for i := range keptPoints / 2 {
				t.points[i] = t.points[2*i]
			}
			t.points = t.points[:keptPoints/2]
		}
		t.points = append(t.points, memoryPoint{fresh.Requests, fresh.Memory})
	}
	t.e = evidence{Against: r.Against, New: fresh.since(t.start), Old: r.Before, Took: now.Sub(t.since), Looks: t.looks, Memory: t.points, OldGain: r.Gain}
	if beside && m.sharesRequests() {
		t.e.Old = other.since(t.oldStart)
	} else if beside {
		t.e.Old.Deaths = other.since(t.oldStart).Deaths // it may die of what has nothing to do with requests
	} else {
		t.e.Old.Deaths = 0
	}
	t.next = now.Add(min(trialTick, max(p.Time/trialLooks, time.Millisecond)))
	m.dirty = true
	switch breach, done := judge(t.e, p); {
	case breach != "":
		l.breached(m, breach)
	case done && r.Step+1 < len(m.Rollout.Steps):
		r.Step++
		l.note(m, "share raised", r.Number, fmt.Sprintf("to %s of the requests, after %s", shareText(m.Rollout.share(r.Step)), m.trialFigures()))
		l.log.Info("canary gets more requests", "model", m.Name, "version", r.Number, "reason", shareText(m.Rollout.share(r.Step)))
		*t = trial{v: t.v, since: now, next: t.next, begun: true, start: fresh, oldStart: other}
	case done:
		l.passed(m, "")
	default:
		if left := t.since.Add(p.Time); left.After(now) && left.Before(t.next) {
			t.next = left
		}
	}
}

// sharesRequests reports whether the old version answers too, so that both are measured over the same time.
func (m *model) sharesRequests() bool {
	return len(m.Rollout.Steps) > 0 && m.Rollout.share(m.rec.Trial.Step) < 1
}

// recent is what the version has done lately, now that it measures m; and the bytes per request that its worker gained.
func (p *past) recent(m Measures) (Measures, float64) {
	before := p.older
	if m.since(before).Requests < pastLeast {
		before = Measures{}
	}
	did, gain := m.since(before), 0.0
	from := p.older
	if from.Memory == 0 {
		from = p.newer
	}
	if from.Memory > 0 && m.Memory > from.Memory && m.Requests-from.Requests >= leastGained {
		gain = float64(m.Memory-from.Memory) / float64(m.Requests-from.Requests)
	}
	did.Memory = m.Memory
	return did, gain
}

// aside is the recent past of a version that serves no more.
type aside struct {
	Before Measures
	Gain   float64
}

// asideOf measures a drained servable for the last time; nil when it cannot be measured.
func asideOf(p past, s inference.Servable) *aside {
	watched, ok := s.(Measured)
	if !ok {
		return nil
	}
	before, gain := p.recent(watched.Measure())
	return &aside{before, gain}
}

// tendPast measures the live versions now and then, so that their recent past is known when a new one takes over.
func (l *loop) tendPast(m *model, now time.Time) {
	for _, v := range m.serves() {
		s, ok := v.servable.(Measured)
		if !ok || v.past.measuring || m.onTrial(v) || v.past.at.Add(pastStep).After(now) {
			continue
		}
		v.past.measuring, v.past.at = true, now
		l.jobs++
		go func() {
			got := s.Measure()
			l.post(func() {
				l.jobs--
				v.past.measuring = false
				if v.state == StateLive {
					v.past.older, v.past.newer, v.memory = v.past.newer, got, got.Memory
				}
			})
		}()
	}
}

// trialWake is when the trial, or a version's past, wants attention next.
func (m *model) trialWake(next time.Time) time.Time {
	if t := m.trial; t != nil && !t.measuring && t.next.Before(next) {
		next = t.next
	}
	for _, v := range m.serves() {
		if _, ok := v.servable.(Measured); ok && !v.past.measuring && !m.onTrial(v) {
			if at := v.past.at.Add(pastStep); at.Before(next) {
				next = at
			}
		}
	}
	return next
}
