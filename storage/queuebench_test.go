// queuebench_test.go: durable submits beside bbolt with nothing around it.
package storage

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/bbolt"
)

func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// shared runs b.N calls of f from so many goroutines.
func shared(b *testing.B, clients int, f func() error) {
	b.ResetTimer()
	var wg sync.WaitGroup
	for c := range clients {
		n := b.N / clients
		if c < b.N%clients {
			n++
		}
		wg.Go(func() {
			for range n {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkAppend(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(map[int]string{1: "one", 64: "64"}[clients], func(b *testing.B) {
			q, err := OpenQueue(filepath.Join(b.TempDir(), "queue.db"), QueueOptions{Whole: Limits{Jobs: 1 << 30, Bytes: 1 << 40}})
			if err != nil {
				b.Fatal(err)
			}
			payload := noise(1024)
			shared(b, clients, func() error {
				_, _, err := q.Append(context.Background(), job("m"), payload)
				return err
			})
			s := q.Stats()
			b.ReportMetric(float64(s.Writes)/float64(s.Commits), "writes/commit")
			if err := q.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkBare is a loop that commits whatever is waiting in one Update, with no timer, and nothing else.
func BenchmarkBare(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(map[int]string{1: "one", 64: "64"}[clients], func(b *testing.B) {
			db, err := bbolt.Open(filepath.Join(b.TempDir(), "bare.db"), 0o600, &bbolt.Options{NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
			if err != nil {
				b.Fatal(err)
			}
			type op struct {
				value []byte
				done  chan error
			}
			ops := make(chan op)
			go func() {
				var batch []op
				for o := range ops {
					batch = append(batch[:0], o)
					for more := true; more; {
						select {
						case o, ok := <-ops:
							if more = ok; ok {
								batch = append(batch, o)
							}
						default:
							more = false
						}
					}
					err := db.Update(func(tx *bbolt.Tx) error {
						bucket, err := tx.CreateBucketIfNotExists([]byte("b"))
						if err != nil {
							return err
						}
						for _, o := range batch {
							seq, _ := bucket.NextSequence()
							if err := bucket.Put(binary.BigEndian.AppendUint64(nil, seq), o.value); err != nil {
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
			payload := noise(1024)
			shared(b, clients, func() error {
				o := op{payload, make(chan error, 1)}
				ops <- o
				return <-o.done
			})
			close(ops)
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
