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
