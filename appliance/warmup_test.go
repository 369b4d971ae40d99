// warmup_test.go: recorded requests, through the real decoder and the real runtime.
package appliance

import (
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	examplepb "github.com/wamuir/graft/tensorflow/core/example/example_protos_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	corepb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

// recordRequest adds a PredictRequest of x to the version folder's recorded requests.
func recordRequest(t *testing.T, dir string, x float32) {
	t.Helper()
	recordCall(t, dir, &pb.PredictionLog{LogType: &pb.PredictionLog_PredictLog{PredictLog: &pb.PredictLog{Request: &pb.PredictRequest{
		ModelSpec: &pb.ModelSpec{Name: "another"},
		Inputs: map[string]*tensorpb.TensorProto{"x": {Dtype: typespb.DataType_DT_FLOAT, FloatVal: []float32{x},
			TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 1}}}}},
	}}}})
}

// recordCall adds a record to the version folder's recorded requests.
func recordCall(t *testing.T, dir string, m *pb.PredictionLog) {
	t.Helper()
	log, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	sum := func(b []byte) uint32 {
		c := crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
		return (c>>15 | c<<17) + 0xa282ead8
	}
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(log)))
	b = binary.LittleEndian.AppendUint32(b, sum(b))
	b = binary.LittleEndian.AppendUint32(append(b, log...), sum(log))
	path := filepath.Join(dir, savedmodel.WarmupFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestRecordedRequests(t *testing.T) {
	cfg := config.Default()
	cfg.Runtime.Library = library(t)
	trial, err := NewTrial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	dir := modeltest.Write(t, modeltest.HalfPlusTwo())
	recordRequest(t, dir, 1)
	recordRequest(t, dir, 2)
	s, _, proof, err := trial.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if p := proof.Signatures[inference.DefaultSignature]; p.Recorded != 2 || p.Slowest <= 0 || proof.Unproven != "" {
		t.Errorf("%+v", proof)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	recordRequest(t, dir, float32(math.NaN())) // half of it plus two is none either
	if _, _, _, err := trial.Open(t.Context(), dir); err == nil || !strings.Contains(updater.Message(err), `recorded request 3 of assets.extra/tf_serving_warmup_requests: output "y" is NaN`) {
		t.Errorf("got %v", err)
	}
}

// withExampleSignatures is modeltest.TFExample with signatures "classify" and "regress" as TensorFlow Serving's estimators have them.
func withExampleSignatures() *modeltest.Model {
	m := modeltest.TFExample()
	def := m.Meta.SignatureDef[inference.DefaultSignature]
	for key, output := range map[string]string{"classify": "scores", "regress": "outputs"} {
		m.Meta.SignatureDef[key] = &corepb.SignatureDef{
			Inputs: map[string]*corepb.TensorInfo{"inputs": def.Inputs["examples"]}, Outputs: map[string]*corepb.TensorInfo{output: def.Outputs["y"]}}
	}
	return m
}

// example is a tf.Example with the float feature "x".
func example(t *testing.T, x float32) *examplepb.Example {
	t.Helper()
	var e examplepb.Example
	if err := proto.Unmarshal(modeltest.Example(x), &e); err != nil {
		t.Fatal(err)
	}
	return &e
}

// TestRecordedExamples: the kinds of records beside PredictRequests, through the real runtime.
func TestRecordedExamples(t *testing.T) {
	cfg := config.Default()
	cfg.Runtime.Library = library(t)
	trial, err := NewTrial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	dir := modeltest.Write(t, withExampleSignatures())
	spec := func(signature string) *pb.ModelSpec { return &pb.ModelSpec{Name: "m", SignatureName: signature} }
	list := &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: &pb.ExampleList{Examples: []*examplepb.Example{example(t, 1), example(t, 2)}}}}
	context := &pb.Input{Kind: &pb.Input_ExampleListWithContext{ExampleListWithContext: &pb.ExampleListWithContext{
		Examples: []*examplepb.Example{{}}, Context: example(t, 3)}}} // the only "x" is the context's
	recordCall(t, dir, &pb.PredictionLog{LogType: &pb.PredictionLog_ClassifyLog{ClassifyLog: &pb.ClassifyLog{Request: &pb.ClassificationRequest{ModelSpec: spec("classify"), Input: list}}}})
	recordCall(t, dir, &pb.PredictionLog{LogType: &pb.PredictionLog_RegressLog{RegressLog: &pb.RegressLog{Request: &pb.RegressionRequest{ModelSpec: spec("regress"), Input: context}}}})
	recordCall(t, dir, &pb.PredictionLog{LogType: &pb.PredictionLog_MultiInferenceLog{MultiInferenceLog: &pb.MultiInferenceLog{Request: &pb.MultiInferenceRequest{
		Tasks: []*pb.InferenceTask{{ModelSpec: spec("classify"), MethodName: "tensorflow/serving/classify"}, {ModelSpec: spec("regress"), MethodName: "tensorflow/serving/regress"}},
		Input: list}}}})
	s, _, proof, err := trial.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if proof.Signatures["classify"].Recorded != 2 || proof.Signatures["regress"].Recorded != 2 {
		t.Errorf("%+v", proof)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for _, bad := range []struct {
		log  *pb.PredictionLog
		says string
	}{
		{&pb.PredictionLog{LogType: &pb.PredictionLog_ClassifyLog{ClassifyLog: &pb.ClassifyLog{Request: &pb.ClassificationRequest{ModelSpec: spec("regress"), Input: list}}}},
			"recorded request 4 of assets.extra/tf_serving_warmup_requests: INVALID_ARGUMENT: Expected classification signature outputs to contain at least one of \"classes\" or \"scores\". Signature was: inputs {inputs} outputs {outputs}"},
		{&pb.PredictionLog{LogType: &pb.PredictionLog_RegressLog{RegressLog: &pb.RegressLog{Request: &pb.RegressionRequest{ModelSpec: spec("regress"),
			Input: &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: &pb.ExampleList{Examples: []*examplepb.Example{{}}}}}}}}}, "recorded request 4 of"}, // no feature "x"
		{&pb.PredictionLog{LogType: &pb.PredictionLog_SessionRunLog{SessionRunLog: &pb.SessionRunLog{}}}, "Unsupported log_type for warmup: 5"},
	} {
		other := t.TempDir() + "/m/1"
		if err := os.CopyFS(other, os.DirFS(dir)); err != nil {
			t.Fatal(err)
		}
		recordCall(t, other, bad.log)
		if _, _, _, err := trial.Open(t.Context(), other); err == nil || !strings.Contains(updater.Message(err), bad.says) {
			t.Errorf("got %v, want %s", err, bad.says)
		}
	}
}
