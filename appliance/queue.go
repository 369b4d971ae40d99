// queue.go: the durable queue: its file, what the configuration says about it, its conditions, and its place among the parts.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/appliance/api/ws"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

const (
	queueFile = "queue.db" // in state_dir

	queueLook     = time.Second
	diskPatience  = 10 * time.Second // before a disk that does not answer is a condition
	mostInFlight  = 256              // jobs of one model, unless configured
	queueHotBytes = 32 << 20         // of the file, that are booked: what is read and written all the time
)

// QueueFile is where the jobs are kept.
func QueueFile(cfg *config.Config) string { return filepath.Join(cfg.StateDir, queueFile) }

// QueueOptions are how the queue's file is opened with this configuration.
func QueueOptions(cfg *config.Config) storage.QueueOptions {
	o := storage.QueueOptions{
		Whole:      storage.Limits{Jobs: cfg.Queue.MaxJobs, Bytes: int64(cfg.Queue.MaxBytes)},
		MaxPayload: cfg.MaxJob(), BootID: storage.BootID(),
	}
	if cfg.Queue.Full == config.FullExpire {
		o.WhenFull = storage.Evict
	}
	return o
}

// openQueue opens the queue's file and makes the service over it. A file that cannot be had stops nothing else, but that another process has it:
// then this one is a second inferd on the same state.
func (a *Appliance) openQueue() error {
	o := jobs.Options{
		API: a.service, Settings: func() jobs.Settings { return jobSettings(a.current.Load()) }, Boot: storage.BootID(),
		Codecs: map[api.Kind]api.Codec{
			api.JSON:  rest.NewCodec(rest.CodecOptions{MaxRequestBytes: int64(a.cfg.Limits.MaxRequestBytes), StrictJSON: a.cfg.REST.StrictJSON}),
			api.Media: rest.NewMediaCodec(rest.CodecOptions{MaxRequestBytes: int64(a.cfg.Limits.MaxRequestBytes), StrictJSON: a.cfg.REST.StrictJSON}),
			api.Proto: rpc.NewCodec(rpc.CodecOptions{MaxRequestBytes: int64(a.cfg.Limits.MaxRequestBytes), SerializeAsTensorContent: a.cfg.GRPC.TensorContent}),
			api.Raw:   ws.NewRawCodec(),
		},
		MaxAge: func(model string) time.Duration {
			m, _ := a.current.Load().Model(model)
			return a.current.Load().MaxAge(m.ModelOptions)
		},
		RunTime: func(model string) time.Duration {
			m, _ := a.current.Load().Model(model)
			return max(jobs.DefaultRunTime, 2*m.RunTimeout)
		},
		Concurrency: a.jobsAtOnce, Room: a.memory.durable, Scanned: func() bool { return a.updater.Status().Scanned }, Changed: a.news.next, Hold: a.queueHeld,
		Draining: a.draining, Grace: func() time.Duration { return a.current.Load().DrainTimeout }, Observe: a.metrics.queue.run, Log: a.log,
	}
	err := a.haveQueue(&o)
	a.jobs = jobs.New(o)
	return err
}

// haveQueue opens the file, or fills in why there is none.
func (a *Appliance) haveQueue(o *jobs.Options) error {
	if !a.cfg.Queue.Enabled {
		return nil
	}
	path, opts := QueueFile(a.cfg), QueueOptions(a.cfg)
	opts.Version = a.opts.Version
	opts.Log, opts.Observe, opts.Step = a.log, a.metrics.queue.commit, a.opts.step
	opts.Model = func(model string) storage.Limits {
		m, _ := a.current.Load().Model(model)
		return storage.Limits{Jobs: m.Queue.MaxJobs, Bytes: int64(m.Queue.MaxBytes)}
	}
	start := time.Now()
	q, err := storage.OpenQueue(path, opts)
	switch {
	case err == nil:
		o.Queue = q
		if s := q.Stats(); s.Queued > 0 {
			a.log.Info("queue has jobs from before", "requests", s.Queued, "bytes", s.Bytes, "took", time.Since(start))
		}
		return nil
	case errors.Is(err, storage.ErrLocked) && !a.opts.BesideOthers:
		return fmt.Errorf("%w; is another inferd running? stop it, or give this one another state_dir", err)
	case errors.Is(err, storage.ErrNewer) && !a.opts.BesideOthers:
		return err // it has jobs that were promised an answer
	}
	if errors.Is(err, storage.ErrLocked) {
		a.log.Warn("another process has the queue: jobs are not taken here", "err", err)
		o.Missing = inference.Errorf(inference.Unimplemented, inference.ReasonDisk, "this inferd takes no jobs, for another one has the queue of its state_dir; ask that one")
		return nil
	}
	a.queueless = fmt.Sprintf("jobs are not taken: %v; put that right and start inferd again", err)
	a.log.Error("no queue: jobs are not taken", "err", err)
	o.Missing = &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonDisk, RetryAfter: time.Minute, Err: err,
		Msg: "this inferd could not open its queue and takes no jobs; its status says why; predictions without the queue are answered"}
	return nil
}

func (a *Appliance) closeQueue() {
	if q := a.jobs.Queue(); q != nil {
		if err := q.Close(); err != nil {
			a.log.Warn("queue file was not closed cleanly", "err", err)
		}
	}
}

func jobSettings(c *config.Config) jobs.Settings {
	q := &c.Queue
	return jobs.Settings{
		MaxAttempts: q.MaxAttempts, MaxDeaths: q.MaxDeaths, Backoff: q.Backoff, MaxBackoff: q.MaxBackoff, MaxPayload: c.MaxJob(),
		Retention: storage.Retention{Finished: q.Retention, Dead: q.DeadRetention, Sessions: c.Stream.SessionRetention},
	}
}

// jobsAtOnce is how many jobs of the model may be in flight: as many as fill two batches for every caller of its worker.
func (a *Appliance) jobsAtOnce(model string) int {
	if n := a.current.Load().Queue.Concurrency; n > 0 {
		return n
	}
	h, err := a.catalog.Acquire(inference.Spec{Model: model, Steady: true})
	if err != nil {
		return 1
	}
	defer h.Release()
	s, ok := h.Servable().(*servable)
	if !ok {
		return 1
	}
	slots, rows := s.Capacity()
	return int(min(mostInFlight, 2*int64(slots)*rows)) // twice what runs, so that none waits for the disk
}

// durable is the answer to what would take disk space, nil while there is enough.
func (k *keeper) durable() *inference.Error {
	k.mu.Lock()
	d := k.disk
	k.mu.Unlock()
	if !d.Refuses() {
		return nil
	}
	return &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonDisk, RetryAfter: 10 * time.Second,
		Msg: "no jobs are taken: " + d.String() + "; predictions without the queue are answered; make room, or lower the floor"}
}

// runQueue is the queue's stage.
func (a *Appliance) runQueue(ctx context.Context, ready func()) error {
	ready()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go a.watchQueue(watching)
	return a.jobs.Run(ctx)
}

// watchQueue tells the tracker what is wrong with the queue, until ctx ends.
func (a *Appliance) watchQueue(ctx context.Context) {
	tick := time.NewTicker(queueLook)
	defer tick.Stop()
	var last []health.Condition
	for {
		now := a.queueConditions()
		if !slices.Equal(now, last) {
			a.health.Replace([]string{health.CodeQueue}, now)
			a.news.tell()
			last = now
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// queueConditions say what is wrong with the queue.
func (a *Appliance) queueConditions() []health.Condition {
	q := a.jobs.Queue()
	if q == nil {
		if a.queueless == "" {
			return nil
		}
		return queueCondition(health.Warning, "%s", a.queueless)
	}
	if d := q.Stalled(); d > diskPatience { // before anything that the writer would hold up
		return queueCondition(health.Warning, "the disk of state_dir has not answered the queue for %s: jobs are not taken, and what waits is kept; predictions are answered; look at the disk", d.Round(10*time.Second))
	}
	return conditionsOf(q.Stats(), q.Damaged(), a.jobs.ClockSet())
}

func queueCondition(s health.Severity, format string, args ...any) []health.Condition {
	return []health.Condition{{Code: health.CodeQueue, Severity: s, Message: fmt.Sprintf(format, args...)}}
}

// conditionsOf judges an open queue: the first that holds counts, for one code has one condition. aside is where a damaged file was moved to.
func conditionsOf(s storage.QueueStats, aside string, clockSet bool) []health.Condition {
	switch {
	case s.Degraded:
		return queueCondition(health.Warning, "the queue takes no jobs, for its disk does not take what is written: free space on it, or replace it; what waits is kept, and jobs are taken again as soon as a write succeeds")
	case aside != "":
		return queueCondition(health.Warning, "the queue's file was damaged and begun anew: what waited in it is not answered; the old one is %s; `inferd queue ls --file` shows what can be read of it", aside)
	case s.Damaged > 0:
		return queueCondition(health.Warning, "%d damaged records of the queue were set aside, and their jobs are lost; check the disk of state_dir; `inferd queue check` says whether the rest is sound", s.Damaged)
	case !clockSet:
		return queueCondition(health.Info, "the machine's clock is not set: jobs are answered, but none expires and no result is forgotten until it is")
	}
	return nil
}

// queueBytes is what of the file is booked.
func queueBytes(cfg *config.Config) int64 {
	st, err := os.Stat(QueueFile(cfg))
	if err != nil {
		return 0
	}
	return min(st.Size(), queueHotBytes)
}
