// start.go: what a start looks at and loads first, and how many loads it runs at once.
package updater

import (
	"slices"
	"time"
)

// turn is where a look, a check or a load stands in its queue: lower ones come first, equal ones in the order in which they came. After the
// start all have the same, for the list of what served before is empty then.
type turn int

const (
	turnAsked  turn = iota // served when inferd ended, and an operator asked for it: by a pin, a rollback or a label
	turnServed             // served when inferd ended
	turnOther
)

// startWait is for how long at most what did not serve before waits for what did, where that is still being looked at.
const startWait = 10 * time.Second

// turn is the version's.
func (m *model) turn(v *version) turn {
	switch {
	case !m.first[v.number]:
		return turnOther
	case m.intended(v.number), slices.Contains(m.labelled(nil), v.number):
		return turnAsked
	}
	return turnServed
}

// lookTurn is that of a look at the model's base path.
func (m *model) lookTurn() turn {
	if len(m.first) > 0 {
		return turnServed
	}
	return turnOther
}

// tendStart gives the loads their bounds: at the start so many as Options.StartLoaders at once, and none of what did not serve before while
// something that did is on its way to the queue; both end for good once everything that was there has its verdict.
func (l *loop) tendStart(now time.Time) {
	if l.started {
		return
	}
	if l.loads.held = l.loads.waits(turnOther) && now.Before(l.startEnds) && l.awaits(); l.loads.held || !l.decidedAll() {
		return
	}
	l.started = true
	if l.renewal != nil {
		l.renewal.limit = l.o.Loaders
	} else {
		l.loads.limit = l.o.Loaders
	}
}

// awaits reports whether something that served when inferd ended may soon be queued for its load.
func (l *loop) awaits() bool {
	if l.root != nil && !l.root.looked && len(l.records) > 0 {
		return true
	}
	for _, m := range l.models {
		if len(m.first) > 0 && !m.gone && (!m.looked || m.checking != nil && m.first[m.checking.number]) {
			return true
		}
	}
	return false
}

// decidedAll reports whether everything that was there at the start has been served, refused, or found to wait for something else.
func (l *loop) decidedAll() bool {
	if !l.scanned {
		return false
	}
	for _, m := range l.models {
		if !m.verdict && !m.gone {
			return false
		}
	}
	return true
}
