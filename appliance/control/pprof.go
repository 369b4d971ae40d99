// pprof.go: profiles of the running core, for operators.
package control

import (
	"net/http"
	"net/http/pprof"
	"strings"
)

// pprofPath is where profiles lie. They say what the core does and with which arguments, so reading them is for operators too.
const pprofPath = "/control/debug/pprof/"

// handlePprof serves what `go tool pprof` reads: profile (?seconds=), trace, heap, allocs, goroutine, mutex, block, threadcreate.
func handlePprof(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pprofPath, func(w http.ResponseWriter, r *http.Request) {
		switch name := strings.TrimPrefix(r.URL.Path, pprofPath); name {
		case "":
			pprof.Index(w, r)
		case "profile":
			pprof.Profile(w, r)
		case "trace":
			pprof.Trace(w, r)
		default: // Index would look for the name behind a path of its own
			pprof.Handler(name).ServeHTTP(w, r)
		}
	})
}
