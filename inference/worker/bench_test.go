// bench_test.go: the cost of a run through a worker.
package worker

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inferd/inferd/inference"
)

// BenchmarkRun is runs of 32 floats through an echoing worker.
func BenchmarkRun(b *testing.B) {
	h := startHost(b, true)
	m := open(b, h, fakeLoad("bench"), Options{})
	for _, callers := range []int{1, 2, 64} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			run := runOf("echo", floatTensor(make([]float32, 32)...))
			runs(b, m, run, callers, b.N)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
		})
	}
}

// runs makes n runs from so many goroutines.
func runs(b *testing.B, m *Model, run *inference.Run, callers, n int) {
	b.Helper()
	var left atomic.Int64
	left.Store(int64(n))
	var wg sync.WaitGroup
	for range callers {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				res, err := m.Run(context.Background(), run)
				if err != nil {
					b.Error(err)
					return
				}
				res.Release()
			}
		})
	}
	wg.Wait()
}

func TestAllocations(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	run := runOf("echo", floatTensor(make([]float32, 32)...))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n := testing.AllocsPerRun(200, func() {
		res, err := m.Run(ctx, run)
		if err != nil {
			t.Fatal(err)
		}
		res.Release()
	})
	// A result, its list, a tensor, its shape and the release; the rest is room for what the runtime and idle goroutines add.
	if n > 12 {
		t.Errorf("%v allocations per run", n)
	}
}
