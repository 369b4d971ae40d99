// server_test.go: paths, metadata, readiness, statistics and the repository.
package oiprest

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// repository keeps what was asked of it.
type repository struct {
	asked []string
	err   error
}

func (r *repository) Load(_ context.Context, model, by string) (string, error) {
	r.asked = append(r.asked, "load "+model+" by "+by)
	return "", r.err
}

func (r *repository) Unload(_ context.Context, model, by string) (string, error) {
	r.asked = append(r.asked, "unload "+model+" by "+by)
	return "", r.err
}

func TestPaths(t *testing.T) {
	h := serve(t, Options{}, oip.Options{Version: "1.2"}, version(in("x", tensor.Half, -1, 4), in("y", tensor.String), inference.TensorInfo{Alias: "z", DType: tensor.Complex64, UnknownRank: true}))
	h.catalog.SetLabels("m", map[string]int64{"stable": 7})
	h.catalog.Add("empty")
	h.catalog.SetStatus("loading", inference.VersionStatus{Version: 3, State: inference.StateLoading})
	h.catalog.SetStatus("bad", inference.VersionStatus{Version: 2, State: inference.StateEnd, Code: inference.Internal, Message: "no saved_model.pb"})
	const (
		tensors  = `[{"name":"x","datatype":"FP16","shape":[-1,4]},{"name":"y","datatype":"BYTES","shape":[]},{"name":"z","datatype":"COMPLEX64","shape":[-1]}]`
		metadata = `{"name":"m","versions":["7"],"platform":"tensorflow_savedmodel","inputs":` + tensors + `,"outputs":` + tensors + `}`
		dims     = `[{"name":"x","data_type":"TYPE_FP16","dims":[-1,4]},{"name":"y","data_type":"TYPE_STRING","dims":[]},{"name":"z","data_type":"TYPE_INVALID","dims":[-1]}]`
		config   = `{"name":"m","platform":"tensorflow_savedmodel","backend":"tensorflow","max_batch_size":0,"input":` + dims + `,"output":` + dims + `}`
	)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"GET", "/v2", "", 200, `{"name":"inferd","version":"1.2","extensions":["model_repository","model_repository(unload_dependents)","statistics","binary_tensor_data"]}`},
		{"GET", "/v2/", "", 200, `{"name":"inferd"`},
		{"GET", "/v2/health/live", "", 200, `{"live":true}`},
		{"GET", "/v2/health/ready", "", 503, `{"live":true,"ready":false}`}, // loading is not
		{"GET", "/v2/models/m", "", 200, metadata},
		{"GET", "/v2/models/m/", "", 200, metadata},
		{"GET", "/v2/models/%6D", "", 200, metadata},
		{"GET", "/v2/models/m/versions/7", "", 200, metadata},
		{"GET", "/v2/models/m/versions/stable", "", 200, metadata},
		{"GET", "/v2/models/m?signature_name=no", "", 400, `Serving signature key \"no\" not found.`},
		{"GET", "/v2/models/m/versions/8", "", 404, "Request for unknown model: 'm' version 8 is not found"},
		{"GET", "/v2/models/m/versions/other", "", 400, "Unrecognized servable version label: other"},
		{"GET", "/v2/models/none", "", 404, "Request for unknown model: 'none' is not found"},
		{"GET", "/v2/models/m/config", "", 200, config},
		{"GET", "/v2/models/m/versions/7/config", "", 200, config},
		{"GET", "/v2/models/none/config", "", 404, "Request for unknown model: 'none' is not found"},
		{"GET", "/v2/models/loading", "", 503, "model loading version 3 is not ready: it is being loaded"},
		{"GET", "/v2/models/loading/versions/3", "", 503, "model loading version 3 is not ready: it is being loaded"},
		{"POST", "/v2/models/loading/infer", `{"inputs":[]}`, 503, "model loading version 3 is not ready: it is being loaded"},
		{"GET", "/v2/models/bad", "", 404, "model bad version 2 is not ready: no saved_model.pb"},
		{"GET", "/v2/models/m/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/7/ready", "", 200, `{"name":"m","ready":true}`},
		{"GET", "/v2/models/m/versions/8/ready", "", 404, "Request for unknown model: 'm' version 8 is not found"},
		{"GET", "/v2/models/loading/ready", "", 503, `{"name":"loading","ready":false}`},
		{"GET", "/v2/models/loading/versions/3/ready", "", 503, `{"name":"loading","ready":false}`},
		{"GET", "/v2/models/none/ready", "", 404, "Request for unknown model: 'none' is not found"},
		{"GET", "/v2/models/none/stats", "", 404, "Request for unknown model: 'none' is not found"},
		{"GET", "/v2/models/loading/stats", "", 503, "is being loaded"},
		{"POST", "/v2/repository/index", "", 200, `[{"name":"bad","version":"2","state":"UNAVAILABLE","reason":"no saved_model.pb"},{"name":"empty","state":"UNAVAILABLE","reason":"no version of it has been loaded"},` +
			`{"name":"loading","version":"3","state":"LOADING"},{"name":"m","version":"7","state":"READY"}]`},
		{"POST", "/v2/repository/index", `{"ready":true}`, 200, `[{"name":"m","version":"7","state":"READY"}]`},
		{"POST", "/v2/repository/index", `{"ready":1}`, 400, "no JSON object as this path takes it"},
		{"POST", "/v2/repository/models/m/load", "{}", 501, "oip.repository: off"},
		{"GET", "/v2/systemsharedmemory/status", "", 501, "shared memory with clients is not spoken here"},
		{"POST", "/v2/models/m/generate", "", 501, "generate is not spoken here"},
		{"GET", "/v2/models", "", 404, "is no path of the Open Inference Protocol's"},
		{"GET", "/v2/models/", "", 404, "is no path"},
		{"GET", "/v2/models/m/versions", "", 404, "is no path"},
		{"GET", "/v2/models/m/versions/7/other", "", 404, "is no path"},
		{"GET", "/v2/health", "", 404, "is no path"},
		{"POST", "/v2/models/m", "", 400, "this path is asked with GET"},
		{"GET", "/v2/models/m/infer", "", 400, "this path is asked with POST"},
		{"DELETE", "/v2/models/m/infer", "", 400, "this path is asked with POST"},
	} {
		resp, got := h.do(t, c.method, c.path, c.body)
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s %s: %d %s\nwant %d %s", c.method, c.path, resp.StatusCode, got, c.status, c.want)
		}
		if ct := resp.Header.Get("Content-Type"); ct != "application/json" {
			t.Errorf("%s %s: Content-Type %q", c.method, c.path, ct)
		}
	}
}

func TestModelNamedStats(t *testing.T) {
	v := version(in("x", tensor.Float, -1))
	v.Model = "a/b:c d"
	h := serve(t, Options{}, oip.Options{}, v)
	if resp, got := h.do(t, "GET", "/v2/models/a%2Fb:c%20d/ready", ""); resp.StatusCode != 200 || got != `{"name":"a/b:c d","ready":true}` {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

func TestOneSignatureOfAnotherName(t *testing.T) {
	v := version(in("x", tensor.Float, -1))
	sig := *v.Signatures[inference.DefaultSignature]
	sig.Key = "other"
	v.Signatures = map[string]*inference.Signature{"other": &sig}
	h := serve(t, Options{}, oip.Options{}, v)
	body := `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`
	if resp, got := h.do(t, "POST", "/v2/models/m/infer", body); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	v.Signatures["third"] = &sig
	if resp, got := h.do(t, "POST", "/v2/models/m/infer", body); resp.StatusCode != 400 || !strings.Contains(got, "signature_name: other, third") {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	if resp, got := h.do(t, "POST", "/v2/models/m/infer", `{"parameters":{"signature_name":"third"},`+body[1:]); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

func TestStatistics(t *testing.T) {
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1)))
	h.do(t, "POST", "/v2/models/m/infer", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)
	h.do(t, "POST", "/v2/models/m/infer", `{"inputs":[{"name":"y","shape":[1],"datatype":"FP32","data":[1]}]}`)
	h.stats.Ran("m", 7, 3, []time.Duration{5, 7}, 100, false)
	h.stats.Ran("m", 7, 3, nil, 100, true)
	for _, path := range []string{"/v2/models/stats", "/v2/models/m/stats", "/v2/models/m/versions/7/stats"} {
		resp, got := h.do(t, "GET", path, "")
		for _, want := range []string{`{"model_stats":[{"name":"m","version":"7","last_inference":1`, `"inference_count":3,"execution_count":1,`, `"success":{"count":1,`, `"fail":{"count":1,`,
			`"queue":{"count":2,"ns":12}`, `"compute_infer":{"count":2,"ns":200}`, `"batch_stats":[{"batch_size":3,"compute_input":{"count":1,"ns":0},"compute_infer":{"count":1,"ns":100}`} {
			if resp.StatusCode != 200 || !strings.Contains(got, want) {
				t.Errorf("%s: %d %s\nwant %s", path, resp.StatusCode, got, want)
			}
		}
	}
	h.stats.Drop("m", 7)
	if _, got := h.do(t, "GET", "/v2/models/stats", ""); !strings.Contains(got, `"inference_count":0`) {
		t.Errorf("after it was unloaded: %s", got)
	}
}

func TestRepository(t *testing.T) {
	callers := oip.LocalCallers
	repo := new(repository)
	h := serve(t, Options{}, oip.Options{Repository: repo, Callers: func() oip.Callers { return callers }}, version(in("x", tensor.Float, -1)))
	for _, c := range []struct {
		path, body string
		callers    oip.Callers
		err        error
		status     int
		want       string
	}{
		{"/v2/repository/models/m/load", "", oip.LocalCallers, nil, 200, "{}"},
		{"/v2/repository/models/m/unload", `{"parameters":{"unload_dependents":false}}`, oip.LocalCallers, nil, 200, "{}"},
		{"/v2/repository/models/m/load", `{"parameters":{"config":"{}"}}`, oip.AnyCallers, nil, 501, "failed to load 'm', parameter config: models are loaded as they lie"},
		{"/v2/repository/models/m/load", strings.Repeat(" ", 100<<10), oip.AnyCallers, nil, 413, "more than 65536 bytes"},
		{"/v2/repository/models/no/load", "", oip.AnyCallers, inference.Errorf(inference.NotFound, inference.ReasonModel, "no model is called %q", "no"), 404, `failed to load 'no', no model is called`},
		{"/v2/repository/models/m/unload", "", oip.NoCallers, nil, 501, "switched off"},
	} {
		callers, repo.err = c.callers, c.err
		resp, got := h.do(t, "POST", c.path, c.body)
		if resp.StatusCode != c.status || !strings.Contains(got, c.want) {
			t.Errorf("%s %.40s: %d %s, want %d %s", c.path, c.body, resp.StatusCode, got, c.status, c.want)
		}
	}
	callers, repo.err = oip.LocalCallers, nil
	if resp, got := h.do(t, "POST", "/v2/repository/models/m/unload", "", "Origin", "http://elsewhere"); resp.StatusCode != 403 || !strings.Contains(got, "same machine only") {
		t.Errorf("a web page: %d %s", resp.StatusCode, got)
	}
	if got := strings.Join(repo.asked, ", "); got != "load m by 127.0.0.1, unload m by 127.0.0.1, load no by 127.0.0.1" {
		t.Error(got)
	}
}

func TestEachIsObservedOnce(t *testing.T) {
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1)))
	h.do(t, "POST", "/v2/models/m/infer", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`)
	h.do(t, "POST", "/v2/models/m/infer", `{"inputs":[{"name":"x"`)
	h.do(t, "POST", "/v2/models/stranger/infer", `{}`)
	h.do(t, "GET", "/v2/models/m", "")
	h.do(t, "GET", "/v2/health/live", "")
	h.do(t, "GET", "/v2/nothing", "")
	h.Close() // waits for the handlers
	want := []string{"predict m 7 serving_default OK ", "predict m 0  INVALID_ARGUMENT input", "predict  0  NOT_FOUND model", "metadata m 7  OK ", "  0  NOT_FOUND input"}
	var got []string
	for _, o := range h.observed {
		got = append(got, strings.Join([]string{o.Method, o.Model, string(rune('0' + o.Version)), o.Signature, o.Code.String(), o.Reason}, " "))
		if o.Protocol != "oip" {
			t.Errorf("protocol %q", o.Protocol)
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%q\nwant %q", got, want)
	}
}

// admitting is an echo that gives places.
type admitting struct {
	echo
	given []string
}

func (a *admitting) Admit(deadline time.Time, _ int64, class inference.Class, _ *inference.Client) (inference.Ticket, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	near := "far"
	if time.Until(deadline) < 10*time.Second {
		near = "near"
	}
	a.given = append(a.given, class.String()+" "+near)
	a.tickets++
	return inference.Ticket{From: a}, nil
}

func (a *admitting) Forgo(inference.Ticket) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tickets--
}

func TestParametersChangeThePlace(t *testing.T) {
	for _, c := range []struct {
		parameters string
		headers    []string
		want       string
	}{
		{``, nil, "normal far"},
		{`"priority":1`, nil, "normal far, interactive far"},
		{`"priority":9`, []string{"X-Inferd-Priority", "batch"}, "batch far"},
		{`"priority":"batch","timeout":5000000`, nil, "normal far, batch near"},
		{`"timeout":9000000`, []string{"Request-Timeout", "5"}, "normal near"},
		{`"timeout":4000000`, []string{"Request-Timeout", "20"}, "normal far, normal near"},
	} {
		h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1)))
		a := new(admitting)
		h.catalog.Replace(version(in("x", tensor.Float, -1)), a)
		resp, got := h.do(t, "POST", "/v2/models/m/infer", `{"parameters":{`+c.parameters+`},"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`, c.headers...)
		h.Close()
		if given := strings.Join(a.given, ", "); resp.StatusCode != http.StatusOK || given != c.want || a.tickets != 0 {
			t.Errorf("%s %v: %d %s: asked for %q, want %q; %d tickets are out", c.parameters, c.headers, resp.StatusCode, got, given, c.want, a.tickets)
		}
	}
}
