// watch.go: the patrol that ends a process which takes too long over a run, or too much memory.
package worker

import (
	"fmt"
	"time"
)

// patrol is how often an idle process is looked at.
const patrol = time.Second

// watch ends the process when a run takes too long or its memory grows over the limit, and trims idle memory.
func (p *process) watch() {
	slow := max(time.Millisecond, min(patrol, p.opts.runTimeout/16))
	fast := min(slow, memoryPatrol)
	pace := slow
	tick := time.NewTicker(pace)
	defer tick.Stop()
	var looked time.Time
	var hunger hunger
	var appetite appetite
	for {
		select {
		case <-p.stop:
			return
		case <-p.rouse:
			pace = fast
			tick.Reset(pace)
		case now := <-tick.C:
			if s := p.overdue(now); s != nil {
				p.kill(ending{timeout: s, reason: fmt.Sprintf("a run passed run_timeout (%v)", p.opts.runTimeout)})
				return
			}
			if p.overfed(&appetite, now) {
				return
			}
			p.dozing.Store(appetite.idle)
			if next := appetite.next(slow, fast); next != pace {
				pace = next
				tick.Reset(pace)
			}
			if now.Sub(looked) < patrol/4 {
				continue
			}
			looked = now
			p.arena.trim(now.Add(-idleArea))
			if p.hungry(&hunger, now) {
				return
			}
		}
	}
}

// overdue is a run that has been with the worker's backend for longer than it may. The worker's callers take runs in the order of
// submission, so the core knows which have been begun without asking: as many as were completed and one more per caller.
func (p *process) overdue(now time.Time) *slot {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		if (s.state != slotRunning && s.state != slotAbandoned) || s.number >= p.completed+uint64(p.opts.callers) {
			continue
		}
		if s.begun.IsZero() {
			s.begun = now
		} else if now.Sub(s.begun) > p.opts.runTimeout {
			return s
		}
	}
	return nil
}
