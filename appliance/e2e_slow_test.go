// e2e_slow_test.go: clients that take their time, over real sockets, and certificates that change under open connections.
package appliance

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/inferd/inferd/appliance/config"
)

// impatient is an appliance without TensorFlow whose clients have little time.
func impatient(t *testing.T) *server {
	t.Helper()
	return run(t, testConfig(t, func(cfg *config.Config) {
		l := &cfg.Limits
		l.HeaderTimeout, l.BodyTimeout, l.SlowTimeout = 300*time.Millisecond, 600*time.Millisecond, 300*time.Millisecond
		l.MaxHeaderBytes, l.MaxStreams, l.MaxRequestBytes = 8<<10, 4, 64<<20
	}))
}

// raw is a connection to one of the doors.
func raw(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(address, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// ends reads until the other side ends the connection, which it must.
func ends(t *testing.T, what string, c net.Conn) string {
	t.Helper()
	said, err := io.ReadAll(c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s: the connection stays, after %.100q", what, said)
	}
	return string(said)
}

func TestSlowClientsAreCutOff(t *testing.T) {
	s := impatient(t)
	for what, begin := range map[string]string{
		"no header":           "",
		"half a header":       "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n",
		"no body":             "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
		"half a body":         "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{\"inst",
		"an endless chunk":    "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100\r\n{",
		"half of a TLS hello": "\x16\x03\x01\x02\x00\x01",
	} {
		c := raw(t, s.http)
		if _, err := io.WriteString(c, begin); err != nil {
			t.Fatal(err)
		}
		ends(t, what, c)
	}
	// One that sends a byte now and then has no more time.
	c := raw(t, s.http)
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		for i := 0; ; i++ {
			if _, err := fmt.Fprintf(c, "%c", "GET /healthz HTTP/1.1\r\nX-Long: aaaa"[min(i, 35)]); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond) // it is the client's pace that is tested
		}
	}()
	ends(t, "a byte now and then", c)
	_ = c.Close()
	<-stop

	for _, preface := range []string{"", http2.ClientPreface[:5], http2.ClientPreface} { // without settings
		c := raw(t, s.conn.Target())
		if _, err := io.WriteString(c, preface); err != nil {
			t.Fatal(err)
		}
		ends(t, fmt.Sprintf("gRPC after %q", preface), c)
	}
}

func TestLargeHeadersAreRefused(t *testing.T) {
	s := impatient(t)
	c := raw(t, s.http)
	if _, err := fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Long: %s\r\n\r\n", strings.Repeat("a", 16<<10)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%s", resp.Status)
	}
}

func TestWhoDoesNotReadItsAnswerIsCutOff(t *testing.T) {
	s := impatient(t)
	c := raw(t, s.http)
	if err := c.SetReadBuffer(4 << 10); err != nil {
		t.Fatal(err)
	}
	request := strings.Repeat("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", 100)
	for { // answers pile up, until this side's requests are not taken either, and then the connection is reset
		if _, err := io.WriteString(c, request); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the connection stays")
			}
			break
		}
	}
	if _, metrics := s.get("/metrics"); !strings.Contains(metrics, `inferd_connections_slow_total{door="http"} 1`) {
		t.Error("it is not counted")
	}
}

// h2conn speaks HTTP/2 by hand.
type h2conn struct {
	writing sync.Mutex // of the framer, where a test writes from two goroutines
	*http2.Framer
	t    *testing.T
	c    net.Conn
	head *strings.Builder
	enc  *hpack.Encoder
}

func h2(t *testing.T, address string) *h2conn {
	t.Helper()
	h := &h2conn{t: t, c: raw(t, address), head: new(strings.Builder)}
	h.Framer, h.enc = http2.NewFramer(h.c, h.c), hpack.NewEncoder(h.head)
	if _, err := io.WriteString(h.c, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	h.must(h.WriteSettings())
	return h
}

func (h *h2conn) must(err error) {
	h.t.Helper()
	if err != nil {
		h.t.Fatal(err)
	}
}

// call opens a stream for a call.
func (h *h2conn) call(stream uint32, method string) error {
	h.head.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		h.must(h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
	}
	return h.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: []byte(h.head.String()), EndHeaders: true})
}

// until reads frames until one is as wanted, or the connection ends, which is an error.
func (h *h2conn) until(want func(http2.Frame) bool) error {
	for {
		f, err := h.ReadFrame()
		if err != nil {
			return err
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			h.writing.Lock()
			_ = h.WriteSettingsAck() // the connection may be about to end
			h.writing.Unlock()
		}
		if want(f) {
			return nil
		}
	}
}

func TestHTTP2Floods(t *testing.T) {
	s := impatient(t)
	const predict = "/tensorflow.serving.PredictionService/Predict"
	t.Run("a message that does not come", func(t *testing.T) {
		h := h2(t, s.conn.Target())
		h.must(h.call(1, predict))
		h.must(h.WriteData(1, false, []byte{0, 0, 0, 1, 0, 1, 2, 3}))
		h.must(h.until(func(f http2.Frame) bool {
			end, ok := f.(*http2.HeadersFrame)
			_, reset := f.(*http2.RSTStreamFrame)
			return reset || ok && end.StreamEnded()
		}))
	})
	t.Run("more streams than are allowed", func(t *testing.T) {
		h := h2(t, s.conn.Target())
		allowed := uint32(0)
		h.must(h.until(func(f http2.Frame) bool {
			settings, ok := f.(*http2.SettingsFrame)
			if ok {
				allowed, _ = settings.Value(http2.SettingMaxConcurrentStreams)
			}
			return ok
		}))
		if allowed != 4 {
			t.Errorf("%d streams are allowed", allowed)
		}
		for i := range uint32(5) {
			h.must(h.call(2*i+1, predict))
		}
		h.must(h.until(func(f http2.Frame) bool {
			r, ok := f.(*http2.RSTStreamFrame)
			return ok && r.StreamID == 9 && r.ErrCode == http2.ErrCodeRefusedStream
		}))
	})
	t.Run("pings", func(t *testing.T) {
		h := h2(t, s.conn.Target())
		calm := false
		go func() {
			ping := func() error {
				h.writing.Lock()
				defer h.writing.Unlock()
				return h.WritePing(false, [8]byte{})
			}
			for ping() == nil {
				time.Sleep(time.Millisecond) // a flood, but not one that fills the test's memory
			}
		}()
		_ = h.until(func(f http2.Frame) bool {
			away, ok := f.(*http2.GoAwayFrame)
			calm = calm || ok && away.ErrCode == http2.ErrCodeEnhanceYourCalm
			return false
		})
		if !calm {
			t.Error("the connection ended in another way")
		}
		_ = h.c.Close()
	})
	t.Run("resets", func(t *testing.T) {
		h := h2(t, s.conn.Target())
		for i := range uint32(2000) {
			if h.call(2*i+1, predict) != nil || h.WriteRSTStream(2*i+1, http2.ErrCodeCancel) != nil {
				break // it has had enough
			}
		}
		_ = h.c.Close()
		if err := s.conn.Invoke(t.Context(), predict, &pb.PredictRequest{}, new(pb.PredictResponse)); err == nil || !strings.Contains(err.Error(), "ModelSpec") {
			t.Errorf("others meanwhile: %v", err)
		}
	})
}

// Certificates are replaced while a request and a call are under way, and connections are open: none of them ends.
func TestNewCertificatesEndNoConnection(t *testing.T) {
	s, cert, key := runSecured(t, func(cfg *config.Config) { cfg.Listen.TLS.ClientCA = cfg.Listen.TLS.Cert })
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	known := anyServer.Clone()
	known.Certificates = []tls.Certificate{pair}
	address := strings.TrimPrefix(s.http, "http://")
	if stranger, err := tls.Dial("tcp", address, anyServer); err == nil { // of TLS 1.3 the refusal comes after the client's handshake
		if _, err := stranger.Read(make([]byte, 1)); err == nil {
			t.Error("who shows no certificate is let in")
		}
		_ = stranger.Close()
	}
	conn, err := tls.Dial("tcp", address, known)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	healthy := func() {
		t.Helper()
		if _, err := io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	healthy()
	calls, err := grpc.NewClient(s.conn.Target(), grpc.WithTransportCredentials(credentials.NewTLS(known)))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = calls.Close() }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := healthpb.NewHealthClient(calls).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 16\r\n\r\n{\"insta"); err != nil { // under way
		t.Fatal(err)
	}

	c, k := certificate(t, 2)
	write(t, key, k)
	write(t, cert, append(c, mustRead(t, cert)...)) // the new one, and the old one's authority
	next, err := tls.Dial("tcp", address, known)
	if err != nil {
		t.Fatal(err)
	}
	if serial := next.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); serial != 2 {
		t.Errorf("certificate %d after it was replaced", serial)
	}
	_ = next.Close()
	if _, err := io.WriteString(conn, `nces":[1]}`[:9]); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatalf("the request that was under way: %v", err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	healthy()
	if _, err := healthpb.NewHealthClient(calls).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil {
		t.Errorf("the gRPC connection: %v", err)
	}
	if watch.Context().Err() != nil {
		t.Error("the watch has ended")
	}
}

func mustRead(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
