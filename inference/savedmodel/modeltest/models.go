// models.go: models that answer.
package modeltest

import (
	"encoding/binary"
	"math"
	"math/rand/v2"

	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

var (
	scalar = tensor.Shape{}
	column = tensor.Shape{-1, 1}
	vector = tensor.Shape{-1}
)

const floatT = tensor.Float

// serve signs x -> y of FLOAT.
func (b *builder) serve(x string, in tensor.Shape, y string, out tensor.Shape) *pb.SignatureDef {
	return b.sign(inference.DefaultSignature, []io{{"x", x, floatT, in}}, []io{{"y", y, floatT, out}})
}

// affine adds y = slope*x + offset.
func (b *builder) affine(x string, slope, offset float32) string {
	b.constant("slope", Floats(scalar, slope))
	b.constant("offset", Floats(scalar, offset))
	b.node("Mul", "mul", []string{x, "slope"}, attrs{"T": floatT})
	return b.node("AddV2", "y", []string{"mul", "offset"}, attrs{"T": floatT})
}

// HalfPlusTwo is y = 0.5x + 2 for x FLOAT[-1,1], with both numbers in variables.
func HalfPlusTwo() *Model { return Affine(0.5, 2) }

// Affine is y = slope*x + offset for x FLOAT[-1,1], with both in variables, so that versions of one model can be told apart.
func Affine(slope, offset float32) *Model {
	b := newBuilder("half_plus_two")
	b.placeholder("x", floatT, column)
	_, s := b.variable("slope", Floats(scalar, slope))
	_, o := b.variable("offset", Floats(scalar, offset))
	b.node("Mul", "mul", []string{"x", s}, attrs{"T": floatT})
	b.node("AddV2", "y", []string{"mul", o}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// WideHalfPlusTwo is y = 0.5x + 2 for x FLOAT[-1,-1], without variables: as many bytes as one likes in and out.
func WideHalfPlusTwo() *Model {
	b, shape := newBuilder("wide_half_plus_two"), tensor.Shape{-1, -1}
	b.placeholder("x", floatT, shape)
	b.affine("x", 0.5, 2)
	b.serve("x", shape, "y", shape)
	return b.model()
}

// MatrixHalfPlusTwo is y = 0.5x + 2 for x FLOAT[-1,3,3], without variables.
func MatrixHalfPlusTwo() *Model {
	b, shape := newBuilder("matrix_half_plus_two"), tensor.Shape{-1, 3, 3}
	b.placeholder("x", floatT, shape)
	b.affine("x", 0.5, 2)
	b.serve("x", shape, "y", shape)
	return b.model()
}

// TwoLayer is x FLOAT[-1,32] -> relu(x*w1 + b1)*w2 + b2 = y FLOAT[-1,10], 128 wide in the middle, with fixed weights in variables.
// [TwoLayerAnswer] computes the same in Go.
func TwoLayer() *Model {
	b, w := newBuilder("two_layer"), twoLayerWeights()
	b.placeholder("x", floatT, tensor.Shape{-1, 32})
	_, w1 := b.variable("w1", Floats(tensor.Shape{32, 128}, w.w1...))
	_, b1 := b.variable("b1", Floats(tensor.Shape{128}, w.b1...))
	_, w2 := b.variable("w2", Floats(tensor.Shape{128, 10}, w.w2...))
	_, b2 := b.variable("b2", Floats(tensor.Shape{10}, w.b2...))
	b.node("MatMul", "matmul1", []string{"x", w1}, attrs{"T": floatT})
	b.node("BiasAdd", "bias1", []string{"matmul1", b1}, attrs{"T": floatT})
	b.node("Relu", "relu", []string{"bias1"}, attrs{"T": floatT})
	b.node("MatMul", "matmul2", []string{"relu", w2}, attrs{"T": floatT})
	b.node("BiasAdd", "y", []string{"matmul2", b2}, attrs{"T": floatT})
	b.serve("x", tensor.Shape{-1, 32}, "y", tensor.Shape{-1, 10})
	return b.model()
}

type twoLayer struct{ w1, b1, w2, b2 []float32 }

func twoLayerWeights() twoLayer {
	r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // weights, not secrets
	fill := func(n int, scale float64) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = float32(r.NormFloat64() * scale)
		}
		return v
	}
	return twoLayer{w1: fill(32*128, 0.25), b1: fill(128, 0.1), w2: fill(128*10, 0.125), b2: fill(10, 0.1)}
}

// TwoLayerAnswer is what [TwoLayer] answers for one row of 32 numbers, but for the order of the additions: compare with a
// tolerance of 1e-4.
func TwoLayerAnswer(x []float32) []float32 {
	w := twoLayerWeights()
	hidden := layer(x, w.w1, w.b1)
	for i := range hidden {
		hidden[i] = max(hidden[i], 0)
	}
	return layer(hidden, w.w2, w.b2)
}

func layer(x, w, bias []float32) []float32 {
	y := make([]float32, len(bias))
	for j := range y {
		sum := float64(bias[j])
		for i := range x {
			sum += float64(x[i]) * float64(w[i*len(bias)+j])
		}
		y[j] = float32(sum)
	}
	return y
}

// Strings is x STRING[-1] -> "y", the same, and "greeting", "hello, " before each.
func Strings() *Model {
	b := newBuilder("strings")
	b.placeholder("x", tensor.String, vector)
	b.node("Identity", "y", []string{"x"}, attrs{"T": tensor.String})
	b.constant("hello", &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte("hello, ")}})
	b.node("StringJoin", "greeting", []string{"hello", "x"}, attrs{"N": 2})
	b.sign(inference.DefaultSignature, []io{{"x", "x", tensor.String, vector}},
		[]io{{"y", "y", tensor.String, vector}, {"greeting", "greeting", tensor.String, vector}})
	return b.model()
}

// TwoInputs is a, b FLOAT[-1,2] -> "sum" and "diff" (a - b).
func TwoInputs() *Model {
	b, shape := newBuilder("two_inputs"), tensor.Shape{-1, 2}
	b.placeholder("a", floatT, shape)
	b.placeholder("b", floatT, shape)
	b.node("AddV2", "sum", []string{"a", "b"}, attrs{"T": floatT})
	b.node("Sub", "diff", []string{"a", "b"}, attrs{"T": floatT})
	b.sign(inference.DefaultSignature, []io{{"a", "a", floatT, shape}, {"b", "b", floatT, shape}},
		[]io{{"sum", "sum", floatT, shape}, {"diff", "diff", floatT, shape}})
	return b.model()
}

// AllTypes is y = x for x of that type and shape [-1].
func AllTypes(d tensor.DType) *Model {
	b := newBuilder("identity_" + d.Name())
	b.placeholder("x", d, vector)
	b.node("Identity", "y", []string{"x"}, attrs{"T": d})
	b.sign(inference.DefaultSignature, []io{{"x", "x", d, vector}}, []io{{"y", "y", d, vector}})
	return b.model()
}

// Counter counts in a TensorFlow 1 variable of shape [], as TensorFlow Serving's own test model does. Its outputs, "output", have
// the type DT_FLOAT_REF. It has the signatures "get_counter", "incr_counter" and "reset_counter" without inputs, and "incr_counter_by"
// with the input "delta" FLOAT[]; no "serving_default".
func Counter() *Model {
	b := newBuilder("counter")
	v := b.refVariable("counter", Floats(scalar, 0))
	b.constant("one", Floats(scalar, 1))
	b.constant("zero", Floats(scalar, 0))
	b.placeholder("delta", floatT, scalar)
	b.node("AssignAdd", "incr", []string{v, "one"}, attrs{"T": floatT})
	b.node("AssignAdd", "incr_by", []string{v, "delta"}, attrs{"T": floatT})
	b.node("Assign", "reset", []string{v, "zero"}, attrs{"T": floatT})
	const ref = floatT + 100
	b.sign("get_counter", nil, []io{{"output", v, ref, scalar}})
	b.sign("incr_counter", nil, []io{{"output", "incr", ref, scalar}})
	b.sign("reset_counter", nil, []io{{"output", "reset", ref, scalar}})
	b.sign("incr_counter_by", []io{{"delta", "delta", floatT, scalar}}, []io{{"output", "incr_by", ref, scalar}})
	return b.model()
}

// Scalar is y = 0.5x + 2 for x FLOAT[].
func Scalar() *Model {
	b := newBuilder("scalar")
	b.placeholder("x", floatT, scalar)
	b.affine("x", 0.5, 2)
	b.serve("x", scalar, "y", scalar)
	return b.model()
}

// FixedBatch is y = 0.5x + 2 for x FLOAT[1,3]; its kernel refuses any other number of rows with INVALID_ARGUMENT.
func FixedBatch() *Model {
	b, shape := newBuilder("fixed_batch"), tensor.Shape{1, 3}
	b.placeholder("x", floatT, shape)
	b.constant("shape", Int32s(tensor.Shape{2}, 1, 3))
	b.node("Reshape", "reshaped", []string{"x", "shape"}, attrs{"T": floatT, "Tshape": tensor.Int32})
	b.affine("reshaped", 0.5, 2)
	b.serve("x", shape, "y", shape)
	return b.model()
}

// Defaults is y = x*scale for x FLOAT[-1,1] and "scale" FLOAT[], which is 10 when a request leaves it out.
func Defaults() *Model {
	b := newBuilder("defaults")
	b.placeholder("x", floatT, column)
	b.placeholder("scale", floatT, scalar)
	b.node("Mul", "y", []string{"x", "scale"}, attrs{"T": floatT})
	s := b.sign(inference.DefaultSignature,
		[]io{{"x", "x", floatT, column}, {"scale", "scale", floatT, scalar}}, []io{{"y", "y", floatT, column}})
	s.Defaults = map[string]*tensorpb.TensorProto{
		"scale": {Dtype: typespb.DataType_DT_FLOAT, TensorShape: shapeProto(scalar), FloatVal: []float32{10}},
	}
	return b.model()
}

// KeepsInput assigns x FLOAT[-1,1] to a variable and answers y = x; the signature "kept", without inputs, answers "y" with what was
// assigned last (before the first: one row, -1). TensorFlow keeps the input's buffer for the variable.
func KeepsInput() *Model {
	b := newBuilder("keeps_input")
	b.placeholder("x", floatT, column)
	handle := b.handle("kept", floatT, column)
	b.variables["kept"], b.restored = Floats(tensor.Shape{1, 1}, -1), append(b.restored, "kept")
	b.node("AssignVariableOp", "keep", []string{handle, "x"}, attrs{"dtype": floatT})
	b.node("Identity", "y", []string{"x", "^keep"}, attrs{"T": floatT})
	b.node("ReadVariableOp", "read", []string{handle}, attrs{"dtype": floatT})
	b.serve("x", column, "y", column)
	b.sign("kept", nil, []io{{"y", "read", floatT, column}})
	return b.model()
}

// Functions does its work in functions, as models of TensorFlow 2 do: "serving_default" is y = 0.5x + 2 for x FLOAT[-1,1] by a function
// that calls another; "remember" has x FLOAT[] and y, the same, and assigns x to a variable two functions deep; "recall", without
// inputs, answers "y" with the variable (-1 at first).
func Functions() *Model {
	b := newBuilder("functions")
	f, resource := []arg{{"x", floatT}}, arg{"v", tensor.Resource}
	out := []arg{{"y", floatT}}
	half := b.function("half", f, out, []*nodepb.NodeDef{
		nodeDef("Const", "slope", nil, attrs{"dtype": floatT, "value": Floats(scalar, 0.5)}),
		nodeDef("Mul", "mul", []string{"x", "slope:output:0"}, attrs{"T": floatT}),
	}, map[string]string{"y": "mul:z:0"})
	plusTwo := b.function("half_plus_two", f, out, []*nodepb.NodeDef{
		nodeDef("PartitionedCall", "half", []string{"x"}, attrs{"Tin": []tensor.DType{floatT}, "Tout": []tensor.DType{floatT}, "f": half}),
		nodeDef("Const", "offset", nil, attrs{"dtype": floatT, "value": Floats(scalar, 2)}),
		nodeDef("AddV2", "add", []string{"half:output:0", "offset:output:0"}, attrs{"T": floatT}),
	}, map[string]string{"y": "add:z:0"})
	assign := b.function("assign", []arg{resource, f[0]}, out, []*nodepb.NodeDef{
		nodeDef("AssignVariableOp", "set", []string{"v", "x"}, attrs{"dtype": floatT}),
		nodeDef("Identity", "same", []string{"x", "^set"}, attrs{"T": floatT}),
	}, map[string]string{"y": "same:output:0"})
	call := attrs{"Tin": []tensor.DType{tensor.Resource, floatT}, "Tout": []tensor.DType{floatT}}
	remember := b.function("remember", []arg{resource, f[0]}, out, []*nodepb.NodeDef{
		nodeDef("StatefulPartitionedCall", "inner", []string{"v", "x"}, call.with("f", assign)),
	}, map[string]string{"y": "inner:output:0"})

	b.placeholder("x", floatT, column)
	b.placeholder("scalar_x", floatT, scalar)
	handle, read := b.variable("v", Floats(scalar, -1))
	b.node("PartitionedCall", "y", []string{"x"}, attrs{"Tin": []tensor.DType{floatT}, "Tout": []tensor.DType{floatT}, "f": plusTwo})
	b.node("StatefulPartitionedCall", "remembered", []string{handle, "scalar_x"}, call.with("f", remember))
	b.serve("x", column, "y", column)
	b.sign("remember", []io{{"x", "scalar_x", floatT, scalar}}, []io{{"y", "remembered", floatT, scalar}})
	b.sign("recall", nil, []io{{"y", read, floatT, scalar}})
	return b.model()
}

// VariableLength is the sum of each row: x FLOAT[-1,-1] -> y FLOAT[-1]. Padding with zeros leaves the answer as it is.
func VariableLength() *Model {
	b, shape := newBuilder("variable_length"), tensor.Shape{-1, -1}
	b.placeholder("x", floatT, shape)
	b.constant("axis", Int32s(scalar, 1))
	b.node("Sum", "y", []string{"x", "axis"}, attrs{"T": floatT, "Tidx": tensor.Int32})
	b.serve("x", shape, "y", vector)
	return b.model()
}

// NaN is y = x/0 for x FLOAT[-1,1]: NaN for 0, Inf for more, -Inf for less.
func NaN() *Model {
	b := newBuilder("nan")
	b.placeholder("x", floatT, column)
	b.constant("zero", Floats(scalar, 0))
	b.node("RealDiv", "y", []string{"x", "zero"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// TFExample parses serialized tf.Examples, "examples" STRING[-1], and answers y = 0.5x + 2, FLOAT[-1,1], of their float feature "x".
// Anything else fails with INVALID_ARGUMENT. [Example] makes one.
func TFExample() *Model {
	b := newBuilder("tf_example")
	b.placeholder("examples", tensor.String, vector)
	b.constant("names", Strings1D())
	b.constant("none", Strings1D())
	b.constant("keys", Strings1D([]byte("x")))
	b.constant("default", Floats(tensor.Shape{0}))
	b.node("ParseExampleV2", "parse", []string{"examples", "names", "none", "keys", "none", "default"}, attrs{
		"Tdense": []tensor.DType{floatT}, "num_sparse": 0, "sparse_types": []tensor.DType{}, "ragged_value_types": []tensor.DType{},
		"ragged_split_types": []tensor.DType{}, "dense_shapes": []tensor.Shape{{1}},
	})
	b.affine("parse", 0.5, 2)
	b.sign(inference.DefaultSignature, []io{{"examples", "examples", tensor.String, vector}}, []io{{"y", "y", floatT, column}})
	return b.model()
}

// Example is a serialized tf.Example with the float feature "x".
func Example(x float32) []byte { return Features(map[string]float32{"x": x}) }

// BigVariables holds that many MiB in one variable and answers y = x + v[0] for x FLOAT[-1,1], v[0] being first.
func BigVariables(mebibytes int, first float32) *Model {
	b := newBuilder("big_variables")
	data := make([]byte, mebibytes<<20)
	binary.LittleEndian.PutUint32(data, math.Float32bits(first))
	for i := 4; i+4 <= len(data); i += 4096 { // no page stays a hole that costs nothing
		binary.LittleEndian.PutUint32(data[i:], math.Float32bits(1))
	}
	b.placeholder("x", floatT, column)
	handle := b.handle("v", floatT, tensor.Shape{int64(len(data) / 4)})
	b.variables["v"], b.restored = must(tensor.New(floatT, tensor.Shape{int64(len(data) / 4)}, data)), append(b.restored, "v")
	b.constant("zero", Int32s(scalar, 0))
	b.node("ResourceGather", "first", []string{handle, "zero"}, attrs{"dtype": floatT, "Tindices": tensor.Int32})
	b.node("AddV2", "y", []string{"x", "first"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}
