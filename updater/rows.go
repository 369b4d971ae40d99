// rows.go: whether a signature whose shapes allow batching may really be batched.
package updater

import (
	"bytes"
	"context"
	"encoding/binary"
	"math"
	"slices"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// tolerance is the relative difference that another order of summation may make in single precision. Mixed rows differ by far more.
const tolerance = 1e-2

// mixesRows reports whether the answer to a row depends on its neighbours in the batch: a filter along the first dimension, a
// normalisation over the batch. Shapes cannot show that, and joining such requests would give wrong answers without an error. Two
// different rows are run alone and together. Where that fails, or where the graph gives two answers to the same row (it draws random
// numbers), nothing is known and the shapes are believed.
func mixesRows(ctx context.Context, r inference.Runner, sig *inference.Signature, fill filling, limit int64) bool {
	a, err := makeInputs(sig, 1, fill, limit)
	if err != nil {
		return false
	}
	b := make([]*tensor.Tensor, len(a))
	differ := false
	for i, t := range a {
		var changed bool
		b[i], changed = another(t)
		differ = differ || changed
	}
	if !differ {
		return false
	}
	run := func(rows ...[]*tensor.Tensor) []*tensor.Tensor {
		run := &inference.Run{Signature: sig, Inputs: make([]tensor.Parts, len(a)), Outputs: make([]int, len(sig.Outputs))}
		for i := range run.Inputs {
			for _, row := range rows {
				run.Inputs[i].Pieces = append(run.Inputs[i].Pieces, row[i])
			}
		}
		for i := range run.Outputs {
			run.Outputs[i] = i
		}
		res, err := r.Run(ctx, run)
		if err != nil {
			return nil
		}
		defer res.Release()
		out := make([]*tensor.Tensor, len(res.Outputs))
		for i, t := range res.Outputs {
			if n, ok := t.Rows(); !ok || n != int64(len(rows)) {
				return nil // the batcher finds that out by itself, at the first joined run
			}
			out[i] = t.Clone()
		}
		return out
	}
	alone, other, both := run(a), run(b), run(a, b)
	if alone == nil || other == nil || both == nil {
		return false
	}
	for i := range both {
		if !alike(alone[i], both[i].Slice(0, 1)) || !alike(other[i], both[i].Slice(1, 2)) {
			again := run(a)
			return again != nil && slices.EqualFunc(alone, again, alike)
		}
	}
	return false
}

// another is the tensor with every number of floating point halved; changed is false for types whose numbers may be indexes, which stay.
func another(t *tensor.Tensor) (*tensor.Tensor, bool) {
	if len(t.Data) == 0 {
		return t, false
	}
	half := t.Clone()
	switch t.DType {
	case tensor.Float:
		for i := 0; i < len(half.Data); i += 4 {
			v := math.Float32frombits(binary.LittleEndian.Uint32(half.Data[i:]))
			binary.LittleEndian.PutUint32(half.Data[i:], math.Float32bits(v/2))
		}
	case tensor.Double:
		for i := 0; i < len(half.Data); i += 8 {
			v := math.Float64frombits(binary.LittleEndian.Uint64(half.Data[i:]))
			binary.LittleEndian.PutUint64(half.Data[i:], math.Float64bits(v/2))
		}
	default:
		return t, false
	}
	return half, !bytes.Equal(half.Data, t.Data)
}

// alike reports whether two outputs are the same value, but for rounding in floating point. Whole numbers and strings that come from
// rounded ones (an argmax) may flip at a tie, so only floating point is held against the tolerance and the rest is not compared.
func alike(a, b *tensor.Tensor) bool {
	if a.DType != b.DType || !a.Shape.Equal(b.Shape) {
		return false
	}
	number := func(data []byte) (float64, int) {
		if a.DType == tensor.Double {
			return math.Float64frombits(binary.LittleEndian.Uint64(data)), 8
		}
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(data))), 4
	}
	if a.DType != tensor.Float && a.DType != tensor.Double {
		return true
	}
	// Small numbers among large ones carry the large ones' rounding.
	largest := 0.0
	for x := a.Data; len(x) > 0; {
		v, size := number(x)
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			largest = math.Max(largest, math.Abs(v))
		}
		x = x[size:]
	}
	for x, y := a.Data, b.Data; len(x) > 0; {
		v, size := number(x)
		w, _ := number(y)
		if v != w && math.Abs(v-w) > tolerance*largest && !(math.IsNaN(v) && math.IsNaN(w)) {
			return false
		}
		if math.IsNaN(v) != math.IsNaN(w) {
			return false
		}
		x, y = x[size:], y[size:]
	}
	return true
}
