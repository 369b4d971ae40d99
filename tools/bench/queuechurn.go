// queuechurn.go: jobs of all sizes come and go at a steady depth: does the file grow for ever?
package main

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/storage"
)

// churnDepth is how many jobs are live.
const churnDepth = 1000

// queueChurn keeps the depth: 64 goroutines append a job of 1 KB to 1 MB (its logarithm evenly spread) when they have finished and deleted
// the oldest. The file is held against the most that was live at once, payloads and results as stored.
func (b *bench) queueChurn() error {
	q, _, done, err := b.scratch()
	if err != nil {
		return err
	}
	defer done()
	var peak, file, count atomic.Int64
	errs := make(chan error, submitters)
	var wg sync.WaitGroup
	began := time.Now()
	for i := range submitters {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 9))
			bytes := noise(r, 2<<20)
			for n := count.Add(1); n <= int64(b.jobs); n = count.Add(1) {
				if err := turn(q, r, bytes, n > churnDepth); err != nil {
					errs <- err
					return
				}
				s := q.Stats()
				most(&peak, s.Bytes)
				most(&file, s.FileBytes)
			}
		})
	}
	ended := make(chan struct{})
	go func() { wg.Wait(); close(ended) }()
	for going := true; going; {
		select {
		case <-ended:
			going = false
		case <-time.After(30 * time.Second):
			fmt.Fprintf(os.Stderr, "bench: %d of %d jobs, the file has %d MB, %d MB were live at most\n", count.Load(), b.jobs, file.Load()>>20, peak.Load()>>20)
		}
	}
	select {
	case err := <-errs:
		return err
	default:
	}
	ratio := float64(file.Load()) / float64(peak.Load())
	fmt.Printf("%-58s %.2f: %d MB over %d MB after %d jobs, %.0f s%s\n", "churn of 1 KB to 1 MB at depth 1,000: file / peak of live", ratio, file.Load()>>20, peak.Load()>>20,
		b.jobs, time.Since(began).Seconds(), outcome("at most 2", ratio <= 2))
	r, err := q.Check(context.Background())
	if err == nil && len(r.Faults) > 0 {
		err = fmt.Errorf("check: %q", r.Faults)
	}
	return err
}

func most(at *atomic.Int64, n int64) {
	for old := at.Load(); n > old && !at.CompareAndSwap(old, n); old = at.Load() {
	}
}

// turn ends and forgets the oldest job, where the queue is deep enough, and appends another.
func turn(q *storage.Queue, r *rand.Rand, bytes []byte, deep bool) error {
	ctx := context.Background()
	size := func() int { return int(1024 * math.Pow(1024, r.Float64())) }
	some := func() []byte { n := size(); from := r.IntN(len(bytes) - n); return bytes[from : from+n] }
	if deep {
		leases, err := q.Lease(ctx, "two_layer", 1, 2<<20, time.Time{})
		if err != nil || len(leases) != 1 {
			return fmt.Errorf("%d jobs leased: %w", len(leases), err)
		}
		if _, err := q.Finish(ctx, leases[0].ID, storage.Outcome{State: storage.Done, Result: some(), At: time.Now()}); err != nil {
			return err
		}
		if err := q.Delete(ctx, leases[0].ID); err != nil {
			return err
		}
	}
	_, _, err := q.Append(ctx, jobItem(), some())
	return err
}
