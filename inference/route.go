// route.go: which of a model's versions answers the requests that name none.
package inference

import (
	"math"
	"sync/atomic"
)

// DefaultKeyHeader is the HTTP header and the gRPC metadata key of a request key, unless configured.
const DefaultKeyHeader = "inferd-request-key"

// Route is for the requests that name no version. Those with a number or a label are not touched by it.
type Route struct {
	// Primary answers; while it is not published, the highest published version does.
	Primary int64
	// Canary answers a Share (0 to 1) of the requests in the place of Primary, while it is published.
	Canary int64
	Share  float64
	// KeyHeader is what the request keys of the model are called; empty means [DefaultKeyHeader].
	KeyHeader string
}

// Keyed has the request key that a client sent under that name, empty when it sent none. Requests with one key go the same way.
type Keyed interface {
	RequestKey(header string) string
}

// route is a Route in use. It is immutable but for the count.
type route struct {
	Route
	limit uint64 // of 1<<63: points below it go to the canary
	count atomic.Uint64
}

// golden is 2^64 over the golden ratio: its multiples, modulo 2^64, fill every interval as evenly as a sequence can, and no traffic that
// repeats itself falls into step with them.
const golden = 0x9E3779B97F4A7C15

func newRoute(r Route) *route {
	if r.KeyHeader == "" {
		r.KeyHeader = DefaultKeyHeader
	}
	return &route{Route: r, limit: uint64(math.Round(min(1, max(0, r.Share)) * (1 << 63)))}
}

// canary decides about one request. A key that goes to the canary does so at every larger share too. It allocates nothing.
func (r *route) canary(model string, keys Keyed) bool {
	if keys != nil {
		if key := keys.RequestKey(r.KeyHeader); key != "" {
			return point(model, key)>>1 < r.limit
		}
	}
	return r.count.Add(golden)>>1 < r.limit
}

// point is where the key lies, evenly over all keys. The model is in it, so that not the same clients meet every model's canary.
func point(model, key string) uint64 {
	h := uint64(14695981039346656037) // FNV-1a, and a finalizer, for its upper bits are poor with short keys
	for i := range len(model) {
		h = (h ^ uint64(model[i])) * 1099511628211
	}
	h = (h ^ 0xff) * 1099511628211 // no byte of UTF-8
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// SetRoute says which versions answer the model's requests that name none. nil gives them to the highest published one.
func (c *Catalog) SetRoute(model string, r *Route) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(model)
	switch {
	case r == nil:
		e.route = nil
	case e.route == nil || e.route.Route != newRoute(*r).Route:
		made := newRoute(*r)
		if e.route != nil {
			made.count.Store(e.route.count.Load())
		}
		e.route = made
	}
	e.resolve()
}

// Route is what SetRoute has set, nil when the highest published version answers.
func (c *Catalog) Route(model string) *Route {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.models[model]; e != nil && e.route != nil {
		r := e.route.Route
		return &r
	}
	return nil
}

// resolve finds the versions that the route means, after a change of it or of what is published.
func (e *entry) resolve() {
	e.primary, e.canary = nil, nil
	for n, l := range e.live {
		if e.primary == nil || n > e.primary.version.Number {
			e.primary = l
		}
	}
	if e.route == nil {
		return
	}
	if l := e.live[e.route.Primary]; l != nil {
		e.primary = l
	}
	if l := e.live[e.route.Canary]; l != nil && e.route.limit > 0 && l != e.primary {
		e.canary = l
	}
}
