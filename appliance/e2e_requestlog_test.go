// e2e_requestlog_test.go: requests of every door in the log, and a file of it as the warm-up of the next version.
package appliance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestLoggedRequestsWarmTheNextVersion: Predict, Classify, Regress and MultiInference, over both doors, logged by the one process and replayed by the next.
func TestLoggedRequestsWarmTheNextVersion(t *testing.T) {
	var cfg *config.Config
	s := serve(t, func(c *config.Config) {
		c.Defaults.RequestLog = config.ModelLog{Rate: 1, Format: config.RequestTFRecord, Payloads: true}
		cfg = c
	})
	s.publish("m", 1, modeltest.Examples())
	s.live("m", 1)
	spec := func(signature string) *pb.ModelSpec { return &pb.ModelSpec{Name: "m", SignatureName: signature} }
	list := &pb.Input{Kind: &pb.Input_ExampleList{ExampleList: &pb.ExampleList{}}}
	list.GetExampleList().Examples = append(list.GetExampleList().Examples, example(t, 1), example(t, 2))
	const service = "/tensorflow.serving.PredictionService/"
	var classes pb.ClassificationResponse
	if err := s.conn.Invoke(t.Context(), service+"Classify", &pb.ClassificationRequest{ModelSpec: spec(""), Input: list}, &classes); err != nil || len(classes.GetResult().GetClassifications()) != 2 {
		t.Fatalf("%v, %v", &classes, err)
	}
	if err := s.conn.Invoke(t.Context(), service+"MultiInference", &pb.MultiInferenceRequest{Input: list, Tasks: []*pb.InferenceTask{
		{ModelSpec: spec("classes"), MethodName: "tensorflow/serving/classify"}, {ModelSpec: spec("flat"), MethodName: "tensorflow/serving/regress"}}}, new(pb.MultiInferenceResponse)); err != nil {
		t.Fatal(err)
	}
	for path, body := range map[string]string{
		":regress":  `{"signature_name":"regress","context":{"bias":1.5},"examples":[{"x":1.0}]}`,
		":predict":  fmt.Sprintf(`{"signature_name":"predict","instances":[{"b64":%q}]}`, "CgwKCgoBeBIFEgMKAQA="), // refused by the graph: it is not logged
		":classify": `{"examples":[{"x":null}]}`,
	} {
		code, answer, err := s.rest(t.Context(), "/v1/models/m"+path, body)
		if err != nil || (code == 200) != (path == ":regress") {
			t.Errorf("%s: %d %s, %v", path, code, answer, err)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.StateDir, "requests", "m", "*"))
	if err != nil || len(files) != 1 || filepath.Ext(files[0]) != ".tfrecord" {
		t.Fatalf("%v, %v", files, err)
	}

	next := run(t, cfg)
	next.live("m", 1)
	dir := modeltest.Write(t, modeltest.Examples())
	warmup := filepath.Join(dir, savedmodel.WarmupFile)
	if err := os.MkdirAll(filepath.Dir(warmup), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(files[0], warmup); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(filepath.Join(next.models, "m", "2"), os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	v := next.live("m", 2)
	for key, want := range map[string]int{"serving_default": 1, "classes": 1, "flat": 1, "regress": 1, "predict": 0} {
		if got := v.Proof.Signatures[key].Recorded; got != want {
			t.Errorf("%d recorded requests of %s were replayed, want %d", got, key, want)
		}
	}
}

// TestRequestLines: lines of JSON without payloads, for the share and the models that the configuration says, also when it says so later.
func TestRequestLines(t *testing.T) {
	var cfg *config.Config
	s := serve(t, func(c *config.Config) {
		c.Defaults.RequestLog.Rate = 1
		cfg = c
	})
	half := modeltest.HalfPlusTwo()
	for _, model := range []string{"a", "b"} {
		s.publish(model, 1, half)
		s.live(model, 1)
	}
	s.ask("a", []float32{12345}, []float32{6174.5})
	if code, body, err := s.rest(t.Context(), "/v1/models/a:predict", `{"inputs":[[1],[2]]}`); err != nil || code != 200 {
		t.Errorf("%d %s, %v", code, body, err)
	}
	quiet := *s.current.Load()
	quiet.Defaults.RequestLog.Rate = 0
	if err := s.apply(t.Context(), &quiet); err != nil {
		t.Fatal(err)
	}
	s.ask("b", []float32{1}, []float32{2.5})
	if got := s.condition(health.CodeRequestLog); got != "" {
		t.Error(got)
	}
	_, metrics := s.get("/metrics")
	for _, want := range []string{"inferd_request_log_records_total", `inferd_request_log_dropped_total{reason="behind"} 0`, "inferd_request_log_bytes"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s among the metrics", want)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(cfg.StateDir, "requests", "*", "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	if len(lines) != 3 { // ask asks over both doors
		t.Fatalf("%s", text)
	}
	for _, line := range lines {
		var l struct {
			Model, Method, Code string
			Inputs              map[string]map[string]any
		}
		if err := json.Unmarshal(line, &l); err != nil || l.Model != "a" || l.Method != "predict" || l.Code != "OK" || l.Inputs["x"]["dtype"] != "float" || l.Inputs["x"]["content"] != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
}
