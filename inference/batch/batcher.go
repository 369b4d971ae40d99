// batcher.go: the Batcher and a request's way through it.
package batch

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// Bounds of what waits, when Options has none.
const (
	DefaultMaxQueued      = 4096
	DefaultMaxQueuedBytes = 256 << 20
)

// Options of a Batcher. Zero means default.
type Options struct {
	// Model and Version are for errors and logs.
	Model   string
	Version int64
	Policy  Policy // valid, see [Policy.Validate]
	// MaxRows is the largest batch that warm-up has proven: requests are not joined beyond it. 0 when nobody knows.
	MaxRows int64
	// Singly has the keys of signatures that warm-up has found to mix the rows of a batch: their requests are neither joined nor split,
	// though their shapes would allow it.
	Singly map[string]bool
	// MaxQueued bounds the requests that wait, MaxQueuedBytes the bytes of their inputs. One request is always let in.
	MaxQueued      int
	MaxQueuedBytes int64
	// Observe is called after each run, from that run's goroutine, so from several at once. It must not block, nor keep Waits.
	Observe func(Observation)
	// Expect is what runs have taken before, by signature key and number of rows, for the first predictions. May be nil.
	Expect map[string]map[int64]time.Duration
	// Ready is how long it will take until a run can begin at all, 0 while the worker is there; Wake has it loaded. Both are called often, from
	// anywhere, and must not block. Nil: always ready.
	Ready func() time.Duration
	Wake  func()
	Log   *slog.Logger // nil discards
}

// Observation is what metrics need to know about one run.
type Observation struct {
	Signature  string
	Requests   int
	Rows       int64           // of the requests; a request that could not be joined counts as 1
	PaddedRows int64           // added to reach an allowed batch size
	Waits      []time.Duration // time in the queue, one per request
	Run        time.Duration
	Err        error // nil when the run succeeded
}

// Stats is a snapshot.
type Stats struct {
	Queued      int           // requests that wait
	QueuedBytes int64         // of their inputs
	InFlight    int           // runs
	Refused     int64         // requests refused because the queue was full
	Late        int64         // requests refused because they would not have been answered in time
	Expired     int64         // requests that waited until it was too late for them
	Yielded     int64         // requests that gave way to others
	Promised    int           // tickets that are out
	Suspects    int           // fingerprints remembered
	Wait        time.Duration // that a request of class Normal without a deadline would wait now
	Stretch     float64       // by how much waiting takes longer than predicted, lately; at least 1
	Runs        []RunTime     // of the signature that ran most
}

// RunTime is the predicted time of a run.
type RunTime struct {
	Rows int64
	Took time.Duration
}

// Batcher joins concurrent requests of one model version into runs. It is an [inference.Servable]; every method may be called from anywhere.
type Batcher struct {
	// immutable after New
	runner   inference.Runner
	beginner inference.Beginner // the runner, where it can do that
	opts     Options
	limits   limits
	log      *slog.Logger

	sigs     sync.Map // *inference.Signature to *signature
	sigCount atomic.Uint64
	suspects *suspects
	tells    atomic.Bool // the runner calls Run.Copied
	shrunk   atomic.Bool // see Shrink
	origin   time.Time
	pending  sync.WaitGroup
	oldCalls sync.Pool
	oldRuns  sync.Pool

	mu          sync.Mutex
	seq         uint64            // guarded by mu; of the newest call
	groups      map[uint64]*group // guarded by mu; kind joins, none empty
	singles     *group            // guarded by mu
	writes      *group            // guarded by mu
	spare       []*group          // guarded by mu
	ready       ready             // guarded by mu
	runs        []*run            // guarded by mu; in flight
	inflight    int               // guarded by mu
	exclusive   bool              // guarded by mu; a suspect is in flight
	queued      int               // guarded by mu
	queuedBytes int64             // guarded by mu
	refused     int64             // guarded by mu
	closed      bool              // guarded by mu

	// guarded by mu: the prediction, see admit.go
	agenda        *agenda
	shares        *shares
	came          [ranks]time.Duration // when the newest of each rank was let in
	typical       typical
	promised      int
	promisedBytes int64
	learned       time.Duration // when a run last showed how long runs take
	tried         time.Duration // when one was let in last to show it
	stretch       float64
	stretched     time.Duration
	late          int64
	expired       int64
	yielded       int64
}

// New is a batcher over the runner, which it closes when it is closed itself. It asks the runner for its slots once.
func New(runner inference.Runner, opts Options) *Batcher {
	if opts.MaxQueued <= 0 {
		opts.MaxQueued = DefaultMaxQueued
	}
	if opts.MaxQueuedBytes <= 0 {
		opts.MaxQueuedBytes = DefaultMaxQueuedBytes
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	b := &Batcher{
		runner: runner, opts: opts, limits: opts.Policy.resolve(opts.MaxRows, runner.Slots()),
		log:      log.With("component", "batch", "model", opts.Model, "version", opts.Version),
		suspects: newSuspects(), groups: make(map[uint64]*group),
		singles: &group{kind: single, heap: -1}, writes: &group{kind: serial, heap: -1},
		origin: time.Now(), agenda: newAgenda(), shares: newShares(), stretch: 1, learned: -stale - 1, tried: -stale - 1,
	}
	b.beginner, _ = runner.(inference.Beginner)
	for _, times := range opts.Expect {
		var c cost
		c.expect(times)
		b.typical.guess(&c)
	}
	return b
}

// Predict queues the request and blocks until its answer, a failure or ctx's end, whichever is first. Errors are *inference.Error.
func (b *Batcher) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	if err := ctx.Err(); err != nil {
		return nil, b.fail(inference.AsError(err))
	}
	c := b.newCall(req, req)
	c.due = never
	if deadline, ok := ctx.Deadline(); ok {
		c.due = b.dueAt(deadline)
	}
	c.class = req.Class
	if c.rows > b.limits.refuse {
		return nil, b.fail(inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
			"Task size %d is larger than maximum input batch size %d", c.rows, b.limits.refuse))
	}
	if b.suspects.size.Load() > 0 {
		c.print, c.hasPrint = b.suspects.fingerprint(req), true
		if e, ok := b.suspects.find(c.print); ok {
			if e.convicted() {
				return nil, b.refusal(e)
			}
			c.isolate()
		}
	}
	if c.rows > b.limits.execute && !c.sig.single.Load() {
		return b.predictParts(ctx, c)
	}
	return b.predict(ctx, c)
}

func (b *Batcher) predict(ctx context.Context, c *call) (*inference.Response, error) {
	if err := b.submit(c); err != nil {
		return nil, err
	}
	gone, err := b.wait(ctx, c)
	if gone {
		return nil, err // a run may still refer to c
	}
	var resp *inference.Response
	if err == nil {
		resp = c.response()
	}
	b.recycle(c)
	return resp, err
}

// wait blocks until the call is answered or, when gone, taken out because ctx has ended.
func (b *Batcher) wait(ctx context.Context, c *call) (gone bool, err error) {
	select {
	case <-c.done:
	case <-ctx.Done():
		if err := b.leave(ctx, c); err != nil {
			return true, err
		}
	}
	return false, c.err
}

// newCall is a call of req, which is a part of original or the same.
func (b *Batcher) newCall(req, original *inference.Request) *call {
	c, ok := b.oldCalls.Get().(*call)
	if !ok {
		c = &call{done: make(chan struct{}, 1)}
	}
	c.req, c.original, c.sig, c.since = req, original, b.signature(req.Signature), time.Now()
	b.classify(c)
	return c
}

func (b *Batcher) signature(sig *inference.Signature) *signature {
	if s, ok := b.sigs.Load(sig); ok {
		return s.(*signature)
	}
	made := &signature{Signature: sig, id: b.sigCount.Add(1)}
	made.single.Store(b.opts.Singly[sig.Key])
	made.expect(b.opts.Expect[sig.Key])
	s, _ := b.sigs.LoadOrStore(sig, made)
	return s.(*signature)
}

// isolate makes the call run with nothing else in flight.
func (c *call) isolate() {
	c.exclusive = true
	if c.kind == joins {
		c.kind = single
	}
}

// fail fills in the model and the version.
func (b *Batcher) fail(e *inference.Error) *inference.Error {
	if e.Model == b.opts.Model && e.Version == b.opts.Version {
		return e
	}
	own := *e // the runner may give the same error to many
	own.Model, own.Version = b.opts.Model, b.opts.Version
	return &own
}

func (b *Batcher) closedError() error {
	return b.fail(&inference.Error{Code: inference.Unavailable, Reason: inference.ReasonDraining, Err: inference.ErrClosed,
		Msg: "the model version is being unloaded; send the request again"})
}

// Stats is a snapshot for metrics.
func (b *Batcher) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	b.agenda.advance(now)
	s := Stats{Queued: b.queued, QueuedBytes: b.queuedBytes, InFlight: b.inflight, Refused: b.refused, Suspects: int(b.suspects.size.Load()),
		Late: b.late, Expired: b.expired, Yielded: b.yielded, Promised: b.promised, Stretch: b.stretchAt(now)}
	if ahead := b.agenda.ahead(rankOf(inference.Normal, false), never); ahead > 0 || b.inflight >= b.limits.slots {
		s.Wait = time.Duration((b.rest() + ahead) / float64(b.limits.slots) * s.Stretch)
	}
	s.Runs = b.runTimes()
	return s
}

// Close answers everyone who still waits with UNAVAILABLE, waits for the runs in flight whose callers are there, and closes the runner.
// Later calls of Predict fail with an error that wraps ErrClosed; closing again does nothing.
func (b *Batcher) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	var out []*call
	for _, g := range b.groups {
		out = b.drain(g, out)
	}
	out = b.drain(b.singles, out)
	out = b.drain(b.writes, out)
	var abandoned []context.CancelFunc
	for _, r := range b.runs {
		if r.live == 0 {
			r.spoiled = true
			abandoned = append(abandoned, r.cancel)
		}
	}
	b.mu.Unlock()
	for _, c := range out {
		c.done <- struct{}{}
	}
	for _, cancel := range abandoned {
		cancel()
	}
	b.pending.Wait()
	return b.runner.Close()
}

// drain empties the group. mu is held.
func (b *Batcher) drain(g *group, out []*call) []*call {
	for c := g.first; c != nil; c = g.first {
		b.dequeue(c)
		c.state, c.err = answered, b.closedError()
		out = append(out, c)
	}
	b.update(g)
	return out
}

// Capacity is how many runs may be in flight, and how many rows one has at most when requests are joined.
func (b *Batcher) Capacity() (runs int, rows int64) { return b.limits.slots, b.limits.join }
