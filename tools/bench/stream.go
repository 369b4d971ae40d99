// stream.go: the WebSocket against REST: one connection with many in flight, one in flight, and a thousand that are idle.
package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/inferd/inferd/tools/measure"
)

const (
	inFlight   = 64
	idleStream = 1000
)

// stream is a WebSocket client that costs as little as can be: its frames are made before the clock starts, with a mask of zeros.
type stream struct {
	conn    net.Conn
	r       *bufio.Reader
	frames  [][]byte // one request for each id
	credits int
}

func openStream(address string, frames [][]byte) (*stream, error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &stream{conn: conn, r: bufio.NewReaderSize(conn, 64<<10), frames: frames}
	_, err = fmt.Fprint(conn, "GET /v1/stream HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: inferd.v1.json\r\n\r\n")
	for err == nil {
		var line []byte
		if line, err = s.r.ReadSlice('\n'); len(line) <= 2 {
			break
		}
	}
	var hello []byte
	if err == nil {
		hello, err = s.frame()
	}
	if err == nil && !bytes.HasPrefix(hello, []byte(`{"hello"`)) {
		err = fmt.Errorf("greeted with %q", hello)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	s.credits = number(hello, `"credits":`)
	return s, nil
}

// number is the one after a word, 0 when it is not there.
func number(text []byte, word string) (n int) {
	i := bytes.Index(text, []byte(word))
	if i < 0 {
		return 0
	}
	for _, c := range text[i+len(word):] {
		if c < '0' || c > '9' {
			break
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// frame reads one frame. Its payload is valid until the next.
func (s *stream) frame() ([]byte, error) {
	head, err := s.r.Peek(2)
	if err != nil {
		return nil, err
	}
	n, skip := int(head[1]), 2
	if n >= 126 {
		if head, err = s.r.Peek(4); err != nil {
			return nil, err
		}
		n, skip = int(binary.BigEndian.Uint16(head[2:])), 4
	}
	if _, err := s.r.Discard(skip); err != nil {
		return nil, err
	}
	payload, err := s.r.Peek(n)
	if err != nil {
		return nil, err
	}
	_, err = s.r.Discard(n)
	return payload, err
}

// clientFrame is a whole frame of a client.
func clientFrame(op byte, payload []byte) []byte {
	f := []byte{0x80 | op}
	switch n := len(payload); {
	case n < 126:
		f = append(f, 0x80|byte(n))
	default:
		f = binary.BigEndian.AppendUint16(append(f, 0x80|126), uint16(n))
	}
	return append(append(f, 0, 0, 0, 0), payload...)
}

// textFrames are the small request under each of n ids.
func textFrames(n int, body []byte) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		frames[i] = clientFrame(1, fmt.Appendf(nil, `{"id":"%d","model":"two_layer",%s`, i, body[1:]))
	}
	return frames
}

// rawFrames are the same row as bytes.
func rawFrames(n int, data []byte) [][]byte {
	frames := make([][]byte, n)
	for i := range frames {
		header := fmt.Sprintf(`{"id":"%d","model":"two_layer"}`, i)
		frames[i] = clientFrame(2, append([]byte{4, 0, byte(len(header)), 0}, header+string(data)...))
	}
	return frames
}

// streamRate keeps as many requests in flight as there are frames, and returns answers per second.
func streamRate(s *server, frames [][]byte, d time.Duration) (float64, error) {
	before := measure.TreeCPU(s.cmd.Process.Pid)
	c, err := openStream(s.http, frames)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.conn.Close() }()
	if c.credits < len(frames) {
		return 0, fmt.Errorf("%d credits are too few for %d in flight", c.credits, len(frames))
	}
	var out []byte
	var waiting []int // ids that wait for a credit
	for i := range frames {
		waiting = append(waiting, i)
	}
	count, began := 0, time.Now()
	for end := began.Add(d); ; {
		for len(waiting) > 0 && c.credits > 0 {
			out = append(out, frames[waiting[0]]...)
			waiting = waiting[1:]
			c.credits--
		}
		if len(out) > 0 && (c.r.Buffered() == 0 || len(out) > 32<<10) {
			if time.Now().After(end) {
				break
			}
			if _, err := c.conn.Write(out); err != nil {
				return 0, err
			}
			out = out[:0]
		}
		answer, err := c.frame()
		if err != nil {
			return 0, err
		}
		if bytes.HasPrefix(answer, []byte(`{"credits":`)) {
			c.credits += number(answer, `{"credits":`)
			continue
		}
		if bytes.Contains(answer[:min(len(answer), 64)], []byte(`"error"`)) {
			return 0, fmt.Errorf("answered %s", answer)
		}
		count++
		waiting = append(waiting, number(answer, `"id":"`))
	}
	rate := float64(count) / time.Since(began).Seconds()
	s.cpu += measure.TreeCPU(s.cmd.Process.Pid) - before
	s.calls += rate * d.Seconds()
	return rate, nil
}

// pingRate is how many pings are answered per second, one after the other.
func pingRate(s *server, d time.Duration) (float64, error) {
	c, err := openStream(s.http, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.conn.Close() }()
	ping := clientFrame(9, []byte("ping"))
	count, began := 0, time.Now()
	for end := began.Add(d); time.Now().Before(end); count++ {
		if _, err := c.conn.Write(ping); err != nil {
			return 0, err
		}
		if pong, err := c.frame(); err != nil || string(pong) != "ping" {
			return 0, fmt.Errorf("answered %q: %w", pong, err)
		}
	}
	return float64(count) / time.Since(began).Seconds(), nil
}

// resident is the memory of a process, in bytes.
func resident(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := bytes.Fields(text)
	pages, err := strconv.Atoi(string(fields[1]))
	return float64(pages * os.Getpagesize()), err
}

func (b *bench) stream() error {
	s, n, body, _, err := b.small()
	if err != nil {
		return err
	}
	defer n.stop()
	defer s.stop()
	rest := func(conns int) func() (float64, error) {
		return func() (float64, error) {
			return measure.Drive(conns, b.each, measure.HTTPCaller(s.http, restPath, body))
		}
	}
	ws := func(frames [][]byte) func() (float64, error) {
		return func() (float64, error) { return streamRate(s, frames, b.each) }
	}
	data := randomFloats(32)
	for _, c := range []struct {
		name   string
		bound  float64
		frames [][]byte
	}{{"stream, small model, 1 connection, 64 in flight / REST, 64 connections", 1.5, textFrames(inFlight, body)},
		{"the same with raw tensors in binary frames", 0, rawFrames(inFlight, data)}} {
		r, err := measure.Pairs(c.name, "calls/s", c.bound, b.n, ws(c.frames), rest(connections))
		if err != nil {
			return err
		}
		fmt.Println(r.Report())
	}
	invert := func(f func() (float64, error)) func() (float64, error) {
		return func() (float64, error) {
			rate, err := f()
			return 1e6 / rate, err
		}
	}
	r, err := measure.Pairs("stream, small model, 1 in flight / REST, 1 connection: latency", "us", 0.7, b.n, invert(ws(textFrames(1, body))), invert(rest(1)))
	if err != nil {
		return err
	}
	r.Below = true
	fmt.Println(r.Report())
	// What of both is the way there and back, without a model.
	ping := func() (float64, error) { return pingRate(s, b.each) }
	if r, err = measure.Pairs("a ping answered by a pong / REST, a handler that does nothing: latency", "us", 0, b.n, invert(ping),
		invert(func() (float64, error) { return measure.Drive(1, b.each, measure.HTTPCaller(n.http, restPath, body)) })); err != nil {
		return err
	}
	fmt.Println(r.Report())
	return b.idleStreams(s)
}

// idleStreams opens many connections, each of which has answered once, and looks at what the core has grown by.
func (b *bench) idleStreams(s *server) error {
	body, _, err := smallRequests()
	if err != nil {
		return err
	}
	before, err := resident(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	frames := textFrames(1, body)
	for range idleStream {
		c, err := openStream(s.http, frames)
		if err != nil {
			return err
		}
		defer func() { _ = c.conn.Close() }()
		if _, err := c.conn.Write(frames[0]); err != nil {
			return err
		}
		if answer, err := c.frame(); err != nil || !bytes.Contains(answer, []byte(`"predictions"`)) {
			return fmt.Errorf("answered %q: %w", answer, err)
		}
		go func() { _, _ = io.Copy(io.Discard, c.r) }() // pings
	}
	after, err := resident(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	each := (after - before) / idleStream
	verdict := "holds"
	if each > 40<<10 {
		verdict = "DOES NOT HOLD"
	}
	fmt.Printf("%-58s %.1f KiB each  (at most 40: %s)\n", fmt.Sprintf("%d idle streams: the core's resident memory", idleStream), each/1024, verdict)
	return nil
}
