// bad.go: models that sleep, hang, crash or fail.
package modeltest

import (
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// sleep adds nodes that give x back after that many microseconds (an INT64 node, shape []), without using the CPU. It holds no state,
// so the signature counts as one that does not write.
func (b *builder) sleep(x, micros string, shape tensor.Shape) string {
	types, shapes := []tensor.DType{floatT}, []tensor.Shape{shape}
	b.node("TensorDataset", "dataset", []string{x}, attrs{"Toutput_types": types, "output_shapes": shapes})
	b.node("SleepDataset", "slow", []string{"dataset", micros}, attrs{"output_types": types, "output_shapes": shapes})
	return b.node("DatasetToSingleElement", "y", []string{"slow"}, attrs{"output_types": types, "output_shapes": shapes})
}

// largest adds the largest element of x, a rank 2 node.
func (b *builder) largest(x string) string {
	b.constant("axes", Int32s(tensor.Shape{2}, 0, 1))
	return b.node("Max", "largest", []string{x, "axes"}, attrs{"T": floatT, "Tidx": tensor.Int32})
}

// Sleepy is y = x for x FLOAT[-1,1], after as many seconds as the largest x says (at once when it is not above 0).
func Sleepy() *Model {
	b := newBuilder("sleepy")
	b.placeholder("x", floatT, column)
	b.constant("half_million", Floats(scalar, 0.5e6)) // the dataset sleeps before its element and again before its end
	b.constant("zero", Floats(scalar, 0))
	b.node("Maximum", "seconds", []string{b.largest("x"), "zero"}, attrs{"T": floatT})
	b.node("Mul", "micros", []string{"seconds", "half_million"}, attrs{"T": floatT})
	b.node("Cast", "micros64", []string{"micros"}, attrs{"SrcT": floatT, "DstT": tensor.Int64})
	b.sleep("x", "micros64", column)
	b.serve("x", column, "y", column)
	return b.model()
}

// NeverReturns is y = x for x FLOAT[-1,1], but a run with an x above 0 never ends (it sleeps for a year).
func NeverReturns() *Model {
	b := newBuilder("never_returns")
	b.placeholder("x", floatT, column)
	b.constant("zero", Floats(scalar, 0))
	b.constant("year", Int64s(scalar, 365*24*3600*1_000_000))
	b.node("Greater", "hang", []string{b.largest("x"), "zero"}, attrs{"T": floatT})
	b.node("Cast", "hang64", []string{"hang"}, attrs{"SrcT": tensor.Bool, "DstT": tensor.Int64})
	b.node("Mul", "micros", []string{"hang64", "year"}, attrs{"T": tensor.Int64})
	b.sleep("x", "micros", column)
	b.serve("x", column, "y", column)
	return b.model()
}

// branch adds control flow of TensorFlow 1's kind: nodes whose names it returns run only when pred (BOOL[]) is true, or false.
// Both carry the value of x.
func (b *builder) branch(x, pred string) (whenTrue, whenFalse string) {
	b.node("Switch", "switch", []string{x, pred}, attrs{"T": floatT})
	whenTrue = b.node("Identity", "when_true", []string{"switch:1"}, attrs{"T": floatT})
	whenFalse = b.node("Identity", "when_false", []string{"switch:0"}, attrs{"T": floatT})
	return whenTrue, whenFalse
}

// Dequeues is y = x for x FLOAT[-1,1], but a run with an x above 0 waits for ever for an element of an empty queue, without a thread of
// its own. It touches a queue, so it counts as a signature that writes.
func Dequeues() *Model {
	b := newBuilder("dequeues")
	b.placeholder("x", floatT, column)
	b.constant("zero", Floats(scalar, 0))
	b.node("Greater", "hang", []string{b.largest("x"), "zero"}, attrs{"T": floatT})
	yes, no := b.branch("x", "hang")
	types := []tensor.DType{floatT}
	b.node("FIFOQueueV2", "queue", nil, attrs{"component_types": types, "shared_name": "queue"})
	b.node("QueueDequeueV2", "dequeue", []string{"queue", "^" + yes}, attrs{"component_types": types})
	b.node("Identity", "dequeued", []string{yes, "^dequeue"}, attrs{"T": floatT})
	b.node("Merge", "y", []string{no, "dequeued"}, attrs{"T": floatT, "N": 2})
	b.serve("x", column, "y", column)
	return b.model()
}

// Crasher is y = x for x FLOAT[-1,1], but a run with an x below 0 kills the process with SIGABRT.
func Crasher() *Model {
	b := newBuilder("crasher")
	b.placeholder("x", floatT, column)
	b.constant("zero", Floats(scalar, 0))
	b.constant("axes", Int32s(tensor.Shape{2}, 0, 1))
	b.node("Min", "smallest", []string{"x", "axes"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.node("Less", "die", []string{"smallest", "zero"}, attrs{"T": floatT})
	yes, no := b.branch("x", "die")
	b.node("Abort", "abort", []string{"^" + yes}, attrs{"error_msg": "the model crasher was asked to die"})
	b.node("Identity", "dead", []string{yes, "^abort"}, attrs{"T": floatT})
	b.node("Merge", "y", []string{no, "dead"}, attrs{"T": floatT, "N": 2})
	b.serve("x", column, "y", column)
	return b.model()
}

// Hungry is y = x for x FLOAT[-1,1], but a run holds base MiB more than it needs, and as many on top as the largest x above 0 says.
func Hungry(base int) *Model {
	b := newBuilder("hungry")
	b.placeholder("x", floatT, column)
	b.constant("zero", Floats(scalar, 0))
	b.constant("base", Floats(scalar, float32(base)))
	b.constant("floats", Floats(scalar, 1<<20/4)) // in a MiB
	b.constant("one", Floats(scalar, 1))
	b.constant("vector", Int32s(tensor.Shape{1}, 1))
	b.constant("first", Int32s(tensor.Shape{1}, 0))
	b.node("Maximum", "more", []string{b.largest("x"), "zero"}, attrs{"T": floatT})
	b.node("AddV2", "mebibytes", []string{"base", "more"}, attrs{"T": floatT})
	b.node("Mul", "length", []string{"mebibytes", "floats"}, attrs{"T": floatT})
	b.node("Cast", "length64", []string{"length"}, attrs{"SrcT": floatT, "DstT": tensor.Int64})
	b.node("Reshape", "dims", []string{"length64", "vector"}, attrs{"T": tensor.Int64, "Tshape": tensor.Int32})
	b.node("Fill", "held", []string{"dims", "one"}, attrs{"T": floatT, "index_type": tensor.Int64})
	b.node("Sum", "total", []string{"held", "first"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.node("Minimum", "nothing", []string{"total", "zero"}, attrs{"T": floatT}) // 0, and not known to be
	b.node("AddV2", "y", []string{"x", "nothing"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// UnknownOp has a node of an op that no runtime has: loading it fails.
func UnknownOp() *Model {
	b := newBuilder("unknown_op")
	b.placeholder("x", floatT, column)
	b.node("InferdOpThatNobodyHas", "y", []string{"x"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// NoRun loads, but every run fails with FAILED_PRECONDITION: it reads a variable that nobody initialised.
func NoRun() *Model {
	b := newBuilder("no_run")
	b.placeholder("x", floatT, column)
	handle := b.handle("missing", floatT, scalar)
	b.node("ReadVariableOp", "read", []string{handle}, attrs{"dtype": floatT})
	b.node("AddV2", "y", []string{"x", "read"}, attrs{"T": floatT})
	b.sign(inference.DefaultSignature, []io{{"x", "x", floatT, column}}, []io{{"y", "y", floatT, column}})
	return b.model()
}
