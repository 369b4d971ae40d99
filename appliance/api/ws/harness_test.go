// harness_test.go: a handler on a real server over a real catalog with scripted models, and a client that reads frame by frame.
package ws

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// rig is a handler on a server.
type rig struct {
	*httptest.Server
	h       *Handler
	gate    *admission.Gate
	memory  *share
	catalog *inference.Catalog
	model   *fake.Model // m, version 3, gives its inputs back

	mu       sync.Mutex
	observed []api.Observation
}

// share is a requests' share that can be looked at.
type share struct {
	most int64
	used atomic.Int64
}

func (s *share) TakeRequest(n int64) bool {
	if s.used.Add(n) > s.most {
		s.used.Add(-n)
		return false
	}
	return true
}

func (s *share) GiveRequest(n int64) { s.used.Add(-n) }

func serve(t testing.TB, opts Options, serverOpts ...func(*httptest.Server)) *rig {
	t.Helper()
	r := &rig{catalog: inference.NewCatalog(), model: &fake.Model{}, memory: &share{most: 1 << 30}}
	r.model.Width = 64
	r.publish("m", 3, r.model)
	r.gate = admission.NewGate(admission.Limits{}, r.memory)
	draining := make(chan struct{})
	svc := api.New(r.catalog, api.Options{Gate: r.gate, Draining: draining, Observe: func(o api.Observation) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.observed = append(r.observed, o)
	}})
	if opts.Codecs == nil {
		opts.Codecs = map[api.Kind]api.Codec{api.JSON: rest.NewCodec(rest.CodecOptions{Compact: true}), api.Proto: rpc.NewCodec(rpc.CodecOptions{}), api.Raw: NewRawCodec()}
	}
	opts.ReadSpec, opts.Memory = rpc.ReadSpec, r.memory
	r.h = New(svc, opts)
	r.Server = httptest.NewUnstartedServer(r.h)
	for _, f := range serverOpts {
		f(r.Server)
	}
	r.Start()
	t.Cleanup(func() {
		r.Close()
		ctx, cancel := contextWithTimeout(patience)
		defer cancel()
		r.h.Drain(ctx)
		if n := r.memory.used.Load(); n != 0 {
			t.Errorf("%d bytes are still booked", n)
		}
		if n := r.gate.Inside(); n != 0 {
			t.Errorf("%d requests are still inside", n)
		}
		poll(t, "the responses' release", func() bool { return r.model.Lent() == 0 })
		poll(t, "the sweeper's end", func() bool {
			r.h.mu.Lock()
			defer r.h.mu.Unlock()
			return !r.h.sweeping
		})
	})
	return r
}

// publish has signatures for floats of any shape, for fixed ones, for integers, for strings, and with two inputs.
func (r *rig) publish(model string, number int64, s inference.Servable) {
	v := testVersion()
	v.Model, v.Number = model, number
	r.catalog.Publish(v, s)
}

func testVersion() *inference.Version {
	two := fake.Signature("two", tensor.Float, -1)
	two.Inputs = append(two.Inputs, inference.TensorInfo{Alias: "z", Tensor: "z:0", DType: tensor.Float, Shape: tensor.Shape{-1}})
	two.Outputs = append([]inference.TensorInfo{{Alias: "w", Tensor: "w:0", DType: tensor.Float, Shape: tensor.Shape{-1}}}, two.Outputs...)
	return &inference.Version{Model: "m", Number: 3, StrictShapes: true, Signatures: map[string]*inference.Signature{
		"serving_default": fake.Signature("serving_default", tensor.Float, -1), "fixed": fake.Signature("fixed", tensor.Float, 2, 2),
		"pair": fake.Signature("pair", tensor.Int32, -1, 3), "text": fake.Signature("text", tensor.String, -1), "two": two,
		"open": fake.Signature("open", tensor.Float, -1, -1),
	}}
}

// poll waits until f holds.
func poll(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// peer is a client.
type peer struct {
	t    testing.TB
	conn *websocket.Conn
	say  hello
}

// dial connects and reads the greeting.
func (r *rig) dial(t testing.TB, protocol string) *peer {
	t.Helper()
	p := r.knock(t, protocol)
	switch protocol {
	case ProtoProtocol:
	default:
		var m struct {
			Hello struct {
				Session  string  `json:"session"`
				Credits  int     `json:"credits"`
				MaxFrame int64   `json:"max_frame"`
				Idle     float64 `json:"idle_s"`
			} `json:"hello"`
		}
		if err := json.Unmarshal([]byte(p.recv()), &m); err != nil || m.Hello.Session == "" {
			t.Fatalf("greeted with %+v, %v", m, err)
		}
		p.say = hello{m.Hello.Session, m.Hello.Credits, m.Hello.MaxFrame, time.Duration(m.Hello.Idle * float64(time.Second))}
	}
	return p
}

// knock connects.
func (r *rig) knock(t testing.TB, protocol string) *peer {
	t.Helper()
	d := websocket.Dialer{HandshakeTimeout: patience}
	if protocol != "" {
		d.Subprotocols = []string{protocol}
	}
	conn, resp, err := d.Dial("ws"+strings.TrimPrefix(r.URL, "http")+"/v1/stream", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != "" {
		t.Errorf("agreed to %q", got)
	}
	if conn.Subprotocol() != protocol {
		t.Errorf("speaks %q, want %q", conn.Subprotocol(), protocol)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &peer{t: t, conn: conn}
}

func (p *peer) send(text string) {
	p.t.Helper()
	if err := p.conn.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
		p.t.Fatal(err)
	}
}

// next reads one frame, credits too.
func (p *peer) next() (kind int, frame []byte, err error) {
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	return p.conn.ReadMessage()
}

// recv is the next frame that gives no credits.
func (p *peer) recv() string {
	p.t.Helper()
	for {
		_, frame, err := p.next()
		if err != nil {
			p.t.Fatal(err)
		}
		if !strings.HasPrefix(string(frame), `{"credits"`) {
			return string(frame)
		}
	}
}

// want holds the next frame against a text.
func (p *peer) want(text string) {
	p.t.Helper()
	if got := p.recv(); got != text {
		p.t.Errorf("got  %s\nwant %s", got, text)
	}
}

// fails wants an error for the id, with the code and words of the text.
func (p *peer) fails(id, code, words string) {
	p.t.Helper()
	var e struct {
		ID, Error, Code, Reason string
	}
	text := p.recv()
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.ID != id || e.Code != code || !strings.Contains(e.Error, words) {
		p.t.Errorf("got %s, %v; want %s for %q and %q", text, err, code, id, words)
	}
}

// closes wants a close frame after whatever else.
func (p *peer) closes(code int) {
	p.t.Helper()
	for {
		_, _, err := p.next()
		if err == nil {
			continue
		}
		if !websocket.IsCloseError(err, code) {
			p.t.Errorf("ended with %v, want %d", err, code)
		}
		return
	}
}

// ends waits for n closes of that code on the server's side.
func (r *rig) ends(t testing.TB, code int, n int64) {
	t.Helper()
	poll(t, "the close", func() bool { return r.h.Stats().Closed[code] == n })
}

// raw is a connection after the handshake, for what no library would send.
func (r *rig) raw(t testing.TB) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL+"/v1/stream", nil)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} {
		req.Header.Set(k, v)
	}
	if err := req.Write(conn); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for !strings.Contains(string(got), "}}") { // the greeting
		buf := make([]byte, 4096)
		n, err := conn.Read(buf)
		if got = append(got, buf[:n]...); err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	return conn
}
