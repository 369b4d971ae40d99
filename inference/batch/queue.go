// queue.go: who waits, in which order, and what leaves together.
package batch

import (
	"container/heap"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// kind is how a call may run.
type kind uint8

const (
	joins  kind = iota + 1 // with others of its key
	single                 // by itself, beside other runs
	serial                 // by itself, and no other that writes beside it
)

type callState uint8

const (
	waiting callState = iota + 1
	running
	answered
	left // its caller has gone
)

// call is one request, or one part of a large one, on its way through the batcher.
type call struct {
	// set by Predict before the call is submitted
	req      *inference.Request
	original *inference.Request // what req is a part of; req itself when it is whole
	sig      *signature
	rows     int64 // 0 when it has no rows that could be joined or cut
	bytes    int64
	key      uint64 // equal for calls that may share a run (and, rarely, for others: see joinable)
	flex     bool   // inner dimensions may be padded
	since    time.Time
	class    inference.Class
	rank     rank          // set when it is let in
	due      time.Duration // by the batcher's clock; never when it has no deadline
	done     chan struct{} // size 1: signalled once, after the outcome is set

	// guarded by Batcher.mu
	kind      kind
	state     callState
	exclusive bool // a suspect: runs with nothing else in flight
	memory    bool // was in a run that failed for memory
	repeats   int8 // runs that never began
	seq       uint64
	group     *group
	next      *call
	prev      *call
	run       *run
	work      float64 // in the agenda
	at        place
	entered   time.Duration // when it was let in,
	expected  time.Duration // and how long it was predicted to take then; 0 when nothing was known

	print    uint64 // the fingerprint, once anybody needed it
	hasPrint bool

	// outcome, read by the caller after done
	result *inference.Result
	from   int64
	whole  bool // the result is this call's alone
	err    error
}

// recycle gives the call back. Nobody else may hold it.
func (b *Batcher) recycle(c *call) {
	*c = call{done: c.done}
	b.oldCalls.Put(c)
}

// signature is what the batcher has learned about one signature.
type signature struct {
	*inference.Signature
	id uint64

	single atomic.Bool // turned out not to be batchable

	// guarded by Batcher.mu
	weight     int64 // rows that wait
	running    int64 // rows in flight
	cost       cost  // of runs of requests that may be joined
	curve      curve // of the same, by size
	alone      cost  // of the others, each counted as one row
	limit      int64 // rows of a joined run, after a memory error
	limitUntil time.Time
}

// group is a queue of calls that may share a run (kind joins), or one of the two queues of those that may not.
type group struct {
	kind  kind
	key   uint64
	sig   *signature // of kind joins
	first *call
	last  *call
	rows  int64
	heap  int // index in Batcher.ready, -1 when not in it

	busy  bool // serial: its run is in flight
	timer *time.Timer
	timed uint64 // seq of the call that timer is for
}

// before is the order in which calls run: by rank, in a rank by when they are due, and else as they came.
func (c *call) before(d *call) bool {
	if c.rank != d.rank {
		return c.rank < d.rank
	}
	if c.due != d.due {
		return c.due < d.due
	}
	return c.seq < d.seq
}

// insert puts the call where it belongs. Calls that write keep the order in which they came.
func (g *group) insert(c *call) {
	before := (*call).before
	if g.kind == serial {
		before = func(c, d *call) bool { return c.seq < d.seq }
	}
	at := g.last
	if at != nil && before(c, g.first) {
		at = nil // one that comes back, most often
	}
	for at != nil && before(c, at) {
		at = at.prev
	}
	c.group, c.prev = g, at
	if at == nil {
		c.next, g.first = g.first, c
	} else {
		c.next, at.next = at.next, c
	}
	if c.next == nil {
		g.last = c
	} else {
		c.next.prev = c
	}
	g.rows += c.rows
}

func (g *group) remove(c *call) {
	if c.prev == nil {
		g.first = c.next
	} else {
		c.prev.next = c.next
	}
	if c.next == nil {
		g.last = c.prev
	} else {
		c.next.prev = c.prev
	}
	c.group, c.prev, c.next = nil, nil, nil
	g.rows -= c.rows
}

// ready is the heap of groups that have a call which may run, the most urgent call on top.
type ready []*group

func (h ready) Len() int           { return len(h) }
func (h ready) Less(i, j int) bool { return h[i].first.before(h[j].first) }
func (h ready) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heap, h[j].heap = i, j
}
func (h *ready) Push(x any) {
	g := x.(*group)
	g.heap = len(*h)
	*h = append(*h, g)
}
func (h *ready) Pop() any {
	old := *h
	g := old[len(old)-1]
	old[len(old)-1] = nil
	*h, g.heap = old[:len(old)-1], -1
	return g
}

// mix is one step of a hash over small numbers.
func mix(h, v uint64) uint64 {
	h = (h ^ v) * 0x9e3779b97f4a7c15
	return h ^ h>>32
}

// classify finds out how the call may run: its rows, its kind and its key.
func (b *Batcher) classify(c *call) {
	req := c.req
	c.kind = single
	for _, t := range req.Inputs {
		c.bytes += t.Bytes() + 24*int64(len(t.Strings))
	}
	if req.Signature.Writes {
		c.kind = serial
		return
	}
	if !req.Signature.Batchable || req.Alone || len(req.Inputs) == 0 {
		return
	}
	c.flex = b.limits.flex
	for i, t := range req.Inputs {
		if len(t.Shape) == 0 || t.Shape[0] <= 0 || (i > 0 && t.Shape[0] != req.Inputs[0].Shape[0]) {
			c.flex = false
			return // the kernel decides
		}
		// An empty tensor has no first element to be padded with.
		c.flex = c.flex && len(t.Shape) <= 6 && !slices.Contains(t.Shape, 0)
	}
	c.rows, c.key, c.kind = req.Inputs[0].Shape[0], c.hash(), joins
}

// hash is the key of a call that may be joined.
func (c *call) hash() uint64 {
	h := mix(0, c.sig.id)
	for _, i := range c.req.Outputs {
		h = mix(h, uint64(i))
	}
	for _, t := range c.req.Inputs {
		h = mix(h, uint64(len(t.Shape)))
		if !c.flex {
			for _, d := range t.Shape[1:] {
				h = mix(h, uint64(d))
			}
		}
	}
	if c.flex {
		h = mix(h, 1)
	}
	return h
}

// joinable reports what equal keys promise; it differs only when two keys collide.
func joinable(a, b *call) bool {
	if a.sig != b.sig || a.flex != b.flex || !slices.Equal(a.req.Outputs, b.req.Outputs) {
		return false
	}
	for i, t := range a.req.Inputs {
		u := b.req.Inputs[i]
		if len(t.Shape) != len(u.Shape) || (!a.flex && !t.Shape[1:].Equal(u.Shape[1:])) {
			return false
		}
	}
	return true
}

// weigh is what the call takes of max_enqueued_batches, in rows.
func (b *Batcher) weigh(c *call) int64 {
	if c.rows == 0 {
		return b.limits.execute
	}
	return c.rows
}

// enqueue puts the call into its queue, without asking for room. mu is held.
func (b *Batcher) enqueue(c *call) {
	c.state, c.run = waiting, nil
	if c.seq == 0 {
		b.seq++
		c.seq = b.seq
	}
	if c.kind == joins && c.sig.single.Load() {
		c.kind = single
	}
	var g *group
	switch c.kind {
	case single:
		g = b.singles
	case serial:
		g = b.writes
	default:
		if g = b.groups[c.key]; g == nil {
			g = b.newGroup(c)
		} else if !joinable(g.first, c) {
			c.kind, g = single, b.singles
		}
	}
	c.work, _, _ = b.estimate(c)
	c.at = b.agenda.add(c.rank, c.due, c.work)
	b.shares.hold(c.req.Client, c.work, 1)
	g.insert(c)
	b.queued++
	b.queuedBytes += c.bytes
	c.sig.weight += b.weigh(c)
	b.update(g)
}

// dequeue takes the call out of its queue; the caller updates the group. mu is held.
func (b *Batcher) dequeue(c *call) {
	c.group.remove(c)
	b.agenda.remove(c.rank, c.due, c.work, c.at)
	b.shares.hold(c.req.Client, -c.work, -1)
	c.at = nowhere
	b.queued--
	b.queuedBytes -= c.bytes
	c.sig.weight -= b.weigh(c)
}

func (b *Batcher) newGroup(c *call) *group {
	var g *group
	if n := len(b.spare); n > 0 {
		g, b.spare = b.spare[n-1], b.spare[:n-1]
	} else {
		g = new(group)
	}
	*g = group{kind: joins, key: c.key, sig: c.sig, heap: -1}
	b.groups[c.key] = g
	return g
}

// update brings the group's place among the ready ones up to date, and its timer. mu is held.
func (b *Batcher) update(g *group) {
	ok := g.first != nil && !g.busy
	if ok && g.kind == joins && b.limits.timeout > 0 && !g.sig.single.Load() && g.rows < b.limits.join {
		wait := b.limits.timeout - time.Since(g.first.since)
		if due := g.first.due; due != never { // and not until it is too late
			wait = min(wait, time.Duration(allowed(due, b.now())-g.sig.cost.most(g.rows)))
		}
		if wait > 0 {
			ok = false
			if seq := g.first.seq; g.timer == nil || g.timed != seq {
				g.stop()
				g.timed = seq
				g.timer = time.AfterFunc(wait, func() { b.due(g, seq) })
			}
		}
	}
	switch {
	case ok && g.heap < 0:
		heap.Push(&b.ready, g)
	case ok:
		heap.Fix(&b.ready, g.heap)
	case g.heap >= 0:
		heap.Remove(&b.ready, g.heap)
	}
	if g.first == nil && g.kind == joins {
		g.stop()
		delete(b.groups, g.key)
		if len(b.spare) < 16 {
			b.spare = append(b.spare, g)
		}
	}
}

func (g *group) stop() {
	if g.timer != nil {
		g.timer.Stop()
		g.timer = nil
	}
}

// due is called when the batch that begins with call seq has waited long enough. A number is never used twice, so a late timer does nothing.
func (b *Batcher) due(g *group, seq uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if g.first != nil && g.first.seq == seq {
		b.update(g)
		b.dispatch(false)
	}
}

// dispatch starts what may start now. With keep the first run is returned instead, for the caller to execute once mu is not held any more.
// mu is held.
func (b *Batcher) dispatch(keep bool) (kept *run) {
	for b.inflight < b.limits.slots && !b.exclusive && len(b.ready) > 0 {
		g := b.ready[0]
		if b.expire(g, b.now()); g.first == nil || b.ready[0] != g {
			continue
		}
		if g.first.exclusive && b.inflight > 0 {
			return kept // what is in flight ends first, and nothing overtakes the suspect
		}
		r := b.take(g)
		b.inflight++
		b.exclusive = r.exclusive
		b.runs = append(b.runs, r)
		b.pending.Add(1)
		if keep && kept == nil {
			kept = r
		} else {
			go b.execute(r)
		}
	}
	return kept
}

// take forms a run from the front of the group. mu is held.
func (b *Batcher) take(g *group) *run {
	c := g.first
	r := b.newRun()
	r.sig, r.kind, r.exclusive, r.started = c.sig, g.kind, c.exclusive, time.Now()
	cost, _ := c.sig.costOf(g.kind, c.rows)
	limit := int64(1)
	if g.kind == joins && !g.sig.single.Load() {
		limit = b.limits.join
		if b.shrunk.Load() {
			limit = max(1, limit/4)
		}
		if b.limits.share && g.rows > 1 {
			all := g.rows + g.sig.running
			shares := g.sig.cost.shares(all, b.limits.slots)
			limit = min(g.sig.tries(limit, g.rows, b.limits.target, timeLeft(c.due, b.now())), (all+shares-1)/shares)
		}
		if g.sig.limit > 0 {
			if r.started.Before(g.sig.limitUntil) {
				limit = min(limit, g.sig.limit)
			} else {
				g.sig.limit = 0
			}
		}
	}
	first, now := c, b.now()
	for ; c != nil; c = g.first {
		if len(r.calls) > 0 && (g.kind != joins || r.rows+c.rows > limit || b.spoils(cost, first, r.rows, c.rows, now)) {
			break
		}
		b.shares.use(c.req.Client, c.rank, c.work, now)
		b.dequeue(c)
		c.state, c.run = running, r
		r.calls = append(r.calls, c)
		r.rows += c.rows
		r.memory = r.memory || c.memory
	}
	r.live = len(r.calls)
	r.taken = r.rows
	_, rows := r.sig.costOf(g.kind, max(r.rows, 1))
	r.expected = cost.mean(rows)
	r.sig.running += r.taken
	if g.kind == serial {
		g.busy = true
	}
	b.update(g)
	return r
}

// spoils reports whether so many more rows would make the first call of a run late, which is in time without them.
func (b *Batcher) spoils(cost *cost, first *call, rows, more int64, now time.Duration) bool {
	if first.due == never || cost.runs == 0 {
		return false
	}
	can := allowed(first.due, now)
	return cost.mean(rows+more) > can && cost.mean(rows) <= can
}

// submit queues calls that belong together, or none of them when there is no room or no time.
func (b *Batcher) submit(cs ...*call) error {
	delay := b.delay()
	b.mu.Lock()
	first := cs[0]
	ticket := &first.original.Ticket
	if ticket.From != b { // another version's, or none
		ticket = nil
	}
	c := claim{class: first.class, client: first.req.Client, due: first.due}
	var weight int64
	for _, call := range cs {
		work, mean, most := b.estimate(call)
		c.work += work
		c.mean, c.run = max(c.mean, mean), max(c.run, most)
		c.bytes += call.bytes
		weight += b.weigh(call)
	}
	seen := c.bytes
	if ticket != nil {
		b.typical.arrived(b.now()-ticket.Given, b.crowd())
		seen = ticket.Bytes // as Admit sees them: of the body, not of what it was decoded to
	}
	b.typical.learn(&c, seen)
	promised := ticket != nil && c.work <= 2*float64(ticket.Work)
	c.rank = rankOf(c.class, false)
	if ticket != nil {
		c.rank = rank(ticket.Place >> 4)
		b.redeem(ticket)
	}
	var err *inference.Error
	switch {
	case b.closed:
		b.mu.Unlock()
		return b.closedError()
	case first.sig.weight+weight > b.limits.weight:
		b.refused++
		err = b.full()
	case promised:
		b.agenda.advance(b.now())
	default:
		// The parts of a large request count as one: their memory is there already, and its bytes are counted.
		err = b.enter(&c, delay)
	}
	if err != nil {
		b.mu.Unlock()
		b.wake(err)
		return err
	}
	now := b.now()
	if c.run > 0 && delay == 0 {
		finish, _ := b.forecast(&c, now, 0)
		for _, call := range cs {
			call.entered, call.expected = now, time.Duration(finish)
		}
	}
	b.came[c.rank] = now
	alone := b.alone(cs)
	for _, call := range cs {
		call.rank = c.rank
		b.enqueue(call)
	}
	mine := b.dispatch(alone)
	b.mu.Unlock()
	if mine != nil {
		b.inline(mine)
	}
	return nil
}

// leave takes the caller of c out, whose context has ended. It returns nil when the outcome is there after all.
func (b *Batcher) leave(ctx context.Context, c *call) error {
	b.mu.Lock()
	for {
		switch c.state {
		case waiting:
			g := c.group
			b.dequeue(c)
			b.update(g)
			c.state = left
			b.dispatch(false) // a suspect that left may have held the others back
			b.mu.Unlock()
			return b.fail(inference.AsError(ctx.Err()))
		case answered:
			b.mu.Unlock()
			<-c.done
			return nil
		}
		r := c.run
		if r.holdsInputs() {
			// The run waits for its worker, or its inputs are being looked at: it is stopped, and goes on without this caller.
			if r.stopped == nil {
				r.stopped = make(chan struct{})
			}
			stopped, cancel := r.stopped, r.cancel
			c.state = left
			r.live--
			r.spoiled = true
			b.mu.Unlock()
			cancel()
			<-stopped
			return b.fail(inference.AsError(ctx.Err()))
		}
		if c.hasPrint {
			c.state = left
			r.live--
			cancel := r.cancel
			if r.live > 0 || !b.closed {
				cancel = nil
			} else {
				r.spoiled = true
			}
			b.mu.Unlock()
			if cancel != nil {
				cancel() // nobody wants it, and Close waits for it
			}
			return b.fail(inference.AsError(ctx.Err()))
		}
		// Should the run end its worker, the inputs are no longer there to be hashed.
		b.mu.Unlock()
		print := b.suspects.fingerprint(c.original)
		b.mu.Lock()
		c.print, c.hasPrint = print, true
	}
}
