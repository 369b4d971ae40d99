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

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// recordRequest adds x to the version folder's recorded requests.
func recordRequest(t *testing.T, dir string, x float32) {
	t.Helper()
	log, err := proto.Marshal(&pb.PredictionLog{LogType: &pb.PredictionLog_PredictLog{PredictLog: &pb.PredictLog{Request: &pb.PredictRequest{
		ModelSpec: &pb.ModelSpec{Name: "another"},
		Inputs: map[string]*tensorpb.TensorProto{"x": {Dtype: typespb.DataType_DT_FLOAT, FloatVal: []float32{x},
			TensorShape: &shapepb.TensorShapeProto{Dim: []*shapepb.TensorShapeProto_Dim{{Size: 1}}}}},
	}}}})
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
	if _, _, _, err := trial.Open(t.Context(), dir); err == nil || !strings.Contains(err.Error(), `recorded request 3 of assets.extra/tf_serving_warmup_requests: output "y" is NaN`) {
		t.Errorf("got %v", err)
	}
}
