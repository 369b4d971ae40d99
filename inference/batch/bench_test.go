// bench_test.go: what the batcher itself costs.
package batch

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

// instant answers at once, or after a sleep, with its inputs' memory; it allocates as little as it can.
type instant struct {
	slots      int
	took       time.Duration
	runs, rows atomic.Int64
	pool       sync.Pool
}

func (r *instant) Run(_ context.Context, run *inference.Run) (*inference.Result, error) {
	if run.Copied != nil {
		run.Copied()
	}
	r.runs.Add(1)
	if r.took > 0 {
		time.Sleep(r.took)
	}
	rows := run.Inputs[0].Pad
	for _, p := range run.Inputs[0].Pieces {
		rows += p.Shape[0]
	}
	r.rows.Add(rows)
	buf, _ := r.pool.Get().([]byte)
	if int64(cap(buf)) < 4*rows {
		buf = make([]byte, 4*rows)
	}
	out := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{rows, 1}, Data: buf[:4*rows]}
	return inference.NewResult([]*tensor.Tensor{out}, nil), nil
}
func (r *instant) Slots() int   { return r.slots }
func (r *instant) Close() error { return nil }

// The runner's own: the result, its list, the tensor, the shape and the buffer, 5. The batcher's: the response and its release function.
func TestAllocations(t *testing.T) {
	const most = 5 + 3
	r := &instant{slots: 2}
	b := New(r, Options{Model: "m", Version: 1, Observe: func(Observation) {}})
	defer b.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req := rows(1)
	got := testing.AllocsPerRun(2000, func() {
		resp, err := b.Predict(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Release()
	})
	if got > most && !raceEnabled {
		t.Errorf("%v allocations per Predict, at most %v are allowed", got, most)
	}
}

func BenchmarkPredict(b *testing.B) {
	for name, c := range map[string]struct {
		callers, slots int
		took           time.Duration
	}{"callers=1/run=0": {1, 2, 0}, "callers=64/run=0": {64, 2, 0}, "callers=64/run=1ms": {64, 2, time.Millisecond}} {
		b.Run(name, func(b *testing.B) {
			r := &instant{slots: c.slots, took: c.took}
			batcher := New(r, Options{Model: "m", Version: 1})
			defer batcher.Close()
			b.ReportAllocs()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for range c.callers {
				wg.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
					defer cancel()
					req := request(xy, fake.Floats(tensor.Shape{1, 1}, 1))
					for left.Add(-1) >= 0 {
						resp, err := batcher.Predict(ctx, req)
						if err != nil {
							b.Error(err)
							return
						}
						resp.Release()
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
			b.ReportMetric(float64(r.rows.Load())/float64(max(1, r.runs.Load())), "rows/run")
		})
	}
}
