// queuelease.go: who runs a job, and how that ends.
package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Lease is a job that the caller runs.
type Lease struct {
	Item
	Payload []byte
	Number  uint64 // of the lease, never that of another one; Finish and Release may name it
}

// Lease takes up to n ready jobs of the model whose payloads have together at most maxBytes (one may have more, alone), the most urgent and
// then the oldest first. The leases are on disk when it returns; each ends with Finish, Release or the process. Jobs that expire before now
// end as expired instead; with a zero now none does.
func (q *Queue) Lease(ctx context.Context, model string, n int, maxBytes int64, now time.Time) ([]Lease, error) {
	var out []Lease
	err := q.update(ctx, 0, func(x *tx) error {
		var err error
		out, err = x.lease(model, n, maxBytes, now)
		return err
	}, func() {
		for i := range out {
			q.leases++
			out[i].Number = q.leases
			q.owned[out[i].Seq] = q.leases
		}
	})
	if err != nil {
		return nil, err
	}
	good := out[:0]
	for _, l := range out {
		l.Payload, err = q.body(&l.Item, partPayload)
		if err != nil && !errors.Is(err, errRecord) { // nothing is known against the payload
			for _, l := range out {
				q.giveBack(l.ID, Back{Lease: l.Number})
			}
			return nil, err
		}
		if err != nil {
			_, _ = q.Finish(ctx, l.ID, Outcome{Lease: l.Number, State: Failed, Code: 15, Reason: "disk", Error: "its payload in the queue's file is damaged: " + err.Error(), At: l.Submitted})
			continue
		}
		good = append(good, l)
	}
	return good, nil
}

// giveBack releases a lease that nobody has been given, and tries again while the disk does not take it.
func (q *Queue) giveBack(id string, b Back) {
	_, err := q.Release(context.Background(), id, b)
	if errors.Is(err, ErrNotStored) || errors.Is(err, ErrDegraded) {
		time.AfterFunc(probeEvery, func() { q.giveBack(id, b) }) // ends with ErrClosed at the latest
	}
}

// current reports whether the lease of that number is the job's; 0 is any.
func (x *tx) current(it *Item, number uint64) error {
	if it.State != Leased {
		return fmt.Errorf("%w: job %s is %s", ErrState, it.ID, it.State)
	}
	if number != 0 && x.q.owned[it.Seq] != number {
		return fmt.Errorf("%w: job %s was leased again since", ErrState, it.ID)
	}
	return nil
}

func (x *tx) lease(model string, n int, maxBytes int64, now time.Time) ([]Lease, error) {
	d := x.mem.models[model]
	if d == nil {
		return nil, nil
	}
	type found struct {
		key []byte
		it  Item
	}
	var list, late []found
	var bytes int64
	prefix := readyKey(d.id, 0, 0)[:4]
	c := x.ready.Cursor()
	for k, _ := c.Seek(prefix); len(k) == 13 && string(k[:4]) == string(prefix) && len(list) < n && len(late) < 1000; k, _ = c.Next() {
		seq := binary.BigEndian.Uint64(k[5:])
		it, err := x.get(seq)
		if err != nil { // damaged; or set aside before, and its place was left
			x.rebuild = true
			continue
		}
		f := found{append([]byte{}, k...), it}
		if !now.IsZero() && !it.Expires.IsZero() && !now.Before(it.Expires) {
			late = append(late, f)
			continue
		}
		if bytes += it.PayloadBytes; bytes > maxBytes && len(list) > 0 {
			break
		}
		list = append(list, f)
	}
	for i := range late {
		if err := x.expire(&late[i].it, now); err != nil {
			return nil, err
		}
	}
	out := make([]Lease, 0, len(list))
	for i := range list {
		it := &list[i].it
		it.State = Leased
		if err := try(x.ready.Delete(list[i].key)); err != nil {
			return nil, err
		}
		if err := x.hold(it.Seq, &held{kind: heldLease, boot: x.q.boot, depth: d}); err != nil {
			return nil, err
		}
		if err := x.put(it); err != nil {
			return nil, err
		}
		x.q.watching.later(it)
		out = append(out, Lease{Item: *it})
	}
	x.q.opts.Step("lease")
	return out, nil
}

func (x *tx) expire(it *Item, now time.Time) error {
	it.Code, it.Reason, it.Error = 4, "deadline", "its time was over before its turn came" // DEADLINE_EXCEEDED
	x.q.watching.later(it)
	return x.end(it, Expired, now, false)
}

// Outcome is how a leased job ended.
type Outcome struct {
	Lease   uint64   // whose; 0: of whoever has it now
	State   JobState // Done, Failed or Dead
	Result  []byte   // of Done
	Version int64    // that answered
	Code    int      // of Failed and Dead, with Reason and Error
	Reason  string
	Error   string
	At      time.Time
}

// Finish stores the result and ends the job in one transaction, and returns once it is on disk. ErrState: it is not leased (any more), a
// cancelled job for one, or not by that lease, and the outcome is dropped.
func (q *Queue) Finish(ctx context.Context, id string, o Outcome) (Item, error) {
	if !o.State.Final() {
		return Item{}, fmt.Errorf("%w: %s is no end", ErrState, o.State)
	}
	bytes, result := q.pack.pack(o.Result)
	var it Item
	err := q.update(ctx, result.stored, func(x *tx) (err error) {
		if it, err = x.find(id); err != nil {
			return err
		}
		if err := x.current(&it, o.Lease); err != nil {
			return err
		}
		it.AnsweredBy, it.Code, it.Reason, it.Error = o.Version, o.Code, o.Reason, cutText(o.Error)
		if o.State == Done {
			it.result = result
			it.Code, it.Reason, it.Error = 0, "", ""
			x.mem.bytes += result.stored
			if err := try(putBody(x.bodies, it.Seq, partResult, bytes)); err != nil {
				return err
			}
		}
		x.q.watching.later(&it)
		x.q.opts.Step("finish")
		return x.end(&it, o.State, o.At, o.State != Done)
	}, func() { delete(q.owned, it.Seq) })
	return it, err
}

// Back is why a leased job is queued again.
type Back struct {
	Lease          uint64        // whose; 0: of whoever has it now
	Attempt, Death bool          // to be counted
	Delay          time.Duration // before it may be leased again
	Code           int
	Reason, Error  string // of the failure; empty: none
}

// Release queues a leased job again, in its old place.
func (q *Queue) Release(ctx context.Context, id string, b Back) (Item, error) {
	var it Item
	err := q.update(ctx, 0, func(x *tx) (err error) {
		if it, err = x.find(id); err != nil {
			return err
		}
		if err := x.current(&it, b.Lease); err != nil {
			return err
		}
		if b.Attempt {
			it.Attempts++
		}
		if b.Death {
			it.Deaths++
		}
		if b.Error != "" {
			it.Code, it.Reason, it.Error = b.Code, b.Reason, cutText(b.Error)
		}
		x.q.watching.later(&it)
		x.q.opts.Step("release")
		return x.requeue(&it, b.Delay)
	}, func() { delete(q.owned, it.Seq) })
	return it, err
}

// requeue puts a leased job back, keeping its lane waiting.
func (x *tx) requeue(it *Item, delay time.Duration) error {
	it.State = Queued
	if delay > 0 {
		h := &held{kind: heldDelay, boot: x.q.boot, due: Uptime() + delay, delay: delay, depth: x.depth(it.Model)}
		if err := x.hold(it.Seq, h); err != nil {
			return err
		}
		return x.put(it)
	}
	x.mem.drop(it.Seq)
	x.q.ring()
	if err := try(x.held.Delete(seqKey(it.Seq)), x.ready.Put(readyKey(x.depth(it.Model).id, it.Class, it.Seq), present)); err != nil {
		return err
	}
	return x.put(it)
}
