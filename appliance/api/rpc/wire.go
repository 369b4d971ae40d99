// wire.go: PredictRequest read by hand, sharing the memory of the message.
package rpc

import (
	"errors"
	"fmt"
	"unicode/utf8"

	resourcepb "github.com/wamuir/graft/tensorflow/core/framework/resource_handle_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference/tensor"
)

var (
	errMalformed = errors.New("malformed message: a tag, a length or a number does not end inside it")
	errUTF8      = errors.New("malformed message: a string field contains invalid UTF-8")
)

// maxEntries bounds the inputs and the output names of one request. The generated code has no such bound, and needs some 600 bytes of
// memory for an input that takes 2 on the wire.
const maxEntries = 1 << 16

// request is a parsed PredictRequest. Every slice in it lies in buffer.
type request struct {
	hasSpec bool
	spec    wireSpec
	inputs  []wireInput // in the order of first appearance, one per name
	filter  [][]byte    // output_filter

	byName map[string]int // index into inputs, once they are many
	held
}

// wireSpec is a ModelSpec.
type wireSpec struct {
	name, signature, label []byte
	version                int64
	choice                 choice
}

// choice is which member of ModelSpec's version_choice was sent last.
type choice int

const (
	choiceNone choice = iota
	choiceVersion
	choiceLabel
)

// wireInput is one entry of PredictRequest.inputs.
type wireInput struct {
	alias  []byte
	tensor wireTensor
}

// wireTensor is a TensorProto whose values have been checked to be well formed and counted, but not yet converted.
type wireTensor struct {
	dtype       int32
	dims        tensor.Shape // at most MaxRank+1 of them: more are invalid, and only counted as that
	unknownRank bool
	content     []byte
	float8      []byte
	counts      [numFields]int // of values, by field number
	parts
}

// Field numbers of TensorProto's values.
const (
	fieldFloat    = 5
	fieldDouble   = 6
	fieldInt      = 7
	fieldString   = 8
	fieldSComplex = 9
	fieldInt64    = 10
	fieldBool     = 11
	fieldDComplex = 12
	fieldHalf     = 13
	fieldUint32   = 16
	fieldUint64   = 17
	fieldFloat8   = 18
	numFields     = 19
)

// field is one field of a message as it lies on the wire.
type field struct {
	num protowire.Number
	typ protowire.Type
	v   uint64 // of a varint
	b   []byte // the payload of bytes, or the 4 or 8 bytes of a fixed number
}

// next takes the first field off b.
func next(b []byte) (f field, rest []byte, err error) {
	var tag uint64
	if b[0] < 0x80 {
		tag, b = uint64(b[0]), b[1:]
	} else {
		v, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return f, nil, errMalformed
		}
		tag, b = v, b[n:]
	}
	num := tag >> 3
	if num < uint64(protowire.MinValidNumber) || num > uint64(protowire.MaxValidNumber) {
		return f, nil, errMalformed
	}
	f.num, f.typ = protowire.Number(num), protowire.Type(tag&7)
	n := 0
	switch f.typ {
	case protowire.VarintType:
		f.v, n = protowire.ConsumeVarint(b)
	case protowire.BytesType:
		f.b, n = protowire.ConsumeBytes(b)
	case protowire.Fixed32Type, protowire.Fixed64Type:
		n = 4
		if f.typ == protowire.Fixed64Type {
			n = 8
		}
		if len(b) < n {
			return f, nil, errMalformed
		}
		f.b = b[:n:n]
	default: // a group is unknown to every message here; its end without a beginning is an error
		n = protowire.ConsumeFieldValue(f.num, f.typ, b)
	}
	if n < 0 {
		return f, nil, errMalformed
	}
	return f, b[n:], nil
}

// is reports whether the field is num with that wire type; otherwise it is unknown and skipped, as the generated code does.
func (f *field) is(num protowire.Number, typ protowire.Type) bool {
	return f.num == num && f.typ == typ
}

// Depth of messages that may still be nested in a message, as the generated code would count at that place.
const (
	depthInRequest = protowire.DefaultRecursionLimit - 1
	depthInTensor  = protowire.DefaultRecursionLimit - 3
)

// parse reads b, which it keeps.
func (r *request) parse(b []byte) error {
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
			r.hasSpec = true
			err = r.spec.merge(f.b)
		case 2:
			err = r.entry(f.b)
		case 3:
			if !utf8.Valid(f.b) {
				return errUTF8
			}
			if len(r.filter) == maxEntries {
				return fmt.Errorf("the request names more than %d outputs", maxEntries)
			}
			r.filter = append(r.filter, f.b)
		case 5:
			err = wellFormed(f.b, &pb.PredictStreamedOptions{}, depthInRequest)
		case 7:
			err = wellFormed(f.b, &pb.PredictRequest_RequestOptions{}, depthInRequest)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// wellFormed holds a message that nothing here looks into against the generated code.
func wellFormed(b []byte, m proto.Message, depth int) error {
	return proto.UnmarshalOptions{RecursionLimit: depth, DiscardUnknown: true}.Unmarshal(b, m)
}

func (s *wireSpec) merge(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		if f.typ != protowire.BytesType {
			continue
		}
		if f.num == 2 {
			if s.choice != choiceVersion {
				s.choice, s.version, s.label = choiceVersion, 0, nil
			}
			if s.version, err = mergeInt64Value(s.version, f.b); err != nil {
				return err
			}
			continue
		}
		if (f.num == 1 || f.num == 3 || f.num == 4) && !utf8.Valid(f.b) {
			return errUTF8
		}
		switch f.num {
		case 1:
			s.name = f.b
		case 3:
			s.signature = f.b
		case 4:
			s.choice, s.version, s.label = choiceLabel, 0, f.b
		}
	}
	return nil
}

func mergeInt64Value(v int64, b []byte) (int64, error) {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return 0, err
		}
		b = rest
		if f.is(1, protowire.VarintType) {
			v = int64(f.v)
		}
	}
	return v, nil
}

// entry reads one entry of the inputs map. A later entry of the same name replaces the earlier one; parts of a value inside one entry are
// merged.
func (r *request) entry(b []byte) error {
	var in wireInput
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.BytesType):
			if !utf8.Valid(f.b) {
				return errUTF8
			}
			in.alias = f.b
		case f.is(2, protowire.BytesType):
			if err := in.tensor.merge(f.b); err != nil {
				return err
			}
		}
	}
	if i := r.find(in.alias); i >= 0 {
		r.inputs[i] = in
		return nil
	}
	if len(r.inputs) == maxEntries {
		return fmt.Errorf("the request has more than %d inputs", maxEntries)
	}
	r.inputs = append(r.inputs, in)
	if r.byName != nil {
		r.byName[string(in.alias)] = len(r.inputs) - 1
	}
	return nil
}

// fewInputs is where looking through all inputs stops to be the fastest way to find one.
const fewInputs = 16

// find is the index of the input with that name, -1 when there is none.
func (r *request) find(alias []byte) int {
	if len(r.inputs) <= fewInputs {
		for i := range r.inputs {
			if string(r.inputs[i].alias) == string(alias) {
				return i
			}
		}
		return -1
	}
	if r.byName == nil {
		r.byName = make(map[string]int, 2*len(r.inputs))
		for i := range r.inputs {
			r.byName[string(r.inputs[i].alias)] = i
		}
	}
	if i, ok := r.byName[string(alias)]; ok {
		return i
	}
	return -1
}

func (t *wireTensor) merge(raw []byte) error {
	t.add(raw)
	for b := raw; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(1, protowire.VarintType):
			t.dtype = int32(f.v)
		case f.is(2, protowire.BytesType):
			err = t.mergeShape(f.b)
		case f.is(4, protowire.BytesType):
			t.content = f.b
		case f.is(fieldString, protowire.BytesType):
			t.counts[fieldString]++
		case f.is(14, protowire.BytesType):
			err = wellFormed(f.b, &resourcepb.ResourceHandleProto{}, depthInTensor)
		case f.is(15, protowire.BytesType):
			err = wellFormed(f.b, &tensorpb.VariantTensorDataProto{}, depthInTensor)
		case f.is(fieldFloat8, protowire.BytesType):
			t.float8 = f.b
		case f.num < numFields:
			var n int
			n, err = countValues(&f)
			t.counts[f.num] += n
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// elementType is the wire type of one value of a repeated number field of TensorProto.
func elementType(num protowire.Number) (protowire.Type, bool) {
	switch num {
	case fieldFloat, fieldSComplex:
		return protowire.Fixed32Type, true
	case fieldDouble, fieldDComplex:
		return protowire.Fixed64Type, true
	case fieldInt, fieldInt64, fieldBool, fieldHalf, fieldUint32, fieldUint64:
		return protowire.VarintType, true
	}
	return 0, false
}

// countValues is the number of numbers in f: one, or as many as are packed. Other fields hold none.
func countValues(f *field) (int, error) {
	element, ok := elementType(f.num)
	if !ok {
		return 0, nil
	}
	return countNumbers(f, element)
}

// countNumbers is countValues for a field of numbers of that wire type.
func countNumbers(f *field, element protowire.Type) (int, error) {
	switch f.typ {
	case element:
		return 1, nil
	case protowire.BytesType:
	default:
		return 0, nil
	}
	switch element {
	case protowire.Fixed32Type:
		if len(f.b)%4 != 0 {
			return 0, errMalformed
		}
		return len(f.b) / 4, nil
	case protowire.Fixed64Type:
		if len(f.b)%8 != 0 {
			return 0, errMalformed
		}
		return len(f.b) / 8, nil
	}
	count := 0
	for b := f.b; len(b) > 0; count++ {
		if b[0] < 0x80 {
			b = b[1:]
			continue
		}
		_, n := protowire.ConsumeVarint(b)
		if n < 0 {
			return 0, errMalformed
		}
		b = b[n:]
	}
	return count, nil
}

func (t *wireTensor) mergeShape(b []byte) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		b = rest
		switch {
		case f.is(2, protowire.BytesType):
			size, err := parseDim(f.b)
			if err != nil {
				return err
			}
			if len(t.dims) <= tensor.MaxRank {
				t.dims = append(t.dims, size)
			}
		case f.is(3, protowire.VarintType):
			t.unknownRank = protowire.DecodeBool(f.v)
		}
	}
	return nil
}

func parseDim(b []byte) (size int64, err error) {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return 0, err
		}
		b = rest
		switch {
		case f.is(1, protowire.VarintType):
			size = int64(f.v)
		case f.is(2, protowire.BytesType):
			if !utf8.Valid(f.b) {
				return 0, errUTF8
			}
		}
	}
	return size, nil
}
