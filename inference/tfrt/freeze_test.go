// freeze_test.go: models of modeltest and others, frozen and as saved.
package tfrt

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/freeze"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// loadFolder loads the folder, as saved or frozen.
func loadFolder(tb testing.TB, dir string, frozen bool) (*Model, *savedmodel.Info) {
	tb.Helper()
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	r := openRuntime(tb)
	m, err := r.Load(dir, Options{Tags: info.Tags, Freeze: frozen, Signatures: info.Signatures})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
	})
	return m, info
}

// TestFreezeOrSayWhy freezes the models of modeltest that answer. What it cannot freeze it leaves as saved, with the reason.
func TestFreezeOrSayWhy(t *testing.T) {
	for name, want := range map[string]string{
		"half_plus_two": "", "two_layer": "", "busy": "", "dense": "", "big_variables": "",
		"captures": "", "loop": "", "branches": "", "old_style": "", "words": "",
		"strings": "it has no variables that could be frozen", "scalar": "it has no variables that could be frozen",
		"counter":     `signature "incr_counter" changes the model's state`,
		"functions":   `signature "remember" changes the model's state`,
		"keeps_input": `signature "serving_default" changes the model's state`,
	} {
		t.Run(name, func(t *testing.T) {
			made := modeltest.All()[name]()
			if name == "big_variables" {
				made = modeltest.BigVariables(4, 1)
			}
			before := Count()
			m, info := loadFolder(t, modeltest.Write(t, made), true)
			frozen, why := m.Frozen()
			if frozen != (want == "") || !frozen && why != want || frozen && why != "answers as saved on 1 runs" {
				t.Errorf("frozen %v: %s", frozen, why)
			}
			for _, sig := range info.Signatures {
				if in, ok := freeze.MakeUp(sig); ok && !sig.Writes {
					if _, err := callAll(t, m, sig, in...); err != nil {
						t.Error(err)
					}
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if after := Count(); after != before {
				t.Errorf("C objects before %+v, after %+v", before, after)
			}
		})
	}
}

// TestFrozenAnswers asks models whose variables are reached through functions, control flow and tables, as saved and frozen.
func TestFrozenAnswers(t *testing.T) {
	x := func(v float32) *tensor.Tensor { return floats(tensor.Shape{1, 1}, v) }
	for name, ask := range map[string]struct {
		in   []*tensor.Tensor
		want []string
	}{
		"captures":  {[]*tensor.Tensor{x(4), x(0)}, []string{"[4]", "[3]"}},
		"loop":      {[]*tensor.Tensor{x(1), x(-3)}, []string{"[8]", "[-24]"}},
		"branches":  {[]*tensor.Tensor{floats(tensor.Shape{}, 5), floats(tensor.Shape{}, -5)}, []string{"[10] [10]", "[-15] [-15]"}},
		"old_style": {[]*tensor.Tensor{x(2), floats(tensor.Shape{2, 1}, 2, 4)}, []string{"[2 4] [2 3] [3]", "[2 4] [2 3] [3 4]"}},
		"words":     {[]*tensor.Tensor{modeltest.Strings1D([]byte("two"), []byte("none"), []byte("one"))}, []string{"[3] [20 -1 10]"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := modeltest.Write(t, modeltest.All()[name]())
			for _, frozen := range []bool{false, true} {
				m, info := loadFolder(t, dir, frozen)
				if is, why := m.Frozen(); is != frozen {
					t.Fatal(why)
				}
				for i, in := range ask.in {
					got, err := callAll(t, m, info.Signatures[inference.DefaultSignature], in)
					if err != nil {
						t.Fatal(err)
					}
					var text []string
					for _, o := range got {
						if o.DType == tensor.Int32 {
							text = append(text, fmt.Sprint(ints(o)))
						} else {
							text = append(text, fmt.Sprint(modeltest.FloatValues(o)))
						}
					}
					if s := strings.Join(text, " "); s != ask.want[i] {
						t.Errorf("frozen %v: %s, want %s", frozen, s, ask.want[i])
					}
				}
			}
		})
	}
}

func ints(t *tensor.Tensor) (v []int32) {
	for i := 0; i < len(t.Data); i += 4 {
		v = append(v, int32(binary.LittleEndian.Uint32(t.Data[i:])))
	}
	return v
}

// TestFrozenSubset asks a frozen model for some of its outputs, in another order and twice.
func TestFrozenSubset(t *testing.T) {
	m, info := loadFolder(t, modeltest.Write(t, modeltest.OldStyle()), true)
	sig := info.Signatures[inference.DefaultSignature]
	for _, outputs := range [][]int{{2}, {1, 0}, {2, 2, 0}, {}} {
		var got []string
		_, err := m.Call(sig, []*tensor.Tensor{floats(tensor.Shape{1, 1}, 2)}, outputs, func(i int, o *tensor.Tensor) error {
			got = append(got, sig.Outputs[outputs[i]].Alias+fmt.Sprint(o.Shape))
			return nil
		})
		want := map[int]string{0: "picked[2,1]", 1: "rows[2]", 2: "y[1,1]"}
		for i, o := range outputs {
			if err != nil || i >= len(got) || got[i] != want[o] {
				t.Errorf("%v: got %v %v", outputs, got, err)
				break
			}
		}
		r, err := m.Run(t.Context(), &inference.Run{Signature: sig, Inputs: []tensor.Parts{tensor.One(floats(tensor.Shape{1, 1}, 2))}, Outputs: outputs})
		if err != nil || len(r.Outputs) != len(outputs) {
			t.Fatalf("%v: %v", outputs, err)
		}
		r.Release()
	}
}
