// oip.go: the Open Inference Protocol, over REST with JSON and with binary tensors, and over gRPC with contents, raw, and on a stream.
package conform

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference/tensor"
)

const (
	inferMethod  = "/inference.GRPCInferenceService/ModelInfer"
	streamMethod = "/inference.GRPCInferenceService/ModelStreamInfer"
	lengthHeader = "Inference-Header-Content-Length"
)

func (s *Server) oipDoors() []Door {
	rest := func(name string, c *http.Client, packed string, binary bool) Door {
		return Door{Name: name, Kind: OIPREST, Ask: func(ctx context.Context, r *Request) (*Answer, error) { return s.infer(ctx, c, packed, binary, r) }}
	}
	rpc := func(name string, conn *grpc.ClientConn, raw, stream bool) Door {
		return Door{Name: name, Kind: OIPGRPC, Mute: mute[stream], Local: conn == s.GRPCSocket, Ask: func(ctx context.Context, r *Request) (*Answer, error) {
			switch {
			case stream:
				return r.inferOnStream(ctx, conn)
			case r.Deadline > 0 && !raw: // the raw doors send the parameter
				return r.patientInfer(ctx, conn, raw)
			}
			got := new(oippb.ModelInferResponse)
			if err := conn.Invoke(r.metadata(ctx), inferMethod, r.inferProto(raw), got, grpc.ForceCodecV2(spoiling{r})); err != nil {
				return statusAnswer(status.Convert(err)), nil
			}
			return inferAnswer(got)
		}}
	}
	return []Door{rest("v2 REST, JSON", s.Client, "", false), rest("v2 REST, binary", s.Client, "", true), rest("v2 REST, JSON, gzip", s.Client, "gzip", false),
		rest("v2 REST, binary over HTTP/2", s.HTTP2, "", true),
		rpc("v2 gRPC, contents", s.GRPC, false, false), rpc("v2 gRPC, raw", s.GRPC, true, false), rpc("v2 gRPC, raw, on the HTTP port", s.GRPCOnHTTP, true, false),
		rpc("v2 gRPC, stream", s.GRPC, true, true), rpc("v2 gRPC, raw, on a unix socket", s.GRPCSocket, true, false)}
}

// mute is why a door does not tell reasons: one that is a stream.
var mute = map[bool]string{true: "ModelStreamInferResponse has an error_message and nothing else"}

// micros is the deadline as the parameter timeout has it, which is at least 1.
func (r *Request) micros() int64 {
	if us := r.Deadline.Microseconds(); us != 0 {
		return us
	}
	return 1
}

// version is a version or a label as v2 has it.
func (r *Request) version() string {
	if r.Version != 0 {
		return strconv.FormatInt(r.Version, 10)
	}
	return r.Label
}

func (s *Server) infer(ctx context.Context, c *http.Client, packed string, raw bool, r *Request) (*Answer, error) {
	var b strings.Builder
	var tail []byte
	fmt.Fprintf(&b, `{"parameters":{"binary_data_output":%v`, raw)
	if r.Signature != "" {
		fmt.Fprintf(&b, `,"signature_name":%q`, r.Signature)
	}
	if r.Deadline != 0 && raw {
		fmt.Fprintf(&b, `,"timeout":%d`, r.micros())
	}
	b.WriteString(`},"inputs":[`)
	for i, in := range r.Inputs {
		if i > 0 {
			b.WriteString(",")
		}
		shape := strings.ReplaceAll(fmt.Sprint([]int64(in.Tensor.Shape)), " ", ",")
		fmt.Fprintf(&b, `{"name":%q,"datatype":%q,"shape":%s,`, in.Name, oip.Datatype(in.Tensor.DType), shape)
		if !raw {
			fmt.Fprintf(&b, `"data":[%s]}`, strings.Join(elements(in.Tensor), ","))
			continue
		}
		fmt.Fprintf(&b, `"parameters":{"binary_data_size":%d}}`, oip.RawLen(in.Tensor))
		tail = oip.AppendRaw(tail, in.Tensor)
	}
	b.WriteString(`]`)
	if len(r.Outputs) > 0 {
		b.WriteString(`,"outputs":[`)
		for i, name := range r.Outputs {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, `{"name":%q}`, name)
		}
		b.WriteString("]")
	}
	b.WriteString("}")
	head := r.spoil([]byte(b.String()), ' ')
	headers := r.headers()
	if raw {
		delete(headers, "Request-Timeout") // the parameter says it
		headers[lengthHeader] = strconv.Itoa(len(head))
	}
	path := "/v2/models/" + r.Model
	if v := r.version(); v != "" {
		path += "/versions/" + v
	}
	resp, got, err := s.do(ctx, c, packed, http.MethodPost, path+"/infer", append(head, tail...), headers)
	if err != nil {
		return nil, err
	}
	if resp.status != http.StatusOK {
		return failure(resp, got)
	}
	tail = nil
	if n := resp.header.Get(lengthHeader); n != "" {
		size, err := strconv.Atoi(n)
		if err != nil || size > len(got) {
			return nil, fmt.Errorf("%s: %s of %d bytes", lengthHeader, n, len(got))
		}
		got, tail = got[:size], got[size:]
	}
	return inferDocument(got, tail)
}

func inferDocument(document, tail []byte) (*Answer, error) {
	var m struct {
		Outputs []struct {
			Name, Datatype string
			Shape          []int64
			Data           []any
			Parameters     struct {
				Size *int `json:"binary_data_size"`
			}
		}
	}
	if err := parse(document, &m); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, document)
	}
	a := &Answer{Outputs: map[string]string{}}
	for _, o := range m.Outputs {
		if o.Parameters.Size == nil {
			var all []string
			for _, v := range o.Data {
				all = append(all, scalar(v))
			}
			a.Outputs[o.Name] = text(o.Shape, all)
			continue
		}
		if *o.Parameters.Size > len(tail) {
			return nil, errors.New("the binary part is cut short")
		}
		t, err := rawTensor(o.Datatype, o.Shape, tail[:*o.Parameters.Size])
		if err != nil {
			return nil, err
		}
		a.Outputs[o.Name], tail = Text(t), tail[*o.Parameters.Size:]
	}
	if len(tail) > 0 {
		return nil, fmt.Errorf("%d bytes too many", len(tail))
	}
	return a, nil
}

// rawTensor reads what v2 calls raw, by hand, so that inferd's own reading is not compared with itself.
func rawTensor(datatype string, shape []int64, raw []byte) (*tensor.Tensor, error) {
	d, ok := oip.DType([]byte(datatype))
	if !ok {
		return nil, fmt.Errorf("datatype %q", datatype)
	}
	t := &tensor.Tensor{DType: d, Shape: shape, Data: raw}
	if d != tensor.String {
		return t, nil
	}
	t.Data = nil
	for len(raw) > 0 {
		if len(raw) < 4 || len(raw)-4 < int(binary.LittleEndian.Uint32(raw)) {
			return nil, errors.New("a string is cut short")
		}
		n := binary.LittleEndian.Uint32(raw)
		t.Strings, raw = append(t.Strings, raw[4:4+n]), raw[4+n:]
	}
	return t, nil
}

// inferProto is the request as v2 has it over gRPC.
func (r *Request) inferProto(raw bool) *oippb.ModelInferRequest {
	m := &oippb.ModelInferRequest{ModelName: r.Model, ModelVersion: r.version(), Id: "1"}
	if r.Signature != "" {
		m.Parameters = map[string]*oippb.InferParameter{"signature_name": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: r.Signature}}}
	}
	if r.Deadline != 0 {
		if m.Parameters == nil {
			m.Parameters = map[string]*oippb.InferParameter{}
		}
		m.Parameters["timeout"] = &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: r.micros()}}
	}
	for _, name := range r.Outputs {
		m.Outputs = append(m.Outputs, &oippb.ModelInferRequest_InferRequestedOutputTensor{Name: name})
	}
	for _, in := range r.Inputs {
		t := &oippb.ModelInferRequest_InferInputTensor{Name: in.Name, Datatype: oip.Datatype(in.Tensor.DType), Shape: in.Tensor.Shape}
		if raw {
			m.RawInputContents = append(m.RawInputContents, oip.AppendRaw(nil, in.Tensor))
		} else {
			t.Contents = contents(in.Tensor)
		}
		m.Inputs = append(m.Inputs, t)
	}
	return m
}

func contents(t *tensor.Tensor) *oippb.InferTensorContents {
	c := new(oippb.InferTensorContents)
	c.BytesContents = t.Strings
	for i := 0; i < len(t.Data); i += t.DType.Size() {
		number := element(t, i)
		f, _ := strconv.ParseFloat(strings.Replace(number, "Infinity", "Inf", 1), 64) // element writes numbers
		n, _ := strconv.ParseInt(number, 10, 64)                                      // likewise, where it counts
		switch t.DType {
		case tensor.Float:
			c.Fp32Contents = append(c.Fp32Contents, float32(f))
		case tensor.Double:
			c.Fp64Contents = append(c.Fp64Contents, f)
		case tensor.Int64:
			c.Int64Contents = append(c.Int64Contents, n)
		case tensor.Bool:
			c.BoolContents = append(c.BoolContents, number == "true")
		case tensor.Uint8, tensor.Uint16, tensor.Uint32:
			c.UintContents = append(c.UintContents, uint32(n))
		default:
			c.IntContents = append(c.IntContents, int32(n))
		}
	}
	return c
}

func inferAnswer(m *oippb.ModelInferResponse) (*Answer, error) {
	if len(m.RawOutputContents) != len(m.Outputs) {
		return nil, fmt.Errorf("%d outputs, %d raw ones", len(m.Outputs), len(m.RawOutputContents))
	}
	a := &Answer{Outputs: map[string]string{}}
	for i, o := range m.Outputs {
		t, err := rawTensor(o.Datatype, o.Shape, m.RawOutputContents[i])
		if err != nil {
			return nil, err
		}
		a.Outputs[o.Name] = Text(t)
	}
	return a, nil
}

// inferOnStream sends the request on a stream of its own. An error there is one of the request, of which the protocol tells the text alone, or ends
// the stream.
func (r *Request) inferOnStream(ctx context.Context, conn *grpc.ClientConn) (*Answer, error) {
	ctx, cancel := context.WithCancel(r.metadata(ctx))
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{StreamName: "ModelStreamInfer", ServerStreams: true, ClientStreams: true}, streamMethod, grpc.ForceCodecV2(spoiling{r}))
	if err != nil {
		return statusAnswer(status.Convert(err)), nil
	}
	_ = stream.SendMsg(r.inferProto(true)) // what went wrong is in what comes back
	got := new(oippb.ModelStreamInferResponse)
	if err := stream.RecvMsg(got); err != nil {
		return statusAnswer(status.Convert(err)), nil
	}
	if got.ErrorMessage != "" {
		return &Answer{Text: got.ErrorMessage}, nil
	}
	return inferAnswer(got.InferResponse)
}
