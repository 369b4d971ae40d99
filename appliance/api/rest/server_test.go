// server_test.go: the handler over HTTP, with a real catalog and a servable made up.
package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// halfPlusTwo answers with y = x/2 + 2.
func halfPlusTwo(_ context.Context, req *inference.Request) (*inference.Response, error) {
	x := req.Inputs[0]
	y := x.Clone()
	for at := 0; at < len(y.Data); at += 4 {
		f, _ := float32At(pad(strings.Fields(show(&tensor.Tensor{DType: tensor.Float, Data: x.Data[at : at+4]}))[2]), 0, false)
		copy(y.Data[at:], float32s(nil, f/2+2).Data)
	}
	return inference.NewResponse([]*tensor.Tensor{y}, func() { clear(y.Data) }), nil
}

func TestPredict(t *testing.T) {
	a := serve(t, Options{}, one(in("x", tensor.Float)), &servable{predict: halfPlusTwo})
	resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances": [1.0, 2.0, 5.0]}`)
	if want := "{\n    \"predictions\": [2.5, 3.0, 4.5\n    ]\n}"; got != want || resp.StatusCode != 200 {
		t.Errorf("%d %q, want %q", resp.StatusCode, got, want)
	}
	if c := resp.Header.Get("Content-Type"); c != "application/json" {
		t.Errorf("Content-Type %q", c)
	}
	_, got = a.do(t, "POST", "/v1/models/m/versions/7:predict", `{"inputs": {"x": [1.0]}}`)
	if want := "{\n    \"outputs\": [\n        2.5\n    ]\n}"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	o := a.last(t, 2)
	if o.Took <= 0 {
		t.Error("no time was taken")
	}
	o.Took = 0
	if want := (api.Observation{Protocol: "rest", Method: "predict", Model: "m", Version: 7, Signature: "serving_default"}); o != want {
		t.Errorf("observed %+v, want %+v", o, want)
	}
}

func TestRoutes(t *testing.T) {
	v := one(in("x", tensor.Float))
	const ok = `{"instances":[1]}`
	const answer = "{\n    \"predictions\": [1.0\n    ]\n}"
	fail := func(msg string) string { return string(appendError(nil, msg)) }
	for name, c := range map[string]struct {
		method, path string
		status       int
		want         string
	}{
		"case":                  {"POST", "/V1/Models/m:Predict", 200, answer},
		"version":               {"POST", "/v1/models/m/Versions/007:predict", 200, answer},
		"label":                 {"POST", "/v1/models/m/labels/stable:predict", 200, answer},
		"escaped label":         {"POST", "/v1/models/m/labels/a%2Fb:predict", 200, answer},
		"escaped name":          {"POST", "/v1/models/%6D:predict", 200, answer},
		"query":                 {"POST", "/v1/models/m:predict?a=b", 200, answer},
		"unknown model":         {"POST", "/v1/models/n:predict", 404, fail("Servable not found for request: Latest(n)")},
		"escaped unknown":       {"POST", "/v1/models/a%20%2F%3Ab:predict", 404, fail("Servable not found for request: Latest(a /:b)")},
		"plain unknown":         {"POST", "/v1/models/a%25b:predict", 404, fail("Servable not found for request: Latest(a%b)")},
		"unknown version":       {"POST", "/v1/models/m/versions/8:predict", 404, fail("Servable not found for request: Specific(m, 8)")},
		"unknown label":         {"POST", "/v1/models/m/labels/canary:predict", 400, fail("Unrecognized servable version label: canary")},
		"version overflow":      {"POST", "/v1/models/m/versions/99999999999999999999:predict", 400, fail("Failed to convert version: 99999999999999999999 to numeric.")},
		"no act":                {"POST", "/v1/models/m", 400, fail("Malformed request: POST /v1/models/m")},
		"other act":             {"POST", "/v1/models/m:fly", 400, fail("Malformed request: POST /v1/models/m:fly")},
		"no model":              {"POST", "/v1/models:predict", 400, fail("Malformed request: POST /v1/models:predict")},
		"no version":            {"POST", "/v1/models/m/versions/x:predict", 400, fail("Malformed request: POST /v1/models/m/versions/x:predict")},
		"label and version":     {"POST", "/v1/models/m/versions/7/labels/stable:predict", 400, fail("Malformed request: POST /v1/models/m/versions/7/labels/stable:predict")},
		"two colons":            {"POST", "/v1/models/m:x:predict", 400, fail("Malformed request: POST /v1/models/m:x:predict")},
		"slash at the end":      {"GET", "/v1/models/", 400, fail("Malformed request: GET /v1/models/")},
		"slash after a name":    {"GET", "/v1/models/m/", 400, fail("Malformed request: GET /v1/models/m/")},
		"GET predict":           {"GET", "/v1/models/m:predict", 400, fail("Malformed request: GET /v1/models/m:predict")},
		"PUT":                   {"PUT", "/v1/models/m:predict", 400, fail("Malformed request: PUT /v1/models/m:predict")},
		"elsewhere in v1":       {"GET", "/v1/nothing", 400, fail("Malformed request: GET /v1/nothing")},
		"outside":               {"GET", "/v2/x", 404, fail("Not found: /v2/x. The REST API is under /v1/models")},
		"classify":              {"POST", "/v1/models/m:classify", 400, fail("JSON Value: {\n    \"instances\": [1]\n} When method is classify, key 'examples' is expected and was not found")},
		"regress":               {"POST", "/v1/models/m:regress", 400, fail("JSON Value: {\n    \"instances\": [1]\n} When method is classify, key 'examples' is expected and was not found")},
		"status without a name": {"GET", "/v1/models/versions/3", 400, fail("Missing model name in request.")},
		"status unknown model":  {"GET", "/v1/models/n", 404, fail("Could not find any versions of model n")},
		"status no version":     {"GET", "/v1/models/m/versions/8", 404, fail("Could not find version 8 of model m")},
		"status no label":       {"GET", "/v1/models/m/labels/x", 400, fail("Unrecognized servable version label: x")},
		"metadata unknown":      {"GET", "/v1/models/n/metadata", 404, fail("Servable not found for request: Latest(n)")},
		"model called versions": {"GET", "/v1/models/versions", 404, fail("Could not find any versions of model versions")},
		"model called metadata": {"GET", "/v1/models/metadata/metadata", 404, fail("Servable not found for request: Latest(metadata)")},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, Options{}, v, &servable{})
			a.catalog.SetLabels("m", map[string]int64{"stable": 7, "a/b": 7})
			resp, got := a.do(t, c.method, c.path, ok)
			if resp.StatusCode != c.status || got != c.want {
				t.Errorf("%d %s\nwant %d %s", resp.StatusCode, got, c.status, c.want)
			}
			if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("Content-Type %q", ct)
			}
			if name == "outside" {
				return // not ours to count
			}
			o := a.last(t, 1)
			if (o.Code == inference.OK) != (c.status == 200) {
				t.Errorf("observed %+v for %d", o, c.status)
			}
			if o.Model != "" && o.Model != "m" {
				t.Errorf("observed a model that nobody knows: %q", o.Model)
			}
		})
	}
}

// What TensorFlow Serving looks at first is looked at first.
func TestSyntaxComesBeforeTheModel(t *testing.T) {
	a := serve(t, Options{}, nil, nil)
	for body, want := range map[string]string{
		``:                     "JSON Parse error: The document is empty",
		`{"instances":[1]`:     "JSON Parse error: Missing a comma or '}' after an object member. at offset: 16",
		`[1]`:                  "JSON Value: [1] Is not object",
		`{"signature_name":1}`: "JSON Value: {\n    \"signature_name\": 1\n} not formatted correctly. 'signature_name' key must be a string value.",
		`{}`:                   "Servable not found for request: Latest(m)",
	} {
		if _, got := a.do(t, "POST", "/v1/models/m:predict", body); got != string(appendError(nil, want)) {
			t.Errorf("%s: %s, want %s", body, got, want)
		}
	}
}

func TestErrorsOfPredict(t *testing.T) {
	secret := errors.New("stack of secrets")
	for name, c := range map[string]struct {
		err    error
		status int
		want   string
	}{
		"queue full": {inference.Errorf(inference.Unavailable, inference.ReasonQueueFull, "full <&>\"\n"), 503, "full <&>\\\"\\n"},
		"deadline":   {context.DeadlineExceeded, 504, "Timed out waiting for notification"},
		"429":        {inference.Errorf(inference.ResourceExhausted, inference.ReasonDeadline, "late"), 429, "late"},
		"unknown":    {secret, 500, "internal error "},
	} {
		t.Run(name, func(t *testing.T) {
			a := serve(t, Options{}, one(in("x", tensor.Float)), &servable{predict: func(context.Context, *inference.Request) (*inference.Response, error) {
				return nil, c.err
			}})
			resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`)
			if resp.StatusCode != c.status || !strings.HasPrefix(got, "{\n    \"error\": \""+c.want) || strings.Contains(got, "secrets") {
				t.Errorf("%d %s", resp.StatusCode, got)
			}
			if o := a.last(t, 1); o.Code != inference.AsError(c.err).Code || o.Version != 7 {
				t.Errorf("observed %+v", o)
			}
		})
	}
}

func TestOutputsThatCannotBeWritten(t *testing.T) {
	v := one(in("x", tensor.Float))
	released := 0
	a := serve(t, Options{}, v, &servable{predict: func(context.Context, *inference.Request) (*inference.Response, error) {
		half := must(tensor.New(tensor.Half, tensor.Shape{1}, make([]byte, 2)))
		return inference.NewResponse([]*tensor.Tensor{half}, func() { released++ }), nil
	}})
	resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`)
	if resp.StatusCode != 400 || got != string(appendError(nil, "Failed to write JSON value for tensor type: half")) {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if o := a.last(t, 1); o.Code != inference.InvalidArgument || released != 1 {
		t.Errorf("observed %+v, released %d times", o, released)
	}
	if _, drained := a.catalog.Retire("m", 7); !closed(drained) {
		t.Error("the version is still pinned")
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestLimits(t *testing.T) {
	const limit = 1000
	a := serve(t, Options{MaxRequestBytes: limit}, one(in("x", tensor.Float)), &servable{})
	body := func(n int) string { return `{"instances":[1]}` + strings.Repeat(" ", n-17) }
	zipped := func(s string) string {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = io.WriteString(z, s)
		_ = z.Close()
		return b.String()
	}
	for name, c := range map[string]struct {
		body    string
		headers []string
		status  int
		want    string
	}{
		"just fits":      {body(limit), nil, 200, "predictions"},
		"over":           {body(limit + 1), nil, 413, "the request body has 1001 bytes, the limit is 1000"},
		"gzip":           {zipped(body(limit)), []string{"Content-Encoding", "gzip"}, 200, "predictions"},
		"gzip over":      {zipped(body(limit + 1)), []string{"Content-Encoding", "gzip"}, 413, "more than 1000 bytes"},
		"gzip bomb":      {zipped(body(1 << 19)), []string{"Content-Encoding", "GZIP"}, 413, "more than 1000 bytes"},
		"zstd":           {string(coding.Compress(coding.Zstd, []byte(body(limit)))), []string{"Content-Encoding", "zstd"}, 200, "predictions"},
		"zstd over":      {string(coding.Compress(coding.Zstd, []byte(body(limit+1)))), []string{"Content-Encoding", "zstd"}, 413, "more than 1000 bytes"},
		"zstd bomb":      {string(coding.Compress(coding.Zstd, []byte(body(1<<19)))), []string{"Content-Encoding", "ZSTD"}, 413, "more than 1000 bytes"},
		"no zstd":        {body(100), []string{"Content-Encoding", "zstd"}, 400, "is not the zstd stream"},
		"zstd cut short": {string(coding.Compress(coding.Zstd, []byte(body(100)))[:20]), []string{"Content-Encoding", "zstd"}, 400, "is cut short"},
		"no gzip":        {body(100), []string{"Content-Encoding", "gzip"}, 400, "is not the gzip stream"},
		"gzip cut short": {zipped(body(100))[:30], []string{"Content-Encoding", "gzip"}, 400, "is cut short"},
		"other encoding": {body(100), []string{"Content-Encoding", "br"}, 400, `Content-Encoding \"br\" is not known`},
	} {
		t.Run(name, func(t *testing.T) {
			resp, got := a.do(t, "POST", "/v1/models/m:predict", c.body, c.headers...)
			if resp.StatusCode != c.status || !strings.Contains(got, c.want) {
				t.Errorf("%d %s\nwant %d %s", resp.StatusCode, got, c.status, c.want)
			}
		})
	}
}

// refuser fails the test when it is read.
type refuser struct{ t *testing.T }

func (r refuser) Read([]byte) (int, error) {
	r.t.Error("the body was read")
	return 0, io.EOF
}

func TestTooLongIsRefusedUnread(t *testing.T) {
	h := New(api.New(inference.NewCatalog(), api.Options{}), Options{})
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", refuser{t})
	r.ContentLength = DefaultMaxRequestBytes + 1
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// endless is a body without an end and without a length.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	return len(p), nil
}

func TestUndeclaredLengthIsBounded(t *testing.T) {
	h := New(api.New(inference.NewCatalog(), api.Options{}), Options{MaxRequestBytes: 1 << 20})
	body := &endless{}
	r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", body)
	r.ContentLength = -1
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge || body.read > 1<<20+1024 {
		t.Errorf("%d after %d bytes: %s", w.Code, body.read, w.Body)
	}
}

func TestRequestTimeout(t *testing.T) {
	var left time.Duration
	var has bool
	a := serve(t, Options{}, one(in("x", tensor.Float)), &servable{predict: func(ctx context.Context, req *inference.Request) (*inference.Response, error) {
		var at time.Time
		at, has = ctx.Deadline()
		left = time.Until(at)
		return inference.NewResponse(req.Inputs, nil), nil
	}})
	for value, atMost := range map[string]time.Duration{"2.5": 2500 * time.Millisecond, " 1000 ": 1000 * time.Second, "1e300": api.MaxDeadline,
		"": api.DefaultDeadline} {
		var headers []string
		if value != "" {
			headers = []string{"Request-Timeout", value}
		}
		resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`, headers...)
		if resp.StatusCode != 200 || !has || left > atMost || left < atMost/2 {
			t.Errorf("%q: %d %s, %v left", value, resp.StatusCode, got, left)
		}
	}
	for _, value := range []string{"soon", "0", "-1", "NaN", "Inf", "1s"} {
		resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`, "Request-Timeout", value)
		if resp.StatusCode != 400 || !strings.Contains(got, "is not a number of seconds above zero") {
			t.Errorf("%q: %d %s", value, resp.StatusCode, got)
		}
	}
}

func TestCompressedResponses(t *testing.T) {
	v := one(in("x", tensor.Float))
	a := serve(t, Options{MinGzipBytes: 2000}, v, &servable{})
	big := `{"instances":[[` + strings.Repeat("0.25,", 2000) + `1]]}`
	for name, c := range map[string]struct {
		body, accept, want string
	}{
		"big":            {big, "gzip", "gzip"},
		"among others":   {big, "br, GZIP;q=0.5", "gzip"},
		"any":            {big, "*", "gzip"},
		"zstd":           {big, "zstd", "zstd"},
		"a browser":      {big, "gzip, deflate, br, zstd", "zstd"},
		"rather gzip":    {big, "zstd;q=0.1, gzip", "gzip"},
		"refused":        {big, "gzip;q=0", ""},
		"others":         {big, "br", ""},
		"small":          {`{"instances":[1]}`, "gzip, zstd", ""},
		"no header at a": {big, "identity", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, got := a.do(t, "POST", "/v1/models/m:predict", c.body, "Accept-Encoding", c.accept)
			if is := resp.Header.Get("Content-Encoding"); is != c.want {
				t.Fatalf("Content-Encoding %q, want %q", is, c.want)
			}
			if c.want != "" {
				z := coding.NewReader(c.want, strings.NewReader(got))
				defer z.Close()
				plain, err := io.ReadAll(z)
				if err != nil {
					t.Fatal(err)
				}
				got = string(plain)
			}
			if !strings.HasPrefix(got, "{\n    \"predictions\": [") || !json.Valid([]byte(got)) {
				t.Errorf("got %.100s", got)
			}
		})
	}
}

func TestCORS(t *testing.T) {
	v := one(in("x", tensor.Float))
	for _, on := range []bool{false, true} {
		a := serve(t, Options{CORS: on}, v, &servable{})
		want := ""
		if on {
			want = "*"
		}
		resp, got := a.do(t, "OPTIONS", "/v1/models/m:predict", "", "Origin", "https://example.org")
		if resp.StatusCode != 200 || got != "" || resp.Header.Get("Access-Control-Allow-Origin") != want {
			t.Errorf("preflight: %d %q %v", resp.StatusCode, got, resp.Header)
		}
		resp, got = a.do(t, "OPTIONS", "/v1/models/m:predict", "")
		if resp.StatusCode != 400 || got != "" {
			t.Errorf("preflight without an origin: %d %q", resp.StatusCode, got)
		}
		resp, _ = a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`)
		if o := resp.Header.Get("Access-Control-Allow-Origin"); o != want || on != (resp.Header.Get("Access-Control-Allow-Methods") == "POST, GET") ||
			on != (resp.Header.Get("Access-Control-Allow-Headers") == "Content-Type") {
			t.Errorf("CORS %v: %v", on, resp.Header)
		}
	}
}

func TestStrictHandler(t *testing.T) {
	a := serve(t, Options{StrictJSON: true}, one(in("x", tensor.Float)), &servable{predict: func(context.Context, *inference.Request) (*inference.Response, error) {
		return inference.NewResponse([]*tensor.Tensor{float32s(tensor.Shape{1}, float32(math.NaN()))}, nil), nil
	}})
	if _, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`); got != "{\n    \"predictions\": [null\n    ]\n}" {
		t.Errorf("got %s", got)
	}
	if resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[NaN]}`); resp.StatusCode != 400 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// Memory is used again, so one request's tensors must not show up in another's answer.
func TestRequestsDoNotMix(t *testing.T) {
	v := one(in("a", tensor.Float), in("b", tensor.String))
	a := serve(t, Options{}, v, &servable{})
	done := make(chan error, 4)
	for g := range 4 {
		go func() {
			for i := range 200 {
				n := 1 + (i+g)%7
				word := strings.Repeat(string(rune('a'+g)), n)
				row := `{"a":[` + strings.Repeat("0.5,", n) + `1],"b":"\u0041` + word + `"}`
				resp, err := a.Client().Post(a.URL+"/v1/models/m:predict", "", strings.NewReader(`{"instances":[`+row+`]}`))
				if err != nil {
					done <- err
					return
				}
				var got struct {
					Predictions []struct {
						A []float64
						B string
					}
				}
				err = json.NewDecoder(resp.Body).Decode(&got)
				_ = resp.Body.Close()
				if err != nil || len(got.Predictions) != 1 || len(got.Predictions[0].A) != n+1 || got.Predictions[0].B != "A"+word {
					done <- errors.Join(err, errors.New("mixed up: "+row))
					return
				}
			}
			done <- nil
		}()
	}
	for range 4 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// A panic is one request's failure: it is answered, counted and unpinned.
func TestPanicIsAnswered(t *testing.T) {
	a := serve(t, Options{}, one(in("x", tensor.Float)), &servable{predict: func(context.Context, *inference.Request) (*inference.Response, error) {
		panic("broken invariant")
	}})
	resp, got := a.do(t, "POST", "/v1/models/m:predict", `{"instances":[1]}`)
	if resp.StatusCode != 500 || strings.Contains(got, "invariant") {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if o := a.last(t, 1); o.Code != inference.Internal {
		t.Errorf("observed %+v", o)
	}
	if _, drained := a.catalog.Retire("m", 7); !closed(drained) {
		t.Error("the version is still pinned")
	}
}

// Whoever failed a request may still hold its inputs, so their memory is not another request's.
func TestMemoryOfAFailedRequestIsLeftAlone(t *testing.T) {
	var kept *tensor.Tensor
	c := inference.NewCatalog()
	c.Publish(one(in("x", tensor.Float)), &servable{predict: func(_ context.Context, req *inference.Request) (*inference.Response, error) {
		if kept == nil {
			kept = req.Inputs[0]
			return nil, inference.Errorf(inference.DeadlineExceeded, inference.ReasonDeadline, "late")
		}
		return inference.NewResponse(req.Inputs, nil), nil
	}})
	h := New(api.New(c, api.Options{}), Options{})
	for _, body := range []string{`{"instances":[1,2,3]}`, `{"instances":[4,5,6]}`, `{"instances":[7,8]}`} {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", strings.NewReader(body)))
	}
	if got := show(kept); got != "float [3] 1 2 3" {
		t.Errorf("the failed request's input became %s", got)
	}
}
