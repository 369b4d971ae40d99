// pad.go: inputs of different lengths in one batch (pad_variable_length_inputs).
package batch

import (
	"github.com/inferd/inferd/inference/tensor"
)

// level replaces the pieces that are smaller than the largest in some dimension after the first by padded copies. All have the same type
// and number of dimensions and at least one element. It reports false, and has changed nothing, when rows of that size would take more than maxBytes.
func level(pieces []*tensor.Tensor, rows, maxBytes int64) bool {
	most := append(tensor.Shape(nil), pieces[0].Shape...)
	same := true
	for _, t := range pieces[1:] {
		for i, d := range t.Shape[1:] {
			if d != most[i+1] {
				same = false
				most[i+1] = max(most[i+1], d)
			}
		}
	}
	if same {
		return true
	}
	most[0] = rows
	elements, err := most.Elements()
	if err != nil || elements > maxBytes/elementBytes(pieces[0].DType) {
		return false
	}
	for i, t := range pieces {
		if !t.Shape[1:].Equal(most[1:]) {
			pieces[i] = padTo(t, most)
		}
	}
	return true
}

// elementBytes is the memory of an element; of a string, its slice header.
func elementBytes(d tensor.DType) int64 {
	if d == tensor.String {
		return 24
	}
	return max(1, int64(d.Size()))
}

// padTo is a copy of t with the dimensions of most after the first; what t does not fill repeats its first element.
func padTo(t *tensor.Tensor, most tensor.Shape) *tensor.Tensor {
	shape := append(tensor.Shape{t.Shape[0]}, most[1:]...)
	out := &tensor.Tensor{DType: t.DType, Shape: shape}
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	if t.DType == tensor.String {
		out.Strings = make([][]byte, n)
		spread(out.Strings, t.Strings, t.Shape, shape, 1)
	} else {
		size := int64(t.DType.Size())
		out.Data = make([]byte, n*size)
		spread(out.Data, t.Data, t.Shape, shape, size)
	}
	return out
}

// spread fills dst with the first element of src, which takes size entries, and then copies src's innermost rows to their places.
func spread[E any](dst, src []E, from, to tensor.Shape, size int64) {
	for done := copy(dst, src[:size]); done < len(dst); {
		done += copy(dst[done:], dst[:done])
	}
	inner := len(from) - 1
	length := from[inner] * size
	at := make([]int64, inner) // the row's index in each outer dimension
	for len(src) > 0 {
		pos := int64(0)
		for i, x := range at {
			pos = pos*to[i] + x
		}
		copy(dst[pos*to[inner]*size:], src[:length])
		src = src[length:]
		for i := inner - 1; i >= 0; i-- {
			if at[i]++; at[i] < from[i] {
				break
			}
			at[i] = 0
		}
	}
}
