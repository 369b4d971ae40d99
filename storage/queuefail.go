// queuefail.go: what becomes of the queue's file after a write that failed.
package storage

import (
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

// failed answers a batch of which nobody knows whether it is on disk, and sees to the file before the next one.
func (q *Queue) failed(batch []*op, settled bool, err error) {
	q.strikes++
	q.log.Error("queue file was not written: it is closed, opened again and checked", "path", q.path, "err", err, "writes", len(batch))
	again := q.reopen(settled)
	if again != nil || q.strikes > 1 {
		q.suspect = errors.Join(err, again)
		if !q.degraded.Swap(true) {
			q.log.Error("queue takes no jobs until its disk takes writes: free space, or replace the disk", "path", q.path, "err", q.suspect)
		}
	}
	for _, o := range batch {
		o.done <- fmt.Errorf("queue %s: %w: %w", q.path, ErrNotStored, err)
	}
	q.settle()
}

// reopen closes the file, opens it and checks its structure: what a failed write or fsync has left is what the next commit builds on. settled:
// no transaction is open. One bad read, or a fault of our own, is not the file's end: only what this finds has it replaced.
func (q *Queue) reopen(settled bool) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	bolt, file := q.bolt, q.file
	q.bolt, q.file, q.stale = nil, nil, false
	if bolt != nil {
		if !settled || guard(bolt.Close) != nil {
			abandon(file)
		}
	}
	err := q.open(false)
	if err == nil {
		err = q.structure()
	}
	if errors.Is(err, errDamaged) {
		abandon(q.file)
		q.bolt, q.file = nil, nil
		err = q.replace(err)
	}
	if err != nil && q.bolt == nil {
		err = errors.Join(err, q.openStale())
	}
	return err
}

// openStale opens the file to be read only, where the disk does not take the writes that opening it begins with. Its caller holds mu.
func (q *Queue) openStale() error {
	bolt, file, err := openBolt(q.path, bbolt.Options{Timeout: q.opts.Timeout, ReadOnly: true})
	if err != nil {
		return err
	}
	var mem memory
	var id int
	err = guard(func() error {
		return bolt.View(func(t *bbolt.Tx) error {
			id = t.ID()
			if err := prepareQueue(t, q.path, &QueueOptions{ReadOnly: true}); err != nil {
				return err
			}
			return mem.read(q.begin(t, &mem))
		})
	})
	if err != nil {
		abandon(file)
		return err
	}
	q.bolt, q.file, q.stale = bolt, file, true
	q.flight.set(id)
	q.memMu.Lock()
	q.mem = mem
	q.memMu.Unlock()
	return nil
}

// heal tries to write to a degraded queue's file.
func (q *Queue) heal() bool {
	if time.Since(q.probed) < probeEvery {
		return false
	}
	q.probed = time.Now()
	q.mu.RLock()
	have := q.bolt != nil && !q.stale
	q.mu.RUnlock()
	err := q.suspect
	if !have {
		err = q.reopen(true)
	}
	if have || err == nil {
		var settled bool
		settled, err = q.transact(func(t *bbolt.Tx) error { return t.Bucket(bucketMeta).Put([]byte("probe"), make([]byte, 4096)) })
		if err != nil {
			err = errors.Join(err, q.reopen(settled))
		}
	}
	if err != nil {
		q.suspect = err
		return false
	}
	q.degraded.Store(false)
	q.strikes = 0
	q.log.Info("queue takes jobs again", "path", q.path)
	return true
}

// structure has bbolt look at every page. Nothing may be written meanwhile: bbolt holds the pages against the free list of now.
func (q *Queue) structure() error {
	if q.bolt == nil {
		return fmt.Errorf("queue %s: %w", q.path, ErrDegraded)
	}
	if err := inspectFile(q.file); err != nil {
		return err
	}
	return guard(func() error { return q.bolt.View(check) })
}

// check is bbolt's own.
func check(t *bbolt.Tx) error {
	var first error
	for err := range t.Check() { // to its end: the goroutine behind it sends everything
		if first == nil {
			first = fmt.Errorf("%w: %w", errDamaged, err)
		}
	}
	return first
}
