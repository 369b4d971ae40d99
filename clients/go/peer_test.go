// peer_test.go: the other end of a stream as a script, for what a real appliance does not do on demand: lose connections at a point, repeat itself,
// break the rules. daemon_test.go has the real one.
package inferd

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

// peer accepts connections for a test to play.
type peer struct {
	t     *testing.T
	url   string
	conns chan *end
}

// end is one connection, on the appliance's side.
type end struct {
	t *testing.T
	c *websocket.Conn
}

func newPeer(t *testing.T) *peer {
	p := &peer{t: t, conns: make(chan *end, 16)}
	up := websocket.Upgrader{Subprotocols: []string{subprotocol}}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/stream" {
			t.Errorf("path %s", r.URL.Path)
		}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		p.conns <- &end{t, c}
	}))
	t.Cleanup(func() {
		srv.Close()
		for {
			select {
			case e := <-p.conns: // one that no test asked for
				e.c.Close()
			default:
				return
			}
		}
	})
	p.url = srv.URL
	return p
}

// quick is a client that does not wait long between tries.
func (p *peer) quick(o Options) *Client {
	p.t.Helper()
	o.MinBackoff, o.MaxBackoff = time.Millisecond, 5*time.Millisecond
	c, err := New(p.url, o)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.CloseIdle)
	return c
}

func (p *peer) stream(o StreamOptions) *Stream {
	s := p.quick(Options{}).Stream(o)
	p.t.Cleanup(func() { s.Close() })
	return s
}

// next is the next connection, with its greeting sent.
func (p *peer) next(hello string) *end {
	p.t.Helper()
	select {
	case e := <-p.conns:
		p.t.Cleanup(func() { e.c.Close() })
		e.say(hello)
		return e
	case <-time.After(patience):
		p.t.Fatal("no connection came")
		return nil
	}
}

func (e *end) say(frames ...string) {
	e.t.Helper()
	for _, f := range frames {
		if err := e.c.WriteMessage(websocket.TextMessage, []byte(f)); err != nil {
			e.t.Fatal(err)
		}
	}
}

// hears wants the next frame to be this JSON.
func (e *end) hears(want string) {
	e.t.Helper()
	e.c.SetReadDeadline(time.Now().Add(patience))
	_, got, err := e.c.ReadMessage()
	if err != nil {
		e.t.Fatalf("waiting for %s: %v", want, err)
	}
	var g, w any
	if json.Unmarshal(got, &g) != nil || json.Unmarshal([]byte(want), &w) != nil || !reflect.DeepEqual(g, w) {
		e.t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// ends wants the connection's end, with a code when there is one.
func (e *end) ends(codes ...int) {
	e.t.Helper()
	e.c.SetReadDeadline(time.Now().Add(patience))
	_, got, err := e.c.ReadMessage()
	switch {
	case err == nil:
		e.t.Fatalf("a frame: %s", got)
	case len(codes) > 0 && !websocket.IsCloseError(err, codes...):
		e.t.Fatalf("ended with %v", err)
	}
}

func (e *end) close(code int) {
	e.t.Helper()
	if err := e.c.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, ""), time.Now().Add(patience)); err != nil {
		e.t.Fatal(err)
	}
	e.c.SetReadDeadline(time.Now().Add(patience))
	for {
		if _, _, err := e.c.ReadMessage(); err != nil {
			e.c.Close()
			return
		}
	}
}

// cut ends the connection as a pulled plug does: without a word.
func (e *end) cut() { e.c.NetConn().Close() }

const hello = `{"hello":{"session":"s1","credits":2,"max_frame":4096,"idle_s":60}}`

func send(t *testing.T, s *Stream, r Request) {
	t.Helper()
	if r.Model == "" {
		r.Model = "m"
	}
	if r.Instances == nil && r.Inputs == nil {
		r.Instances = []int{1}
	}
	if err := s.Send(t.Context(), r); err != nil {
		t.Fatal(err)
	}
}

func recv(t *testing.T, s *Stream) Result {
	t.Helper()
	r, err := s.Recv(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// text is a result in one line.
func text(r Result) string {
	if r.Err != nil {
		return r.ID + " " + r.Err.Error()
	}
	return strings.TrimSpace(r.ID + " " + string(r.Predictions) + string(r.Outputs))
}
