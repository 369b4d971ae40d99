// web.go: the wire of grpc-web: gRPC for those who cannot read trailers, which come in a frame of their own at the end of the body; as text also
// for those who cannot read bytes.
package rpc

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
)

// wire is how a request over HTTP is written.
type wire int

const (
	notGRPC wire = iota
	native       // application/grpc
	web          // application/grpc-web: bytes
	webText      // application/grpc-web-text: base64
)

var prefixes = [...]string{native: "application/grpc", web: "application/grpc-web", webText: "application/grpc-web-text"}

func (w wire) prefix() string { return prefixes[w] }

// contentType is the header's value in lower case and without parameters.
func contentType(r *http.Request) string {
	if len(r.Header["Content-Type"]) == 0 {
		return ""
	}
	kind, _, _ := strings.Cut(r.Header["Content-Type"][0], ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// wireOf knows a call by its content type.
func wireOf(r *http.Request) wire {
	kind := contentType(r)
	for w := webText; w >= native; w-- {
		if rest, ok := strings.CutPrefix(kind, w.prefix()); ok && (rest == "" || rest[0] == '+') {
			return w
		}
	}
	return notGRPC
}

// outlet is what grpc writes the answer to. It is owned by the request's goroutine.
type outlet struct {
	w       http.ResponseWriter
	control *http.ResponseController
	wire    wire
	slow    time.Duration // within which the client takes each part of an answer, where timed; 0: as long as it likes
	timed   bool

	header http.Header // of grpc-web: what grpc has said, trailers among it
	begun  bool        // the header has been written
	failed bool        // as HTTP: there is no status of gRPC
	text   io.WriteCloser
}

// Header implements http.ResponseWriter.
func (o *outlet) Header() http.Header {
	if o.wire == native {
		return o.w.Header()
	}
	if o.header == nil {
		o.header = make(http.Header)
	}
	return o.header
}

// WriteHeader implements http.ResponseWriter.
func (o *outlet) WriteHeader(code int) {
	if o.begun {
		return
	}
	o.begun = true
	o.wait()
	if o.wire != native {
		o.failed = code != http.StatusOK
		header := o.w.Header()
		for k, v := range o.header {
			if k != "Trailer" && v != nil {
				header[k] = slices.Clone(v)
			}
		}
		if kind := o.header.Get("Content-Type"); !o.failed {
			header.Set("Content-Type", o.wire.prefix()+strings.TrimPrefix(kind, native.prefix()))
		}
	}
	o.w.WriteHeader(code)
}

// Write implements io.Writer.
func (o *outlet) Write(b []byte) (int, error) {
	o.WriteHeader(http.StatusOK)
	if o.wire != webText || o.failed {
		return o.w.Write(b)
	}
	if o.text == nil {
		o.text = base64.NewEncoder(base64.StdEncoding, o.w)
	}
	return o.text.Write(b)
}

// Flush implements http.Flusher. Text is padded, so that what was written can be read at once.
func (o *outlet) Flush() {
	o.WriteHeader(http.StatusOK)
	if o.text != nil {
		_ = o.text.Close() // a client that is gone is noticed by its context
		o.text = nil
	}
	_ = o.control.Flush()
	o.wait()
}

// wait begins the time within which the client takes what follows.
func (o *outlet) wait() {
	if o.timed && o.slow > 0 {
		_ = o.control.SetWriteDeadline(time.Now().Add(o.slow))
	}
}

// trailerFlag marks the frame with the trailers.
const trailerFlag = 0x80

// finish writes the trailers of a grpc-web answer, when grpc has said how the call has ended. fault, when not nil, is why the body was none.
func (o *outlet) finish(fault *inference.Error) {
	status := o.header.Get("Grpc-Status")
	switch {
	case o.wire == native || o.failed || status == "":
		return
	case fault != nil:
		o.trail(statusHeaders(wireStatus(fault)))
		return
	}
	trailers := [][2]string{{"grpc-status", status}}
	for k, values := range o.header {
		name, ok := strings.CutPrefix(k, http.TrailerPrefix)
		if !ok && k != "Grpc-Message" && k != "Grpc-Status-Details-Bin" {
			continue
		}
		for _, v := range values {
			trailers = append(trailers, [2]string{strings.ToLower(name), v})
		}
	}
	o.trail(trailers)
}

// refuse answers a call that grpc has not seen.
func (o *outlet) refuse(err error) {
	trailers := statusHeaders(err)
	if o.wire == native {
		header := o.w.Header()
		header.Set("Content-Type", native.prefix())
		for _, t := range trailers {
			header.Set(t[0], t[1])
		}
		o.WriteHeader(http.StatusOK)
		return
	}
	o.Header().Set("Content-Type", native.prefix()+"+proto")
	o.trail(trailers)
}

func (o *outlet) trail(trailers [][2]string) {
	slices.SortFunc(trailers, func(a, b [2]string) int { return strings.Compare(a[0], b[0]) })
	frame := []byte{trailerFlag, 0, 0, 0, 0}
	for _, t := range trailers {
		frame = append(frame, t[0]+": "+t[1]+"\r\n"...)
	}
	binary.BigEndian.PutUint32(frame[1:], uint32(len(frame)-frameHead))
	_, _ = o.Write(frame) // a client that is gone needs no answer
	o.Flush()
}

// textReader reads base64 that may have been padded at the end of any part of it, as clients write each frame for itself. White space is not
// base64.
type textReader struct {
	r     io.Reader
	group [4]byte
	have  int // bytes of the group
	out   [3]byte
	left  []byte // of out
	buf   [4 << 10]byte
	in    []byte // of buf
	err   error
}

var errText = errors.New("the body is not base64, which application/grpc-web-text says it is")

func newTextReader(r io.Reader) *textReader { return &textReader{r: r} }

// Read implements io.Reader.
func (t *textReader) Read(b []byte) (n int, err error) {
	for n < len(b) {
		if len(t.left) > 0 {
			k := copy(b[n:], t.left)
			n, t.left = n+k, t.left[k:]
			continue
		}
		if len(t.in) == 0 {
			if n > 0 || t.err != nil {
				break
			}
			k, err := t.r.Read(t.buf[:])
			t.in, t.err = t.buf[:k], err
			if errors.Is(err, io.EOF) && (t.have+k)%4 != 0 {
				t.err = fmt.Errorf("%w: it ends within a group of four", errText)
			}
			continue
		}
		if t.have == 0 { // as many whole groups as fit, but for one that is padded
			whole := min(len(t.in)/4, (len(b)-n)/3)
			if at := slices.Index(t.in[:4*whole], '='); at >= 0 {
				whole = at / 4
			}
			if whole > 0 {
				k, err := base64.StdEncoding.Strict().Decode(b[n:], t.in[:4*whole])
				if err != nil || k != 3*whole {
					return n, t.fail()
				}
				n, t.in = n+k, t.in[4*whole:]
				continue
			}
		}
		k := copy(t.group[t.have:], t.in)
		t.have, t.in = t.have+k, t.in[k:]
		if t.have < 4 {
			continue
		}
		t.have = 0
		k, err := base64.StdEncoding.Strict().Decode(t.out[:], t.group[:])
		if err != nil {
			return n, t.fail()
		}
		t.left = t.out[:k]
	}
	if n > 0 || len(b) == 0 {
		return n, nil
	}
	return 0, t.err
}

func (t *textReader) fail() error {
	t.in, t.err = nil, errText
	return errText
}
