// queuetx.go: the queue's buckets, and what one transaction may do to a job.
package storage

import (
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// The queue's buckets. Keys are big-endian, so that order is order of arrival or of time.
var (
	bucketJobs     = []byte("jobs")     // seq -> item
	bucketBodies   = []byte("bodies")   // seq, part, chunk -> bytes
	bucketReady    = []byte("ready")    // model, class, seq -> nothing: what may be leased
	bucketLanes    = []byte("lanes")    // lane's hash, seq -> nothing: the lane's unfinished jobs; the rest of it waits for one
	bucketHeld     = []byte("held")     // seq -> lease or delay
	bucketExpiry   = []byte("expiry")   // time, seq -> nothing: unfinished jobs that end by themselves
	bucketEnds     = []byte("ends")     // time, seq -> nothing: finished jobs, to be forgotten
	bucketDead     = []byte("dead")     // time, seq -> nothing: dead letters
	bucketKeys     = []byte("keys")     // hash of the idempotency key -> seq
	bucketOutbox   = []byte("outbox")   // session, number -> seq
	bucketSessions = []byte("sessions") // session -> created, seen, last number
	bucketModels   = []byte("models")   // name -> number, jobs, bytes
	keyTotals      = []byte("totals")   // in meta

	queueBuckets = [][]byte{bucketJobs, bucketBodies, bucketReady, bucketLanes, bucketHeld, bucketExpiry, bucketEnds, bucketDead, bucketKeys,
		bucketOutbox, bucketSessions, bucketModels, bucketDamaged}
)

// queueMigrations bring a queue's file from schema i to i+1.
var queueMigrations = []func(tx *bbolt.Tx) error{
	func(tx *bbolt.Tx) error {
		for _, name := range queueBuckets {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	},
}

// prepareQueue migrates, and sees that every bucket is there.
func prepareQueue(t *bbolt.Tx, path string, o *QueueOptions) error {
	newest := uint64(len(queueMigrations))
	if !o.ReadOnly {
		if err := migrate(t, path, queueMigrations, o.Version, o.Step); err != nil {
			return err
		}
	} else if err := newer(t, path, newest); err != nil {
		return err
	} else if at, _ := schemaOf(t); at < newest {
		return fmt.Errorf("%w: its schema is %d, and reading it takes %d; an inferd that starts on it migrates it", errDamaged, at, newest)
	}
	for _, name := range append(queueBuckets, bucketMeta) {
		if t.Bucket(name) == nil {
			return fmt.Errorf("%w: bucket %s is missing", errDamaged, name)
		}
	}
	return nil
}

// tx is one transaction over the queue's file. mem is nil in one that reads.
type tx struct {
	*bbolt.Tx
	q   *Queue
	mem *memory

	jobs, bodies, ready, lanes, held, expiry, ends, dead *bbolt.Bucket

	dirty   map[*depth]struct{}
	totals  bool
	rebuild bool // an index names what is not there: all are made anew before the end
}

func (q *Queue) begin(t *bbolt.Tx, mem *memory) *tx {
	x := &tx{Tx: t, q: q, mem: mem, jobs: t.Bucket(bucketJobs), bodies: t.Bucket(bucketBodies), ready: t.Bucket(bucketReady),
		lanes: t.Bucket(bucketLanes), held: t.Bucket(bucketHeld), expiry: t.Bucket(bucketExpiry), ends: t.Bucket(bucketEnds), dead: t.Bucket(bucketDead)}
	if mem != nil {
		// What comes in order of arrival fills its pages; nothing is put between it later.
		x.bodies.FillPercent, x.ready.FillPercent, x.expiry.FillPercent, x.ends.FillPercent = 1, 1, 1, 1
		x.jobs.FillPercent = 0.9 // an item grows a little when it is leased and when it ends
	}
	return x
}

// present is the value of keys that say everything. Within the transaction that puts it, bbolt's Get takes nil for a key that is not there.
var present = []byte{}

func seqKey(seq uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 0, 8), seq) }

func timeKey(at time.Time, seq uint64) []byte {
	// The sign is turned so that times before 1970 come first.
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(make([]byte, 0, 16), uint64(stamp(at))^(1<<63)), seq)
}

func keyTime(k []byte) time.Time { return fromStamp(int64(binary.BigEndian.Uint64(k) ^ (1 << 63))) }

func readyKey(model uint32, class uint8, seq uint64) []byte {
	k := binary.BigEndian.AppendUint32(make([]byte, 0, 13), model)
	return binary.BigEndian.AppendUint64(append(k, class), seq)
}

// textKey is a short stand-in for a text of any length.
func textKey(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:16]
}

func laneKey(lane string, seq uint64) []byte {
	return binary.BigEndian.AppendUint64(textKey(lane), seq)
}

// try passes errors of the file on as fatal ones.
func try(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return &fatal{err}
		}
	}
	return nil
}

// get is the job with the sequence. A damaged record is [errRecord].
func (x *tx) get(seq uint64) (Item, error) {
	key := seqKey(seq)
	b := x.jobs.Get(key)
	if b == nil {
		return Item{}, ErrNoJob
	}
	value, err := unsealed(key, b)
	if err != nil {
		return Item{}, err
	}
	it, model, err := parseItem(value, seq)
	if err != nil {
		return Item{}, err
	}
	if it.Model, err = x.modelName(model); err != nil {
		return Item{}, err
	}
	return it, nil
}

// find is the job with the id.
func (x *tx) find(id string) (Item, error) {
	seq, random, err := parseID(id)
	if err != nil {
		return Item{}, err
	}
	it, err := x.get(seq)
	if err == nil && it.random != random {
		return Item{}, ErrNoJob
	}
	if errors.Is(err, errRecord) && x.mem != nil {
		if err := x.setAside(seq); err != nil {
			return Item{}, err
		}
		return Item{}, fmt.Errorf("%w: its record was damaged and has been set aside", ErrNoJob)
	}
	return it, err
}

func (x *tx) put(it *Item) error {
	it.sizes()
	key := seqKey(it.Seq)
	if x.mem.newest.Before(it.Finished) {
		x.mem.newest, x.totals = it.Finished, true
	}
	if x.mem.newest.Before(it.Submitted) {
		x.mem.newest, x.totals = it.Submitted, true
	}
	return try(x.jobs.Put(key, seal(key, appendItem(make([]byte, 0, 256), it, x.depth(it.Model).id))))
}

// depth is the model's account, begun where it has none. Only for models that were given a number by number.
func (x *tx) depth(model string) *depth {
	d := x.mem.models[model]
	x.touch(d)
	return d
}

func (x *tx) touch(d *depth) {
	if x.dirty == nil {
		x.dirty = make(map[*depth]struct{})
	}
	x.dirty[d] = struct{}{}
}

// maxModels bounds the names that a file remembers.
const maxModels = 10_000

func (x *tx) number(model string) error {
	if x.mem.models[model] != nil {
		return nil
	}
	if len(x.mem.models) >= maxModels {
		return fmt.Errorf("%w: jobs of %d models are known, and no more are remembered", ErrFull, maxModels)
	}
	n, err := x.Bucket(bucketModels).NextSequence()
	if err != nil {
		return &fatal{err}
	}
	d := &depth{name: model, id: uint32(n)}
	x.mem.models[model], x.mem.numbers[d.id] = d, d
	x.touch(d)
	return nil
}

func (x *tx) modelName(id uint32) (string, error) {
	if x.mem != nil {
		if d := x.mem.numbers[id]; d != nil {
			return d.name, nil
		}
		return "", errRecord
	}
	x.q.memMu.Lock()
	defer x.q.memMu.Unlock()
	if d := x.q.mem.numbers[id]; d != nil {
		return d.name, nil
	}
	return "", errRecord
}

// flush writes the accounts that have changed.
func (x *tx) flush() error {
	if x.rebuild {
		if err := x.reindex(); err != nil {
			return err
		}
	}
	models := x.Bucket(bucketModels)
	for d := range x.dirty {
		key := []byte(d.name)
		b := binary.BigEndian.AppendUint32(nil, d.id)
		b = binary.BigEndian.AppendUint64(b, uint64(d.jobs))
		if err := try(models.Put(key, seal(key, binary.BigEndian.AppendUint64(b, uint64(d.bytes))))); err != nil {
			return err
		}
	}
	if len(x.dirty) == 0 && !x.totals {
		return nil
	}
	b := binary.AppendVarint(nil, int64(x.mem.jobs))
	for _, n := range []int64{x.mem.bytes, int64(x.mem.stubs), int64(x.mem.finished), int64(x.mem.dead), stamp(x.mem.newest)} {
		b = binary.AppendVarint(b, n)
	}
	return try(x.Bucket(bucketMeta).Put(keyTotals, seal(keyTotals, b)))
}

// enqueue makes a queued job ready, or has it wait for its lane.
func (x *tx) enqueue(it *Item) error {
	if it.Lane != "" {
		prefix := textKey(it.Lane)
		k, _ := x.lanes.Cursor().Seek(prefix)
		busy := len(k) == 24 && string(k[:16]) == string(prefix)
		if err := try(x.lanes.Put(laneKey(it.Lane, it.Seq), present)); err != nil || busy {
			return err
		}
	}
	x.q.ring()
	return try(x.ready.Put(readyKey(x.depth(it.Model).id, it.Class, it.Seq), present))
}

// leaveLane takes an ended job out of its lane. inFront: it was the one that the others wait for, and the next becomes ready.
func (x *tx) leaveLane(it *Item, inFront bool) error {
	if it.Lane == "" {
		return nil
	}
	if err := try(x.lanes.Delete(laneKey(it.Lane, it.Seq))); err != nil || !inFront {
		return err
	}
	prefix := textKey(it.Lane)
	for c := x.lanes.Cursor(); ; {
		k, _ := c.Seek(prefix)
		if len(k) != 24 || string(k[:16]) != string(prefix) {
			return nil
		}
		seq := binary.BigEndian.Uint64(k[16:])
		next, err := x.get(seq)
		switch {
		case errors.Is(err, errRecord):
			if err := x.setAside(seq); err != nil {
				return err
			}
		case err != nil:
			return &fatal{fmt.Errorf("%w: lane has job %d: %w", errDamaged, seq, err)}
		default:
			x.q.ring()
			return try(x.ready.Put(readyKey(x.depth(next.Model).id, next.Class, seq), present))
		}
		if err := try(x.lanes.Delete(laneKey(it.Lane, seq))); err != nil {
			return err
		}
	}
}

// end gives a live job its final state. The item's texts are the caller's; keep leaves its payload.
func (x *tx) end(it *Item, state JobState, at time.Time, keep bool) error {
	key := readyKey(x.depth(it.Model).id, it.Class, it.Seq)
	inFront := it.State == Leased || x.ready.Get(key) != nil || x.mem.held[it.Seq] != nil
	if err := try(x.ready.Delete(key), x.held.Delete(seqKey(it.Seq))); err != nil {
		return err
	}
	x.mem.drop(it.Seq)
	if !it.Expires.IsZero() {
		if err := try(x.expiry.Delete(timeKey(it.Expires, it.Seq))); err != nil {
			return err
		}
	}
	d := x.depth(it.Model)
	d.jobs--
	d.bytes -= it.payload.stored
	if !keep {
		if err := try(deleteBody(x.bodies, it.Seq, partPayload, it.payload)); err != nil {
			return err
		}
		x.mem.bytes -= it.payload.stored
		it.payload.stored = 0
	}
	it.State, it.Finished = state, at
	if it.payload.stored == 0 && it.result.stored == 0 {
		x.mem.jobs--
		x.mem.stubs++
	}
	to := x.ends
	if state == Dead {
		to = x.dead
		x.mem.dead++
	} else {
		x.mem.finished++
	}
	x.totals = true
	if err := try(to.Put(timeKey(at, it.Seq), present)); err != nil {
		return err
	}
	if it.Session != "" {
		if err := x.send(it); err != nil {
			return err
		}
	}
	if err := x.leaveLane(it, inFront); err != nil {
		return err
	}
	return x.put(it)
}

// forget removes a final job.
func (x *tx) forget(it *Item) error {
	errs := []error{x.jobs.Delete(seqKey(it.Seq)), deleteBody(x.bodies, it.Seq, partPayload, it.payload), deleteBody(x.bodies, it.Seq, partResult, it.result)}
	if it.payload.stored == 0 && it.result.stored == 0 {
		x.mem.stubs--
	} else {
		x.mem.jobs--
	}
	x.mem.bytes -= it.payload.stored + it.result.stored
	x.totals = true
	if it.State == Dead {
		errs = append(errs, x.dead.Delete(timeKey(it.Finished, it.Seq)))
		x.mem.dead--
	} else {
		errs = append(errs, x.ends.Delete(timeKey(it.Finished, it.Seq)))
		x.mem.finished--
	}
	if it.Key != "" {
		keys, key := x.Bucket(bucketKeys), textKey(it.Key)
		if at := keys.Get(key); len(at) == 8 && binary.BigEndian.Uint64(at) == it.Seq {
			errs = append(errs, keys.Delete(key))
		}
	}
	if it.Session != "" && it.Out > 0 {
		errs = append(errs, x.Bucket(bucketOutbox).Delete(outKey(it.Session, it.Out)))
	}
	return try(errs...)
}

// hold keeps a job from being leased: by a lease, or for a delay.
func (x *tx) hold(seq uint64, h *held) error {
	key := seqKey(seq)
	b := []byte{h.kind}
	b = binary.BigEndian.AppendUint64(b, h.boot)
	b = binary.BigEndian.AppendUint64(b, uint64(h.due))
	b = binary.BigEndian.AppendUint64(b, uint64(h.delay))
	x.mem.keep(seq, h)
	return try(x.held.Put(key, seal(key, b)))
}

// due makes the jobs ready whose delay is over.
func (x *tx) due() error {
	for now := Uptime(); len(x.mem.delays) > 0 && x.mem.delays[0].due <= now; {
		seq := x.mem.delays[0].seq
		it, err := x.get(seq)
		if errors.Is(err, errRecord) {
			if err := x.setAside(seq); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return &fatal{fmt.Errorf("%w: delay of job %d: %w", errDamaged, seq, err)}
		}
		x.mem.drop(seq)
		if err := try(x.held.Delete(seqKey(seq)), x.ready.Put(readyKey(x.depth(it.Model).id, it.Class, seq), present)); err != nil {
			return err
		}
		x.q.ring()
	}
	return nil
}

// memory mirrors the file's counts and what is held.
type memory struct {
	models  map[string]*depth
	numbers map[uint32]*depth

	jobs     int   // with a payload or a result in the file
	bytes    int64 // of payloads and results as stored
	stubs    int   // final jobs without either
	finished int   // final jobs but for dead letters
	dead     int
	newest   time.Time // the latest time in the file

	held   map[uint64]*held
	delays delayHeap
}

// depth is a model's account: what waits and runs.
type depth struct {
	name  string
	id    uint32
	jobs  int
	bytes int64

	leased, delayed int // of jobs; counted from what is held
}

const (
	heldLease = 1
	heldDelay = 2
)

// held is why a live job is not ready.
type held struct {
	seq   uint64
	kind  byte
	boot  uint64 // of the machine's start in which due was told
	due   time.Duration
	delay time.Duration
	depth *depth
	index int // in the heap
}

func (m *memory) keep(seq uint64, h *held) {
	m.drop(seq)
	h.seq = seq
	m.held[seq] = h
	if h.kind == heldDelay {
		h.depth.delayed++
		heap.Push(&m.delays, h)
	} else {
		h.depth.leased++
	}
}

func (m *memory) drop(seq uint64) {
	h := m.held[seq]
	if h == nil {
		return
	}
	delete(m.held, seq)
	if h.kind == heldDelay {
		h.depth.delayed--
		heap.Remove(&m.delays, h.index)
	} else {
		h.depth.leased--
	}
}

// read fills m from the file.
func (m *memory) read(x *tx) error {
	*m = memory{models: make(map[string]*depth), numbers: make(map[uint32]*depth), held: make(map[uint64]*held)}
	err := x.Bucket(bucketModels).ForEach(func(k, v []byte) error {
		b, err := unsealed(k, v)
		if err != nil || len(b) != 20 {
			return fmt.Errorf("%w: account of model %q", errDamaged, k)
		}
		d := &depth{name: string(k), id: binary.BigEndian.Uint32(b), jobs: int(binary.BigEndian.Uint64(b[4:])), bytes: int64(binary.BigEndian.Uint64(b[12:]))}
		m.models[d.name], m.numbers[d.id] = d, d
		return nil
	})
	if err != nil {
		return err
	}
	if v := x.Bucket(bucketMeta).Get(keyTotals); v != nil {
		b, err := unsealed(keyTotals, v)
		if err != nil {
			return fmt.Errorf("%w: totals", errDamaged)
		}
		r := itemReader{b: b}
		m.jobs, m.bytes, m.stubs, m.finished, m.dead, m.newest = int(r.int()), r.int(), int(r.int()), int(r.int()), int(r.int()), fromStamp(r.int())
		if r.bad {
			return fmt.Errorf("%w: totals", errDamaged)
		}
	}
	return x.held.ForEach(func(k, v []byte) error {
		b, err := unsealed(k, v)
		if err != nil || len(k) != 8 || len(b) != 25 {
			return fmt.Errorf("%w: lease of %x", errDamaged, k)
		}
		seq := binary.BigEndian.Uint64(k)
		h := &held{kind: b[0], boot: binary.BigEndian.Uint64(b[1:]), due: time.Duration(binary.BigEndian.Uint64(b[9:])), delay: time.Duration(binary.BigEndian.Uint64(b[17:]))}
		x.mem = m
		it, err := x.get(seq)
		if err != nil {
			return fmt.Errorf("%w: lease of job %d: %w", errDamaged, seq, err)
		}
		h.depth = m.models[it.Model]
		m.keep(seq, h)
		return nil
	})
}

// delayHeap has the delays, the first to end on top.
type delayHeap []*held

func (d delayHeap) Len() int           { return len(d) }
func (d delayHeap) Less(i, j int) bool { return d[i].due < d[j].due }
func (d delayHeap) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}
func (d *delayHeap) Push(x any) {
	h := x.(*held)
	h.index = len(*d)
	*d = append(*d, h)
}
func (d *delayHeap) Pop() any {
	old := *d
	h := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	return h
}
