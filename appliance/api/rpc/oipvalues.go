// oipvalues.go: InferTensorContents and raw contents to tensors.
package rpc

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// contentsField is the field of InferTensorContents that holds the elements of d, 0 where there is none.
func contentsField(d tensor.DType) protowire.Number {
	switch d {
	case tensor.Bool:
		return contentsBool
	case tensor.Int8, tensor.Int16, tensor.Int32:
		return contentsInt
	case tensor.Int64:
		return contentsInt64
	case tensor.Uint8, tensor.Uint16, tensor.Uint32:
		return contentsUint
	case tensor.Uint64:
		return contentsUint64
	case tensor.Float:
		return contentsFloat
	case tensor.Double:
		return contentsDouble
	case tensor.String:
		return contentsBytes
	}
	return 0
}

var contentsNames = [numContents]string{contentsBool: "bool_contents", contentsInt: "int_contents", contentsInt64: "int64_contents",
	contentsUint: "uint_contents", contentsUint64: "uint64_contents", contentsFloat: "fp32_contents", contentsDouble: "fp64_contents", contentsBytes: "bytes_contents"}

// tensors are the request's inputs, which share its memory where the wire has their bytes as they are needed. left is the memory that they may
// fill beside it.
func (r *inferRequest) tensors(left *int64) ([]oip.Input, *inference.Error) {
	if len(r.raw) > 0 && len(r.raw) != len(r.inputs) {
		return nil, oip.Invalid("raw_input_contents has %d tensors, but there are %d inputs; send one for each of the inputs, in their order, or none", len(r.raw), len(r.inputs))
	}
	list := make([]oip.Input, len(r.inputs))
	for i := range r.inputs {
		in := &r.inputs[i]
		name := string(in.name)
		for k := range in.params {
			if err := oip.TensorParameter(name, string(in.params[k].name)); err != nil {
				return nil, err
			}
		}
		d, err := oip.ParseDType(name, in.datatype)
		if err != nil {
			return nil, err
		}
		list[i].Name = name
		if len(r.raw) == 0 {
			list[i].Tensor, err = in.typed(name, d, left)
		} else if num := in.contents.first(); num > 0 {
			return nil, oip.Invalid("input %q has elements in %s, and raw_input_contents was sent too; send all inputs in the one way or in the other", oip.Cut(name), contentsNames[num])
		} else {
			list[i].Tensor, err = oip.Raw(name, d, in.shape, r.raw[i], left)
		}
		if err != nil {
			return nil, err
		}
	}
	return list, nil
}

// first is the first field that has elements, 0 when none has.
func (c *wireContents) first() protowire.Number {
	for num, n := range c.counts {
		if n > 0 {
			return protowire.Number(num)
		}
	}
	return 0
}

// typed makes a tensor of the input's contents.
func (in *inferInput) typed(name string, d tensor.DType, left *int64) (*tensor.Tensor, *inference.Error) {
	num := contentsField(d)
	if num == 0 {
		return nil, oip.Invalid("input %q of datatype %s has no field in contents; send its elements in raw_input_contents", oip.Cut(name), oip.Datatype(d))
	}
	n, err := in.shape.Elements()
	if err != nil {
		return nil, oip.Invalid("input %q: %v", oip.Cut(name), err)
	}
	for other, count := range in.contents.counts {
		if count > 0 && protowire.Number(other) != num {
			return nil, oip.Invalid("input %q of datatype %s is read from %s, but there are %d elements in %s", oip.Cut(name), oip.Datatype(d), contentsNames[num], count, contentsNames[other])
		}
	}
	if count := int64(in.contents.counts[num]); count != n {
		return nil, oip.Invalid("input %q of datatype %s and shape %v takes %d elements in %s, got %d", oip.Cut(name), oip.Datatype(d), in.shape, n, contentsNames[num], count)
	}
	size := int64(d.Size())
	if d == tensor.String {
		size = oip.StringHeader
	}
	if b, ok := in.contents.inPlace(num, n*size); ok {
		return &tensor.Tensor{DType: d, Shape: in.shape, Data: b}, nil
	}
	if n > *left/size {
		return nil, oip.TooLarge(name)
	}
	*left -= n * size
	if d == tensor.String {
		return &tensor.Tensor{DType: d, Shape: in.shape, Strings: in.contents.strings(n)}, nil
	}
	data := make([]byte, n*size)
	if bad, at, ok := in.contents.numbers(num, d, data); !ok {
		return nil, oip.Invalid("input %q of datatype %s: element %d in %s is %d, which that datatype cannot hold", oip.Cut(name), oip.Datatype(d), at, contentsNames[num], bad)
	}
	return &tensor.Tensor{DType: d, Shape: in.shape, Data: data}, nil
}

// inPlace is the payload of a floating-point field whose elements all lie packed in one piece, as tensor bytes do.
func (c *wireContents) inPlace(num protowire.Number, size int64) (b []byte, ok bool) {
	if num != contentsFloat && num != contentsDouble || size == 0 {
		return nil, false
	}
	return c.onePiece(num, size)
}

func (c *wireContents) strings(n int64) [][]byte {
	list := make([][]byte, 0, n)
	c.each(contentsBytes, func(f *field) bool {
		if f.typ == protowire.BytesType {
			list = append(list, f.b)
		}
		return true
	})
	return list
}

// numbers writes the elements of field num to dst, which has room for them all. ok is false for one that d cannot hold: bad, the at-th.
func (c *wireContents) numbers(num protowire.Number, d tensor.DType, dst []byte) (bad int64, at int, ok bool) {
	element, _ := contentsElement(num)
	size, to := d.Size(), dst
	ok = true
	put := func(v uint64) bool {
		if bad, ok = putElement(to, d, v); ok {
			to = to[size:]
			at++
		}
		return ok
	}
	c.each(num, func(f *field) bool {
		switch {
		case element != protowire.VarintType:
			if f.typ == element || f.typ == protowire.BytesType {
				tensor.CountCopy(len(f.b))
				to = to[copy(to, f.b):]
			}
		case f.typ == protowire.VarintType:
			return put(f.v)
		case f.typ == protowire.BytesType:
			for b := f.b; len(b) > 0; {
				v, n := uint64(b[0]), 1
				if v >= 0x80 {
					if v, n = protowire.ConsumeVarint(b); n < 0 {
						return false
					}
				}
				b = b[n:]
				if !put(v) {
					return false
				}
			}
		}
		return true
	})
	return bad, at, ok
}

// putElement stores the varint v as an element of d. The fields of small integers have 32 bits, as the generated code reads them; a value in
// them that d cannot hold is not stored but returned.
func putElement(dst []byte, d tensor.DType, v uint64) (bad int64, ok bool) {
	switch d {
	case tensor.Bool:
		dst[0] = boolBit(v)
	case tensor.Int8:
		n := int32(v)
		dst[0] = byte(n)
		return int64(n), n == int32(int8(n))
	case tensor.Int16:
		n := int32(v)
		binary.LittleEndian.PutUint16(dst, uint16(n))
		return int64(n), n == int32(int16(n))
	case tensor.Uint8:
		n := uint32(v)
		dst[0] = byte(n)
		return int64(n), n == uint32(uint8(n))
	case tensor.Uint16:
		n := uint32(v)
		binary.LittleEndian.PutUint16(dst, uint16(n))
		return int64(n), n == uint32(uint16(n))
	case tensor.Int32, tensor.Uint32:
		binary.LittleEndian.PutUint32(dst, uint32(v))
	default: // Int64, Uint64
		binary.LittleEndian.PutUint64(dst, v)
	}
	return 0, true
}
