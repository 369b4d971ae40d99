// call_test.go: runs with the real library: numbers, types, strings, errors, and who holds the memory.
package tfrt

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func TestCallHalfPlusTwo(t *testing.T) {
	for _, opts := range []Options{{}, {InterOpThreads: 2, IntraOpThreads: 2}} {
		m, sigs := load(t, modeltest.HalfPlusTwo(), opts)
		for off := range 5 {
			x := at(floats(tensor.Shape{3, 1}, 1, 2, 5), off*4)
			got, err := callAll(t, m, sigs["serving_default"], x)
			if err != nil {
				t.Fatal(err)
			}
			if y := modeltest.FloatValues(got[0]); !got[0].Shape.Equal(tensor.Shape{3, 1}) || y[0] != 2.5 || y[1] != 3 || y[2] != 4.5 {
				t.Errorf("at +%d: %v %v", off*4, got[0].Shape, y)
			}
		}
	}
}

func TestCallEveryType(t *testing.T) {
	for d := tensor.Float; d <= tensor.Uint4; d++ {
		if !d.Carried() || d == tensor.String {
			continue
		}
		t.Run(d.String(), func(t *testing.T) {
			m, sigs := load(t, modeltest.AllTypes(d), Options{})
			for _, n := range []int{0, 1, 5} {
				data := make([]byte, n*d.Size())
				for i := range data {
					data[i] = byte(i % 2) // good for bool and for the 4-bit types, too
				}
				x, err := tensor.New(d, tensor.Shape{int64(n)}, data)
				if err != nil {
					t.Fatal(err)
				}
				for _, off := range []int{0, 1} {
					got, err := callAll(t, m, sigs["serving_default"], at(x, off))
					if err != nil {
						t.Fatalf("%d elements: %v", n, err)
					}
					if y := got[0]; y.DType != d || !y.Shape.Equal(x.Shape) || !bytes.Equal(y.Data, data) {
						t.Errorf("%d elements at +%d: %v %v % x", n, off, y.DType, y.Shape, y.Data)
					}
				}
			}
		})
	}
}

func TestCallHighRank(t *testing.T) {
	m, sigs := load(t, modeltest.AllTypes(tensor.Float), Options{})
	for _, rank := range []int{0, 1, 17, 40, tensor.MaxRank} {
		shape := slices.Repeat(tensor.Shape{1}, rank)
		if rank > 1 {
			shape[rank-1] = 3
		}
		n, err := shape.Elements()
		if err != nil {
			t.Fatal(err)
		}
		x := floats(shape, []float32{1, 2, 3}[:n]...)
		got, err := callAll(t, m, sigs["serving_default"], x)
		if err != nil || !got[0].Shape.Equal(shape) || !bytes.Equal(got[0].Data, x.Data) {
			t.Errorf("rank %d: %v %v", rank, got, err)
		}
	}
}

func TestCallStrings(t *testing.T) {
	m, sigs := load(t, modeltest.Strings(), Options{})
	apart := [][]byte{{}, []byte("a"), bytes.Repeat([]byte("b"), 22), bytes.Repeat([]byte("c"), 23), []byte("x\x00y"), bytes.Repeat([]byte("d"), 70000), nil}
	together := modeltest.Strings1D(apart...).Clone().Strings // one buffer, end to end
	for name, s := range map[string][][]byte{"apart": apart, "together": together, "none": {}, "empty": {{}, {}}} {
		got, err := callAll(t, m, sigs["serving_default"], modeltest.Strings1D(s...))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		greeting, y := got[0], got[1]
		if len(y.Strings) != len(s) || len(greeting.Strings) != len(s) {
			t.Fatalf("%s: %d strings back, %d sent", name, len(y.Strings), len(s))
		}
		for i := range s {
			if !bytes.Equal(y.Strings[i], s[i]) || string(greeting.Strings[i]) != "hello, "+string(s[i]) {
				t.Errorf("%s: string %d came back as %.40q and %.40q", name, i, y.Strings[i], greeting.Strings[i])
			}
		}
	}
}

func TestCallNaN(t *testing.T) {
	m, sigs := load(t, modeltest.NaN(), Options{})
	got, err := callAll(t, m, sigs["serving_default"], floats(tensor.Shape{3, 1}, 0, 1, -1))
	if err != nil {
		t.Fatal(err)
	}
	y := modeltest.FloatValues(got[0])
	if !math.IsNaN(float64(y[0])) || !math.IsInf(float64(y[1]), 1) || !math.IsInf(float64(y[2]), -1) {
		t.Errorf("%v", y)
	}
}

func TestCallWithoutInputsAndReferenceTypes(t *testing.T) {
	m, sigs := load(t, modeltest.Counter(), Options{})
	for want, key := range []string{"get_counter", "incr_counter", "incr_counter"} {
		got, err := callAll(t, m, sigs[key])
		if err != nil {
			t.Fatal(err)
		}
		if v := modeltest.FloatValues(got[0]); got[0].DType != tensor.Float || len(v) != 1 || v[0] != float32(want) {
			t.Errorf("%s: %v %v, want %d", key, got[0].DType, v, want)
		}
	}
	if got, err := callAll(t, m, sigs["incr_counter_by"], floats(tensor.Shape{}, 40)); err != nil || modeltest.FloatValues(got[0])[0] != 42 {
		t.Errorf("%v %v", got, err)
	}
}

func TestCallRefusesWhatDoesNotFit(t *testing.T) {
	m, sigs := load(t, modeltest.HalfPlusTwo(), Options{})
	sig := sigs["serving_default"]
	good := floats(tensor.Shape{1, 1}, 1)
	for _, c := range []struct {
		name, text string
		code       inference.Code
		in         []*tensor.Tensor
		outputs    []int
	}{
		{"wrong type", `input "x" is DT_FLOAT, DT_INT32 was sent`, inference.InvalidArgument, []*tensor.Tensor{modeltest.Int32s(tensor.Shape{1, 1}, 1)}, []int{0}},
		{"none", "has 1 inputs, 0 were sent", inference.InvalidArgument, nil, []int{0}},
		{"nil", "input 0 was not sent", inference.InvalidArgument, []*tensor.Tensor{nil}, []int{0}},
		{"bytes short", "does not fit", inference.InvalidArgument, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{2, 1}, Data: make([]byte, 4)}}, []int{0}},
		{"bytes long", "does not fit", inference.InvalidArgument, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{1, 1}, Data: make([]byte, 8)}}, []int{0}},
		{"overflow", "does not fit", inference.InvalidArgument, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{math.MaxInt64, 4}}}, []int{0}},
		{"negative", "does not fit", inference.InvalidArgument, []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{-1, 1}}}, []int{0}},
		{"output", "number 1 was asked for", inference.InvalidArgument, []*tensor.Tensor{good}, []int{1}},
		{"negative output", "number -1 was asked for", inference.InvalidArgument, []*tensor.Tensor{good}, []int{-1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			late, err := m.Call(sig, c.in, c.outputs, func(int, *tensor.Tensor) error { t.Error("out was called"); return nil })
			wantCode(t, err, c.code, c.text)
			if late != nil {
				t.Error("late")
			}
		})
	}
	if _, err := callAll(t, m, sig, good); err != nil {
		t.Errorf("after the refusals: %v", err)
	}
}

func TestCallGivesTensorFlowsCodeAndText(t *testing.T) {
	m, sigs := load(t, modeltest.FixedBatch(), Options{})
	_, err := callAll(t, m, sigs["serving_default"], floats(tensor.Shape{2, 3}, 1, 2, 3, 4, 5, 6))
	wantCode(t, err, inference.InvalidArgument, "Input to reshape is a tensor with 6 values")
	if e := inference.AsError(err); e.Reason != inference.ReasonRuntime {
		t.Errorf("reason %q", e.Reason)
	}
	m, sigs = load(t, modeltest.NoRun(), Options{})
	_, err = callAll(t, m, sigs["serving_default"], floats(tensor.Shape{1, 1}, 1))
	wantCode(t, err, inference.FailedPrecondition, "missing")
}

func TestCallOutputsRepeatAndReorder(t *testing.T) {
	m, sigs := load(t, modeltest.TwoInputs(), Options{})
	a, b := floats(tensor.Shape{1, 2}, 5, 7), floats(tensor.Shape{1, 2}, 1, 2)
	outputs, got := []int{1, 0, 1, 1}, make([][]float32, 4)
	_, err := m.Call(sigs["serving_default"], []*tensor.Tensor{a, b}, outputs, func(i int, t *tensor.Tensor) error {
		got[i] = modeltest.FloatValues(t)
		return nil
	})
	if want := "[[6 9] [4 5] [6 9] [6 9]]"; err != nil || fmt.Sprint(got) != want {
		t.Errorf("%v %v, want %s", got, err, want)
	}
	// More than there are, so that nothing made for the signature's own number is large enough.
	outputs, got = slices.Repeat([]int{1, 0}, 500), make([][]float32, 1000)
	_, err = m.Call(sigs["serving_default"], []*tensor.Tensor{a, b}, outputs, func(i int, t *tensor.Tensor) error {
		got[i] = modeltest.FloatValues(t)
		return nil
	})
	if err != nil || fmt.Sprint(got[0], got[999]) != "[6 9] [4 5]" {
		t.Errorf("%v: %v %v", err, got[0], got[999])
	}
	_, err = m.Call(sigs["serving_default"], []*tensor.Tensor{a, b}, nil, nil)
	wantCode(t, err, inference.InvalidArgument, "at least one target")
}

func TestCallFeedsOneTensorOnce(t *testing.T) {
	m, sigs := load(t, modeltest.TwoInputs(), Options{})
	sig := *sigs["serving_default"]
	sig.Inputs = []inference.TensorInfo{sig.Inputs[0], sig.Inputs[0], sig.Inputs[1]}
	sig.Inputs[1].Alias, sig.Inputs[1].Tensor = "again", "a"
	one, other, b := floats(tensor.Shape{1, 2}, 5, 7), floats(tensor.Shape{1, 2}, 5, 8), floats(tensor.Shape{1, 2}, 1, 2)
	got, err := callAll(t, m, &sig, one, one.Clone(), b)
	if err != nil || fmt.Sprint(modeltest.FloatValues(got[1])) != "[6 9]" {
		t.Errorf("%v %v", got, err)
	}
	_, err = callAll(t, m, &sig, one, other, b)
	wantCode(t, err, inference.InvalidArgument, `inputs "a" and "again" are the same tensor`)
	_, err = callAll(t, m, &sig, one, floats(tensor.Shape{2, 1}, 5, 7), b)
	wantCode(t, err, inference.InvalidArgument, "different values")
}

func TestPrepareNamesWhatTheGraphLacks(t *testing.T) {
	m, sigs := load(t, modeltest.HalfPlusTwo(), Options{})
	for _, c := range []struct {
		name, text string
		change     func(s *inference.Signature)
	}{
		{"operation", `the graph has no operation "nowhere"`, func(s *inference.Signature) { s.Inputs[0].Tensor = "nowhere:0" }},
		{"output", "that operation has 1 outputs", func(s *inference.Signature) { s.Outputs[0].Tensor = "y:1" }},
		{"form", "not the form", func(s *inference.Signature) { s.Outputs[0].Tensor = "y:-1" }},
		{"empty", "not the form", func(s *inference.Signature) { s.Outputs[0].Tensor = "" }},
		{"control", "not the form", func(s *inference.Signature) { s.Outputs[0].Tensor = "^y" }},
		{"type", "there it is DT_FLOAT and in the signature DT_INT64", func(s *inference.Signature) { s.Inputs[0].DType = tensor.Int64 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			old := sigs["serving_default"]
			sig := &inference.Signature{Key: old.Key, Inputs: append([]inference.TensorInfo(nil), old.Inputs...), Outputs: append([]inference.TensorInfo(nil), old.Outputs...)}
			c.change(sig)
			wantCode(t, m.Prepare(sig), inference.FailedPrecondition, c.text)
		})
	}
}

func TestCallFlushesDenormalsAndRestoresTheMode(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	found := fpMode()
	defer setFPMode(found)
	// The bits that flush, and those that round towards zero.
	flush, odd := uint64(0x8040), uint64(3<<13)
	if runtime.GOARCH == "arm64" {
		flush, odd = 1<<24, 3<<22
	}
	for _, c := range []struct {
		name     string
		scale, x float32 // their product is 0 only where denormals are flushed
	}{
		{"a denormal input", 1e20, 1e-39},
		{"a denormal result", 1e-9, 1e-30},
	} {
		m, sigs := load(t, modeltest.Defaults(), Options{})
		for _, mode := range []uint64{found &^ flush, found&^flush | odd, found | flush} {
			setFPMode(mode)
			got, err := callAll(t, m, sigs["serving_default"], floats(tensor.Shape{}, c.scale), floats(tensor.Shape{1, 1}, c.x))
			after := fpMode()
			setFPMode(found)
			if err != nil {
				t.Fatal(err)
			}
			if y := modeltest.FloatValues(got[0])[0]; y != 0 {
				t.Errorf("%s: %g times %g is %g: it was not flushed", c.name, c.x, c.scale, y)
			}
			if after != mode {
				t.Errorf("%s: the mode was %#x and is %#x", c.name, mode, after)
			}
		}
	}
}

func TestCallTellsWhenTheInputIsKept(t *testing.T) {
	m, sigs := load(t, modeltest.KeepsInput(), Options{})
	sig := sigs["serving_default"]
	ignore := func(int, *tensor.Tensor) error { return nil }
	kept := func() float32 {
		t.Helper()
		got, err := callAll(t, m, sigs["kept"])
		if err != nil {
			t.Fatal(err)
		}
		return modeltest.FloatValues(got[0])[0]
	}
	x := at(floats(tensor.Shape{1, 1}, 7), 0)
	first, err := m.Call(sig, []*tensor.Tensor{x}, []int{0}, ignore)
	if err != nil {
		t.Fatal(err)
	}
	if first == nil {
		t.Fatal("the variable has the input's memory, and nobody said so")
	}
	if first.Freed() || kept() != 7 {
		t.Error("freed while the variable holds it")
	}
	// This is why the memory may not be reused: the variable reads it.
	copy(x.Data, floats(tensor.Shape{1}, 99).Data)
	if v := kept(); v != 99 {
		t.Errorf("the variable reads %g: the input was copied, and late means nothing", v)
	}
	// The next assignment lets go of the first input. An input that was copied is nobody's business.
	second, err := m.Call(sig, []*tensor.Tensor{at(floats(tensor.Shape{1, 1}, 8), 4)}, []int{0}, ignore)
	if err != nil || second != nil {
		t.Errorf("a copied input: %v %v", second, err)
	}
	for range 2 { // once true it stays so
		if !first.Freed() {
			t.Error("not freed though the variable has another value")
		}
	}
	if kept() != 8 {
		t.Error("the copied input was lost")
	}
	if n := Count().Inputs; n != 1 {
		t.Errorf("%d inputs held, want the variable's one", n)
	}
	third, err := m.Call(sig, []*tensor.Tensor{at(floats(tensor.Shape{1, 1}, 9), 0)}, []int{0}, ignore)
	if err != nil || third == nil {
		t.Fatal(third, err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if !third.Freed() {
		t.Error("the variable outlived its model")
	}
}

func TestCallEndsWithOutsErrorAndFreesAll(t *testing.T) {
	m, sigs := load(t, modeltest.TwoInputs(), Options{})
	sig, in := sigs["serving_default"], []*tensor.Tensor{at(floats(tensor.Shape{1, 2}, 1, 2), 0), floats(tensor.Shape{1, 2}, 1, 2)}
	stop := errors.New("stop")
	calls := 0
	_, err := m.Call(sig, in, []int{0, 1}, func(int, *tensor.Tensor) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was lost")
			}
		}()
		_, _ = m.Call(sig, in, []int{0, 1}, func(int, *tensor.Tensor) error { panic("out") })
	}()
	if c := Count(); c.Inputs != 0 || c.Outputs != 0 {
		t.Errorf("%+v", c)
	}
}

func TestCallAllocatesNothing(t *testing.T) {
	m, sigs := load(t, modeltest.TwoInputs(), Options{})
	sig := sigs["serving_default"]
	in := []*tensor.Tensor{at(floats(tensor.Shape{1, 2}, 1, 2), 0), at(floats(tensor.Shape{1, 2}, 1, 2), 4)}
	outputs, sum := []int{0, 1}, byte(0)
	out := func(_ int, t *tensor.Tensor) error { sum += t.Data[0]; return nil }
	n := testing.AllocsPerRun(100, func() {
		if _, err := m.Call(sig, in, outputs, out); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations per call", n)
	}
}

// TestCallFreesWhatItCopies watches the process: what leaks here is counted by nobody.
func TestCallFreesWhatItCopies(t *testing.T) {
	m, sigs := load(t, modeltest.Strings(), Options{})
	const rounds, size = 100, 1 << 20
	sig, in := sigs["serving_default"], modeltest.Strings1D(bytes.Repeat([]byte("x"), size), bytes.Repeat([]byte("y"), size))
	var before int64
	for i := range rounds {
		if i == 10 { // the allocators and pools have what they want by now
			before = residentBytes(t)
		}
		if _, err := m.Call(sig, []*tensor.Tensor{in}, []int{0, 1}, func(int, *tensor.Tensor) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if grown := residentBytes(t) - before; grown > rounds*size/4 {
		t.Errorf("%d calls with %d bytes each left %d bytes behind", rounds, 2*size, grown)
	}
}

func TestCallFromManyGoroutines(t *testing.T) {
	m, sigs := load(t, modeltest.TwoLayer(), Options{})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			x := make([]float32, 32)
			for i := range x {
				x[i] = float32(g + i)
			}
			want := modeltest.TwoLayerAnswer(x)
			for n := range 50 {
				got, err := callAll(t, m, sigs["serving_default"], at(floats(tensor.Shape{1, 32}, x...), n%2*4))
				if err != nil {
					t.Error(err)
					return
				}
				for i, y := range modeltest.FloatValues(got[0]) {
					if math.Abs(float64(y-want[i])) > 1e-3 {
						t.Errorf("caller %d: output %d is %g, want %g", g, i, y, want[i])
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestLoadGivesTensorFlowsCode(t *testing.T) {
	r := openRuntime(t)
	_, err := r.Load(t.TempDir(), Options{})
	wantCode(t, err, inference.NotFound, "Could not find SavedModel")
	dir := modeltest.Write(t, modeltest.HalfPlusTwo())
	_, err = r.Load(dir, Options{Tags: []string{"train"}})
	wantCode(t, err, inference.NotFound, "train")
	_, err = r.Load(modeltest.Write(t, modeltest.UnknownOp()), Options{})
	if err == nil || !strings.Contains(err.Error(), "InferdOpThatNobodyHas") {
		t.Errorf("%v", err)
	}
}

func TestHandleReadsTheBindingsFields(t *testing.T) {
	type other struct{ d *int } //nolint:unused // read by reflection, or rather not
	type number struct{ c int } //nolint:unused // read by reflection, or rather not
	for _, v := range []any{&other{}, other{}, &number{}, 1, (*other)(nil), nil} {
		if _, err := handle(v, "c"); err == nil {
			t.Errorf("a handle in %T", v)
		}
	}
	m, _ := load(t, modeltest.HalfPlusTwo(), Options{})
	devices, err := m.Devices()
	if err != nil || len(devices) == 0 || devices[0].Type != "CPU" {
		t.Errorf("%v %v", devices, err)
	}
}
