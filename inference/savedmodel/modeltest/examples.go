// examples.go: a model of tf.Examples as TensorFlow Serving's estimators have them.
package modeltest

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Examples parses serialised tf.Examples, "inputs" STRING[-1], with the float features "x" and, 0 where it is missing, "bias". An Example
// without x, or with another kind of x, fails with INVALID_ARGUMENT. With y = 0.5x + 2 + bias its signatures are
//
//   - "serving_default" and "classify": "classes" STRING[-1,2], each "high" above 2 and else "low", and "scores" FLOAT[-1,2], which are x and y;
//   - "classes" and "scores", with one of the two;
//   - "regress": "outputs" FLOAT[-1,1], which is y; "flat": the same as FLOAT[-1];
//   - "predict": "examples" instead of "inputs", and "y".
//
// The first five are signed for their own methods, as TensorFlow 1 does. [Features] makes an Example.
func Examples() *Model {
	b, pair := newBuilder("examples"), tensor.Shape{-1, 2}
	b.placeholder("inputs", tensor.String, vector)
	b.constant("names", Strings1D())
	b.constant("none", Strings1D())
	b.constant("keys", Strings1D([]byte("x"), []byte("bias")))
	b.constant("must", Floats(tensor.Shape{0}))
	b.constant("may", Floats(tensor.Shape{1}, 0))
	b.node("ParseExampleV2", "parse", []string{"inputs", "names", "none", "keys", "none", "must", "may"}, attrs{
		"Tdense": []tensor.DType{floatT, floatT}, "num_sparse": 0, "sparse_types": []tensor.DType{}, "ragged_value_types": []tensor.DType{},
		"ragged_split_types": []tensor.DType{}, "dense_shapes": []tensor.Shape{{1}, {1}},
	})
	b.constant("slope", Floats(scalar, 0.5))
	b.constant("offset", Floats(scalar, 2))
	b.node("Mul", "mul", []string{"parse", "slope"}, attrs{"T": floatT})
	b.node("AddV2", "add", []string{"mul", "offset"}, attrs{"T": floatT})
	b.node("AddV2", "y", []string{"add", "parse:1"}, attrs{"T": floatT})
	b.constant("axis", Int32s(scalar, 1))
	b.node("ConcatV2", "scores", []string{"parse", "y", "axis"}, attrs{"T": floatT, "N": 2, "Tidx": tensor.Int32})
	b.constant("high", &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte("high")}})
	b.constant("low", &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte("low")}})
	b.node("Greater", "above", []string{"scores", "offset"}, attrs{"T": floatT})
	b.node("SelectV2", "classes", []string{"above", "high", "low"}, attrs{"T": tensor.String})
	b.constant("any", Int32s(tensor.Shape{1}, -1))
	b.node("Reshape", "flat", []string{"y", "any"}, attrs{"T": floatT, "Tshape": tensor.Int32})

	in, predict := []io{{"inputs", "inputs", tensor.String, vector}}, []io{{"examples", "inputs", tensor.String, vector}}
	classes, scores := io{"classes", "classes", tensor.String, pair}, io{"scores", "scores", floatT, pair}
	sign := func(key, method string, in []io, out ...io) {
		b.sign(key, in, out).MethodName = "tensorflow/serving/" + method //nolint:staticcheck // metadata shows it still
	}
	sign(inference.DefaultSignature, "classify", in, classes, scores)
	sign("classify", "classify", in, classes, scores)
	sign("classes", "classify", in, classes)
	sign("scores", "classify", in, scores)
	sign("regress", "regress", in, io{"outputs", "y", floatT, column})
	sign("flat", "regress", in, io{"outputs", "flat", floatT, vector})
	sign("predict", "predict", predict, io{"y", "y", floatT, column})
	return b.model()
}

// Features is a serialised tf.Example with these float features.
func Features(values map[string]float32) []byte {
	var features []byte
	for _, name := range sortedKeys(values) {
		value := binary.LittleEndian.AppendUint32(nil, math.Float32bits(values[name]))
		feature := field(2, field(1, value)) // Feature.float_list.value
		features = slices.Concat(features, field(1, append(field(1, []byte(name)), field(2, feature)...)))
	}
	return field(1, features) // Example.features
}

// field is one length-delimited field of a protobuf message. Everything here is shorter than 128 bytes.
func field(n byte, content []byte) []byte {
	return append([]byte{n<<3 | 2, byte(len(content))}, content...)
}
