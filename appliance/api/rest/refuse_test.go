// refuse_test.go: refusals before the body is read, over real connections.
package rest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// door lets requests in or refuses them, and keeps what it was told.
type door struct {
	servable
	refuse   atomic.Pointer[inference.Error]
	bytes    atomic.Int64
	class    atomic.Int64
	deadline atomic.Int64 // until it, in nanoseconds
	out      atomic.Int64 // tickets
	used     atomic.Int64
}

func (d *door) Admit(deadline time.Time, bytes int64, class inference.Class, _ *inference.Client) (inference.Ticket, error) {
	d.bytes.Store(bytes)
	d.class.Store(int64(class))
	d.deadline.Store(int64(time.Until(deadline)))
	if e := d.refuse.Load(); e != nil {
		return inference.Ticket{}, e
	}
	d.out.Add(1)
	return inference.Ticket{From: d}, nil
}

func (d *door) Forgo(inference.Ticket) { d.out.Add(-1) }

func (d *door) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	if req.Ticket.From == inference.Promiser(d) {
		d.used.Add(1)
		req.Ticket.Leave()
	}
	return d.servable.Predict(ctx, req)
}

func doored(t *testing.T, secure bool) (*door, *httptest.Server) {
	t.Helper()
	d, catalog := new(door), inference.NewCatalog()
	catalog.Publish(one(in("x", tensor.Float)), d)
	s := httptest.NewUnstartedServer(New(api.New(catalog, api.Options{}), Options{MaxRequestBytes: 32 << 20}))
	if s.Start(); secure {
		s.Close()
		s = httptest.NewUnstartedServer(s.Config.Handler)
		s.StartTLS()
	}
	t.Cleanup(s.Close)
	return d, s
}

var full = &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonDeadline, Msg: "not in time", RetryAfter: 1200 * time.Millisecond}

func TestTicketsAreUsed(t *testing.T) {
	d, s := doored(t, false)
	for range 3 {
		resp, err := s.Client().Post(s.URL+"/v1/models/m:predict", "", strings.NewReader(`{"instances":[1]}`))
		if err != nil || resp.StatusCode != 200 {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	resp, err := s.Client().Post(s.URL+"/v1/models/m:predict", "", strings.NewReader(`{"instances":[`))
	if err != nil || resp.StatusCode != 400 {
		t.Fatal(resp, err)
	}
	resp.Body.Close()
	s.Close()
	if d.used.Load() != 3 || d.out.Load() != 0 || d.bytes.Load() != 14 {
		t.Errorf("%d used, %d left over, %d bytes", d.used.Load(), d.out.Load(), d.bytes.Load())
	}
}

func TestRefusalSaysWhyAndWhen(t *testing.T) {
	for name, c := range map[string]struct {
		e       inference.Error
		status  int
		headers map[string]string
	}{
		"deadline": {*full, 429, map[string]string{"Retry-After": "2", RetryAfterHeader: "1200", ReasonHeader: "deadline"}},
		"queue":    {inference.Error{Code: inference.Unavailable, Reason: inference.ReasonQueueFull, RetryAfter: time.Microsecond}, 503, map[string]string{"Retry-After": "1", RetryAfterHeader: "1", ReasonHeader: "queue_full"}},
		"unknown":  {inference.Error{Code: inference.Unavailable, Reason: inference.ReasonLoading}, 503, map[string]string{"Retry-After": "", ReasonHeader: "loading"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, s := doored(t, false)
			d.refuse.Store(&c.e)
			resp, err := s.Client().Post(s.URL+"/v1/models/m:predict", "", strings.NewReader(`{"instances":[1]}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if resp.StatusCode != c.status {
				t.Errorf("status %d", resp.StatusCode)
			}
			for key, want := range c.headers {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("%s: %q, want %q", key, got, want)
				}
			}
		})
	}
}

func TestPriorityHeader(t *testing.T) {
	d, s := doored(t, false)
	for word, want := range map[string]int64{"interactive": -1, "normal": 0, "batch": 1, "": 0, "urgent": -9} {
		d.class.Store(-9)
		req, _ := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/models/m:predict", strings.NewReader(`{"instances":[1]}`))
		req.Header.Set(PriorityHeader, word)
		req.Header.Set("Request-Timeout", "1e12")
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if d.class.Load() != want || (want == -9) != (resp.StatusCode == 400 && strings.Contains(string(body), "interactive, normal or batch")) {
			t.Errorf("%q: class %d, %d %s", word, d.class.Load(), resp.StatusCode, body)
		}
		if left := time.Duration(d.deadline.Load()); want != -9 && left > api.MaxDeadline {
			t.Errorf("%v left", left)
		}
	}
}

// A client that writes all of a large body before it reads sees the refusal and no reset, on a plain connection and on TLS.
func TestRefusalOfALargeBodyIsRead(t *testing.T) {
	const size = 12 << 20
	for _, secure := range []bool{false, true} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprintf("tls %v chunked %v", secure, chunked), func(t *testing.T) {
				d, s := doored(t, secure)
				d.refuse.Store(full)
				var conn net.Conn
				conn, err := net.Dial("tcp", s.Listener.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				if secure {
					conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // the test's own server
				}
				length := fmt.Sprintf("Content-Length: %d", size)
				if chunked {
					length = "Transfer-Encoding: chunked"
				}
				fmt.Fprintf(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", length)
				block := bytes.Repeat([]byte("1,"), 32<<10)
				for sent := 0; sent < size; sent += len(block) {
					if chunked {
						fmt.Fprintf(conn, "%x\r\n", len(block))
					}
					if _, err := conn.Write(block); err != nil {
						t.Fatalf("the client cannot send its request to the end: %v after %d bytes", err, sent)
					}
					if chunked {
						fmt.Fprint(conn, "\r\n")
					}
				}
				resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(resp.Body)
				if err != nil || resp.StatusCode != 429 || !resp.Close || !strings.Contains(string(body), "not in time") || resp.Header.Get("Retry-After") != "2" {
					t.Errorf("%d %s, close %v, %v", resp.StatusCode, body, resp.Close, err)
				}
			})
		}
	}
}

// What is wrong with the head alone is told to a client that writes everything first, too.
func TestWrongHeadBeforeALargeBody(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		size   int
		status int
	}{
		"priority": {PriorityHeader + ": urgent", 12 << 20, 400}, "timeout": {"Request-Timeout: 0", 12 << 20, 400}, "too large": {"X: y", 32<<20 + 1, 413},
	} {
		t.Run(name, func(t *testing.T) {
			_, s := doored(t, false)
			conn, err := net.Dial("tcp", s.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: %d\r\n\r\n", c.header, c.size)
			block := bytes.Repeat([]byte("1,"), 512<<10)
			for sent := 0; sent < c.size; sent += len(block) {
				if _, err := conn.Write(block[:min(len(block), c.size-sent)]); err != nil {
					t.Fatalf("the client cannot send on: %v after %d bytes", err, sent)
				}
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != c.status || resp.Header.Get(ReasonHeader) == "" {
				t.Errorf("%s, %v", resp.Status, resp.Header)
			}
		})
	}
}

// A small body is read to its end, and the connection serves on.
func TestRefusalKeepsTheConnection(t *testing.T) {
	d, s := doored(t, false)
	d.refuse.Store(full)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for range 3 {
		fmt.Fprintf(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", keptBody, strings.Repeat(" ", keptBody))
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != 429 {
			t.Fatal(resp.StatusCode, err)
		}
	}
}

// Who asks first is told before anything is sent.
func TestRefusalComesBeforeContinue(t *testing.T) {
	d, s := doored(t, false)
	for _, refuse := range []bool{true, false} {
		d.refuse.Store(nil)
		if refuse {
			d.refuse.Store(full)
		}
		conn, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 17\r\n\r\n")
		in := bufio.NewReader(conn)
		resp, err := http.ReadResponse(in, nil)
		if want := map[bool]int{true: 429, false: 100}[refuse]; err != nil || resp.StatusCode != want {
			t.Fatalf("%v, %v; want %d", resp, err, want)
		}
		if !refuse {
			fmt.Fprint(conn, `{"instances":[1]}`)
			if resp, err = http.ReadResponse(in, nil); err != nil || resp.StatusCode != 200 {
				t.Errorf("%v, %v", resp, err)
			}
		}
		conn.Close()
	}
}

// A declared length that lies costs its own connection and nothing more: too few bytes end in an error, and what was promised is given back.
func TestLengthThatLies(t *testing.T) {
	d, s := doored(t, false)
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "POST /v1/models/m:predict HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n{\"instances\":[1]}")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err == nil && resp.StatusCode == 200 || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		t.Errorf("%v, %v", resp, err)
	}
	conn.Close()
	s.Close()
	if d.out.Load() != 0 || d.used.Load() != 0 {
		t.Errorf("%d tickets out, %d used", d.out.Load(), d.used.Load())
	}
}

// TestRefusalAllocations: what a refusal takes does not grow with the request.
func TestRefusalAllocations(t *testing.T) {
	catalog := inference.NewCatalog()
	d := new(door)
	d.refuse.Store(full)
	catalog.Publish(one(in("x", tensor.Float)), d)
	h := New(api.New(catalog, api.Options{}), Options{})
	count := func(size int64) float64 {
		return testing.AllocsPerRun(200, func() {
			r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", strings.NewReader(""))
			r.ContentLength = size
			h.ServeHTTP(&dropped{h: http.Header{}}, r)
		})
	}
	if small, large := count(100), count(keptBody); large > small {
		t.Errorf("%v allocations for 100 bytes, %v for %d", small, large, keptBody)
	}
}

type dropped struct{ h http.Header }

func (d *dropped) Header() http.Header         { return d.h }
func (d *dropped) Write(b []byte) (int, error) { return len(b), nil }
func (d *dropped) WriteHeader(int)             {}

func BenchmarkRefusal(b *testing.B) {
	catalog := inference.NewCatalog()
	d := new(door)
	d.refuse.Store(full)
	catalog.Publish(one(in("x", tensor.Float)), d)
	h := New(api.New(catalog, api.Options{}), Options{})
	r := httptest.NewRequestWithContext(b.Context(), "POST", "/v1/models/m:predict", strings.NewReader(""))
	r.ContentLength = keptBody
	w := &dropped{h: http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		clear(w.h)
		h.ServeHTTP(w, r)
	}
}

func FuzzAdmissionHeaders(f *testing.F) {
	f.Add("interactive", "1", "127.0.0.1:80", int64(5))
	f.Add("\x00", "1e309", "[::1]:99999", int64(-1))
	f.Fuzz(func(t *testing.T, priority, timeout, from string, length int64) {
		h := New(api.New(inference.NewCatalog(), api.Options{}), Options{}).(*handler)
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/v1/models/m:predict", nil)
		r.ContentLength, r.RemoteAddr = length, from
		r.Header[PriorityHeader], r.Header["Request-Timeout"] = []string{priority}, []string{timeout}
		d, bad := requestTimeout(r)
		if bad != nil {
			return
		}
		if d <= 0 || d > api.MaxDeadline {
			t.Errorf("timeout %v", d)
		}
		now := time.Now()
		c, bad := h.caller(r, now, d)
		if bad == nil && (c.Bytes < 0 || c.Bytes > h.opts.MaxRequestBytes || c.Deadline.Before(now)) {
			t.Errorf("%+v", c)
		}
	})
}

// purse is a share of the memory.
type purse struct{ left atomic.Int64 }

func (p *purse) TakeRequest(n int64) bool {
	if p.left.Add(-n) < 0 {
		p.left.Add(n)
		return false
	}
	return true
}
func (p *purse) GiveRequest(n int64) { p.left.Add(n) }

// A body whose length was not declared, or that grows when it is decompressed, is booked as it grows, and given back as a whole.
func TestBodyThatGrowsIsBooked(t *testing.T) {
	const all = 2 << 20
	p := new(purse)
	p.left.Store(all)
	catalog := inference.NewCatalog()
	catalog.Publish(one(in("x", tensor.Float)), new(servable))
	s := httptest.NewServer(New(api.New(catalog, api.Options{Gate: admission.NewGate(admission.Limits{}, p)}), Options{}))
	t.Cleanup(s.Close)
	large := `{"instances":[` + strings.Repeat("1,", 2<<20) + `1]}`
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write([]byte(large)); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		body     io.Reader
		encoding string
		status   int
	}{
		"chunked":       {io.MultiReader(strings.NewReader(large)), "", 429},
		"small chunked": {io.MultiReader(strings.NewReader(`{"instances":[1]}`)), "", 200},
		"gzip":          {&zipped, "gzip", 429},
		"zstd":          {bytes.NewReader(coding.Compress(coding.Zstd, []byte(large))), "zstd", 429},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.URL+"/v1/models/m:predict", c.body)
		if err != nil {
			t.Fatal(err)
		}
		if c.encoding != "" {
			req.Header.Set("Content-Encoding", c.encoding)
		}
		resp, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(name, err)
		}
		resp.Body.Close()
		if resp.StatusCode != c.status || c.status == 429 && resp.Header.Get(ReasonHeader) != "memory" {
			t.Errorf("%s: %d %s", name, resp.StatusCode, resp.Header.Get(ReasonHeader))
		}
	}
	s.Close()
	if p.left.Load() != all {
		t.Errorf("%d bytes left of %d", p.left.Load(), all)
	}
}
