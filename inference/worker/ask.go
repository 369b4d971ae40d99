// ask.go: a run that only wants to know whether the worker answers.
package worker

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/inferd/inferd/inference"
)

// ErrAway is what Ask fails with where there is nobody to ask.
var ErrAway = errors.New("the worker is not there, or has low priority")

// Ask is Run for somebody who cares whether the worker answers and not for the answer. It fails with ErrAway rather than wait for a process, or
// wake a parked one; it counts in no Stats.Runs, and the outputs teach nothing about those of requests. Else it is a run like any other: one that passes
// RunTimeout ends the process, which is replaced, and the error wraps inference.ErrRunTimeout. An answer is a nil error.
func (m *Model) Ask(ctx context.Context, run *inference.Run) error {
	u := m.unit
	u.mu.Lock()
	p, failed := u.current, m.failed
	u.mu.Unlock()
	if p == nil || failed != nil || m.closed.Load() || p.isEnding() || p.promotion.isLow() {
		return ErrAway
	}
	t := target{model: m.target.model, signatures: make(map[string]targetSignature, 1)}
	if sig, ok := m.target.signatures[run.Signature.Key]; ok {
		size := new(atomic.Int64)
		size.Store(sig.outBytes.Load())
		t.signatures[run.Signature.Key] = targetSignature{number: sig.number, outBytes: size}
	}
	res, err := p.run(ctx, &t, run)
	switch {
	case err == nil:
		res.Release()
		return nil
	case errors.Is(err, errNotBegun):
		return ErrAway
	}
	return m.name(err)
}
