// runner.go: a runner with a script instead of a runtime.

// Package fake has a scripted runner and a servable over it, for the tests of whoever stands above: latency, errors, blocking and death
// without TensorFlow. It keeps the contract of [inference.Runner] to the letter, so that a test which passes with it proves something.
//
// Invariants:
//  1. A run whose context ends goes on and keeps its place in InFlight until it is done, as in a worker.
//  2. Inputs are copied before the graph sees them, and Run.Copied is called then.
//  3. Time is the time package's only, so it works in a synctest bubble.
package fake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Record is one run that began.
type Record struct {
	Signature string
	Inputs    []*tensor.Tensor // copies, joined and padded
	Outputs   []int
	Began     time.Time
}

// Rows is the first dimension of the first input, 0 when it has none.
func (r Record) Rows() int64 {
	if len(r.Inputs) == 0 {
		return 0
	}
	rows, _ := r.Inputs[0].Rows()
	return rows
}

// Runner is an [inference.Runner]. The exported fields are set before the first run and not changed afterwards.
type Runner struct {
	// Width is Slots; 0 means 1.
	Width int
	// Graph computes the outputs asked for. nil means [Echo].
	Graph func(r Record) ([]*tensor.Tensor, error)
	// Latency is how long a run takes. nil means no time.
	Latency func(r Record) time.Duration
	// Silent leaves Run.Copied uncalled.
	Silent bool

	mu       sync.Mutex
	records  []Record
	inflight int
	most     int
	lent     int
	closed   bool
	life     chan struct{} // closed when the worker dies
	cause    error         // why; set before life is closed
	held     chan struct{} // runs wait for it while it is open
	down     chan struct{} // runs wait for it before they begin
}

// Run runs one run.
func (f *Runner) Run(ctx context.Context, run *inference.Run) (*inference.Result, error) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down != nil {
		select {
		case <-down:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	rec := Record{Signature: run.Signature.Key, Outputs: append([]int(nil), run.Outputs...), Began: time.Now()}
	for _, p := range run.Inputs {
		t, err := Join(p)
		if err != nil {
			return nil, err
		}
		rec.Inputs = append(rec.Inputs, t)
	}

	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		return nil, inference.ErrClosed
	}
	if f.life == nil {
		f.life = make(chan struct{})
	}
	life, held := f.life, f.held
	f.records = append(f.records, rec)
	f.inflight++
	f.most = max(f.most, f.inflight)
	f.mu.Unlock()
	if run.Copied != nil && !f.Silent {
		run.Copied()
	}

	type end struct {
		result *inference.Result
		err    error
	}
	ended := make(chan end, 1)
	go func() {
		result, err := f.work(rec, life, held)
		f.mu.Lock()
		f.inflight--
		f.mu.Unlock()
		ended <- end{result, err}
	}()
	select {
	case e := <-ended:
		return e.result, e.err
	case <-ctx.Done():
		go func() { // it goes on; nobody takes its result
			if e := <-ended; e.result != nil {
				e.result.Release()
			}
		}()
		return nil, ctx.Err()
	}
}

func (f *Runner) work(rec Record, life, held chan struct{}) (*inference.Result, error) {
	if held != nil {
		select {
		case <-held:
		case <-life:
			return nil, f.death()
		}
	}
	if f.Latency != nil {
		if d := f.Latency(rec); d > 0 {
			timer := time.NewTimer(d)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-life:
				return nil, f.death()
			}
		}
	}
	graph := f.Graph
	if graph == nil {
		graph = Echo
	}
	outputs, err := graph(rec)
	if errors.Is(err, inference.ErrWorkerDied) || errors.Is(err, inference.ErrRunTimeout) {
		f.Kill(err) // the others in flight die with it
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.lent++
	f.mu.Unlock()
	return inference.NewResult(outputs, func() {
		f.mu.Lock()
		f.lent--
		f.mu.Unlock()
	}), nil
}

func (f *Runner) death() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(f.cause, inference.ErrWorkerDied) {
		return f.cause
	}
	return fmt.Errorf("%w: %w", inference.ErrWorkerDied, f.cause)
}

// Kill ends the worker: every run in flight fails with an error that wraps ErrWorkerDied and cause. A new one is there at once.
func (f *Runner) Kill(cause error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cause = cause
	if f.life != nil {
		close(f.life)
		f.life = nil
	}
}

// Hold keeps runs that begin from now on in flight until the function it returns is called.
func (f *Runner) Hold() (release func()) {
	held := make(chan struct{})
	f.mu.Lock()
	f.held = held
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		if f.held == held {
			f.held = nil
		}
		f.mu.Unlock()
		close(held)
	})
}

// Down keeps runs from beginning, as while a worker is restarted, until the function it returns is called.
func (f *Runner) Down() (up func()) {
	down := make(chan struct{})
	f.mu.Lock()
	f.down = down
	f.mu.Unlock()
	return sync.OnceFunc(func() {
		f.mu.Lock()
		if f.down == down {
			f.down = nil
		}
		f.mu.Unlock()
		close(down)
	})
}

// Slots is Width.
func (f *Runner) Slots() int { return max(1, f.Width) }

// Close makes later runs fail with ErrClosed.
func (f *Runner) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	return nil
}

// Records are the runs that began, in order.
func (f *Runner) Records() []Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]Record(nil), f.records...)
}

// InFlight is the number of runs that have begun and not ended; most is the largest it ever was.
func (f *Runner) InFlight() (now, most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.inflight, f.most
}

// Lent is the number of results that have not been released.
func (f *Runner) Lent() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.lent
}

// Closed reports whether Close was called.
func (f *Runner) Closed() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.closed
}

// Join is the tensor that the parts make, in memory of its own.
func Join(p tensor.Parts) (*tensor.Tensor, error) {
	buf := make([]byte, p.EncodedLen())
	p.Encode(buf)
	return tensor.Decode(p.DType(), append(tensor.Shape(nil), p.Shape()...), buf)
}

// Echo gives input i%n as output i.
func Echo(r Record) ([]*tensor.Tensor, error) {
	outputs := make([]*tensor.Tensor, len(r.Outputs))
	for i, o := range r.Outputs {
		outputs[i] = r.Inputs[o%len(r.Inputs)]
	}
	return outputs, nil
}
