// e2e_observe_test.go: limits, metrics and log lines of the running appliance.
package appliance

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	"google.golang.org/grpc/codes"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestBodyLimits: a body over the limit is refused before it is read, on both protocols, and compressed ones by what they hold.
func TestBodyLimits(t *testing.T) {
	const limit = 1 << 20
	s := serve(t, func(cfg *config.Config) { cfg.Limits.MaxRequestBytes = limit })
	s.publish("m", 1, modeltest.HalfPlusTwo())
	s.live("m", 1)

	// Only the head is sent: whoever waits for the body waits for ever.
	for _, head := range []string{"Content-Length: 1099511627776", fmt.Sprintf("Content-Length: %d", limit+1)} {
		c, err := net.Dial("tcp", strings.TrimPrefix(s.http, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, err = fmt.Fprintf(c, "POST /v1/models/m:predict HTTP/1.1\r\nHost: inferd\r\n%s\r\n\r\n", head)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatalf("%s: %v", head, err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		_ = c.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge || !bytes.Contains(body, []byte("1048576")) {
			t.Errorf("%s: %d %s, want 413 that names the limit", head, resp.StatusCode, body)
		}
	}

	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(append([]byte(`{"instances":[[1]]`), bytes.Repeat([]byte(" "), 4*limit)...)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		header     []string
		want       int
	}{
		{"large", strings.Repeat(" ", limit-20) + `{"instances":[[1]]}`, nil, 200},
		{"too large", strings.Repeat(" ", limit) + `{"instances":[[1]]}`, nil, 413},
		{"too large unpacked", packed.String(), []string{"Content-Encoding", "gzip"}, 413},
	} {
		code, answer, err := s.rest(t.Context(), "/v1/models/m:predict", c.body, c.header...)
		// A server that has answered need not take the rest of the body.
		if code != c.want && (err == nil || c.want == 200) {
			t.Errorf("%s: %d %s %v, want %d", c.name, code, answer, err, c.want)
		}
	}
	// No length: in chunks.
	resp, err := s.client.Post(s.http+"/v1/models/m:predict", "application/json", io.LimitReader(spaces{}, 10*limit))
	if err == nil {
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("in chunks: %d", resp.StatusCode)
		}
	}

	y, err := s.askGRPC(t.Context(), "m", make([]float32, limit/4))
	var f *failure
	if !errors.As(err, &f) || f.Code != codes.ResourceExhausted {
		t.Errorf("gRPC: %d values, %v", len(y), err)
	}
	s.ask("m", []float32{1}, []float32{2.5})
}

type spaces struct{}

func (spaces) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// TestMetrics: the series that operators need, by model, version and signature, and none by what strangers send.
func TestMetrics(t *testing.T) {
	s := serve(t, nil)
	s.publish("m", 1, modeltest.HalfPlusTwo())
	s.live("m", 1)
	s.publish("bad", 1, modeltest.UnknownOp())
	s.staged("bad", 1, "quarantined")
	s.ask("m", []float32{1, 2, 3}, []float32{2.5, 3, 3.5})
	for _, name := range []string{"stranger", "stranger%22%7D", "m/versions/7", "m/labels/stranger"} {
		if code, body, err := s.rest(t.Context(), "/v1/models/"+name+":predict", `{"instances":[[1]]}`); err != nil || code == 200 {
			t.Errorf("%s: %d %s %v", name, code, body, err)
		}
	}
	for _, model := range []string{"stranger", "m"} {
		if _, err := s.callGRPC(t.Context(), model, "stranger", nil, "y"); err == nil {
			t.Errorf("signature %s of model %s answers", "stranger", model)
		}
	}
	if code, _, err := s.rest(t.Context(), "/v1/models/m:predict", `{"instances":[["a"]]}`); err != nil || code != 400 {
		t.Errorf("a string for a number: %d %v", code, err)
	}

	if _, err := s.callGRPC(t.Context(), "m", "", map[string]*tensorpb.TensorProto{"x": {Dtype: typespb.DataType_DT_STRING}}, "y"); err == nil {
		t.Error("gRPC: a string for a number")
	}

	code, page := s.get("/metrics")
	if code != 200 {
		t.Fatalf("%d %s", code, page)
	}
	if code, other := s.get("/monitoring/prometheus/metrics"); code != 200 || !strings.Contains(other, "inferd_requests_total") {
		t.Errorf("TensorFlow Serving's path: %d %s", code, other)
	}
	const of = `model="m",version="1"`
	for _, want := range []string{
		`inferd_requests_total{code="OK",model="m",protocol="rest",signature="serving_default",version="1"} 1`,
		`inferd_requests_total{code="OK",model="m",protocol="grpc",signature="serving_default",version="1"} 1`,
		`inferd_requests_total{code="INVALID_ARGUMENT",model="m",protocol="rest",signature="serving_default",version="1"} 1`,
		`inferd_requests_total{code="INVALID_ARGUMENT",model="m",protocol="grpc",signature="serving_default",version="1"} 1`,
		`inferd_requests_total{code="NOT_FOUND",model="m",protocol="rest",signature="",version=""} 1`,
		`inferd_errors_total{model="m",reason="input"} 2`,
		`inferd_request_duration_seconds_count{model="m",protocol="rest",signature="serving_default",version="1"}`,
		`inferd_batch_wait_seconds_count{model="m",signature="serving_default",version="1"} 2`,
		`inferd_batch_rows_sum{model="m",signature="serving_default",version="1"} 6`,
		`inferd_run_duration_seconds_count{model="m",signature="serving_default",version="1"} 2`,
		`inferd_model_versions{model="m",state="live"} 1`,
		`inferd_model_versions{model="bad",state="quarantined"} 1`,
		`inferd_worker_private_bytes{` + of + `} `,
		`inferd_worker_pss_bytes{` + of + `} `,
		`inferd_worker_up{` + of + `} 1`,
		`inferd_worker_restarts_total{` + of + `} 0`,
		`inferd_batch_queued{` + of + `} 0`,
		`inferd_ready 1`,
		`inferd_build_info{version="test"} 1`,
		`:tensorflow:serving:request_count{model_name="m",status="OK"} 2`,
		`:tensorflow:serving:request_latency_count{API="predict",entrypoint="REST",model_name="m"} 1`,
	} {
		if !strings.Contains(page, "\n"+want) {
			t.Errorf("the page has no line that begins with %s", want)
		}
	}
	for line := range strings.Lines(page) {
		if strings.Contains(line, "stranger") || strings.Contains(line, `version="7"`) {
			t.Errorf("a stranger's word became a label: %s", line)
		}
	}
	if t.Failed() {
		for line := range strings.Lines(page) {
			if strings.Contains(line, "inferd_") && !strings.Contains(line, "_bucket") && line[0] != '#' {
				t.Log(strings.TrimSpace(line))
			}
		}
	}

	// What a version leaves behind when it is gone: its counts, no more.
	s.publish("m", 2, modeltest.HalfPlusTwo())
	s.live("m", 2)
	s.staged("m", 1, "retired")
	_, page = s.get("/metrics")
	for line := range strings.Lines(page) {
		if strings.Contains(line, `model="m"`) && strings.Contains(line, `version="1"`) && !strings.HasPrefix(line, "inferd_requests_total") {
			t.Errorf("of a version that is gone: %s", line)
		}
	}
}

// TestTensorFlowLines: what TensorFlow writes arrives as lines of our log, with the model's name and the level that it has there.
func TestTensorFlowLines(t *testing.T) {
	s := serve(t, nil)
	s.publish("parser", 3, modeltest.TFExample())
	s.publish("crasher", 1, modeltest.Crasher())
	s.live("parser", 3)
	s.live("crasher", 1)
	for model, version := range map[string]string{"parser": "3", "crasher": "1"} {
		line := s.logs.wait(t, "msg", "tensorflow", "model", model, "version", version, "text", "SavedModel load for tags")
		if line["level"] != "DEBUG" || !strings.Contains(fmt.Sprint(line["source"]), "loader.cc") {
			t.Errorf("%v", line)
		}
	}
	// The made-up run has failed in the parser.
	if line := s.logs.wait(t, "msg", "tensorflow", "model", "parser", "text", "OP_REQUIRES failed"); line["level"] != "WARN" {
		t.Errorf("%v", line)
	}
	if y, err := s.askREST(t.Context(), "crasher", []float32{-1}); err == nil {
		t.Errorf("the crasher answers %v", y)
	}
	if line := s.logs.wait(t, "msg", "tensorflow", "model", "crasher", "text", "asked to die"); line["level"] != "ERROR" {
		t.Errorf("%v", line)
	}
	s.logs.wait(t, "level", "WARN", "msg", "worker died", "model", "crasher", "err", "SIGABRT")
	s.logs.wait(t, "level", "INFO", "msg", "worker restarted", "model", "crasher")
}
