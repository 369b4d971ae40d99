// operate.go: what operators do to the queue, running or not: look, try again, cancel, remove.
package jobs

import (
	"context"
	"errors"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// Selection chooses jobs. Zero fields choose everything.
type Selection struct {
	ID    string `json:"id,omitempty"` // one job; then the rest does not count
	Model string `json:"model,omitempty"`
	State string `json:"state,omitempty"`
	After uint64 `json:"after,omitempty"` // of a listing: what comes behind this number
	Limit int    `json:"limit,omitempty"` // of a listing; 100
}

const (
	mostListed = 10_000
	listStep   = 1000
)

func (sel *Selection) filter() (storage.Filter, *inference.Error) {
	f := storage.Filter{Model: sel.Model, After: sel.After, Limit: min(sel.Limit, mostListed)}
	if sel.State == "" {
		return f, nil
	}
	state, ok := storage.ParseState(sel.State)
	if !ok {
		return f, wrong("%q is no state of a job; they are queued, leased, done, failed, dead, cancelled and expired", cut(sel.State, 32))
	}
	f.State = state
	return f, nil
}

// Listed are jobs in order of arrival. Next is what After takes for those behind them, 0 when there are none.
type Listed struct {
	Jobs []Job  `json:"jobs"`
	Next uint64 `json:"next,omitempty"`
}

// List has the chosen jobs.
func (s *Service) List(sel Selection) (Listed, *inference.Error) {
	if err := s.Missing(); err != nil {
		return Listed{}, err
	}
	f, bad := sel.filter()
	if bad != nil {
		return Listed{}, bad
	}
	if f.Limit <= 0 {
		f.Limit = 100
	}
	items, err := s.queue.List(f)
	if err != nil {
		return Listed{}, s.refusal(err, "")
	}
	out := Listed{Jobs: make([]Job, 0, len(items))}
	for i := range items {
		out.Jobs = append(out.Jobs, s.Describe(&items[i]))
	}
	if len(items) == f.Limit {
		out.Next = items[len(items)-1].Seq
	}
	return out, nil
}

// Shown is everything about one job.
type Shown struct {
	Job
	Kind    string `json:"kind"`
	Session string `json:"session,omitempty"`
	Ref     string `json:"ref,omitempty"`
	Payload []byte `json:"payload,omitempty"` // base64 in JSON
	Result  []byte `json:"result,omitempty"`
}

// Show is the job with its body and its result, where they are kept.
func (s *Service) Show(id string) (Shown, *inference.Error) {
	it, bad := s.Job(id)
	if bad != nil {
		return Shown{}, bad
	}
	kinds := map[uint8]string{1: "json", 2: "proto", 3: "media", 4: "raw"}
	out := Shown{Job: s.Describe(&it), Kind: kinds[it.Kind], Session: it.Session, Ref: it.Ref}
	var err, err2 error
	out.Payload, _, err = s.queue.Payload(id)
	out.Result, _, err2 = s.queue.Result(id)
	return out, s.refusal(errors.Join(err, err2), id)
}

// Overview is the queue in numbers.
type Overview struct {
	Models   []ModelJobs `json:"models"`
	Queued   int         `json:"queued"`
	Leased   int         `json:"leased"`
	Finished int         `json:"finished"`
	Dead     int         `json:"dead"`
	// Bytes of bodies and results, as they are stored; FileBytes have free pages in them.
	Bytes     int64 `json:"bytes"`
	FileBytes int64 `json:"file_bytes"`
	Damaged   int64 `json:"damaged"`
	Degraded  bool  `json:"degraded,omitempty"`
	ClockSet  bool  `json:"clock_set"`
}

// ModelJobs are the unfinished jobs of one model.
type ModelJobs struct {
	Model         string  `json:"model"`
	Queued        int     `json:"queued"`
	Delayed       int     `json:"delayed"` // of queued: they wait after a failure
	Leased        int     `json:"leased"`
	Bytes         int64   `json:"bytes"`
	OldestSeconds float64 `json:"oldest_seconds"` // of those that could run now
}

// Overview counts.
func (s *Service) Overview() (Overview, *inference.Error) {
	if err := s.Missing(); err != nil {
		return Overview{}, err
	}
	st := s.queue.Stats()
	o := Overview{Models: []ModelJobs{}, Queued: st.Queued, Leased: st.Leased, Finished: st.Finished, Dead: st.Dead, Bytes: st.Bytes, FileBytes: st.FileBytes,
		Damaged: st.Damaged, Degraded: st.Degraded, ClockSet: s.ClockSet()}
	for _, m := range s.queue.Models() {
		j := ModelJobs{Model: m.Model, Queued: m.Queued, Delayed: m.Delayed, Leased: m.Leased, Bytes: m.Bytes}
		if at, err := s.queue.Oldest(m.Model); err == nil && !at.IsZero() {
			j.OldestSeconds = max(0, s.Now().Sub(at)).Seconds()
		}
		o.Models = append(o.Models, j)
	}
	return o, nil
}

// The verbs of Operate.
const (
	VerbRetry  = "retry"  // of failed, dead and cancelled jobs; of a selection without a state, the dead ones
	VerbCancel = "cancel" // of queued and leased jobs
	VerbPurge  = "purge"  // of jobs that have ended: they and their results are removed
)

// Operate does something to every chosen job, and is how many it was done to. A selection that is not one job needs a state or a model.
func (s *Service) Operate(ctx context.Context, verb string, sel Selection) (done int, failed *inference.Error) {
	if err := s.Missing(); err != nil {
		return 0, err
	}
	one := map[string]func(id string) *inference.Error{
		VerbRetry:  func(id string) *inference.Error { _, err := s.Retry(ctx, id); return err },
		VerbCancel: func(id string) *inference.Error { _, err := s.Cancel(ctx, id); return err },
		VerbPurge:  func(id string) *inference.Error { return s.Forget(ctx, id) },
	}[verb]
	switch {
	case one == nil:
		return 0, wrong("%q is none of retry, cancel and purge", cut(verb, 32))
	case sel.ID != "":
		if err := one(sel.ID); err != nil {
			return 0, err
		}
		return 1, nil
	case sel.Model == "" && sel.State == "":
		return 0, wrong("name a job, or a model, or a state: %s does nothing to all jobs at once", verb)
	}
	if verb == VerbRetry && sel.State == "" {
		sel.State = storage.Dead.String()
	}
	f, bad := sel.filter()
	if bad != nil {
		return 0, bad
	}
	if f.State != 0 && f.State.Final() == (verb == VerbCancel) || verb == VerbRetry && (f.State == storage.Done || f.State == storage.Expired) {
		return 0, wrong("a job that is %s cannot be %s", sel.State, map[string]string{VerbRetry: "retried", VerbCancel: "cancelled", VerbPurge: "purged"}[verb])
	}
	last := s.queue.Stats().Newest // what comes meanwhile was not meant
	for f.Limit = listStep; ; {
		items, err := s.queue.List(f)
		if err != nil {
			return done, s.refusal(err, "")
		}
		for i := range items {
			it := &items[i]
			if f.After = it.Seq; it.State.Final() == (verb == VerbCancel) || it.Submitted.After(last) {
				continue
			}
			switch err := one(it.ID); {
			case err == nil:
				done++
			case err.Reason != inference.ReasonState && err.Reason != inference.ReasonJob: // else it has moved on by itself
				return done, err
			}
		}
		if len(items) < listStep || ctx.Err() != nil {
			return done, s.refusal(ctx.Err(), "")
		}
	}
}

// Compacted is what came of writing the file anew.
type Compacted struct {
	Before int64         `json:"before_bytes"`
	After  int64         `json:"after_bytes"`
	Took   time.Duration `json:"took_ns"`
}

// Compact writes the queue's file anew without its free pages. Submits wait meanwhile.
func (s *Service) Compact(ctx context.Context) (Compacted, *inference.Error) {
	if err := s.Missing(); err != nil {
		return Compacted{}, err
	}
	if err := s.opts.Room(); err != nil {
		return Compacted{}, err
	}
	start := time.Now()
	before, after, err := s.queue.Compact(ctx, nil)
	return Compacted{before, after, time.Since(start)}, s.refusal(err, "")
}

// Check reads the whole file and says what is wrong in it.
func (s *Service) Check(ctx context.Context) (storage.Report, *inference.Error) {
	if err := s.Missing(); err != nil {
		return storage.Report{}, err
	}
	r, err := s.queue.Check(ctx)
	return r, s.refusal(err, "")
}
