// jobs_test.go: jobs against an HTTP server that plays a script; daemon_test.go has the real appliance.
package inferd

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func script(t *testing.T, o Options, h http.HandlerFunc) *Client {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	o.MinBackoff, o.MaxBackoff = time.Millisecond, 2*time.Millisecond
	c, err := New(srv.URL, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// TestSubmitTriesAgain: through a full queue, a lost connection and a server that is away, with one key all the time.
func TestSubmitTriesAgain(t *testing.T) {
	var tries atomic.Int32
	keys := make(chan string, 8)
	c := script(t, Options{Header: http.Header{"X-Box": {"7"}}}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if string(body) != `{"instances":[1]}` || r.URL.Path != "/v1/models/m/versions/3:submit" || r.Header.Get("X-Box") != "7" ||
			r.Header.Get("X-Inferd-Priority") != "batch" || r.Header.Get("X-Inferd-Expires") != "2" || r.Header.Get("X-Inferd-Max-Attempts") != "5" || r.Header.Get("X-Inferd-Ordering-Key") != "o" {
			t.Errorf("%s %s %v", r.URL, body, r.Header)
		}
		keys <- r.Header.Get("Idempotency-Key")
		switch tries.Add(1) {
		case 1:
			w.WriteHeader(http.StatusServiceUnavailable)
		case 2:
			w.WriteHeader(http.StatusInsufficientStorage)
		case 3:
			panic(http.ErrAbortHandler)
		default:
			io.WriteString(w, `{"id":"j1","state":"queued","more":1}`)
		}
	})
	j, err := c.Submit(t.Context(), Submission{Model: "m", Version: 3, Body: []byte(`{"instances":[1]}`), Priority: "batch", Expires: 1500 * time.Millisecond, MaxAttempts: 5, OrderingKey: "o"})
	if err != nil || j.ID != "j1" || !j.Existed || j.Over() {
		t.Fatalf("%+v %v", j, err)
	}
	first := <-keys
	for range 3 {
		if k := <-keys; k != first || k == "" {
			t.Errorf("key %q, then %q", first, k)
		}
	}
}

func TestRefusalsThatStand(t *testing.T) {
	var tries atomic.Int32
	c := script(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		w.Header().Set("X-Inferd-Reason", "conflict")
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"error":"the key stands for another body"}`)
	})
	_, err := c.Submit(t.Context(), Submission{Model: "m", Key: "k"})
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != 409 || refused.Reason != "conflict" || refused.Message != "the key stands for another body" || tries.Load() != 1 {
		t.Errorf("%+v after %d tries", err, tries.Load())
	}
	for _, s := range []Submission{{}, {Model: "m", Version: 1, Label: "l"}} {
		if _, err := c.Submit(t.Context(), s); err == nil {
			t.Errorf("%+v was submitted", s)
		}
	}
}

func TestSubmitEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := script(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		w.Header().Set("Retry-After", "1000")
		w.WriteHeader(http.StatusTooManyRequests)
	})
	if _, err := c.Submit(ctx, Submission{Model: "m"}); !errors.Is(err, context.Canceled) && (err == nil || !strings.Contains(err.Error(), "429")) {
		t.Errorf("%v", err)
	}
}

// TestResult: the long poll is repeated until the job is over, and a job's own error is final.
func TestResult(t *testing.T) {
	var polls atomic.Int32
	c := script(t, Options{}, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method + " " + r.URL.String() {
		case "GET /v1/jobs/good?wait=30":
			state := "leased"
			if polls.Add(1) == 3 {
				state = "done"
			}
			io.WriteString(w, `{"id":"good","state":"`+state+`","version":3,"submitted":"2026-01-02T03:04:05Z"}`)
		case "GET /v1/jobs/good/result":
			io.WriteString(w, `{"predictions":[1]}`)
		case "GET /v1/jobs/dead?wait=30":
			io.WriteString(w, `{"id":"dead","state":"dead","version":"4","attempts":2}`)
		case "GET /v1/jobs/dead/result":
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, `{"error":"its worker died twice"}`)
		case "DELETE /v1/jobs/good":
			w.WriteHeader(http.StatusNoContent)
		case "POST /v1/jobs/good:cancel":
			io.WriteString(w, `{"id":"good","state":"cancelled"}`)
		case "POST /v1/jobs/good:retry":
			io.WriteString(w, `{"id":"good","state":"queued"}`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	})
	got, err := c.Result(t.Context(), "good")
	if err != nil || string(got) != `{"predictions":[1]}` || polls.Load() != 3 {
		t.Errorf("%s %v after %d polls", got, err, polls.Load())
	}
	var refused *Error
	if _, err := c.Result(t.Context(), "dead"); !errors.As(err, &refused) || refused.Message != "its worker died twice" {
		t.Errorf("%v", err)
	}
	if j, err := c.Wait(t.Context(), "dead"); err != nil || j.State != Dead || j.Version != 4 || !j.Over() {
		t.Errorf("%+v %v", j, err)
	}
	if j, err := c.Cancel(t.Context(), "good"); err != nil || j.State != Cancelled {
		t.Errorf("%+v %v", j, err)
	}
	if j, err := c.Retry(t.Context(), "good"); err != nil || j.State != Queued {
		t.Errorf("%+v %v", j, err)
	}
	if err := errors.Join(c.Forget(t.Context(), "good"), c.Forget(t.Context(), "gone")); err != nil {
		t.Error(err)
	}
	if _, err := c.Job(t.Context(), "a/b"); !errors.As(err, &refused) || refused.Status != 404 {
		t.Errorf("%v", err)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var tries atomic.Int32
	c := script(t, Options{MaxAnswer: 100}, func(w http.ResponseWriter, r *http.Request) {
		tries.Add(1)
		io.WriteString(w, strings.Repeat("x", 101))
	})
	if _, err := c.Job(t.Context(), "j"); !errors.Is(err, errTooLarge) || tries.Load() != 1 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
}

// TestBackoff: never earlier than asked for, never without bound, never the same for all.
func TestBackoff(t *testing.T) {
	c, err := New("http://box:8501/", Options{})
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[time.Duration]bool)
	for n := range 100 {
		d := c.backoff(n, 0)
		if d < 50*time.Millisecond || d > 10*time.Second {
			t.Errorf("try %d waits %v", n, d)
		}
		seen[d] = true
		if d := c.backoff(n, 20*time.Second); d < 20*time.Second || d > 25*time.Second {
			t.Errorf("try %d waits %v when asked for 20s", n, d)
		}
		if d := c.backoff(n, 1000*time.Hour); d > 2*time.Hour {
			t.Errorf("try %d waits %v", n, d)
		}
	}
	if len(seen) < 50 {
		t.Errorf("%d different waits of 100", len(seen))
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{"": 0, "3": 3 * time.Second, "-3": 0, "x": 0, "Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "99999999": maxHint} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", text, got, want)
		}
	}
	for _, base := range []string{"", "ftp://x", "http://", "http://a b"} {
		if _, err := New(base, Options{}); err == nil {
			t.Errorf("%q was taken for an address", base)
		}
	}
}
