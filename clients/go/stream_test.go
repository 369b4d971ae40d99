// stream_test.go: what a stream promises, against a peer that plays a script.
package inferd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

func TestStreamSendsAndReceives(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	send(t, s, Request{Model: "m", Version: 3, Signature: "sig", Instances: [][]float32{{1.5}}, Priority: "batch", Ordered: true})
	e.hears(`{"id":"0","model":"m","version":3,"signature_name":"sig","priority":"batch","ordered":true,"instances":[[1.5]]}`)
	send(t, s, Request{ID: "x", Model: "m", Label: "l", Inputs: map[string]any{"a": "<&>"}})
	e.hears(`{"id":"x","model":"m","label":"l","inputs":{"a":"<&>"}}`)
	e.say(`{"id":"x","outputs":[1],"version":3,"more":{}}`, `{"credits":1}`, `{"id":"0","predictions":[[NaN,2,-Infinity]],"version":3}`)
	if r := recv(t, s); text(r) != "x [1]" || r.Version != 3 || r.Seq != 0 {
		t.Errorf("%+v", r)
	}
	if r := recv(t, s); text(r) != "0 [[null,2,null]]" {
		t.Errorf("%+v", r)
	}
	s.CloseSend()
	if _, err := s.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("after everything: %v", err)
	}
	if err := s.Send(t.Context(), Request{Model: "m", Instances: 1}); !errors.Is(err, ErrClosed) {
		t.Errorf("send after CloseSend: %v", err)
	}
	go s.Close()
	e.ends(1000)
}

// TestSendWaitsForCredit: what is over the credits is not sent, and not taken either.
func TestSendWaitsForCredit(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	for i := range 2 {
		send(t, s, Request{})
		e.hears(fmt.Sprintf(`{"id":"%d","model":"m","instances":[1]}`, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	sent := make(chan error, 1)
	go func() { sent <- s.Send(ctx, Request{Model: "m", Instances: 2}) }()
	e.say(`{"id":"0","predictions":[1]}`)
	recv(t, s) // an answer is no credit
	select {
	case err := <-sent:
		t.Fatalf("sent without credit: %v", err)
	default:
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	e.say(`{"credits":1}`)
	send(t, s, Request{Instances: 3})
	e.hears(`{"id":"2","model":"m","instances":3}`)
	if st := s.Stats(); st.Sent != 3 || st.Answered != 1 || !st.Connected {
		t.Errorf("%+v", st)
	}
}

// TestSendWaitsForRecv: who does not take results cannot go on making more.
func TestSendWaitsForRecv(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{Buffer: 1})
	e := p.next(hello)
	send(t, s, Request{})
	e.hears(`{"id":"0","model":"m","instances":[1]}`)
	e.say(`{"credits":5}`, `{"id":"0","predictions":[1]}`)
	until(t, func() bool { return s.Stats().Answered == 1 })
	sent := make(chan error, 1)
	go func() { sent <- s.Send(t.Context(), Request{Model: "m", Instances: 2, DropOldest: true}) }()
	select {
	case err := <-sent:
		t.Fatalf("sent: %v", err)
	default:
	}
	recv(t, s)
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	e.hears(`{"id":"1","model":"m","drop_oldest":true,"instances":2}`)
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to that")
		}
	}
}

// TestResume: accepted requests are not sent again, unaccepted ones are, under their ids; results come once, and only what the user acknowledged is acknowledged.
func TestResume(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(`{"hello":{"session":"s1","credits":4}}`)
	for i := range 4 {
		send(t, s, Request{Durable: true, Instances: i})
		e.hears(fmt.Sprintf(`{"id":"%d","model":"m","durable":true,"instances":%d}`, i, i))
	}
	e.say(`{"id":"0","accepted":"j0"}`, `{"id":"1","accepted":"j1"}`, `{"id":"0","predictions":[0],"seq":1}`, `{"id":"1","predictions":[1],"seq":2}`)
	first := recv(t, s)
	if text(first) != "0 [0]" || first.Job != "j0" || first.Seq != 1 {
		t.Errorf("%+v", first)
	}
	recv(t, s)
	s.Ack(first)
	e.hears(`{"ack":1}`)
	e.cut()
	e = p.next(`{"hello":{"session":"other","credits":1}}`)
	e.hears(`{"resume":{"session":"s1","after":1}}`)
	e.say(`{"resumed":{"session":"s1","last":2,"pending":1}}`, `{"id":"1","predictions":[1],"seq":2}`)
	e.hears(`{"ack":1}`)
	e.hears(`{"id":"2","model":"m","durable":true,"instances":2}`) // one credit, one request
	e.say(`{"id":"2","accepted":"j2"}`, `{"credits":1}`)
	e.hears(`{"id":"3","model":"m","durable":true,"instances":3}`)
	e.say(`{"id":"3","predictions":[3],"seq":3}`, `{"id":"2","error":"it died twice","code":"INTERNAL","reason":"dead","seq":4}`)
	if r := recv(t, s); text(r) != "3 [3]" || r.Seq != 3 {
		t.Errorf("%+v", r)
	}
	r := recv(t, s)
	if text(r) != "2 it died twice (INTERNAL)" || r.Job != "j2" {
		t.Errorf("%+v", r)
	}
	s.Ack(r)
	e.hears(`{"ack":4}`)
	want := Stats{Sent: 4, Answered: 3, Refused: 1, Again: 2, Resumed: 2, Twice: 1, Connections: 2, Connected: true}
	if st := s.Stats(); st != want {
		t.Errorf("%+v\nwant %+v", st, want)
	}
	s.CloseSend()
	if _, err := s.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// TestLost: what must not run twice is not sent twice, and what may be is.
func TestLost(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	send(t, s, Request{})
	send(t, s, Request{Retry: true})
	e.hears(`{"id":"0","model":"m","instances":[1]}`)
	e.hears(`{"id":"1","model":"m","instances":[1]}`)
	e.cut()
	if r := recv(t, s); r.ID != "0" || !errors.Is(r.Err, ErrLost) {
		t.Errorf("%+v", r)
	}
	e = p.next(hello) // nothing durable: no session to resume
	e.hears(`{"id":"1","model":"m","instances":[1]}`)
}

// TestRefusedForNow: a durable request that the appliance cannot take now is sent again, an input that is wrong is not.
func TestRefusedForNow(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	send(t, s, Request{Durable: true})
	e.hears(`{"id":"0","model":"m","durable":true,"instances":[1]}`)
	e.say(`{"id":"0","error":"full","code":"RESOURCE_EXHAUSTED","reason":"queue_full","retry_ms":1}`, `{"credits":1}`)
	e.hears(`{"id":"0","model":"m","durable":true,"instances":[1]}`)
	e.say(`{"id":"0","error":"wrong shape","code":"INVALID_ARGUMENT"}`, `{"credits":1}`)
	if r := recv(t, s); text(r) != "0 wrong shape (INVALID_ARGUMENT)" {
		t.Errorf("%+v", r)
	}
	send(t, s, Request{})
	e.hears(`{"id":"1","model":"m","instances":[1]}`)
	e.say(`{"id":"1","error":"busy","code":"UNAVAILABLE","retry_ms":1000}`, `{"credits":1}`)
	var refused *Error
	if r := recv(t, s); !errors.As(r.Err, &refused) || refused.RetryAfter != time.Second || !refused.Temporary() {
		t.Errorf("%+v", r)
	}
}

func TestDropOldest(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	for i := range 4 { // before there is a connection
		send(t, s, Request{Instances: i, DropOldest: true})
	}
	for i := range 3 {
		if r := recv(t, s); r.ID != fmt.Sprint(i) || !errors.Is(r.Err, ErrDropped) {
			t.Errorf("%+v", r)
		}
	}
	e := p.next(hello)
	e.hears(`{"id":"3","model":"m","drop_oldest":true,"instances":3}`)
	send(t, s, Request{Instances: 4, DropOldest: true})
	e.hears(`{"id":"4","model":"m","drop_oldest":true,"instances":4}`)
	send(t, s, Request{Instances: 5, DropOldest: true})
	send(t, s, Request{Instances: 6, DropOldest: true})
	if r := recv(t, s); r.ID != "5" || !errors.Is(r.Err, ErrDropped) {
		t.Errorf("%+v", r)
	}
	e.say(`{"credits":1}`)
	e.hears(`{"id":"6","model":"m","drop_oldest":true,"instances":6}`)
	e.say(`{"id":"4","error":"a newer input came","code":"ABORTED","reason":"dropped"}`) // it may be dropped there too
	if r := recv(t, s); r.ID != "4" || !errors.Is(r.Err, ErrDropped) {
		t.Errorf("%+v", r)
	}
	if st := s.Stats(); st.Dropped != 5 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

func TestCancel(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	send(t, s, Request{ID: `a"b`})
	e.hears(`{"id":"a\"b","model":"m","instances":[1]}`)
	s.Cancel("nobody")
	s.Cancel(`a"b`)
	e.hears(`{"cancel":"a\"b"}`)
	e.say(`{"id":"a\"b","error":"cancelled","code":"CANCELLED"}`)
	if r := recv(t, s); text(r) != `a"b cancelled (CANCELLED)` {
		t.Errorf("%+v", r)
	}
}

// TestDeadline: what is left of it is sent, and a request whose deadline has passed is not.
func TestDeadline(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	send(t, s, Request{Deadline: time.Nanosecond, DropOldest: true})
	e := p.next(hello)
	if r := recv(t, s); !strings.Contains(text(r), "DEADLINE_EXCEEDED") {
		t.Errorf("%+v", r)
	}
	send(t, s, Request{Deadline: 10 * time.Minute})
	_, got, err := e.c.ReadMessage()
	if err != nil || !strings.Contains(string(got), `"deadline_ms":59`) {
		t.Errorf("%s %v", got, err)
	}
}

// TestFinal: ends that the next connection would meet again.
func TestFinal(t *testing.T) {
	for code := range final {
		t.Run(fmt.Sprint(code), func(t *testing.T) {
			p := newPeer(t)
			s := p.stream(StreamOptions{})
			p.next(hello).close(code)
			if _, err := s.Recv(t.Context()); err == nil || !strings.Contains(err.Error(), final[code]) {
				t.Errorf("%v", err)
			}
			if err := s.Send(t.Context(), Request{Model: "m", Instances: 1}); err == nil {
				t.Error("it can still be sent to")
			}
		})
	}
}

// TestHostile: a peer that breaks the rules costs its connection, nothing else.
func TestHostile(t *testing.T) {
	for _, frame := range []string{`{`, `[]`, `{"credits":-1}`, `{"credits":99999999}`, `{"id":"1"}`, `{"id":1}`, `{"hello":{"session":""}}`, `nonsense`} {
		t.Run(frame, func(t *testing.T) {
			p := newPeer(t)
			s := p.stream(StreamOptions{})
			e := p.next(hello)
			e.say(frame)
			e.ends()
			e = p.next(hello)
			send(t, s, Request{})
			e.hears(`{"id":"0","model":"m","instances":[1]}`)
		})
	}
	t.Run("harmless", func(t *testing.T) {
		p := newPeer(t)
		s := p.stream(StreamOptions{})
		e := p.next(hello)
		e.say(`{}`, `{"new":{"thing":1}}`, `{"id":"77","predictions":[1]}`, `{"id":"77","accepted":"j"}`, `{"slow":{"waiting_bytes":5,"close_in_ms":100}}`, `{"error":"what was that","code":"INVALID_ARGUMENT"}`)
		send(t, s, Request{})
		e.hears(`{"id":"0","model":"m","instances":[1]}`)
		e.say(`{"draining":true}`)
		e.close(1001)
		if r := recv(t, s); !errors.Is(r.Err, ErrLost) {
			t.Errorf("%+v", r)
		}
		p.next(hello)
	})
}

// TestMedia: a file goes as it is, behind a header.
func TestMedia(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	if err := s.Send(t.Context(), Request{Model: "m", Media: []byte("\xff\xd8jpeg"), Durable: true, Lane: "a", Expires: time.Second, MaxAttempts: 2}); err != nil {
		t.Fatal(err)
	}
	kind, got, err := e.c.ReadMessage()
	if err != nil || kind != websocket.BinaryMessage || len(got) < 8 || got[0] != 3 || got[1] != 0 {
		t.Fatalf("%d %q %v", kind, got, err)
	}
	n := int(got[2]) | int(got[3])<<8
	if want := `{"id":"0","model":"m","lane":"a","expires_ms":1000,"max_attempts":2,"durable":true}`; strings.TrimRight(string(got[4:4+n]), " ") != want || string(got[4+n:]) != "\xff\xd8jpeg" || (4+n)%8 != 0 {
		t.Errorf("%q\nwant %s", got, want)
	}
}

func TestBadRequests(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	p.next(hello)
	until(t, func() bool { return s.Stats().Connected })
	for _, r := range []Request{
		{}, {Model: "m"}, {Model: "m", Instances: 1, Inputs: 1}, {Model: "m", Version: 1, Label: "l", Inputs: 1}, {Model: "m", Inputs: func() {}},
		{Model: "m", Inputs: 1, ID: strings.Repeat("x", 129)}, {Model: "m", Inputs: 1, ID: "\xff"}, {Model: "m", Inputs: 1, Durable: true, DropOldest: true},
		{Model: "m", Inputs: 1, Deadline: -1}, {Model: "m", Inputs: 1, Lane: "l"}, {Model: "m", Inputs: 1, Media: []byte{}}, {Model: "m", Inputs: 1, Ordered: true, DropOldest: true}, {Model: "m", Inputs: strings.Repeat("x", 5000)},
	} {
		if err := s.Send(t.Context(), r); err == nil {
			t.Errorf("%+v was taken", r)
		}
	}
	send(t, s, Request{ID: "a"})
	if err := s.Send(t.Context(), Request{ID: "a", Model: "m", Inputs: 1}); err == nil || !strings.Contains(err.Error(), "in flight") {
		t.Errorf("twice in flight: %v", err)
	}
}

// TestNextProcess: a session goes on in another process: what it did not know to be accepted is sent again under its id, what was accepted is waited for,
// what was acknowledged is not asked for.
func TestNextProcess(t *testing.T) {
	p := newPeer(t)
	file := filepath.Join(t.TempDir(), "session")
	s := p.stream(StreamOptions{})
	e := p.next(`{"hello":{"session":"s1","credits":9}}`)
	for i := range 4 {
		send(t, s, Request{Durable: true, Instances: i})
		e.hears(fmt.Sprintf(`{"id":"%d","model":"m","durable":true,"instances":%d}`, i, i))
	}
	e.say(`{"id":"0","predictions":[0],"seq":7}`, `{"id":"1","predictions":[1],"seq":8}`, `{"id":"3","accepted":"j3"}`)
	s.Ack(recv(t, s))
	recv(t, s)
	until(t, func() bool { return reflect.DeepEqual(s.Session().Open, []uint64{2}) })
	kept := s.Session()
	if want := (Session{ID: "s1", Acked: 7, Next: 4, Open: []uint64{2}, Waiting: []string{"1", "3"}}); !reflect.DeepEqual(kept, want) {
		t.Fatalf("%+v\nwant %+v", kept, want)
	}
	if err := kept.Save(file); err != nil {
		t.Fatal(err)
	}
	e.cut()

	kept, err := LoadSession(file)
	if err != nil {
		t.Fatal(err)
	}
	q := newPeer(t)
	s = q.stream(StreamOptions{Session: kept})
	e = q.next(`{"hello":{"session":"s9","credits":9}}`)
	e.hears(`{"resume":{"session":"s1","after":7}}`)
	e.say(`{"resumed":{"session":"s1","last":8,"pending":1}}`)
	e.hears(`{"ack":7}`)
	for i := range 5 { // the source is read again from its beginning
		send(t, s, Request{ID: fmt.Sprint(i), Durable: true, Instances: i})
	}
	e.hears(`{"id":"2","model":"m","durable":true,"instances":2}`)
	e.hears(`{"id":"4","model":"m","durable":true,"instances":4}`)
	s.CloseSend()
	e.say(`{"id":"1","predictions":[1],"seq":8}`, `{"id":"2","predictions":[2],"seq":9}`, `{"id":"4","predictions":[4],"seq":10}`, `{"id":"3","predictions":[3],"seq":11}`)
	for i, want := range []string{"1 [1]", "2 [2]", "4 [4]", "3 [3]"} {
		if r := recv(t, s); text(r) != want {
			t.Errorf("result %d: %s, want %s", i, text(r), want)
		}
	}
	if _, err := s.Recv(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("%v", err)
	}
}

// TestSessionGone: the appliance has forgotten the session: what was accepted is said to be out of reach, what was not is sent to the new session.
func TestSessionGone(t *testing.T) {
	p := newPeer(t)
	s := p.stream(StreamOptions{})
	e := p.next(hello)
	send(t, s, Request{Durable: true})
	send(t, s, Request{Durable: true})
	e.hears(`{"id":"0","model":"m","durable":true,"instances":[1]}`)
	e.hears(`{"id":"1","model":"m","durable":true,"instances":[1]}`)
	e.say(`{"id":"0","accepted":"j0"}`)
	until(t, func() bool { return len(s.Session().Waiting) == 1 })
	e.cut()
	e = p.next(`{"hello":{"session":"s2","credits":2}}`)
	e.hears(`{"resume":{"session":"s1","after":0}}`)
	e.close(closeUnknownSession)
	if r := recv(t, s); r.ID != "0" || r.Job != "j0" || !errors.Is(r.Err, ErrSession) {
		t.Errorf("%+v", r)
	}
	e = p.next(`{"hello":{"session":"s3","credits":2}}`)
	e.hears(`{"id":"1","model":"m","durable":true,"instances":[1]}`)
	e.say(`{"id":"1","predictions":[1],"seq":1}`)
	if r := recv(t, s); text(r) != "1 [1]" || r.Seq != 1 {
		t.Errorf("%+v", r)
	}
	if got := s.Session().ID; got != "s3" {
		t.Errorf("session %q", got)
	}
}

// TestHandshake: a door that is shut for now is tried again, one that is shut for good is not.
func TestHandshake(t *testing.T) {
	var tries atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if tries.Add(1) < 3 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"error":"the origin is not among stream.origins"}`)
	}))
	defer srv.Close()
	c, err := New(srv.URL, Options{MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Stream(StreamOptions{})
	defer s.Close()
	_, err = s.Recv(t.Context())
	var refused *Error
	if !errors.As(err, &refused) || refused.Status != 403 || !strings.Contains(err.Error(), "origin") || tries.Load() != 3 {
		t.Errorf("%v after %d tries", err, tries.Load())
	}
}

func TestAttempts(t *testing.T) {
	c, err := New("127.0.0.1:1", Options{Attempts: 2, MinBackoff: time.Millisecond, MaxBackoff: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	s := c.Stream(StreamOptions{})
	defer s.Close()
	if _, err := s.Recv(t.Context()); err == nil || !strings.Contains(err.Error(), "2 tries") {
		t.Errorf("%v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for _, s := range []string{hello, `{"id":"1","predictions":[NaN]}`, `{"id":"1","error":"e","retry_ms":-5,"seq":3}`, `{"resumed":{"session":"s","last":1,"pending":2}}`, `{"id":"1","outputs":{"a":"\"Infinity\""},"x":Infinity}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := readMessage(text)
		if err != nil || m.ID == nil || m.Accepted != "" {
			return
		}
		r := m.result()
		if (r.Err == nil) == (r.Predictions == nil && r.Outputs == nil) {
			t.Errorf("%s: %+v", text, r)
		}
		var refused *Error
		if errors.As(r.Err, &refused) && (refused.RetryAfter < 0 || refused.RetryAfter > maxHint) {
			t.Errorf("%s: come again in %v", text, refused.RetryAfter)
		}
	})
}
