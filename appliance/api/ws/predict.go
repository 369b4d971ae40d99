// predict.go: a request on its way to the model and its answer on the way back: cancelled, late, in order, or dropped for a newer one.
package ws

import (
	"context"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// protocol is what observations are counted under.
const protocol = "stream"

// liveRuns is how many requests of one live source may be with the model: one runs while the next is read.
const liveRuns = 2

// flight is a request without an answer. It lasts until its answer is in the outbox.
type flight struct {
	frame
	request
	start time.Time

	turn   uint64 // among those that are ordered
	source *live  // of drop_oldest

	read           uint64        // of a durable one: its number
	before, stored chan struct{} // of a durable one with a lane: closed when the one before it, when it itself has been submitted

	// guarded by conn.mu
	waits  bool               // for its turn in source; nobody serves it
	cancel context.CancelFunc // nil until it is served
	ended  bool               // nobody wants the answer
}

// end has the request end early. conn.mu is held.
func (fl *flight) end() {
	fl.ended = true
	if fl.cancel != nil {
		fl.cancel()
	}
}

// live is one source of inputs of which only the newest matter.
type live struct {
	key     string
	running int
	waiting *flight
}

// order brings answers back in the order of their requests.
type order struct {
	next, turn uint64             // of the next request, of the next answer
	done       map[uint64]*buffer // frames whose turn has not come
}

// admit takes a request in, and reports whether it is to be served now. mu is held.
func (c *conn) admit(fl *flight) bool {
	if !c.spend() {
		return false
	}
	if _, twice := c.flying[fl.id]; twice {
		c.back++
		err := inference.Errorf(inference.AlreadyExists, inference.ReasonInput,
			"a request with the id %s is in flight already, and this one was not served; give each one an id of its own", quote([]byte(fl.id)))
		c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "predict", Model: fl.spec.Model, Code: err.Code, Reason: err.Reason, Took: time.Since(fl.start)})
		c.putError(reply{id: fl.id}, err)
		return false
	}
	c.flying[fl.id] = fl
	if fl.durable {
		c.enqueue(fl)
	}
	if fl.ordered {
		fl.turn = c.order.next
		c.order.next++
	}
	if !fl.drop {
		return true
	}
	key := fl.spec.Model + "\x00" + fl.spec.Label + "\x00" + strconv.FormatInt(fl.spec.Version, 10)
	source := c.lives[key]
	if source == nil {
		if c.lives == nil {
			c.lives = make(map[string]*live)
		}
		source = &live{key: key}
		c.lives[key] = source
	}
	fl.source = source
	if source.running < liveRuns {
		source.running++
		return true
	}
	fl.waits = true
	old := source.waiting
	source.waiting = fl
	if old != nil {
		c.h.stats.dropped.Add(1)
		c.forgo(old, inference.Errorf(inference.Aborted, inference.ReasonDropped, "a newer input of the same source came before this one could run"))
	}
	return false
}

// forgo answers a request that nobody serves. mu is held.
func (c *conn) forgo(fl *flight, err *inference.Error) {
	fl.waits = false
	c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "predict", Model: fl.spec.Model, Code: err.Code, Reason: err.Reason, Took: time.Since(fl.start)})
	c.answer(fl, len(err.Msg)+128, func(b []byte) []byte { return c.wire.appendError(b, reply{id: fl.id}, err) })
	fl.give(c)
}

// cancel ends the request of that id early. One that has been answered, or never was, is passed over: the answer may have crossed it.
func (c *conn) cancel(id string) {
	c.mu.Lock()
	fl := c.flying[id]
	switch {
	case fl == nil:
		if c.durable.open && !c.closing {
			c.cancelJob(id)
		}
	case fl.waits:
		fl.source.waiting = nil
		c.forgo(fl, inference.AsError(context.Canceled))
		c.flushLater()
	default:
		fl.end()
	}
	c.mu.Unlock()
}

// serve answers a request, and then those that its end lets go.
func (c *conn) serve(fl *flight) {
	for fl != nil {
		source := fl.source
		if fl.durable {
			c.submit(fl)
		} else {
			c.predict(fl)
		}
		fl = nil
		if source != nil {
			c.mu.Lock()
			source.running--
			if fl = source.waiting; fl != nil {
				source.waiting, fl.waits = nil, false
				source.running++
			} else if source.running == 0 {
				delete(c.lives, source.key)
			}
			c.mu.Unlock()
		}
	}
}

// predict answers one request.
func (c *conn) predict(fl *flight) {
	o := api.Observation{Protocol: protocol, Method: "predict", Model: fl.spec.Model}
	out := takeBuffer()
	ctx, cancel := c.context(fl)
	body, err := c.run(ctx, fl, out.b, &o)
	abandoned := ctx.Err() != nil && err != nil // somebody may still read the inputs
	cancel()
	if err != nil {
		o.Code, o.Reason = err.Code, err.Reason
	} else {
		out.b = body
	}
	c.mu.Lock()
	if err == nil {
		if err = c.room(len(out.b)); err != nil {
			o.Code, o.Reason = err.Code, err.Reason
		}
	}
	r := reply{id: fl.id, version: o.Version}
	c.answer(fl, len(out.b)+64, func(b []byte) []byte {
		if err != nil {
			return c.wire.appendError(b, r, err)
		}
		return c.wire.appendResult(b, r, fl.kind, out.b)
	})
	c.flush()
	out.give()
	if abandoned {
		fl.buffer = nil
	}
	fl.give(c)
	o.Took = time.Since(fl.start)
	c.h.svc.Observe(o)
}

// context is that of a request that is about to be served. One that nobody wants has ended.
func (c *conn) context(fl *flight) (context.Context, context.CancelFunc) {
	var ctx context.Context
	var cancel context.CancelFunc
	if fl.deadline > 0 {
		ctx, cancel = context.WithDeadline(context.Background(), fl.start.Add(fl.deadline))
	} else {
		ctx, cancel = context.WithCancel(context.Background())
	}
	c.mu.Lock()
	fl.cancel = cancel
	if fl.ended {
		cancel()
	}
	c.mu.Unlock()
	return ctx, cancel
}

// run has the model answer, and appends what the codec makes of that to dst.
func (c *conn) run(ctx context.Context, fl *flight, dst []byte, o *api.Observation) (body []byte, failure *inference.Error) {
	defer func() {
		if p := recover(); p != nil {
			c.h.log.Error("a request broke the code that served it", "model", fl.spec.Model, "err", p, "stack", string(debug.Stack()))
			body, failure = nil, inference.Errorf(inference.Internal, inference.ReasonRuntime, "internal error; the log of inferd has the cause")
		}
	}()
	codec := c.h.opts.Codecs[fl.kind]
	if codec == nil {
		return nil, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "requests of kind %d are not taken here", fl.kind)
	}
	caller := api.Caller{From: c.from, Bytes: int64(fl.size), Class: fl.class}
	if fl.deadline > 0 {
		caller.Deadline = fl.start.Add(fl.deadline)
	}
	c.unbook(&fl.frame) // the gate books it
	if c.keys != nil {
		fl.spec.Keys = c.keys
	}
	entry, bad := c.h.svc.Enter(fl.spec, caller)
	if bad != nil {
		return nil, bad
	}
	defer entry.Leave()
	handle, err := c.h.svc.Acquire(fl.spec)
	if err != nil {
		return nil, inference.AsError(err)
	}
	defer handle.Release()
	v := handle.Version()
	o.Version = v.Number
	call, bad := codec.Decode(fl.body, v)
	if bad != nil {
		return nil, bad
	}
	req := call.Request()
	o.Signature = req.Signature.Key
	entry.Fill(req)
	predicted := false
	defer func() {
		if !predicted { // it panicked; once the call is freed the ticket there is another's
			req.Ticket.Leave()
		}
	}()
	resp, err := c.h.svc.Predict(ctx, handle, req)
	req.Ticket.Leave()
	predicted = true
	if err != nil {
		if ctx.Err() == nil {
			call.Free()
		}
		return nil, inference.AsError(err)
	}
	body, bad = call.Append(dst, resp)
	resp.Release()
	call.Free()
	return body, bad
}

// answer puts the answer into the outbox, or keeps it until its turn, and gives the credit back. mu is held.
func (c *conn) answer(fl *flight, size int, write func([]byte) []byte) {
	delete(c.flying, fl.id)
	c.back++
	if c.closing {
		return
	}
	if !fl.ordered || fl.turn == c.order.turn {
		c.put(size, write)
		if fl.ordered {
			c.order.turn++
			c.catchUp()
		}
	} else {
		f := takeBuffer()
		f.b = appendFrame(f.b, size, c.wire.opcode, write)
		if c.order.done == nil {
			c.order.done = make(map[uint64]*buffer)
		}
		c.order.done[fl.turn] = f
		c.out.kept += len(f.b)
	}
	c.endIfDrained()
}

// catchUp adds the answers whose turn has come. mu is held.
func (c *conn) catchUp() {
	for {
		f := c.order.done[c.order.turn]
		if f == nil {
			return
		}
		delete(c.order.done, c.order.turn)
		c.order.turn++
		c.out.kept -= len(f.b)
		c.out.pending.b = append(c.out.pending.b, f.b...)
		f.give()
	}
}
