// wire.go: the protocols, each as a body to send and as the reading of what comes back.
package main

import (
	"encoding/binary"
	"encoding/json"
	"fmt"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/tools/measure"
)

// request is what is sent for some rows of a model.
type request struct {
	path    string // of HTTP, or the method of gRPC
	headers []string
	body    []byte
}

// wire is one protocol.
type wire struct {
	name string
	json bool // numbers as text
	grpc bool
	make func(m *model, from, n int) (request, error)
	// read takes an answer apart; binary is the length of the JSON before binary tensors, 0 where there are none.
	read func(m *model, body []byte, binary int) ([]column, error)
}

// The protocols. OIP is the Open Inference Protocol, also called KServe's or v2.
var (
	tfsJSON   = wire{name: "TFS JSON", json: true, make: makeTFSJSON, read: readTFSJSON}
	tfsGRPC   = wire{name: "TFS gRPC", grpc: true, make: makeTFSGRPC, read: readTFSGRPC}
	oipJSON   = wire{name: "OIP JSON", json: true, make: makeOIPJSON, read: readOIP}
	oipBinary = wire{name: "OIP binary", make: makeOIPBinary, read: readOIP}
	oipGRPC   = wire{name: "OIP gRPC", grpc: true, make: makeOIPGRPC, read: readOIPGRPC}
)

// address is where a server listens.
type address struct{ http, grpc string }

// caller drives a server over the wire with one row.
func (w *wire) caller(at address, m *model) (measure.Caller, error) {
	r, err := w.make(m, 0, 1)
	switch {
	case err != nil:
		return nil, err
	case !w.grpc:
		return measure.HTTPCaller(at.http, r.path, r.body, r.headers...), nil
	case len(r.body)+5 > measure.MaxLight || m.big(): // a large answer needs the windows that the light caller does not have
		return measure.GRPCCaller(at.grpc, r.path, r.body), nil
	}
	return measure.LightCaller(at.grpc, r.path, r.body), nil
}

// nested are the rows of a column as JSON has them.
func nested(c *column, n int) any {
	rows := make([]any, n)
	for i := range rows {
		r := c.rows(i, 1)
		if c.Datatype == bytesType {
			rows[i] = nest(r.Strings, c.Shape)
		} else {
			rows[i] = nest(float32s(r.Floats), c.Shape)
		}
	}
	return rows
}

func nest[T any](flat []T, shape []int) any {
	if len(shape) == 0 {
		return flat[0]
	}
	if len(shape) == 1 {
		return flat
	}
	per := len(flat) / shape[0]
	out := make([]any, shape[0])
	for i := range out {
		out[i] = nest(flat[i*per:(i+1)*per], shape[1:])
	}
	return out
}

// flatten puts nested JSON behind what a column has.
func (c *column) flatten(v any) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if err := c.flatten(e); err != nil {
				return err
			}
		}
	case float64:
		c.Floats = appendFloats(c.Floats, float32(v))
	case string:
		c.Strings = append(c.Strings, v)
	default:
		return fmt.Errorf("%v is neither number nor string", v)
	}
	return nil
}

func makeTFSJSON(m *model, from, n int) (request, error) {
	in := m.Input.rows(from, n)
	body, err := json.Marshal(map[string]any{"instances": nested(&in, n)})
	return request{path: "/v1/models/" + m.Name + ":predict", body: body}, err
}

func readTFSJSON(m *model, body []byte, _ int) ([]column, error) {
	var got struct{ Predictions []any }
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, err
	}
	out := make([]column, len(m.Outputs))
	for i := range out {
		out[i].Name = m.Outputs[i].Name
		for _, row := range got.Predictions {
			v := row
			if named, ok := row.(map[string]any); ok {
				v = named[out[i].Name]
			}
			if err := out[i].flatten(v); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func makeTFSGRPC(m *model, from, n int) (request, error) {
	in := m.Input.rows(from, n)
	t := &framework.TensorProto{Dtype: typespb.DataType_DT_FLOAT, TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: int64(n)}}}}
	for _, d := range in.Shape {
		t.TensorShape.Dim = append(t.TensorShape.Dim, &shapepb.TensorShapeProto_Dim{Size: int64(d)})
	}
	if in.Datatype == bytesType {
		t.Dtype = typespb.DataType_DT_STRING
		for _, s := range in.Strings {
			t.StringVal = append(t.StringVal, []byte(s))
		}
	} else {
		t.TensorContent = in.Floats
	}
	body, err := proto.Marshal(&serving.PredictRequest{ModelSpec: &serving.ModelSpec{Name: m.Name}, Inputs: map[string]*framework.TensorProto{in.Name: t}})
	return request{path: "/tensorflow.serving.PredictionService/Predict", body: body}, err
}

func readTFSGRPC(_ *model, body []byte, _ int) ([]column, error) {
	var got serving.PredictResponse
	if err := proto.Unmarshal(body, &got); err != nil {
		return nil, err
	}
	var out []column
	for name, t := range got.Outputs {
		c := column{Name: name, Floats: t.TensorContent}
		if c.Floats == nil {
			c.Floats = appendFloats(nil, t.FloatVal...)
		}
		for _, s := range t.StringVal {
			c.Strings = append(c.Strings, string(s))
		}
		out = append(out, c)
	}
	return out, nil
}

// oipTensor is a tensor of the Open Inference Protocol's JSON.
type oipTensor struct {
	Name       string         `json:"name"`
	Datatype   string         `json:"datatype,omitempty"`
	Shape      []int          `json:"shape,omitempty"`
	Parameters map[string]any `json:"parameters,omitempty"`
	Data       []any          `json:"data,omitempty"`
}

func (c *column) oip(n int) oipTensor {
	return oipTensor{Name: c.Name, Datatype: c.Datatype, Shape: append([]int{n}, c.Shape...)}
}

func oipPath(m *model) string { return "/v2/models/" + m.Name + "/infer" }

func makeOIPJSON(m *model, from, n int) (request, error) {
	in := m.Input.rows(from, n)
	t := in.oip(n)
	for _, v := range float32s(in.Floats) {
		t.Data = append(t.Data, v)
	}
	for _, s := range in.Strings {
		t.Data = append(t.Data, s)
	}
	body, err := json.Marshal(map[string]any{"inputs": []oipTensor{t}})
	return request{path: oipPath(m), body: body}, err
}

// raw is the column as the protocol's binary form has it.
func (c *column) raw() []byte {
	raw := c.Floats
	for _, s := range c.Strings {
		raw = append(binary.LittleEndian.AppendUint32(raw, uint32(len(s))), s...)
	}
	return raw
}

// unraw reads the binary form of a column that is to be like want.
func unraw(want *column, data []byte) (column, error) {
	if want.Datatype != bytesType {
		return column{Name: want.Name, Floats: data}, nil
	}
	c := column{Name: want.Name}
	for len(data) >= 4 {
		n := int(binary.LittleEndian.Uint32(data))
		if n > len(data)-4 {
			return c, fmt.Errorf("a string of %d bytes in %d", n, len(data)-4)
		}
		c.Strings, data = append(c.Strings, string(data[4:4+n])), data[4+n:]
	}
	return c, nil
}

func makeOIPBinary(m *model, from, n int) (request, error) {
	in := m.Input.rows(from, n)
	t, raw := in.oip(n), in.raw()
	t.Parameters = map[string]any{"binary_data_size": len(raw)}
	var outputs []oipTensor
	for _, o := range m.Outputs {
		outputs = append(outputs, oipTensor{Name: o.Name, Parameters: map[string]any{"binary_data": true}})
	}
	head, err := json.Marshal(map[string]any{"inputs": []oipTensor{t}, "outputs": outputs})
	return request{path: oipPath(m), body: append(head[:len(head):len(head)], raw...),
		headers: []string{fmt.Sprintf("Inference-Header-Content-Length: %d", len(head)), "Content-Type: application/octet-stream"}}, err
}

func readOIP(m *model, body []byte, head int) ([]column, error) {
	rest := []byte(nil)
	if head > 0 && head <= len(body) {
		body, rest = body[:head], body[head:]
	}
	var got struct{ Outputs []oipTensor }
	if err := json.Unmarshal(body, &got); err != nil {
		return nil, err
	}
	var out []column
	for _, t := range got.Outputs {
		want := column{Name: t.Name, Datatype: t.Datatype}
		if size, ok := t.Parameters["binary_data_size"].(float64); ok {
			if int(size) > len(rest) {
				return nil, fmt.Errorf("output %q has %d bytes of %d", t.Name, len(rest), int(size))
			}
			c, err := unraw(&want, rest[:int(size)])
			if err != nil {
				return nil, err
			}
			out, rest = append(out, c), rest[int(size):]
			continue
		}
		if err := want.flatten(t.Data); err != nil {
			return nil, err
		}
		out = append(out, want)
	}
	return out, nil
}
