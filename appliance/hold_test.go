// hold_test.go: a held port takes nobody, refuses nobody, and can be closed.
package appliance

import (
	"errors"
	"net"
	"testing"

	"github.com/inferd/inferd/updater"
)

func TestHeldPortLetsConnectionsWait(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := newHold()
	l := h.of(inner)
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	client, err := net.Dial("tcp", inner.Addr().String())
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	defer client.Close()
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	select {
	case <-accepted:
		t.Fatal("accepted while it is held")
	default:
	}
	h.release()
	h.release() // may be told twice
	c := <-accepted
	defer c.Close()
	buf := make([]byte, 1)
	if _, err := c.Read(buf); err != nil || buf[0] != 'x' {
		t.Errorf("what was sent meanwhile is %q, %v", buf, err)
	}
}

func TestHeldPortCloses(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := newHold().of(inner)
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
}

func TestSettled(t *testing.T) {
	m := func(verdict bool, live ...int64) updater.ModelStatus {
		return updater.ModelStatus{Verdict: verdict, Live: live}
	}
	for name, c := range map[string]struct {
		status updater.Status
		want   bool
	}{
		"not looked":        {updater.Status{}, false},
		"nothing there":     {updater.Status{Scanned: true}, true},
		"loading":           {updater.Status{Scanned: true, Models: []updater.ModelStatus{m(true, 1), m(false)}}, false},
		"refused":           {updater.Status{Scanned: true, Models: []updater.ModelStatus{m(true)}}, true},
		"one serves":        {updater.Status{Scanned: true, Models: []updater.ModelStatus{m(false, 2)}}, true},
		"loading, but gone": {updater.Status{Scanned: true, Models: []updater.ModelStatus{{Removed: true}}}, true},
	} {
		if got := settled(c.status); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
