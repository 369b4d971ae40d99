// Package coding compresses and expands the bodies of requests and answers: HTTP's content codings gzip and zstd, and gRPC's encoding zstd.
//
// Invariants:
//  1. Nothing here holds more memory than [Reader.Memory] beside what its caller asked for, whatever a stream declares.
//  2. How much comes out is the caller's to bound: a reader expands only as far as it is read.
package coding

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// The codings that are known, as HTTP and gRPC call them.
const (
	Gzip = "gzip"
	Zstd = "zstd"
	// Deflate is a zlib stream. It is read, for Triton's clients send it, and never written: who takes it takes gzip, or none.
	Deflate = "deflate"
)

// Window is how far back a zstd stream may refer, which is what its reader keeps in memory. RFC 9659 allows HTTP no more.
const Window = 8 << 20

// writeWindow is how far back our own streams refer: a reader of theirs keeps no more.
const writeWindow = 1 << 20

// ErrCorrupt is in the errors of a reader whose stream is cut short, damaged, or of another kind.
var ErrCorrupt = errors.New("not a whole stream of its coding")

var (
	gzipReaders, gzipWriters, zstdWriters sync.Pool
	zstdReaders                           [len(windows)]sync.Pool
)

// windows are what zstd readers are made for: most streams have a small one, and shall not be booked for the largest.
var windows = [...]uint64{256 << 10, 2 << 20, Window}

// Named is the coding that a Content-Encoding header names; "" is none (identity). ok is false when it is not known here.
func Named(header string) (name string, ok bool) {
	switch {
	case header == "" || strings.EqualFold(header, "identity"):
		return "", true
	case strings.EqualFold(header, Gzip) || strings.EqualFold(header, "x-gzip"):
		return Gzip, true
	case strings.EqualFold(header, Zstd):
		return Zstd, true
	case strings.EqualFold(header, Deflate):
		return Deflate, true
	}
	return "", false
}

// Reader expands a stream. It is not for more than one goroutine.
type Reader struct {
	from  source
	name  string
	gzip  *gzip.Reader  // until its header has been read it is not there
	zlib  io.ReadCloser // likewise
	zstd  *zstd.Decoder
	class int  // of windows
	ended bool // by Close
}

// source remembers how the stream below has failed, to tell that from damage.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// NewReader expands r, which has a coding that [Named] gives and that is not "". Of zstd it reads the first few bytes at once. Close gives its
// memory back.
func NewReader(name string, r io.Reader) *Reader {
	d := &Reader{from: source{Reader: r}, name: name}
	if name != Zstd {
		return d
	}
	var head [zstd.HeaderMaxSize]byte
	n, _ := io.ReadFull(&d.from, head[:]) // what fails here fails again below
	d.class = classOf(head[:n])
	d.zstd, _ = zstdReaders[d.class].Get().(*zstd.Decoder)
	if d.zstd == nil {
		d.zstd, _ = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(windows[d.class])) // fails of wrong options alone
	}
	_ = d.zstd.Reset(io.MultiReader(bytes.NewReader(head[:n]), &d.from)) // fails of one that was closed alone
	return d
}

// classOf is the smallest window that the stream's first frame fits. A later one that does not is refused, as one over [Window] is.
func classOf(head []byte) int {
	var h zstd.Header
	if h.Decode(head) != nil || h.Skippable {
		return len(windows) - 1
	}
	window := h.WindowSize
	if h.SingleSegment {
		window = h.FrameContentSize
	}
	for i, w := range windows {
		if window <= w {
			return i
		}
	}
	return len(windows) - 1
}

// Memory is what reading takes at most, beside the caller's own buffers.
func (d *Reader) Memory() int64 {
	if d.zstd != nil {
		return 2 * int64(windows[d.class]) // as much again before it is thrown away
	}
	return 64 << 10
}

// Read implements io.Reader. An error of the stream below is passed on; any other but io.EOF is [ErrCorrupt].
func (d *Reader) Read(b []byte) (n int, err error) {
	switch {
	case d.ended:
		return 0, ErrCorrupt
	case d.zstd != nil:
		n, err = d.zstd.Read(b)
	case d.name == Deflate:
		n, err = d.unpack(b)
	default:
		n, err = d.inflate(b)
	}
	switch {
	case err == nil || errors.Is(err, io.EOF):
		return n, err
	case d.from.err != nil:
		return n, d.from.err
	}
	return n, fmt.Errorf("%w: %w", ErrCorrupt, err)
}

func (d *Reader) inflate(b []byte) (int, error) {
	if d.gzip == nil {
		z, _ := gzipReaders.Get().(*gzip.Reader)
		if z == nil {
			z = new(gzip.Reader)
		}
		if err := z.Reset(&d.from); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // no byte at all is no stream
			}
			return 0, err
		}
		d.gzip = z
	}
	return d.gzip.Read(b)
}

func (d *Reader) unpack(b []byte) (int, error) {
	if d.zlib == nil {
		z, err := zlib.NewReader(&d.from)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return 0, err
		}
		d.zlib = z
	}
	return d.zlib.Read(b)
}

// Close ends the reading; it never fails, and may be called again.
func (d *Reader) Close() error {
	if d.gzip != nil {
		gzipReaders.Put(d.gzip)
	}
	if d.zstd != nil {
		_ = d.zstd.Reset(nil) // lets go of the stream below
		zstdReaders[d.class].Put(d.zstd)
	}
	d.gzip, d.zlib, d.zstd, d.ended = nil, nil, nil, true
	return nil
}

// Writer compresses. It is not for more than one goroutine.
type Writer struct {
	gzip *gzip.Writer
	zstd *zstd.Encoder
}

// NewWriter compresses into w, fast rather than small. Close ends the stream.
func NewWriter(name string, w io.Writer) *Writer {
	c := new(Writer)
	if name == Zstd {
		c.zstd, _ = zstdWriters.Get().(*zstd.Encoder)
		if c.zstd == nil {
			c.zstd, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(writeWindow), zstd.WithLowerEncoderMem(true)) // as above
		}
		c.zstd.Reset(w)
		return c
	}
	c.gzip, _ = gzipWriters.Get().(*gzip.Writer)
	if c.gzip == nil {
		c.gzip, _ = gzip.NewWriterLevel(nil, gzip.BestSpeed)
	}
	c.gzip.Reset(w)
	return c
}

// Write implements io.Writer.
func (c *Writer) Write(b []byte) (int, error) {
	if c.zstd != nil {
		return c.zstd.Write(b)
	}
	return c.gzip.Write(b)
}

// Close writes the end of the stream. Nothing may be done with c afterwards.
func (c *Writer) Close() (err error) {
	if c.zstd != nil {
		err = c.zstd.Close()
		c.zstd.Reset(nil)
		zstdWriters.Put(c.zstd)
		return err
	}
	err = c.gzip.Close()
	c.gzip.Reset(io.Discard)
	gzipWriters.Put(c.gzip)
	return err
}

// Compress is the whole body.
func Compress(name string, body []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(body) / 3)
	w := NewWriter(name, &b)
	_, _ = w.Write(body) // a bytes.Buffer takes everything
	_ = w.Close()
	return b.Bytes()
}

// Accepted is the coding in which an answer may be sent to who has sent Accept-Encoding: the one that weighs more, of two that weigh the same
// zstd, "" when none is wanted.
func Accepted(h http.Header) string {
	weights := map[string]float64{}
	for _, line := range h["Accept-Encoding"] {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			name = strings.ToLower(strings.TrimSpace(name))
			if name != "*" && name != Gzip && name != Zstd {
				continue
			}
			if _, again := weights[name]; !again {
				weights[name] = weight(params)
			}
		}
	}
	of := func(name string) float64 {
		if w, ok := weights[name]; ok {
			return w
		}
		if name == Zstd { // a client that says * may never have heard of it
			return 0
		}
		return weights["*"]
	}
	z, g := of(Zstd), of(Gzip)
	switch {
	case z > 0 && z >= g:
		return Zstd
	case g > 0:
		return Gzip
	}
	return ""
}

// weight is what follows a coding's name: q=0.5. What is no number weighs nothing.
func weight(params string) float64 {
	q, found := strings.CutPrefix(strings.ToLower(strings.TrimSpace(params)), "q=")
	if !found {
		return 1
	}
	w, err := strconv.ParseFloat(strings.TrimSpace(q), 64)
	if err != nil || !(w > 0 && w <= math.MaxFloat32) {
		return 0
	}
	return w
}
