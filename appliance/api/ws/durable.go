// durable.go: requests that are in the queue before they are acknowledged, and their answers, which wait there for the client.
package ws

import (
	"context"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

// Jobs is the queue. [jobs.Service] is one.
type Jobs interface {
	// Missing says why there is no queue, nil when there is one.
	Missing() *inference.Error
	Submit(ctx context.Context, sub jobs.Submission) (it storage.Item, existed bool, err *inference.Error)
	Cancel(ctx context.Context, id string) (storage.Item, *inference.Error)
	Readable(grant *access.Grant, id string) *inference.Error
	Open(ctx context.Context, session string) *inference.Error
	Resume(ctx context.Context, session string, after uint64) (storage.Session, *inference.Error)
	Touch(ctx context.Context, session string) *inference.Error
	Outbox(session string, after uint64, limit int, maxBytes int64) ([]storage.Sent, *inference.Error)
	Ack(ctx context.Context, session string, through uint64) *inference.Error
	Arrived(session string) (arrived <-chan struct{}, stop func())
}

const (
	// What is taken out of a session's outbox at once.
	outboxLimit = 64
	outboxBytes = 1 << 20
	// outboxPause is after how long the queue is asked again when it could not answer.
	outboxPause = time.Second
)

// session is the durable side of a connection. It is guarded by conn.mu.
type session struct {
	open  bool                     // it is stored, and this connection's
	sent  uint64                   // the newest result that was given out, here or before
	acked uint64                   // the newest that is to be forgotten,
	ackup bool                     // and somebody sees to it
	reads uint64                   // durable requests that have been read,
	then  uint64                   // and had been when acked was
	lanes map[string]chan struct{} // by lane, closed when the submit of its last request has ended
	seen  time.Duration            // when it was last noted that the client is there
}

var errNoQueue = inference.Errorf(inference.Unimplemented, inference.ReasonJob, "this inferd has no queue, so there are no durable requests and no sessions; leave \"durable\" out")

// queue is the queue, or why there is none.
func (c *conn) queue() (Jobs, *inference.Error) {
	if c.h.opts.Jobs == nil {
		return nil, errNoQueue
	}
	return c.h.opts.Jobs, c.h.opts.Jobs.Missing()
}

// enqueue is told of a durable request in the order of reading, so that a lane's go into the queue in that order. mu is held.
func (c *conn) enqueue(fl *flight) {
	if fl.ordered && fl.lane == "" {
		fl.lane = c.session
	}
	c.durable.reads++
	fl.read = c.durable.reads
	fl.ordered = false // its answers come by the lane's order, and not by that of this connection
	if fl.lane == "" {
		return
	}
	fl.before, fl.stored = c.durable.lanes[fl.lane], make(chan struct{})
	if c.durable.lanes == nil {
		c.durable.lanes = make(map[string]chan struct{})
	}
	c.durable.lanes[fl.lane] = fl.stored
}

// submit puts a request into the queue and says so.
func (c *conn) submit(fl *flight) {
	if fl.before != nil {
		<-fl.before
	}
	ctx, cancel := c.context(fl)
	defer cancel()
	c.unbook(&fl.frame) // the queue's door books it
	it, err := c.store(ctx, fl)
	c.mu.Lock()
	if fl.stored != nil {
		close(fl.stored)
		if c.durable.lanes[fl.lane] == fl.stored {
			delete(c.durable.lanes, fl.lane)
		}
	}
	if err != nil {
		c.answer(fl, len(err.Msg)+128, func(b []byte) []byte { return c.wire.appendError(b, reply{id: fl.id}, err) })
	} else {
		c.answer(fl, len(it.ID)+64, func(b []byte) []byte { return c.wire.appendAccepted(b, fl.id, it.ID) })
	}
	c.space.Broadcast() // the pump may have its result already
	c.flush()
	fl.give(c)
	if err != nil {
		c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "submit", Model: fl.spec.Model, Code: err.Code, Reason: err.Reason, Took: time.Since(fl.start)})
	} else {
		c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "submit", Model: fl.spec.Model, Took: time.Since(fl.start)})
	}
}

func (c *conn) store(ctx context.Context, fl *flight) (it storage.Item, err *inference.Error) {
	q, err := c.queue()
	if err != nil {
		return it, err
	}
	if err := c.openSession(ctx, q); err != nil {
		return it, err
	}
	it, _, err = q.Submit(ctx, jobs.Submission{
		Spec: fl.spec, Kind: fl.kind, Body: fl.body, Class: fl.class, Expires: fl.expires, MaxAttempts: fl.attempts, Lane: fl.lane,
		Session: c.session, Ref: fl.id, Client: c.from, Owner: c.holder.Name(),
	})
	return it, err
}

// openSession stores the session, once.
func (c *conn) openSession(ctx context.Context, q Jobs) *inference.Error {
	c.opening.Lock()
	defer c.opening.Unlock()
	c.mu.Lock()
	open := c.durable.open
	c.mu.Unlock()
	if open {
		return nil
	}
	if err := q.Open(ctx, c.session); err != nil {
		return err
	}
	c.own(q, 0)
	return nil
}

// own makes the session this connection's, which begins to give out its results. Whoever had it is closed.
func (c *conn) own(q Jobs, after uint64) {
	c.h.mu.Lock()
	old := c.h.sessions[c.session]
	c.h.sessions[c.session] = c
	c.h.mu.Unlock()
	if old != nil && old != c {
		old.end(CloseTakenOver)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.durable.open, c.durable.sent, c.durable.acked, c.durable.seen = true, after, after, c.h.now()
	if !c.closing {
		c.busy++
		go c.pump(q)
	}
}

// durably does what an ack or a resume asks for. It is called by who reads.
func (c *conn) durably(m *message, first bool) {
	q, err := c.queue()
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case err != nil:
	case m.act == actAck:
		c.ack(q, m.through)
		return
	case !first || c.durable.open:
		err = inference.Errorf(inference.FailedPrecondition, inference.ReasonInput, "a session can be resumed by the first frame of a connection only; connect again")
	default:
		c.mu.Unlock()
		c.resume(q, m)
		c.mu.Lock()
		return
	}
	c.putError(reply{}, err)
	c.flushLater()
}

func (c *conn) resume(q Jobs, m *message) {
	ctx, cancel := context.WithTimeout(context.Background(), api.DefaultDeadline)
	defer cancel()
	var found storage.Session
	err := &inference.Error{Code: inference.NotFound}
	if c.mine(m.session) {
		found, err = q.Resume(ctx, m.session, m.through)
	}
	c.mu.Lock()
	switch {
	case err == nil:
		c.session = m.session
		pending := int(found.Last - max(found.Acked, min(m.through, found.Last)))
		c.put(128, func(b []byte) []byte { return c.wire.appendResumed(b, m.session, found.Last, pending) })
		c.flushLater()
		c.mu.Unlock()
		c.own(q, m.through)
		return
	case err.Code == inference.NotFound:
		c.close(CloseNoSession, closeTexts[CloseNoSession])
	case err.Code == inference.OutOfRange:
		c.close(CloseNotSent, closeTexts[CloseNotSent])
	default:
		c.putError(reply{}, err)
		c.flushLater()
	}
	c.mu.Unlock()
}

// ack has every result up to through forgotten. Acknowledgements that come while one is on its way to the disk go with the next. mu is held.
func (c *conn) ack(q Jobs, through uint64) {
	d := &c.durable
	if through > d.sent {
		c.close(CloseNotSent, closeTexts[CloseNotSent])
		return
	}
	d.acked, d.then = max(d.acked, through), d.reads
	if d.ackup || c.closing {
		return
	}
	d.ackup = true
	c.busy++
	go func() {
		done := uint64(0)
		c.mu.Lock()
		for done < d.acked {
			// A request that was sent again before the acknowledgement must find its job: forgotten, it would run once more.
			for c.submitting(d.then) {
				c.space.Wait()
			}
			to := d.acked
			c.mu.Unlock()
			ctx, cancel := context.WithTimeout(context.Background(), api.DefaultDeadline)
			err := q.Ack(ctx, c.session, to)
			cancel()
			c.mu.Lock()
			if done = to; err == nil {
				continue
			}
			switch err.Code {
			case inference.NotFound:
				c.close(CloseNoSession, closeTexts[CloseNoSession])
			case inference.OutOfRange:
				c.close(CloseNotSent, closeTexts[CloseNotSent])
			default:
				if !c.closing {
					c.putError(reply{}, err)
					c.flushLater()
				}
			}
		}
		d.ackup = false
		c.rest()
		c.mu.Unlock()
	}()
}

// submitting reports whether one of the first n durable requests is not in the queue yet. mu is held.
func (c *conn) submitting(n uint64) bool {
	for _, fl := range c.flying {
		if fl.durable && fl.read <= n {
			return true
		}
	}
	return false
}

// rest says that one who was busy for the connection no longer is. mu is held.
func (c *conn) rest() {
	c.busy--
	c.endIfDone()
}

// pump gives out the results of the session, in order, until the connection ends.
func (c *conn) pump(q Jobs) {
	defer func() {
		c.mu.Lock()
		c.rest()
		c.mu.Unlock()
	}()
	for {
		arrived, stop := q.Arrived(c.session)
		err := c.giveOut(q)
		var again <-chan time.Time
		if err != nil {
			if err.Code == inference.NotFound {
				stop()
				c.end(CloseNoSession)
				return
			}
			c.h.log.Debug("results could not be read", "err", err)
			again = time.After(outboxPause)
		}
		select {
		case <-arrived:
		case <-again:
		case <-c.ending:
			stop()
			return
		}
		stop()
	}
}

// giveOut sends what is in the outbox and was not sent yet.
func (c *conn) giveOut(q Jobs) *inference.Error {
	for {
		c.mu.Lock()
		after := c.durable.sent
		c.mu.Unlock()
		list, err := q.Outbox(c.session, after, outboxLimit, outboxBytes)
		if err != nil || len(list) == 0 {
			return err
		}
		for i := range list {
			if !c.deliver(&list[i], i == len(list)-1) {
				return nil
			}
		}
	}
}

// deliver sends one result, after the word that its request was accepted. It is false when the connection ends.
func (c *conn) deliver(s *storage.Sent, last bool) bool {
	failure := jobs.Failure(&s.Item)
	c.mu.Lock()
	for !c.closing {
		if fl := c.flying[s.Ref]; fl == nil || !fl.durable {
			break
		}
		c.space.Wait()
	}
	for !c.closing {
		err := c.room(len(s.Result))
		if err == nil {
			break
		}
		c.mu.Unlock() // it is on disk, and memory comes back
		select {
		case <-time.After(outboxPause / 10):
		case <-c.ending:
		}
		c.mu.Lock()
	}
	if c.closing {
		c.mu.Unlock()
		return false
	}
	r := reply{id: s.Ref, version: s.AnsweredBy, seq: s.Out}
	c.put(len(s.Result)+128, func(b []byte) []byte {
		if failure != nil {
			return c.wire.appendError(b, r, failure)
		}
		return c.wire.appendResult(b, r, api.Kind(s.Kind), s.Result)
	})
	c.durable.sent = s.Out
	if last || c.out.size() > freeOutbox {
		c.flush()
		return true
	}
	c.mu.Unlock()
	return true
}

// cancelJob ends a job by its id. Whether it was there is not told: it may have ended by itself.
func (c *conn) cancelJob(id string) {
	q, err := c.queue()
	if err != nil {
		return
	}
	c.busy++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), api.DefaultDeadline)
		defer cancel()
		err := q.Readable(c.holder, id)
		if err == nil {
			_, err = q.Cancel(ctx, id)
		}
		if err != nil {
			c.h.log.Debug("a job was not cancelled", "id", id, "err", err)
		}
		c.mu.Lock()
		c.rest()
		c.mu.Unlock()
	}()
}

// touch notes now and then that the session's client is there. mu is held.
func (c *conn) touch(now time.Duration) {
	d := &c.durable
	if !d.open || now-d.seen < c.h.opts.Touch || c.closing {
		return
	}
	q, err := c.queue()
	if err != nil {
		return
	}
	d.seen = now
	c.busy++
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), api.DefaultDeadline)
		defer cancel()
		if err := q.Touch(ctx, c.session); err != nil {
			c.h.log.Debug("a session was not noted", "err", err)
		}
		c.mu.Lock()
		c.rest()
		c.mu.Unlock()
	}()
}
