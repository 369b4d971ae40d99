// promote.go: a worker that has loaded at low priority gets normal priority before it serves.
//
// Where threads can be raised again (see raisable) the whole process is low until then: TensorFlow's first session, its pools and Go's collector
// too. Elsewhere only the loading thread and the callers are, on threads that end, and fresh ones take over.
package worker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/inferd/inferd/inference"
)

// A worker of low priority is starved when it had less than a twentieth of one processor for hungerTime, and would have taken more: others keep
// them all busy, and the load would take for ever.
const hungerTime = 2 * time.Second

// promotion is how far a process has come from low priority to normal. The zero value is a process that never was low.
type promotion struct {
	heard chan struct{} // closed when the worker knows that it is to promote its callers, which one that is low as a whole never hears of; nil: it never was low
	done  chan struct{} // closed when it has

	mu   sync.Mutex
	next string // guarded by mu: the frame that may come from the worker; empty: none
}

func newPromotion(low bool) promotion {
	if !low {
		return promotion{}
	}
	return promotion{heard: make(chan struct{}), done: make(chan struct{})}
}

// isLow reports whether the process loads or warms up at low priority.
func (x *promotion) isLow() bool {
	if x.done == nil {
		return false
	}
	select {
	case <-x.done:
		return false
	default:
		return true
	}
}

// ask is true for the first who wants the promotion: it sends the frame.
func (x *promotion) ask() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next != "" || !x.isLow() {
		return false
	}
	x.next = "promoting"
	return true
}

// raise is the promotion of a process that is low as a whole.
func (x *promotion) raise(pid int) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.next != "" {
		return nil
	}
	if err := raiseProcess(pid); err != nil {
		return err
	}
	x.next = "-"
	close(x.done)
	return nil
}

// answered takes the worker's word in.
func (x *promotion) answered(op string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.next != op:
		return lies("a frame %q where it was not asked for", op)
	case op == "promoting":
		x.next = "promoted"
		close(x.heard)
	default:
		x.next = "-" // nothing more
		close(x.done)
	}
	return nil
}

// inPart reports whether the process began low only in the threads that load and call.
func (p *process) inPart() bool { return p.opts.gently && !p.wholly }

// lowerFor lowers a process that is not wanted any more: to give some hundred megabytes back takes tens of milliseconds of a processor. Where
// that takes too long, await raises it again.
func (p *process) lowerFor(e ending) {
	if (e.closed || e.parked) && p.host.raises {
		lowerProcess(p.pid)
	}
}

// promote raises the process, or has the worker replace its callers by such of normal priority and waits until it has. It does nothing where
// that is so already.
func (p *process) promote(ctx context.Context) error {
	x := &p.promotion
	if !x.isLow() {
		return nil
	}
	if p.wholly {
		return x.raise(p.pid)
	}
	asked := x.ask()
	if asked {
		_ = p.tell(frame{Op: "promote"}) // otherwise it goes down
	}
	for _, step := range []chan struct{}{x.heard, x.done} {
		select {
		case <-step:
		case <-ctx.Done():
			return ctx.Err()
		case <-p.down:
			return nil // what replaces it never was low
		}
		if step == x.heard && asked {
			for range p.opts.callers { // those that sleep must wake up to end
				if takeSleeper(p.ring.sleepers) {
					p.ringWorker()
				}
			}
		}
	}
	return nil
}

// hunger watches what a process of low priority gets of the processors. It belongs to watch.
type hunger struct {
	last  turns
	meal  turns     // what it had had when the time began that is looked at
	since time.Time // when that was
}

// look takes in what the process has had by now: for how long it has waited since the last look, and whether it is starved.
func (h *hunger) look(now time.Time, had turns) (waited time.Duration, starved bool) {
	if h.since.IsZero() {
		h.last, h.meal, h.since = had, had, now
	}
	waited = max(0, had.waited-h.last.waited) // less than before when threads have ended
	h.last = had
	span := now.Sub(h.since)
	if span < hungerTime {
		return waited, false
	}
	ran, wanted := had.ran-h.meal.ran, had.waited-h.meal.waited
	h.meal, h.since = had, now
	return waited, ran >= 0 && ran < span/20 && wanted > span/2
}

// hungry looks after a process while it has low priority: the time for which a run waits for a processor does not count towards run_timeout,
// and the process is ended when it is starved, which is reported.
func (p *process) hungry(h *hunger, now time.Time) bool {
	if !p.promotion.isLow() {
		return false
	}
	waited, starved := h.look(now, readTurns(p.pid))
	if starved {
		p.kill(ending{starved: true, reason: fmt.Sprintf("it got no processor for %v at low priority", hungerTime)})
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.slots {
		if !s.begun.IsZero() {
			s.begun = s.begun.Add(waited)
		}
	}
	return false
}

// starvedError is what loads and runs end with when hungry ended the process.
func (p *process) starvedError() error {
	return &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: inference.ErrStarved,
		Msg: fmt.Sprintf("%s got no processor at low priority, for others keep them all busy; it is to be loaded again at normal priority", p.opts.subject)}
}

// Promote gives a model that was opened with Options.Gently callers of normal priority, and returns when all are. It is called before
// the model serves, with no Run in progress, and does nothing for other models. An error is ctx's, or says that the model was closed.
func (m *Model) Promote(ctx context.Context) error {
	if !m.opts.Gently {
		return nil
	}
	p, err := m.unit.await(ctx, m)
	if err == nil {
		err = p.promote(ctx)
	}
	if err != nil {
		return fmt.Errorf("let model %s version %d run at normal priority: %w", m.load.Model, m.load.Version, err)
	}
	return nil
}

// Waited is how long the threads of the worker have been ready to run and had no processor; 0 where nobody counts. The difference of
// two is what a run at low priority took because others had the processors.
func (m *Model) Waited() time.Duration {
	if _, p := m.unit.stats(); p != nil {
		return readTurns(p.pid).waited
	}
	return 0
}

// Low reports whether the model loads, or makes its runs, at low priority, see Options.Gently.
func (m *Model) Low() bool {
	_, p := m.unit.stats()
	return p != nil && p.promotion.isLow()
}
