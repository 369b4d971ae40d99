// handler.go: options, the handshake, and what is done for all connections together.
package ws

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// Defaults of Options.
const (
	DefaultConnections = 1024
	DefaultCredits     = 64
	DefaultMaxFrame    = 8 << 20
	DefaultIdle        = time.Minute
	DefaultPing        = 20 * time.Second
	DefaultSlow        = 10 * time.Second
	DefaultOutbox      = 4 << 20
	DefaultTouch       = 5 * time.Minute
)

// readBuffer is what an idle connection keeps. A burst of small frames comes in with one read.
const readBuffer = 8 << 10

// Options of a Handler. Zero means default.
type Options struct {
	// Codecs read the requests and write the answers, by kind. Kinds that are not there are refused.
	Codecs map[api.Kind]api.Codec
	// ReadSpec is what the catalog is to be asked for before a PredictRequest can be decoded.
	ReadSpec func(body []byte) (inference.Spec, *inference.Error)
	// Connections is how many there may be at once; past it the handshake is answered with 503.
	Connections int
	// Credits is how many requests of one connection may be in flight.
	Credits int
	// MaxFrame bounds a client's message, in bytes.
	MaxFrame int64
	// Idle is how long nothing need be heard of a client, Ping after how much of that it is sent a ping. Slow is how long the socket may take
	// nothing: after half of it the client is told, after all of it the connection is closed.
	Idle, Ping, Slow time.Duration
	// Outbox is how many bytes of answers may wait to be read; past it neither answers are added nor requests read.
	Outbox int
	// Origins are those whose pages may connect, beside this server's own: "https://example.com", or "*".
	Origins []string
	// Access asks who connects. Nil: nobody is asked.
	Access *access.Guard
	// Jobs takes durable requests. Nil: there are none.
	Jobs Jobs
	// Touch is after how long it is noted again that the client of a session is there. 0: five minutes.
	Touch time.Duration
	// Memory is the requests' share, in which large frames and answers are booked. Nil: nothing is.
	Memory admission.Share
	// Draining is closed when the appliance begins to stop. Nil: never.
	Draining <-chan struct{}
	// Log gets a line per connection at level Debug. Nil: discard.
	Log *slog.Logger
}

// Handler answers /v1/stream. Every method may be called from anywhere.
type Handler struct {
	svc      *api.Service
	opts     Options
	log      *slog.Logger
	origin   time.Time
	origins  *access.Origins // of pages that may connect
	upgrader websocket.Upgrader
	stats    stats

	mu       sync.Mutex
	conns    map[*conn]struct{} // guarded by mu; those that have begun
	opening  int                // guarded by mu; handshakes
	sessions map[string]*conn   // guarded by mu; who gives out the results of a session
	sweeping bool               // guarded by mu; a goroutine looks after the connections
	draining bool               // guarded by mu
	empty    chan struct{}      // guarded by mu; closed when there are no connections, nil while nobody waits for that
	last     chan struct{}      // cap 1: there are no connections any more
}

// Stats are counts since the start, and what is now.
type Stats struct {
	Connections int
	InFlight    int   // requests
	OutboxBytes int64 // that wait to be read
	Opened      int64
	Closed      map[int]int64 // by code; 1006 where there was none
	Dropped     int64         // requests that gave way to newer ones
	Slow        int64         // readers that were told so
	BadFrames   int64
}

type stats struct {
	opened, dropped, slow, bad atomic.Int64

	mu     sync.Mutex
	closed map[int]int64 // guarded by mu
}

// New is a handler over svc. It starts nothing until somebody connects.
func New(svc *api.Service, opts Options) *Handler {
	set := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	set(&opts.Connections, DefaultConnections)
	set(&opts.Credits, DefaultCredits)
	set(&opts.Outbox, DefaultOutbox)
	if opts.MaxFrame <= 0 {
		opts.MaxFrame = DefaultMaxFrame
	}
	for _, d := range []struct {
		v *time.Duration
		d time.Duration
	}{{&opts.Idle, DefaultIdle}, {&opts.Ping, DefaultPing}, {&opts.Slow, DefaultSlow}, {&opts.Touch, DefaultTouch}} {
		if *d.v <= 0 {
			*d.v = d.d
		}
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	h := &Handler{svc: svc, opts: opts, origins: access.NewOrigins(opts.Origins), log: opts.Log.With("component", "stream"), origin: time.Now(), conns: make(map[*conn]struct{}), sessions: make(map[string]*conn), last: make(chan struct{}, 1)}
	h.stats.closed = make(map[int]int64)
	h.upgrader = websocket.Upgrader{
		WriteBufferPool: new(sync.Pool), Subprotocols: []string{JSONProtocol, ProtoProtocol},
		CheckOrigin: h.origins.Welcome,
		Error: func(w http.ResponseWriter, _ *http.Request, status int, reason error) {
			refuse(w, status, strings.TrimPrefix(reason.Error(), "websocket: "))
		},
	}
	return h
}

// now is the handler's own clock, which nobody sets.
func (h *Handler) now() time.Duration { return time.Since(h.origin) }

// refuse answers a handshake with an error, as REST does.
func refuse(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(appendText([]byte(`{"error":`), text), '}')) // the client may have gone
}

// ServeHTTP makes the handshake and returns; the connection lives on in goroutines of its own.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	offered := websocket.Subprotocols(r)
	wanted := withoutTokens(offered)
	switch {
	case !websocket.IsWebSocketUpgrade(r):
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		refuse(w, http.StatusUpgradeRequired, "this is a WebSocket; connect to it as one, with the subprotocol "+JSONProtocol+" or "+ProtoProtocol)
		return
	case len(wanted) > 0 && !slices.Contains(wanted, JSONProtocol) && !slices.Contains(wanted, ProtoProtocol):
		refuse(w, http.StatusBadRequest, fmt.Sprintf("none of the subprotocols %s is known here; ask for %s or %s", quote([]byte(strings.Join(wanted, ", "))), JSONProtocol, ProtoProtocol))
		return
	case !h.origins.Welcome(r):
		refuse(w, http.StatusForbidden, fmt.Sprintf("pages of origin %s may not connect; list it under stream.origins if they shall", quote([]byte(r.Header.Get("Origin")))))
		return
	}
	grant, bad := h.opts.Access.WebSocket(r, offered)
	if bad == nil {
		bad = grant.May(access.Predict|access.Submit, "")
	}
	if bad != nil {
		deny(w, bad, r.Header["Authorization"] != nil || len(wanted) < len(offered))
		return
	}
	if status, text := h.enter(); status != 0 {
		w.Header().Set("Retry-After", "1")
		refuse(w, status, text)
		return
	}
	c := &conn{h: h, holder: grant, wire: jsonWire{}, left: h.opts.Credits, flying: make(map[string]*flight), ending: make(chan struct{})}
	c.space.L = &c.mu
	conn, err := h.upgrader.Upgrade(&tap{ResponseWriter: w, c: c}, r, nil)
	if err != nil { // and the client was told
		h.mu.Lock()
		h.opening--
		h.mu.Unlock()
		return
	}
	if conn.Subprotocol() == ProtoProtocol {
		c.wire = protoWire{}
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.from = at.Addr()
	}
	c.keys = keysOf(r.Header)
	c.begin(conn)
}

// enter counts a handshake in, or says why not.
func (h *Handler) enter() (status int, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining:
		return http.StatusServiceUnavailable, closeTexts[CloseDraining]
	case len(h.conns)+h.opening >= h.opts.Connections:
		return http.StatusServiceUnavailable, fmt.Sprintf("%d streams are open, which is as many as stream.max_connections allows; close one, or try again later", len(h.conns))
	}
	h.opening++
	return 0, ""
}

// add counts a connection in, whose handshake is made.
func (h *Handler) add(c *conn) {
	h.mu.Lock()
	h.opening--
	h.conns[c] = struct{}{}
	h.stats.opened.Add(1)
	if !h.sweeping {
		h.sweeping = true
		go h.sweep()
	}
	draining := h.draining
	h.mu.Unlock()
	if draining { // it came in between
		c.drain()
	}
}

// leave counts it out, once.
func (h *Handler) leave(c *conn, code int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, ok := h.conns[c]; !ok {
		return false
	}
	delete(h.conns, c)
	if h.sessions[c.session] == c {
		delete(h.sessions, c.session)
	}
	h.stats.mu.Lock()
	h.stats.closed[code]++
	h.stats.mu.Unlock()
	if len(h.conns) == 0 && h.empty != nil {
		close(h.empty)
		h.empty = nil
	}
	if len(h.conns) == 0 {
		select {
		case h.last <- struct{}{}:
		default:
		}
	}
	return true
}

func (h *Handler) all() []*conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := make([]*conn, 0, len(h.conns))
	for c := range h.conns {
		all = append(all, c)
	}
	return all
}

// sweep looks after the connections while there are any: pings, idle ones, slow ones, and those that do not end.
func (h *Handler) sweep() {
	every := min(max(min(h.opts.Ping, h.opts.Idle, h.opts.Slow)/8, time.Millisecond), time.Second)
	t := time.NewTicker(every)
	defer t.Stop()
	draining := h.opts.Draining
	for {
		select {
		case <-t.C:
		case <-h.last:
		case <-draining:
			draining = nil
			h.mu.Lock()
			h.draining = true
			h.mu.Unlock()
			for _, c := range h.all() {
				c.drain()
			}
		}
		now := h.now()
		for _, c := range h.all() {
			c.look(now)
		}
		h.mu.Lock()
		if len(h.conns) == 0 {
			h.sweeping = false
			h.mu.Unlock()
			return
		}
		h.mu.Unlock()
	}
}

// Drain waits until every connection has ended, which those that Draining has told do when their requests are answered. When ctx ends first
// it cuts them off.
func (h *Handler) Drain(ctx context.Context) {
	h.mu.Lock()
	h.draining = true
	if len(h.conns) == 0 {
		h.mu.Unlock()
		return
	}
	if h.empty == nil {
		h.empty = make(chan struct{})
	}
	empty := h.empty
	h.mu.Unlock()
	for _, c := range h.all() {
		c.drain()
	}
	select {
	case <-empty:
		return
	case <-ctx.Done():
	}
	for _, c := range h.all() {
		c.mu.Lock()
		c.drop()
		c.mu.Unlock()
	}
	<-empty
}

// Stats is a snapshot.
func (h *Handler) Stats() Stats {
	s := Stats{Opened: h.stats.opened.Load(), Dropped: h.stats.dropped.Load(), Slow: h.stats.slow.Load(), BadFrames: h.stats.bad.Load(), Closed: map[int]int64{}}
	h.stats.mu.Lock()
	for code, n := range h.stats.closed {
		s.Closed[code] = n
	}
	h.stats.mu.Unlock()
	for _, c := range h.all() {
		c.mu.Lock()
		s.Connections++
		s.InFlight += len(c.flying)
		s.OutboxBytes += int64(c.out.size())
		c.mu.Unlock()
	}
	return s
}

// keys are the headers that may hold a request key, for all requests of a connection.
type keys http.Header

// RequestKey implements inference.Keyed.
func (k keys) RequestKey(header string) string { return http.Header(k).Get(header) }

// keysOf are the headers that are no part of the handshake.
func keysOf(h http.Header) keys {
	var k keys
	for name, values := range h {
		if strings.HasPrefix(name, "Sec-") || slices.Contains([]string{"Connection", "Upgrade", "Origin", "User-Agent", "Pragma", "Cache-Control",
			"Cookie", "Accept", "Accept-Encoding", "Accept-Language"}, name) {
			continue
		}
		if k == nil {
			k = make(keys)
		}
		k[name] = values
	}
	return k
}

// newSession is a name that nobody guesses.
func newSession() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it does not fail
	return hex.EncodeToString(b[:])
}

// tap hands gorilla/websocket the connection with its writes caught: once the handshake is made it only reads.
type tap struct {
	http.ResponseWriter
	c *conn
}

// Hijack implements http.Hijacker.
func (t *tap) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	raw, rw, err := http.NewResponseController(t.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	t.c.net = raw
	q := &quiet{Conn: raw, c: t.c}
	if rw.Reader.Buffered() > 0 {
		return q, rw, nil // gorilla/websocket refuses that
	}
	t.c.in = bufio.NewReaderSize(q, readBuffer) // it is used as it is, for no other size is asked for
	return q, bufio.NewReadWriter(t.c.in, rw.Writer), nil
}

// quiet is a connection whose writes after the handshake are not made. Of gorilla's close frames it keeps the code, which says what was wrong
// with what was read.
type quiet struct {
	net.Conn
	c     *conn
	shook bool // owned by who reads
}

func (q *quiet) Write(b []byte) (int, error) {
	if !q.shook {
		q.shook = true
		return q.Conn.Write(b)
	}
	if len(b) >= 4 && b[0]&0xf == opClose {
		q.c.fault, q.c.faultText = int(b[2])<<8|int(b[3]), string(b[4:])
	}
	return len(b), nil
}

func (q *quiet) SetWriteDeadline(time.Time) error { return nil }
