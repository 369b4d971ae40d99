// dispatch.go: the dispatcher: whose jobs are leased, how many, and when.
package jobs

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

const (
	maxLease      = 64          // jobs leased in one go
	maxLeaseBytes = 16 << 20    // and their payloads
	lookAt        = time.Second // how often models are looked at in any case
)

// dispatcher is owned by Run's goroutine but for the channels.
type dispatcher struct {
	s      *Service
	runs   context.Context // of the jobs in flight
	models map[string]*model
	leased chan leased // from the goroutines that lease, one a model at most
	ended  chan end    // from the goroutines that run
	wg     sync.WaitGroup
	flight int // goroutines of both kinds
	wakes  int
}

// model is what the dispatcher knows of one model's jobs.
type model struct {
	running int
	leasing bool
	dry     bool      // the last lease gave less than was asked for, and nothing has come since
	refused int       // by admission, in a row
	next    time.Time // not before
}

// leased is what came of one lease.
type leased struct {
	model  string
	jobs   int
	asked  int
	wakes  int // when it began
	failed error
}

// end is what came of one run.
type end struct {
	model string
	pause time.Duration // above zero: admission has refused it
	ran   bool          // it was let in
}

// Run moves jobs until ctx ends; then it waits for those in flight as long as Grace says, and gives the rest back.
func (s *Service) Run(ctx context.Context) error {
	if s.queue == nil {
		<-ctx.Done()
		return nil
	}
	runs, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	d := &dispatcher{s: s, runs: runs, models: make(map[string]*model), leased: make(chan leased), ended: make(chan end)}
	keeping, done := context.WithCancel(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() { s.keep(keeping) })
	defer keeper.Wait()
	defer done()
	d.loop(ctx)
	close(s.drained) // what it waits for from now on has bounds of its own
	d.drain(stop)
	<-ctx.Done() // the doors may still be asked about jobs
	return nil
}

// loop leases and runs until it is time to stop.
func (d *dispatcher) loop(ctx context.Context) {
	tick := time.NewTicker(lookAt)
	defer tick.Stop()
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	for {
		var changed <-chan struct{}
		if d.s.opts.Changed != nil {
			changed = d.s.opts.Changed()
		}
		pause.Reset(d.feed(time.Now()))
		select {
		case <-d.s.queue.Wake():
			d.wakes++
			for _, m := range d.models {
				m.dry = false
			}
		case l := <-d.leased:
			d.note(l)
		case e := <-d.ended:
			d.finish(e)
			d.others()
		case <-changed:
		case <-pause.C:
		case <-tick.C:
			for _, m := range d.models {
				m.dry = false // whatever was missed
			}
		case pong := <-d.s.pings:
			close(pong)
		case <-d.s.opts.Draining:
			return
		case <-ctx.Done():
			return
		}
	}
}

// others takes note of the runs that have ended with the last one: they shared its run, or its commit, and come one after the other. What is
// leased for them then leaves together too, for one run.
func (d *dispatcher) others() {
	for yields := 0; yields < 8; {
		select {
		case e := <-d.ended:
			d.finish(e)
		default:
			yields++
			runtime.Gosched()
		}
	}
}

// feed begins a lease for every model that has jobs, room for them and an answer for them. It returns when it is worth asking again.
func (d *dispatcher) feed(now time.Time) (wait time.Duration) {
	wait = time.Hour
	if d.s.opts.Hold() {
		return wait // it is asked again with every look
	}
	for _, depth := range d.s.queue.Models() {
		m := d.models[depth.Model]
		if m == nil {
			m = new(model)
			d.models[depth.Model] = m
		}
		most, ready := d.s.opts.Concurrency(depth.Model), depth.Queued-depth.Delayed
		free := most - m.running
		want := min(ready, free, maxLease)
		if free < ready && free < most/4 && m.running > 0 {
			continue // a few more end in a moment, and what is leased together may run together
		}
		if want <= 0 || m.leasing || m.dry || !d.s.api.Available(depth.Model) {
			continue
		}
		if left := m.next.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		entries, refused := d.enter(depth, want, m.refused > 0)
		if len(entries) == 0 {
			m.pause(now, refused.RetryAfter)
			wait = min(wait, m.next.Sub(now))
			continue
		}
		m.leasing = true
		d.flight++
		wakes := d.wakes
		d.wg.Go(func() { d.lease(depth.Model, entries, wakes) })
	}
	for name, m := range d.models {
		if m.running == 0 && !m.leasing && m.refused == 0 && len(d.models) > 1000 {
			delete(d.models, name)
		}
	}
	return wait
}

// enter asks admission for places for jobs of the model, before anything is leased. probing asks for one.
func (d *dispatcher) enter(depth storage.ModelDepth, want int, probing bool) (entries []api.Entry, refused *inference.Error) {
	bytes := depth.Bytes / int64(max(1, depth.Queued+depth.Leased))
	if probing {
		want = 1
	}
	for range want {
		e, err := d.s.api.Enter(inference.Spec{Model: depth.Model}, api.Caller{Bytes: bytes, Class: inference.Bulk, Deadline: time.Now().Add(d.s.opts.RunTime(depth.Model)), Queue: true})
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// pause keeps the model's jobs from asking for a while, longer each time.
func (m *model) pause(now time.Time, after time.Duration) {
	m.refused++
	wait := max(after, shortPause)
	for range min(m.refused-1, 8) {
		wait *= 2
	}
	m.next = now.Add(min(wait, longPause))
}

// lease takes as many jobs as there are entries, and begins their runs.
func (d *dispatcher) lease(name string, entries []api.Entry, wakes int) {
	var now time.Time // zero: nothing expires
	if d.s.clock.Set() {
		now = d.s.Now()
	}
	jobs, err := d.s.queue.Lease(d.runs, name, len(entries), maxLeaseBytes, now)
	for i := len(jobs); i < len(entries); i++ {
		entries[i].Leave()
	}
	d.leased <- leased{name, len(jobs), len(entries), wakes, err} // before any of them can end
	for i := range jobs {
		d.wg.Go(func() { d.run(&jobs[i], entries[i]) })
	}
}

// note is told of a lease.
func (d *dispatcher) note(l leased) {
	m := d.models[l.model]
	d.flight += l.jobs - 1
	m.leasing = false
	m.running += l.jobs
	m.dry = l.jobs < l.asked && l.wakes == d.wakes
	if l.failed != nil && !errors.Is(l.failed, storage.ErrClosed) && !errors.Is(l.failed, context.Canceled) {
		m.pause(time.Now(), time.Second)
		d.s.log.Warn("jobs could not be leased", "model", l.model, "err", l.failed, "wait", time.Until(m.next).Round(time.Millisecond))
	}
}

// finish is told of a run.
func (d *dispatcher) finish(e end) {
	m := d.models[e.model]
	d.flight--
	m.running--
	switch {
	case e.pause > 0:
		m.pause(time.Now(), e.pause)
	case e.ran:
		m.refused = 0
	}
	m.dry = false
}

// drain waits for what is in flight, and takes it back once the time for that is over.
func (d *dispatcher) drain(stop context.CancelFunc) {
	grace := time.NewTimer(d.s.opts.Grace())
	defer grace.Stop()
	for d.flight > 0 {
		select {
		case l := <-d.leased:
			d.note(l)
		case e := <-d.ended:
			d.finish(e)
		case <-grace.C:
			stop() // each run answers at once, and gives its lease back
		}
	}
	d.wg.Wait()
}

const sweepEvery = 10 // looks

// keep watches the machine's clock, and ends and forgets what is due.
func (s *Service) keep(ctx context.Context) {
	tick := time.NewTicker(lookAt)
	defer tick.Stop()
	s.clock.keep(ctx)
	for n := 1; ; n++ {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		s.clock.observe(ctx, s.queue.Stats().Newest)
		if n%sweepEvery == 0 && s.clock.Set() {
			s.sweep(ctx)
		}
	}
}

// sweep does one round. A failure is told where it happened, and tried again by the next round.
func (s *Service) sweep(ctx context.Context) {
	for more := true; more && ctx.Err() == nil; {
		expired, _, again, err := s.queue.Sweep(ctx, s.Now(), s.opts.Settings().Retention)
		if err != nil {
			return
		}
		if expired > 0 {
			s.log.Info("jobs have expired", "requests", expired)
		}
		more = again
	}
}
