// rest.go: one connection that speaks HTTP/1.1. It is ours because the generator must be light and must see what net/http's client hides:
// which request opened a connection, an answer that comes while the body is still being sent, and how a connection broke.
package loadgen

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// smallBody fits a socket's buffers: it is sent before the answer is looked at.
	smallBody = 32 << 10
	// staleAfter: a connection that was idle for so long is replaced, before the server closes it under a request.
	staleAfter = 3 * time.Second
	// continueWait is how long a body waits for 100 Continue, as most clients do.
	continueWait = time.Second
)

// httpRequest is a request as it goes over the wire.
type httpRequest struct{ head, body []byte }

// restCaller sends requests over one connection, which it opens anew when it has to. call is used by one goroutine, abort by any.
type restCaller struct {
	address  string
	local    net.Addr
	tls      *tls.Config // nil: plain
	timeout  time.Duration
	requests []httpRequest // of the wire, shared and not written to
	expect   bool
	opened   *atomic.Int64
	ctx      context.Context // of dialling; ended by abort
	cancel   context.CancelFunc

	conn    atomic.Pointer[net.Conn]
	aborted atomic.Bool
	in      *bufio.Reader
	used    time.Time
	names   map[string]string // reasons that were seen, so that each is one string
}

func (c *restCaller) call(n int64, _ int) outcome {
	r := c.requests[n%int64(len(c.requests))]
	now := time.Now()
	conn := c.conn.Load()
	if conn != nil && now.Sub(c.used) > staleAfter {
		c.drop()
		conn = nil
	}
	deadline := now.Add(c.timeout)
	if conn == nil {
		fresh, err := c.dial(deadline)
		if err != nil {
			return outcome{failed, broke(err, FailedConnect)}
		}
		conn = &fresh
		c.conn.Store(conn)
		if c.aborted.Load() { // it came between
			c.drop()
			return outcome{failed, FailedReset}
		}
		if c.in == nil {
			c.in = bufio.NewReaderSize(fresh, 4<<10)
		}
		c.in.Reset(fresh)
	}
	_ = (*conn).SetDeadline(deadline) // a closed connection says so when it is used
	a, err := c.exchange(*conn, r, deadline)
	if err != nil || a.last {
		c.drop()
	}
	c.used = time.Now()
	if err != nil {
		return outcome{failed, broke(err, FailedReset)}
	}
	return a.outcome
}

func (c *restCaller) dial(deadline time.Time) (net.Conn, error) {
	c.opened.Add(1)
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	conn, err := (&net.Dialer{LocalAddr: c.local}).DialContext(ctx, "tcp", c.address)
	if err != nil || c.tls == nil {
		return conn, err
	}
	secured := tls.Client(conn, c.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return secured, nil
}

func (c *restCaller) drop() {
	if conn := c.conn.Swap(nil); conn != nil {
		_ = (*conn).Close()
	}
}

// abort ends a call that is under way.
func (c *restCaller) abort() {
	c.aborted.Store(true)
	c.cancel()
	c.drop()
}

// broke is the reason in err; other is the one where it says nothing else.
func broke(err error, other string) string {
	var t net.Error
	switch {
	case errors.Is(err, errProtocol):
		return FailedProtocol
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &t) && t.Timeout():
		return FailedTimeout
	}
	return other
}

// exchange sends one request and reads its answer, which may come before the body has gone out.
func (c *restCaller) exchange(conn net.Conn, r httpRequest, deadline time.Time) (httpAnswer, error) {
	if c.expect && len(r.body) > 0 {
		if _, err := conn.Write(r.head); err != nil {
			return httpAnswer{}, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(continueWait))
		_, err := c.in.Peek(1)
		_ = conn.SetReadDeadline(deadline)
		if err == nil {
			a, err := c.read(true)
			if err != nil || !a.interim {
				a.last = true // whether the body is still awaited is not known
				return a, err
			}
		} else if broke(err, "") != FailedTimeout {
			return httpAnswer{}, err
		}
		return c.send(conn, r.body)
	}
	if len(r.body) > smallBody {
		if _, err := conn.Write(r.head); err != nil {
			return c.late(err)
		}
		return c.send(conn, r.body)
	}
	// One write: head and body lie behind each other.
	if _, err := conn.Write(r.head[:len(r.head)+len(r.body)]); err != nil {
		return c.late(err)
	}
	return c.read(false)
}

// send writes a body, and reads the answer meanwhile if it is a large one.
func (c *restCaller) send(conn net.Conn, body []byte) (httpAnswer, error) {
	if len(body) <= smallBody {
		if _, err := conn.Write(body); err != nil {
			return c.late(err)
		}
		return c.read(false)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(body)
		wrote <- err
	}()
	a, err := c.read(false)
	select {
	case werr := <-wrote:
		a.last = a.last || werr != nil
	default: // answered before the body was sent: the rest is of no use, and neither is the connection
		_ = conn.SetWriteDeadline(time.Unix(1, 0))
		if <-wrote != nil {
			a.last = true
		}
	}
	return a, err
}

// late looks for an answer that came before the connection broke under the request.
func (c *restCaller) late(cause error) (httpAnswer, error) {
	a, err := c.read(false)
	if err != nil {
		return a, cause
	}
	a.last = true
	return a, nil
}

type httpAnswer struct {
	outcome
	last    bool // the connection ends with it
	interim bool // 1xx
}

var errProtocol = errors.New("no answer of HTTP/1.1")

// read reads one answer and forgets its body; with interim it may be a 1xx, else those are skipped.
func (c *restCaller) read(interim bool) (httpAnswer, error) {
	for {
		a, err := c.readOne()
		if err != nil || interim || !a.interim {
			return a, err
		}
	}
}

func (c *restCaller) readOne() (a httpAnswer, err error) {
	line, err := c.line()
	if err != nil {
		return a, err
	}
	if len(line) < 12 || !bytes.HasPrefix(line, []byte("HTTP/1.")) || line[8] != ' ' {
		return a, errProtocol
	}
	a.last = line[7] == '0'
	status, err := strconv.Atoi(string(line[9:12]))
	if err != nil {
		return a, errProtocol
	}
	length, chunked, reason := int64(-1), false, ""
	for {
		line, err := c.line()
		if err != nil {
			return a, err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok {
			return a, errProtocol
		}
		value = bytes.TrimSpace(value)
		switch {
		case equalFold(name, "content-length"):
			if length, err = strconv.ParseInt(string(value), 10, 64); err != nil || length < 0 {
				return a, errProtocol
			}
		case equalFold(name, "transfer-encoding"):
			chunked = equalFold(value, "chunked")
		case equalFold(name, "connection"):
			a.last = equalFold(value, "close")
		case equalFold(name, "x-inferd-reason"):
			reason = c.name(value)
		}
	}
	a.interim = status < 200
	switch {
	case a.interim || status == 204 || status == 304:
	case chunked:
		err = c.chunks()
	case length >= 0:
		_, err = c.discard(length)
	default:
		a.last = true
		_, err = io.Copy(io.Discard, c.in)
	}
	if status == 200 {
		a.outcome = outcome{kind: answered}
	} else {
		if status == 504 {
			reason = lateReason // it was let in, and its time ran out
		}
		if reason == "" {
			reason = c.name(append([]byte("HTTP "), strconv.Itoa(status)...))
		}
		a.outcome = outcome{refused, reason}
	}
	return a, err
}

// line is the next line without its end; it is good until the next read.
func (c *restCaller) line() ([]byte, error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = errProtocol
		}
		return nil, err
	}
	return bytes.TrimSuffix(line[:len(line)-1], []byte("\r")), nil
}

func (c *restCaller) chunks() error {
	for {
		line, err := c.line()
		if err != nil {
			return err
		}
		size, _, _ := bytes.Cut(line, []byte(";"))
		n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64)
		if err != nil || n < 0 {
			return errProtocol
		}
		if n > 0 {
			if _, err := c.discard(n); err != nil {
				return err
			}
		}
		for { // the end of a chunk, or the trailers and the end of them all
			line, err := c.line()
			if err != nil {
				return err
			}
			if len(line) == 0 {
				break
			}
			if n > 0 {
				return errProtocol
			}
		}
		if n == 0 {
			return nil
		}
	}
}

// discard skips n bytes. bufio's own takes an int, and an int may be 32 bits.
func (c *restCaller) discard(n int64) (int64, error) {
	left := n
	for left > 0 {
		k, err := c.in.Discard(int(min(left, 1<<30)))
		left -= int64(k)
		if err != nil {
			return n - left, err
		}
	}
	return n, nil
}

// maxNames bounds the reasons that are kept apart.
const maxNames = 64

func (c *restCaller) name(word []byte) string {
	if s, ok := c.names[string(word)]; ok {
		return s
	}
	if c.names == nil {
		c.names = map[string]string{}
	}
	if len(c.names) >= maxNames || len(word) > 64 {
		return "other"
	}
	s := clean(string(word))
	c.names[string(word)] = s
	return s
}

// equalFold compares with a lower-case word, in ASCII, and allocates nothing.
func equalFold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i := range b {
		x := b[i]
		if 'A' <= x && x <= 'Z' {
			x += 'a' - 'A'
		}
		if x != word[i] {
			return false
		}
	}
	return true
}
