// refuse.go: saying no to a request whose body has not been read, in a way that its client can read.
package rest

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// The headers of admission.
const (
	PriorityHeader   = "X-Inferd-Priority"       // of a request: interactive, normal or batch
	ReasonHeader     = "X-Inferd-Reason"         // of an answer that is an error: one of the inference.Reason...
	RetryAfterHeader = "X-Inferd-Retry-After-Ms" // beside Retry-After, which has whole seconds
)

const (
	// net/http reads the rest of a body up to this size by itself, and keeps the connection.
	keptBody = 255 << 10
	// What a larger body's sender has in flight is thrown away until it has read the answer, for so long and from so many at once. Were the
	// connection closed over unread data, the client would see a reset in the place of the answer.
	lingerTime  = 10 * time.Second
	maxLingerer = 256
	// unknownBody is what a body without a declared length is taken for.
	unknownBody = 64 << 10
)

// caller is what the headers tell.
func (h *handler) caller(r *http.Request, start time.Time, timeout time.Duration) (api.Caller, *inference.Error) {
	c := api.Caller{Bytes: r.ContentLength}
	if c.Bytes < 0 {
		c.Bytes = unknownBody
	}
	if c.Bytes > h.opts.MaxRequestBytes {
		c.Bytes = 0 // readBody refuses it, and says why
	}
	if at, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		c.From = at.Addr()
	}
	if timeout > 0 {
		c.Deadline = start.Add(timeout)
	}
	if v := r.Header[PriorityHeader]; len(v) > 0 {
		class, ok := inference.ParseClass(v[0])
		if !ok {
			return c, invalid("%s: %q is no priority; send interactive, normal or batch, or leave the header out", PriorityHeader, cut(v[0], 64))
		}
		c.Class = class
	}
	return c, nil
}

// comeAgain are the statuses that say when.
var comeAgain = []int{http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusConflict, http.StatusInsufficientStorage}

// explain puts the reason of an error, and when to come again, into the headers.
func explain(header http.Header, err *inference.Error, status int) {
	if err.Reason != "" {
		header[ReasonHeader] = []string{err.Reason}
	}
	if after := err.RetryAfter; after > 0 && slices.Contains(comeAgain, status) {
		header["Retry-After"] = []string{strconv.Itoa(int(math.Ceil(after.Seconds())))}
		header[RetryAfterHeader] = []string{strconv.FormatInt(max(1, after.Milliseconds()), 10)}
	}
}

// lingers reports whether the unread body is one that net/http would close the connection over. A client that waits for 100 Continue has
// not sent it.
func lingers(r *http.Request) bool {
	return r.ProtoMajor == 1 && (r.ContentLength < 0 || r.ContentLength > keptBody) && !strings.EqualFold(r.Header.Get("Expect"), "100-continue")
}

// linger answers, says that no more will be answered, and throws away what the client still sends.
func (h *handler) linger(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	n := h.lingering.Add(1)
	defer h.lingering.Add(-1)
	if n > maxLingerer {
		w.Header().Set("Connection", "close")
		write(w, r, status, body, 0)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil { // not a connection of our own server's
		write(w, r, status, body, 0)
		return
	}
	defer func() { _ = conn.Close() }() // there is nothing left to say
	_ = conn.SetDeadline(time.Now().Add(lingerTime))
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Content-Length", strconv.Itoa(len(body)))
	header.Set("Connection", "close")
	header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	fmt.Fprintf(buf, "HTTP/1.1 %d %s\r\n", status, http.StatusText(status))
	_ = header.Write(buf)
	_, _ = buf.WriteString("\r\n")
	_, _ = buf.Write(body)
	if buf.Flush() != nil {
		return
	}
	throwAway(conn, 2*h.opts.MaxRequestBytes) // a body that is over the limit is told so, unless it is far over it
}

// throwAway ends our side of the connection and throws away what comes on the other, up to so many bytes. A TCP connection's bytes are thrown
// away in the kernel, and those of a TLS connection without being decrypted.
func throwAway(conn net.Conn, most int64) {
	raw := conn
	if t, ok := conn.(interface {
		CloseWrite() error
		NetConn() net.Conn
	}); ok { // TLS: close_notify
		_ = t.CloseWrite()
		raw = t.NetConn()
	}
	for { // the door's own
		below, ok := raw.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		raw = below.NetConn()
	}
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.CloseWrite()
	rc, err := tcp.SyscallConn()
	if err != nil {
		return
	}
	for most > 0 {
		n := 0
		var failed error
		err := rc.Read(func(fd uintptr) bool {
			n, _, failed = unix.Recvfrom(int(fd), nowhere[:], unix.MSG_TRUNC|unix.MSG_DONTWAIT)
			return !errors.Is(failed, unix.EAGAIN) && !errors.Is(failed, unix.EINTR)
		})
		if err != nil || failed != nil || n <= 0 {
			return
		}
		most -= int64(n)
	}
}

// nowhere is where MSG_TRUNC puts nothing: only its length counts.
var nowhere [256 << 10]byte
