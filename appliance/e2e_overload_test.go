// e2e_overload_test.go: more is asked than can be done, of real workers: clients read answers, and a model that grows is replaced alone.
package appliance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestOverload: every request of a crowd with bodies of a megabyte is answered or refused in words, none is cut off, and the refusals are counted.
func TestOverload(t *testing.T) {
	s := serve(t, nil)
	s.publish("busy", 1, modeltest.BusyVector(512))
	s.live("busy", 1)
	body := `{"inputs":[` + strings.Repeat("0.5,", 250_000) + `0.5]}`
	began := time.Now()
	for range 20 { // it learns
		if code, answer, err := s.rest(t.Context(), "/v1/models/busy:predict", body); code != 200 {
			t.Fatal(code, string(answer), err)
		}
	}
	patience := fmt.Sprint(8 * time.Since(began).Seconds() / 20) // eight requests' time, and forty come at once
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	defer client.CloseIdleConnections()
	for range 40 {
		wg.Go(func() {
			for range 10 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.http+"/v1/models/busy:predict", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				req.Header.Set("Request-Timeout", patience)
				resp, err := client.Do(req)
				if err != nil {
					t.Errorf("cut off: %v", err)
					return
				}
				_ = resp.Body.Close()
				refused := resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode == http.StatusServiceUnavailable
				if refused && (resp.Header.Get("Retry-After") == "" || resp.Header.Get("X-Inferd-Reason") == "") {
					t.Errorf("a refusal without a reason or a hint: %v", resp.Header)
				}
				mu.Lock()
				codes[resp.StatusCode]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for code := range codes {
		if code != 200 && code != 429 && code != 503 && code != 504 {
			t.Errorf("answers: %v", codes)
		}
	}
	if codes[200] == 0 || codes[429] == 0 {
		t.Errorf("answers: %v; want some of each", codes)
	}
	_, page := s.get("/metrics")
	if !strings.Contains(page, `inferd_errors_total{model="busy",reason="deadline"} `) {
		t.Error("the refusals are not in the metrics")
	}
	if _, report := s.get("/v1/admission"); !strings.Contains(report, `"running":0`) {
		t.Errorf("somebody is still inside: %s", report)
	}
	t.Logf("answers by status: %v", codes)
}

// TestModelThatGrows: a model that keeps every input, under a limit that leaves it some, is replaced and answers on; the model beside it loses nothing.
func TestModelThatGrows(t *testing.T) {
	s := serve(t, nil)
	s.publish("grows", 1, modeltest.KeepsAll())
	s.publish("beside", 1, modeltest.Affine(1, 1))
	pid := s.live("beside", 1).Worker.PID
	first := s.live("grows", 1).Worker
	var own *servable
	for _, v := range s.load.live.all() {
		if v.model == "grows" {
			own = v
		}
	}
	limit := first.PrivateBytes + 100<<20
	own.account.mu.Lock()
	own.account.own = limit
	own.account.mu.Unlock()
	own.runner.(interface{ SetMemoryLimit(int64) }).SetMemoryLimit(limit)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			if got, err := s.askREST(context.WithoutCancel(ctx), "beside", []float32{1}); err != nil || got[0] != 2 {
				t.Errorf("the model beside: %v, %v", got, err)
				return
			}
		}
	})
	body := `{"inputs":[` + strings.Repeat("0.5,", 262_143) + `0.5]}` // a megabyte of floats
	for i := range 300 {
		if code, answer, err := s.rest(t.Context(), "/v1/models/grows:predict", body); code != 200 {
			t.Fatalf("request %d: %d %.300s %v", i, code, answer, err)
		}
	}
	cancel()
	wg.Wait()
	if after := s.live("grows", 1).Worker; after.Restarts < 1 || !strings.Contains(after.LastDeath, "over its memory limit") {
		t.Errorf("after 300 MB: %+v", after)
	}
	if beside := s.live("beside", 1).Worker; beside.PID != pid {
		t.Error("the worker of the model beside was replaced")
	}
}
