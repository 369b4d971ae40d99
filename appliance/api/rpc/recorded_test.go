// recorded_test.go: recorded calls of every kind.
package rpc

import (
	"fmt"
	"strings"
	"testing"

	examplepb "github.com/wamuir/graft/tensorflow/core/example/example_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// feature is an Example with one feature.
func feature(name string, value int64) *examplepb.Example {
	return &examplepb.Example{Features: &examplepb.Features{Feature: map[string]*examplepb.Feature{
		name: {Kind: &examplepb.Feature_Int64List{Int64List: &examplepb.Int64List{Value: []int64{value}}}}}}}
}

func examples(list ...*examplepb.Example) *pb.Input {
	return &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: &pb.ExampleList{Examples: list}}}
}

func withContext(context *examplepb.Example, list ...*examplepb.Example) *pb.Input {
	return &pb.Input{Kind: &pb.Input_ExampleListWithContext{ExampleListWithContext: &pb.ExampleListWithContext{Examples: list, Context: context}}}
}

func exampleSignatures() map[string]*inference.Signature {
	sig := func(key, method, input string, outputs ...string) *inference.Signature {
		s := &inference.Signature{Key: key, Method: method, Inputs: []inference.TensorInfo{{Alias: input, DType: tensor.String, Shape: tensor.Shape{-1}}}}
		for _, o := range outputs {
			s.Outputs = append(s.Outputs, inference.TensorInfo{Alias: o, DType: tensor.Float, UnknownRank: true})
		}
		return s
	}
	all := make(map[string]*inference.Signature)
	for _, s := range []*inference.Signature{
		sig(inference.DefaultSignature, api.MethodClassify, "inputs", "classes", "scores"), sig("scores", api.MethodClassify, "inputs", "more", "scores"),
		sig("regress", api.MethodRegress, "inputs", "outputs"), sig("predict", "tensorflow/serving/predict", "inputs", "outputs"),
		sig("odd input", api.MethodRegress, "x", "outputs"), sig("odd output", api.MethodRegress, "inputs", "y"),
	} {
		all[s.Key] = s
	}
	return all
}

func TestDecodeRecordedExamples(t *testing.T) {
	spec := func(signature string) *pb.ModelSpec { return &pb.ModelSpec{Name: "another", SignatureName: signature} }
	task := func(signature, method string) *pb.InferenceTask {
		return &pb.InferenceTask{ModelSpec: spec(signature), MethodName: method}
	}
	one := examples(feature("x", 1))
	for _, tt := range []struct {
		name string
		kind inference.RecordedKind
		m    proto.Message
		want string
	}{
		{"classify", inference.RecordedClassify, &pb.ClassificationRequest{ModelSpec: spec(""), Input: examples(feature("x", 1), feature("x", 2))}, "serving_default[0 1]: x=1 | x=2"},
		{"classify without a spec", inference.RecordedClassify, &pb.ClassificationRequest{Input: one}, "serving_default[0 1]: x=1"},
		{"classify, some outputs", inference.RecordedClassify, &pb.ClassificationRequest{ModelSpec: spec("scores"), Input: one}, "scores[1]: x=1"},
		{"regress", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("regress"), Input: one}, "regress[0]: x=1"},
		{"context", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("regress"), Input: withContext(feature("c", 9), feature("x", 1), feature("x", 2))}, "regress[0]: c=9 x=1 | c=9 x=2"},
		{"context and example have the feature", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("regress"), Input: withContext(feature("x", 9), feature("x", 1))}, "regress[0]: x=1"},
		{"no context after all", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("regress"), Input: withContext(nil, feature("x", 1))}, "regress[0]: x=1"},
		{"multi inference", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{task("", api.MethodClassify), task("regress", api.MethodRegress)}, Input: one},
			"serving_default[0 1]: x=1; regress[0]: x=1"},
		{"no examples", inference.RecordedClassify, &pb.ClassificationRequest{Input: examples()}, "! Input is empty."},
		{"no input", inference.RecordedClassify, &pb.ClassificationRequest{}, "! Input is empty."},
		{"a context alone", inference.RecordedClassify, &pb.ClassificationRequest{Input: withContext(feature("x", 1))}, "! Input is empty."},
		{"a signature that is not there", inference.RecordedClassify, &pb.ClassificationRequest{ModelSpec: spec("gone"), Input: one}, "! No signature was found with the name: gone"},
		{"a classification signature", inference.RecordedRegress, &pb.RegressionRequest{Input: one}, "! Expected one output Tensor."},
		{"a predict signature with the right names", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("predict"), Input: one}, "predict[0]: x=1"},
		{"a predict signature without", inference.RecordedClassify, &pb.ClassificationRequest{ModelSpec: spec("predict"), Input: one}, `! Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: inputs {inputs} outputs {outputs}`},
		{"another input", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("odd input"), Input: one}, "! No regression inputs found in SignatureDef: inputs {x} outputs {outputs}"},
		{"another output", inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: spec("odd output"), Input: one}, "! No regression outputs found in SignatureDef: inputs {inputs} outputs {y}"},
		{"no task", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Input: one}, "! has no task"},
		{"too many tasks", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: make([]*pb.InferenceTask, maxTasks+1), Input: one}, "! more than 1000 tasks"},
		{"a task twice", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{task("regress", api.MethodRegress), task("regress", api.MethodRegress)}, Input: one},
			"! Duplicate evaluation of signature: regress"},
		{"a task for a signature that is not there", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{task("gone", api.MethodRegress)}, Input: one},
			"! Requested signature not found in model graph: gone"},
		{"a task of another method", inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{task("predict", "tensorflow/serving/predict")}, Input: one},
			"! Unsupported signature method_name: tensorflow/serving/predict"},
		{"a kind that is not replayed", 5, &pb.SessionRunRequest{}, "! Unsupported log_type for warmup: 5"},
		{"no message", inference.RecordedClassify, nil, "! malformed message"},
	} {
		b := []byte{0xff}
		if tt.m != nil {
			var err error
			if b, err = (proto.MarshalOptions{Deterministic: true}).Marshal(tt.m); err != nil {
				t.Fatal(err)
			}
		}
		got, err := DecodeRecorded(inference.Recorded{Kind: tt.kind, Request: b}, exampleSignatures())
		if want, bad := strings.CutPrefix(tt.want, "! "); bad {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", tt.name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var lines []string
		for _, r := range got {
			lines = append(lines, fmt.Sprintf("%s%v: %s", r.Signature.Key, r.Outputs, features(t, r.Inputs[0])))
		}
		if text := strings.Join(lines, "; "); text != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, text, tt.want)
		}
	}
}

// features reads the examples back with the generated code.
func features(t *testing.T, x *tensor.Tensor) string {
	t.Helper()
	var rows []string
	for _, s := range x.Strings {
		var e examplepb.Example
		if err := proto.Unmarshal(s, &e); err != nil {
			t.Fatal(err)
		}
		var row []string
		for _, name := range []string{"c", "x"} {
			if f := e.GetFeatures().GetFeature()[name]; f != nil {
				row = append(row, fmt.Sprintf("%s=%d", name, f.GetInt64List().GetValue()[0]))
			}
		}
		rows = append(rows, strings.Join(row, " "))
	}
	return strings.Join(rows, " | ")
}

// TestRecordedExamplesAreBounded: a context is repeated for each example, and a few bytes must not become many gigabytes.
func TestRecordedExamplesAreBounded(t *testing.T) {
	in := exampleInput{kind: 2, context: make([]byte, 1<<10), examples: make([][]byte, 8)}
	if _, err := in.tensor(8 << 10); err != nil {
		t.Error(err)
	}
	if _, err := in.tensor(8<<10 - 1); err == nil || !strings.Contains(err.Error(), "8 examples with a context of 1024 bytes each take 8192 bytes") {
		t.Error(err)
	}
	var many []byte
	for range api.MaxExamples + 1 {
		many = protowire.AppendBytes(protowire.AppendTag(many, 1, protowire.BytesType), nil)
	}
	b := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), many)
	b = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), b)
	_, err := DecodeRecorded(inference.Recorded{Kind: inference.RecordedClassify, Request: b}, exampleSignatures())
	if err == nil || !strings.Contains(err.Error(), "more than 65536 examples") {
		t.Error(err)
	}
}

// FuzzRecorded holds the hand-written reader against the generated code: what this one takes that one takes, and they see the same examples.
func FuzzRecorded(f *testing.F) {
	add := func(kind inference.RecordedKind, m proto.Message) {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(kind), b)
	}
	add(inference.RecordedClassify, &pb.ClassificationRequest{ModelSpec: &pb.ModelSpec{SignatureName: "scores"}, Input: examples(feature("x", 1), feature("y", 2))})
	add(inference.RecordedRegress, &pb.RegressionRequest{ModelSpec: &pb.ModelSpec{SignatureName: "regress"}, Input: withContext(feature("c", 1), feature("x", 1))})
	add(inference.RecordedMultiInference, &pb.MultiInferenceRequest{Tasks: []*pb.InferenceTask{{ModelSpec: &pb.ModelSpec{}, MethodName: api.MethodClassify}}, Input: examples(feature("x", 1))})
	f.Add(uint8(6), []byte{})
	signatures := exampleSignatures()
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		got, err := DecodeRecorded(inference.Recorded{Kind: inference.RecordedKind(kind), Request: b}, signatures)
		if err != nil {
			return
		}
		var input *pb.Input
		switch inference.RecordedKind(kind) {
		case inference.RecordedClassify:
			var m pb.ClassificationRequest
			err = proto.Unmarshal(b, &m)
			input = m.GetInput()
		case inference.RecordedRegress:
			var m pb.RegressionRequest
			err = proto.Unmarshal(b, &m)
			input = m.GetInput()
		case inference.RecordedMultiInference:
			var m pb.MultiInferenceRequest
			err = proto.Unmarshal(b, &m)
			if input = m.GetInput(); err == nil && len(m.GetTasks()) != len(got) {
				t.Fatalf("%d tasks, %d requests", len(m.GetTasks()), len(got))
			}
		default:
			return
		}
		if err != nil {
			return // what is wrong inside an example is for the graph to say
		}
		list := input.GetExampleList().GetExamples()
		if c := input.GetExampleListWithContext(); c != nil {
			list = c.GetExamples()
		}
		for _, r := range got {
			if len(r.Inputs) != 1 || r.Inputs[0].DType != tensor.String || len(r.Inputs[0].Strings) != len(list) {
				t.Fatalf("%d examples became %v", len(list), r.Inputs)
			}
			for i, s := range r.Inputs[0].Strings {
				var want examplepb.Example
				if c := input.GetExampleListWithContext().GetContext(); c != nil {
					proto.Merge(&want, c)
				}
				// Merge joins the lists of a feature that both have; on the wire a map's later entry replaces the earlier one.
				for name, f := range list[i].GetFeatures().GetFeature() {
					if want.GetFeatures().GetFeature() != nil {
						want.Features.Feature[name] = f
					}
				}
				if want.GetFeatures().GetFeature() == nil {
					proto.Merge(&want, list[i])
				}
				var e examplepb.Example
				if err := proto.Unmarshal(s, &e); err != nil {
					t.Fatal(err)
				}
				if len(e.ProtoReflect().GetUnknown()) == 0 && len(e.GetFeatures().GetFeature()) != len(want.GetFeatures().GetFeature()) {
					t.Fatalf("example %d is %v, not %v", i, &e, &want)
				}
			}
		}
	})
}
