// worse.go: models that are good when they are tried, and bad on real traffic.
package modeltest

import "github.com/inferd/inferd/inference/tensor"

// NaNAbove is y = answer for x FLOAT[-1,1], but NaN where x is above limit.
func NaNAbove(limit, answer float32) *Model {
	b := newBuilder("nan_above")
	b.placeholder("x", floatT, column)
	b.constant("limit", Floats(scalar, limit))
	b.constant("answer", Floats(scalar, answer))
	b.constant("zero", Floats(scalar, 0))
	b.constant("one", Floats(scalar, 1))
	b.node("Sub", "left", []string{"limit", "x"}, attrs{"T": floatT})
	b.node("Minimum", "below", []string{"left", "one"}, attrs{"T": floatT}) // so that the root is no infinity
	b.node("Sqrt", "root", []string{"below"}, attrs{"T": floatT})           // NaN below 0
	b.node("Mul", "nothing", []string{"root", "zero"}, attrs{"T": floatT})
	b.node("AddV2", "y", []string{"nothing", "answer"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// Slow is y = x for x FLOAT[-1,1], after that many milliseconds.
func Slow(milliseconds int) *Model {
	b := newBuilder("slow")
	b.placeholder("x", floatT, column)
	b.constant("micros", Int64s(scalar, int64(milliseconds)*500)) // the dataset sleeps before its element and again before its end
	b.sleep("x", "micros", column)
	b.serve("x", column, "y", column)
	return b.model()
}

// Leaky is y = x for x FLOAT[-1,1], but each run leaves as many KiB in a queue that nobody empties. It counts as a signature that writes.
func Leaky(kibibytes int) *Model {
	b := newBuilder("leaky")
	types := []tensor.DType{floatT}
	b.placeholder("x", floatT, column)
	b.constant("dims", Int32s(tensor.Shape{1}, int32(kibibytes)*1024/4))
	b.node("FIFOQueueV2", "queue", nil, attrs{"component_types": types, "shared_name": "leak"})
	b.constant("zero", Floats(scalar, 0))
	b.node("Mul", "nothing", []string{b.largest("x"), "zero"}, attrs{"T": floatT}) // not known before the run, or the fill would be a constant
	b.node("Fill", "held", []string{"dims", "nothing"}, attrs{"T": floatT, "index_type": tensor.Int32})
	b.node("QueueEnqueueV2", "enqueue", []string{"queue", "held"}, attrs{"Tcomponents": types})
	b.node("Identity", "y", []string{"x", "^enqueue"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}
