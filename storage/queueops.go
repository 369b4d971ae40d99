// queueops.go: what callers may do to jobs that nobody runs: append, cancel, retry, delete; and what opening the file does to those that somebody ran.
package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// FullError says which bound is reached. It is ErrFull.
type FullError struct {
	Model string // empty: the whole queue's bound
	What  string // "jobs" or "bytes"
	Have  int64
	Limit int64
}

func (e *FullError) Error() string {
	whose := "the queue"
	if e.Model != "" {
		whose = "the queue of model " + e.Model
	}
	return fmt.Sprintf("%s is full: %d %s of at most %d", whose, e.Have, e.What, e.Limit)
}

// Is makes it ErrFull.
func (e *FullError) Is(target error) bool { return target == ErrFull }

// Append stores a job, queued, and returns once it is on disk. Of the item it takes the model to Expires; the rest is the store's. With a
// Key that stands for a job already, that job is returned and existed is true; ErrConflict when its Digest is another one. Other errors:
// ErrFull, ErrTooLarge, ErrDegraded, ErrNotStored, ErrClosed, and ctx's, before the transaction began.
func (q *Queue) Append(ctx context.Context, it Item, payload []byte) (stored Item, existed bool, err error) {
	for _, s := range []string{it.Model, it.Label, it.Lane, it.Key, it.Session, it.Ref} {
		if len(s) > MaxText {
			return Item{}, false, fmt.Errorf("%w: %.40q has %d bytes, and a name or a key may have %d", ErrTooLarge, s, len(s), MaxText)
		}
	}
	if int64(len(payload)) > q.opts.MaxPayload {
		return Item{}, false, fmt.Errorf("%w: a payload of %d bytes, and it may have %d", ErrTooLarge, len(payload), q.opts.MaxPayload)
	}
	if it.Model == "" || it.Version < 0 || it.MaxAttempts < 0 {
		return Item{}, false, errors.New("a job has a model, and no version or number of attempts below zero")
	}
	bytes, packed := q.pack.pack(payload)
	it.random, it.payload, it.result = newRandom(), packed, body{}
	it.State, it.Attempts, it.Deaths, it.Interruptions, it.Finished, it.Out, it.AnsweredBy = Queued, 0, 0, 0, time.Time{}, 0, 0
	it.Code, it.Reason, it.Error = 0, "", ""
	err = q.update(ctx, packed.stored, func(x *tx) error {
		stored, existed, err = x.append(it, bytes)
		return err
	}, nil)
	if err != nil {
		return Item{}, false, err
	}
	return stored, existed, nil
}

func (x *tx) append(it Item, payload []byte) (Item, bool, error) {
	keys, key := x.Bucket(bucketKeys), textKey(it.Key)
	if it.Key != "" {
		if at := keys.Get(key); len(at) == 8 {
			old, err := x.get(binary.BigEndian.Uint64(at))
			switch {
			case errors.Is(err, errRecord):
				if err := x.setAside(binary.BigEndian.Uint64(at)); err != nil {
					return Item{}, false, err
				}
			case err == nil && old.Key == it.Key && old.Digest == it.Digest:
				return old, true, nil
			case err == nil && old.Key == it.Key:
				return Item{}, false, fmt.Errorf("%w: job %s", ErrConflict, old.ID)
			}
		}
	}
	if it.Session != "" && x.Bucket(bucketSessions).Get([]byte(it.Session)) == nil {
		return Item{}, false, ErrNoSession
	}
	if err := x.number(it.Model); err != nil {
		return Item{}, false, err
	}
	if err := x.makeRoom(&it); err != nil {
		return Item{}, false, err
	}
	seq, err := x.jobs.NextSequence()
	if err != nil {
		return Item{}, false, &fatal{err}
	}
	it.Seq, it.ID = seq, makeID(seq, it.random)
	if err := try(putBody(x.bodies, seq, partPayload, payload)); err != nil {
		return Item{}, false, err
	}
	if !it.Expires.IsZero() {
		if err := try(x.expiry.Put(timeKey(it.Expires, seq), present)); err != nil {
			return Item{}, false, err
		}
	}
	if it.Key != "" {
		if err := try(keys.Put(key, seqKey(seq))); err != nil {
			return Item{}, false, err
		}
	}
	d := x.depth(it.Model)
	d.jobs++
	d.bytes += it.payload.stored
	x.count(&it, 1)
	if err := x.enqueue(&it); err != nil {
		return Item{}, false, err
	}
	x.q.opts.Step("append")
	return it, false, x.put(&it)
}

// count adds a job, or takes one off, in the totals.
func (x *tx) count(it *Item, sign int) {
	if it.payload.stored == 0 && it.result.stored == 0 && it.State.Final() {
		x.mem.stubs += sign
	} else {
		x.mem.jobs += sign
	}
	x.mem.bytes += int64(sign) * (it.payload.stored + it.result.stored)
	x.totals = true
}

// maxVictims bounds how many jobs end for one new one.
const maxVictims = 64

// makeRoom finds out whether the job may be stored, and ends others for it where that is configured; none of them where they are not enough.
func (x *tx) makeRoom(it *Item) error {
	var victims []*Item
	for {
		full := x.full(it, victims)
		if full == nil {
			break
		}
		if x.q.opts.WhenFull != Evict || len(victims) == maxVictims {
			return full
		}
		v, err := x.victim(full.Model, it.Class, victims)
		if err != nil {
			return err
		}
		if v == nil {
			return full
		}
		victims = append(victims, v)
	}
	for _, v := range victims {
		v.Code, v.Reason = 8, "queue_full" // RESOURCE_EXHAUSTED
		v.Error = "it was the oldest of the lowest priority when the queue was full, and made room for a new job"
		if err := x.end(v, Expired, it.Submitted, false); err != nil {
			return err
		}
		x.q.watching.later(v)
	}
	return nil
}

// full is the bound that the job would break once the others are gone.
func (x *tx) full(it *Item, gone []*Item) *FullError {
	var own, all Limits // what the others free
	for _, v := range gone {
		if all.Bytes += v.payload.stored; v.payload.stored > 0 { // an empty one stays in the count as it is
			all.Jobs++
		}
		if v.Model == it.Model {
			own.Jobs++
			own.Bytes += v.payload.stored
		}
	}
	if f := x.q.opts.Model; f != nil {
		l, d := f(it.Model), x.mem.models[it.Model]
		if l.Jobs > 0 && d.jobs-own.Jobs >= l.Jobs {
			return &FullError{it.Model, "jobs", int64(d.jobs), int64(l.Jobs)}
		}
		if l.Bytes > 0 && d.bytes-own.Bytes+it.payload.stored > l.Bytes {
			return &FullError{it.Model, "bytes", d.bytes, l.Bytes}
		}
	}
	whole := x.q.opts.Whole
	if x.mem.jobs-all.Jobs >= whole.Jobs {
		return &FullError{"", "jobs", int64(x.mem.jobs), int64(whole.Jobs)}
	}
	if x.mem.bytes-all.Bytes+it.payload.stored > whole.Bytes {
		return &FullError{"", "bytes", x.mem.bytes, whole.Bytes}
	}
	return nil
}

// victim is the oldest ready job of the lowest priority, of the model or of all, if it is no more urgent than class and not among those chosen.
// Nil: none.
func (x *tx) victim(model string, class uint8, chosen []*Item) (*Item, error) {
	taken := make(map[uint64]bool, len(chosen))
	for _, v := range chosen {
		taken[v.Seq] = true
	}
	var best *Item
	for name, d := range x.mem.models {
		if d.jobs == 0 || (model != "" && name != model) {
			continue
		}
		it, err := x.oldestOfLowest(d.id, class, taken)
		if err != nil {
			return nil, err
		}
		if it != nil && (best == nil || it.Class > best.Class || it.Class == best.Class && it.Seq < best.Seq) {
			best = it
		}
	}
	return best, nil
}

// oldestOfLowest is the first ready job, not taken, of the model's least urgent class that has one, if that is no more urgent than class.
func (x *tx) oldestOfLowest(model uint32, class uint8, taken map[uint64]bool) (*Item, error) {
	c := x.ready.Cursor()
	for upTo := 255; upTo >= int(class); {
		// The last key up to this class tells which class is there.
		last := readyKey(model, uint8(upTo), ^uint64(0))
		k, _ := c.Seek(last)
		if k == nil {
			k, _ = c.Last()
		} else if string(k) > string(last) {
			k, _ = c.Prev()
		}
		if len(k) != 13 || binary.BigEndian.Uint32(k) != model || k[4] < class {
			return nil, nil
		}
		lowest := k[4]
		for k, _ = c.Seek(readyKey(model, lowest, 0)); len(k) == 13 && binary.BigEndian.Uint32(k) == model && k[4] == lowest; k, _ = c.Next() {
			seq := binary.BigEndian.Uint64(k[5:])
			if taken[seq] {
				continue
			}
			it, err := x.get(seq)
			if err != nil { // the indexes are made anew before the end
				x.rebuild = true
				continue
			}
			return &it, nil
		}
		upTo = int(lowest) - 1
	}
	return nil, nil
}

// Cancel ends a job that waits or runs. ErrState when it has ended.
func (q *Queue) Cancel(ctx context.Context, id string, at time.Time) (Item, error) {
	var it Item
	err := q.update(ctx, 0, func(x *tx) (err error) {
		if it, err = x.find(id); err != nil {
			return err
		}
		if it.State.Final() {
			return fmt.Errorf("%w: job %s is %s already", ErrState, id, it.State)
		}
		it.Code, it.Reason, it.Error = 1, "cancelled", "it was cancelled"
		x.q.watching.later(&it)
		return x.end(&it, Cancelled, at, true)
	}, func() { delete(q.owned, it.Seq) })
	return it, err
}

// Retry queues a failed, dead or cancelled job again, in its old place, with nothing counted. ErrState where its payload is not there any more.
func (q *Queue) Retry(ctx context.Context, id string) (Item, error) {
	var it Item
	err := q.update(ctx, 0, func(x *tx) (err error) {
		if it, err = x.find(id); err != nil {
			return err
		}
		if !it.State.Final() || it.State == Done || it.State == Expired {
			return fmt.Errorf("%w: job %s is %s, and only what failed, died or was cancelled can be tried again", ErrState, id, it.State)
		}
		x.q.watching.later(&it)
		return x.revive(&it)
	}, nil)
	return it, err
}

func (x *tx) revive(it *Item) error {
	from := x.ends
	if it.State == Dead {
		from = x.dead
		x.mem.dead--
	} else {
		x.mem.finished--
	}
	if err := try(from.Delete(timeKey(it.Finished, it.Seq))); err != nil {
		return err
	}
	if it.Out > 0 {
		if err := try(x.Bucket(bucketOutbox).Delete(outKey(it.Session, it.Out))); err != nil {
			return err
		}
	}
	if it.payload.stored == 0 { // an empty payload: it counted as a stub
		x.mem.stubs--
		x.mem.jobs++
	}
	x.totals = true
	it.State, it.Attempts, it.Deaths, it.Interruptions, it.Finished, it.Out = Queued, 0, 0, 0, time.Time{}, 0
	it.Expires = time.Time{} // it may be past, and an operator wants it now
	d := x.depth(it.Model)
	d.jobs++
	d.bytes += it.payload.stored
	if err := x.enqueue(it); err != nil {
		return err
	}
	return x.put(it)
}

// Delete forgets a job that has ended, with its result.
func (q *Queue) Delete(ctx context.Context, id string) error {
	return q.update(ctx, 0, func(x *tx) error {
		it, err := x.find(id)
		if err != nil {
			return err
		}
		if !it.State.Final() {
			return fmt.Errorf("%w: job %s is %s; cancel it first", ErrState, id, it.State)
		}
		x.q.watching.later(&it)
		return x.forget(&it)
	}, nil)
}

// cutText bounds an error's text.
func cutText(s string) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= maxError {
		return s
	}
	s = s[:maxError]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// recover queues what was leased when the file was last open, and begins delays anew that another start of the machine had told.
func (q *Queue) recover(x *tx, first bool) error {
	boot, now := q.boot, Uptime()
	for seq, h := range x.mem.held {
		if h.kind == heldDelay {
			if h.boot != boot || h.due > now+h.delay {
				again := *h
				again.boot, again.due = boot, now+h.delay
				if err := x.hold(seq, &again); err != nil {
					return err
				}
			}
			continue
		}
		_, mine := q.owned[seq]
		if !first && mine {
			continue
		}
		it, err := x.get(seq)
		if err != nil {
			return &fatal{err}
		}
		var delay time.Duration
		if first {
			it.Interruptions++
			delay = afterInterruptions(it.Interruptions)
		}
		if err := x.requeue(&it, delay); err != nil {
			return err
		}
	}
	for seq := range q.owned {
		if h := x.mem.held[seq]; h == nil || h.kind != heldLease {
			delete(q.owned, seq)
		}
	}
	q.ring()
	return x.flush()
}

// afterInterruptions keeps a job that may be what ends the process from being the first to run each time.
func afterInterruptions(n int) time.Duration {
	if n < 3 {
		return 0
	}
	return min(time.Second<<min(n-3, 6), time.Minute)
}

// setAside moves a damaged record away. The indexes are made anew before the transaction ends.
func (x *tx) setAside(seq uint64) error {
	x.rebuild = true
	key := seqKey(seq)
	record := x.jobs.Get(key)
	if record == nil {
		return nil
	}
	x.q.damaged.Add(1)
	x.q.log.Error("record of a job is damaged: it is set aside, and the job is lost", "path", x.q.path, "seq", seq)
	return try(setAside(x.Tx, x.jobs, [][]byte{key}))
}
