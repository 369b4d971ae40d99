// rows_test.go: batches whose rows influence each other, and those whose rows only look like it.
package updater

import (
	"context"
	"encoding/binary"
	"math"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// graph runs f over the values of the one input, joined.
func graph(f func(x []float32) []float32) *scripted {
	return &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
		p := run.Inputs[0]
		data := make([]byte, p.EncodedLen())
		p.Encode(data)
		x := make([]float32, len(data)/4)
		for i := range x {
			x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
		}
		y := f(x)
		out := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{int64(len(y))}}
		for _, v := range y {
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(v))
		}
		return inference.NewResult([]*tensor.Tensor{out}, nil), nil
	}}
}

func TestMixesRows(t *testing.T) {
	calls := 0
	for _, c := range []struct {
		name string
		f    func(x []float32) []float32
		want bool
	}{
		{"each row by itself", func(x []float32) []float32 {
			y := make([]float32, len(x))
			for i, v := range x {
				y[i] = 2*v + 1
			}
			return y
		}, false},
		{"a filter along the batch", func(x []float32) []float32 {
			y := make([]float32, len(x))
			for i, v := range x {
				y[i] = v
				if i > 0 {
					y[i] -= x[i-1]
				}
			}
			return y
		}, true},
		{"the mean of the batch", func(x []float32) []float32 {
			y, sum := make([]float32, len(x)), float32(0)
			for _, v := range x {
				sum += v
			}
			for i, v := range x {
				y[i] = v - sum/float32(len(x))
			}
			return y
		}, true},
		{"rounding", func(x []float32) []float32 {
			y := make([]float32, len(x))
			for i, v := range x {
				y[i] = v * (1 + 1e-5*float32(len(x)))
			}
			return y
		}, false},
		{"random numbers", func(x []float32) []float32 {
			y := make([]float32, len(x))
			for i := range y {
				calls++
				y[i] = float32(calls)
			}
			return y
		}, false},
		{"one number for the batch", func([]float32) []float32 { return []float32{1} }, false},
	} {
		sig := signature("s", true, tensor.Float, -1)
		if got := mixesRows(t.Context(), graph(c.f), sig, onesAndZeros, 1<<20); got != c.want {
			t.Errorf("%s: mixes rows %v, want %v", c.name, got, c.want)
		}
	}
	// Whole numbers may be indexes: there is no second row to make up, and nothing is run.
	r := graph(func(x []float32) []float32 { return x })
	if mixesRows(t.Context(), r, signature("s", true, tensor.Int32, -1), onesAndZeros, 1<<20) || len(r.runs) != 0 {
		t.Errorf("whole numbers: %d runs", len(r.runs))
	}
}

func TestProbeFindsMixedRows(t *testing.T) {
	r := graph(func(x []float32) []float32 {
		y := make([]float32, len(x))
		for i := range x {
			y[i] = x[0] + float32(len(x))
		}
		return y
	})
	p, err := Probe(t.Context(), r, map[string]*inference.Signature{"s": signature("s", true, tensor.Float, -1)}, ProbeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if sp := p.Signatures["s"]; !sp.Mixes || sp.Largest != 1 || sp.Limit == "" {
		t.Errorf("%+v", sp)
	}
	if singly := p.Singly(); !singly["s"] || len(singly) != 1 {
		t.Errorf("%v", singly)
	}
	if len(p.Warnings()) != 1 {
		t.Errorf("%q", p.Warnings())
	}
}
