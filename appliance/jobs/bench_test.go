// bench_test.go: what a job costs from its submit to its acknowledged result: time, and bytes written to disk.
package jobs_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/storage"
)

// written is what this process has had written to disk so far.
func written(b *testing.B) (bytes int64) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		b.Skipf("the kernel does not say what was written: %v", err)
	}
	for line := range strings.Lines(string(text)) {
		if _, err := fmt.Sscanf(line, "write_bytes: %d", &bytes); err == nil {
			return bytes
		}
	}
	return 0
}

// BenchmarkJob has so many clients, each of which submits, waits for the result and acknowledges it, over a model that takes no time.
func BenchmarkJob(b *testing.B) {
	for _, clients := range []int{1, 64} {
		b.Run(fmt.Sprintf("clients=%d", clients), func(b *testing.B) {
			dir, err := os.MkdirTemp(os.Getenv("INFERD_BENCH_DIR"), "jobs")
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = os.RemoveAll(dir) }()
			q, err := storage.OpenQueue(filepath.Join(dir, "queue.db"), storage.QueueOptions{})
			if err != nil {
				b.Fatal(err)
			}
			catalog := inference.NewCatalog()
			sig := fake.Signature(inference.DefaultSignature, tensor.Float, -1, 64)
			servable := batch.New(&fake.Runner{Width: 2}, batch.Options{Model: "m", Version: 1, MaxRows: 32})
			catalog.Publish(&inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{sig.Key: sig}}, servable)
			s := jobs.New(jobs.Options{Queue: q, API: api.New(catalog, api.Options{}), Codecs: map[api.Kind]api.Codec{api.JSON: rest.NewCodec(rest.CodecOptions{})},
				Settings: func() jobs.Settings { return jobs.Settings{MaxAttempts: 3, MaxDeaths: 2, MaxPayload: 1 << 20} }, Concurrency: func(string) int { return 128 }})
			ctx, stop := context.WithCancel(b.Context())
			ended := make(chan error, 1)
			go func() { ended <- s.Run(ctx) }()

			row := make([]string, 64) // about 1 KB that does not compress to nothing
			for i := range row {
				row[i] = fmt.Sprintf("%.12f", float64(i*i*7919%1000003)/1000003)
			}
			body := []byte(`{"instances": [[` + strings.Join(row, ",") + `]]}`)
			before := written(b)
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			b.ResetTimer()
			for range clients {
				wg.Go(func() {
					for left.Add(-1) >= 0 {
						it, _, err := s.Submit(ctx, jobs.Submission{Spec: inference.Spec{Model: "m"}, Kind: api.JSON, Body: body})
						if err == nil {
							it, err = s.Wait(ctx, it.ID)
						}
						if err == nil {
							_, _, err = s.Result(it.ID)
						}
						if err == nil {
							err = s.Forget(ctx, it.ID)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			st := q.Stats()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			b.ReportMetric(float64(written(b)-before)/float64(b.N), "written-B/job")
			b.ReportMetric(float64(st.Writes)/float64(max(1, st.Commits)), "writes/commit")
			b.ReportMetric(float64(st.Writes)/float64(b.N), "writes/job")
			stop()
			if err := <-ended; err != nil {
				b.Error(err)
			}
			_, _ = q.Close(), servable.Close()
		})
	}
}
