// datatype.go: the protocol's names of element types.
package oip

import (
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// words are the protocol's names. BYTES is a string of bytes per element.
var words = map[tensor.DType]string{
	tensor.Bool: "BOOL", tensor.Uint8: "UINT8", tensor.Uint16: "UINT16", tensor.Uint32: "UINT32", tensor.Uint64: "UINT64",
	tensor.Int8: "INT8", tensor.Int16: "INT16", tensor.Int32: "INT32", tensor.Int64: "INT64",
	tensor.Half: "FP16", tensor.BFloat16: "BF16", tensor.Float: "FP32", tensor.Double: "FP64", tensor.String: "BYTES",
}

// names has the types behind the words. Types that the protocol has no word for go by TensorFlow's (COMPLEX64, QINT8, ...): a model that has
// them can be described and, with raw tensors, asked.
var names = func() map[string]tensor.DType {
	m := make(map[string]tensor.DType)
	for d := tensor.Invalid + 1; d < 64; d++ {
		if d.Carried() {
			m[Datatype(d)] = d
		}
	}
	return m
}()

// Datatype is the name of the type.
func Datatype(d tensor.DType) string {
	if w, ok := words[d]; ok {
		return w
	}
	return strings.TrimPrefix(d.String(), "DT_")
}

// DType is the type of that name.
func DType(word []byte) (tensor.DType, bool) {
	d, ok := names[string(word)]
	return d, ok
}

// known are the protocol's own names, for messages.
const known = "BOOL, UINT8, UINT16, UINT32, UINT64, INT8, INT16, INT32, INT64, FP16, BF16, FP32, FP64 or BYTES"

// ParseDType is [DType] with an error for the input of that name.
func ParseDType(input string, word []byte) (tensor.DType, *inference.Error) {
	if d, ok := DType(word); ok {
		return d, nil
	}
	return tensor.Invalid, Invalid("input %q has the datatype %q, which is none; send %s", Cut(input), Cut(string(word)), known)
}

// Invalid is the error of a request that cannot be.
func Invalid(format string, args ...any) *inference.Error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)
}

// Cut is s, or its beginning where it is too long for a message.
func Cut(s string) string {
	if len(s) > 256 {
		return s[:256] + "..."
	}
	return s
}
