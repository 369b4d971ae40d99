// origins.go: web pages, which browsers let call only where their origin is welcome (CORS, the fetch standard).
package access

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Origins are those of the web pages that may call. A nil *Origins welcomes the server's own pages only.
type Origins struct {
	all  bool
	list map[string]bool
}

// NewOrigins welcomes pages of these origins, as in https://example.com; "null" is a page opened from a file, "*" is every one. It is nil for
// none.
func NewOrigins(list []string) *Origins {
	if len(list) == 0 {
		return nil
	}
	o := &Origins{list: make(map[string]bool, len(list))}
	for _, origin := range list {
		o.all = o.all || origin == "*"
		o.list[strings.ToLower(origin)] = true
	}
	return o
}

// Welcome reports whether the request comes from no page, from one of the server's own, or from one that may call.
func (o *Origins) Welcome(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	return origin == "" || own(origin, r.Host) || o.has(origin)
}

func (o *Origins) has(origin string) bool {
	return o != nil && (o.all || o.list[strings.ToLower(origin)])
}

func own(origin, host string) bool {
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, host)
}

const (
	// preflightAge is how long a browser may remember that it was let in.
	preflightAge = 10 * time.Minute
	// told are the headers of an answer that a page may read: what refusals, jobs, metadata, the binary extension and gRPC say there.
	told = "Content-Encoding, Content-Length, Date, Grpc-Encoding, Grpc-Message, Grpc-Status, Grpc-Status-Details-Bin, Inference-Header-Content-Length, " +
		"Location, Retry-After, WWW-Authenticate, X-Inferd-Reason, X-Inferd-Retry-After-Ms"
	// methods are those that anything at the HTTP port has.
	methods = "GET, POST, DELETE, OPTIONS"
	// maxAsked bounds the request headers that a page asks for, which are sent back to it.
	maxAsked = 4 << 10
)

// Front is next for pages too: it answers what browsers ask beforehand, tells them that a page may read its answer, and turns away pages that
// may not. A nil *Origins is next itself.
func (o *Origins) Front(next http.Handler) http.Handler {
	if o == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		origin, header := r.Header.Get("Origin"), w.Header()
		if !o.all { // a cache must not give one origin's answer to another
			header.Add("Vary", "Origin")
		}
		switch {
		case origin == "" || !o.has(origin) && own(origin, r.Host):
			next.ServeHTTP(w, r)
			return
		case !o.has(origin):
			TurnAway(w, origin)
			return
		}
		if header.Set("Access-Control-Allow-Origin", origin); o.all {
			header.Set("Access-Control-Allow-Origin", "*")
		}
		if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
			header.Set("Access-Control-Expose-Headers", told)
			next.ServeHTTP(w, r)
			return
		}
		header.Set("Access-Control-Allow-Methods", methods)
		header.Set("Access-Control-Max-Age", strconv.Itoa(int(preflightAge.Seconds())))
		if asked := strings.Join(r.Header["Access-Control-Request-Headers"], ", "); asked != "" && len(asked) <= maxAsked {
			header.Set("Access-Control-Allow-Headers", asked)
		}
		if r.Header.Get("Access-Control-Request-Private-Network") == "true" {
			header.Set("Access-Control-Allow-Private-Network", "true") // the appliance is where the page is looked at
		}
		w.WriteHeader(http.StatusNoContent)
	})
}

// TurnAway answers the page of an origin that may not call.
func TurnAway(w http.ResponseWriter, origin string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_, _ = w.Write([]byte(`{"error": ` + strconv.QuoteToASCII("pages of origin "+cut(origin)+" may not call; list it under rest.origins if they shall") + `}`)) // the page may have gone
}

// cut is what is quoted of an origin, which somebody else's page has chosen.
func cut(origin string) string {
	b := []byte(origin[:min(len(origin), 128)])
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}
