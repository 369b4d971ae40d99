// body.go: bodies in and out, within limits, compressed or not.
package rest

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/inferd/inferd/inference"
)

// firstRead bounds what is set aside for a body on the word of its Content-Length alone.
const firstRead = 512 << 10

var gzipReaders, gzipWriters sync.Pool

// readBody reads the request's body into dst[:0], followed by NULs. No more than limit bytes are read, before and after decompression;
// a declared length over it is refused before a byte is read. book
// is asked before the buffer is made larger.
func readBody(dst []byte, w http.ResponseWriter, r *http.Request, limit int64, book func(bytes int64) *inference.Error) ([]byte, *inference.Error) {
	if r.ContentLength > limit {
		return dst, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the request body has %d bytes, the limit is %d; send fewer instances per request, or raise the limit", r.ContentLength, limit)
	}
	var body io.Reader = r.Body
	if r.ContentLength < 0 {
		body = http.MaxBytesReader(w, r.Body, limit)
	}
	hint := r.ContentLength
	switch encoding := r.Header.Get("Content-Encoding"); {
	case encoding == "" || strings.EqualFold(encoding, "identity"):
	case strings.EqualFold(encoding, "gzip") || strings.EqualFold(encoding, "x-gzip"):
		z, _ := gzipReaders.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		defer gzipReaders.Put(z)
		if err := z.Reset(body); err != nil {
			return dst, readError(err, limit)
		}
		body, hint = z, -1
	default:
		return dst, invalid("Content-Encoding %q is not known here; send gzip or none", cut(encoding, 64))
	}
	dst, err := readAll(dst, body, hint, limit, book)
	if err != nil {
		var refused *inference.Error
		if errors.As(err, &refused) {
			return dst, refused
		}
		return dst, readError(err, limit)
	}
	return dst, nil
}

var errOverLimit = errors.New("over the limit")

// readAll reads to the end, growing dst with what has come rather than with what was promised.
func readAll(dst []byte, r io.Reader, hint, limit int64, book func(bytes int64) *inference.Error) ([]byte, error) {
	if want := min(max(hint, 512), firstRead) + 1 + sentinel; int64(cap(dst)) < want {
		dst = make([]byte, want)
	}
	dst = dst[:cap(dst)]
	n := 0
	for {
		if len(dst)-n <= sentinel {
			size := 2 * len(dst)
			if hint >= int64(n) {
				size = min(size, int(hint)+1+sentinel)
			}
			if err := book(int64(max(size, len(dst)+512))); err != nil { // its length was not declared, or is that of what was compressed
				return dst, err
			}
			grown := make([]byte, max(size, len(dst)+512))
			copy(grown, dst[:n])
			dst = grown
		}
		k, err := r.Read(dst[n : len(dst)-sentinel])
		n += k
		switch {
		case int64(n) > limit:
			return dst, errOverLimit
		case err == io.EOF:
			clear(dst[n : n+sentinel])
			return dst[:n+sentinel], nil
		case err != nil:
			return dst, err
		}
	}
}

func readError(err error, limit int64) *inference.Error {
	var tooLarge *http.MaxBytesError
	var corrupt flate.CorruptInputError
	switch {
	case errors.Is(err, errOverLimit), errors.As(err, &tooLarge):
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the request body has more than %d bytes, which is the limit; send fewer instances per request, or raise the limit", limit)
	case errors.Is(err, gzip.ErrHeader), errors.Is(err, gzip.ErrChecksum), errors.As(err, &corrupt), errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, io.EOF):
		e := invalid("the request body is cut short, or is not the gzip stream that Content-Encoding says it is")
		e.Err = err
		return e
	case errors.Is(err, os.ErrDeadlineExceeded):
		e := inference.Errorf(inference.DeadlineExceeded, inference.ReasonDeadline, "the request body did not arrive in time")
		e.Err = err
		return e
	}
	e := inference.Errorf(inference.Canceled, inference.ReasonInput, "the request body could not be read to its end")
	e.Err = err
	return e
}

// acceptsGzip reports whether an Accept-Encoding header allows gzip.
func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if name = strings.TrimSpace(name); !strings.EqualFold(name, "gzip") && name != "*" {
				continue
			}
			q, found := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q=")
			weight, err := strconv.ParseFloat(q, 64)
			return !found || err == nil && weight > 0
		}
	}
	return false
}

var jsonType = []string{"application/json"}

// write sends a JSON body, compressed when it has at least gzipFrom bytes and the client accepts that.
func write(w http.ResponseWriter, r *http.Request, status int, body []byte, gzipFrom int) {
	h := w.Header()
	if h["Content-Type"] == nil {
		h["Content-Type"] = jsonType
	}
	if gzipFrom > 0 && len(body) >= gzipFrom {
		h["Vary"] = append(h["Vary"], "Accept-Encoding")
		if acceptsGzip(r) {
			h["Content-Encoding"] = []string{"gzip"}
			body = compress(body)
		}
	}
	if len(body) > 2048 { // net/http counts less than that itself
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

func compress(body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body) / 3)
	z, _ := gzipWriters.Get().(*gzip.Writer)
	if z == nil {
		z, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed)
	}
	z.Reset(&b)
	_, _ = z.Write(body) // a bytes.Buffer takes everything
	_ = z.Close()
	gzipWriters.Put(z)
	return b.Bytes()
}

// cut is at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
