// record.go: a request as a PredictionLog and as a line of JSON.
package reqlog

import (
	"encoding/json"
	"math"
	"time"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

// call is a request that has ended.
type call struct {
	at   time.Time
	v    *inference.Version
	req  *inference.Request
	resp *inference.Response // nil after an error
	err  *inference.Error
	took time.Duration
}

// tfrecord is the call, which was answered, as a record. A request of tf.Examples is logged as the call it was; of a MultiInferenceRequest each
// task is one.
func (c *call) tfrecord(rate float64) []byte {
	spec := &pb.ModelSpec{Name: c.v.Model, SignatureName: c.req.Signature.Key, VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(c.v.Number)}}
	kind, request, response := c.req.As, []byte(nil), proto.Message(nil)
	switch kind {
	case inference.RecordedClassify:
		request, response = c.examples(&pb.ClassificationRequest{ModelSpec: spec}), c.classified(spec)
	case inference.RecordedRegress:
		request, response = c.examples(&pb.RegressionRequest{ModelSpec: spec}), c.regressed(spec)
	default:
		kind = inference.RecordedPredict
		request = marshal(&pb.PredictRequest{ModelSpec: spec, Inputs: tensors(c.req.Signature.Inputs, nil, c.req.Inputs)})
		response = &pb.PredictResponse{ModelSpec: spec, Outputs: tensors(c.req.Signature.Outputs, c.req.Outputs, c.resp.Outputs)}
	}
	meta := marshal(&pb.LogMetadata{ModelSpec: spec, SamplingConfig: &config_go_proto.SamplingConfig{SamplingRate: rate}, TimestampSecs: c.at.Unix()})
	exchange := appendField(appendField(nil, 1, request), 2, marshal(response))
	return savedmodel.AppendRecord(nil, appendField(appendField(nil, 1, meta), protowire.Number(kind), exchange))
}

// examples is a request with the examples as they were sent: they may be no messages that Go can read.
func (c *call) examples(m proto.Message) []byte {
	var list []byte
	for _, e := range c.req.Inputs[0].Strings {
		list = appendField(list, 1, e) // ExampleList.examples
	}
	return appendField(marshal(m), 2, appendField(nil, 1, list)) // input.example_list
}

func (c *call) classified(spec *pb.ModelSpec) proto.Message {
	r := &pb.ClassificationResponse{ModelSpec: spec, Result: &pb.ClassificationResult{}}
	classes, err := api.Classified(c.req, c.resp)
	if err != nil {
		return r // the client was told
	}
	for row := range classes.Rows {
		one := &pb.Classifications{}
		for k := range classes.Per {
			i := row*classes.Per + k
			one.Classes = append(one.Classes, &pb.Class{Label: string(classes.Label(i)), Score: classes.Score(i)})
		}
		r.Result.Classifications = append(r.Result.Classifications, one)
	}
	return r
}

func (c *call) regressed(spec *pb.ModelSpec) proto.Message {
	r := &pb.RegressionResponse{ModelSpec: spec, Result: &pb.RegressionResult{}}
	values, err := api.Regressed(c.req, c.resp)
	if err != nil {
		return r
	}
	for at := 0; at+4 <= len(values); at += 4 {
		v, _ := protowire.ConsumeFixed32(values[at:])
		r.Result.Regressions = append(r.Result.Regressions, &pb.Regression{Value: math.Float32frombits(v)})
	}
	return r
}

// tensors are those of the infos that the list has values of; which says which ones, nil all.
func tensors(infos []inference.TensorInfo, which []int, list []*tensor.Tensor) map[string]*tensorpb.TensorProto {
	m := make(map[string]*tensorpb.TensorProto, len(list))
	for i, t := range list {
		at := i
		if which != nil {
			at = which[i]
		}
		shape := &shapepb.TensorShapeProto{}
		for _, d := range t.Shape {
			shape.Dim = append(shape.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
		}
		m[infos[at].Alias] = &tensorpb.TensorProto{Dtype: typespb.DataType(t.DType), TensorShape: shape, TensorContent: t.Data, StringVal: t.Strings}
	}
	return m
}

// marshal is the message. What cannot be written, a label that is not UTF-8, is left out: nobody could read it.
func marshal(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil
	}
	return b
}

func appendField(dst []byte, num protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), content)
}

// line is a call as JSON.
type line struct {
	Time      string            `json:"time"` // RFC 3339, when it was answered
	Model     string            `json:"model"`
	Version   int64             `json:"version"`
	Signature string            `json:"signature"`
	Method    string            `json:"method"` // predict, classify or regress
	Rows      int64             `json:"rows,omitempty"`
	Micros    int64             `json:"took_us"`
	Code      string            `json:"code"`
	Reason    string            `json:"reason,omitempty"`
	Error     string            `json:"error,omitempty"`
	Inputs    map[string]values `json:"inputs"`
	Outputs   map[string]values `json:"outputs,omitempty"`
}

// values are a tensor. Content has its bytes, row by row and little-endian, and strings have theirs, in base64; both are left out without payloads.
type values struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Bytes   int      `json:"bytes"`
	Content []byte   `json:"content,omitempty"`
	Strings [][]byte `json:"strings,omitempty"`
}

var methods = map[inference.RecordedKind]string{inference.RecordedClassify: "classify", inference.RecordedRegress: "regress"}

// maxError bounds the text of an error in a line: it may repeat what was sent.
const maxError = 1024

// json is the call as a line.
func (c *call) json(payloads bool) []byte {
	l := line{Time: c.at.UTC().Format(time.RFC3339Nano), Model: c.v.Model, Version: c.v.Number, Signature: c.req.Signature.Key, Method: "predict",
		Micros: c.took.Microseconds(), Code: inference.OK.String(), Inputs: make(map[string]values, len(c.req.Inputs))}
	if m, ok := methods[c.req.As]; ok {
		l.Method = m
	}
	if c.err != nil {
		l.Code, l.Reason = c.err.Code.String(), c.err.Reason
		if payloads { // without, it would tell what was sent after all
			l.Error = c.err.Msg[:min(len(c.err.Msg), maxError)]
		}
	}
	for i, t := range c.req.Inputs {
		if t == nil || i >= len(c.req.Signature.Inputs) {
			continue // that is what it was refused for
		}
		if n, ok := t.Rows(); ok {
			l.Rows = n
		}
		l.Inputs[c.req.Signature.Inputs[i].Alias] = valuesOf(t, payloads)
	}
	if c.resp != nil {
		l.Outputs = make(map[string]values, len(c.resp.Outputs))
		for i, t := range c.resp.Outputs {
			l.Outputs[c.req.Signature.Outputs[c.req.Outputs[i]].Alias] = valuesOf(t, payloads)
		}
	}
	b, err := json.Marshal(l)
	if err != nil {
		return nil // there is nothing in it that cannot be written
	}
	return append(b, '\n')
}

func valuesOf(t *tensor.Tensor, payloads bool) values {
	v := values{DType: t.DType.Name(), Shape: append([]int64{}, t.Shape...), Bytes: len(t.Data)}
	for _, s := range t.Strings {
		v.Bytes += len(s)
	}
	if payloads {
		v.Content, v.Strings = t.Data, t.Strings
	}
	return v
}
