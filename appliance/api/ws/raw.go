// raw.go: the codec of raw tensors: the bytes of one input, row by row and little-endian, and those of the outputs.
package ws

import (
	"strconv"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// NewRawCodec reads binary frames of kind [api.Raw], whole, for signatures with one input of numbers. The header may have "signature_name",
// "shape" (else it is the signature's, with its one open dimension taken from the number of bytes) and "dtype", which is then held against
// the signature's. An answer is a frame of the same kind whose header has "outputs": their names, types and shapes; each one's bytes begin at
// the next multiple of eight in the payload.
func NewRawCodec() api.Codec { return rawCodec{} }

type rawCodec struct{}

// Decode implements api.Codec. The input shares body's memory.
func (rawCodec) Decode(body []byte, v *inference.Version) (api.Call, *inference.Error) {
	kind, header, payload, err := splitBinary(body)
	if err != nil {
		return nil, err
	}
	if kind != api.Raw {
		return nil, invalid("the binary frame is of kind %d, not of kind %d, a raw tensor", kind, api.Raw)
	}
	c := &rawCall{key: inference.DefaultSignature}
	if err := members(header, c.set); err != nil {
		return nil, err
	}
	sig := v.Signatures[c.key]
	switch {
	case sig == nil:
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Serving signature name: %q not found in signature def", cut(c.key, 64))
	case len(sig.Inputs) != 1:
		return nil, invalid("signature %q takes %d inputs; a raw tensor is for one, send the request as JSON or as a PredictRequest", sig.Key, len(sig.Inputs))
	}
	info := &sig.Inputs[0]
	if info.DType.Size() == 0 {
		return nil, invalid("input %q is of type %s, which has no raw form; send the request as JSON or as a PredictRequest", info.Alias, info.DType)
	}
	if c.dtype != tensor.Invalid && c.dtype != info.DType {
		return nil, invalid("input %q is of type %s, and the header says %s", info.Alias, info.DType, c.dtype)
	}
	if !c.shaped {
		if c.shape, err = shapeOf(info, len(payload)); err != nil {
			return nil, err
		}
	}
	t, bad := tensor.New(info.DType, c.shape, payload)
	if bad != nil {
		return nil, invalid("input %q of type %s and shape %v does not have %d bytes: %v", info.Alias, info.DType, c.shape, len(payload), bad)
	}
	c.inputs[0] = t
	c.req = inference.Request{Signature: sig, Inputs: c.inputs[:], Outputs: api.AllOutputs(sig)}
	return c, nil
}

// shapeOf is the declared shape, with its one open dimension as the number of bytes has it.
func shapeOf(info *inference.TensorInfo, size int) (tensor.Shape, *inference.Error) {
	if info.UnknownRank {
		return nil, invalid("input %q may have any shape; say which in the header, as \"shape\":[...]", info.Alias)
	}
	shape, open, rest := make(tensor.Shape, len(info.Shape)), -1, int64(info.DType.Size())
	for i, d := range info.Shape {
		switch shape[i] = d; {
		case d >= 0:
			if rest *= d; rest < 0 || rest > 1<<40 {
				return nil, invalid("input %q has shape %v, which no frame holds", info.Alias, info.Shape)
			}
		case open >= 0:
			return nil, invalid("input %q has shape %v, with more than one open dimension; say which in the header, as \"shape\":[...]", info.Alias, info.Shape)
		default:
			open = i
		}
	}
	if open >= 0 {
		if rest == 0 || int64(size)%rest != 0 {
			return nil, invalid("input %q of type %s and shape %v takes a multiple of %d bytes, the frame has %d", info.Alias, info.DType, info.Shape, rest, size)
		}
		shape[open] = int64(size) / rest
	}
	return shape, nil
}

// rawCall is an api.Call.
type rawCall struct {
	key    string
	dtype  tensor.DType
	shape  tensor.Shape
	shaped bool

	inputs [1]*tensor.Tensor
	req    inference.Request
}

// set reads a member of the header.
func (c *rawCall) set(key, value []byte) *inference.Error {
	switch string(key) {
	case "signature_name":
		name, ok := text(value)
		if !ok {
			return invalid("\"signature_name\" is %s; send a string", quote(value))
		}
		if name != "" {
			c.key = name
		}
	case "dtype":
		name, _ := text(value)
		var ok bool
		if c.dtype, ok = tensor.ParseDType(name); !ok {
			return invalid("\"dtype\" is %s; send one of TensorFlow's, as in \"float\" or \"DT_FLOAT\"", quote(value))
		}
	case "shape":
		var ok bool
		if c.shape, ok = dims(value); !ok {
			return invalid("\"shape\" is %s; send a list of at most %d whole numbers", quote(value), tensor.MaxRank)
		}
		c.shaped = true
	}
	return nil
}

// dims reads a list of numbers.
func dims(raw []byte) (tensor.Shape, bool) {
	if len(raw) < 2 || raw[0] != '[' {
		return nil, false
	}
	shape := tensor.Shape{}
	i := skipBlank(raw, 1)
	if raw[i] == ']' {
		return shape, i == len(raw)-1
	}
	for len(shape) < tensor.MaxRank {
		end := valueEnd(raw, i)
		if end < 0 {
			return nil, false
		}
		n, ok := parseInt(raw[i:end])
		if !ok || n < 0 {
			return nil, false
		}
		shape = append(shape, n)
		switch i = skipBlank(raw, end); {
		case i == len(raw):
			return nil, false
		case raw[i] == ']':
			return shape, i == len(raw)-1
		case raw[i] != ',':
			return nil, false
		}
		i = skipBlank(raw, i+1)
	}
	return nil, false
}

// Request implements api.Call.
func (c *rawCall) Request() *inference.Request { return &c.req }

// Append implements api.Call.
func (c *rawCall) Append(dst []byte, resp *inference.Response) ([]byte, *inference.Error) {
	from := len(dst)
	out := append(dst, byte(api.Raw), 0, 0, 0)
	out = append(out, `{"outputs":[`...)
	for i, t := range resp.Outputs {
		info := &c.req.Signature.Outputs[c.req.Outputs[i]]
		if t.DType.Size() == 0 {
			return dst, invalid("output %q is of type %s, which has no raw form; send the request as JSON or as a PredictRequest", info.Alias, t.DType)
		}
		if i > 0 {
			out = append(out, ',')
		}
		out = appendText(append(out, `{"name":`...), info.Alias)
		out = append(append(append(out, `,"dtype":"`...), t.DType.String()...), `","shape":[`...)
		for k, d := range t.Shape {
			if k > 0 {
				out = append(out, ',')
			}
			out = strconv.AppendInt(out, d, 10)
		}
		out = append(out, "]}"...)
	}
	out = append(out, "]}"...)
	if len(out)-from > maxHeader-1024 { // the answer's own members come to it
		return dst, invalid("signature %q has too many outputs for the header of a raw answer; send the request as JSON or as a PredictRequest", c.req.Signature.Key)
	}
	out = endHeader(out, from)
	for i, t := range resp.Outputs {
		for i > 0 && (len(out)-from)%alignment != 0 {
			out = append(out, 0)
		}
		out = append(out, t.Data...)
	}
	return out, nil
}

// Free implements api.Call. The memory is the frame's.
func (c *rawCall) Free() {}
