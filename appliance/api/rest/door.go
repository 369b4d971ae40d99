// door.go: what a handler of another protocol on the same port has in common with this one: who asks, bodies, refusals.
package rest

import (
	"net/http"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// Door reads bodies and writes answers within the limits of its options. It may be used from any number of goroutines.
type Door struct{ h handler }

// NewDoor is a door; of opts the limits of size and time count, and Access.
func NewDoor(opts Options) *Door {
	if opts.MaxRequestBytes <= 0 {
		opts.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if opts.MinGzipBytes == 0 {
		opts.MinGzipBytes = DefaultMinGzipBytes
	}
	return &Door{handler{opts: opts}}
}

// Who asks, before anything of the request but the path and the header was read. A nil Grant may do everything.
func (d *Door) Who(r *http.Request) (*access.Grant, *inference.Error) {
	if d.h.opts.Access == nil {
		return nil, nil
	}
	return d.h.opts.Access.HTTP(r)
}

// Caller is what the headers tell of a prediction, and how long its client waits, 0 when it does not say.
func (d *Door) Caller(r *http.Request, start time.Time) (api.Caller, time.Duration, *inference.Error) {
	timeout, err := requestTimeout(r)
	if err != nil {
		return api.Caller{}, 0, err
	}
	c, err := d.h.caller(r, start, timeout)
	return c, timeout, err
}

// Read reads the body into dst[:0], followed by NULs; see readBody. begun is false where it was refused before it was read.
func (d *Door) Read(dst []byte, w http.ResponseWriter, r *http.Request, book func(bytes int64) *inference.Error) (body []byte, begun bool, err *inference.Error) {
	body, err = readBody(dst, w, r, d.h.opts.MaxRequestBytes, book)
	return body, r.ContentLength <= d.h.opts.MaxRequestBytes, err
}

// Answer writes a body whose headers, but for its length, are set. unread says that the request's body was not read.
func (d *Door) Answer(w http.ResponseWriter, r *http.Request, status int, body []byte, unread bool) {
	if d.h.opts.SlowTimeout > 0 && r.ProtoMajor > 1 { // of HTTP/1 the connection itself is watched
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(d.h.opts.SlowTimeout))
	}
	if unread && lingers(r) {
		d.h.linger(w, r, status, body)
		return
	}
	write(w, r, status, body, d.h.opts.MinGzipBytes)
}

// Explain puts into the headers why a request failed, and when it may come again, and returns the status.
func (d *Door) Explain(w http.ResponseWriter, r *http.Request, err *inference.Error) int {
	status := api.HTTPStatus(err)
	explain(w.Header(), err, status)
	if c := access.Challenge(err, r.Header["Authorization"] != nil); c != "" {
		w.Header()["Www-Authenticate"] = []string{c}
	}
	return status
}

// Keys are a request's headers, without the cost of a look into them.
func Keys(h http.Header) inference.Keyed { return keys(h) }
