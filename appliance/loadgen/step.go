// step.go: one rate, or one count of callers.
package loadgen

import (
	"context"
	"sync"
	"time"
)

// task is one request to be sent.
type task struct {
	n        int64
	due      time.Time
	measured bool
	held     bool
}

// worker has a caller and sends what it is given.
type worker struct {
	caller caller
	client int
	work   chan task // closed by whoever takes the worker out of use
	step   *step     // of the task; written before the task is sent
}

// step is the state of an open loop.
type step struct {
	g     *Generator
	tally *tally
	freed chan struct{} // of 1: a worker has come back

	mu      sync.Mutex
	idle    [][]*worker // by client, the last used last; guarded by mu
	workers int         // all of them; guarded by mu
	every   []*worker   // guarded by mu
	pending sync.WaitGroup
}

// openStep offers one rate. A request is handed to a worker when it is due; if all that may be in flight are, it waits, and is late.
func (g *Generator) openStep(ctx context.Context, rate float64) (Step, error) {
	clock, err := newAlarm()
	if err != nil {
		return Step{}, err
	}
	defer clock.close()
	defer context.AfterFunc(ctx, clock.wake)()
	s := &step{g: g, tally: newTally(g.opts.Deadline), freed: make(chan struct{}, 1), idle: make([][]*worker, g.opts.Clients)}
	for _, w := range g.idle {
		s.idle[w.client] = append(s.idle[w.client], w)
		s.every = append(s.every, w)
	}
	s.workers, g.idle = len(g.idle), nil
	opened := g.opened.Load()
	due := newSchedule(rate, g.opts.Arrivals, g.opts.Seed)
	start := time.Now()
	end := g.opts.Warmup + g.opts.Duration
	stop := s.report(start, end, Progress{Rate: rate})
	var (
		offered int64
		n       int64
		over    = time.NewTimer(end)
	)
	defer over.Stop()
	at := due.next()
	for ; at < end; at = due.next() {
		clock.sleep(at - time.Since(start))
		if ctx.Err() != nil {
			break
		}
		w, held := s.take(ctx, int(n%int64(g.opts.Clients)), over.C)
		if w == nil {
			break
		}
		t := task{n: n, due: start.Add(at), measured: at >= g.opts.Warmup, held: held}
		n++
		if t.measured {
			offered++
		}
		s.pending.Add(1)
		w.step = s
		w.work <- t
	}
	measured := g.opts.Duration
	if ctx.Err() != nil { // it ends now
		end = min(end, time.Since(start))
		measured = max(0, end-g.opts.Warmup)
	}
	for ; at < end; at = due.next() { // due, and not sent
		if at >= g.opts.Warmup {
			offered++
		}
	}
	s.settle(ctx)
	stop()
	out := s.tally.step(offered, measured)
	out.Rate, out.Connections = rate, g.opened.Load()-opened
	return out, nil
}

// take is a worker that has nothing to do: the client's last used, a new one, or else another client's. It waits while all that may be are
// in flight, and is nil when the step is over meanwhile.
func (s *step) take(ctx context.Context, client int, over <-chan time.Time) (w *worker, held bool) {
	for {
		s.mu.Lock()
		w = s.pick(client)
		s.mu.Unlock()
		if w != nil {
			return w, held
		}
		held = true
		select {
		case <-s.freed:
		case <-over:
			return nil, held
		case <-ctx.Done():
			return nil, held
		}
	}
}

func (s *step) pick(client int) *worker {
	for i := range s.idle {
		c := (client + i) % len(s.idle)
		if list := s.idle[c]; len(list) > 0 {
			s.idle[c] = list[:len(list)-1]
			return list[len(list)-1]
		}
		if i == 0 && s.workers < s.g.opts.InFlight {
			s.workers++
			w := &worker{caller: s.g.newCaller(client), client: client, work: make(chan task, 1)}
			s.every = append(s.every, w)
			go w.run()
			return w
		}
	}
	return nil
}

func (w *worker) run() {
	for t := range w.work {
		s := w.step
		sent := time.Now()
		s.tally.begin(t.due, sent, t.measured, t.held)
		o := w.caller.call(t.n, w.client)
		s.tally.end(t.due, sent, time.Now(), t.measured, o)
		s.mu.Lock()
		s.idle[w.client] = append(s.idle[w.client], w)
		s.mu.Unlock()
		select {
		case s.freed <- struct{}{}:
		default:
		}
		s.pending.Done()
	}
}

// settle waits for what is in flight, which the callers bound by their timeout. An interrupted step does not wait: what is open then is
// told as open. All workers are idle afterwards.
func (s *step) settle(ctx context.Context) {
	done := make(chan struct{})
	go func() {
		s.pending.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-ctx.Done():
		s.tally.freeze()
		for _, w := range s.every {
			w.caller.abort()
		}
		<-done
	}
	s.g.idle = s.every
}

// closedStep has as many callers as configured, each of which sends when it has its answer.
func (g *Generator) closedStep(ctx context.Context) Step {
	s := &step{g: g, tally: newTally(g.opts.Deadline)}
	start := time.Now()
	end := start.Add(g.opts.Warmup + g.opts.Duration)
	warm := start.Add(g.opts.Warmup)
	stop := s.report(start, g.opts.Warmup+g.opts.Duration, Progress{Callers: g.opts.Callers})
	opened := g.opened.Load()
	offered := make([]int64, g.opts.Callers)
	for i := range g.opts.Callers {
		w := &worker{caller: g.newCaller(i % g.opts.Clients), client: i % g.opts.Clients, work: make(chan task)}
		s.every = append(s.every, w)
		s.pending.Go(func() {
			for n := int64(i); ctx.Err() == nil; n += int64(g.opts.Callers) {
				sent := time.Now()
				if !sent.Before(end) {
					return
				}
				measured := !sent.Before(warm)
				if measured {
					offered[i]++
				}
				s.tally.begin(sent, sent, measured, false)
				o := w.caller.call(n, w.client)
				s.tally.end(sent, sent, time.Now(), measured, o)
			}
		})
	}
	s.settle(ctx)
	measured := g.opts.Duration
	if ctx.Err() != nil {
		measured = max(0, min(measured, time.Since(warm)))
	}
	stop()
	var sum int64
	for _, n := range offered {
		sum += n
	}
	out := s.tally.step(sum, measured)
	out.Callers, out.Connections = g.opts.Callers, g.opened.Load()-opened
	return out
}

// report calls Progress once a second until the function that it returns has returned.
func (s *step) report(start time.Time, whole time.Duration, p Progress) (stop func()) {
	if s.g.opts.Progress == nil {
		return func() {}
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.Gone, p.Whole = time.Since(start), whole
				s.tally.progress(&p)
				s.g.opts.Progress(p)
			case <-quit:
				return
			}
		}
	}()
	return func() { close(quit); <-done }
}
