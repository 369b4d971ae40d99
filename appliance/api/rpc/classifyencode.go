// classifyencode.go: the answers of Classify, Regress and MultiInference written by hand from lent tensors.
package rpc

import (
	"encoding/binary"
	"math"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// result is one task's ClassificationResult or RegressionResult, to be written.
type result struct {
	sig     *inference.Signature
	regress bool
	classes api.Classes
	values  []byte // float32s, of a regression
	size    int    // of the message
}

// encodeExamples writes the answer to req, and copies all of the responses.
func encodeExamples(pool mem.BufferPool, v *inference.Version, req *exampleRequest, calls []*inference.Request, answers []*inference.Response) (*reply, error) {
	results := make([]result, len(calls))
	for i, call := range calls {
		r, err := newResult(call, answers[i], req.tasks[i].method == api.MethodRegress)
		if err != nil {
			return nil, err
		}
		results[i] = r
	}
	total := 0
	multi := req.kind == inference.RecordedMultiInference
	for i := range results {
		n := results[i].within(v)
		if multi {
			n = sizeBytes(n)
		}
		total += n
	}
	data := pool.Get(total)
	b := (*data)[:0]
	for i := range results {
		r := &results[i]
		spec := specSize(v, r.sig)
		if !multi { // ClassificationResponse and RegressionResponse: the result, then model_spec
			b = r.append(binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(r.size)))
			b = appendSpec(binary.AppendUvarint(append(b, tag(2, protowire.BytesType)), uint64(spec)), v, r.sig)
			break
		}
		b = binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(r.within(v))) // an InferenceResult: model_spec, then one of two results
		b = appendSpec(binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(spec)), v, r.sig)
		num := protowire.Number(2)
		if r.regress {
			num = 3
		}
		b = r.append(binary.AppendUvarint(append(b, tag(num, protowire.BytesType)), uint64(r.size)))
	}
	if len(b) != total {
		panic("rpc: response is not as long as was computed")
	}
	*data = b
	return &reply{buffer: mem.NewBuffer(data, pool)}, nil
}

func newResult(call *inference.Request, resp *inference.Response, regress bool) (result, error) {
	r := result{sig: call.Signature, regress: regress}
	var err error
	if regress {
		r.values, err = api.Regressed(call, resp)
		for at := 0; at+4 <= len(r.values); at += 4 {
			r.size += sizeBytes(floatSize(r.values[at:]))
		}
		return r, err
	}
	if r.classes, err = api.Classified(call, resp); err != nil {
		return r, err
	}
	for row := range r.classes.Rows {
		r.size += sizeBytes(r.rowSize(row))
	}
	return r, nil
}

// within is the size of the result and the model_spec, which every answer has side by side.
func (r *result) within(v *inference.Version) int {
	return sizeBytes(r.size) + sizeBytes(specSize(v, r.sig))
}

// floatSize is the size of a field below 16 with the float at the front of b, which is left out where it is zero.
func floatSize(b []byte) int {
	if binary.LittleEndian.Uint32(b) == 0 {
		return 0
	}
	return 5
}

func (r *result) rowSize(row int) int {
	n := 0
	for i := row * r.classes.Per; i < (row+1)*r.classes.Per; i++ {
		n += sizeBytes(r.classSize(i))
	}
	return n
}

func (r *result) classSize(i int) int {
	n := 0
	if label := r.classes.Label(i); len(label) > 0 {
		n += sizeBytes(len(label))
	}
	if math.Float32bits(r.classes.Score(i)) != 0 {
		n += 5
	}
	return n
}

// append writes size bytes.
func (r *result) append(b []byte) []byte {
	for at := 0; at+4 <= len(r.values); at += 4 { // regressions
		n := floatSize(r.values[at:])
		b = binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(n))
		if n > 0 { // value
			b = append(append(b, tag(1, protowire.Fixed32Type)), r.values[at:at+4]...)
		}
	}
	for row := range r.classes.Rows { // classifications
		b = binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(r.rowSize(row)))
		for i := row * r.classes.Per; i < (row+1)*r.classes.Per; i++ { // classes
			b = binary.AppendUvarint(append(b, tag(1, protowire.BytesType)), uint64(r.classSize(i)))
			if label := r.classes.Label(i); len(label) > 0 {
				b = protowire.AppendBytes(append(b, tag(1, protowire.BytesType)), label)
			}
			if score := math.Float32bits(r.classes.Score(i)); score != 0 {
				b = binary.LittleEndian.AppendUint32(append(b, tag(2, protowire.Fixed32Type)), score)
			}
		}
	}
	return b
}
