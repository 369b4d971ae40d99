// flight_test.go: nobody reads what a power cut can take back.
package storage

import (
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func TestReadersSeeWhatIsDurable(t *testing.T) {
	q, err := OpenQueue(filepath.Join(t.TempDir(), "queue.db"), QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var stop atomic.Bool
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for !stop.Load() {
				err := q.view(func(x *tx) error {
					q.flight.mu.Lock()
					defer q.flight.mu.Unlock()
					if x.ID() > q.flight.durable {
						return fmt.Errorf("transaction %d was read, and %d is on disk", x.ID(), q.flight.durable)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	waits := func() int {
		q.flight.mu.Lock()
		defer q.flight.mu.Unlock()
		return q.flight.waits
	}
	for i := 0; i < 5000 && (i < 100 || waits() < 10) && !t.Failed(); i++ {
		key := fmt.Sprintf("1-%d--", i)
		if _, _, err := q.Append(t.Context(), jobOf(key), payloadOf(key)); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	readers.Wait()
	if waits() == 0 && !t.Failed() {
		t.Error("no reader came between a meta page and its fsync in 5,000 commits: the test tests nothing")
	}
	t.Logf("%d readers waited", waits())
}
