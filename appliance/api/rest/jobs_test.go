// jobs_test.go: what the paths and the headers of jobs mean, and that none of them panics.
package rest

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/jobs"
)

func TestParseJob(t *testing.T) {
	for line, want := range map[string]route{
		"POST /v1/models/m:submit":             {act: actSubmit},
		"GET /v1/jobs/1-2":                     {act: actJob, job: "1-2"},
		"GET /V1/Jobs/1-2":                     {act: actJob, job: "1-2"},
		"GET /v1/jobs/1-2/result":              {act: actResult, job: "1-2"},
		"POST /v1/jobs/1-2:cancel":             {act: actCancel, job: "1-2"},
		"POST /v1/jobs/1-2:RETRY":              {act: actRetry, job: "1-2"},
		"DELETE /v1/jobs/1-2":                  {act: actForget, job: "1-2"},
		"GET /v1/jobs":                         {},
		"GET /v1/jobs/":                        {},
		"POST /v1/jobs/1-2":                    {},
		"POST /v1/jobs/1-2:delete":             {},
		"GET /v1/jobs/1-2:cancel":              {},
		"DELETE /v1/jobs/1-2/result":           {},
		"GET /v1/jobs/1-2/result/more":         {},
		"PUT /v1/jobs/1-2":                     {},
		"GET /v1/models/m:submit":              {},
		"DELETE /v1/models/m":                  {},
		"POST /v1/models/m/versions/3:submit":  {act: actSubmit},
		"POST /v1/models/m/labels/best:submit": {act: actSubmit},
	} {
		method, path, _ := strings.Cut(line, " ")
		got, err := parse(httptest.NewRequest(method, path, nil))
		if (err != nil) != (want.act == "") || got.act != want.act || got.job != want.job {
			t.Errorf("%s: %+v %v, want %+v", line, got, err, want)
		}
	}
}

func TestJobWait(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "0": 0, "2.5": 2500 * time.Millisecond, "10s": 10 * time.Second, "1e9": maxJobWait, "1h": maxJobWait,
		"-1": -1, "soon": -1, "NaN": -1, "1e300": -1} {
		got, err := jobWait(&http.Request{URL: &url.URL{RawQuery: url.Values{"wait": {text}}.Encode()}})
		if err != nil {
			got = -1
		}
		if got != want {
			t.Errorf("wait=%s: %v, want %v", text, got, want)
		}
	}
}

// FuzzJobRequest: whatever is asked of jobs is an act on one job, a submit with values in bounds, or an error in words.
func FuzzJobRequest(f *testing.F) {
	f.Add("POST", "/v1/models/m:submit", "wait=1", "3600", "3")
	f.Add("GET", "/v1/jobs/0000000000000c3d-9f0c2a6e51b7d840", "wait=10s", "1e-300", "+5")
	f.Add("DELETE", "/v1/jobs/x%2f:cancel/result", "wait=%zz", "0x1p-4", "")
	f.Fuzz(func(t *testing.T, method, path, query, expires, attempts string) {
		r := &http.Request{Method: method, URL: &url.URL{Path: path, RawQuery: query}}
		to, err := parse(r)
		if err != nil && err.Msg == "" || err == nil && to.act == "" || err == nil && to.job != "" && to.spec.Model != "" {
			t.Fatalf("%+v %v", to, err)
		}
		if wait, err := jobWait(r); err == nil && (wait < 0 || wait > maxJobWait) {
			t.Fatalf("waits %v", wait)
		}
		var sub jobs.Submission
		if err := submitHeaders(http.Header{ExpiresHeader: {expires}, MaxAttemptsHeader: {attempts}}, &sub); err == nil &&
			(sub.Expires <= 0 || sub.MaxAttempts < 1 || sub.MaxAttempts > jobs.MostAttempts) {
			t.Fatalf("%+v", sub)
		}
	})
}
