// sandbox_bench_test.go: what the sandbox costs a run: nothing but the filter's look at each system call.
package worker

import (
	"fmt"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// BenchmarkSandbox is runs of a small model through two workers in turn, one of them confined, a slice of the runs at a time so that both have the
// same machine; 1 caller wakes the worker for each run, 8 keep it busy. The metrics are the confined worker's throughput over the other's, and
// the processor time that it took over the other's, on which others' load has less influence.
func BenchmarkSandbox(b *testing.B) {
	library := realLibrary(b)
	dir := b.TempDir()
	if err := modeltest.TwoLayer().Save(dir); err != nil {
		b.Fatal(err)
	}
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		b.Fatal(err)
	}
	var models []*Model
	for _, s := range []*Sandbox{nil, NewSandbox(Places{})} {
		h := startHostWith(b, HostOptions{UseZygote: true, Library: library, Sandbox: s})
		models = append(models, open(b, h, Load{Model: "m", Version: 1, Dir: dir, Tags: info.Tags, Signatures: info.Signatures, Callers: 2}, Options{}))
	}
	run := &inference.Run{Signature: info.Signatures[inference.DefaultSignature], Outputs: []int{0},
		Inputs: []tensor.Parts{tensor.One(modeltest.Floats(tensor.Shape{1, 32}, make([]float32, 32)...))}}
	for _, callers := range []int{1, 8} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			const slice = 500
			var took [2]time.Duration
			pids, had := [2]int{models[0].Stats().PID, models[1].Stats().PID}, [2]time.Duration{}
			for i, pid := range pids {
				had[i] = readTurns(pid).ran
			}
			b.ResetTimer()
			for i := range b.N {
				for _, which := range []int{i % 2, 1 - i%2} {
					before := time.Now()
					runs(b, models[which], run, callers, slice)
					took[which] += time.Since(before)
				}
			}
			b.StopTimer()
			b.ReportMetric(took[0].Seconds()/took[1].Seconds(), "confined/free")
			b.ReportMetric(float64(readTurns(pids[1]).ran-had[1])/float64(readTurns(pids[0]).ran-had[0]), "cpu-confined/free")
			b.ReportMetric(float64(b.N*slice)/took[1].Seconds(), "runs/s")
		})
	}
}
