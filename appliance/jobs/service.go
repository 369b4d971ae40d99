// service.go: the queue as the doors see it: what became of a job, waiting for it, and the outboxes of sessions.
package jobs

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// DefaultRunTime is Options.RunTime where nobody says more.
const DefaultRunTime = 5 * time.Minute

// Options of a Service.
type Options struct {
	Queue *storage.Queue // nil: there is none, and Missing says why
	// Missing is the answer to everybody where there is no queue.
	Missing *inference.Error
	API     *api.Service
	Codecs  map[api.Kind]api.Codec
	// Settings are asked for at each use.
	Settings func() Settings
	// MaxAge is how long a job of the model may wait, 0 for ever. Nil: for ever.
	MaxAge func(model string) time.Duration
	// Concurrency is how many jobs of a model may run at once. Nil: 16.
	Concurrency func(model string) int
	// RunTime is how long a job of the model may take from its lease to its answer; what waits behind urgent requests for longer goes back to
	// its place. Nil: 5 minutes.
	RunTime func(model string) time.Duration
	// Room says why nothing durable may be begun, for want of disk space. Nil: it always may.
	Room func() *inference.Error
	// Scanned reports that every model is known by now. Nil: it is so.
	Scanned func() bool
	// Changed returns a channel that is closed when a model may have become available since the call. Nil: it is looked once a second.
	Changed func() <-chan struct{}
	// Hold reports that no job may be leased for now. Nil: never.
	Hold func() bool
	// Draining is closed when the appliance begins to stop: no more is leased. Nil: never.
	Draining <-chan struct{}
	// Grace is how long jobs in flight may take to finish once Draining is closed, or Run's context has ended.
	Grace func() time.Duration
	// Observe is told how each run ended, and must not block. Nil: nobody is.
	Observe func(Run)
	// Log gets what operators should know. nil means discard.
	Log *slog.Logger

	// Of the machine; zero means its own. Tests have others.
	Boot string
	Wall func() time.Time
	Ran  func() time.Duration
}

// Run is how one run of a job ended.
type Run struct {
	Model string
	State storage.JobState // Queued: it goes on waiting
	// Attempt and Death say that one was counted.
	Attempt, Death bool
	Waited         time.Duration // from its submit to its end, of final states
}

// Service takes jobs and answers about them.
type Service struct {
	// immutable after New
	opts  Options
	queue *storage.Queue
	api   *api.Service
	log   *slog.Logger
	clock *Clock

	mu      sync.Mutex
	running map[string]context.CancelFunc // guarded by mu; by job id

	pings   chan chan struct{} // to the dispatcher
	drained chan struct{}      // closed when the dispatcher leases no more
}

// New makes the service over an open queue, which it does not close. Nothing runs before Run.
func New(o Options) *Service {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.MaxAge == nil {
		o.MaxAge = func(string) time.Duration { return 0 }
	}
	if o.Concurrency == nil {
		o.Concurrency = func(string) int { return 16 }
	}
	if o.RunTime == nil {
		o.RunTime = func(string) time.Duration { return DefaultRunTime }
	}
	if o.Room == nil {
		o.Room = func() *inference.Error { return nil }
	}
	if o.Scanned == nil {
		o.Scanned = func() bool { return true }
	}
	if o.Hold == nil {
		o.Hold = func() bool { return false }
	}
	if o.Grace == nil {
		o.Grace = func() time.Duration { return 0 }
	}
	if o.Observe == nil {
		o.Observe = func(Run) {}
	}
	if o.Wall == nil {
		o.Wall = time.Now
	}
	if o.Ran == nil {
		o.Ran = storage.Uptime
	}
	s := &Service{opts: o, queue: o.Queue, api: o.API, log: o.Log.With("component", "queue"), running: make(map[string]context.CancelFunc),
		pings: make(chan chan struct{}), drained: make(chan struct{})}
	if s.queue != nil {
		s.clock = newClock(s.queue, s.queue.Stats().Newest, o.Wall, o.Ran, o.Boot, s.log)
	}
	return s
}

// Missing says why there is no queue, nil when there is one.
func (s *Service) Missing() *inference.Error {
	if s.queue != nil {
		return nil
	}
	if s.opts.Missing != nil {
		return s.opts.Missing
	}
	return inference.Errorf(inference.Unimplemented, inference.ReasonDisk, "this inferd has no queue: queue.enabled is false")
}

// Ping returns nil when the dispatcher has answered, and ctx's error otherwise. While the disk owes the queue an answer nothing is asked: the
// dispatcher may wait for it, and no restart would help. It is called after Run.
func (s *Service) Ping(ctx context.Context) error {
	if s.queue == nil {
		return nil
	}
	pong := make(chan struct{})
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case s.pings <- pong:
			return nil
		case <-s.drained:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
			if s.queue.Stalled() > time.Second {
				return nil
			}
		}
	}
}

// Queue is the store, nil when there is none.
func (s *Service) Queue() *storage.Queue { return s.queue }

// Now is the queue's time, for stamps.
func (s *Service) Now() time.Time { return s.clock.Now() }

// Wall is a moment of the queue's time by the machine's clock, for show.
func (s *Service) Wall(t time.Time) time.Time {
	if s.clock == nil {
		return t
	}
	return s.clock.Wall(t)
}

// ClockSet reports whether anything may end by time.
func (s *Service) ClockSet() bool { return s.clock == nil || s.clock.Set() }

// Job is the job with the id.
func (s *Service) Job(id string) (storage.Item, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Item{}, err
	}
	it, err := s.queue.Get(id)
	return it, s.refusal(err, id)
}

// Wait blocks until the job has ended or ctx has, and is what the job is then.
func (s *Service) Wait(ctx context.Context, id string) (storage.Item, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Item{}, err
	}
	for {
		changed, stop := s.queue.Changed(id)
		it, err := s.queue.Get(id)
		if err != nil || it.State.Final() {
			stop()
			return it, s.refusal(err, id)
		}
		select {
		case <-changed:
			stop()
		case <-ctx.Done():
			stop()
			return it, nil
		case <-s.opts.Draining: // who waits must not hold the doors open
			stop()
			return it, nil
		}
	}
}

// Result is the answer of a done job. Of one that ended otherwise it is that error, of one that has not ended FAILED_PRECONDITION.
func (s *Service) Result(id string) ([]byte, storage.Item, *inference.Error) {
	if err := s.Missing(); err != nil {
		return nil, storage.Item{}, err
	}
	result, it, err := s.queue.Result(id)
	switch {
	case err != nil:
		return nil, it, s.refusal(err, id)
	case !it.State.Final():
		return nil, it, unfinished(&it)
	}
	return result, it, Failure(&it)
}

// Cancel ends a job that waits or runs. A run goes on in its worker, and its answer is thrown away.
func (s *Service) Cancel(ctx context.Context, id string) (storage.Item, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Item{}, err
	}
	it, err := s.queue.Cancel(ctx, id, s.Now())
	if err != nil {
		return it, s.refusal(err, id)
	}
	s.mu.Lock()
	cancel := s.running[id]
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	return it, nil
}

// Retry queues a job again that failed, died or was cancelled.
func (s *Service) Retry(ctx context.Context, id string) (storage.Item, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Item{}, err
	}
	it, err := s.queue.Retry(ctx, id)
	return it, s.refusal(err, id)
}

// Forget acknowledges a job that has ended: it and its result are removed.
func (s *Service) Forget(ctx context.Context, id string) *inference.Error {
	if err := s.Missing(); err != nil {
		return err
	}
	return s.refusal(s.queue.Delete(ctx, id), id)
}

// Open begins the session with this id, which cannot be guessed. One that there is already is left as it is.
func (s *Service) Open(ctx context.Context, session string) *inference.Error {
	if err := s.Missing(); err != nil {
		return err
	}
	if err := s.opts.Room(); err != nil {
		return err
	}
	return s.refusal(s.queue.NewSession(ctx, session, s.Now()), "")
}

// Resume takes a session up again that has seen every result up to after.
func (s *Service) Resume(ctx context.Context, session string, after uint64) (storage.Session, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Session{}, err
	}
	found, err := s.queue.Session(session)
	if err == nil && after > found.Last {
		return found, inference.Errorf(inference.OutOfRange, inference.ReasonInput,
			"the session has had %d results, and number %d cannot have been seen; resume with the number of the last one that was", found.Last, after)
	}
	if err == nil {
		err = s.queue.TouchSession(ctx, session, s.Now())
	}
	return found, s.refusal(err, "")
}

// Touch notes that the session's client is there. It keeps the session from being forgotten.
func (s *Service) Touch(ctx context.Context, session string) *inference.Error {
	if err := s.Missing(); err != nil {
		return err
	}
	return s.refusal(s.queue.TouchSession(ctx, session, s.Now()), "")
}

// Drop ends a session. Its jobs go on, and can be read by their ids.
func (s *Service) Drop(ctx context.Context, session string) *inference.Error {
	if err := s.Missing(); err != nil {
		return err
	}
	return s.refusal(s.queue.DropSession(ctx, session), "")
}

// Outbox has the session's results with numbers above after, in order, at most limit of them and of at most maxBytes together (one may
// have more).
func (s *Service) Outbox(session string, after uint64, limit int, maxBytes int64) ([]storage.Sent, *inference.Error) {
	if err := s.Missing(); err != nil {
		return nil, err
	}
	sent, err := s.queue.Outbox(session, after, limit, maxBytes)
	return sent, s.refusal(err, "")
}

// Ack forgets every result of the session with a number up to through.
func (s *Service) Ack(ctx context.Context, session string, through uint64) *inference.Error {
	if err := s.Missing(); err != nil {
		return err
	}
	return s.refusal(s.queue.Ack(ctx, session, through), "")
}

// Arrived is closed when a result may have come to the session's outbox since the call. stop ends the watch; it must be called.
func (s *Service) Arrived(session string) (arrived <-chan struct{}, stop func()) {
	if s.queue == nil {
		return nil, func() {}
	}
	return s.queue.Changed(storage.ArrivedKey(session))
}

// gone reports that a job needs no outcome any more.
func gone(err error) bool {
	return errors.Is(err, storage.ErrState) || errors.Is(err, storage.ErrNoJob) || errors.Is(err, storage.ErrClosed)
}
