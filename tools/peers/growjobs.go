// growjobs.go: a job's way through the durable queue, however many wait.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/storage"
)

// jobClients append and run jobs at once.
const jobClients = 64

func jobItem() storage.Item {
	return storage.Item{Model: "m", Kind: 1, Class: 2, Submitted: time.Now()}
}

// each calls f from jobClients goroutines n times in all.
func each(n int, f func() error) error {
	var left atomic.Int64
	left.Store(int64(n))
	errs := make(chan error, jobClients)
	var wg sync.WaitGroup
	for range jobClients {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := f(); err != nil {
					errs <- err
					return
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	return <-errs
}

func (b *bench) growJobs() error {
	depths := []int{1, 10, 100, 1000, 10_000, 100_000, 1_000_000}
	if b.quick {
		depths = depths[:6]
	}
	if len(b.unknown("run through", depths)) == 0 {
		return nil
	}
	dir, err := os.MkdirTemp(b.home, "queue-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	q, err := storage.OpenQueue(filepath.Join(dir, "queue.db"), storage.QueueOptions{Whole: storage.Limits{Jobs: 1 << 30, Bytes: 1 << 40}})
	if err != nil {
		return err
	}
	defer func() { _, _ = q.Close(), os.RemoveAll(dir) }()
	ctx, payload := context.Background(), make([]byte, 1024)
	add := func() error {
		_, _, err := q.Append(ctx, jobItem(), payload)
		return err
	}
	through := func() error {
		leases, err := q.Lease(ctx, "m", 1, 1<<20, time.Time{})
		if err != nil {
			return err
		}
		if len(leases) != 1 {
			return errors.New("nothing was leased")
		}
		if _, err := q.Finish(ctx, leases[0].ID, storage.Outcome{State: storage.Done, Result: payload, At: time.Now()}); err != nil {
			return err
		}
		return q.Delete(ctx, leases[0].ID)
	}
	for _, depth := range depths {
		if need := depth - int(q.Stats().Queued); need > 0 {
			if depth >= 100_000 {
				b.say("  %d jobs are being queued ...", need)
			}
			if err := each(need, add); err != nil {
				return err
			}
		}
		// Rounds keep the depth: it is the one asked for, and at most twice that, or 64 jobs more.
		const n = 5000
		round := min(max(depth, jobClients), n)
		var cpu, took [2]float64
		for range n / round {
			for i, f := range []func() error{add, through} {
				began, before := time.Now(), ownCPU()
				if err := each(round, f); err != nil {
					return fmt.Errorf("at depth %d: %w", depth, err)
				}
				cpu[i], took[i] = cpu[i]+ownCPU()-before, took[i]+time.Since(began).Seconds()
			}
		}
		jobs := float64(n / round * round)
		for i, name := range []string{"submitted", "run through"} {
			if err := b.addPoint(point{Series: name, X: float64(depth), Micros: cpu[i] / jobs * 1e6, Rate: jobs / took[i]}); err != nil {
				return err
			}
		}
	}
	return nil
}
