// bench_test.go: what one call costs, with as many callers as -cpu says (go test -bench Call -cpu 1,2).
package tfrt

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/freeze"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// BenchmarkCall is the two-layer model (32-128-10), one row per call, every caller in its own thread. calls/s is over all callers.
func BenchmarkCall(b *testing.B) { benchmarkCall(b, 1) }

// BenchmarkCallDenormal is the same with denormal numbers.
func BenchmarkCallDenormal(b *testing.B) { benchmarkCall(b, 1e-39) }

// BenchmarkFolder is one row per call of the model in the folder that INFERD_MODEL names, as saved and frozen; skipped where there is none.
func BenchmarkFolder(b *testing.B) {
	dir := os.Getenv("INFERD_MODEL")
	if dir == "" {
		b.Skip("INFERD_MODEL names no version folder")
	}
	for _, freeze := range []bool{false, true} {
		b.Run(map[bool]string{false: "saved", true: "frozen"}[freeze], func(b *testing.B) {
			m, info := loadFolder(b, dir, freeze)
			if _, why := m.Frozen(); why != "" {
				b.Log(why)
			}
			benchmarkRows(b, m, info.Signatures[inference.DefaultSignature])
		})
	}
}

// BenchmarkFrozen is BenchmarkCall with the variables as constants.
func BenchmarkFrozen(b *testing.B) {
	m, info := loadFolder(b, modeltest.Write(b, modeltest.TwoLayer()), true)
	if frozen, why := m.Frozen(); !frozen {
		b.Fatal(why)
	}
	benchmarkRows(b, m, info.Signatures[inference.DefaultSignature])
}

func benchmarkRows(b *testing.B, m *Model, sig *inference.Signature) {
	inputs, ok := freeze.MakeUp(sig)
	if !ok {
		b.Fatal("no inputs can be made up")
	}
	for range 3 { // the first run optimises the graph
		if _, err := m.answer(trial{sig, inputs}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		in := slices.Clone(inputs)
		for i := range in {
			if in[i].DType != tensor.String {
				in[i] = at(in[i], 0)
			}
		}
		sum, outputs := byte(0), []int{0}
		out := func(_ int, t *tensor.Tensor) error { sum += t.Data[0]; return nil }
		for pb.Next() {
			if _, err := m.Call(sig, in, outputs, out); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

func benchmarkCall(b *testing.B, value float32) {
	m, sigs := load(b, modeltest.TwoLayer(), Options{})
	x := make([]float32, 32)
	for i := range x {
		x[i] = value
	}
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		in, outputs := []*tensor.Tensor{at(floats(tensor.Shape{1, 32}, x...), 0)}, []int{0}
		sum := byte(0)
		out := func(_ int, t *tensor.Tensor) error { sum += t.Data[0]; return nil }
		for pb.Next() {
			if _, err := m.Call(sigs["serving_default"], in, outputs, out); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkRun is the same model through the Runner (isolation none): inputs copied, a result that is released.
func BenchmarkRun(b *testing.B) {
	m, sigs := load(b, modeltest.TwoLayer(), Options{})
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		run := &inference.Run{Signature: sigs["serving_default"], Inputs: []tensor.Parts{tensor.One(floats(tensor.Shape{1, 32}, make([]float32, 32)...))}, Outputs: []int{0}}
		for pb.Next() {
			r, err := m.Run(ctx, run)
			if err != nil {
				b.Error(err)
				return
			}
			r.Release()
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
}

// BenchmarkFind is the whole check of the real library: it is done at every start of the core.
func BenchmarkFind(b *testing.B) {
	path := runtimePath(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Find(path); err != nil {
			b.Fatal(err)
		}
	}
}
