// routes.go: which model and which act a path names.
package oiprest

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
)

// The acts that a path can name, as they are called in observations.
const (
	actLive     = "live"
	actReady    = "ready"
	actServer   = "server"
	actMetadata = "metadata"
	actModel    = "model_ready"
	actConfig   = "config"
	actPredict  = "predict"
	actStats    = "statistics"
	actIndex    = "index"
	actLoad     = "load"
	actUnload   = "unload"
)

// route is what a path means.
type route struct {
	act  string
	spec inference.Spec
}

// elsewhere are extensions of the protocol's that are not spoken.
var elsewhere = map[string]string{
	"systemsharedmemory": "shared memory with clients", "cudasharedmemory": "shared memory with clients", "trace": "tracing", "logging": "changing what is logged",
	"generate": "generate", "generate_stream": "generate_stream",
}

// parse reads a path, which begins with /v2.
func parse(r *http.Request) (route, *inference.Error) {
	parts := strings.Split(strings.Trim(strings.TrimPrefix(r.URL.EscapedPath(), "/v2"), "/"), "/")
	for i, p := range parts {
		plain, err := url.PathUnescape(p)
		if err != nil {
			return route{}, notFound(r)
		}
		parts[i] = plain
	}
	to, ok := find(parts)
	if !ok {
		for _, p := range []string{parts[0], parts[len(parts)-1]} {
			if what, known := elsewhere[p]; known {
				return route{}, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "%s is not spoken here (%s %s)", what, r.Method, oip.Cut(r.URL.EscapedPath()))
			}
		}
		return route{}, notFound(r)
	}
	want := http.MethodGet
	switch to.act {
	case actPredict, actIndex, actLoad, actUnload:
		want = http.MethodPost
	}
	if r.Method != want && (r.Method != http.MethodHead || want != http.MethodGet) {
		return to, oip.Invalid("%s of %s: this path is asked with %s", oip.Cut(r.Method), oip.Cut(r.URL.EscapedPath()), want)
	}
	return to, nil
}

func notFound(r *http.Request) *inference.Error {
	return inference.Errorf(inference.NotFound, inference.ReasonInput,
		"%s %s is no path of the Open Inference Protocol's; there are /v2, /v2/health/live, /v2/health/ready, /v2/models/M[/versions/V], and below these /ready, /infer, /stats and /config, /v2/models/stats, and /v2/repository",
		oip.Cut(r.Method), oip.Cut(r.URL.EscapedPath()))
}

func find(p []string) (route, bool) {
	switch {
	case len(p) == 1 && p[0] == "":
		return route{act: actServer}, true
	case len(p) == 2 && p[0] == "health" && p[1] == "live":
		return route{act: actLive}, true
	case len(p) == 2 && p[0] == "health" && p[1] == "ready":
		return route{act: actReady}, true
	case len(p) == 2 && p[0] == "models" && p[1] == "stats":
		return route{act: actStats}, true
	case len(p) >= 2 && p[0] == "models" && p[1] != "":
		return model(p[1], p[2:])
	case len(p) == 2 && p[0] == "repository" && p[1] == "index":
		return route{act: actIndex}, true
	case len(p) == 4 && p[0] == "repository" && p[1] == "models" && p[2] != "" && (p[3] == "load" || p[3] == "unload"):
		to := route{act: actLoad, spec: oip.Spec(p[2], "")}
		if p[3] == "unload" {
			to.act = actUnload
		}
		return to, true
	}
	return route{}, false
}

func model(name string, p []string) (route, bool) {
	version := ""
	if len(p) >= 2 && p[0] == "versions" && p[1] != "" {
		version, p = p[1], p[2:]
	}
	to := route{spec: oip.Spec(name, version)}
	switch {
	case len(p) == 0:
		to.act = actMetadata
	case len(p) == 1 && p[0] == "ready":
		to.act = actModel
	case len(p) == 1 && p[0] == "infer":
		to.act = actPredict
	case len(p) == 1 && p[0] == "stats":
		to.act = actStats
	case len(p) == 1 && p[0] == "config":
		to.act = actConfig
	}
	return to, to.act != ""
}
