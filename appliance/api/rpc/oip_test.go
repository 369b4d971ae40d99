// oip_test.go: the Open Inference Protocol with the generated client messages.
package rpc

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func (r *rig) oip(ctx context.Context, method string, req, resp proto.Message, opts ...grpc.CallOption) error {
	return r.conn.Invoke(ctx, "/"+inferenceService+"/"+method, req, resp, opts...)
}

func (r *rig) infer(ctx context.Context, req *oippb.ModelInferRequest, opts ...grpc.CallOption) (*oippb.ModelInferResponse, error) {
	resp := new(oippb.ModelInferResponse)
	if err := r.oip(ctx, "ModelInfer", req, resp, opts...); err != nil {
		return nil, err
	}
	return resp, nil
}

// askHalf is a request of half_plus_two for one raw number.
func askHalf(id string, x byte) *oippb.ModelInferRequest {
	return &oippb.ModelInferRequest{ModelName: "half_plus_two", Id: id, Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1, 1}}},
		RawInputContents: [][]byte{{0, 0, x, 64}}} // 0: 2, 128: 4
}

func boolParam(on bool) *oippb.InferParameter {
	return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_BoolParam{BoolParam: on}}
}

func intParam(n int64) *oippb.InferParameter {
	return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: n}}
}

func textParam(s string) *oippb.InferParameter {
	return &oippb.InferParameter{ParameterChoice: &oippb.InferParameter_StringParam{StringParam: s}}
}

func params(name string, p *oippb.InferParameter) map[string]*oippb.InferParameter {
	return map[string]*oippb.InferParameter{name: p}
}

func TestModelInferAnswers(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 1)
	r.publishHalf(t, 2)
	got, err := r.infer(t.Context(), askHalf("seven", 0))
	want := &oippb.ModelInferResponse{ModelName: "half_plus_two", ModelVersion: "2", Id: "seven",
		Outputs: []*oippb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "FP32", Shape: []int64{1, 1}}}, RawOutputContents: [][]byte{{0, 0, 64, 64}}}
	if err != nil || !proto.Equal(got, want) {
		t.Fatalf("%v (%v), want %v", got, err, want)
	}

	typed := askHalf("", 0)
	typed.ModelVersion, typed.RawInputContents = "1", nil
	typed.Inputs[0].Contents = &oippb.InferTensorContents{Fp32Contents: []float32{2}}
	typed.Parameters = params("binary_data_output", boolParam(false))
	got, err = r.infer(t.Context(), typed)
	want = &oippb.ModelInferResponse{ModelName: "half_plus_two", ModelVersion: "1",
		Outputs: []*oippb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "FP32", Shape: []int64{1, 1}, Contents: &oippb.InferTensorContents{Fp32Contents: []float32{3}}}}}
	if err != nil || !proto.Equal(got, want) {
		t.Errorf("typed: %v (%v), want %v", got, err, want)
	}

	two := askHalf("", 0)
	two.Parameters = params("signature_name", textParam("two"))
	two.Outputs = []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "z"}, {Name: "y"}}
	if got, err = r.infer(t.Context(), two); err != nil || len(got.Outputs) != 2 || got.Outputs[0].Name != "z" || got.Outputs[1].Name != "y" {
		t.Errorf("requested outputs: %v (%v)", got, err)
	}
	defaulted := askHalf("", 0)
	defaulted.Parameters = params("signature_name", textParam("defaulted"))
	if got, err = r.infer(t.Context(), defaulted); err != nil || len(got.Outputs) != 1 {
		t.Errorf("an input with a default: %v (%v)", got, err)
	}
	for i, o := range r.finished(t, 4) {
		if o.Protocol != inferenceProtocol || o.Method != "predict" || o.Model != "half_plus_two" || o.Version == 0 || o.Signature == "" || o.Code != inference.OK {
			t.Errorf("observation %d: %+v", i, o)
		}
	}
}

// TestModelInferEveryType sends every datatype raw and typed through a model that answers with its inputs.
func TestModelInferEveryType(t *testing.T) {
	r := start(t, Options{})
	infos, tensors := everyOutput(t)
	for _, x := range []*tensor.Tensor{
		{DType: tensor.Half, Shape: tensor.Shape{2}, Data: []byte{0, 60, 0, 64}}, {DType: tensor.BFloat16, Shape: tensor.Shape{2}, Data: []byte{128, 63, 0, 64}},
		{DType: tensor.Complex64, Shape: tensor.Shape{1}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
	} {
		infos, tensors = append(infos, info(strings.ToLower(oip.Datatype(x.DType)), x.DType, -1)), append(tensors, x)
	}
	slices.SortFunc(infos, func(a, b inference.TensorInfo) int { return strings.Compare(a.Alias, b.Alias) })
	ofType := func(info *inference.TensorInfo) *tensor.Tensor {
		return tensors[slices.IndexFunc(tensors, func(x *tensor.Tensor) bool { return x.DType == info.DType })]
	}
	r.publish(t, &inference.Version{Model: "echo", Number: 1, Signatures: map[string]*inference.Signature{"serving_default": signature("serving_default", infos, infos)}}, echo)
	req := &oippb.ModelInferRequest{ModelName: "echo"}
	for i := range infos {
		x := ofType(&infos[i])
		req.Inputs = append(req.Inputs, typedInput(infos[i].Alias, oip.Datatype(x.DType), x.Shape, nil))
		req.RawInputContents = append(req.RawInputContents, oip.AppendRaw(nil, x))
	}
	got, err := r.infer(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i := range infos {
		x := ofType(&infos[i])
		if out := got.Outputs[i]; out.Name != infos[i].Alias || out.Datatype != oip.Datatype(x.DType) || !bytes.Equal(got.RawOutputContents[i], req.RawInputContents[i]) {
			t.Errorf("output %d: %v %x, want %v %x", i, out, got.RawOutputContents[i], x, req.RawInputContents[i])
		}
	}
	for _, in := range everyContents() {
		req := &oippb.ModelInferRequest{ModelName: in.Name, Inputs: []*oippb.ModelInferRequest_InferInputTensor{in}, Parameters: params("binary_data_output", boolParam(false))}
		d, _ := oip.DType([]byte(in.Datatype))
		one := []inference.TensorInfo{info(in.Name, d, -1)}
		r.publish(t, &inference.Version{Model: in.Name, Number: 1, Signatures: map[string]*inference.Signature{"serving_default": signature("serving_default", one, one)}}, echo)
		got, err := r.infer(t.Context(), req)
		if err != nil || len(got.RawOutputContents) != 0 || !proto.Equal(got.Outputs[0].Contents, in.Contents) {
			t.Errorf("%s: %v (%v)", in.Datatype, got, err)
		}
	}
}

func TestModelInferRefuses(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 1)
	n := 0
	for name, c := range map[string]struct {
		bend func(*oippb.ModelInferRequest)
		code codes.Code
		text string
	}{
		"no model":          {func(m *oippb.ModelInferRequest) { m.ModelName = "" }, codes.InvalidArgument, "no name"},
		"unknown model":     {func(m *oippb.ModelInferRequest) { m.ModelName = "nobody" }, codes.NotFound, "Request for unknown model: 'nobody' is not found"},
		"unknown version":   {func(m *oippb.ModelInferRequest) { m.ModelVersion = "9" }, codes.NotFound, "Request for unknown model: 'half_plus_two' version 9 is not found"},
		"unknown label":     {func(m *oippb.ModelInferRequest) { m.ModelVersion = "stable" }, codes.InvalidArgument, "label: stable"},
		"unknown signature": {func(m *oippb.ModelInferRequest) { m.Parameters = params("signature_name", textParam("q")) }, codes.FailedPrecondition, `"q" not found`},
		"unknown datatype":  {func(m *oippb.ModelInferRequest) { m.Inputs[0].Datatype = "FLOAT" }, codes.InvalidArgument, `datatype "FLOAT", which is none; send BOOL`},
		"wrong datatype": {func(m *oippb.ModelInferRequest) {
			m.Inputs[0].Datatype, m.RawInputContents = "INT8", [][]byte{{1}}
		}, codes.InvalidArgument, "float"},
		"too few bytes":  {func(m *oippb.ModelInferRequest) { m.RawInputContents[0] = []byte{1} }, codes.InvalidArgument, `input "x" of datatype FP32 and shape [1,1] takes 4 bytes, got 1`},
		"negative shape": {func(m *oippb.ModelInferRequest) { m.Inputs[0].Shape[0] = -1 }, codes.InvalidArgument, "dimension -1"},
		"overflow":       {func(m *oippb.ModelInferRequest) { m.Inputs[0].Shape = []int64{1 << 40, 1 << 40} }, codes.InvalidArgument, "overflow"},
		"no raw for one": {func(m *oippb.ModelInferRequest) { m.RawInputContents = append(m.RawInputContents, nil) }, codes.InvalidArgument, "raw_input_contents has 2 tensors, but there are 1 inputs"},
		"both forms": {func(m *oippb.ModelInferRequest) {
			m.Inputs[0].Contents = &oippb.InferTensorContents{Fp32Contents: []float32{1}}
		}, codes.InvalidArgument, "elements in fp32_contents, and raw_input_contents was sent too"},
		"nothing": {func(m *oippb.ModelInferRequest) { m.RawInputContents = nil }, codes.InvalidArgument, "takes 1 elements in fp32_contents, got 0"},
		"wrong field": {func(m *oippb.ModelInferRequest) {
			m.RawInputContents = nil
			m.Inputs[0].Contents = &oippb.InferTensorContents{Fp64Contents: []float64{1}}
		}, codes.InvalidArgument, "is read from fp32_contents, but there are 1 elements in fp64_contents"},
		"FP16 typed": {func(m *oippb.ModelInferRequest) {
			m.RawInputContents, m.Inputs[0].Datatype = nil, "FP16"
		}, codes.InvalidArgument, "datatype FP16 has no field in contents; send its elements in raw_input_contents"},
		"300 in an int8": {func(m *oippb.ModelInferRequest) {
			m.RawInputContents, m.Inputs[0].Datatype = nil, "INT8"
			m.Inputs[0].Contents = &oippb.InferTensorContents{IntContents: []int32{300}}
		}, codes.InvalidArgument, "element 0 in int_contents is 300, which that datatype cannot hold"},
		"BYTES that run over": {func(m *oippb.ModelInferRequest) {
			m.Inputs[0].Datatype, m.RawInputContents[0] = "BYTES", []byte{9, 0, 0, 0, 'x'}
		}, codes.InvalidArgument, "element 0 is said to have 9 bytes, 1 are left"},
		"unknown input": {func(m *oippb.ModelInferRequest) { m.Inputs[0].Name = "w" }, codes.InvalidArgument, `input "w" is none of signature`},
		"an input twice": {func(m *oippb.ModelInferRequest) {
			m.Inputs, m.RawInputContents = append(m.Inputs, m.Inputs[0]), append(m.RawInputContents, m.RawInputContents[0])
		}, codes.InvalidArgument, `"x" was sent twice`},
		"unknown output": {func(m *oippb.ModelInferRequest) {
			m.Outputs = []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "q"}}
		}, codes.InvalidArgument, `output "q" is none of signature`},
		"an output twice": {func(m *oippb.ModelInferRequest) {
			m.Outputs = []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}, {Name: "y"}}
		}, codes.InvalidArgument, `"y" is asked for twice`},
		"classes": {func(m *oippb.ModelInferRequest) {
			m.Outputs = []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: params("classification", intParam(3))}}
		}, codes.Unimplemented, "no class labels"},
		"a sequence": {func(m *oippb.ModelInferRequest) { m.Parameters = params("sequence_id", intParam(3)) }, codes.Unimplemented, "sequence"},
		"shared memory": {func(m *oippb.ModelInferRequest) {
			m.Inputs[0].Parameters = params("shared_memory_region", textParam("r"))
		}, codes.Unimplemented, "shared memory"},
		"a timeout":  {func(m *oippb.ModelInferRequest) { m.Parameters = params("timeout", textParam("soon")) }, codes.InvalidArgument, "microseconds"},
		"a priority": {func(m *oippb.ModelInferRequest) { m.Parameters = params("priority", textParam("soon")) }, codes.InvalidArgument, "priority is 1"},
	} {
		n++
		req := askHalf("", 0)
		c.bend(req)
		_, err := r.infer(t.Context(), req)
		if st := status.Convert(err); st.Code() != c.code || !strings.Contains(st.Message(), c.text) {
			t.Errorf("%s: %v %q, want %v with %q", name, st.Code(), st.Message(), c.code, c.text)
		}
	}
	if _, err := r.infer(metadata.AppendToOutgoingContext(t.Context(), PriorityKey, "soon"), askHalf("", 0)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a class that does not exist: %v", err)
	}
	var ignored int
	err := r.conn.Invoke(t.Context(), "/"+inferenceService+"/ModelInfer", []byte{0x0a, 99}, &ignored, grpc.ForceCodecV2(bytesCodec{}))
	if st := status.Convert(err); st.Code() != codes.InvalidArgument || !strings.Contains(st.Message(), "no ModelInferRequest") {
		t.Errorf("not parsable: %v", err)
	}
	r.finished(t, n+2)
}

// TestModelInferTimeout: the request's own parameter is a deadline, and priorities are accepted.
func TestModelInferTimeout(t *testing.T) {
	r := start(t, Options{})
	r.publish(t, &inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{
		"only": signature("only", []inference.TensorInfo{info("x", tensor.Float, 1, 1)}, []inference.TensorInfo{info("y", tensor.Float, 1, 1)})}},
		func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
			if req.Class != inference.Interactive {
				t.Errorf("class %v", req.Class)
			}
			<-ctx.Done()
			return nil, ctx.Err()
		})
	req := askHalf("", 0)
	req.ModelName = "m"
	req.Parameters = map[string]*oippb.InferParameter{"timeout": intParam(1000), "priority": intParam(1), "theirs": textParam("x")}
	if _, err := r.infer(t.Context(), req); status.Code(err) != codes.DeadlineExceeded {
		t.Error(err)
	}
}

func TestInferenceServiceTells(t *testing.T) {
	r := start(t, Options{})
	r.publishHalf(t, 3)
	ctx := t.Context()
	live, ready := new(oippb.ServerLiveResponse), new(oippb.ServerReadyResponse)
	if err := r.oip(ctx, "ServerLive", &oippb.ServerLiveRequest{}, live); err != nil || !live.Live {
		t.Error(live, err)
	}
	if err := r.oip(ctx, "ServerReady", &oippb.ServerReadyRequest{}, ready); err != nil || !ready.Ready {
		t.Error(ready, err)
	}
	for _, c := range []struct {
		name, version string
		want          bool
	}{{"half_plus_two", "", true}, {"half_plus_two", "3", true}, {"half_plus_two", "4", false}, {"half_plus_two", "stable", false}, {"nobody", "", false}} {
		got := new(oippb.ModelReadyResponse)
		if err := r.oip(ctx, "ModelReady", &oippb.ModelReadyRequest{Name: c.name, Version: c.version}, got); err != nil || got.Ready != c.want {
			t.Errorf("%v: %v (%v)", c, got.Ready, err)
		}
	}
	server := new(oippb.ServerMetadataResponse)
	if err := r.oip(ctx, "ServerMetadata", &oippb.ServerMetadataRequest{}, server); err != nil || server.Name != "inferd" || server.Version != "1.2.3" || len(server.Extensions) == 0 {
		t.Error(server, err)
	}
	model := new(oippb.ModelMetadataResponse)
	tensorOf := func(name string) []*oippb.ModelMetadataResponse_TensorMetadata {
		return []*oippb.ModelMetadataResponse_TensorMetadata{{Name: name, Datatype: "FP32", Shape: []int64{-1, 1}}}
	}
	want := &oippb.ModelMetadataResponse{Name: "half_plus_two", Versions: []string{"3"}, Platform: "tensorflow_savedmodel", Inputs: tensorOf("x"), Outputs: tensorOf("y")}
	if err := r.oip(ctx, "ModelMetadata", &oippb.ModelMetadataRequest{Name: "half_plus_two"}, model); err != nil || !proto.Equal(model, want) {
		t.Errorf("%v (%v), want %v", model, err, want)
	}
	if err := r.oip(ctx, "ModelMetadata", &oippb.ModelMetadataRequest{Name: "nobody"}, model); status.Code(err) != codes.NotFound {
		t.Error(err)
	}
	config := new(oippb.ModelConfigResponse)
	if err := r.oip(ctx, "ModelConfig", &oippb.ModelConfigRequest{Name: "half_plus_two"}, config); err != nil || config.Config.Input[0].DataType != oippb.DataType_TYPE_FP32 || config.Config.MaxBatchSize != 0 {
		t.Error(config, err)
	}
	stats := new(oippb.ModelStatisticsResponse)
	if err := r.oip(ctx, "ModelStatistics", &oippb.ModelStatisticsRequest{}, stats); err != nil || len(stats.ModelStats) != 1 || stats.ModelStats[0].Version != "3" {
		t.Error(stats, err)
	}
	index := new(oippb.RepositoryIndexResponse)
	wantIndex := &oippb.RepositoryIndexResponse{Models: []*oippb.RepositoryIndexResponse_ModelIndex{{Name: "half_plus_two", Version: "3", State: "READY"}}}
	if err := r.oip(ctx, "RepositoryIndex", &oippb.RepositoryIndexRequest{Ready: true}, index); err != nil || !proto.Equal(index, wantIndex) {
		t.Error(index, err)
	}
	for method, req := range map[string]proto.Message{
		"RepositoryIndex": &oippb.RepositoryIndexRequest{RepositoryName: "r"}, "RepositoryModelLoad": &oippb.RepositoryModelLoadRequest{RepositoryName: "r", ModelName: "m"},
		"RepositoryModelUnload": &oippb.RepositoryModelUnloadRequest{ModelName: "m"}, // switched off
	} {
		if err := r.oip(ctx, method, req, new(oippb.RepositoryIndexResponse)); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	for method := range elsewhere {
		err := r.oip(ctx, method, &oippb.ServerLiveRequest{}, new(oippb.ServerLiveResponse))
		if st := status.Convert(err); st.Code() != codes.Unimplemented || !strings.HasPrefix(st.Message(), method+": ") {
			t.Errorf("%s: %v", method, err)
		}
	}
}
