// oipwire.go: ModelInferRequest read by hand, sharing the memory of the message.
package rpc

import (
	"encoding/binary"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference/tensor"
)

// inferRequest is a parsed ModelInferRequest. Every slice in it lies in buffer. One that was received is always there, and bad says why it could
// not be read: in a stream that is one request's error, and no more.
type inferRequest struct {
	model, version, id []byte
	params             []inferParam
	inputs             []inferInput
	outputs            []inferOutput
	raw                [][]byte // raw_input_contents

	bad error
	held
}

// inferParam is one entry of a map of parameters; a map has one per name.
type inferParam struct {
	name  []byte
	kind  paramKind
	bits  uint64 // of a number or a bool
	bytes []byte
}

// paramKind is which member of InferParameter was sent last, by its field number.
type paramKind int

const (
	paramNone paramKind = iota
	paramBool
	paramInt64
	paramString
	paramDouble
	paramUint64
)

// value is what oip.Parameters take; nil where none was sent.
func (p *inferParam) value() any {
	switch p.kind {
	case paramBool:
		return p.bits != 0
	case paramInt64:
		return int64(p.bits)
	case paramString:
		return string(p.bytes)
	case paramDouble:
		return math.Float64frombits(p.bits)
	case paramUint64:
		return p.bits
	}
	return nil
}

// inferInput is an InferInputTensor.
type inferInput struct {
	name, datatype []byte
	shape          tensor.Shape // at most MaxRank+1 dimensions: more are invalid, and only counted as that
	params         []inferParam
	contents       wireContents
}

// inferOutput is an InferRequestedOutputTensor.
type inferOutput struct {
	name   []byte
	params []inferParam
}

// wireContents are InferTensorContents whose elements have been checked to be well formed and counted, but not yet converted.
type wireContents struct {
	counts [numContents]int // of elements, by field number
	parts
}

// Field numbers of InferTensorContents.
const (
	contentsBool   = 1
	contentsInt    = 2
	contentsInt64  = 3
	contentsUint   = 4
	contentsUint64 = 5
	contentsFloat  = 6
	contentsDouble = 7
	contentsBytes  = 8
	numContents    = 9
)

// contentsElement is the wire type of one element of a field of InferTensorContents.
func contentsElement(num protowire.Number) (protowire.Type, bool) {
	switch num {
	case contentsBool, contentsInt, contentsInt64, contentsUint, contentsUint64:
		return protowire.VarintType, true
	case contentsFloat:
		return protowire.Fixed32Type, true
	case contentsDouble:
		return protowire.Fixed64Type, true
	case contentsBytes:
		return protowire.BytesType, true
	}
	return 0, false
}

// parse implements byHand. It never fails: see bad.
func (r *inferRequest) parse(b []byte) error {
	r.bad = r.read(b)
	return nil
}

// read reads b, which it keeps.
func (r *inferRequest) read(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		if f.typ != protowire.BytesType {
			continue
		}
		switch f.num {
		case 1:
			err = f.text(&r.model)
		case 2:
			err = f.text(&r.version)
		case 3:
			err = f.text(&r.id)
		case 4:
			r.params, err = mergeParam(r.params, f.b)
		case 5:
			err = r.input(f.b)
		case 6:
			err = r.output(f.b)
		case 7:
			if len(r.raw) == oip.MaxParts {
				return tooMany("raw_input_contents")
			}
			r.raw = append(r.raw, f.b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// text is the value of a string field.
func (f *field) text(to *[]byte) error {
	if !utf8.Valid(f.b) {
		return errUTF8
	}
	*to = f.b
	return nil
}

func tooMany(what string) error {
	return fmt.Errorf("the request has more than %d %s", oip.MaxParts, what)
}

func (r *inferRequest) input(b []byte) error {
	if len(r.inputs) == oip.MaxParts {
		return tooMany("inputs")
	}
	r.inputs = append(r.inputs, inferInput{})
	in := &r.inputs[len(r.inputs)-1]
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			err = f.text(&in.name)
		case f.is(2, protowire.BytesType):
			err = f.text(&in.datatype)
		case f.num == 3:
			err = in.dims(&f)
		case f.is(4, protowire.BytesType):
			in.params, err = mergeParam(in.params, f.b)
		case f.is(5, protowire.BytesType):
			err = in.contents.merge(f.b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// dims adds the dimensions of one field: one, or as many as are packed.
func (in *inferInput) dims(f *field) error {
	if f.typ == protowire.VarintType {
		in.dim(f.v)
		return nil
	}
	if f.typ != protowire.BytesType {
		return nil
	}
	if in.shape == nil && len(f.b) > 0 && len(f.b) <= tensor.MaxRank {
		in.shape = make(tensor.Shape, 0, len(f.b)) // at most one per byte
	}
	for b := f.b; len(b) > 0; {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return errMalformed
		}
		in.dim(v)
		b = b[n:]
	}
	return nil
}

func (in *inferInput) dim(v uint64) {
	if len(in.shape) <= tensor.MaxRank {
		in.shape = append(in.shape, int64(v))
	}
}

func (r *inferRequest) output(b []byte) error {
	if len(r.outputs) == oip.MaxParts {
		return tooMany("outputs")
	}
	var out inferOutput
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			err = f.text(&out.name)
		case f.is(2, protowire.BytesType):
			out.params, err = mergeParam(out.params, f.b)
		}
		if err != nil {
			return err
		}
	}
	r.outputs = append(r.outputs, out)
	return nil
}

// mergeParam adds one entry of a map of parameters. A later entry of the same name replaces the earlier one; parts of a value inside one entry
// are merged.
func mergeParam(list []inferParam, b []byte) ([]inferParam, error) {
	var p inferParam
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return nil, err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			err = f.text(&p.name)
		case f.is(2, protowire.BytesType):
			err = p.merge(f.b)
		}
		if err != nil {
			return nil, err
		}
	}
	for i := range list {
		if string(list[i].name) == string(p.name) {
			list[i] = p
			return list, nil
		}
	}
	if len(list) == maxParams {
		return nil, fmt.Errorf("the request has more than %d parameters in one place", maxParams)
	}
	return append(list, p), nil
}

// maxParams bounds the parameters of one request, input or output.
const maxParams = 64

func (p *inferParam) merge(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.VarintType):
			p.kind, p.bits = paramBool, uint64(boolBit(f.v))
		case f.is(2, protowire.VarintType):
			p.kind, p.bits = paramInt64, f.v
		case f.is(3, protowire.BytesType):
			p.kind = paramString
			err = f.text(&p.bytes)
		case f.is(4, protowire.Fixed64Type):
			p.kind, p.bits = paramDouble, binary.LittleEndian.Uint64(f.b)
		case f.is(5, protowire.VarintType):
			p.kind, p.bits = paramUint64, f.v
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func boolBit(v uint64) byte {
	if v != 0 {
		return 1
	}
	return 0
}

func (c *wireContents) merge(raw []byte) error {
	c.add(raw)
	for b := raw; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		element, ok := contentsElement(f.num)
		switch {
		case !ok:
		case element == protowire.BytesType:
			if f.typ == element {
				c.counts[f.num]++
			}
		default:
			n, err := countNumbers(&f, element)
			if err != nil {
				return err
			}
			c.counts[f.num] += n
		}
	}
	return nil
}
