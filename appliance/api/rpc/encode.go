// encode.go: PredictResponse written by hand from lent tensors into the buffer that goes to the socket.
package rpc

import (
	"encoding/binary"
	"iter"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// answer is a PredictResponse that is to be written, with its sizes.
type answer struct {
	v         *inference.Version
	sig       *inference.Signature
	indexes   []int // which of sig.Outputs the outputs are
	outputs   []*tensor.Tensor
	asContent bool
	sizes     []tensorSize
	spec      int // the size of model_spec
	total     int
}

func (a *answer) measure() {
	a.sizes = make([]tensorSize, len(a.outputs))
	a.spec = specSize(a.v, a.sig)
	a.total = sizeBytes(a.spec)
	for i, t := range a.outputs {
		a.sizes[i] = sizeTensor(t, a.asContent)
		a.total += sizeBytes(entrySize(a.sig.Outputs[a.indexes[i]].Alias, a.sizes[i].total))
	}
}

// append writes total bytes.
func (a *answer) append(b []byte) []byte {
	begin := len(b)
	for i, t := range a.outputs {
		alias := a.sig.Outputs[a.indexes[i]].Alias
		b = append(b, tag(1, protowire.BytesType)) // outputs
		b = binary.AppendUvarint(b, uint64(entrySize(alias, a.sizes[i].total)))
		b = append(b, tag(1, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(len(alias)))
		b = append(b, alias...)
		b = append(b, tag(2, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(a.sizes[i].total))
		b = appendTensor(b, t, a.sizes[i], a.asContent)
	}
	b = append(b, tag(2, protowire.BytesType)) // model_spec
	b = binary.AppendUvarint(b, uint64(a.spec))
	b = appendSpec(b, a.v, a.sig)
	if len(b)-begin != a.total {
		panic("rpc: response is not as long as was computed")
	}
	return b
}

// encodeReply writes outputs, which are those that indexes name, and copies all of them: the caller may release them afterwards.
func encodeReply(pool mem.BufferPool, v *inference.Version, sig *inference.Signature, indexes []int, outputs []*tensor.Tensor, asContent bool) *reply {
	a := answer{v: v, sig: sig, indexes: indexes, outputs: outputs, asContent: asContent}
	a.measure()
	data := pool.Get(a.total)
	*data = a.append((*data)[:0])
	return &reply{buffer: mem.NewBuffer(data, pool)}
}

// tag is the one byte of a field number below 16.
func tag(num protowire.Number, typ protowire.Type) byte { return byte(protowire.EncodeTag(num, typ)) }

// sizeBytes is the size of a field below 16 whose payload has n bytes.
func sizeBytes(n int) int { return 1 + protowire.SizeBytes(n) }

func entrySize(alias string, value int) int { return sizeBytes(len(alias)) + sizeBytes(value) }

// specSize is the size of the effective model_spec. Fields with the default value are left out, as the generated code does.
func specSize(v *inference.Version, sig *inference.Signature) int {
	n := sizeBytes(versionSize(v.Number))
	if v.Model != "" {
		n += sizeBytes(len(v.Model))
	}
	if sig.Key != "" {
		n += sizeBytes(len(sig.Key))
	}
	return n
}

func versionSize(number int64) int {
	if number == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(number))
}

func appendSpec(b []byte, v *inference.Version, sig *inference.Signature) []byte {
	if v.Model != "" {
		b = append(b, tag(1, protowire.BytesType))
		b = protowire.AppendString(b, v.Model)
	}
	b = append(b, tag(2, protowire.BytesType))
	b = binary.AppendUvarint(b, uint64(versionSize(v.Number)))
	if v.Number != 0 {
		b = append(b, tag(1, protowire.VarintType))
		b = binary.AppendUvarint(b, uint64(v.Number))
	}
	if sig.Key != "" {
		b = append(b, tag(3, protowire.BytesType))
		b = protowire.AppendString(b, sig.Key)
	}
	return b
}

// tensorSize has the sizes that precede a TensorProto's parts on the wire.
type tensorSize struct {
	shape, values, total int // values: the payload of the packed field or of tensor_content
}

func sizeTensor(t *tensor.Tensor, asContent bool) tensorSize {
	var s tensorSize
	for _, d := range t.Shape {
		s.shape += sizeBytes(dimSize(d))
	}
	s.total = 1 + protowire.SizeVarint(uint64(t.DType)) + sizeBytes(s.shape)
	if t.DType == tensor.String {
		for _, e := range t.Strings {
			s.total += sizeBytes(len(e))
		}
		return s
	}
	if len(t.Data) == 0 {
		return s
	}
	num := protowire.Number(4) // tensor_content
	s.values = len(t.Data)
	if !asContent {
		num = valueField(t.DType)
		s.values = packedSize(t, num)
	}
	s.total += protowire.SizeTag(num) + protowire.SizeBytes(s.values)
	return s
}

func dimSize(d int64) int {
	if d == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(uint64(d))
}

// packedSize is the payload of the packed field: what has a fixed size on the wire lies in a tensor as it does there.
func packedSize(t *tensor.Tensor, num protowire.Number) int {
	if element, ok := elementType(num); !ok || element != protowire.VarintType {
		return len(t.Data)
	}
	n := 0
	for v := range ints(t) {
		n += protowire.SizeVarint(v)
	}
	return n
}

// ints are the elements of an integer, bool or 16-bit float tensor, as the varints that TensorProto's fields hold: signed ones extended.
func ints(t *tensor.Tensor) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		size := t.DType.Size()
		for data := t.Data; len(data) >= size; data = data[size:] {
			var v uint64
			switch t.DType {
			case tensor.Bool:
				v = uint64(min(data[0], 1))
			case tensor.Uint8, tensor.QUint8, tensor.Uint4:
				v = uint64(data[0])
			case tensor.Int8, tensor.QInt8, tensor.Int4:
				v = uint64(int8(data[0]))
			case tensor.Int16, tensor.QInt16:
				v = uint64(int16(binary.LittleEndian.Uint16(data)))
			case tensor.Uint16, tensor.QUint16, tensor.Half, tensor.BFloat16:
				v = uint64(binary.LittleEndian.Uint16(data))
			case tensor.Int32, tensor.QInt32:
				v = uint64(int32(binary.LittleEndian.Uint32(data)))
			case tensor.Uint32:
				v = uint64(binary.LittleEndian.Uint32(data))
			default: // Int64, Uint64
				v = binary.LittleEndian.Uint64(data)
			}
			if !yield(v) {
				return
			}
		}
	}
}

func appendTensor(b []byte, t *tensor.Tensor, s tensorSize, asContent bool) []byte {
	b = append(b, tag(1, protowire.VarintType))
	b = binary.AppendUvarint(b, uint64(t.DType))
	b = append(b, tag(2, protowire.BytesType))
	b = binary.AppendUvarint(b, uint64(s.shape))
	for _, d := range t.Shape {
		b = append(b, tag(2, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(dimSize(d)))
		if d != 0 {
			b = append(b, tag(1, protowire.VarintType))
			b = binary.AppendUvarint(b, uint64(d))
		}
	}
	switch {
	case t.DType == tensor.String:
		for _, e := range t.Strings {
			b = append(b, tag(fieldString, protowire.BytesType))
			b = protowire.AppendBytes(b, e)
		}
		return b
	case len(t.Data) == 0:
		return b
	case asContent:
		b = append(b, tag(4, protowire.BytesType))
		tensor.CountCopy(len(t.Data))
		return protowire.AppendBytes(b, t.Data)
	}
	num := valueField(t.DType)
	b = protowire.AppendTag(b, num, protowire.BytesType)
	b = binary.AppendUvarint(b, uint64(s.values))
	return appendPacked(b, t, num)
}

func appendPacked(b []byte, t *tensor.Tensor, num protowire.Number) []byte {
	if element, ok := elementType(num); !ok || element != protowire.VarintType {
		tensor.CountCopy(len(t.Data))
		return append(b, t.Data...)
	}
	for v := range ints(t) {
		b = binary.AppendUvarint(b, v)
	}
	return b
}
