// wire.go: a protobuf message read as a stream of fields, so that a graph of two gigabytes costs a window of 64 KiB.
package savedmodel

import (
	"errors"
	"fmt"
	"io"
)

// The wire types of protobuf. Groups (3, 4) occur in no message that is read here.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// wire reads fields from r. Reading forward, or skipping, is cheap.
type wire struct {
	r    io.ReaderAt
	at   int64
	buf  []byte // a window of r
	from int64  // where it begins
	mem  []byte // backing of buf
}

func newWire(r io.ReaderAt) *wire { return &wire{r: r, mem: make([]byte, 64<<10)} }

var errCut = errors.New("the file ends too early")

// window makes at least one byte at w.at available and returns what there is from there on.
func (w *wire) window() ([]byte, error) {
	if i := w.at - w.from; i >= 0 && i < int64(len(w.buf)) {
		return w.buf[i:], nil
	}
	n, err := w.r.ReadAt(w.mem, w.at)
	if n == 0 {
		w.buf = nil
		if err == nil || errors.Is(err, io.EOF) {
			err = errCut
		}
		return nil, err
	}
	w.buf, w.from = w.mem[:n], w.at
	return w.buf, nil
}

func (w *wire) uvarint(end int64) (uint64, error) {
	var v uint64
	for shift := 0; shift < 64; shift += 7 {
		if w.at >= end {
			return 0, fmt.Errorf("offset %d: a number runs over the end of its message", w.at)
		}
		b, err := w.window()
		if err != nil {
			return 0, err
		}
		w.at++
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return v, nil
		}
	}
	return 0, fmt.Errorf("offset %d: a number of more than 64 bits", w.at)
}

// field is one field of a message. Of a length-delimited one the content is between the reader's position and end.
type field struct {
	num   uint64
	bytes bool
	value uint64 // of a varint
	end   int64
}

// message calls f for each field until end. f need not read the field's content.
func (w *wire) message(end int64, f func(field) error) error {
	for w.at < end {
		start := w.at
		tag, err := w.uvarint(end)
		if err != nil {
			return err
		}
		fl := field{num: tag >> 3}
		switch tag & 7 {
		case wireVarint:
			fl.value, err = w.uvarint(end)
			fl.end = w.at
		case wireFixed64:
			fl.end = w.at + 8
		case wireFixed32:
			fl.end = w.at + 4
		case wireBytes:
			var n uint64
			n, err = w.uvarint(end)
			if err == nil && n > uint64(end-w.at) {
				err = fmt.Errorf("offset %d: a field of %d bytes, and only %d are left", start, n, end-w.at)
			}
			fl.bytes, fl.end = true, w.at+int64(n&(1<<62-1))
		default:
			err = fmt.Errorf("offset %d: not a field", start)
		}
		if err == nil && fl.num == 0 {
			err = fmt.Errorf("offset %d: not a field", start)
		}
		if err == nil && fl.end > end {
			err = fmt.Errorf("offset %d: a field runs over the end of its message", start)
		}
		if err == nil {
			err = f(fl)
		}
		if err != nil {
			return err
		}
		w.at = fl.end
	}
	return nil
}

// content is a copy of the field's bytes; more than limit is an error.
func (w *wire) content(f field, limit int64) ([]byte, error) {
	n := f.end - w.at
	if !f.bytes {
		return nil, fmt.Errorf("offset %d: field %d has the wrong wire type", w.at, f.num)
	}
	if n > limit {
		return nil, fmt.Errorf("offset %d: field %d has %d bytes, at most %d are read", w.at, f.num, n, limit)
	}
	out := make([]byte, n)
	for i := int64(0); i < n; {
		b, err := w.window()
		if err != nil {
			return nil, err
		}
		c := int64(copy(out[i:], b))
		i, w.at = i+c, w.at+c
	}
	return out, nil
}

// sub calls f for each field of the message in field m.
func (w *wire) sub(m field, f func(field) error) error {
	if !m.bytes {
		return fmt.Errorf("offset %d: field %d has the wrong wire type", w.at, m.num)
	}
	return w.message(m.end, f)
}
