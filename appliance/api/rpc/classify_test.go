// classify_test.go: Classify, Regress and MultiInference with a client of the generated code.
package rpc

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"testing"

	examplepb "github.com/wamuir/graft/tensorflow/core/example/example_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// estimator answers with two classes for each example, or one number; a label is how many bytes the example has.
func estimator(_ context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
	list := req.Inputs[0].Strings
	if len(list[0]) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Example 0 (key: unknown) lacks x")
	}
	out := make([]*tensor.Tensor, len(req.Outputs))
	n := int64(len(list))
	for i, o := range req.Outputs {
		switch alias := req.Signature.Outputs[o].Alias; alias {
		case "classes":
			out[i] = &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{n, 2}}
			for _, e := range list {
				out[i].Strings = append(out[i].Strings, fmt.Appendf(nil, "%d", len(e)), nil)
			}
		case "odd":
			out[i] = &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{n + 1}, Data: make([]byte, 4*(n+1))}
		default:
			t := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{n, 2}}
			if alias == "outputs" {
				t.Shape[1] = 1
			}
			for k := range t.Shape[0] * t.Shape[1] {
				t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(float32(k)))
			}
			out[i] = t
		}
	}
	return out, nil
}

func publishEstimator(t *testing.T, r *rig) {
	v := &inference.Version{Model: "m", Number: 3, Signatures: map[string]*inference.Signature{}}
	add := func(key, input string, outputs ...inference.TensorInfo) {
		v.Signatures[key] = signature(key, []inference.TensorInfo{info(input, tensor.String, -1)}, outputs)
	}
	classes, scores := info("classes", tensor.String, -1, 2), info("scores", tensor.Float, -1, 2)
	add("serving_default", "inputs", classes, scores)
	add("labels", "inputs", classes)
	add("scores", "inputs", scores)
	add("regress", "inputs", info("outputs", tensor.Float, -1, 1))
	add("predict", "x", info("y", tensor.Float, -1, 1))
	v.Signatures["two inputs"] = signature("two inputs", []inference.TensorInfo{info("a", tensor.String, -1), info("inputs", tensor.String, -1)}, []inference.TensorInfo{scores})
	v.Signatures["three outputs"] = signature("three outputs", v.Signatures["labels"].Inputs, []inference.TensorInfo{classes, scores, info("z", tensor.Float)})
	r.publish(t, v, estimator)
}

func inSpec(signature string) *pb.ModelSpec {
	return &pb.ModelSpec{Name: "m", SignatureName: signature}
}

func effective(signature string) *pb.ModelSpec {
	return &pb.ModelSpec{Name: "m", SignatureName: signature, VersionChoice: &pb.ModelSpec_Version{Version: wrapperspb.Int64(3)}}
}

func classesOf(rows ...[]*pb.Class) *pb.ClassificationResult {
	r := &pb.ClassificationResult{}
	for _, row := range rows {
		r.Classifications = append(r.Classifications, &pb.Classifications{Classes: row})
	}
	return r
}

func regressionsOf(values ...float32) *pb.RegressionResult {
	r := &pb.RegressionResult{}
	for _, v := range values {
		r.Regressions = append(r.Regressions, &pb.Regression{Value: v})
	}
	return r
}

func task(signature, method string) *pb.InferenceTask {
	return &pb.InferenceTask{ModelSpec: inSpec(signature), MethodName: method}
}

func TestExampleMethods(t *testing.T) {
	r := start(t, Options{MaxRequestBytes: 1 << 20})
	publishEstimator(t, r)
	one, two := examples(feature("x", 1)), examples(feature("x", 1), feature("xy", 1))
	n := fmt.Sprint(proto.Size(feature("x", 1)))
	wide := fmt.Sprint(proto.Size(feature("xy", 1)))
	multi := func(input *pb.Input, tasks ...*pb.InferenceTask) *pb.MultiInferenceRequest {
		return &pb.MultiInferenceRequest{Tasks: tasks, Input: input}
	}
	const classify, regress = api.MethodClassify, api.MethodRegress
	calls := 0
	for _, c := range []struct {
		req, want proto.Message
		code      codes.Code
		says      string
	}{
		{req: &pb.ClassificationRequest{ModelSpec: inSpec(""), Input: two}, want: &pb.ClassificationResponse{ModelSpec: effective("serving_default"),
			Result: classesOf([]*pb.Class{{Label: n}, {Score: 1}}, []*pb.Class{{Label: wide, Score: 2}, {Score: 3}})}},
		{req: &pb.ClassificationRequest{ModelSpec: effective("labels"), Input: one}, want: &pb.ClassificationResponse{ModelSpec: effective("labels"), Result: classesOf([]*pb.Class{{Label: n}, {}})}},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("scores"), Input: one}, want: &pb.ClassificationResponse{ModelSpec: effective("scores"), Result: classesOf([]*pb.Class{{}, {Score: 1}})}},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("labels"), Input: withContext(feature("c", 1), feature("x", 1))}, want: &pb.ClassificationResponse{ModelSpec: effective("labels"),
			Result: classesOf([]*pb.Class{{Label: fmt.Sprint(proto.Size(feature("x", 1)) + proto.Size(feature("c", 1)))}, {}})}},
		{req: &pb.RegressionRequest{ModelSpec: inSpec("regress"), Input: two}, want: &pb.RegressionResponse{ModelSpec: effective("regress"), Result: regressionsOf(0, 1)}},
		{req: multi(two, task("", classify), task("regress", regress), task("labels", classify)), want: &pb.MultiInferenceResponse{Results: []*pb.InferenceResult{
			{ModelSpec: effective("serving_default"), Result: &pb.InferenceResult_ClassificationResult{ClassificationResult: classesOf([]*pb.Class{{Label: n}, {Score: 1}}, []*pb.Class{{Label: wide, Score: 2}, {Score: 3}})}},
			{ModelSpec: effective("regress"), Result: &pb.InferenceResult_RegressionResult{RegressionResult: regressionsOf(0, 1)}},
			{ModelSpec: effective("labels"), Result: &pb.InferenceResult_ClassificationResult{ClassificationResult: classesOf([]*pb.Class{{Label: n}, {}}, []*pb.Class{{Label: wide}, {}})}},
		}}},
		{req: &pb.ClassificationRequest{Input: one}, code: codes.InvalidArgument, says: "Missing ModelSpec"},
		{req: &pb.RegressionRequest{ModelSpec: &pb.ModelSpec{}, Input: one}, code: codes.InvalidArgument, says: "ModelSpec has no name specified."},
		{req: &pb.RegressionRequest{ModelSpec: modelSpec("n"), Input: one}, code: codes.NotFound, says: "Servable not found for request: Latest(n)"},
		{req: &pb.RegressionRequest{ModelSpec: modelVersion("m", 4), Input: one}, code: codes.NotFound, says: "Servable not found for request: Specific(m, 4)"},
		{req: &pb.RegressionRequest{ModelSpec: modelLabel("m", "l"), Input: one}, code: codes.InvalidArgument, says: "Unrecognized servable version label: l"},
		{req: &pb.RegressionRequest{ModelSpec: inSpec("gone"), Input: one}, code: codes.InvalidArgument, says: "No signature was found with the name: gone"},
		{req: &pb.RegressionRequest{ModelSpec: inSpec(""), Input: one}, code: codes.InvalidArgument, says: "Expected one output Tensor."},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("two inputs"), Input: one}, code: codes.InvalidArgument, says: "Expected one input Tensor."},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("three outputs"), Input: one}, code: codes.InvalidArgument, says: "Expected one or two output Tensors, found 3"},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("predict"), Input: one}, code: codes.InvalidArgument, says: "No classification inputs found in SignatureDef: inputs {x} outputs {y}"},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec(""), Input: examples()}, code: codes.InvalidArgument, says: "Input is empty."},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec("")}, code: codes.InvalidArgument, says: "Input is empty."},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec(""), Input: examples(&examplepb.Example{})}, code: codes.InvalidArgument, says: "Example 0 (key: unknown) lacks x"},
		{req: &pb.ClassificationRequest{ModelSpec: inSpec(""), Input: withContext(feature(strings.Repeat("c", 1<<18), 1), make([]*examplepb.Example, 5)...)}, code: codes.ResourceExhausted,
			says: "5 examples with a context of 262"},
		{req: multi(one), code: codes.InvalidArgument, says: "ModelSpec has no name specified."},
		{req: multi(one, &pb.InferenceTask{MethodName: classify}), code: codes.InvalidArgument, says: "ModelSpec has no name specified."},
		{req: multi(one, task("", classify), &pb.InferenceTask{MethodName: classify}), code: codes.InvalidArgument, says: "Found ModelSpec with an empty model name."},
		{req: multi(one, task("", classify), &pb.InferenceTask{ModelSpec: modelSpec("n"), MethodName: classify}), code: codes.InvalidArgument,
			says: "All ModelSpecs in a MultiInferenceRequest must access the same model name."},
		{req: multi(one, task("", classify), task("serving_default", classify)), code: codes.InvalidArgument, says: "Duplicate evaluation of signature: serving_default"},
		{req: multi(one, task("gone", classify)), code: codes.InvalidArgument, says: "Requested signature not found in model graph: gone"},
		{req: multi(one, task("predict", "tensorflow/serving/predict")), code: codes.Unimplemented, says: "Unsupported signature method_name: tensorflow/serving/predict"},
		{req: multi(one, task("", classify), task("regress", classify)), code: codes.InvalidArgument, says: `Expected classification signature outputs to contain at least one of "classes" or "scores".`},
		{req: multi(examples(&examplepb.Example{}), task("", classify), task("regress", regress)), code: codes.InvalidArgument, says: "Example 0 (key: unknown) lacks x"},
		{req: multi(nil, task("", classify)), code: codes.InvalidArgument, says: "Input is empty."},
	} {
		calls++
		method, got := "MultiInference", proto.Message(&pb.MultiInferenceResponse{})
		switch c.req.(type) {
		case *pb.ClassificationRequest:
			method, got = "Classify", &pb.ClassificationResponse{}
		case *pb.RegressionRequest:
			method, got = "Regress", &pb.RegressionResponse{}
		}
		err := r.conn.Invoke(t.Context(), "/tensorflow.serving.PredictionService/"+method, c.req, got)
		if c.want != nil {
			if err != nil || !proto.Equal(got, c.want) {
				t.Errorf("%s: got %v, %v\nwant %v", method, got, err, c.want)
			}
		} else if st := status.Convert(err); st.Code() != c.code || !strings.HasPrefix(st.Message(), c.says) {
			t.Errorf("%s %.100v: %v, want %v %s", method, c.req, err, c.code, c.says)
		}
	}
	for i, o := range r.finished(t, calls) {
		if o.Method != "classify" && o.Method != "regress" && o.Method != "multi_inference" || i < 6 && (o.Version != 3 || o.Model != "m" || o.Signature == "" || o.Code != inference.OK) {
			t.Errorf("observed %+v", o)
		}
	}
}

// TestTasksRunTogether: the tasks of one MultiInferenceRequest wait for each other's runs, not one after the other, and the first failure is answered when
// all have ended, for they share the message's memory.
func TestTasksRunTogether(t *testing.T) {
	r := start(t, Options{})
	v := &inference.Version{Model: "m", Number: 3, Signatures: map[string]*inference.Signature{}}
	var req pb.MultiInferenceRequest
	const tasks = 4
	for i := range tasks {
		key := fmt.Sprint("s", i)
		v.Signatures[key] = signature(key, []inference.TensorInfo{info("inputs", tensor.String, -1)}, []inference.TensorInfo{info("outputs", tensor.Float, -1, 1)})
		req.Tasks = append(req.Tasks, task(key, api.MethodRegress))
	}
	req.Input = examples(feature("x", 1))
	var running atomic.Int32
	all, ended := make(chan struct{}), atomic.Int32{}
	r.publish(t, v, func(ctx context.Context, call *inference.Request) ([]*tensor.Tensor, error) {
		defer ended.Add(1)
		if running.Add(1) == tasks {
			close(all)
		}
		select {
		case <-all:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if call.Signature.Key == "s1" {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "s1 cannot")
		}
		return estimator(ctx, call)
	})
	err := r.conn.Invoke(t.Context(), "/tensorflow.serving.PredictionService/MultiInference", &req, &pb.MultiInferenceResponse{})
	if status.Code(err) != codes.InvalidArgument || status.Convert(err).Message() != "s1 cannot" || ended.Load() != tasks {
		t.Errorf("%v, and %d tasks had ended", err, ended.Load())
	}
}

// TestTaskThatPanics: each task but the first has a goroutine of its own, and its panic is the call's alone.
func TestTaskThatPanics(t *testing.T) {
	r := start(t, Options{})
	y := info("scores", tensor.Float, -1, 2)
	v := &inference.Version{Model: "m", Number: 3, Signatures: map[string]*inference.Signature{}}
	for _, key := range []string{"good", "bad"} {
		v.Signatures[key] = signature(key, []inference.TensorInfo{info("inputs", tensor.String, -1)}, []inference.TensorInfo{y})
	}
	r.publish(t, v, func(ctx context.Context, req *inference.Request) ([]*tensor.Tensor, error) {
		if req.Signature.Key == "bad" {
			panic("a fault of ours")
		}
		return estimator(ctx, req)
	})
	req := &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{task("good", api.MethodClassify), task("bad", api.MethodClassify)}, Input: examples(feature("x", 1))}
	for range 2 { // it goes on
		err := r.conn.Invoke(t.Context(), "/tensorflow.serving.PredictionService/MultiInference", req, new(pb.MultiInferenceResponse))
		if st := status.Convert(err); st.Code() != codes.Internal || !strings.Contains(st.Message(), "its log has the reason") {
			t.Error(err)
		}
	}
}

// TestUnreadableExampleMessages: what is no message of the kind is refused before anything is asked.
func TestUnreadableExampleMessages(t *testing.T) {
	for _, kind := range []inference.RecordedKind{inference.RecordedClassify, inference.RecordedRegress, inference.RecordedMultiInference} {
		for _, b := range []string{"\x0a\x05a", "\x12\x03\x0a\x05a", "\x0a\x03\x0a\x01\xff", "\x00"} {
			r := exampleRequest{kind: kind}
			if err := r.parse([]byte(b)); err == nil {
				t.Errorf("%d: %q was read", kind, b)
			}
		}
	}
}
