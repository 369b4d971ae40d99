// queuecheck.go: whether a queue's file is what it should be, and indexes made anew from its jobs.
package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Report is what Check found.
type Report struct {
	Jobs, Queued, Leased, Finished, Dead, Sessions int
	Bytes                                          int64 // of payloads and results, as stored
	FileBytes, FreeBytes                           int64
	SetAside                                       int      // damaged records that were found before, and are kept aside
	Faults                                         []string // empty: the file is clean; at most 100 of them
}

const maxFaults = 100

func (r *Report) fault(format string, args ...any) {
	if len(r.Faults) < maxFaults {
		r.Faults = append(r.Faults, fmt.Sprintf(format, args...))
	}
}

// Check reads everything: bbolt's pages, each record and its checksum, each payload and result, and whether the indexes and counts agree with
// the jobs. It sees one moment of a queue that is in use.
func (q *Queue) Check(ctx context.Context) (Report, error) {
	var damage error
	if q.opts.ReadOnly {
		damage = q.structure()
	} else if err := q.alone(ctx, func() { damage = q.structure() }); err != nil {
		return Report{}, err
	}
	var r Report
	if damage != nil {
		r.fault("%v", damage)
		return r, nil
	}
	err := q.view(func(x *tx) error {
		r = Report{FileBytes: x.Size()}
		c := checker{tx: x, r: &r, expect: make(map[string]map[string]bool)}
		return c.run(ctx)
	})
	if errors.Is(err, errDamaged) {
		r.fault("%v", err)
		return r, nil
	}
	if st := q.Stats(); st.FileBytes > 0 {
		r.FileBytes = st.FileBytes
	}
	return r, err
}

type checker struct {
	*tx
	r      *Report
	expect map[string]map[string]bool // bucket -> keys that the jobs call for
	models map[string]depth
	mem    memory // as counted
	fronts map[string]int
}

func (c *checker) want(bucket, key []byte) {
	m := c.expect[string(bucket)]
	if m == nil {
		m = make(map[string]bool)
		c.expect[string(bucket)] = m
	}
	m[string(key)] = true
}

func (c *checker) run(ctx context.Context) error {
	// The counts of this transaction, not those of the writer now.
	var stored memory
	c.tx.mem = &stored
	if err := stored.read(c.tx); err != nil {
		return err
	}
	c.models, c.fronts = make(map[string]depth), make(map[string]int)
	err := c.jobs.ForEach(func(k, v []byte) error {
		if c.r.Jobs++; c.r.Jobs%1000 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		c.job(k)
		return nil
	})
	if err != nil {
		return err
	}
	c.bodiesBelong()
	c.indexes()
	for name, d := range stored.models {
		if got := c.models[name]; got.jobs != d.jobs || got.bytes != d.bytes {
			c.r.fault("model %s: its account says %d jobs and %d bytes, and there are %d and %d", name, d.jobs, d.bytes, got.jobs, got.bytes)
		}
	}
	if a, b := c.mem, stored; a.jobs != b.jobs || a.bytes != b.bytes || a.stubs != b.stubs || a.finished != b.finished || a.dead != b.dead {
		c.r.fault("the totals say %d jobs, %d bytes, %d stubs, %d finished, %d dead, and there are %d, %d, %d, %d, %d",
			b.jobs, b.bytes, b.stubs, b.finished, b.dead, a.jobs, a.bytes, a.stubs, a.finished, a.dead)
	}
	for lane, n := range c.fronts {
		if n != 1 {
			c.r.fault("lane %x has %d jobs at its front, and should have one", lane, n)
		}
	}
	c.r.SetAside = c.Bucket(bucketDamaged).Stats().KeyN
	c.r.Sessions = c.Bucket(bucketSessions).Stats().KeyN
	c.r.Bytes = c.mem.bytes
	c.r.FreeBytes = int64(c.DB().Stats().FreePageN) * int64(c.DB().Info().PageSize)
	return nil
}

// job checks one record and says what the indexes should have for it.
func (c *checker) job(k []byte) {
	if len(k) != 8 {
		c.r.fault("a job's key has %d bytes", len(k))
		return
	}
	seq := binary.BigEndian.Uint64(k)
	it, err := c.get(seq)
	if err != nil {
		c.r.fault("job %d: %v", seq, err)
		return
	}
	for part, b := range []body{it.payload, it.result} {
		if b.stored == 0 {
			continue
		}
		if _, err := c.body(&it, byte(part)); err != nil {
			c.r.fault("job %s: its %s: %v", it.ID, []string{"payload", "result"}[part], err)
		}
	}
	c.mem.bytes += it.StoredBytes
	if it.State.Final() && it.StoredBytes == 0 {
		c.mem.stubs++
	} else {
		c.mem.jobs++
	}
	if it.Key != "" {
		if at := c.Bucket(bucketKeys).Get(textKey(it.Key)); len(at) != 8 {
			c.r.fault("job %s: its idempotency key is in no index", it.ID)
		}
		c.want(bucketKeys, textKey(it.Key))
	}
	if it.Out > 0 {
		if _, err := c.session(it.Session); err == nil {
			c.want(bucketOutbox, outKey(it.Session, it.Out))
		}
	}
	if it.State.Final() {
		if it.State == Dead {
			c.mem.dead++
			c.r.Dead++
			c.want(bucketDead, timeKey(it.Finished, seq))
		} else {
			c.mem.finished++
			c.r.Finished++
			c.want(bucketEnds, timeKey(it.Finished, seq))
		}
		return
	}
	d := c.models[it.Model]
	d.jobs++
	d.bytes += it.payload.stored
	c.models[it.Model] = d
	if !it.Expires.IsZero() {
		c.want(bucketExpiry, timeKey(it.Expires, seq))
	}
	ready := readyKey(c.tx.mem.models[it.Model].id, it.Class, seq)
	h, isReady := c.tx.mem.held[seq], c.ready.Get(ready) != nil
	inFront := h != nil || isReady
	if it.Lane != "" {
		c.want(bucketLanes, laneKey(it.Lane, seq))
		lane := string(textKey(it.Lane))
		if inFront {
			c.fronts[lane]++
		} else {
			c.fronts[lane] += 0
		}
	} else if !inFront {
		c.r.fault("job %s is %s and neither ready nor held: nobody would run it", it.ID, it.State)
	}
	if it.State == Leased {
		c.r.Leased++
		if h == nil || h.kind != heldLease || isReady {
			c.r.fault("job %s is leased and its lease is not there", it.ID)
		}
	} else {
		c.r.Queued++
		if h != nil && (h.kind != heldDelay || isReady) {
			c.r.fault("job %s is queued and held as leased", it.ID)
		}
	}
	if isReady {
		c.want(bucketReady, ready)
	}
	if h != nil {
		c.want(bucketHeld, seqKey(seq))
	}
}

// indexes finds keys that no job calls for, and jobs' keys that are missing.
func (c *checker) indexes() {
	for _, name := range [][]byte{bucketReady, bucketLanes, bucketHeld, bucketExpiry, bucketEnds, bucketDead, bucketKeys, bucketOutbox} {
		wanted := c.expect[string(name)]
		_ = c.Bucket(name).ForEach(func(k, _ []byte) error {
			if !wanted[string(k)] {
				c.r.fault("index %s has %x, which belongs to no job", name, k)
			}
			delete(wanted, string(k))
			return nil
		})
		for k := range wanted {
			c.r.fault("index %s has not %x, which a job calls for", name, k)
		}
	}
}

// bodiesBelong finds chunks of jobs that are not there.
func (c *checker) bodiesBelong() {
	var seq uint64
	var it Item
	err := ErrNoJob
	_ = c.bodies.ForEach(func(k, _ []byte) error {
		if len(k) != bodyKeyBytes {
			c.r.fault("a chunk's key has %d bytes", len(k))
			return nil
		}
		if at := binary.BigEndian.Uint64(k); at != seq {
			seq = at
			it, err = c.get(seq)
		}
		b := it.payload
		if k[8] == partResult {
			b = it.result
		}
		if errors.Is(err, ErrNoJob) || err == nil && int64(binary.BigEndian.Uint32(k[9:]))*chunkBytes >= b.stored {
			c.r.fault("chunk %x belongs to no job", k)
		}
		return nil
	})
}

// reindex makes every index and every count anew from the jobs. Records that cannot be read are set aside.
func (x *tx) reindex() error {
	x.rebuild = false
	for _, name := range [][]byte{bucketReady, bucketLanes, bucketExpiry, bucketEnds, bucketDead, bucketKeys, bucketOutbox} {
		if err := try(x.DeleteBucket(name)); err != nil {
			return err
		}
		if _, err := x.CreateBucket(name); err != nil {
			return &fatal{err}
		}
	}
	fresh := x.q.begin(x.Tx, x.mem)
	x.ready, x.lanes, x.expiry, x.ends, x.dead = fresh.ready, fresh.lanes, fresh.expiry, fresh.ends, fresh.dead
	m := x.mem
	m.jobs, m.bytes, m.stubs, m.finished, m.dead = 0, 0, 0, 0, 0
	for _, d := range m.models {
		d.jobs, d.bytes = 0, 0
		x.touch(d)
	}
	x.totals = true

	var bad [][]byte
	fronts := make(map[string]bool) // lanes that have one: its job is held
	err := x.jobs.ForEach(func(k, _ []byte) error {
		it, err := x.get(binary.BigEndian.Uint64(k))
		if err != nil {
			bad = append(bad, append([]byte{}, k...))
		} else if it.Lane != "" && m.held[it.Seq] != nil {
			fronts[it.Lane] = true
		}
		return nil
	})
	if err != nil {
		return &fatal{err}
	}
	x.q.damaged.Add(int64(len(bad)))
	if err := try(setAside(x.Tx, x.jobs, bad)); err != nil {
		return err
	}
	err = x.jobs.ForEach(func(k, _ []byte) error {
		it, err := x.get(binary.BigEndian.Uint64(k))
		if err != nil {
			return &fatal{err}
		}
		return x.index(&it, fronts)
	})
	if err != nil {
		return err
	}
	for seq := range m.held {
		if _, err := x.get(seq); err != nil {
			m.drop(seq)
			if err := try(x.held.Delete(seqKey(seq))); err != nil {
				return err
			}
		}
	}
	return x.dropOrphans()
}

// index puts a job's keys where they belong.
func (x *tx) index(it *Item, fronts map[string]bool) error {
	x.count(it, 1)
	if it.Key != "" {
		if err := try(x.Bucket(bucketKeys).Put(textKey(it.Key), seqKey(it.Seq))); err != nil {
			return err
		}
	}
	if it.Out > 0 {
		if err := try(x.Bucket(bucketOutbox).Put(outKey(it.Session, it.Out), seqKey(it.Seq))); err != nil {
			return err
		}
	}
	if it.State == Dead {
		x.mem.dead++
		return try(x.dead.Put(timeKey(it.Finished, it.Seq), present))
	}
	if it.State.Final() {
		x.mem.finished++
		return try(x.ends.Put(timeKey(it.Finished, it.Seq), present))
	}
	d := x.depth(it.Model)
	d.jobs++
	d.bytes += it.payload.stored
	if !it.Expires.IsZero() {
		if err := try(x.expiry.Put(timeKey(it.Expires, it.Seq), present)); err != nil {
			return err
		}
	}
	if it.Lane != "" {
		if err := try(x.lanes.Put(laneKey(it.Lane, it.Seq), present)); err != nil {
			return err
		}
	}
	if x.mem.held[it.Seq] != nil || it.Lane != "" && fronts[it.Lane] {
		return nil
	}
	if it.Lane != "" {
		fronts[it.Lane] = true
	}
	x.q.ring()
	return try(x.ready.Put(readyKey(d.id, it.Class, it.Seq), present))
}

// dropOrphans removes the chunks of jobs that are not there.
func (x *tx) dropOrphans() error {
	var gone [][]byte
	seq, missing := uint64(0), true
	err := x.bodies.ForEach(func(k, _ []byte) error {
		if at := binary.BigEndian.Uint64(k); at != seq {
			seq = at
			missing = x.jobs.Get(seqKey(seq)) == nil
		}
		if missing {
			gone = append(gone, append([]byte{}, k...))
		}
		return nil
	})
	if err != nil {
		return &fatal{err}
	}
	for _, k := range gone {
		if err := try(x.bodies.Delete(k)); err != nil {
			return err
		}
	}
	return nil
}
