// begin.go: a run that one goroutine begins, and another may wait for.
package worker

import (
	"context"

	"github.com/inferd/inferd/inference"
)

var _ inference.Beginner = (*Model)(nil)

// Begin is described at [inference.Beginner].
func (m *Model) Begin(run *inference.Run) inference.Begun {
	u := m.unit
	u.mu.Lock()
	p, failed := u.current, m.failed
	u.mu.Unlock()
	if p == nil || failed != nil || p.isEnding() || m.closed.Load() {
		return nil
	}
	sig, ok := m.target.signatures[run.Signature.Key]
	if !ok {
		return nil
	}
	select {
	case s := <-p.free:
		if p.begin(s, m.target.model, sig, run) != nil {
			return nil // nothing has begun: Run says why, or finds another process
		}
		s.of, s.owner = m, p
		return (*begun)(s)
	default:
		return nil
	}
}

// begun is a slot whose run is with the worker.
type begun slot

// Poll implements inference.Begun.
func (b *begun) Poll() bool { return b.owner.poll((*slot)(b)) }

// Wait implements inference.Begun.
func (b *begun) Wait(ctx context.Context) (*inference.Result, error) {
	m := b.of
	res, err := b.owner.wait(ctx, (*slot)(b))
	if err != nil {
		return nil, m.name(err)
	}
	m.runs.Add(1)
	return res, nil
}
