// http.go: gRPC on the HTTP port: calls over HTTP/2 as they are, and grpc-web, whose wire is in web.go.
package rpc

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
)

// HTTP answers the calls that come over an http.Server, with the same methods, limits and errors as the gRPC port. It is an http.Handler for
// the requests that Takes reports true for, and may be used from any number of goroutines.
//
// grpc's own handler of HTTP requests asks nobody who calls, and reads what comes into memory as fast as it comes: both is done here.
type HTTP struct {
	server *grpc.Server // of its own: what stops the port's gently would cut these off
	opts   Options
}

// NewHTTP puts every service behind an HTTP handler, with the options of [Register].
func NewHTTP(svc *api.Service, opts Options) *HTTP {
	h := &HTTP{server: grpc.NewServer(append(ServerOptions(opts), grpc.StatsHandler(intakes{}))...), opts: opts}
	Register(h.server, svc, opts)
	return h
}

// Takes reports whether the request is a gRPC call, or a grpc-web one.
func Takes(r *http.Request) bool { return wireOf(r) != notGRPC }

// Stop ends what is still going on. The http.Server has been stopped before.
func (h *HTTP) Stop() { h.server.Stop() }

// ServeHTTP answers one call.
func (h *HTTP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wire := wireOf(r)
	switch {
	case r.Method != http.MethodPost:
		w.Header().Set("Allow", http.MethodPost)
		decline(w, "a gRPC call is a POST", http.StatusMethodNotAllowed)
		return
	case wire == native && r.ProtoMajor < 2:
		decline(w, "a gRPC call needs HTTP/2, and this came over HTTP/1; send it as grpc-web (Content-Type application/grpc-web+proto), or over HTTP/2", http.StatusHTTPVersionNotSupported)
		return
	}
	out := &outlet{w: w, wire: wire, slow: h.opts.SlowTimeout, timed: r.ProtoMajor > 1, control: http.NewResponseController(w)}
	if r.ProtoMajor < 2 {
		_ = out.control.EnableFullDuplex() // else net/http reads or cuts off what is unread when the answer begins
	}
	in := newIntake(r.Body, h.opts.maxRequestBytes(), wire == webText)
	ctx, err := h.opts.tapHTTP(r)
	if name, known := coding.Named(r.Header.Get("Content-Encoding")); err == nil && (!known || name != "") {
		err = wireStatus(inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
			"a gRPC call has no Content-Encoding; compress its messages, and name how in grpc-encoding"))
	}
	if err != nil {
		out.refuse(err)
		h.linger(out, r, in)
		return
	}
	if r.ProtoMajor > 1 { // a stream may be open longer than a request may take; the call's own wait ends one that sends nothing
		_ = out.control.SetReadDeadline(time.Time{})
		in.close = func() { _ = r.Body.Close() }
	} else {
		in.end = func() { _ = out.control.SetReadDeadline(time.Time{}) }
		in.close = func() { _ = out.control.SetReadDeadline(time.Now().Add(stallTime)) }
	}
	call := r.WithContext(context.WithValue(ctx, intakeKey{}, in))
	call.Body = in
	if wire != native {
		call.ProtoMajor, call.ProtoMinor = 2, 0 // what grpc asks for is flushing and trailers, which outlet has
		call.Header = r.Header.Clone()
		call.Header.Set("Content-Type", "application/grpc"+strings.TrimPrefix(contentType(r), wire.prefix()))
	}
	h.server.ServeHTTP(out, call)
	out.finish(in.wrong())
	h.linger(out, r, in)
}

// decline answers what is no call, as HTTP.
func decline(w http.ResponseWriter, text string, status int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text+"\n") // who has sent it may have gone
}

const (
	// stallTime is how long a call over HTTP/1 that has its answer waits for a client that is in the middle of its message.
	stallTime = time.Second
	// lingerTime is how long what such a client still sends is thrown away, so that it finds the answer and not a reset.
	lingerTime = 10 * time.Second
)

// linger reads what is left of a body over HTTP/1, up to twice what a message may have. HTTP/2 can tell a client to stop.
func (h *HTTP) linger(out *outlet, r *http.Request, in *intake) {
	if r.ProtoMajor > 1 || in.done() {
		return
	}
	_ = out.control.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, r.Body, 2*h.opts.maxRequestBytes()) // who sends more than that sees a reset
}

// tapHTTP is tap for a request of HTTP.
func (o Options) tapHTTP(r *http.Request) (context.Context, error) {
	ctx := context.WithValue(r.Context(), originKey{}, originOf(r))
	if o.Access != nil && !probes[r.URL.Path] {
		grant, err := o.Access.HTTP(r)
		if err != nil {
			return ctx, wireStatus(err)
		}
		ctx = context.WithValue(ctx, grantKey{}, grant)
	}
	if o.BodyTimeout <= 0 || strings.HasPrefix(r.URL.Path, reflectionPrefix) {
		return ctx, nil
	}
	return o.patiently(ctx), nil
}

type originKey struct{}

// origin is where a call over HTTP came from, of which grpc's transport knows only a text.
type origin struct {
	addr net.Addr // nil when it is none
	page bool     // a web page has sent it
}

func originOf(r *http.Request) origin {
	o := origin{page: r.Header.Get("Origin") != ""}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		o.addr = net.TCPAddrFromAddrPort(at)
	}
	return o
}

// Local reports whether the caller came over a unix socket or the loopback. A web page did not, wherever it is looked at.
func Local(ctx context.Context) bool {
	addr, page := from(ctx)
	switch at := addr.(type) {
	case *net.UnixAddr:
		return true
	case *net.TCPAddr:
		return at.IP.IsLoopback() && !page
	}
	return false
}

// from is the other end of a call, and whether a web page has sent it, in the browser of whoever looks at that page.
func from(ctx context.Context) (addr net.Addr, page bool) {
	if o, ok := ctx.Value(originKey{}).(origin); ok {
		return o.addr, o.page
	}
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr, false
	}
	return nil, false
}

// intake is the body of a call on its way to grpc, which would read whatever comes: no more is let in than one message beyond what the handler
// has taken.
type intake struct {
	// immutable
	body  io.Reader
	end   func() // called once when the body has ended; nil: nobody cares
	close func() // called when grpc wants no more of it, and perhaps while it is being read

	once   sync.Once
	closed chan struct{}
	more   chan struct{} // cap 1: there may be room

	mu    sync.Mutex
	room  int64            // guarded by mu
	ended bool             // guarded by mu
	fault *inference.Error // guarded by mu; why the body is none
}

// frameHead is what precedes each message: a byte of flags and four of length.
const frameHead = 5

func newIntake(body io.Reader, maxMessage int64, text bool) *intake {
	if text {
		body = newTextReader(body)
	}
	return &intake{body: body, closed: make(chan struct{}), more: make(chan struct{}, 1), room: frameHead + maxMessage}
}

// Read implements io.Reader, for one goroutine. It waits for room.
func (i *intake) Read(b []byte) (int, error) {
	for {
		select {
		case <-i.closed:
			return 0, errClosed
		default:
		}
		i.mu.Lock()
		room := i.room
		i.mu.Unlock()
		if room <= 0 {
			select {
			case <-i.more:
			case <-i.closed:
			}
			continue
		}
		n, err := i.body.Read(b[:min(int64(len(b)), room)])
		i.mu.Lock()
		i.room -= int64(n)
		over := errors.Is(err, io.EOF)
		i.ended = i.ended || over
		if errors.Is(err, errText) {
			i.fault = inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
		}
		i.mu.Unlock()
		if over && i.end != nil {
			i.end()
		}
		return n, err
	}
}

var errClosed = errors.New("body closed by handler") // as net/http says it

// taken makes room for as much again.
func (i *intake) taken(bytes int64) {
	i.mu.Lock()
	i.room += bytes
	i.mu.Unlock()
	select {
	case i.more <- struct{}{}:
	default:
	}
}

// Close implements io.Closer. The body below is net/http's to close.
func (i *intake) Close() error {
	i.once.Do(func() {
		close(i.closed)
		if i.close != nil && !i.done() {
			i.close()
		}
	})
	return nil
}

// done reports whether the body has been read to its end.
func (i *intake) done() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ended
}

// wrong says why the body is none, which grpc would take for a connection that is gone; nil when it is one.
func (i *intake) wrong() *inference.Error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.fault
}

type intakeKey struct{}

// intakes tells each call's intake what its handler has taken. It is a stats.Handler.
type intakes struct{}

func (intakes) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context   { return ctx }
func (intakes) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (intakes) HandleConn(context.Context, stats.ConnStats)                       {}

func (intakes) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if p, ok := s.(*stats.InPayload); ok {
		if in, ok := ctx.Value(intakeKey{}).(*intake); ok {
			in.taken(int64(p.WireLength))
		}
	}
}

// statusHeaders are those of a call that has ended with an error, as gRPC writes them.
func statusHeaders(err error) [][2]string {
	st := status.Convert(err)
	headers := [][2]string{{"grpc-status", strconv.Itoa(int(st.Code()))}}
	if st.Code() != codes.OK && st.Message() != "" {
		headers = append(headers, [2]string{"grpc-message", percent(st.Message())})
	}
	if p := st.Proto(); len(p.GetDetails()) > 0 {
		if b, err := proto.Marshal(p); err == nil {
			headers = append(headers, [2]string{"grpc-status-details-bin", base64.RawStdEncoding.EncodeToString(b)})
		}
	}
	return headers
}

// percent is a message as grpc-message has it: what is not printable ASCII, and the percent sign, by their codes.
func percent(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c >= ' ' && c <= '~' && c != '%' {
			b.WriteByte(c)
		} else {
			b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
		}
	}
	return b.String()
}
