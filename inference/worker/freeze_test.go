// freeze_test.go: a worker that makes constants of the variables says so, and answers as before.
package worker

import (
	"path/filepath"
	"testing"

	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// openFrozen has h load a model of modeltest with Freeze.
func openFrozen(t *testing.T, h *testHost, made *modeltest.Model) *Model {
	t.Helper()
	dir := modeltest.Write(t, made)
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return open(t, h, Load{Model: filepath.Base(filepath.Dir(dir)), Version: 1, Dir: dir, Tags: info.Tags, Signatures: info.Signatures, Callers: 2, Freeze: true}, Options{})
}

func TestFrozenIsCarriedFromTheWorker(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t)})
	m := openFrozen(t, h, modeltest.HalfPlusTwo())
	if frozen, why := m.Frozen(); !frozen || why == "" {
		t.Errorf("frozen %v, %q", frozen, why)
	}
	got, err := m.call(t.Context(), "serving_default", modeltest.Floats(tensor.Shape{1, 1}, 3))
	if err != nil || modeltest.FloatValues(got[0])[0] != 3.5 {
		t.Errorf("%v %v", got, err)
	}
	m = openFrozen(t, h, modeltest.Counter())
	if frozen, why := m.Frozen(); frozen || why != `signature "incr_counter" changes the model's state` {
		t.Errorf("frozen %v, %q", frozen, why)
	}
	if m = openMade(t, h, modeltest.HalfPlusTwo(), Options{}); m.frozen.Load().done || m.frozen.Load().reason != "" {
		t.Errorf("not asked for, and got %+v", m.frozen.Load())
	}
}

// TestFrozenFreesTheVariables compares what two workers keep after a run: the variable, and the constant three times, as TensorFlow keeps it. One copy
// more would be the variable that was not freed.
func TestFrozenFreesTheVariables(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector's own memory is in the figures")
	}
	const side = 2048
	const bytes = 4 * side * side
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t)})
	private := func(m *Model) int64 {
		x := make([]float32, side)
		for range 2 {
			if _, err := m.call(t.Context(), "serving_default", modeltest.Floats(tensor.Shape{1, side}, x...)); err != nil {
				t.Fatal(err)
			}
		}
		return m.Stats().Memory.Private
	}
	saved := private(openMade(t, h, modeltest.Dense(side), Options{}))
	m := openFrozen(t, h, modeltest.Dense(side))
	if frozen, why := m.Frozen(); !frozen {
		t.Fatal(why)
	}
	frozen := private(m)
	t.Logf("variables of %d KiB: private as saved %d KiB, frozen %d KiB", bytes>>10, saved>>10, frozen>>10)
	if frozen > saved+2*bytes+bytes/2 {
		t.Errorf("a worker with %d KiB of variables has %d KiB as saved and %d KiB frozen", bytes>>10, saved>>10, frozen>>10)
	}
}
