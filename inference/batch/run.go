// run.go: one run of the graph, and what becomes of its requests.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// memoryPause is how long a signature's runs stay small after a memory error.
const memoryPause = time.Minute

// run is one run in the making, in flight or just ended.
type run struct {
	// set by take
	sig       *signature
	kind      kind
	exclusive bool
	memory    bool // some of its calls failed for memory before
	started   time.Time
	expected  float64 // nanoseconds, 0 when nothing is known

	// owned by execute
	inference.Run
	pieces []*tensor.Tensor
	pad    int64
	waits  []time.Duration
	prints []uint64

	copied atomic.Bool  // the runner has its own copy of the inputs
	begun  atomic.Int64 // when it had that, by the batcher's clock

	// guarded by Batcher.mu
	calls   []*call
	rows    int64
	taken   int64         // rows, before sieve
	live    int           // calls whose caller has not left
	looking bool          // fingerprints of the inputs are being made
	stopped chan struct{} // closed when the inputs are let go; nil while nobody waits for that
	spoiled bool          // somebody may still call cancel

	ctx    context.Context // ends when a caller that leaves needs its inputs back
	cancel context.CancelFunc
}

// holdsInputs reports whether anybody may still read the inputs. mu is held.
func (r *run) holdsInputs() bool { return !r.copied.Load() || r.looking }

func (b *Batcher) newRun() *run {
	r, ok := b.oldRuns.Get().(*run)
	if !ok {
		r = new(run)
		r.Copied = func() {
			r.begun.Store(int64(b.now()))
			r.copied.Store(true)
		}
		r.ctx, r.cancel = context.WithCancel(context.Background())
	}
	return r
}

// recycleRun gives the run back, its arrays and its context with it. Nobody may hold its cancel function.
func (b *Batcher) recycleRun(r *run) {
	clear(r.calls)
	clear(r.pieces)
	clear(r.Inputs)
	r.calls, r.pieces, r.Inputs, r.waits, r.prints = r.calls[:0], r.pieces[:0], r.Inputs[:0], r.waits[:0], r.prints[:0]
	r.Signature, r.Outputs, r.sig = nil, nil, nil
	r.rows, r.pad, r.live, r.memory, r.exclusive = 0, 0, 0, false, false
	r.copied.Store(false)
	r.begun.Store(0)
	b.oldRuns.Put(r)
}

// verdict is what a run's end means for its calls.
type verdict uint8

const (
	succeeded verdict = iota + 1
	failed            // each call gets the error
	stopped           // a caller needed its inputs back; the others go on
	singly            // each call is run by itself
	halves            // memory: smaller runs
	unbegun           // the worker died before the run began
	died              // the worker died of one of the calls
)

// execute runs r and ends it, and then what may begin because of that. It is the body of the run's goroutine.
func (b *Batcher) execute(r *run) {
	for r != nil {
		r = b.executeOne(r)
	}
}

// executeOne returns the run that this goroutine is to go on with, nil when there is none.
func (b *Batcher) executeOne(r *run) *run {
	defer b.pending.Done()
	if b.suspects.size.Load() > 0 && !b.sieve(r) {
		return b.end(r, nil, nil, stopped, 0, true)
	}
	if !r.build(&b.limits, b.opts.MaxQueuedBytes) {
		return b.end(r, nil, nil, singly, 0, true)
	}
	began := time.Now()
	result, err := b.runner.Run(r.ctx, &r.Run)
	return b.conclude(r, began, result, err, true)
}

// conclude ends a run that the runner has ended.
func (b *Batcher) conclude(r *run, began time.Time, result *inference.Result, err error, goOn bool) *run {
	took := time.Since(began)
	if r.copied.Load() && !b.tells.Load() {
		b.tells.Store(true)
	}
	v := b.judge(r, result, err)
	if v == died {
		b.blame(r, err)
	}
	return b.end(r, result, err, v, took, goOn)
}

// sieve takes suspects out of a run that was formed before they were suspected. It reports whether anything is left to run.
func (b *Batcher) sieve(r *run) bool {
	b.fingerprints(r)
	found := make([]suspect, len(r.calls))
	for i, print := range r.prints {
		found[i], _ = b.suspects.find(print)
	}
	var out []*call
	b.mu.Lock()
	keep := r.calls[:0]
	for i, c := range r.calls {
		e := &found[i]
		switch {
		case c.state == left || e.deaths == 0 || (c.exclusive && !e.convicted()):
			keep = append(keep, c)
			continue
		case e.convicted():
			c.state, c.err = answered, b.refusal(*e)
			out = append(out, c)
		case b.closed:
			c.state, c.err = answered, b.closedError()
			out = append(out, c)
		default:
			c.isolate()
			b.enqueue(c)
		}
		r.rows -= c.rows
		r.live--
	}
	clear(r.calls[len(keep):])
	r.calls = keep
	some := r.live > 0
	b.mu.Unlock()
	for _, c := range out {
		c.done <- struct{}{}
	}
	return some
}

// fingerprints fills r.prints, one per call. The inputs stay: the runner has not copied them yet, or r.looking is set.
func (b *Batcher) fingerprints(r *run) {
	b.mu.Lock()
	r.looking = true
	calls := r.calls
	r.prints = r.prints[:0]
	var missing []int
	for i, c := range calls {
		r.prints = append(r.prints, c.print)
		if !c.hasPrint {
			missing = append(missing, i)
		}
	}
	b.mu.Unlock()
	for _, i := range missing {
		r.prints[i] = b.suspects.fingerprint(calls[i].original)
	}
	b.mu.Lock()
	r.looking = false
	for _, i := range missing {
		calls[i].print, calls[i].hasPrint = r.prints[i], true
	}
	b.mu.Unlock()
}

// blame notes that the calls of r were in flight when the worker died.
func (b *Batcher) blame(r *run, err error) {
	b.fingerprints(r)
	for _, print := range r.prints {
		b.suspects.strike(print, r.exclusive, err)
	}
	b.log.Warn("requests suspected of ending the worker", "signature", r.sig.Key, "requests", len(r.calls), "err", err)
}

// build fills in the Run. It reports false when padding would take more than maxBytes for one input.
func (r *run) build(l *limits, maxBytes int64) bool {
	first := r.calls[0]
	r.Signature, r.Outputs = first.req.Signature, first.req.Outputs
	if r.kind == joins && !r.sig.single.Load() {
		r.pad = l.padded(r.rows) - r.rows
	}
	if n := len(r.calls) * len(first.req.Inputs); cap(r.pieces) < n {
		r.pieces = make([]*tensor.Tensor, 0, n) // grown now, so that the slices of it below stay
	}
	for i := range first.req.Inputs {
		from := len(r.pieces)
		for _, c := range r.calls {
			r.pieces = append(r.pieces, c.req.Inputs[i])
		}
		pieces := r.pieces[from:len(r.pieces):len(r.pieces)]
		if first.flex && len(pieces) > 1 && !level(pieces, r.rows+r.pad, maxBytes) {
			return false
		}
		r.Inputs = append(r.Inputs, tensor.Parts{Pieces: pieces, Pad: r.pad})
	}
	return true
}

// unbuild takes back what build filled in.
func (r *run) unbuild() {
	clear(r.pieces)
	clear(r.Inputs)
	r.pieces, r.Inputs, r.pad = r.pieces[:0], r.Inputs[:0], 0
}

// judge decides what the end of the run means. It takes the result of a run that counts as failed away.
func (b *Batcher) judge(r *run, result *inference.Result, err error) verdict {
	if err == nil {
		if len(result.Outputs) == len(r.Outputs) && r.splittable(result) {
			return succeeded
		}
		if len(result.Outputs) != len(r.Outputs) {
			return failed
		}
		if !r.sig.single.Swap(true) {
			b.log.Warn("signature cannot be batched: an output does not have one row per row of the inputs; its requests run singly from now on",
				"signature", r.sig.Key, "rows", r.rows+r.pad)
		}
		if len(r.calls) == 1 && r.pad == 0 && r.calls[0].original == r.calls[0].req {
			return succeeded // it ran as it was sent, so the answer is right all the same
		}
		return singly
	}
	if errors.Is(err, inference.ErrWorkerDied) || errors.Is(err, inference.ErrRunTimeout) {
		if !r.copied.Load() && b.tells.Load() {
			return unbegun
		}
		return died
	}
	if r.ctx.Err() != nil {
		return stopped
	}
	code := inference.AsError(err).Code
	if len(r.calls) == 1 && (r.pad == 0 || code != inference.ResourceExhausted) {
		return failed
	}
	switch code {
	case inference.ResourceExhausted:
		if r.memory || len(r.calls) == 1 {
			return singly
		}
		return halves
	case inference.Unavailable, inference.DeadlineExceeded, inference.Canceled, inference.Unauthenticated:
		return failed
	default:
		return singly
	}
}

// splittable reports whether every output has one row per row of the inputs. Of a call that runs singly nobody asks that.
func (r *run) splittable(result *inference.Result) bool {
	if r.kind != joins {
		return true
	}
	for _, t := range result.Outputs {
		if rows, ok := t.Rows(); !ok || rows != r.rows+r.pad {
			return false
		}
	}
	return true
}

// end gives every call of r its outcome or its place in the queue back, frees the slot and starts what may start. With goOn the first of that
// is returned to be executed by the caller, whom it spares a goroutine.
func (b *Batcher) end(r *run, result *inference.Result, err error, v verdict, took time.Duration, goOn bool) (next *run) {
	if v == failed && err == nil {
		err = fmt.Errorf("the runner gave %d outputs, %d were asked for", len(result.Outputs), len(r.Outputs))
	}
	if result != nil && v != succeeded {
		result.Release()
	}
	var found []suspect
	if v == died {
		found = make([]suspect, len(r.calls))
		for i, print := range r.prints {
			found[i], _ = b.suspects.find(print)
		}
	}
	o := Observation{Requests: len(r.calls), Rows: max(r.rows, int64(len(r.calls))), PaddedRows: r.pad, Run: took, Err: err}
	ran := took > 0 || result != nil || err != nil
	if b.opts.Observe != nil && ran {
		o.Signature = r.sig.Key
		for _, c := range r.calls {
			r.waits = append(r.waits, r.started.Sub(c.since))
		}
		o.Waits = r.waits
	}
	if r.exclusive && (v == succeeded || v == failed) && r.calls[0].original == r.calls[0].req {
		b.suspects.clear(r.calls[0].print) // it came through alive
	}

	b.mu.Lock()
	if r.stopped != nil {
		close(r.stopped)
	}
	if v == succeeded {
		b.learn(r, took)
		switch {
		case r.live == 0:
			result.Release()
		case r.live > 1:
			result.Retain(r.live - 1)
		}
	}
	if v == halves {
		r.sig.limit, r.sig.limitUntil = max(1, r.rows/2), r.started.Add(took+memoryPause)
	}
	from := r.rows
	for i := len(r.calls) - 1; i >= 0; i-- { // backwards, so that those who come back find their place at the front at once
		c := r.calls[i]
		from -= c.rows
		if c.state == left {
			r.calls[i] = nil
			continue
		}
		if v == succeeded {
			c.state, c.result, c.from = answered, result, from
			c.whole = r.kind != joins || len(r.calls) == 1 && r.pad == 0
			b.check(c, b.learned)
			continue
		}
		var e *suspect
		if found != nil {
			e = &found[i]
		}
		if c.err = b.outcome(r, c, v, err, e); c.err != nil {
			c.state = answered
			continue
		}
		r.calls[i] = nil
		b.enqueue(c)
	}
	b.inflight--
	r.sig.running -= r.taken
	if r.exclusive {
		b.exclusive = false
	}
	if r.kind == serial {
		b.writes.busy = false
		b.update(b.writes)
	}
	for i, other := range b.runs {
		if other == r {
			last := len(b.runs) - 1
			b.runs[i], b.runs[last] = b.runs[last], nil
			b.runs = b.runs[:last]
			break
		}
	}
	next = b.dispatch(goOn)
	spoiled := r.spoiled
	b.mu.Unlock()

	for _, c := range r.calls {
		if c != nil {
			c.done <- struct{}{} // from here on c is its caller's
		}
	}
	if b.opts.Observe != nil && ran {
		b.opts.Observe(o)
	}
	if !spoiled {
		b.recycleRun(r)
	}
	return next
}

// learn is told what a good run took. What it waited for its worker to be there is not its own. mu is held.
func (b *Batcher) learn(r *run, took time.Duration) {
	since := b.now() - b.learned
	b.learned += since
	if begun := time.Duration(r.begun.Load()); begun > 0 {
		took = min(took, b.learned-begun)
	}
	c, rows := r.sig.costOf(r.kind, r.rows+r.pad)
	if b.tried > 0 && float64(took) < c.mean(rows)/2 {
		*c, b.typical = cost{}, typical{} // nothing was let in because of it, and it is wrong
	}
	b.tried = 0
	c.add(rows, took, since)
	if c == &r.sig.cost {
		r.sig.curve.add(rows, took, since)
	}
	b.typical.guess(c)
}

// outcome is the error that a call gets whose run did not succeed, or nil when it goes back to the queue, changed as it needs. mu is held.
func (b *Batcher) outcome(r *run, c *call, v verdict, err error, e *suspect) error {
	if v == died && e.convicted() {
		return b.refusal(*e)
	}
	if v == failed || c.kind == serial && err != nil {
		return b.runError(err) // what writes is never repeated
	}
	if b.closed {
		if err != nil && v != stopped {
			return b.runError(err)
		}
		return b.closedError()
	}
	switch v {
	case singly:
		if c.original != c.req && err == nil {
			return errWhole
		}
		c.kind = single
	case halves:
		c.memory = true
	case unbegun:
		if c.repeats++; c.repeats > 3 {
			return b.runError(err)
		}
	case died:
		if c.exclusive {
			return b.runError(err)
		}
		c.isolate()
	}
	return nil
}

// errWhole: the signature turned out not to be batchable, so a request that was cut must run in one piece.
var errWhole = errors.New("the request must run whole")

// runError is what a client sees of a run's error.
func (b *Batcher) runError(err error) error {
	timeout := errors.Is(err, inference.ErrRunTimeout)
	if !timeout && !errors.Is(err, inference.ErrWorkerDied) {
		if errors.Is(err, context.Canceled) || errors.Is(err, inference.ErrClosed) {
			// Nobody here ended it: the runner is going away.
			return b.fail(&inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: err,
				Msg: "the worker ended before it could run this request; send it again"})
		}
		return b.fail(inference.AsError(err))
	}
	cause := err.Error()
	var known *inference.Error
	if errors.As(err, &known) {
		cause = known.Msg
	}
	e := &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: err}
	what := "ended while it held"
	if timeout {
		e.Code, what = inference.DeadlineExceeded, "was ended for taking too long over"
	}
	e.Msg = fmt.Sprintf("the worker of model %s version %d %s this request (%s), which was not repeated; it is being restarted, send the request again if it may run twice",
		b.opts.Model, b.opts.Version, what, cause)
	return b.fail(e)
}
