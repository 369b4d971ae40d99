// queue_reopen_test.go: who reads while the file is opened anew.
package storage

import (
	"sync"
	"sync/atomic"
	"testing"
)

// TestReadersWaitForANewFile: while the file is replaced by a compact one, those who read wait, and no lease takes a payload that cannot be
// read for a moment for a damaged one.
func TestReadersWaitForANewFile(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	first := add(t, q, job("m"), "first")
	var stop atomic.Bool
	var readers sync.WaitGroup
	readers.Go(func() {
		for !stop.Load() {
			if _, err := q.Get(first.ID); err != nil {
				t.Error(err)
				return
			}
		}
	})
	readers.Go(func() {
		for !stop.Load() {
			it := add(t, q, job("n"), "payload")
			for _, l := range lease(t, q, "n", 1) {
				if _, err := q.Finish(t.Context(), l.ID, Outcome{State: Done, At: epoch}); err != nil {
					t.Error(err)
				}
			}
			if got, err := q.Get(it.ID); err != nil || got.State != Done {
				t.Errorf("%s: %v", got.State, err)
				return
			}
		}
	})
	for range 5 {
		if _, _, err := q.Compact(t.Context(), nil); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	readers.Wait()
}
