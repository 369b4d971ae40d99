// body.go: bodies in and out, within limits, compressed or not.
package rest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"

	"github.com/inferd/inferd/appliance/api/coding"
	"github.com/inferd/inferd/inference"
)

// firstRead bounds what is set aside for a body on the word of its Content-Length alone.
const firstRead = 512 << 10

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
	encoding := r.Header.Get("Content-Encoding")
	name, known := coding.Named(encoding)
	switch {
	case !known:
		return dst, invalid("Content-Encoding %q is not known here; send gzip, deflate, zstd or none", cut(encoding, 64))
	case name != "":
		z := coding.NewReader(name, body)
		defer func() { _ = z.Close() }() // it does not fail
		beside := z.Memory()
		if err := book(beside); err != nil {
			return dst, err
		}
		ask := book
		book = func(bytes int64) *inference.Error { return ask(bytes + beside) }
		body, hint = z, -1
	}
	dst, err := readAll(dst, body, hint, limit, book)
	if err != nil {
		var refused *inference.Error
		if errors.As(err, &refused) {
			return dst, refused
		}
		return dst, readError(err, name, limit)
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

func readError(err error, name string, limit int64) *inference.Error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errOverLimit), errors.As(err, &tooLarge):
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the request body has more than %d bytes, which is the limit; send fewer instances per request, or raise the limit", limit)
	case errors.Is(err, coding.ErrCorrupt):
		e := invalid("the request body is cut short, or is not the %s stream that Content-Encoding says it is", name)
		e.Err = err
		return e
	case errors.Is(err, io.ErrUnexpectedEOF):
		e := invalid("the request body is cut short")
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

var jsonType = []string{"application/json"}

// write sends a JSON body, compressed (gzip or zstd) when it has at least gzipFrom bytes and the client accepts that.
func write(w http.ResponseWriter, r *http.Request, status int, body []byte, gzipFrom int) {
	h := w.Header()
	if h["Content-Type"] == nil {
		h["Content-Type"] = jsonType
	}
	if gzipFrom > 0 && len(body) >= gzipFrom {
		h["Vary"] = append(h["Vary"], "Accept-Encoding")
		if name := coding.Accepted(r.Header); name != "" {
			h["Content-Encoding"] = []string{name}
			body = coding.Compress(name, body)
		}
	}
	if len(body) > 2048 { // net/http counts less than that itself
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have gone
}

// cut is at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
