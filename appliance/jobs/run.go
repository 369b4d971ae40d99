// run.go: one job, from its lease to its end.
package jobs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

const (
	// A result that cannot be stored is kept in memory, and tried again after this, for as long as the process lives.
	storeAgain     = 100 * time.Millisecond
	storeAgainMost = 5 * time.Second
	// giveBack is how long the last writes of a process that stops may take.
	giveBack = 10 * time.Second
)

// run is the goroutine of one leased job. It leaves the entry.
func (d *dispatcher) run(l *storage.Lease, entry api.Entry) {
	e := end{model: l.Model}
	defer func() { d.ended <- e }()
	defer entry.Leave()
	s := d.s
	most := s.opts.RunTime(l.Model)
	if s.clock.Set() && !l.Expires.IsZero() {
		most = min(most, l.Expires.Sub(s.Now()))
	}
	ctx, cancel := context.WithTimeout(d.runs, most)
	defer cancel()
	s.mu.Lock()
	s.running[l.ID] = cancel
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.running, l.ID)
		s.mu.Unlock()
	}()

	answer, version, err := s.predict(ctx, l, &entry)
	v := verdict{outcome: &storage.Outcome{State: storage.Done, Result: answer, Version: version}}
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled) && (err.Code == inference.Canceled || err.Reason == inference.ReasonDraining):
		v = verdict{} // it was cancelled, or inferd is stopping: then it goes back as it was
	case err != nil:
		v = judge(err, &l.Item, s.opts.Settings(), s.Now().Sub(l.Submitted), rand.Float64())
	}
	e.pause, e.ran = v.pause, err == nil || v.pause == 0
	s.settle(d.runs, l, v)
}

// predict is the whole of a prediction, as a door makes it.
func (s *Service) predict(ctx context.Context, l *storage.Lease, entry *api.Entry) (answer []byte, version int64, failed *inference.Error) {
	start := time.Now()
	o := api.Observation{Protocol: "queue", Method: "predict", Model: l.Model}
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("a job broke the code that ran it", "model", l.Model, "id", l.ID, "err", p, "stack", string(debug.Stack()))
			failed = inference.Errorf(inference.Internal, inference.ReasonRuntime, "internal error; the log of inferd has the cause")
		}
		if failed != nil {
			o.Code, o.Reason = failed.Code, failed.Reason
		}
		o.Took = time.Since(start)
		s.api.Observe(o)
	}()
	if err := entry.Grow(l.PayloadBytes); err != nil {
		return nil, 0, err
	}
	codec := s.opts.Codecs[KindOf(&l.Item)]
	if codec == nil {
		return nil, 0, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "this inferd cannot read requests of form %d", l.Kind)
	}
	h, err := s.api.Acquire(spec(&l.Item))
	if err != nil {
		e := inference.AsError(err)
		if e.Code == inference.InvalidArgument { // a label that is gone may come back
			e = &inference.Error{Code: inference.NotFound, Reason: e.Reason, Model: l.Model, Msg: e.Msg}
		}
		return nil, 0, e
	}
	defer h.Release()
	version = h.Version().Number
	o.Version = version
	call, failed := codec.Decode(l.Payload, h.Version())
	if failed != nil {
		return nil, version, failed
	}
	req := call.Request()
	o.Signature = req.Signature.Key
	entry.Fill(req)
	resp, err := func() (*inference.Response, error) {
		defer req.Ticket.Leave() // before Free, after which req may be another's
		return s.api.Predict(ctx, h, req)
	}()
	if err != nil {
		failed = inference.AsError(err)
		if ctx.Err() == nil {
			call.Free()
		}
		return nil, version, failed
	}
	defer call.Free()
	defer resp.Release()
	answer, failed = call.Append(nil, resp)
	if most := s.opts.Settings().MaxPayload; failed == nil && most > 0 && int64(len(answer)) > most {
		return nil, version, inference.Errorf(inference.OutOfRange, inference.ReasonTooLarge,
			"the answer has %d bytes, and a job's may have %d; send fewer instances per job, or raise queue.max_payload", len(answer), most)
	}
	return answer, version, failed
}

// settle writes down what became of the job. What cannot be stored is tried again until the process stops: to run the job once more would not be
// better, and might do what it does twice.
func (s *Service) settle(runs context.Context, l *storage.Lease, v verdict) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(runs))
	defer cancel()
	defer context.AfterFunc(runs, func() { time.AfterFunc(giveBack, cancel) })()
	for wait := storeAgain; ; wait = min(2*wait, storeAgainMost) {
		it, err := s.store(ctx, l, v)
		if err == nil {
			s.told(&it, v)
			return
		}
		if gone(err) || ctx.Err() != nil {
			if errors.Is(err, storage.ErrClosed) || ctx.Err() != nil {
				s.log.Warn("what became of a job could not be stored before the end; it will run again", "id", l.ID, "model", l.Model, "err", err)
			}
			return
		}
		s.log.Warn("what became of a job is not stored yet", "id", l.ID, "model", l.Model, "err", err, "wait", wait)
		again := time.NewTimer(wait)
		select {
		case <-again.C:
		case <-runs.Done():
			again.Stop()
		}
	}
}

func (s *Service) store(ctx context.Context, l *storage.Lease, v verdict) (storage.Item, error) {
	if v.outcome != nil {
		o := *v.outcome
		o.At, o.Lease = s.Now(), l.Number
		return s.queue.Finish(ctx, l.ID, o)
	}
	back := v.back
	back.Lease = l.Number
	return s.queue.Release(ctx, l.ID, back)
}

// told passes the end of a run on.
func (s *Service) told(it *storage.Item, v verdict) {
	r := Run{Model: it.Model, State: it.State, Attempt: v.back.Attempt, Death: v.back.Death}
	if it.State.Final() {
		r.Waited = it.Finished.Sub(it.Submitted)
	}
	s.opts.Observe(r)
	if it.State == storage.Dead {
		s.log.Warn("job is a dead letter; `inferd queue show` has it, `inferd queue retry` tries it again", "id", it.ID, "model", it.Model,
			"attempt", it.Attempts+1, "reason", fmt.Sprintf("%.500s", it.Error))
	}
}
