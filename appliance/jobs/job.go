// job.go: a job as clients and operators see it.
package jobs

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// Item is a job as the store has it.
type Item = storage.Item

// Job is what is told of one job. Times are the machine's clock's.
type Job struct {
	ID            string     `json:"id"`
	State         string     `json:"state"`
	Model         string     `json:"model"`
	Version       int64      `json:"version,omitempty"` // that it is pinned to; of a done one, that answered
	Label         string     `json:"label,omitempty"`
	Priority      string     `json:"priority"`
	OrderingKey   string     `json:"ordering_key,omitempty"`
	Attempts      int        `json:"attempts"`
	MaxAttempts   int        `json:"max_attempts"`
	Deaths        int        `json:"deaths,omitempty"`
	Interruptions int        `json:"interruptions,omitempty"`
	Submitted     time.Time  `json:"submitted"`
	Expires       *time.Time `json:"expires,omitempty"`
	Finished      *time.Time `json:"finished,omitempty"`
	Error         string     `json:"error,omitempty"` // of the last failure
	Code          string     `json:"code,omitempty"`
	Reason        string     `json:"reason,omitempty"`
	PayloadBytes  int64      `json:"payload_bytes"`
	ResultBytes   int64      `json:"result_bytes,omitempty"`
}

// Describe is the item as a Job.
func (s *Service) Describe(it *storage.Item) Job { return describe(it, s.Wall) }

// Describe is an item of a queue that no daemon runs as a Job.
func Describe(it *storage.Item) Job { return describe(it, func(t time.Time) time.Time { return t }) }

func describe(it *storage.Item, wall func(time.Time) time.Time) Job {
	j := Job{ID: it.ID, State: it.State.String(), Model: it.Model, Version: it.Version, Label: it.Label, Priority: ClassOf(it).String(), OrderingKey: it.Lane,
		Attempts: it.Attempts, MaxAttempts: it.MaxAttempts, Deaths: it.Deaths, Interruptions: it.Interruptions, Submitted: wall(it.Submitted),
		Error: it.Error, Reason: it.Reason, PayloadBytes: it.PayloadBytes, ResultBytes: it.ResultBytes}
	if it.State == storage.Done {
		j.Version = it.AnsweredBy
	}
	if it.Error != "" {
		j.Code = inference.Code(it.Code).String()
	}
	when := func(t time.Time) *time.Time {
		if t.IsZero() {
			return nil
		}
		t = wall(t)
		return &t
	}
	j.Expires, j.Finished = when(it.Expires), when(it.Finished)
	return j
}

// The class on disk has no negative numbers.
func classByte(c inference.Class) uint8 { return uint8(c - inference.Interactive) }

// ClassOf is the priority that the job was submitted with.
func ClassOf(it *storage.Item) inference.Class {
	return inference.Class(it.Class) + inference.Interactive
}

// KindOf is the form of its body and of its answer.
func KindOf(it *storage.Item) api.Kind { return api.Kind(it.Kind) }

// spec is what the catalog is asked for.
func spec(it *storage.Item) inference.Spec {
	return inference.Spec{Model: it.Model, Version: it.Version, HasVersion: it.Version > 0, Label: it.Label}
}

// Failure is the error of a job that ended without a result, nil of any other.
func Failure(it *storage.Item) *inference.Error {
	if !it.State.Final() || it.State == storage.Done {
		return nil
	}
	e := &inference.Error{Code: inference.Code(it.Code), Reason: it.Reason, Model: it.Model, Msg: it.Error}
	if e.Code == inference.OK {
		e.Code = inference.Internal
	}
	if e.Msg == "" {
		e.Msg = "the job ended as " + it.State.String()
	}
	switch it.State {
	case storage.Dead:
		e.Msg = "the job is a dead letter: " + e.Msg
	case storage.Expired:
		e.Msg = "the job expired: " + e.Msg
	case storage.Cancelled:
		e.Msg = "the job was cancelled"
	}
	return e
}

// unfinished is the answer to who wants the result of a job that has none yet.
func unfinished(it *storage.Item) *inference.Error {
	return &inference.Error{Code: inference.FailedPrecondition, Reason: inference.ReasonState, Model: it.Model, RetryAfter: time.Second,
		Msg: fmt.Sprintf("job %s is %s and has no result yet; wait for it with GET /v1/jobs/%s?wait=30", it.ID, it.State, it.ID)}
}

// refusal is an error of the queue's as clients see it.
func (s *Service) refusal(err error, id string) *inference.Error {
	var known *inference.Error
	var full *storage.FullError
	e := &inference.Error{Err: err}
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return known
	case errors.Is(err, storage.ErrNoJob):
		e.Code, e.Reason = inference.NotFound, inference.ReasonJob
		e.Msg = fmt.Sprintf("there is no job %s (any more): results are kept until they are acknowledged, for queue.retention at most", cut(id, 64))
	case errors.Is(err, storage.ErrNoSession):
		e.Code, e.Reason = inference.NotFound, inference.ReasonJob
		e.Msg = "there is no such session (any more); begin a new one"
	case errors.Is(err, storage.ErrNotSent):
		e.Code, e.Reason, e.Msg = inference.OutOfRange, inference.ReasonInput, "what was never sent cannot be acknowledged: "+text(err, storage.ErrNotSent)
	case errors.Is(err, storage.ErrState):
		e.Code, e.Reason, e.Msg = inference.FailedPrecondition, inference.ReasonState, text(err, storage.ErrState)
	case errors.Is(err, storage.ErrConflict):
		e.Code, e.Reason = inference.AlreadyExists, inference.ReasonState
		e.Msg = "the idempotency key was used for another request (" + text(err, storage.ErrConflict) + "); send the same request again, or another key"
	case errors.As(err, &full):
		e.Code, e.Reason, e.RetryAfter = inference.ResourceExhausted, inference.ReasonQueueFull, time.Second
		e.Msg = full.Error() + "; acknowledge results that you have, send it again later, or raise the limit (queue.max_" + full.What + ")"
		if full.Model != "" {
			e.Msg = full.Error() + "; send it again later, or raise the limit (queue.max_" + full.What + " of the model)"
		}
	case errors.Is(err, storage.ErrFull):
		e.Code, e.Reason, e.RetryAfter, e.Msg = inference.ResourceExhausted, inference.ReasonQueueFull, 10*time.Second, text(err, nil)
	case errors.Is(err, storage.ErrTooLarge):
		e.Code, e.Reason, e.Msg = inference.ResourceExhausted, inference.ReasonTooLarge, text(err, storage.ErrTooLarge)
	case errors.Is(err, storage.ErrDegraded):
		e.Code, e.Reason, e.RetryAfter = inference.Unavailable, inference.ReasonDisk, 10*time.Second
		e.Msg = "jobs are not taken at the moment, for the disk of the queue does not take what is written; predictions without the queue are answered"
	case errors.Is(err, storage.ErrNotStored):
		e.Code, e.Reason, e.RetryAfter = inference.Unavailable, inference.ReasonDisk, time.Second
		e.Msg = "the write failed, and it is not known whether the job was stored; submit it again with the same Idempotency-Key, which makes it the same job in either case"
	case errors.Is(err, storage.ErrClosed):
		e.Code, e.Reason, e.RetryAfter, e.Msg = inference.Unavailable, inference.ReasonDraining, time.Second, "inferd is stopping; send it again in a moment"
	default:
		known = inference.AsError(err)
		if known.Code == inference.Internal {
			s.log.Error("the queue failed for a reason without a code", "err", err)
			known.Msg, known.Reason = "the queue failed; the log of inferd has the cause", inference.ReasonDisk
		}
		return known
	}
	return e
}

// text is what an error says beyond the sentinel that it wraps.
func text(err, sentinel error) string {
	msg := err.Error()
	if sentinel != nil {
		if _, after, ok := strings.Cut(msg, sentinel.Error()+": "); ok {
			return after
		}
	}
	return msg
}

// cut is at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
