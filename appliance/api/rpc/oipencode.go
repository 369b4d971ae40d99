// oipencode.go: ModelInferResponse and ModelStreamInferResponse written by hand from lent tensors into the buffer that goes to the socket.
package rpc

import (
	"encoding/binary"
	"math"
	"strconv"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// inferAnswer is a ModelInferResponse that is to be written, with its sizes.
type inferAnswer struct {
	v       *inference.Version
	sig     *inference.Signature
	indexes []int // which of sig.Outputs the outputs are
	outputs []*tensor.Tensor
	id      []byte
	typed   bool // contents in place of raw_output_contents
	final   bool // the parameter triton_final_response, which the request has asked for

	version string
	sizes   []inferSize
	total   int
}

// inferSize has the sizes of one output's parts on the wire.
type inferSize struct {
	shape, raw, contents, output int
}

// finalParameter is the entry {"triton_final_response": {bool_param: true}} of the parameters: there is never more than one answer.
var finalParameter = func() []byte {
	b := protowire.AppendTag(nil, 1, protowire.BytesType)
	b = protowire.AppendString(b, "triton_final_response")
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendBytes(b, []byte{tag(1, protowire.VarintType), 1})
}()

// sizeText is the size of a string field below 16, which is left out when it is empty.
func sizeText(n int) int {
	if n == 0 {
		return 0
	}
	return sizeBytes(n)
}

func appendText[T string | []byte](b []byte, num protowire.Number, s T) []byte {
	if len(s) == 0 {
		return b
	}
	b = append(b, tag(num, protowire.BytesType))
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func (a *inferAnswer) measure() {
	for _, t := range a.outputs {
		a.typed = a.typed && contentsField(t.DType) != 0 // one without a field makes them all raw: there is no mixing
	}
	a.version = strconv.FormatInt(a.v.Number, 10)
	a.total = sizeText(len(a.v.Model)) + sizeText(len(a.version)) + sizeText(len(a.id))
	if a.final {
		a.total += sizeBytes(len(finalParameter))
	}
	a.sizes = make([]inferSize, len(a.outputs))
	for i, t := range a.outputs {
		s := &a.sizes[i]
		for _, d := range t.Shape {
			s.shape += protowire.SizeVarint(uint64(d))
		}
		s.output = sizeText(len(a.sig.Outputs[a.indexes[i]].Alias)) + sizeText(len(oip.Datatype(t.DType))) + sizeText(s.shape)
		if a.typed {
			s.raw, s.contents = sizeContents(t)
			s.output += sizeBytes(s.contents)
		} else {
			s.raw = int(oip.RawLen(t))
			a.total += sizeBytes(s.raw)
		}
		a.total += sizeBytes(s.output)
	}
}

// sizeContents is the size of the tensor's InferTensorContents, and of its packed numbers.
func sizeContents(t *tensor.Tensor) (values, total int) {
	num := contentsField(t.DType)
	if num == contentsBytes {
		for _, s := range t.Strings {
			total += sizeBytes(len(s))
		}
		return 0, total
	}
	if element, _ := contentsElement(num); element == protowire.VarintType {
		for v := range ints(t) {
			values += protowire.SizeVarint(v)
		}
	} else {
		values = len(t.Data)
	}
	return values, sizeText(values)
}

// append writes total bytes.
func (a *inferAnswer) append(b []byte) []byte {
	begin := len(b)
	b = appendText(b, 1, a.v.Model)
	b = appendText(b, 2, a.version)
	b = appendText(b, 3, a.id)
	if a.final {
		b = appendText(b, 4, finalParameter)
	}
	for i, t := range a.outputs {
		s := &a.sizes[i]
		b = append(b, tag(5, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(s.output))
		b = appendText(b, 1, a.sig.Outputs[a.indexes[i]].Alias)
		b = appendText(b, 2, oip.Datatype(t.DType))
		if s.shape > 0 {
			b = append(b, tag(3, protowire.BytesType))
			b = binary.AppendUvarint(b, uint64(s.shape))
			for _, d := range t.Shape {
				b = binary.AppendUvarint(b, uint64(d))
			}
		}
		if a.typed {
			b = append(b, tag(5, protowire.BytesType))
			b = binary.AppendUvarint(b, uint64(s.contents))
			b = appendContents(b, t, s.raw)
		}
	}
	for i, t := range a.outputs {
		if a.typed {
			break
		}
		b = append(b, tag(6, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(a.sizes[i].raw))
		b = oip.AppendRaw(b, t)
	}
	if len(b)-begin != a.total {
		panic("rpc: response is not as long as was computed")
	}
	return b
}

// appendContents writes the fields of an InferTensorContents whose packed numbers have so many bytes.
func appendContents(b []byte, t *tensor.Tensor, values int) []byte {
	num := contentsField(t.DType)
	if num == contentsBytes {
		for _, s := range t.Strings {
			b = append(b, tag(num, protowire.BytesType))
			b = protowire.AppendBytes(b, s)
		}
		return b
	}
	if values == 0 {
		return b
	}
	b = append(b, tag(num, protowire.BytesType))
	b = binary.AppendUvarint(b, uint64(values))
	if element, _ := contentsElement(num); element != protowire.VarintType {
		tensor.CountCopy(len(t.Data))
		return append(b, t.Data...)
	}
	for v := range ints(t) {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// encode copies all of the outputs: the caller may release them afterwards. With streamed it is the infer_response of a ModelStreamInferResponse.
func (a *inferAnswer) encode(pool mem.BufferPool, streamed bool) (*reply, error) {
	a.measure()
	size := a.total
	if streamed {
		size = sizeBytes(a.total)
	}
	if size > math.MaxInt32 { // no client could read it
		return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge, "the answer has %d bytes, more than a message can have; ask for fewer outputs or send fewer rows", size)
	}
	data := pool.Get(size)
	b := (*data)[:0]
	if streamed {
		b = append(b, tag(2, protowire.BytesType))
		b = binary.AppendUvarint(b, uint64(a.total))
	}
	*data = a.append(b)
	return &reply{buffer: mem.NewBuffer(data, pool)}, nil
}

// encodeFailure is a ModelStreamInferResponse of an error: its sentence, and the id of the request.
func encodeFailure(pool mem.BufferPool, msg string, id []byte) *reply {
	response := sizeText(len(id))
	data := pool.Get(sizeText(len(msg)) + sizeBytes(response))
	b := appendText((*data)[:0], 1, msg)
	b = append(b, tag(2, protowire.BytesType))
	b = binary.AppendUvarint(b, uint64(response))
	*data = appendText(b, 3, id)
	return &reply{buffer: mem.NewBuffer(data, pool)}
}
