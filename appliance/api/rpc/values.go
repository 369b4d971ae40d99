// values.go: TensorProto to tensor, with TensorFlow's rules for content, typed values and values left out.
package rpc

import (
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/inference/tensor"
)

// errTooLarge is wrapped by the error about values that would be repeated past the limit.
var errTooLarge = errors.New("too large")

// valueField is the field of TensorProto that holds the values of d.
func valueField(d tensor.DType) protowire.Number {
	switch d {
	case tensor.Float:
		return fieldFloat
	case tensor.Double:
		return fieldDouble
	case tensor.Half, tensor.BFloat16:
		return fieldHalf
	case tensor.String:
		return fieldString
	case tensor.Complex64:
		return fieldSComplex
	case tensor.Complex128:
		return fieldDComplex
	case tensor.Int64:
		return fieldInt64
	case tensor.Bool:
		return fieldBool
	case tensor.Uint32:
		return fieldUint32
	case tensor.Uint64:
		return fieldUint64
	case tensor.Float8E5M2, tensor.Float8E4M3:
		return fieldFloat8
	default: // every integer of at most 32 bits, the quantized ones too
		return fieldInt
	}
}

var fieldNames = [numFields]string{fieldFloat: "float_val", fieldDouble: "double_val", fieldInt: "int_val", fieldString: "string_val",
	fieldSComplex: "scomplex_val", fieldInt64: "int64_val", fieldBool: "bool_val", fieldDComplex: "dcomplex_val", fieldHalf: "half_val",
	fieldUint32: "uint32_val", fieldUint64: "uint64_val", fieldFloat8: "float8_val"}

// decode converts the message. The tensor shares the request's memory where the wire has its bytes as they are needed. left is the
// memory that the request may still fill by repeating a last value. The errors say what was sent and what was expected.
func (t *wireTensor) decode(left *int64) (*tensor.Tensor, error) {
	d := tensor.DType(t.dtype)
	if !d.Carried() {
		return nil, fmt.Errorf("dtype %v cannot be sent; send the dtype that the signature declares", d)
	}
	if t.unknownRank {
		return nil, fmt.Errorf("tensor_shape has unknown_rank; send every dimension")
	}
	n, err := t.dims.Elements()
	if err != nil {
		return nil, err
	}
	if len(t.content) > 0 {
		return t.fromContent(d, n)
	}
	return t.fromValues(d, n, left)
}

func (t *wireTensor) fromContent(d tensor.DType, n int64) (*tensor.Tensor, error) {
	if d == tensor.String {
		elements, err := splitStrings(t.content, n)
		if err != nil {
			return nil, err
		}
		return tensor.NewStrings(t.dims, elements)
	}
	want, err := t.dims.Bytes(d)
	if err != nil {
		return nil, err
	}
	if want != int64(len(t.content)) {
		return nil, fmt.Errorf("tensor_content has %d bytes, but %v %v takes %d", len(t.content), d, t.dims, want)
	}
	return tensor.New(d, t.dims, t.content)
}

// splitStrings reads TensorFlow's packing of n strings: their lengths as varints, then their bytes.
func splitStrings(content []byte, n int64) ([][]byte, error) {
	if n > int64(len(content)) {
		return nil, fmt.Errorf("tensor_content has %d bytes, too few for the lengths of %d strings", len(content), n)
	}
	elements := make([][]byte, n)
	data := content
	for range n {
		v, size := protowire.ConsumeVarint(data)
		if size < 0 || v > uint64(len(content)) {
			return nil, fmt.Errorf("tensor_content of %d bytes does not begin with the lengths of %d strings", len(content), n)
		}
		data = data[size:]
	}
	lengths := content
	for i := range elements {
		v, size := protowire.ConsumeVarint(lengths)
		lengths = lengths[size:]
		if v > uint64(len(data)) {
			return nil, fmt.Errorf("tensor_content ends inside string %d of %d", i, n)
		}
		elements[i], data = data[:v:v], data[v:]
	}
	if len(data) > 0 {
		return nil, fmt.Errorf("tensor_content has %d bytes after the last of %d strings", len(data), n)
	}
	return elements, nil
}

// fromValues makes a tensor from the typed fields: too few values repeat the last one, none at all are zeros.
func (t *wireTensor) fromValues(d tensor.DType, n int64, left *int64) (*tensor.Tensor, error) {
	num := valueField(d)
	count, err := t.valueCount(d, num, n)
	if err != nil {
		return nil, err
	}
	size := int64(d.Size())
	if d == tensor.String {
		size = stringHeader
	}
	if count < n {
		if n > *left/size {
			return nil, fmt.Errorf("%w: %s has %d values for the %d elements of %v %v; repeating the last one would take more than the %d bytes that are left for the request",
				errTooLarge, fieldNames[num], count, n, d, t.dims, *left)
		}
		*left -= n * size
	}
	if d == tensor.String {
		return tensor.NewStrings(t.dims, t.strings(n))
	}
	if count == n {
		if b, ok := t.inPlace(num, n*size); ok {
			return tensor.New(d, t.dims, b)
		}
	}
	data := make([]byte, n*size)
	repeat(data, t.numbers(num, data, int(size)), int(size))
	return tensor.New(d, t.dims, data)
}

// stringHeader is the memory that an element takes beside its bytes.
const stringHeader = 24

// valueCount is the number of elements that the field num holds. It refuses more than n, half a complex number, and values in a field
// that is not read for d: TensorFlow would answer for zeros there.
func (t *wireTensor) valueCount(d tensor.DType, num protowire.Number, n int64) (int64, error) {
	count := int64(t.counts[num])
	switch num {
	case fieldFloat8:
		count = int64(len(t.float8))
	case fieldSComplex, fieldDComplex:
		if count%2 != 0 {
			return 0, fmt.Errorf("%s has %d numbers, but %v takes pairs", fieldNames[num], count, d)
		}
		count /= 2
	}
	if count > n {
		return 0, fmt.Errorf("%s has %d values, but %v %v takes %d", fieldNames[num], count, d, t.dims, n)
	}
	if count > 0 {
		return count, nil
	}
	for other, c := range t.counts {
		if other == fieldFloat8 {
			c = len(t.float8)
		}
		if c > 0 {
			return 0, fmt.Errorf("%s has %d values, but %v is read from %s", fieldNames[other], c, d, fieldNames[num])
		}
	}
	return 0, nil
}

// inPlace is the payload of a fixed-size number field whose values all lie packed in one piece, as tensor bytes do.
func (t *wireTensor) inPlace(num protowire.Number, size int64) (b []byte, ok bool) {
	if num == fieldFloat8 {
		return t.float8, true
	}
	if element, _ := elementType(num); element == protowire.VarintType || size == 0 {
		return nil, false
	}
	return t.onePiece(num, size)
}

// numbers writes the values of field num to dst, which has room for them, and returns the number of bytes written.
func (t *wireTensor) numbers(num protowire.Number, dst []byte, size int) int {
	if num == fieldFloat8 {
		return copy(dst, t.float8)
	}
	element, _ := elementType(num)
	at := 0
	t.each(num, func(f *field) bool {
		switch {
		case element != protowire.VarintType:
			if f.typ == element || f.typ == protowire.BytesType {
				tensor.CountCopy(len(f.b))
				at += copy(dst[at:], f.b)
			}
		case f.typ == protowire.VarintType:
			at += putInt(dst[at:], f.v, size, num)
		case f.typ == protowire.BytesType:
			for b := f.b; len(b) > 0; {
				v, n := uint64(b[0]), 1
				if v >= 0x80 {
					if v, n = protowire.ConsumeVarint(b); n < 0 {
						return false
					}
				}
				b = b[n:]
				at += putInt(dst[at:], v, size, num)
			}
		}
		return true
	})
	return at
}

// putInt stores the low bytes of v, as TensorFlow's cast from the field's type does.
func putInt(dst []byte, v uint64, size int, num protowire.Number) int {
	if num == fieldBool && v != 0 {
		v = 1
	}
	switch size {
	case 1:
		dst[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(dst, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(dst, uint32(v))
	default:
		binary.LittleEndian.PutUint64(dst, v)
	}
	return size
}

// repeat fills data behind its first written bytes with copies of the last element before them; nothing written leaves the zeros.
func repeat(data []byte, written, size int) {
	if written == 0 || written == len(data) {
		return
	}
	first := written - size
	for written < len(data) {
		written += copy(data[written:], data[first:written])
	}
}

// strings are the n elements of a string tensor.
func (t *wireTensor) strings(n int64) [][]byte {
	elements := make([][]byte, n)
	at := 0
	t.each(fieldString, func(f *field) bool {
		if f.typ == protowire.BytesType {
			elements[at] = f.b
			at++
		}
		return true
	})
	if at > 0 {
		for last := elements[at-1]; at < len(elements); at++ {
			elements[at] = last
		}
	}
	return elements
}
