// conn.go: a stream's connection: made, resumed, written, read, lost, made again.
package inferd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// subprotocol is the one that this package speaks.
const subprotocol = "inferd.v1.json"

// Close codes of the appliance's that end a stream, for the next connection would end the same way.
var final = map[int]string{
	websocket.CloseUnsupportedData:         "the appliance does not take this kind of frame",
	websocket.CloseInvalidFramePayloadData: "the appliance did not find UTF-8",
	websocket.ClosePolicyViolation:         "the appliance's policy forbids it",
	websocket.CloseMessageTooBig:           "a request is over the appliance's limit (stream.max_frame)",
	4000:                                   "the appliance did not understand several frames",
	4001:                                   "more requests were sent than there were credits",
	4003:                                   "a result was acknowledged that was never sent",
	4004:                                   "another connection has taken the session over; each process needs a session of its own",
}

// closeUnknownSession is the code for a session that is gone.
const closeUnknownSession = 4002

// How long the parts of a connection may take.
const (
	handshakeTimeout = 10 * time.Second
	helloTimeout     = 15 * time.Second
	writeTimeout     = 30 * time.Second
	farewell         = 2 * time.Second
)

// endError ends the stream.
type endError struct{ err error }

func (e endError) Error() string { return e.err.Error() }
func (e endError) Unwrap() error { return e.err }

// run keeps a connection until the stream is closed or ended.
func (s *Stream) run(ctx context.Context) {
	defer close(s.stopped)
	for n := 0; ; n++ {
		before := s.progress()
		err := s.connection(ctx)
		var (
			end     endError
			refused *Error
			hint    time.Duration
		)
		if s.progress() != before {
			n = 0 // it was of use
		}
		if errors.As(err, &refused) {
			hint = refused.RetryAfter
		}
		switch {
		case ctx.Err() != nil:
			s.finish(ErrClosed)
			return
		case errors.As(err, &end):
			s.finish(end.err)
			return
		case s.c.o.Attempts > 0 && n+1 >= s.c.o.Attempts:
			s.finish(fmt.Errorf("inferd: no stream after %d tries: %w", n+1, err))
			return
		}
		wait := s.c.backoff(n, hint)
		s.o.Log.Warn("no connection, trying again", "address", s.c.base.Host, "err", err, "wait", wait.Round(time.Millisecond))
		_ = sleep(ctx, wait) // the next round finds out
	}
}

// progress grows with what connections brought.
func (s *Stream) progress() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats.Answered + s.stats.Refused + s.stats.Sent + s.stats.Again
}

func (s *Stream) finish(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = err
	}
	s.wake()
}

// dial makes the connection and reads the greeting.
func (s *Stream) dial(ctx context.Context) (*websocket.Conn, *message, error) {
	u := url.URL{Scheme: "ws", Host: s.c.base.Host, Path: s.c.base.Path + "/v1/stream"}
	if s.c.base.Scheme == "https" {
		u.Scheme = "wss"
	}
	d := websocket.Dialer{
		Subprotocols: []string{subprotocol}, HandshakeTimeout: handshakeTimeout, TLSClientConfig: s.c.o.TLS.Clone(), Proxy: http.ProxyFromEnvironment,
		NetDialContext: (&net.Dialer{Timeout: dialTimeout}).DialContext,
	}
	conn, resp, err := d.DialContext(ctx, u.String(), maps.Clone(s.c.o.Header))
	if err != nil {
		if resp == nil || !errors.Is(err, websocket.ErrBadHandshake) {
			return nil, nil, err
		}
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16)) // what came of it; gorilla keeps the first kilobyte
		_ = resp.Body.Close()
		e := refusal(answer{resp.StatusCode, resp.Header, body})
		if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusBadRequest && strings.HasPrefix(e.Message, "Malformed request") {
			e.Message = "nothing streams at " + u.String() + ": it is no inferd, an older one, or its stream is off"
		}
		if e.Temporary() || resp.StatusCode >= 500 {
			return nil, nil, e
		}
		return nil, nil, endError{e}
	}
	_ = resp.Body.Close()
	conn.SetReadLimit(s.c.o.MaxAnswer)
	if conn.Subprotocol() != subprotocol {
		_ = conn.Close()
		return nil, nil, endError{fmt.Errorf("inferd: %s does not speak %s", u.String(), subprotocol)}
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	hello, err := read(conn, helloTimeout)
	if err == nil && hello.Hello == nil {
		err = errors.New("inferd: the first frame is no greeting")
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, hello, nil
}

// read reads one frame, within limit.
func read(conn *websocket.Conn, limit time.Duration) (*message, error) {
	if err := conn.SetReadDeadline(time.Now().Add(limit)); err != nil {
		return nil, err
	}
	kind, text, err := conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	if kind != websocket.TextMessage {
		return nil, errors.New("inferd: a binary frame, which was not asked for")
	}
	return readMessage(text)
}

// write writes one frame.
func write(conn *websocket.Conn, frame []byte, binary bool) error {
	if err := conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	kind := websocket.TextMessage
	if binary {
		kind = websocket.BinaryMessage
	}
	return conn.WriteMessage(kind, frame)
}

func writeJSON(conn *websocket.Conn, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return write(conn, text, false)
}

// connection makes one and serves it until it ends.
func (s *Stream) connection(ctx context.Context) error {
	conn, hello, err := s.dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	greeted := context.AfterFunc(ctx, func() { _ = conn.Close() }) // Close does not wait for a peer that says nothing
	pending, err := s.resume(conn)
	greeted()
	if err != nil {
		if websocket.IsCloseError(err, closeUnknownSession) {
			s.loseSession()
		}
		return s.verdict(err)
	}
	s.up(hello, pending)
	defer s.down()

	broken := make(chan struct{})
	writer := make(chan error, 1)
	wctx, stopWriter := context.WithCancel(ctx)
	defer stopWriter()
	go func() { writer <- s.writeLoop(wctx, conn, broken) }()
	err = s.readLoop(ctx, conn)
	close(broken)
	_ = conn.Close() // a writer that waits for the peer ends
	werr := <-writer
	if websocket.IsCloseError(err, closeUnknownSession) {
		s.loseSession()
	}
	var closed *websocket.CloseError
	if werr != nil && !errors.As(err, &closed) {
		err = werr // why the reader found its connection closed
	}
	return s.verdict(err)
}

// verdict says which ends are final.
func (s *Stream) verdict(err error) error {
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		if why, ok := final[closed.Code]; ok {
			return endError{fmt.Errorf("inferd: %s: %w", why, err)}
		}
	}
	return err
}

// resume goes on with the session, if there is one worth it.
func (s *Stream) resume(conn *websocket.Conn) (pending int, err error) {
	s.mu.Lock()
	session, after, wanted := s.session, s.acked, s.durable && s.session != ""
	s.mu.Unlock()
	if !wanted {
		return 0, nil
	}
	type resume struct {
		Session string `json:"session"`
		After   uint64 `json:"after"`
	}
	// After is what the user has acknowledged, not what was received: what only this process has seen must stay with the appliance.
	if err := writeJSON(conn, map[string]resume{"resume": {session, after}}); err != nil {
		return 0, err
	}
	for {
		m, err := read(conn, helloTimeout)
		switch {
		case err != nil:
			return 0, err
		case m.Resumed != nil:
			return m.Resumed.Pending, nil
		case m.ID == nil && m.Error != nil:
			return 0, fmt.Errorf("resume: %s", *m.Error)
		}
	}
}

// up takes a new connection into use.
func (s *Stream) up(hello *message, pending int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.durable || s.session == "" {
		s.session = hello.Hello.Session
	}
	s.online, s.credits, s.maxFrame = true, hello.Hello.Credits, hello.Hello.MaxFrame
	s.stats.Connections++
	again := slices.DeleteFunc(s.inOrder(), func(c *call) bool { return !c.out || c.accepted })
	s.waiting = 0
	queue := s.queue
	s.queue = nil
	for _, c := range append(again, queue...) {
		c.out = false
		s.push(c)
	}
	level := slog.LevelDebug
	if s.stats.Connections > 1 {
		level = slog.LevelInfo
	}
	s.o.Log.Log(context.Background(), level, "connected", "address", s.c.base.Host, "requests", len(s.queue)+pending)
	s.wake()
}

// down ends what went with the connection and keeps the rest for the next one.
func (s *Stream) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.online, s.credits = false, 0
	for _, c := range s.inOrder() {
		c.old = c.old || c.out
		if c.out && !c.req.Durable && !c.req.Retry {
			s.answer(c, Result{Err: ErrLost})
		}
	}
	s.wake()
}

// loseSession ends what only the session knew, and goes on with a new one.
func (s *Stream) loseSession() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.o.Log.Warn("the session is gone, beginning a new one")
	for _, c := range s.inOrder() {
		if c.accepted {
			s.answer(c, Result{Err: ErrSession})
		}
	}
	s.session, s.acked, s.received, s.unacked = "", 0, 0, nil
	s.durable = slices.ContainsFunc(s.inOrder(), func(c *call) bool { return c.req.Durable })
	s.wake()
}

// writeLoop alone writes to conn. On a clean end it says goodbye.
func (s *Stream) writeLoop(ctx context.Context, conn *websocket.Conn, broken <-chan struct{}) error {
	fail := func(err error) error {
		_ = conn.Close() // the reader ends too
		return err
	}
	ping := time.NewTicker(s.o.Ping)
	defer ping.Stop()
	acked := uint64(0)
	for {
		s.mu.Lock()
		frame, binary, closing := s.nextFrame(&acked)
		changed := s.changed
		s.mu.Unlock()
		switch {
		case frame != nil:
			if err := write(conn, frame, binary); err != nil {
				return fail(err)
			}
			continue
		case closing:
			_ = conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(farewell))
			select { // the appliance answers it, which shows that it has read everything before
			case <-broken:
			case <-time.After(farewell):
			}
			return fail(ErrClosed)
		}
		select {
		case <-changed:
		case <-ping.C:
			if err := conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(writeTimeout)); err != nil {
				return fail(err)
			}
		case <-broken:
			return nil
		case <-ctx.Done():
			s.mu.Lock()
			closing := s.closed
			s.mu.Unlock()
			if !closing {
				return fail(ctx.Err())
			}
		}
	}
}

// nextFrame is what is to be written now: acknowledgements and cancellations first, then requests as far as there is credit. mu is held.
func (s *Stream) nextFrame(acked *uint64) (frame []byte, binary, closing bool) {
	if s.acked > *acked {
		*acked = s.acked
		return fmt.Appendf(nil, `{"ack":%d}`, s.acked), false, false
	}
	if s.closed {
		return nil, false, true
	}
	for len(s.cancels) > 0 {
		id := s.cancels[0]
		s.cancels = s.cancels[1:]
		if text, err := json.Marshal(id); err == nil && s.calls[id] != nil {
			return fmt.Appendf(nil, `{"cancel":%s}`, text), false, false
		}
	}
	for len(s.queue) > 0 && s.credits > 0 {
		c := s.take(0)
		left := c.req.Deadline - time.Since(c.began)
		if c.req.Deadline > 0 && left <= 0 && (c.tries == 0 || !c.req.Durable) { // a durable one may be there already: its result tells
			s.answer(c, Result{Err: &Error{Code: "DEADLINE_EXCEEDED", Reason: "deadline", Message: "the deadline passed before the request could be sent"}})
			continue
		}
		frame, binary := c.req.frame(left, c.name, c.values)
		if s.maxFrame > 0 && int64(len(frame)) > s.maxFrame {
			s.answer(c, Result{Err: tooLarge(len(frame), s.maxFrame)})
			continue
		}
		s.credits--
		if c.tries++; c.tries == 1 {
			s.stats.Sent++
		} else {
			s.stats.Again++
		}
		c.out = true
		s.wake()
		return frame, binary, false
	}
	return nil, false, false
}

// readLoop reads until the connection ends.
func (s *Stream) readLoop(ctx context.Context, conn *websocket.Conn) error {
	quiet := 3 * s.o.Ping
	alive := func() error { return conn.SetReadDeadline(time.Now().Add(quiet)) }
	conn.SetPongHandler(func(string) error { return alive() })
	answer := conn.PingHandler()
	conn.SetPingHandler(func(data string) error {
		_ = alive()
		return answer(data)
	})
	for {
		m, err := read(conn, quiet)
		if err != nil {
			return err
		}
		s.handle(ctx, m)
	}
}

// handle takes one frame in. It waits, and so stops reading, while Recv is far behind.
func (s *Stream) handle(ctx context.Context, m *message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for m.ID != nil && len(s.results) >= 2*s.o.Buffer && !s.closed && s.wait(ctx) == nil {
	}
	switch {
	case m.ID != nil:
		s.answered(ctx, m)
	case m.Draining:
		s.o.Log.Info("the appliance is about to go", "address", s.c.base.Host)
		s.online, s.credits = false, 0 // what is not sent yet waits for the next connection
	case m.Slow != nil:
		s.o.Log.Warn("results are not taken fast enough, the appliance will close the connection", "bytes", m.Slow.Waiting, "wait", time.Duration(m.Slow.Close)*time.Millisecond)
	case m.Error != nil:
		s.o.Log.Warn("the appliance refused a frame", "err", *m.Error, "code", m.Code)
	case s.online:
		s.credits = min(s.credits+m.Credits, maxCredits)
		s.wake()
	}
}

// answered takes in what a frame says about one request. mu is held.
func (s *Stream) answered(ctx context.Context, m *message) {
	c := s.calls[*m.ID]
	if m.Accepted != "" {
		if c != nil && c.req.Durable {
			c.accepted, c.job = true, m.Accepted
			if n, ok := number(c.req.ID); ok {
				delete(s.open, n)
			}
			s.wake()
		}
		return
	}
	r := m.result()
	switch {
	case m.Seq > 0 && m.Seq <= s.received:
		s.stats.Twice++
		return
	case m.Seq > 0:
		s.received = m.Seq
		s.unacked = append(s.unacked, unacked{m.Seq, r.ID})
	case c == nil || !c.out:
		return // the answer to what was cancelled, or to an earlier try
	case s.later(ctx, c, r.Err):
		return
	}
	if c == nil || c.old {
		s.stats.Resumed++
	}
	if c == nil {
		s.deliver(r)
		return
	}
	if i := slices.Index(s.queue, c); i >= 0 {
		s.take(i) // it was about to be sent again
	}
	s.answer(c, r)
}

// later sends c again when the appliance can have it, if err says that it could not now and c may be sent twice. mu is held.
func (s *Stream) later(ctx context.Context, c *call, err error) bool {
	var refused *Error
	if c.accepted || !c.req.Durable && !c.req.Retry || !errors.As(err, &refused) || !refused.Temporary() || s.closed {
		return false
	}
	c.out = false
	wait := s.c.backoff(min(c.tries-1, 16), refused.RetryAfter)
	time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.calls[c.req.ID] == c && ctx.Err() == nil {
			s.push(c)
			s.wake()
		}
	})
	return true
}
