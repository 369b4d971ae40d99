// binary.go: binary frames under inferd.v1.json: a kind, a header that is JSON, and bytes as they are.
package ws

import (
	"encoding/binary"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// A binary frame is four bytes (the kind, a zero, and the length of the header as a little-endian number of 16 bits), the header, and the
// payload. The header is a JSON object with the members of a text frame but for its inputs, padded with spaces so that the payload begins at
// a multiple of eight: a client may lay its arrays over the frame.
const (
	binaryHead = 4
	maxHeader  = 1<<16 - 1
	alignment  = 8
)

// splitBinary finds the parts of a binary frame.
func splitBinary(frame []byte) (kind api.Kind, header, payload []byte, err *inference.Error) {
	if len(frame) < binaryHead {
		return 0, nil, nil, invalid("the binary frame has %d bytes; it begins with its kind, a zero, and two bytes for the length of its header", len(frame))
	}
	n := int(binary.LittleEndian.Uint16(frame[2:]))
	switch kind = api.Kind(frame[0]); {
	case frame[1] != 0:
		return 0, nil, nil, invalid("the second byte of the binary frame is %d; it must be zero", frame[1])
	case n > len(frame)-binaryHead:
		return 0, nil, nil, invalid("the header of the binary frame has %d bytes, and the frame only %d after its beginning", n, len(frame)-binaryHead)
	}
	return kind, frame[binaryHead : binaryHead+n], frame[binaryHead+n:], nil
}

func (w jsonWire) binary(frame []byte, m *message, spec func([]byte) (inference.Spec, *inference.Error)) *inference.Error {
	kind, header, payload, err := splitBinary(frame)
	if err != nil {
		return err
	}
	seen, err := w.members(header, m)
	if err != nil {
		return err
	}
	m.act, m.kind, m.body = actPredict, kind, payload
	switch kind {
	case api.Raw:
		m.body = frame // its codec reads the header too
		if m.durable {
			m.body = essence([]byte{byte(kind), 0, 0, 0}, header)
			m.body = append(endHeader(m.body, 0), payload...)
		}
	case api.Media:
	case api.Proto:
		if seen&mModel == 0 {
			var named inference.Spec
			if named, err = spec(payload); err != nil {
				return err
			}
			m.spec.Model, seen = named.Model, seen|mModel
			if seen&(mVersion|mLabel) == 0 {
				m.spec = named
			}
		}
	default:
		return invalid("the binary frame is of kind %d; send 2 (a PredictRequest), 3 (a file or samples) or 4 (a raw tensor)", kind)
	}
	if kind != api.Raw { // whose codec looks at these itself
		if err := members(header, func(key, _ []byte) *inference.Error {
			switch string(key) {
			case "signature_name", "shape", "dtype":
				return invalid("the header of a frame of kind %d has %s, which only kind 4 takes (a PredictRequest names its signature itself, a file is for the one signature that takes files); leave it out", kind, quote(key))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if seen&(mCancel|mAck|mResume|mData) != 0 {
		return invalid("the header of a binary frame has the members of a request but for its inputs")
	}
	return m.complete(seen)
}

// appendBinary appends an answer of a kind that is no JSON. A raw one has a header already, which is put after r's.
func appendBinary(dst []byte, r reply, kind api.Kind, body []byte) []byte {
	from := len(dst)
	dst = append(dst, byte(kind), 0, 0, 0)
	rest := []byte("}")
	if kind == api.Raw {
		if _, header, payload, err := splitBinary(body); err == nil && len(header) > 0 {
			rest, body = header[1:], payload
		}
	}
	dst = appendReply(dst, r)
	if len(rest) == 1 && dst[len(dst)-1] == ',' {
		dst = dst[:len(dst)-1]
	}
	dst = append(dst, rest...)
	return append(endHeader(dst, from), body...)
}

// endHeader pads the header of the frame that begins at from, and writes its length.
func endHeader(dst []byte, from int) []byte {
	for (len(dst)-from)%alignment != 0 {
		dst = append(dst, ' ')
	}
	binary.LittleEndian.PutUint16(dst[from+2:], uint16(len(dst)-from-binaryHead))
	return dst
}
