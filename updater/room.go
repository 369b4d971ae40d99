// room.go: whether a new version fits into memory beside the one that serves, and what is done where it does not.
package updater

import (
	"fmt"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// Transition says what is done with the version that serves when a new one is loaded.
type Transition int

// The transitions.
const (
	Beside                 Transition = iota // both are loaded for a while, whatever memory there is
	AvailabilityPreserving                   // both, or the new one waits until there is memory for both
	ResourcePreserving                       // the old one is unloaded first, and loaded again where the new one fails
	Auto                                     // both where they fit; the old one first where the new one fits only without it; else it waits
)

const (
	roomRetry   = 30 * time.Second // before it is looked again whether there is room, unless something is unloaded
	workerBytes = 32 << 20         // of a worker, whatever it has loaded
	guessFactor = 2                // bytes of memory for a byte of files, where no version has been measured ...
	mostFactor  = 4                // ... and at most where one has: what it took beyond that (arenas, a graph's own buffers) does not grow with the files
)

// NoRoom is the outcome of a load that was not begun for want of memory, which is no fault of the version: it waits. Options.Load may
// return one.
type NoRoom struct {
	Need, Free int64
	Why        string // who says how much is free
}

func (e *NoRoom) Error() string {
	return fmt.Sprintf("it needs about %s beside what serves, and %s are free (%s)", megabytes(e.Need), megabytes(e.Free), e.Why)
}

// roomFor tells whether a load of the version shall be held against what is free, and the estimate of what it needs. A model of which
// nothing serves is always tried: there is nothing to be lost.
func (l *loop) roomFor(m *model, v *version) (need int64, ask bool) {
	if l.o.Room == nil || m.Transition != AvailabilityPreserving && m.Transition != Auto || len(m.live()) == 0 {
		return 0, false
	}
	return m.need(v), true
}

// least is what a version takes at the least, where it was never measured; else what it is expected to take.
func (m *model) least(v *version) int64 {
	if g := m.rec.good(v.number); g != nil && g.Cost != nil && g.Cost.Peak > 0 {
		return max(g.Cost.LoadPeak, g.Cost.Peak)
	}
	return min(m.need(v), workerBytes+v.sight.Print.Bytes)
}

// need is the memory that a version is expected to take while it is loaded: what it took before, else what
// one that serves takes, by the size of their files.
func (m *model) need(v *version) int64 {
	files := v.sight.Print.Bytes
	if g := m.rec.good(v.number); g != nil && g.Cost != nil && g.Cost.Peak > 0 {
		return max(g.Cost.LoadPeak, g.Cost.Peak) // it has been here
	}
	for _, old := range m.serves() {
		if took := max(old.memory, old.proof.Peak); took > 0 && old.sight.Print.Bytes > 0 {
			return scaled(took, old.sight.Print.Bytes, files)
		}
	}
	return workerBytes + guessFactor*files
}

// scaled is what a version of so many bytes of files is expected to take, where one of oldFiles took so much.
func scaled(took, oldFiles, files int64) int64 {
	factor := min(mostFactor, max(1, float64(took-workerBytes)/float64(oldFiles)))
	grown := float64(took-workerBytes) + factor*float64(files-oldFiles)
	return workerBytes + int64(max(grown, float64(files), 0)*1.25) // a load takes more than what it leaves
}

// memoryOf is the memory that goes with a version.
func (m *model) memoryOf(v *version) int64 {
	if v.memory > 0 {
		return v.memory
	}
	return workerBytes + v.sight.Print.Bytes
}

// free asks for the memory that is left, on a loader.
func (c *Controller) free(ask bool) (free int64, why string, ok bool) {
	if !ask {
		return 0, "", false
	}
	return c.opts.Room()
}

// leavesFor are the live versions that would be retired if v served.
func (l *loop) leavesFor(m *model, v *version, now time.Time) (out []*version) {
	all := l.standings(m, now)
	for i := range all {
		if all[i].Dir == v.dir {
			all[i].Phase = phaseLive
		}
	}
	for _, dir := range plan(m.policy(), all, false, false).Retire {
		out = append(out, m.versions[dir])
	}
	return out
}

// clearFirst makes room before v is loaded, where that is the model's way, and reports whether the load has to wait for it.
func (l *loop) clearFirst(m *model, v *version, now time.Time) bool {
	if m.cleared != nil && m.cleared != v {
		m.cleared, m.stepped = nil, nil
	}
	if m.cleared == nil && m.Transition == ResourcePreserving && m.rec.Trial == nil {
		l.stepAside(m, v, l.leavesFor(m, v, now), "the model's versions are not loaded beside each other")
	}
	return m.cleared == v && slices.ContainsFunc(m.ordered(), func(o *version) bool { return o.state == StateDraining })
}

// stepAside unloads what would be retired anyway when v served. Where v cannot serve then, the plan wants it back.
func (l *loop) stepAside(m *model, v *version, leave []*version, why string) {
	if len(leave) == 0 {
		return
	}
	m.cleared = v
	for _, o := range leave {
		if m.stepped == nil || m.stepped.number < o.number {
			m.stepped = o
		}
		l.retire(m, o, fmt.Sprintf("makes room for version %d: %s", v.number, why))
	}
}

// cramped is what follows from a load for which there is no room.
func (l *loop) cramped(m *model, v *version, e *NoRoom, now time.Time) {
	v.attempts = 0
	leave := l.leavesFor(m, v, now)
	var freed int64
	for _, o := range leave {
		freed += m.memoryOf(o)
	}
	if m.Transition == Auto && m.rec.Trial == nil && len(leave) > 0 && e.Need <= e.Free+freed {
		l.set(m, v, StateSeen, "")
		l.stepAside(m, v, leave, e.Error())
		return
	}
	v.retryAt, v.cramped = now.Add(roomRetry), true
	advice := "make the other models smaller, give inferd more, or write transition: resource_preserving"
	if len(m.live()) == 0 {
		advice = "make the models smaller, or give inferd more (memory.limit, the service's MemoryMax)"
	}
	reason := fmt.Sprintf("RESOURCE_EXHAUSTED: model %s version %d is not loaded: %v; %s; it is tried again when memory is given back: %s",
		m.Name, v.number, e, m.servingText(), advice)
	known := v.state == StateSeen && v.reason == reason
	l.set(m, v, StateSeen, reason)
	v.code, m.dirty = inference.ResourceExhausted, true
	if m.serving(v.number) == nil {
		l.c.catalog.SetStatus(m.Name, inference.VersionStatus{Version: v.number, State: inference.StateEnd, Code: v.code, Message: reason})
	}
	if v.crampedPrint != v.sight.Print.Digest && !known {
		v.crampedPrint = v.sight.Print.Digest
		l.note(m, "no room", v.number, e.Error())
		l.log.Warn("version is not loaded: no memory for it", "model", m.Name, "version", v.number, "err", e, "instead", m.servingText())
	}
}

// roomFreed has those who wait for memory look again.
func (l *loop) roomFreed(now time.Time) {
	for _, m := range l.models {
		for _, v := range m.versions {
			if v.cramped && v.retryAt.After(now) {
				v.retryAt = now
				l.wakeAt(&m.wake, now)
			}
		}
	}
}
