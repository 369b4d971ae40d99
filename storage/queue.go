// queue.go: the queue's file, its one writer, and commits that many share.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// Errors that callers branch on.
var (
	// ErrFull: a bound of the queue is reached, and nothing may make room. A *FullError says which.
	ErrFull = errors.New("the queue is full")
	// ErrConflict: the idempotency key stands for another request.
	ErrConflict = errors.New("the key was used for another request")
	// ErrDegraded: the disk refused twice in a row; nothing new is taken until a write succeeds.
	ErrDegraded = errors.New("the queue's disk does not take what is written")
	// ErrNotStored: the transaction failed. It is not known to be on disk, and not known not to be.
	ErrNotStored = errors.New("it was not stored")
	// ErrTooLarge: the payload or a text is over its limit.
	ErrTooLarge = errors.New("it is too large")
	// ErrState: the job is not in a state that allows this.
	ErrState = errors.New("the job's state does not allow it")
	// ErrNoSession: there is no session with that id, or not any more.
	ErrNoSession = errors.New("no such session")
	// ErrNotSent: an acknowledgement of what was never in the outbox.
	ErrNotSent = errors.New("it was never sent")
	// ErrReadOnly: the file was opened to be read.
	ErrReadOnly = errors.New("the queue was opened to be read")
)

// WhenFull says what a full queue does with a new job.
type WhenFull int

// The choices.
const (
	Refuse WhenFull = iota // ErrFull
	Evict                  // the oldest job of the lowest priority, no more urgent than the new one, ends as expired
)

// Limits bound what is stored. Zero means none.
type Limits struct {
	Jobs  int   // that wait or run
	Bytes int64 // of their payloads, as stored
}

// QueueOptions of OpenQueue. Zero means default.
type QueueOptions struct {
	Timeout time.Duration // for another process to let go of the file; 1 s
	Log     *slog.Logger  // nil discards
	// Jobs and bytes of the whole file: what waits and runs, what is finished and not forgotten, dead letters. 1,000,000 and 1 GiB.
	Whole Limits
	// Model has the limits of what waits and runs of one model, asked at every Append. Nil: none.
	Model      func(model string) Limits
	WhenFull   WhenFull
	MaxPayload int64 // 64 MiB
	// BootID names this start of the machine; with another one, or without, a delay begins anew. Empty: the kernel's.
	BootID string
	// ReadOnly opens the file as it lies, without its lock's writer: Get, List, Check and the like.
	ReadOnly bool
	// Version is this inferd's, for who opens the file with an older one.
	Version string
	// Observe is told of each commit, on the writer: it must not block.
	Observe func(Commit)
	// Step is called at named points, for tests that end the process there.
	Step func(point string)
}

// Commit is one transaction.
type Commit struct {
	Writes int // callers that shared it
	Took   time.Duration
	Synced time.Duration // of Took: writing the pages and making them durable
	Err    error
}

// Queue is the open file. Its methods may be called from any goroutine.
type Queue struct {
	// immutable after OpenQueue
	path string
	opts QueueOptions
	log  *slog.Logger
	pack *packer
	boot uint64 // of the start of the machine

	ops     chan *op
	tasks   chan func() // what the writer does outside of transactions
	closing chan struct{}
	ended   chan struct{}
	close   sync.Once
	wake    chan struct{}

	// mu is held to read for the length of every reader's transaction, and to write where the file is replaced.
	mu    sync.RWMutex
	bolt  *bbolt.DB // nil after Close, and where no file can be had
	file  *os.File
	moved string // where a damaged file lies
	stale bool   // bolt is open to be read only, until the disk takes writes

	busy     atomic.Bool  // the writer is at the file, and not waiting to be asked
	since    atomic.Int64 // when its transaction began, by Uptime; 0: it is in none
	degraded atomic.Bool
	damaged  atomic.Int64 // records that were set aside since OpenQueue
	commits  atomic.Int64
	writes   atomic.Int64

	watching watchers
	flight   flight

	// mem mirrors the file for the writer, who alone changes it; memMu lets others read the counts.
	memMu sync.Mutex
	mem   memory

	// owned by the writer
	strikes int       // failed commits since the last good one
	last    int       // writes of the last commit
	owned   owns      // leases that are known to be on disk
	leases  uint64    // how many there were
	suspect error     // why it is degraded
	probed  time.Time // when a degraded queue last tried its disk
}

// owns has the number of each lease by its job's.
type owns map[uint64]uint64

// op is one caller's part of a transaction. do finds out everything that can be wrong before it changes anything; what it returns is the
// caller's error, and the others' parts stand. A *fatal error undoes the transaction.
type op struct {
	do    func(tx *tx) error
	after func() // on the writer, once it is on disk
	bytes int64
	done  chan error // cap 1
	err   error
}

// fatal is an error of the file, not of one caller.
type fatal struct{ err error }

func (f *fatal) Error() string { return f.err.Error() }
func (f *fatal) Unwrap() error { return f.err }

// Bounds of one transaction.
const (
	maxCommitWrites = 1024
	maxCommitBytes  = 8 << 20
	probeEvery      = 5 * time.Second // how often a degraded queue tries its disk
)

// OpenQueue opens the file at path, or makes it and its directory. Jobs that were leased when the last process ended are queued again. A
// damaged file is moved aside and a new one begun; Damaged says so.
func OpenQueue(path string, o QueueOptions) (*Queue, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Whole.Jobs <= 0 {
		o.Whole.Jobs = 1_000_000
	}
	if o.Whole.Bytes <= 0 {
		o.Whole.Bytes = 1 << 30
	}
	if o.MaxPayload <= 0 {
		o.MaxPayload = 64 << 20
	}
	if o.BootID == "" {
		o.BootID = BootID()
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	pack, err := newPacker(o.MaxPayload)
	if err != nil {
		return nil, err
	}
	q := &Queue{path: path, opts: o, log: o.Log.With("component", "storage"), pack: pack, boot: bootNumber(o.BootID), ops: make(chan *op), tasks: make(chan func()), closing: make(chan struct{}),
		ended: make(chan struct{}), wake: make(chan struct{}, 1), owned: make(owns)}
	if !o.ReadOnly {
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			return nil, fmt.Errorf("queue %s: %w", path, err)
		}
	}
	q.mu.Lock()
	err = q.open(true)
	if errors.Is(err, errDamaged) && !o.ReadOnly {
		err = q.replace(err)
	}
	q.mu.Unlock()
	if err != nil {
		pack.close()
		return nil, fmt.Errorf("queue %s: %w", path, err)
	}
	if o.ReadOnly {
		close(q.ended)
		return q, nil
	}
	go q.write()
	return q, nil
}

// Close ends the writer once what it was given is on disk, and lets go of the file. It is idempotent; later calls of other methods give
// ErrClosed.
func (q *Queue) Close() error {
	var err error
	q.close.Do(func() {
		close(q.closing)
		<-q.ended
		q.mu.Lock()
		defer q.mu.Unlock()
		if bolt := q.bolt; bolt != nil {
			q.bolt = nil
			err = guard(bolt.Close)
		}
		q.pack.close()
		q.watching.all()
	})
	return err
}

// open opens what lies at the path and reads its counts. first: no lease in it is anybody's. On an error nothing is held. Its caller holds
// mu: who wants to read waits, for a file that is not open for a moment is no fault of the disk's.
func (q *Queue) open(first bool) error {
	if q.opts.ReadOnly {
		if _, err := os.Stat(q.path); err != nil {
			return err
		}
	}
	bolt, file, err := openBolt(q.path, bbolt.Options{Timeout: q.opts.Timeout, ReadOnly: q.opts.ReadOnly, NoFreelistSync: true, InitialMmapSize: 64 << 20})
	if err != nil {
		return err
	}
	var mem memory
	var id int
	var gone bool
	prepare := func(t *bbolt.Tx) error {
		id = t.ID()
		if err := prepareQueue(t, q.path, &q.opts); err != nil {
			return err
		}
		tx := q.begin(t, &mem)
		if err := mem.read(tx); err != nil {
			return err
		}
		if q.opts.ReadOnly {
			return nil
		}
		if first {
			if gone, err = opened(t, time.Now()); err != nil {
				return &fatal{err}
			}
		}
		return q.recover(tx, first)
	}
	if q.opts.ReadOnly {
		err = guard(func() error { return bolt.View(prepare) })
	} else if err = copyBefore(bolt, file, q.path, uint64(len(queueMigrations)), q.opts.Step); err == nil {
		_, err = update(bolt, prepare)
	}
	if err != nil {
		abandon(file)
		return err
	}
	if gone {
		q.log.Info("file of an older schema is removed: the new one has proven itself", "path", dropCopies(q.path))
	}
	q.bolt, q.file = bolt, file
	q.flight.set(id)
	q.memMu.Lock()
	q.mem = mem
	q.memMu.Unlock()
	return nil
}

// transact is update on the writer, which readers can wait for.
func (q *Queue) transact(f func(t *bbolt.Tx) error) (settled bool, err error) {
	var id int
	q.flight.begin()
	settled, err = update(q.bolt, func(t *bbolt.Tx) error {
		id = t.ID()
		return f(t)
	})
	q.flight.end(id, err == nil)
	return settled, err
}

// replace moves the damaged file aside and begins a new one. Its caller holds mu.
func (q *Queue) replace(why error) error {
	aside := q.path + ".damaged"
	for i := 2; ; i++ { // an earlier one may hold jobs that somebody wants to look for
		if _, err := os.Lstat(aside); errors.Is(err, os.ErrNotExist) || i > 9 {
			break
		}
		aside = fmt.Sprintf("%s.damaged-%d", q.path, i)
	}
	if err := os.Rename(q.path, aside); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w, and it cannot be moved aside: %w", why, err)
	}
	clear(q.owned)
	if err := q.open(true); err != nil {
		return err
	}
	q.moved = aside
	q.log.Error("queue file was damaged: it was moved aside with the jobs in it, and a new one begun", "path", q.path, "to", aside, "err", why)
	q.watching.all()
	return nil
}

// Damaged is where a damaged file was moved to since OpenQueue, empty when none was.
func (q *Queue) Damaged() string {
	q.mu.RLock()
	defer q.mu.RUnlock()
	return q.moved
}

// Degraded reports that the disk refused what was written, twice, and that nothing new is taken.
func (q *Queue) Degraded() bool { return q.degraded.Load() }

// Wake has a signal when jobs may have become ready to be leased.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

func (q *Queue) ring() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// update has the writer do f in a transaction with what others want, and returns once it is on disk.
func (q *Queue) update(ctx context.Context, bytes int64, f func(tx *tx) error, after func()) error {
	if q.opts.ReadOnly {
		return fmt.Errorf("queue %s: %w", q.path, ErrReadOnly)
	}
	if d := q.Stalled(); d > stalledAfter {
		return fmt.Errorf("queue %s: %w: it has not answered for %s", q.path, ErrDegraded, d.Round(time.Second))
	}
	o := &op{do: f, after: after, bytes: bytes, done: make(chan error, 1)}
	select {
	case q.ops <- o:
	case <-q.ended:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	return <-o.done // a transaction that has begun ends
}

// alone has the writer do f between transactions.
func (q *Queue) alone(ctx context.Context, f func()) error {
	done := make(chan struct{})
	select {
	case q.tasks <- func() { f(); close(done) }:
	case <-q.ended:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	<-done
	return nil
}

// write owns every transaction that writes.
func (q *Queue) write() {
	defer close(q.ended)
	var (
		batch []*op
		due   = time.NewTimer(time.Hour)
		held  *op // the one that did not fit
	)
	defer due.Stop()
	for {
		batch = batch[:0]
		if held != nil {
			batch = append(batch, held)
		} else {
			due.Reset(q.untilDue())
			select {
			case o := <-q.ops:
				batch = append(batch, o)
			case <-due.C:
			case task := <-q.tasks:
				q.busy.Store(true)
				task()
				q.busy.Store(false)
				continue
			case <-q.closing:
				q.finishUp()
				return
			}
		}
		batch, held = q.collect(batch)
		q.busy.Store(true)
		q.since.Store(int64(Uptime()))
		q.commit(batch)
		q.since.Store(0)
		q.busy.Store(false)
	}
}

// collect takes everybody who waits. Those whom the last commit has just answered come back in a moment: the processor is left to them
// first, for what they bring shares this commit's fsync.
func (q *Queue) collect(batch []*op) ([]*op, *op) {
	var bytes int64
	for _, o := range batch {
		bytes += o.bytes
	}
	for yields := 0; len(batch) < maxCommitWrites; {
		select {
		case o := <-q.ops:
			if bytes += o.bytes; bytes > maxCommitBytes && len(batch) > 0 {
				return batch, o
			}
			batch = append(batch, o)
			continue
		default:
		}
		if len(batch) == 0 || len(batch) >= q.last || yields >= 8 {
			break
		}
		yields++
		runtime.Gosched()
	}
	return batch, nil
}

// finishUp commits what was handed over before Close.
func (q *Queue) finishUp() {
	for {
		select {
		case o := <-q.ops:
			q.commit([]*op{o})
		default:
			return
		}
	}
}

// commit runs the batch, with the delays that are over, in one transaction, and answers.
func (q *Queue) commit(batch []*op) {
	if q.degraded.Load() && !q.heal() {
		for _, o := range batch {
			o.done <- fmt.Errorf("queue %s: %w", q.path, ErrDegraded)
		}
		return
	}
	start := time.Now()
	var stats bbolt.TxStats
	settled, err := q.transact(func(t *bbolt.Tx) error {
		tx := q.begin(t, &q.mem)
		q.memMu.Lock()
		defer q.memMu.Unlock()
		if err := tx.due(); err != nil {
			return err
		}
		for _, o := range batch {
			o.err = o.do(tx)
			var f *fatal
			if errors.As(o.err, &f) {
				return o.err
			}
		}
		if err := tx.flush(); err != nil {
			return err
		}
		q.opts.Step("commit")
		t.OnCommit(func() { stats = t.Stats() })
		return nil
	})
	q.opts.Step("committed")
	if q.opts.Observe != nil {
		q.opts.Observe(Commit{Writes: len(batch), Took: time.Since(start), Synced: stats.GetWriteTime(), Err: err})
	}
	if err != nil {
		q.failed(batch, settled, err)
		return
	}
	q.strikes, q.last = 0, len(batch)
	q.commits.Add(1)
	q.writes.Add(int64(len(batch)))
	for _, o := range batch {
		if o.err == nil && o.after != nil {
			o.after()
		}
		o.done <- o.err
	}
	q.settle()
}

// view runs f in a transaction that reads. What cannot be read is looked at by the writer, who may have to begin a new file.
func (q *Queue) view(f func(tx *tx) error) error {
	err := q.read(f)
	if !errors.Is(err, errDamaged) || q.opts.ReadOnly {
		return err
	}
	q.log.Error("queue file could not be read", "path", q.path, "err", err)
	look := q.alone(context.Background(), func() {
		if damage := q.structure(); damage != nil {
			if again := q.reopen(true); again != nil {
				q.suspect = again
				q.degraded.Store(true)
			}
			q.settle()
		}
	})
	return errors.Join(err, look)
}

// errAgain: the transaction that was read is not on disk, and will not be.
var errAgain = errors.New("what was read was taken back")

func (q *Queue) read(f func(tx *tx) error) error {
	for {
		if err := q.readOnce(f); !errors.Is(err, errAgain) {
			return err
		}
		runtime.Gosched() // the writer is about to take the file away
	}
}

func (q *Queue) readOnce(f func(tx *tx) error) error {
	q.mu.RLock()
	defer q.mu.RUnlock()
	if q.bolt == nil {
		select {
		case <-q.closing:
			return ErrClosed
		default:
			return fmt.Errorf("queue %s: %w", q.path, ErrDegraded)
		}
	}
	bolt := q.bolt
	return guard(func() error {
		return bolt.View(func(t *bbolt.Tx) error {
			if !q.flight.landed(t.ID()) {
				return errAgain
			}
			return f(q.begin(t, nil))
		})
	})
}
