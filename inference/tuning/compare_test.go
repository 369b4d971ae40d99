// compare_test.go: two scripted runners measured beside each other, on a clock of the test's own; and answers held against each other.
package tuning

import (
	"errors"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

const ms = time.Millisecond

func floats(t *testing.T, v ...float32) *tensor.Tensor {
	t.Helper()
	data := make([]byte, 4*len(v))
	for i, x := range v {
		bits := math.Float32bits(x)
		data[4*i], data[4*i+1], data[4*i+2], data[4*i+3] = byte(bits), byte(bits>>8), byte(bits>>16), byte(bits>>24)
	}
	made, err := tensor.New(tensor.Float, tensor.Shape{int64(len(v))}, data)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func works(t *testing.T) []Work {
	sig := &inference.Signature{Key: "serving_default", Batchable: true,
		Inputs:  []inference.TensorInfo{{Alias: "x", DType: tensor.Float, Shape: tensor.Shape{-1}}},
		Outputs: []inference.TensorInfo{{Alias: "y", DType: tensor.Float, Shape: tensor.Shape{-1}}}}
	one := Work{Signature: sig, Inputs: []*tensor.Tensor{floats(t, 1)}, Outputs: []int{0}, Rows: 1}
	eight := one
	eight.Times, eight.Rows = 8, 8
	return []Work{one, eight}
}

// runner takes fixed and, for each row, row.
func runner(width int, fixed, row time.Duration) *fake.Runner {
	return &fake.Runner{Width: width, Latency: func(r fake.Record) time.Duration { return fixed + time.Duration(r.Rows())*row }}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		name            string
		base, candidate *fake.Runner
		want            float64
	}{
		{"twice as fast", runner(4, 2*ms, 0), runner(4, ms, 0), 2},
		{"the same", runner(4, ms, ms), runner(4, ms, ms), 1},
		{"half the callers", runner(4, ms, 0), runner(2, ms, 0), 0.5},
		{"heavy", runner(4, 500*ms, 0), runner(4, 100*ms, 0), 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, err := Compare(t.Context(), c.base, c.candidate, works(t), Limits{Budget: time.Minute})
				if err != nil {
					t.Fatal(err)
				}
				if math.Abs(f.Gain-c.want) > 0.15*c.want || f.Pairs < leastPairs || !f.ByClock {
					t.Errorf("%+v, want a gain of %v", f, c.want)
				}
				if len(f.Rates) != 2 || f.Rates[8] <= 0 || f.Base[1] <= 0 || f.Alone <= 0 || f.BaseAlone <= 0 {
					t.Errorf("figures are missing: %+v", f)
				}
			})
		})
	}
}

// The budget ends what would take for ever, and what was measured is there.
func TestCompareKeepsToItsBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		f, err := Compare(t.Context(), runner(2, time.Second, 0), runner(2, time.Second, 0), works(t), Limits{Budget: 10 * time.Second})
		if err != nil || f.Pairs == 0 || f.Pairs >= leastPairs {
			t.Fatalf("%+v, %v", f, err)
		}
		if took := time.Since(began); took > 25*time.Second { // the first runs, and a pair that has begun
			t.Errorf("it took %v", took)
		}
		if v, _ := Decide(Plan{Freeze: true}, Plan{}, f); v != Unclear {
			t.Errorf("%s", v)
		}
	})
}

// Who fails is told apart: the candidate is given up, without the plan that it is held against nothing goes on.
func TestCompareSaysWhoFailed(t *testing.T) {
	broken := errors.New("broken")
	bad := func() *fake.Runner {
		return &fake.Runner{Width: 2, Graph: func(fake.Record) ([]*tensor.Tensor, error) { return nil, broken }}
	}
	good := func() *fake.Runner { return runner(2, ms, 0) }
	if _, err := Compare(t.Context(), good(), bad(), works(t), Limits{}); !errors.Is(err, broken) || errors.Is(err, ErrBase) {
		t.Errorf("candidate: %v", err)
	}
	if _, err := Compare(t.Context(), bad(), good(), works(t), Limits{}); !errors.Is(err, broken) || !errors.Is(err, ErrBase) {
		t.Errorf("base: %v", err)
	}
}

func TestUnlike(t *testing.T) {
	list := works(t)[:1]
	answer := func(list ...*tensor.Tensor) [][]*tensor.Tensor { return [][]*tensor.Tensor{list} }
	whole := func(b byte) *tensor.Tensor {
		made, err := tensor.New(tensor.Int8, tensor.Shape{1}, []byte{b})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	words := func(s string) *tensor.Tensor {
		made, err := tensor.NewStrings(tensor.Shape{1}, [][]byte{[]byte(s)})
		if err != nil {
			t.Fatal(err)
		}
		return made
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		name      string
		want, got [][]*tensor.Tensor
		unlike    bool
	}{
		{"the same", answer(floats(t, 1, 2)), answer(floats(t, 1, 2)), false},
		{"rounded", answer(floats(t, 1000, 0.5)), answer(floats(t, 1000.1, 0.4)), false},
		{"off", answer(floats(t, 1, 2)), answer(floats(t, 1, 2.1)), true},
		{"another shape", answer(floats(t, 1, 2)), answer(floats(t, 1)), true},
		{"another number of outputs", answer(floats(t, 1)), answer(), true},
		{"another type", answer(floats(t, 1)), answer(whole(1)), true},
		{"another whole number", answer(whole(1)), answer(whole(2)), true},
		{"the same whole number", answer(whole(1)), answer(whole(1)), false},
		{"another string", answer(words("a")), answer(words("b")), true},
		{"the same string", answer(words("a")), answer(words("a")), false},
		{"NaN both", answer(floats(t, nan)), answer(floats(t, nan)), false},
		{"NaN now", answer(floats(t, 1)), answer(floats(t, nan)), true},
		{"infinite both", answer(floats(t, inf)), answer(floats(t, inf)), false},
		{"infinite now", answer(floats(t, 1)), answer(floats(t, inf)), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if what := Unlike(list, c.want, c.got); (what != "") != c.unlike {
				t.Errorf("%q", what)
			}
		})
	}
}
