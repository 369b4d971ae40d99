// drain_test.go: a connection whose request is still being read when the door closes gets its answer.
package appliance

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

func TestDrainAnswersWhoIsComingIn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	s := HTTPServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "answer") }))
	d := &httpDoor{s, l, served, watchVisitors(s)}
	go func() {
		defer close(served)
		_ = s.Serve(l) // the listener is closed below it
	}()
	waiting := func(want int) { // so many are coming in
		t.Helper()
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			d.inside.mu.Lock()
			n := len(d.inside.conns)
			d.inside.mu.Unlock()
			if n == want {
				return
			}
			if time.Now().After(end) {
				t.Fatalf("%d are coming in, want %d", n, want)
			}
		}
	}
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\n"); err != nil { // and no more for now
		t.Fatal(err)
	}
	waiting(1)
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		d.shut()
		d.drain(context.Background())
	}()
	<-served // the door is closed
	if _, err := io.WriteString(c, "Host: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("no answer: %v", err)
	}
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "answer" {
		t.Errorf("%q, %v", body, err)
	}
	_ = resp.Body.Close()
	<-drained
	waiting(0)
}

// Who connects and sends nothing holds up no drain.
func TestDrainWaitsForNobodyForEver(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	s := HTTPServer(http.NotFoundHandler())
	d := &httpDoor{s, l, served, watchVisitors(s)}
	go func() {
		defer close(served)
		_ = s.Serve(l)
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // the drain's time is over
	d.drain(ctx)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("an answer to nothing")
	}
}
