// web.go: the HTTP port as a whole: pages of other origins, gRPC and grpc-web, and what is HTTP of itself.
package appliance

import (
	"net/http"
	"strings"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api/rpc"
)

// port is what the HTTP port answers: calls of gRPC by calls, and everything else by front.
func (a *Appliance) port(front, calls http.Handler) http.Handler {
	var origins *access.Origins
	switch {
	case a.cfg.REST.CORS:
		origins = access.NewOrigins([]string{"*"})
	default:
		origins = access.NewOrigins(a.cfg.REST.Origins)
	}
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case !rpc.Takes(r):
			front.ServeHTTP(w, r)
		case origins.Welcome(r):
			calls.ServeHTTP(w, r)
		default: // no browser sends such a call before it has asked; who does all the same is not let in
			access.TurnAway(w, r.Header.Get("Origin"))
		}
	})
	pages := origins.Front(all)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case strings.EqualFold(path, streamPath): // has origins of its own
			front.ServeHTTP(w, r)
		case a.cfg.REST.CORS && len(path) >= 3 && strings.EqualFold(path[:3], "/v1"): // answers pages as TensorFlow Serving does
			front.ServeHTTP(w, r)
		default:
			pages.ServeHTTP(w, r)
		}
	})
}

// plain lets a port without TLS speak HTTP/2 too, to clients that begin with it.
func plain(s *http.Server) {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
}
