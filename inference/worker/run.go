// run.go: one run through a process, on the core's side.
package worker

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// errNotBegun says that the process ended before the run was submitted: nothing has run, another process may.
var errNotBegun = errors.New("the worker ended before the run began")

// target is what a run needs to know about its model in a process.
type target struct {
	model      uint32
	signatures map[string]targetSignature
}

type targetSignature struct {
	number uint32
	// outBytes is how large the output area of the next run should be: what the latest needed, sinking slowly from the largest.
	outBytes *atomic.Int64
}

func (s targetSignature) learn(used int) {
	s.outBytes.Store(max(int64(used), s.outBytes.Load()*15/16))
}

// run executes r. Errors are *inference.Error, or errNotBegun.
func (p *process) run(ctx context.Context, t *target, r *inference.Run) (*inference.Result, error) {
	sig, ok := t.signatures[r.Signature.Key]
	if !ok {
		return nil, inference.Errorf(inference.Internal, inference.ReasonWorker, "signature %q is not loaded", r.Signature.Key)
	}
	var s *slot
	select {
	case s = <-p.free:
	default:
		select {
		case s = <-p.free:
		case <-ctx.Done():
			return nil, inference.AsError(ctx.Err())
		case <-p.stop:
			return nil, errNotBegun
		}
	}
	if err := p.begin(s, t.model, sig, r); err != nil {
		return nil, err
	}
	p.poll(s)
	return p.wait(ctx, s)
}

// begin hands r over in the slot, which it gives back where it fails.
func (p *process) begin(s *slot, model uint32, sig targetSignature, r *inference.Run) error {
	if err := p.prepare(s, model, sig, r); err != nil {
		return err
	}
	s.run, s.sig, s.polled, s.since = r, sig, false, time.Now()
	if !p.submit(s) {
		return errNotBegun
	}
	if r.Copied != nil {
		r.Copied()
	}
	s.beside = p.host.running.Add(1)
	return nil
}

// wait is the outcome of the run that was begun in the slot.
func (p *process) wait(ctx context.Context, s *slot) (*inference.Result, error) {
	defer p.host.running.Add(-1)
	if !s.polled {
		select {
		case <-s.finished:
		case <-ctx.Done():
			if p.abandon(s) {
				return nil, inference.AsError(ctx.Err())
			}
			<-s.finished
		case <-p.down:
			if err := p.lost(s); err != nil {
				return nil, err
			}
			<-s.finished // it had completed before the end
		}
	}
	p.typical.Store((7*p.typical.Load() + int64(time.Since(s.since))) / 8)
	return p.finish(s, s.sig, s.run)
}

// prepare writes the run into areas for the slot, which this run owns until it is submitted.
func (p *process) prepare(s *slot, model uint32, sig targetSignature, r *inference.Run) error {
	table, total := runBytes(r)
	in, err := p.arena.take(total)
	if err == nil {
		s.in = in
		if s.out, err = p.arena.take(int(min(sig.outBytes.Load(), int64(p.arena.max)))); err == nil {
			encodeRun(in.mem, model, sig.number, r, table)
			return nil
		}
		p.arena.put(in)
		s.in = nil
	}
	p.free <- s
	var size *errAreaSize
	if errors.As(err, &size) {
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the inputs take %v; send a smaller batch or raise the limit", err)
	}
	if p.isEnding() {
		return errNotBegun
	}
	return &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonWorker, Err: err,
		Msg: fmt.Sprintf("no memory could be shared with the worker of %s; try again", p.opts.subject)}
}

// submit puts the slot's run on the ring, unless the process has ended.
func (p *process) submit(s *slot) bool {
	p.mu.Lock()
	if p.ending != nil || p.retired.Load() {
		p.release(s)
		if p.ending == nil {
			p.free <- s // others may wait for one, to hear the same
		}
		p.mu.Unlock()
		return false
	}
	s.state, s.number = slotRunning, p.ring.sent
	wake := p.ring.submit(submission{slot: s.index, in: s.in.id, out: s.out.id})
	p.mu.Unlock()
	if wake {
		p.ringWorker()
	}
	if p.dozing.Load() && p.dozing.CompareAndSwap(true, false) {
		select {
		case p.rouse <- struct{}{}:
		default:
		}
	}
	return true
}

// poll waits for the run without sleeping, for as long as that is likely to be worth it: runs have been short lately, and this one has a
// processor to itself. It takes in the completions of others as well.
func (p *process) poll(s *slot) bool {
	typical := time.Duration(p.typical.Load())
	if typical > maxSpin || int(s.beside) > runtime.NumCPU()/2 || !p.reapMu.TryLock() {
		return false
	}
	defer p.reapMu.Unlock()
	if p.ringMem == nil {
		return false
	}
	p.ring.asleep.Store(0)
	var err error
	found := p.spinner.spin(maxSpin, func() bool {
		err = p.collect()
		return err != nil || len(s.finished) > 0
	})
	p.ring.asleep.Store(1)
	if err == nil {
		err = p.collect()
	}
	if err != nil {
		p.fail(err)
		return false
	}
	if !found {
		return false
	}
	select {
	case <-s.finished:
		s.polled = true
	default:
	}
	return s.polled
}

// abandon leaves a run to complete alone; false when it has completed.
func (p *process) abandon(s *slot) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case s.state == slotFinished:
		return false
	case p.death != nil:
		p.release(s)
	default:
		s.state = slotAbandoned
	}
	return true
}

// lost is the error of a run whose process has ended; nil when it had completed before.
func (p *process) lost(s *slot) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.state == slotFinished {
		return nil
	}
	p.release(s)
	if p.ending.timeout == s {
		return &inference.Error{Code: inference.DeadlineExceeded, Reason: inference.ReasonWorker, Err: inference.ErrRunTimeout,
			Msg: fmt.Sprintf("the run of %s passed run_timeout (%v); its worker was ended and is being replaced", p.opts.subject, p.opts.runTimeout)}
	}
	return p.died("during the run")
}

// finish reads the result of a completed run and frees its slot.
func (p *process) finish(s *slot, sig targetSignature, r *inference.Run) (*inference.Result, error) {
	out := s.out // the slot is ours until vacate: a completed one is nobody else's
	got, err := readResult(out.mem, r.Signature, r.Outputs)
	p.mu.Lock()
	p.recycle(s, err == nil && got.late)
	s.out, s.run = nil, nil
	p.vacate(s)
	p.mu.Unlock()
	if err != nil {
		p.arena.put(out)
		p.fail(err)
		return nil, &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: fmt.Errorf("%w: %w", inference.ErrWorkerDied, err),
			Msg: fmt.Sprintf("the worker of %s answered wrongly and was ended; it is being replaced, try again", p.opts.subject)}
	}
	if got.code != inference.OK {
		p.arena.put(out)
		return nil, &inference.Error{Code: got.code, Reason: inference.ReasonRuntime, Msg: got.message}
	}
	sig.learn(got.used)
	return inference.NewResult(got.outputs, func() { p.arena.put(out) }), nil
}
