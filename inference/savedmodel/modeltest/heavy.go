// heavy.go: models that take time or memory in a known measure.
package modeltest

import "github.com/inferd/inferd/inference/tensor"

// Busy multiplies two matrices of side x side for each run, about 2*side^3 operations, and answers y = x + 1/side for x FLOAT[]. side is a
// power of two. Its requests cannot be joined.
func Busy(side int) *Model {
	b := newBuilder("busy")
	b.placeholder("x", floatT, scalar)
	_, v := b.variable("v", even(side))
	b.node("AddV2", "moved", []string{v, "x"}, attrs{"T": floatT})
	b.node("MatMul", "product", []string{"moved", v}, attrs{"T": floatT})
	b.constant("axes", Int32s(tensor.Shape{2}, 0, 1))
	b.node("Mean", "y", []string{"product", "axes"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.serve("x", scalar, "y", scalar)
	return b.model()
}

// BusyVector is Busy for the mean of x FLOAT[-1], so that a request may be as large as is wanted.
func BusyVector(side int) *Model {
	b := newBuilder("busy_vector")
	b.placeholder("x", floatT, vector)
	b.constant("axis", Int32s(tensor.Shape{1}, 0))
	b.node("Mean", "mean", []string{"x", "axis"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	_, v := b.variable("v", even(side))
	b.node("AddV2", "moved", []string{v, "mean"}, attrs{"T": floatT})
	b.node("MatMul", "product", []string{"moved", v}, attrs{"T": floatT})
	b.constant("axes", Int32s(tensor.Shape{2}, 0, 1))
	b.node("Mean", "y", []string{"product", "axes"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.serve("x", vector, "y", scalar)
	return b.model()
}

// KeepsAll puts each x FLOAT[-1] at the end of a queue that nobody reads, so that its worker grows by it, and answers its mean, y FLOAT[].
func KeepsAll() *Model {
	b := newBuilder("keeps_all")
	b.placeholder("x", floatT, vector)
	types := []tensor.DType{floatT}
	b.node("FIFOQueueV2", "queue", nil, attrs{"component_types": types, "capacity": -1, "shared_name": "kept"})
	b.constant("zero", Floats(scalar, 0))
	b.node("AddV2", "copy", []string{"x", "zero"}, attrs{"T": floatT}) // the input's own buffer is the caller's
	b.node("QueueEnqueueV2", "keep", []string{"queue", "copy"}, attrs{"Tcomponents": types})
	b.constant("axis", Int32s(tensor.Shape{1}, 0))
	b.node("Mean", "y", []string{"x", "axis", "^keep"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.serve("x", vector, "y", scalar)
	return b.model()
}

// Dense multiplies x FLOAT[-1,side] by a matrix of side x side, which takes 4*side^2 bytes, and answers the mean of each row, y FLOAT[-1],
// which is that of the row itself. side is a power of two, or the numbers are close.
func Dense(side int) *Model {
	b, rows := newBuilder("dense"), tensor.Shape{-1, int64(side)}
	b.placeholder("x", floatT, rows)
	_, w := b.variable("w", even(side))
	b.node("MatMul", "product", []string{"x", w}, attrs{"T": floatT})
	b.constant("axis", Int32s(scalar, 1))
	b.node("Mean", "y", []string{"product", "axis"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.serve("x", rows, "y", vector)
	return b.model()
}

// even is a square of numbers of which each row adds up to one.
func even(side int) *tensor.Tensor {
	v := make([]float32, side*side)
	for i := range v {
		v[i] = 1 / float32(side)
	}
	return Floats(tensor.Shape{int64(side), int64(side)}, v...)
}
