// enter.go: whether a prediction is let in, before its body is read.
package api

import (
	"net/netip"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/inference"
)

// MaxDeadline bounds the deadline that a client may send: who asks for more gets this much.
const MaxDeadline = 24 * time.Hour

// Caller is what the doors know of a request before its body is read.
type Caller struct {
	From     netip.Addr // zero: on this machine, without an address
	Bytes    int64      // of the body, as declared or guessed
	Class    inference.Class
	Deadline time.Time // zero: the model's default
	Queue    bool      // it comes out of the durable queue, where its client's limits were kept to when it came in
}

// Entry is a request that was let in. Its owner calls Leave when the answer is written.
type Entry struct {
	pass   admission.Pass
	ticket inference.Ticket
	class  inference.Class
}

// Enter asks the gate, and then the version that spec names, for a place. That version is not pinned: where another one answers in the end the
// place is given back. Errors are those of the gate and of [inference.Admitter], and UNAVAILABLE while the appliance is stopping; that there is
// no such model is said later, once the request has been read.
func (s *Service) Enter(spec inference.Spec, c Caller) (Entry, *inference.Error) {
	if err := s.stopping(); err != nil {
		return Entry{}, err
	}
	e := Entry{class: c.Class}
	if s.gate != nil {
		var err *inference.Error
		if c.Queue {
			e.pass, err = s.gate.EnterQueue(c.Bytes)
		} else {
			e.pass, err = s.gate.Enter(c.From, c.Bytes)
		}
		if err != nil {
			return Entry{}, err
		}
	}
	if err := s.admit(&e, spec, c); err != nil {
		e.pass.Leave()
		return Entry{}, err
	}
	return e, nil
}

// Again asks the version for another place, for a request whose body tells of another class or deadline than its header did. The place that it had is
// given back first. After an error the entry has none; its owner leaves it as ever.
func (s *Service) Again(e *Entry, spec inference.Spec, c Caller) *inference.Error {
	e.ticket.Leave()
	e.ticket, e.class = inference.Ticket{}, c.Class
	return s.admit(e, spec, c)
}

// admit asks the version that spec names for a place, if there is one that gives places.
func (s *Service) admit(e *Entry, spec inference.Spec, c Caller) *inference.Error {
	spec.Steady = true // the choice of a canary is made, and counted, once
	h, err := s.Acquire(spec)
	if err != nil {
		return nil
	}
	defer h.Release()
	a, ok := h.Servable().(inference.Admitter)
	if !ok {
		return nil
	}
	deadline := c.Deadline
	if deadline.IsZero() {
		deadline = time.Now().Add(defaultDeadline(h.Version()))
	}
	e.ticket, err = a.Admit(deadline, c.Bytes, c.Class, e.pass.Client())
	return inference.AsError(err)
}

// stopping is the answer to what comes while the appliance stops, nil before.
func (s *Service) stopping() *inference.Error {
	select {
	case <-s.drain:
		return &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonDraining, RetryAfter: time.Second,
			Msg: "inferd is stopping; send the request again in a moment, or to another one"}
	default:
		return nil
	}
}

// Fill gives the request what was promised: its class, its client and its place.
func (e *Entry) Fill(req *inference.Request) {
	req.Class, req.Client, req.Ticket = e.class, e.pass.Client(), e.ticket
	e.ticket = inference.Ticket{}
}

// Grow books more memory for a request that turns out to be so large; see [admission.Pass.Grow].
func (e *Entry) Grow(bytes int64) *inference.Error {
	if e.pass.Grow(bytes) {
		return nil
	}
	return &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, RetryAfter: 100 * time.Millisecond,
		Msg: "the request grew past the memory that is left for requests in flight; send it again later, or a smaller one"}
}

// Leave counts the request out. Calling it again does nothing.
func (e *Entry) Leave() {
	e.ticket.Leave()
	e.pass.Leave()
}

func defaultDeadline(v *inference.Version) time.Duration {
	if v.DefaultDeadline > 0 {
		return v.DefaultDeadline
	}
	return DefaultDeadline
}
