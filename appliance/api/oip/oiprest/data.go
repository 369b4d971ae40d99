// data.go: the elements of an input, in JSON or raw behind it.
package oiprest

import (
	"encoding/binary"
	"math"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// small are the types that are read as 32 bits and then held against their range.
var small = map[tensor.DType]struct{ low, high int32 }{
	tensor.Int8: {math.MinInt8, math.MaxInt8}, tensor.Int16: {math.MinInt16, math.MaxInt16},
	tensor.Uint8: {0, math.MaxUint8}, tensor.Uint16: {0, math.MaxUint16},
}

// inJSON reports whether tensors of the type can be written in JSON.
func inJSON(d tensor.DType) bool {
	switch d {
	case tensor.Float, tensor.Double, tensor.Int32, tensor.Int64, tensor.Uint32, tensor.Uint64, tensor.Bool, tensor.String:
		return true
	}
	_, ok := small[d]
	return ok
}

// data reads the value of in.data, whose type is known, into memory of its own. It returns the offset after it.
func (d *document) data(in *input) int {
	if !inJSON(in.dtype) {
		return d.refuse(oip.Invalid("input %q: tensors of datatype %s are not sent in JSON, which has no form for them; send them as binary data (binary_data_size)", oip.Cut(in.name), oip.Datatype(in.dtype)))
	}
	if d.used == len(d.values) {
		d.values = append(d.values, new(rest.Value))
	}
	in.value = d.values[d.used]
	d.used++
	read := in.dtype
	_, narrow := small[in.dtype]
	if narrow {
		read = tensor.Int32
	}
	end := in.value.Read(d.b, in.data, read, d.strict, d.maxBytes)
	if end < 0 {
		return d.refuse(d.why(in, read))
	}
	in.content = tensor.Tensor{DType: in.dtype, Data: in.value.Data()}
	if in.dtype == tensor.String {
		in.content = tensor.Tensor{DType: tensor.String, Strings: in.value.Strings()}
	}
	if narrow {
		var err *inference.Error
		if in.content.Data, err = in.narrow(in.content.Data); err != nil {
			return d.refuse(err)
		}
	}
	return end
}

// narrow makes the integers of 32 bits in data smaller, in place.
func (in *input) narrow(data []byte) ([]byte, *inference.Error) {
	limits, size := small[in.dtype], in.dtype.Size()
	for i := range len(data) / 4 {
		n := int32(binary.LittleEndian.Uint32(data[4*i:]))
		switch {
		case n < limits.low || n > limits.high:
			return nil, oip.Invalid("input %q of datatype %s: element %d is %d, and the type goes from %d to %d", oip.Cut(in.name), oip.Datatype(in.dtype), i, n, limits.low, limits.high)
		case size == 1:
			data[i] = byte(n)
		default:
			binary.LittleEndian.PutUint16(data[2*i:], uint16(n))
		}
	}
	return data[:len(data)/4*size], nil
}

// take gives the elements that were read the declared shape: they lay in one list, or in lists within each other as the shape has them.
func (in *input) take() *inference.Error {
	want, err := in.shape.Elements()
	if err != nil {
		return oip.Invalid("input %q: %v", oip.Cut(in.name), err)
	}
	nested := in.value.Shape()
	got, _ := nested.Elements() // they are in memory
	if got != want {
		return oip.Invalid("input %q of datatype %s and shape %v takes %d elements, got %d", oip.Cut(in.name), oip.Datatype(in.dtype), in.shape, want, got)
	}
	if len(nested) > 1 && want > 0 && !wide(nested).Equal(wide(in.shape)) {
		return oip.Invalid("input %q has the shape %v, and its data lies in lists of shape %v; send one list, or lists of that shape", oip.Cut(in.name), in.shape, nested)
	}
	in.content.Shape = in.shape
	return nil
}

// wide is the shape without the dimensions of one element, about which nobody is mistaken in a harmful way.
func wide(s tensor.Shape) tensor.Shape {
	var out tensor.Shape
	for _, n := range s {
		if n != 1 {
			out = append(out, n)
		}
	}
	return out
}

// why finds out what is wrong with the data of in, of which read could not be made. It takes time linear in its length.
func (d *document) why(in *input, read tensor.DType) *inference.Error {
	if _, err := rest.Skip(d.b, rest.Begin(d.b), d.strict); err != nil {
		return err
	}
	var (
		v     rest.Value
		depth int
		n     int64
	)
	b, i := d.b, in.data
	for {
		switch i = rest.Space(b, i); b[i] {
		case '[':
			if depth++; depth > tensor.MaxRank {
				return oip.Invalid("the data of input %q has more than %d lists within each other", oip.Cut(in.name), tensor.MaxRank)
			}
			i++
		case ']':
			depth--
			i++
		case ',':
			i++
		default:
			end, _ := rest.Skip(b, i, d.strict) // it is well formed
			if v.Read(b, i, read, d.strict, math.MaxInt32) < 0 {
				return oip.Invalid("input %q of datatype %s: element %d is %s, which is none", oip.Cut(in.name), oip.Datatype(in.dtype), n, oip.Cut(string(b[i:end])))
			}
			n++
			i = end
		}
		if depth == 0 {
			break
		}
	}
	size := int64(read.Size())
	if read == tensor.String {
		size = oip.StringHeader
	}
	if n > (int64(d.maxBytes)-8)/size {
		return oip.TooLarge(in.name)
	}
	return oip.Invalid("the data of input %q lies in lists of different lengths or depths; send one list, or lists of the shape %v", oip.Cut(in.name), in.shape)
}

// raw gives the inputs that have raw data theirs, in their order: together it is all of raw.
func (d *document) raw(raw []byte) *inference.Error {
	left := int64(d.maxBytes)
	rest := raw
	for i := range d.inputs {
		in := &d.inputs[i]
		if in.binary < 0 {
			continue
		}
		if in.binary > int64(len(rest)) {
			return oip.Invalid("input %q is said to have %d bytes of binary data (binary_data_size), %d are left of the %d after the JSON", oip.Cut(in.name), in.binary, len(rest), len(raw))
		}
		t, err := oip.Raw(in.name, in.dtype, in.shape, rest[:in.binary:in.binary], &left)
		if err != nil {
			return err
		}
		in.content, rest = *t, rest[in.binary:]
	}
	if len(rest) > 0 {
		return oip.Invalid("%d bytes of binary data are left over: %d came after the JSON, and the inputs' binary_data_size are %d together", len(rest), len(raw), len(raw)-len(rest))
	}
	return nil
}

// whole is the tensor of a request that is nothing but the bytes of its one input, and a batch of one.
func whole(v *inference.Version, sig *inference.Signature, body []byte) (*tensor.Tensor, *inference.Error) {
	if len(sig.Inputs) != 1 {
		return nil, oip.Invalid("a request without JSON (%s: 0) is for models with one input, and signature %q of model %s version %d has %d; send JSON", LengthHeader, sig.Key, v.Model, v.Number, len(sig.Inputs))
	}
	info := &sig.Inputs[0]
	if info.DType == tensor.String || info.Media != nil { // one element is all of the body
		return &tensor.Tensor{DType: tensor.String, Shape: onesFor(info), Strings: [][]byte{body}}, nil
	}
	if info.UnknownRank {
		return nil, oip.Invalid("input %q may have any shape, which bytes alone do not tell; send JSON with its shape", info.Alias)
	}
	shape, open := append(tensor.Shape{}, info.Shape...), -1
	for i, n := range shape {
		switch {
		case n >= 0:
		case i == 0 && len(shape) > 1:
			shape[i] = 1 // the batch
		case open >= 0:
			return nil, oip.Invalid("input %q of shape %v has more than one open dimension, which bytes alone do not tell; send JSON with its shape", info.Alias, info.Shape)
		default:
			open, shape[i] = i, 1
		}
	}
	one, err := shape.Bytes(info.DType)
	if err != nil {
		return nil, oip.Invalid("input %q: %v", info.Alias, err)
	}
	if open >= 0 && one > 0 {
		if int64(len(body))%one != 0 {
			return nil, oip.Invalid("input %q of datatype %s and shape %v takes a multiple of %d bytes, got %d", info.Alias, oip.Datatype(info.DType), info.Shape, one, len(body))
		}
		shape[open] = int64(len(body)) / one
	}
	none := int64(0)
	return oip.Raw(info.Alias, info.DType, shape, body, &none)
}

// onesFor is the shape of one element.
func onesFor(info *inference.TensorInfo) tensor.Shape {
	if info.Media != nil || info.UnknownRank {
		return tensor.Shape{1}
	}
	shape := make(tensor.Shape, len(info.Shape))
	for i := range shape {
		shape[i] = 1
	}
	return shape
}
