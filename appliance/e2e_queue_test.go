// e2e_queue_test.go: jobs over the doors of a whole appliance, with real workers: submit, wait, result, and all that may come between.
package appliance

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// call is one request over HTTP, with headers in pairs.
func (s *server) call(method, path, body string, header ...string) (code int, answer string, got http.Header) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, s.http+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(text), resp.Header
}

// submit queues column x for the model, which must be taken, and is the job's id.
func (s *server) submit(model string, x float32, header ...string) (id string) {
	s.t.Helper()
	code, answer, h := s.call("POST", "/v1/models/"+model+":submit", fmt.Sprintf(`{"instances": [[%v]]}`, x), header...)
	var got struct{ ID, State string }
	if err := json.Unmarshal([]byte(answer), &got); err != nil || code != 202 && code != 200 || h.Get("Location") != "/v1/jobs/"+got.ID || got.ID == "" {
		s.t.Fatalf("submit: %d %s %v (%v)", code, answer, h, err)
	}
	return got.ID
}

// job is what is told of the job.
func (s *server) job(id, query string) (j jobs.Job) {
	s.t.Helper()
	code, answer, _ := s.call("GET", "/v1/jobs/"+id+query, "")
	if err := json.Unmarshal([]byte(answer), &j); err != nil || code != 200 {
		s.t.Fatalf("job %s: %d %s (%v)", id, code, answer, err)
	}
	return j
}

// untilEnded waits until the job has ended as state.
func (s *server) untilEnded(id, state string) jobs.Job {
	s.t.Helper()
	for end := time.Now().Add(patience); ; {
		j := s.job(id, "?wait=10")
		if j.State == state {
			return j
		}
		if time.Now().After(end) || j.Finished != nil {
			s.t.Fatalf("job %s is %+v, want it %s\nlog:\n%s", id, j, state, s.logs.tail(40))
		}
	}
}

// jobAnswered waits for the job's result, which must be the one number y, answered by version.
func (s *server) jobAnswered(id string, y float32, version string) {
	s.t.Helper()
	s.untilEnded(id, "done")
	code, answer, h := s.call("GET", "/v1/jobs/"+id+"/result", "")
	var got struct{ Predictions [][]float32 }
	if err := json.Unmarshal([]byte(answer), &got); err != nil || code != 200 || len(got.Predictions) != 1 || got.Predictions[0][0] != y || h.Get("X-Inferd-Model-Version") != version {
		s.t.Fatalf("result of %s: %d %s version %s (%v), want %v of %s", id, code, answer, h.Get("X-Inferd-Model-Version"), err, y, version)
	}
}

// TestJobs: what the doors say to good and to bad submits, and about jobs in every state.
func TestJobs(t *testing.T) {
	s := serve(t, func(cfg *config.Config) { cfg.Queue.Backoff = time.Millisecond })
	s.publish("half", 1, modeltest.HalfPlusTwo())
	s.live("half", 1)

	id := s.submit("half", 2)
	s.jobAnswered(id, 3, "1")
	_, predicted, _ := s.call("POST", "/v1/models/half:predict", `{"instances": [[2]]}`)
	if _, result, _ := s.call("GET", "/v1/jobs/"+id+"/result", ""); result != predicted {
		t.Errorf("the result is %q, and predict's answer %q", result, predicted)
	}
	if code, answer, _ := s.call("DELETE", "/v1/jobs/"+id, ""); code != 204 || answer != "" {
		t.Errorf("acknowledge: %d %s", code, answer)
	}
	for _, path := range []string{"", "/result"} {
		if code, answer, h := s.call("GET", "/v1/jobs/"+id+path, ""); code != 404 || h.Get("X-Inferd-Reason") != "job" {
			t.Errorf("a job that was acknowledged: %d %s", code, answer)
		}
	}

	// The same key is the same job; another body with it is a conflict.
	key := []string{"Idempotency-Key", "order 66"}
	first := s.submit("half", 4, key...)
	code, answer, _ := s.call("POST", "/v1/models/half:submit", `{"instances": [[4]]}`, key...)
	if code != 200 || !strings.Contains(answer, first) {
		t.Errorf("the same again: %d %s, want 200 and %s", code, answer, first)
	}
	if code, answer, _ = s.call("POST", "/v1/models/half:submit", `{"instances": [[5]]}`, key...); code != 409 || !strings.Contains(answer, first) {
		t.Errorf("another with the same key: %d %s", code, answer)
	}
	s.jobAnswered(first, 4, "1")

	for name, c := range map[string]struct {
		path, body string
		header     []string
		code       int
		text       string
	}{
		"no such model":   {"nobody:submit", `{"instances": [[1]]}`, nil, 404, "Could not find any versions of model nobody"},
		"no such version": {"half/versions/9:submit", `{"instances": [[1]]}`, nil, 404, "Could not find version 9 of model half"},
		"version 0":       {"half/versions/0:submit", `{"instances": [[1]]}`, nil, 404, "name a version above zero"},
		"no such label":   {"half/labels/stable:submit", `{"instances": [[1]]}`, nil, 400, "stable"},
		"no JSON":         {"half:submit", `{"instances": [[1]`, nil, 400, "JSON Parse error"},
		"wrong type":      {"half:submit", `{"instances": [["a"]]}`, nil, 400, "JSON Value"},
		"no signature":    {"half:submit", `{"signature_name": "x", "instances": [[1]]}`, nil, 400, "x"},
		"priority":        {"half:submit", `{"instances": [[1]]}`, []string{"X-Inferd-Priority", "now"}, 400, "no priority"},
		"expires":         {"half:submit", `{"instances": [[1]]}`, []string{"X-Inferd-Expires", "-1"}, 400, "X-Inferd-Expires"},
		"attempts":        {"half:submit", `{"instances": [[1]]}`, []string{"X-Inferd-Max-Attempts", "1000"}, 400, "from 1 to 100"},
		"key":             {"half:submit", `{"instances": [[1]]}`, []string{"Idempotency-Key", strings.Repeat("k", 300)}, 400, "the idempotency key has 300 bytes"},
		"GET":             {"half:submit", "", nil, 400, "Malformed request"},
	} {
		t.Run(name, func(t *testing.T) {
			s := s.with(t)
			method := "POST"
			if c.body == "" {
				method = "GET"
			}
			if code, answer, _ := s.call(method, "/v1/models/"+c.path, c.body, c.header...); code != c.code || !strings.Contains(answer, c.text) {
				t.Errorf("%d %s, want %d and %q", code, answer, c.code, c.text)
			}
		})
	}
	for path, want := range map[string]int{"GET /v1/jobs/" + first + "?wait=soon": 400, "GET /v1/jobs": 400, "GET /v1/jobs/x": 404, "POST /v1/jobs/" + first: 400,
		"POST /v1/jobs/" + first + ":cancel": 409, "POST /v1/jobs/" + first + ":retry": 409, "DELETE /v1/jobs/x": 404,
		"GET /v1/jobs/0000000000000001-0000000000000000": 404} {
		method, path, _ := strings.Cut(path, " ")
		if code, answer, _ := s.call(method, path, ""); code != want {
			t.Errorf("%s %s: %d %s, want %d", method, path, code, answer, want)
		}
	}
	if code, text := s.get("/metrics"); code != 200 || !strings.Contains(text, `inferd_queue_jobs_total{model="half",state="done"} 2`) ||
		!strings.Contains(text, "inferd_queue_fsync_seconds_count") {
		t.Errorf("metrics lack the queue: %d", code)
	}
}
