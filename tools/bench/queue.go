// queue.go: durable submits beside bbolt with nothing around it, what a job writes to the disk, and a queue of a million.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"

	"github.com/inferd/inferd/storage"
	"github.com/inferd/inferd/tools/measure"
)

const (
	submitters = 64
	jobBytes   = 1024
	million    = 1_000_000
)

// submitter stores one payload, and returns when it is on disk.
type submitter func(payload []byte) error

// from runs f from so many goroutines for the time, and returns calls per second.
func from(clients int, d time.Duration, f submitter) (float64, error) {
	var wg sync.WaitGroup
	var count atomic.Int64
	errs := make(chan error, clients)
	began := time.Now()
	end := began.Add(d)
	for i := range clients {
		wg.Go(func() {
			payload := noise(rand.New(rand.NewPCG(uint64(i), 1)), jobBytes)
			for time.Now().Before(end) {
				if err := f(payload); err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began).Seconds()
	select {
	case err := <-errs:
		return 0, err
	default:
		return float64(count.Load()) / took, nil
	}
}

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
}

// onFile measures what open gives, on a file of its own that is removed afterwards.
func (b *bench) onFile(clients int, open func(path string) (submitter, func() error, error)) func() (float64, error) {
	return func() (float64, error) {
		dir, err := os.MkdirTemp(b.work, "queue-")
		if err != nil {
			return 0, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		f, done, err := open(filepath.Join(dir, "queue.db"))
		if err != nil {
			return 0, err
		}
		rate, err := from(clients, b.each, f)
		if e := done(); err == nil {
			err = e
		}
		return rate, err
	}
}

// boundless is a queue that is never full.
var boundless = storage.QueueOptions{Whole: storage.Limits{Jobs: 1 << 30, Bytes: 1 << 40}}

func jobItem() storage.Item {
	return storage.Item{Model: "two_layer", Kind: 1, Class: 2, Submitted: time.Now()}
}

func appendTo(q *storage.Queue) submitter {
	return func(payload []byte) error {
		_, _, err := q.Append(context.Background(), jobItem(), payload)
		return err
	}
}

// scratch is a queue in a file of its own; done closes and removes it.
func (b *bench) scratch() (q *storage.Queue, path string, done func(), err error) {
	dir, err := os.MkdirTemp(b.work, "queue-")
	if err != nil {
		return nil, "", nil, err
	}
	path = filepath.Join(dir, "queue.db")
	if q, err = storage.OpenQueue(path, boundless); err != nil {
		_ = os.RemoveAll(dir)
		return nil, "", nil, err
	}
	return q, path, func() { _, _ = q.Close(), os.RemoveAll(dir) }, nil
}

func openQueue(path string) (submitter, func() error, error) {
	q, err := storage.OpenQueue(path, boundless)
	if err != nil {
		return nil, nil, err
	}
	return appendTo(q), q.Close, nil
}

func openBare(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return db, db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("jobs"))
		return err
	})
}

func put(tx *bbolt.Tx, payload []byte) error {
	bucket := tx.Bucket([]byte("jobs"))
	seq, err := bucket.NextSequence()
	if err != nil {
		return err
	}
	return bucket.Put(binary.BigEndian.AppendUint64(nil, seq), payload)
}

// openBareLoop is the bare loop: whatever is waiting is committed in one Update, with no timer.
func openBareLoop(path string) (submitter, func() error, error) {
	db, err := openBare(path)
	if err != nil {
		return nil, nil, err
	}
	type op struct {
		payload []byte
		done    chan error
	}
	ops := make(chan op)
	go func() {
		var batch []op
		for o := range ops {
			batch = append(batch[:0], o)
			for more := true; more; {
				select {
				case o, more = <-ops:
					if more {
						batch = append(batch, o)
					}
				default:
					more = false
				}
			}
			err := db.Update(func(tx *bbolt.Tx) error {
				for _, o := range batch {
					if err := put(tx, o.payload); err != nil {
						return err
					}
				}
				return nil
			})
			for _, o := range batch {
				o.done <- err
			}
		}
	}()
	f := func(payload []byte) error {
		o := op{payload, make(chan error, 1)}
		ops <- o
		return <-o.done
	}
	return f, func() error { close(ops); return db.Close() }, nil
}

// openBareBatch is bbolt's Batch with the delay that it has by default, 10 ms.
func openBareBatch(path string) (submitter, func() error, error) {
	db, err := openBare(path)
	if err != nil {
		return nil, nil, err
	}
	f := func(payload []byte) error { return db.Batch(func(tx *bbolt.Tx) error { return put(tx, payload) }) }
	return f, db.Close, nil
}

// openBareUpdate is an Update for each.
func openBareUpdate(path string) (submitter, func() error, error) {
	db, err := openBare(path)
	if err != nil {
		return nil, nil, err
	}
	f := func(payload []byte) error { return db.Update(func(tx *bbolt.Tx) error { return put(tx, payload) }) }
	return f, db.Close, nil
}

func (b *bench) queue() error {
	ours := b.onFile(submitters, openQueue)
	for _, c := range []struct {
		name  string
		bound float64
		open  func(string) (submitter, func() error, error)
	}{{"durable submits of 1 KB, 64 clients / a bare loop", 0.6, openBareLoop}, {"durable submits of 1 KB, 64 clients / Batch", 2, openBareBatch}} {
		r, err := measure.Pairs(c.name, "jobs/s", c.bound, b.n, ours, b.onFile(submitters, c.open))
		if err != nil {
			return err
		}
		fmt.Println(r.Report())
	}
	r, err := measure.Pairs("durable submit of 1 KB, 1 client / one Update: latency", "us", 1.5, b.n, inverse(b.onFile(1, openQueue)), inverse(b.onFile(1, openBareUpdate)))
	if err != nil {
		return err
	}
	r.Below = true
	fmt.Println(r.Report())
	for _, clients := range []int{submitters, 1} {
		if err := b.written(clients); err != nil {
			return err
		}
	}
	return nil
}

// inverse makes microseconds of a rate.
func inverse(f func() (float64, error)) func() (float64, error) {
	return func() (float64, error) {
		rate, err := f()
		return 1e6 / rate, err
	}
}

// written is how many bytes reach the disk for a job, from its submit to its acknowledged result.
func (b *bench) written(clients int) error {
	q, _, done, err := b.scratch()
	if err != nil {
		return err
	}
	defer done()
	const session = "a-session-of-the-bench"
	if err := q.NewSession(context.Background(), session, time.Now()); err != nil {
		return err
	}
	result := noise(rand.New(rand.NewPCG(7, 7)), 256)
	var acked atomic.Uint64
	before, err := diskWrites()
	if err != nil {
		return err
	}
	var jobs atomic.Int64
	_, err = from(clients, 3*b.each, func(payload []byte) error {
		ctx := context.Background()
		it := jobItem()
		it.Session = session
		if _, _, err := q.Append(ctx, it, payload); err != nil {
			return err
		}
		leases, err := q.Lease(ctx, it.Model, 1, 1<<20, time.Time{})
		if err != nil || len(leases) != 1 {
			return fmt.Errorf("%d jobs leased: %w", len(leases), err)
		}
		ended, err := q.Finish(ctx, leases[0].ID, storage.Outcome{State: storage.Done, Result: result, At: time.Now()})
		if err != nil {
			return err
		}
		jobs.Add(1)
		for up := acked.Load(); ended.Out > up; up = acked.Load() { // an acknowledgement covers all before it
			if acked.CompareAndSwap(up, ended.Out) {
				return q.Ack(ctx, session, ended.Out)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	after, err := diskWrites()
	if err != nil {
		return err
	}
	each := float64(after-before) / float64(jobs.Load()) / 1024
	line := fmt.Sprintf("%-58s %.1f KiB each, %d jobs", fmt.Sprintf("bytes written for a job of 1 KB, %d clients", clients), each, jobs.Load())
	if clients > 1 {
		line += outcome("at most 12", each <= 12)
	}
	fmt.Println(line)
	return nil
}

func outcome(bound string, holds bool) string {
	if holds {
		return fmt.Sprintf("  (%s: holds)", bound)
	}
	return fmt.Sprintf("  (%s: DOES NOT HOLD)", bound)
}

// diskWrites is what this process has had written to disks.
func diskWrites() (int64, error) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		var n int64
		if _, err := fmt.Sscanf(s.Text(), "write_bytes: %d", &n); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("/proc/self/io has no write_bytes")
}

// million fills a queue, opens it again, and submits to it beside an empty one.
func (b *bench) million() error {
	q, path, done, err := b.scratch()
	if err != nil {
		return err
	}
	defer done()
	began, shown := time.Now(), time.Now()
	var wg sync.WaitGroup
	var left atomic.Int64
	left.Store(million)
	errs := make(chan error, 1024)
	for range 1024 {
		wg.Go(func() {
			payload := noise(rand.New(rand.NewPCG(3, 3)), jobBytes)
			for left.Add(-1) >= 0 {
				if err := appendTo(q)(payload); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	filled := make(chan struct{})
	go func() { wg.Wait(); close(filled) }()
	for waiting := true; waiting; {
		select {
		case <-filled:
			waiting = false
		case err := <-errs:
			return err
		case <-time.After(time.Second):
			if time.Since(shown) > 10*time.Second {
				shown = time.Now()
				fmt.Fprintf(os.Stderr, "bench: %d of %d jobs are queued\n", million-max(left.Load(), 0), million)
			}
		}
	}
	if err := q.Close(); err != nil {
		return err
	}
	fmt.Printf("%-58s %.0f s\n", "1,000,000 jobs of 1 KB queued by 1,024 clients in", time.Since(began).Seconds())
	var opened []float64
	for range 5 {
		start := time.Now()
		if q, err = storage.OpenQueue(path, boundless); err != nil {
			return err
		}
		opened = append(opened, time.Since(start).Seconds())
		if n := q.Stats().Queued; n != million {
			return fmt.Errorf("%d jobs are queued", n)
		}
		if err := q.Close(); err != nil {
			return err
		}
	}
	fmt.Printf("%-58s %.2f s, median of %.2f%s\n", "opening it", measure.Median(opened), opened, outcome("under 2", measure.Median(opened) < 2))
	if q, err = storage.OpenQueue(path, boundless); err != nil {
		return err
	}
	defer func() { _ = q.Close() }()
	full := func() (float64, error) { return from(submitters, b.each, appendTo(q)) }
	r, err := measure.Pairs("durable submits, 1,000,000 queued / an empty queue", "jobs/s", 0.8, b.n, full, b.onFile(submitters, openQueue))
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	return nil
}
