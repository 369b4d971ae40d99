// real_test.go: forked and fresh workers with TensorFlow in them; skipped where there is no runtime.
package worker

import (
	"context"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
)

// realBackend is a *tfrt.Model; a nil *Late must become a nil Late.
type realBackend struct{ *tfrt.Model }

func (b realBackend) Call(sig *inference.Signature, in []*tensor.Tensor, outputs []int, out func(int, *tensor.Tensor) error) (Late, error) {
	late, err := b.Model.Call(sig, in, outputs, out)
	if late == nil {
		return nil, err
	}
	return late, err
}

func openReal(l Load) (Backend, error) {
	rt, err := tfrt.Open(l.Library)
	if err != nil {
		return nil, err
	}
	m, err := rt.Load(l.Dir, tfrt.Options{Tags: l.Tags, Slots: l.Callers, Gently: l.Gently, IntraOpThreads: l.IntraOpThreads, InterOpThreads: l.InterOpThreads,
		Freeze: l.Freeze, Signatures: l.Signatures})
	if err != nil {
		return nil, err
	}
	return realBackend{m}, nil
}

func realLibrary(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "runtime")
	}
	found, err := tfrt.Find(dir)
	if err != nil {
		tb.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW", dir)
	}
	return found.Path
}

// openMade has h load a model of modeltest.
func openMade(t *testing.T, h *testHost, made *modeltest.Model, o Options) *Model {
	t.Helper()
	return openDir(t, h, modeltest.Write(t, made), o)
}

func openDir(t *testing.T, h *testHost, dir string, o Options) *Model {
	t.Helper()
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, h, Load{Model: filepath.Base(filepath.Dir(dir)), Version: 1, Dir: dir, Tags: info.Tags, Signatures: info.Signatures, Callers: 2}, o)
}

func (m *Model) call(ctx context.Context, key string, inputs ...*tensor.Tensor) ([]*tensor.Tensor, error) {
	sig := m.load.Signatures[key]
	run := &inference.Run{Signature: sig}
	for _, x := range inputs {
		run.Inputs = append(run.Inputs, tensor.One(x))
	}
	for i := range sig.Outputs {
		run.Outputs = append(run.Outputs, i)
	}
	res, err := m.Run(ctx, run)
	if err != nil {
		return nil, err
	}
	defer res.Release()
	var copies []*tensor.Tensor
	for _, o := range res.Outputs {
		copies = append(copies, o.Clone())
	}
	return copies, nil
}

func TestRealModels(t *testing.T) {
	library := realLibrary(t)
	for _, zygote := range []bool{true, false} {
		t.Run(map[bool]string{true: "forked", false: "fresh"}[zygote], func(t *testing.T) {
			h := startHostWith(t, HostOptions{UseZygote: zygote, Library: library})
			x := make([]float32, 64)
			for i := range x {
				x[i] = float32(i) / 64
			}
			m := openMade(t, h, modeltest.TwoLayer(), Options{})
			for range 20 {
				got, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{2, 32}, x...))
				if err != nil {
					t.Fatal(err)
				}
				for row := range 2 {
					want := modeltest.TwoLayerAnswer(x[32*row : 32*row+32])
					for i, v := range modeltest.FloatValues(got[0])[10*row : 10*row+10] {
						if math.Abs(float64(v-want[i])) > 1e-4 {
							t.Fatalf("row %d: %v, want %v", row, got[0], want)
						}
					}
				}
			}
			mem := m.Stats().Memory
			t.Logf("private %d KiB, PSS %d KiB", mem.Private>>10, mem.PSS>>10)
			if zygote && !raceEnabled && mem.Private > 20<<20 {
				t.Errorf("a forked worker with a small model has %d MiB of its own", mem.Private>>20)
			}

			s := openMade(t, h, modeltest.Strings(), Options{})
			got, err := s.call(t.Context(), inference.DefaultSignature, modeltest.Strings1D([]byte("you"), []byte("\x00")))
			if err != nil {
				t.Fatal(err)
			}
			if greeting := got[m0(s, "greeting")]; string(greeting.Strings[0]) != "hello, you" || string(greeting.Strings[1]) != "hello, \x00" {
				t.Errorf("greeted %q", greeting.Strings)
			}
			if st := h.Stats(); zygote && st.Fresh != 0 || !zygote && st.Forked != 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func m0(m *Model, alias string) int {
	return m.load.Signatures[inference.DefaultSignature].Output(alias)
}

// TestRealKeptInput runs a model that keeps its input's memory: the next requests must not show in what it kept.
func TestRealKeptInput(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t)})
	m := openMade(t, h, modeltest.KeepsInput(), Options{})
	for i := range 5 {
		kept := float32(100 + i)
		if _, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, kept)); err != nil {
			t.Fatal(err)
		}
		for range 20 { // runs that take areas of the same size
			got, err := m.call(t.Context(), "kept")
			if err != nil {
				t.Fatal(err)
			}
			if v := modeltest.FloatValues(got[0])[0]; v != kept {
				t.Fatalf("the variable reads %v, %v was assigned", v, kept)
			}
		}
	}
}

func TestRealDeaths(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t)})
	one, minus := modeltest.Floats(tensor.Shape{1, 1}, 0), modeltest.Floats(tensor.Shape{1, 1}, -1)
	crasher := openMade(t, h, modeltest.Crasher(), Options{})
	if _, err := crasher.call(t.Context(), inference.DefaultSignature, minus); !errors.Is(err, inference.ErrWorkerDied) || !strings.Contains(err.Error(), "SIGABRT") {
		t.Errorf("crasher: %v", err)
	}
	never := openMade(t, h, modeltest.NeverReturns(), Options{RunTimeout: 2 * time.Second}) // a good run on a busy machine takes less
	if _, err := never.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, 1)); !errors.Is(err, inference.ErrRunTimeout) {
		t.Errorf("never returns: %v", err)
	}
	for _, m := range []*Model{crasher, never} {
		if _, err := m.call(t.Context(), inference.DefaultSignature, one); err != nil {
			t.Errorf("after the restart: %v", err)
		}
	}
}

// TestRealPeak: memory that a run held and gave back is counted, until the count begins anew.
func TestRealPeak(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t)})
	m := openMade(t, h, modeltest.Hungry(1), Options{})
	run := func(mebibytes float32) {
		t.Helper()
		if _, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, mebibytes)); err != nil {
			t.Fatal(err)
		}
	}
	peak := func(anew bool) int64 {
		t.Helper()
		bytes, ok := m.Peak(anew)
		if !ok || bytes < m.Stats().Memory.Resident {
			t.Fatalf("%d bytes, %v; it uses %d", bytes, ok, m.Stats().Memory.Resident)
		}
		return bytes
	}
	run(1)
	before := peak(true)
	run(300)
	large := peak(true)
	run(1)
	after := peak(false)
	t.Logf("peaks: %d MiB, with 300 MiB held %d MiB, anew %d MiB; at rest %d MiB", before>>20, large>>20, after>>20, m.Stats().Memory.Resident>>20)
	if large < before+250<<20 {
		t.Errorf("a run that holds 300 MiB more shows as %d after %d", large, before)
	}
	if after > large-250<<20 {
		t.Errorf("the count did not begin anew: %d after %d", after, large)
	}
	shared := openMade(t, h, modeltest.Hungry(1), Options{Group: "all"})
	if _, ok := shared.Peak(false); ok {
		t.Error("the peak of a process that others share was told for one")
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes, ok := m.Peak(true); ok {
		t.Errorf("a closed model used %d bytes", bytes)
	}
}
