// value.go: JSON text to tensor memory and back, for another protocol's documents on the same port.
package rest

import (
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Sentinel is the number of NUL bytes that follow a document which the functions here read: so they need no bounds of their own.
const Sentinel = sentinel

// MaxTensorBytes is what the tensors of one request may take in memory, where its body may have so many bytes.
func MaxTensorBytes(maxRequestBytes int64) int { return maxTensorBytes(maxRequestBytes) }

// Space is the first offset from i on that holds no white space.
func Space(b []byte, i int) int { return space(b, i) }

// Begin is the offset of the document's first byte.
func Begin(b []byte) int { return begin(b) }

// Skip checks the value at b[i] and returns the offset after it.
func Skip(b []byte, i int, strict bool) (int, *inference.Error) {
	end, err := skip(b, i, strict)
	if err != nil {
		return end, err.client()
	}
	return end, nil
}

// Text is what the checked string at b[i] means, and the offset after it. It shares b where nothing is escaped.
func Text(b []byte, i int) ([]byte, int) { return text(b, i) }

// Int and Uint read the integer at b[i], Float any number. The offset is -1 where there is none, or none of that range.
func Int(b []byte, i int) (int64, int) { return intAt(b, i) }

// Uint is for what is beyond Int.
func Uint(b []byte, i int) (uint64, int) { return uintAt(b, i) }

// Float is for any number.
func Float(b []byte, i int, strict bool) (float64, int) { return float64At(b, i, strict) }

// AppendText quotes s, whose bytes are to be UTF-8.
func AppendText(dst, s []byte) []byte { return appendString(dst, s, true) }

// A Value is read from JSON into memory of its own, which is used again for the next.
type Value struct{ f filler }

// Read reads the value at b[i]: a number, truth value or string, or lists of them, all of one shape. It returns the offset after it, -1 where
// anything is wrong, or where it takes more than maxBytes. Integers of 8 and 16 bits are not read.
func (v *Value) Read(b []byte, i int, d tensor.DType, strict bool, maxBytes int) int {
	v.f.reset(d, false, strict, maxBytes)
	return v.f.item(b, i)
}

// Shape is how the lists lay within each other; Data and Strings are the elements. They are valid until the next Read.
func (v *Value) Shape() tensor.Shape { return v.f.dims }

// Data are the numbers.
func (v *Value) Data() []byte { return v.f.data }

// Strings are the strings, which may share the document's memory.
func (v *Value) Strings() [][]byte { return v.f.strings }

// Kept is the memory that the value holds, once it has let go of the document's.
func (v *Value) Kept() int {
	clear(v.f.strings)
	return cap(v.f.data) + stringHeader*cap(v.f.strings)
}

// AppendFlat writes every element of t, which is of a type that TensorFlow Serving's REST API can write, in one list. Strings are text.
func AppendFlat(dst []byte, t *tensor.Tensor, strict bool) ([]byte, *inference.Error) {
	e := encoder{out: append(dst, '['), strict: strict, compact: true}
	flat := *t
	flat.Shape = tensor.Shape{int64(elements(t))}
	if err := e.elements("", &flat, 0, 0, 0, true); err != nil {
		return dst, err
	}
	return append(e.out, ']'), nil
}
