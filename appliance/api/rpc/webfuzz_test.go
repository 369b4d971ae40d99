// webfuzz_test.go: bodies of grpc-web as anybody may send them.
package rpc

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/coding"
)

// FuzzWeb: whatever comes as a grpc-web body is answered with a whole grpc-web answer.
func FuzzWeb(f *testing.F) {
	r := startWeb(f, Options{MaxRequestBytes: 1 << 16})
	r.publishHalf(f, 1)
	good := frame(0, marshal(f, ask(modelSpec("half_plus_two"), "", x(floats([]int64{1, 1}, 1)))))
	f.Add(good, "application/grpc-web", "")
	f.Add([]byte(base64.StdEncoding.EncodeToString(good)), "application/grpc-web-text", "")
	f.Add([]byte(base64.StdEncoding.EncodeToString(good[:1])+base64.StdEncoding.EncodeToString(good[1:])), "application/grpc-web-text", "")
	f.Add(frame(1, coding.Compress(coding.Zstd, good[frameHead:])), "application/grpc-web+proto", "zstd")
	f.Add(frame(1, coding.Compress(coding.Gzip, make([]byte, 1<<20))), "application/grpc-web", "gzip")
	f.Add(frame(trailerFlag, nil), "application/grpc-web", "")
	h := NewHTTP(api.New(r.catalog, api.Options{}), Options{MaxRequestBytes: 1 << 16})
	f.Cleanup(h.Stop)
	f.Fuzz(func(t *testing.T, body []byte, kind, how string) {
		if kind != "application/grpc-web" && kind != "application/grpc-web-text" {
			kind = "application/grpc-web+proto"
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "http://box"+predictPath, bytes.NewReader(body))
		req.Header.Set("Content-Type", kind)
		req.Header.Set("Grpc-Encoding", how)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		got := w.Body.Bytes()
		if w.Code != http.StatusOK {
			return // grpc says so of metadata that is none
		}
		if kind == "application/grpc-web-text" {
			var err error
			if got, err = decodeText(got); err != nil {
				t.Fatalf("%v: %q", err, w.Body)
			}
		}
		if messages, trailers, err := parseWeb(got); err != nil || (trailers["grpc-status"] == "0") != (len(messages) == 1) {
			t.Errorf("%d messages, %v, %v", len(messages), trailers, err)
		}
	})
}

// FuzzText: the reader of text gives what decoding group after group gives, however it is read.
func FuzzText(f *testing.F) {
	f.Add([]byte("AAAA"), uint8(1))
	f.Add([]byte("AA==AAA=AAAA"), uint8(2))
	f.Add([]byte("AA\n=="), uint8(7))
	f.Add([]byte(strings.Repeat("QUJD", 3000)+"QQ=="+strings.Repeat("QUJD", 9)), uint8(200))
	f.Fuzz(func(t *testing.T, text []byte, size uint8) {
		want, fails := decodeText(text)
		if bytes.ContainsAny(text, "\r\n") { // which encoding/base64 passes over
			fails = errText
		}
		var got []byte
		r, b := newTextReader(&chunks{text, int(size%11) + 1}), make([]byte, int(size)+1)
		for {
			n, err := r.Read(b)
			got = append(got, b[:n]...)
			if err == nil {
				continue
			}
			if errors.Is(err, io.EOF) != (fails == nil) || fails != nil && !errors.Is(err, errText) {
				t.Fatalf("%v, want %v", err, fails)
			}
			break
		}
		if fails == nil && !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
	})
}

// chunks is a reader that gives a few bytes at a time.
type chunks struct {
	left []byte
	most int
}

func (c *chunks) Read(b []byte) (int, error) {
	if len(c.left) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.most)], c.left)
	c.left = c.left[n:]
	return n, nil
}
