// admit.go: whether a request may come in: is there room, and will it be answered in time; and who gives way to it.
package batch

import (
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/inferd/inferd/inference"
)

// The predicted finish of a request is the rest of the runs in flight and the work that goes before it, spread over the slots, and its own run.
// While a body is read and decoded, which takes as long as those beside it let it, what is before it is worked off. Whoever would be late is refused at
// the door. There is no second controller: what the prediction does not know (other processes on the
// processors, a quota that was halved) shows in the run times that it learns, and in stretch.
const (
	// A request must be predicted to be ready when this much of its time is left, for reading, encoding and sending take some too.
	spareShare = 1.0 / 16
	spareTime  = 500 * time.Microsecond
	// What waits is thought to take this much longer than predicted: hundreds of errors may all point the same way.
	doubt = 1.0 / 10
	// A prediction that has not been held against a run for so long is tried: one request is let in.
	stale = time.Second
	// stretch grows by stretchStep with each answer that was later than predicted, and its excess over 1 halves in stretchHalf.
	stretchStep = 0.05
	stretchHalf = 10 * time.Second
	stretchMost = 4
	// mostGiveWay is how many that wait are looked at to make room for one.
	mostGiveWay = 64
)

// claim is what a request asks for.
type claim struct {
	class  inference.Class
	client *inference.Client
	rank   rank
	due    time.Duration // never: it has no deadline
	work   float64       // that it adds for those after it, in nanoseconds of a slot
	mean   float64       // that its own run is expected to take,
	run    float64       // and that it seldom passes
	arrive float64       // until it is all here and decoded
	bytes  int64
}

// now is the batcher's clock.
func (b *Batcher) now() time.Duration { return time.Since(b.origin) }

// dueAt is a deadline by the batcher's clock.
func (b *Batcher) dueAt(deadline time.Time) time.Duration {
	if deadline.IsZero() {
		return never
	}
	return max(0, deadline.Sub(b.origin))
}

// Admit is [inference.Admitter]'s. What a request of unknown contents will cost is taken from those before it.
func (b *Batcher) Admit(deadline time.Time, bytes int64, class inference.Class, client *inference.Client) (inference.Ticket, error) {
	delay := b.delay()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return inference.Ticket{}, b.closedError()
	}
	c := claim{class: class, client: client, due: b.dueAt(deadline), work: b.typical.work, mean: b.typical.mean, run: b.typical.run,
		arrive: b.typical.arrive * b.crowd(), bytes: bytes}
	if b.typical.bytes > 0 && bytes > 0 {
		scale := min(8, max(0.5, float64(bytes)/b.typical.bytes))
		c.work *= scale
		c.arrive *= scale
	}
	err := b.enter(&c, delay)
	if err != nil {
		b.mu.Unlock()
		b.wake(err)
		return inference.Ticket{}, err
	}
	c.work = math.Floor(c.work) // the ticket has whole nanoseconds
	at := b.agenda.add(c.rank, c.due, c.work)
	b.shares.hold(client, c.work, 1)
	b.promised++
	b.promisedBytes += bytes
	b.mu.Unlock()
	return inference.Ticket{From: b, Work: time.Duration(c.work), Bytes: bytes, Class: class, Client: client, Due: c.due, Given: b.now(), Place: uint8(at) | uint8(c.rank)<<4}, nil
}

// Forgo is [inference.Promiser]'s.
func (b *Batcher) Forgo(t inference.Ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.redeem(&t)
}

// redeem takes a promise out of the books. mu is held.
func (b *Batcher) redeem(t *inference.Ticket) {
	b.agenda.remove(rank(t.Place>>4), t.Due, float64(t.Work), place(t.Place&15))
	b.shares.hold(t.Client, -float64(t.Work), -1)
	b.promised--
	b.promisedBytes -= t.Bytes
	t.From = nil
}

// delay is how long it takes until a run can begin at all: the version's worker may have to be loaded first.
func (b *Batcher) delay() time.Duration {
	if b.opts.Ready == nil {
		return 0
	}
	return b.opts.Ready()
}

// wake has the worker loaded for those who come again, where that was the reason.
func (b *Batcher) wake(err *inference.Error) {
	if err.Reason == inference.ReasonLoading && b.opts.Wake != nil {
		b.opts.Wake()
	}
}

// enter decides about a claim. Others may have given way when it returns nil. mu is held.
func (b *Batcher) enter(c *claim, delay time.Duration) *inference.Error {
	if b.queued+b.promised > 0 && (b.queued+b.promised >= b.opts.MaxQueued || b.queuedBytes+b.promisedBytes+c.bytes > b.opts.MaxQueuedBytes) {
		b.refused++
		return b.full()
	}
	now := b.now()
	b.agenda.advance(now)
	c.rank = rankOf(c.class, b.shares.over(c.client, c.work, now))
	if c.due == never || c.run == 0 && c.work == 0 {
		return nil
	}
	if b.queued+b.promised+b.inflight == 0 && delay == 0 && now-max(b.learned, b.tried) > stale && now < c.due {
		b.tried = now // one may try
		return nil
	}
	finish, ok := b.forecast(c, now, delay)
	if ok {
		return nil
	}
	if delay == 0 && b.giveWay(c, now) {
		return nil
	}
	b.late++
	return b.tooLate(c, now, finish, delay)
}

func (b *Batcher) full() *inference.Error {
	return b.fail(&inference.Error{Code: inference.Unavailable, Reason: inference.ReasonQueueFull, RetryAfter: b.drainTime(),
		Msg: "The batch scheduling queue to which this task was submitted is full"})
}

// drainTime is how long what waits will take, as far as that is known. mu is held.
func (b *Batcher) drainTime() time.Duration {
	sum := 0.0
	for _, t := range b.agenda.total {
		sum += t
	}
	return max(10*time.Millisecond, time.Duration(sum/float64(b.limits.slots)))
}

// rest is what the runs in flight still take, together. mu is held.
func (b *Batcher) rest() float64 {
	rest := 0.0
	for _, r := range b.runs {
		if r.expected <= 0 {
			continue
		}
		left := r.expected - float64(time.Since(r.started))
		rest += max(left, r.expected/8) // who is late already will be for some time
	}
	return rest
}

// allowed is the time from now in which a request that is due then must be predicted to finish.
func allowed(due, now time.Duration) float64 {
	left := float64(due - now)
	return left - left*spareShare - float64(spareTime)
}

// forecast is when the claim's request would be done, counted from now, and whether that is early enough for it and for those that it would delay.
// mu is held.
func (b *Batcher) forecast(c *claim, now, delay time.Duration) (finish float64, ok bool) {
	// Those of higher ranks will go on coming as they did lately, and overtake it.
	ahead, slots := b.agenda.ahead(c.rank, c.due), float64(b.limits.slots)*(1-b.shares.busy(c.rank, b.limits.slots, now))
	stretch := b.stretchAt(now) * (1 + doubt)
	if ahead > 0 || b.inflight >= b.limits.slots {
		finish = (b.rest() + ahead) / slots * stretch
	}
	if finish == 0 && delay == 0 {
		finish = c.arrive + min(c.mean, c.run)
		return finish, finish <= float64(c.due-now) // nobody loses anything when it is late all the same
	}
	finish = max(finish+float64(delay), c.arrive) + c.run // what is before it is worked off while it arrives
	if finish > allowed(c.due, now) {
		return finish, false
	}
	if c.work == 0 {
		return finish, true
	}
	rest := b.rest()
	return finish, !b.agenda.delays(c.rank, c.due, c.work, ahead, func(at time.Duration) float64 {
		return (float64(at-now)-c.run-float64(delay))/stretch*slots - rest
	})
}

// stretchAt is the factor by which waiting takes longer than predicted, lately.
func (b *Batcher) stretchAt(now time.Duration) float64 {
	if b.stretch <= 1 {
		return 1
	}
	return 1 + (b.stretch-1)*math.Exp2(-float64(now-b.stretched)/float64(stretchHalf))
}

// check holds an answer against what was predicted for it. mu is held.
func (b *Batcher) check(c *call, now time.Duration) {
	// One that was let in before the last correction says nothing new.
	for r := range c.rank {
		if b.came[r] > c.entered {
			return // it was overtaken, which nobody could foresee
		}
	}
	if c.expected > 0 && c.entered >= b.stretched && now-c.entered > c.expected+c.expected/16+time.Millisecond {
		b.stretch, b.stretched = min(stretchMost, b.stretchAt(now)+stretchStep), now
	}
}

// giveWay lets those who wait give way to the claim until it fits: the lower ranks first, and in its own rank those of a client that
// has more waiting for its weight than this one has, who are due last. None gives way when that would not be enough. mu is held.
func (b *Batcher) giveWay(c *claim, now time.Duration) bool {
	var out []*call
	for len(out) < mostGiveWay {
		v := b.yielding(c)
		if v == nil {
			break
		}
		g := v.group
		b.dequeue(v)
		b.update(g)
		v.state = answered
		out = append(out, v)
		if _, ok := b.forecast(c, now, 0); ok {
			for _, v := range out {
				v.err = b.gaveWay(v, c)
				b.yielded++
				v.done <- struct{}{}
			}
			return true
		}
	}
	for _, v := range out {
		b.enqueue(v)
	}
	return false
}

// yielding is who gives way next, nil when nobody does. mu is held.
func (b *Batcher) yielding(c *claim) *call {
	heaviest, most := b.shares.heaviest()
	over := heaviest != c.client && most > b.shares.waiting(c.client)+c.work/weight(c.client)
	var found *call
	look := func(g *group) {
		for v := g.last; v != nil; v = v.prev {
			if v.rank < c.rank || v.exclusive || v.rank == c.rank && (!over || v.req.Client != heaviest) {
				continue
			}
			if found == nil || v.rank > found.rank || v.rank == found.rank && v.due > found.due {
				found = v
			}
			if g.kind != serial {
				return // in order: those before are due earlier
			}
		}
	}
	for _, g := range b.groups {
		look(g)
	}
	look(b.singles)
	look(b.writes)
	return found
}

func (b *Batcher) gaveWay(v *call, c *claim) *inference.Error {
	e := &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonRate, RetryAfter: b.drainTime()}
	if v.class > c.class {
		e.Reason = inference.ReasonQueueFull
		e.Msg = fmt.Sprintf("a request of class %s gave way to one of class %s, for there is not time for both; send it again later", v.class, c.class)
	} else {
		e.Msg = "this client has more requests waiting than its share of a model that is asked for more than it can answer, so this one gave way to another client's; send fewer, or send it again later"
	}
	return b.fail(e)
}

func (b *Batcher) tooLate(c *claim, now time.Duration, finish float64, delay time.Duration) *inference.Error {
	left, needs := max(0, c.due-now), time.Duration(finish)
	e := &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonDeadline,
		RetryAfter: max(time.Millisecond, needs-time.Duration(max(0, allowed(c.due, now))))}
	switch {
	case delay > 0:
		e.Code, e.Reason, e.RetryAfter = inference.Unavailable, inference.ReasonLoading, max(delay, time.Millisecond)
		e.Msg = fmt.Sprintf("the version is being loaded, which takes about %v; the request has %v left; send it again then, or give it more time",
			round(delay), round(left))
	case c.run > allowed(c.due, now):
		e.Msg = fmt.Sprintf("a run takes about %v, and the request has %v left; give it more time", round(time.Duration(c.run)), round(left))
	default:
		e.Msg = fmt.Sprintf("the request has %v left and would be answered in about %v, after %d others; send it again later, or give it more time",
			round(left), round(needs), b.queued+b.promised)
	}
	return b.fail(e)
}

func round(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(10 * time.Microsecond)
	case d < time.Second:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Millisecond)
}

// estimate fills in what the call's run is predicted to take, and what the call adds for those after it. mu is held.
func (b *Batcher) estimate(c *call) (work, mean, most float64) {
	cost, n := c.sig.costOf(c.kind, c.rows)
	mean, most = cost.mean(n), cost.most(n)
	switch {
	case cost == &c.sig.alone:
		work = mean
		if c.kind == serial { // one at a time, whatever slots there are
			work *= float64(b.limits.slots)
		}
		return work, mean, most
	case cost.runs == 0:
		return 0, 0, 0
	}
	fixed, row := cost.forecast()
	rows := float64(c.rows)
	with := cost.rows
	if g := b.groups[c.key]; g != nil {
		with = max(with, float64(g.rows+c.rows))
	}
	if with > 2*cost.rows { // else the limit, which is not for nothing, makes no difference
		limit := b.limits.join
		if b.limits.share {
			limit = c.sig.most(limit, b.limits.target)
		}
		with = min(with, float64(limit))
	}
	if with <= 2*cost.rows {
		// Runs will be as they were lately: then what rows took is known better than what of it was fixed.
		work = rows * cost.took / cost.rows
	} else {
		work = row*rows + fixed*rows/max(rows, with) // the fixed cost is shared with those that the call will run with
	}
	return work, mean, most
}

// crowd is how many share a processor to read and decode what they were sent, with one more. mu is held.
func (b *Batcher) crowd() float64 {
	return max(1, float64(b.promised+1)/float64(runtime.GOMAXPROCS(0)))
}

// typical is a decaying mean of what requests cost.
type typical struct {
	known                  bool
	work, mean, run, bytes float64
	arrive                 float64 // from the promise until all is here, with a processor to itself; in nanoseconds
}

// arrived learns from a ticket that is used. A time that was learned in worse circumstances is forgotten at once: it may be why few come.
func (t *typical) arrived(took time.Duration, crowd float64) {
	sample := float64(took) / crowd
	if t.arrive == 0 || sample < t.arrive/2 {
		t.arrive = sample
		return
	}
	t.arrive += costDecay * (min(sample, 2*t.arrive) - t.arrive) // one client that sends slowly is no reason to think that all do
}

// guess stands in until a request of known contents has come: one row of the slowest signature.
func (t *typical) guess(c *cost) {
	if mean := c.mean(1); !t.known && mean > t.mean {
		t.work, t.mean, t.run = mean, mean, c.most(1)
	}
}

func (t *typical) learn(c *claim, bytes int64) {
	if c.run == 0 {
		return
	}
	work, run := c.work, c.run
	if !t.known {
		*t = typical{true, work, c.mean, run, float64(bytes), t.arrive}
		return
	}
	t.work += costDecay * (work - t.work)
	t.mean += costDecay * (c.mean - t.mean)
	t.run += costDecay * (run - t.run)
	t.bytes += costDecay * (float64(bytes) - t.bytes)
}

// hopeless reports whether the call cannot be answered in time any more, however well it goes. mu is held.
func (b *Batcher) hopeless(c *call, now time.Duration) bool {
	if c.due == never {
		return false
	}
	if now >= c.due {
		return true
	}
	if now-b.learned > stale {
		return false
	}
	cost, rows := c.sig.costOf(c.kind, c.rows)
	return float64(now)+cost.mean(rows)-cost.stray > float64(c.due)
}

// expire answers those at the front of the group for whom it is too late, before they cost a run. mu is held.
func (b *Batcher) expire(g *group, now time.Duration) {
	gone := false
	for c := g.first; c != nil && b.hopeless(c, now); c = g.first {
		b.dequeue(c)
		c.state, c.err = answered, b.fail(&inference.Error{Code: inference.DeadlineExceeded, Reason: inference.ReasonDeadline, Msg: "Timed out waiting for notification"})
		b.expired++
		c.done <- struct{}{} // has room: this is the one signal
		gone = true
	}
	if gone {
		b.update(g)
	}
}

// Shrink keeps batches small while it is on: a quarter of what they may be. A box that runs out of memory asks for it.
func (b *Batcher) Shrink(on bool) { b.shrunk.Store(on) }
