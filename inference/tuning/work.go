// work.go: the runs that plans are compared by, and their answers.
package tuning

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Work is one request, run so many times at once in one run.
type Work struct {
	Signature *inference.Signature
	Inputs    []*tensor.Tensor
	Outputs   []int
	Times     int   // how often the inputs are joined into the run; 0 means 1
	Rows      int64 // of the whole run
}

func (w *Work) run() *inference.Run {
	run := &inference.Run{Signature: w.Signature, Inputs: make([]tensor.Parts, len(w.Inputs)), Outputs: w.Outputs}
	for i, t := range w.Inputs {
		pieces := make([]*tensor.Tensor, max(1, w.Times))
		for k := range pieces {
			pieces[k] = t
		}
		run.Inputs[i] = tensor.Parts{Pieces: pieces}
	}
	return run
}

// Answers runs each work once and returns copies of the outputs.
func Answers(ctx context.Context, r inference.Runner, list []Work) ([][]*tensor.Tensor, error) {
	all := make([][]*tensor.Tensor, len(list))
	for i := range list {
		res, err := r.Run(ctx, list[i].run())
		if err != nil {
			return nil, err
		}
		for _, t := range res.Outputs {
			all[i] = append(all[i], t.Clone())
		}
		res.Release()
	}
	return all, nil
}

// tolerance is by how much of the largest number in a tensor another order of rounding may change one.
const tolerance = 1e-3

// Unlike says where the answers got are not the answers want to the same work, "" where they are, but for rounding.
func Unlike(list []Work, want, got [][]*tensor.Tensor) string {
	for i := range list {
		if len(got[i]) != len(want[i]) {
			return fmt.Sprintf("%d outputs in place of %d", len(got[i]), len(want[i]))
		}
		for k := range want[i] {
			if what := differs(want[i][k], got[i][k]); what != "" {
				return fmt.Sprintf("output %q %s", list[i].Signature.Outputs[list[i].Outputs[k]].Alias, what)
			}
		}
	}
	return ""
}

func differs(want, got *tensor.Tensor) string {
	switch {
	case want.DType != got.DType:
		return fmt.Sprintf("is of type %s in place of %s", got.DType.Name(), want.DType.Name())
	case !want.Shape.Equal(got.Shape):
		return fmt.Sprintf("has shape %v in place of %v", got.Shape, want.Shape)
	case want.DType == tensor.String:
		for i := range want.Strings {
			if !bytes.Equal(want.Strings[i], got.Strings[i]) {
				return "has another string"
			}
		}
		return ""
	case want.DType != tensor.Float && want.DType != tensor.Double:
		if !bytes.Equal(want.Data, got.Data) {
			return "has other numbers"
		}
		return ""
	}
	largest := 0.0
	each(want, func(_ int, v float64) {
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			largest = max(largest, math.Abs(v))
		}
	})
	other := make([]float64, 0, len(got.Data)/got.DType.Size())
	each(got, func(_ int, v float64) { other = append(other, v) })
	worst := 0.0
	odd := false
	each(want, func(i int, v float64) {
		w := other[i]
		switch {
		case v == w || math.IsNaN(v) && math.IsNaN(w):
		case math.IsNaN(v) || math.IsNaN(w) || math.IsInf(v, 0) || math.IsInf(w, 0):
			odd = true
		default:
			worst = max(worst, math.Abs(v-w))
		}
	})
	switch {
	case odd:
		return "is NaN or infinite where it was not, or the other way round"
	case worst > tolerance*largest:
		return fmt.Sprintf("is off by %.3g, where the largest number is %.3g", worst, largest)
	}
	return ""
}

func each(t *tensor.Tensor, visit func(i int, v float64)) {
	if t.DType == tensor.Double {
		for i := range len(t.Data) / 8 {
			visit(i, math.Float64frombits(binary.LittleEndian.Uint64(t.Data[8*i:])))
		}
		return
	}
	for i := range len(t.Data) / 4 {
		visit(i, float64(math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))))
	}
}
