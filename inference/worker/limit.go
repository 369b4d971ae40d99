// limit.go: a worker that takes more memory than it may is replaced, without failing a run where that can be.
package worker

import (
	"fmt"
	"time"
)

const (
	// memoryPatrol is how often a process that answers runs is looked at: one that takes a megabyte for each of a thousand runs a second is
	// 50 MB over its limit then. One that has a limit and answers nothing is looked at once in a patrol.
	memoryPatrol = 50 * time.Millisecond
	// nearPatrol is how often one is that has four fifths of what it may have.
	nearPatrol = 10 * time.Millisecond
	// A process over its limit has this long to finish the runs that it has begun, unless it is over by a quarter, and by this much.
	lastRuns = time.Second
	farOver  = 64 << 20
)

// SetMemoryLimit changes how many resident bytes the model's process may have from now on; 0 means any number. A process that has more is replaced: new
// runs wait for the next one, those that have begun end first if they take no longer than a second and the process stays below 1.25 times the limit
// (or 64 MiB over a small one). In a Group the last word counts for all.
func (m *Model) SetMemoryLimit(bytes int64) {
	m.unit.process.memoryLimit.Store(max(0, bytes))
	if _, p := m.unit.stats(); p != nil {
		select {
		case p.rouse <- struct{}{}:
		default:
		}
	}
}

// Kill ends the process now; it is replaced, as after any death. It does nothing while there is none.
func (m *Model) Kill(reason string) {
	if _, p := m.unit.stats(); p != nil {
		p.kill(ending{reason: reason, memory: true})
	}
}

// appetite is what watch knows of a process's memory.
type appetite struct {
	looked    time.Time
	completed uint64
	idle      bool      // there is no reason to look often
	near      bool      // it will be over its limit soon
	over      time.Time // since when it is to be replaced
	reason    string
}

// next is how long it takes until the next look.
func (a *appetite) next(slow, fast time.Duration) time.Duration {
	switch {
	case a.idle:
		return slow
	case a.near || !a.over.IsZero():
		return min(fast, nearPatrol)
	}
	return fast
}

// overfed looks whether the process has more memory than it may, and reports whether it was ended for that.
func (p *process) overfed(a *appetite, now time.Time) bool {
	limit := p.opts.memoryLimit.Load()
	_ = p.group.limit(limit) // tried again at the next look
	if a.idle = limit <= 0; a.idle && a.over.IsZero() {
		return false
	}
	p.mu.Lock()
	completed, running := p.completed, p.running()
	p.mu.Unlock()
	a.idle = a.over.IsZero() && completed == a.completed && running == 0
	if a.idle && now.Sub(a.looked) < patrol/4 {
		return false
	}
	a.looked, a.completed = now, completed
	m, err := readMemory(p.pid)
	if err != nil {
		return false // it has just ended
	}
	if a.over.IsZero() {
		if a.near = m.Resident > limit/5*4; m.Resident <= limit {
			return false
		}
		a.over, a.reason = now, fmt.Sprintf("over its memory limit: it used %d MiB of %d MiB; raise the limit or give the model less work at once",
			m.Resident>>20, limit>>20)
		p.retired.Store(true)
		p.mu.Lock()
		running = p.running() // one may have begun since
		p.mu.Unlock()
	}
	if running > 0 && now.Sub(a.over) < lastRuns && m.Resident < hardLimit(limit) {
		return false
	}
	p.kill(ending{reason: a.reason, memory: true})
	return true
}
