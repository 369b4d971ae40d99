// listener_test.go: connections over real sockets: too many, too many from one address, and clients that do not read.
package access

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// patience bounds every wait; it is spent only where something is broken.
const patience = 30 * time.Second

func listen(t *testing.T, limits Limits) *Listener {
	t.Helper()
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := Limit(raw, limits)
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestConnectionsAreCounted(t *testing.T) {
	l := listen(t, Limits{Connections: 1})
	dial(t, l)
	first := accept(t, l)
	dial(t, l)
	second := make(chan net.Conn)
	go func() {
		c, _ := l.Accept() // the test sees nil
		second <- c
	}()
	select {
	case <-second:
		t.Fatal("a second connection was accepted")
	case <-time.After(20 * time.Millisecond): // it cannot be seen that nothing happens
	}
	if err := errors.Join(first.Close(), first.Close()); err == nil { // the second close must not count it out again
		t.Error("closed twice without an error")
	}
	c := <-second
	if c == nil || l.Stats().Open != 1 {
		t.Fatalf("%v, %+v", c, l.Stats())
	}
	_ = c.Close()
	if l.Stats().Open != 0 || len(l.room) != 0 {
		t.Errorf("%+v, %d places taken", l.Stats(), len(l.room))
	}
	l.room <- struct{}{}
	go func() {
		_, err := l.Accept()
		if !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		second <- nil
	}()
	_ = l.Close()
	<-second
}

func TestOneAddressIsNotEverybody(t *testing.T) {
	l := listen(t, Limits{PerAddress: 1})
	dial(t, l)
	first := accept(t, l)
	over := dial(t, l)
	got := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			got <- c
		}
		close(got)
	}()
	_ = over.SetReadDeadline(time.Now().Add(patience))
	if _, err := over.Read(make([]byte, 1)); err == nil || errors.Is(err, errDeadline(err)) {
		t.Errorf("the second connection of an address: %v", err)
	}
	if s := l.Stats(); s.Turned != 1 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
	_ = first.Close()
	dial(t, l)
	if c := <-got; c == nil {
		t.Error("none is let in after the first has gone")
	} else {
		_ = c.Close()
	}
}

// errDeadline is err when it is a deadline's.
func errDeadline(err error) error {
	var n net.Error
	if errors.As(err, &n) && n.Timeout() {
		return err
	}
	return errors.New("another")
}

func TestWhoDoesNotReadIsCutOff(t *testing.T) {
	l := listen(t, Limits{Slow: 200 * time.Millisecond})
	slow := dial(t, l)
	far := accept(t, l)
	if err := slow.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	answer := bytes.Repeat([]byte("x"), 64<<20) // more than the socket's buffers take
	n, err := far.Write(answer)
	if err == nil || n >= len(answer) || l.Stats().Slow != 1 {
		t.Fatalf("%d bytes were written, %v, %+v", n, err, l.Stats())
	}
}

func TestWhoReadsIsNot(t *testing.T) {
	l := listen(t, Limits{Slow: patience})
	reader, far := dial(t, l), accept(t, l)
	answer := bytes.Repeat([]byte("x"), 8<<20)
	wrote := make(chan error, 1)
	go func() {
		_, err := far.Write(answer)
		wrote <- errors.Join(err, far.(interface{ CloseWrite() error }).CloseWrite())
	}()
	n, err := io.Copy(io.Discard, reader)
	if err := errors.Join(err, <-wrote); err != nil || n != int64(len(answer)) || l.Stats().Slow != 0 {
		t.Errorf("%d bytes, %v, %+v", n, err, l.Stats())
	}
	// What counts is progress, and not how long it takes in all.
	c, now := new(conn), time.Now()
	if c.stuck(now, time.Second) {
		t.Error("nobody writes")
	}
	c.writing.Store(1)
	for range 5 {
		c.moved.Add(1)
		if c.stuck(now, time.Second) {
			t.Error("there is progress")
		}
		now = now.Add(900 * time.Millisecond)
		if c.stuck(now, time.Second) {
			t.Error("it is not a second yet")
		}
	}
	if !c.stuck(now.Add(time.Second), time.Second) {
		t.Error("no progress for more than a second")
	}
	c.writing.Store(0)
	if c.stuck(now.Add(time.Hour), time.Second) {
		t.Error("the write has ended")
	}
}
