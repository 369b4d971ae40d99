// protowire.go: inferd.v1.proto: stream.proto, read and written by hand.
package ws

import (
	"encoding/binary"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

type protoWire struct{}

func (protoWire) name() string { return ProtoProtocol }

var errNotMessage = invalid("the frame is not one ClientFrame of stream.proto")

// fields calls f for each field of the message b, until f fails. v is a varint's value, raw the bytes of a length-delimited field.
func fields(b []byte, f func(num protowire.Number, typ protowire.Type, v uint64, raw []byte) *inference.Error) *inference.Error {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errNotMessage
		}
		b = b[n:]
		var (
			v   uint64
			raw []byte
		)
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(num, typ, b)
		}
		if n < 0 {
			return errNotMessage
		}
		b = b[n:]
		if err := f(num, typ, v, raw); err != nil {
			return err
		}
	}
	return nil
}

// parse implements wire.
func (w protoWire) parse(frame []byte, _ bool, m *message, spec func([]byte) (inference.Spec, *inference.Error)) *inference.Error {
	*m = message{request: request{size: len(frame)}}
	acts := 0
	err := fields(frame, func(num protowire.Number, typ protowire.Type, v uint64, raw []byte) *inference.Error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			m.act = actPredict
			acts++
			return w.request(raw, m)
		case num == 2 && typ == protowire.BytesType:
			m.act = actCancel
			acts++
			return m.setID(raw)
		case num == 3 && typ == protowire.VarintType:
			m.act, m.through = actAck, v
			acts++
		case num == 4 && typ == protowire.BytesType:
			m.act = actResume
			acts++
			return w.resume(raw, m)
		}
		return nil
	})
	switch {
	case err != nil:
		return err
	case acts != 1:
		return errNotMessage
	case m.act != actPredict:
		return nil
	}
	seen := mModel
	if m.id != "" {
		seen |= mID
	}
	m.kind = api.Proto
	if err := m.complete(seen); err != nil {
		return err
	}
	m.spec, err = spec(m.body)
	return err
}

func (m *message) setID(raw []byte) *inference.Error {
	if len(raw) == 0 || len(raw) > maxID || !utf8.Valid(raw) {
		return invalid("the id is %s; send a string of 1 to %d bytes", quote(raw), maxID)
	}
	m.id = string(raw)
	return nil
}

func (protoWire) request(b []byte, m *message) *inference.Error {
	return fields(b, func(num protowire.Number, typ protowire.Type, v uint64, raw []byte) *inference.Error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			return m.setID(raw)
		case num == 2 && typ == protowire.BytesType:
			m.body = raw
		case num == 3 && typ == protowire.VarintType:
			m.deadline = span(v)
		case num == 4 && typ == protowire.BytesType:
			var ok bool
			if m.class, ok = inference.ParseClass(string(raw)); !ok {
				return invalid("the priority is %s; send interactive, normal or batch", quote(raw))
			}
		case num == 5 && typ == protowire.VarintType:
			m.durable = v != 0
		case num == 6 && typ == protowire.VarintType:
			m.ordered = v != 0
		case num == 7 && typ == protowire.VarintType:
			m.drop = v != 0
		case num == 8 && typ == protowire.BytesType:
			if len(raw) > maxID || !utf8.Valid(raw) {
				return invalid("the lane is %s; send a string of at most %d bytes", quote(raw), maxID)
			}
			m.lane = string(raw)
		case num == 9 && typ == protowire.VarintType:
			m.expires = span(v)
		case num == 10 && typ == protowire.VarintType:
			if v > 1000 {
				return invalid("max_attempts is %d; send at most 1000", v)
			}
			m.attempts = int(v)
		}
		return nil
	})
}

// span is a number of milliseconds, at most the longest deadline.
func span(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(api.MaxDeadline.Milliseconds()))) * time.Millisecond
}

func (protoWire) resume(b []byte, m *message) *inference.Error {
	err := fields(b, func(num protowire.Number, typ protowire.Type, v uint64, raw []byte) *inference.Error {
		switch {
		case num == 1 && typ == protowire.BytesType:
			if len(raw) > maxID || !utf8.Valid(raw) {
				return errNotMessage
			}
			m.session = string(raw)
		case num == 2 && typ == protowire.VarintType:
			m.through = v
		}
		return nil
	})
	if err == nil && m.session == "" {
		return errNotMessage
	}
	return err
}

// opcode implements wire.
func (protoWire) opcode([]byte) byte { return opBinary }

// nest appends a message field, whose content f appends.
func nest(dst []byte, num protowire.Number, f func([]byte) []byte) []byte {
	dst = protowire.AppendTag(dst, num, protowire.BytesType)
	from := len(dst)
	dst = f(append(dst, 0)) // one byte for the length, most often enough
	n := len(dst) - from - 1
	if n < 0x80 {
		dst[from] = byte(n)
		return dst
	}
	var length [binary.MaxVarintLen64]byte
	k := binary.PutUvarint(length[:], uint64(n))
	dst = append(dst, length[:k-1]...)
	copy(dst[from+k:], dst[from+1:from+1+n])
	copy(dst[from:], length[:k])
	return dst
}

func appendString(dst []byte, num protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

func appendNumber(dst []byte, num protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func (protoWire) appendHello(dst []byte, h hello) []byte {
	return nest(dst, 1, func(b []byte) []byte {
		b = appendString(b, 1, h.session)
		b = appendNumber(b, 2, uint64(h.credits))
		b = appendNumber(b, 3, uint64(h.maxFrame))
		return appendNumber(b, 4, uint64(h.idle.Milliseconds()))
	})
}

// answer appends an Answer; what comes after r is what rest appends.
func answer(dst []byte, r reply, rest func([]byte) []byte) []byte {
	return nest(dst, 2, func(b []byte) []byte {
		b = appendString(b, 1, r.id)
		b = appendNumber(b, 2, r.seq)
		return rest(appendNumber(b, 3, uint64(r.version)))
	})
}

func (protoWire) appendResult(dst []byte, r reply, kind api.Kind, body []byte) []byte {
	num := protowire.Number(7)
	switch kind {
	case api.Proto:
		num = 4
	case api.Raw:
		num = 8
	}
	return answer(dst, r, func(b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, num, protowire.BytesType), body)
	})
}

func (protoWire) appendError(dst []byte, r reply, err *inference.Error) []byte {
	return answer(dst, r, func(b []byte) []byte {
		return nest(b, 5, func(b []byte) []byte {
			b = appendNumber(b, 1, uint64(err.Code))
			b = appendString(b, 2, err.Reason)
			b = appendString(b, 3, string(appendValid(nil, []byte(cut(err.Msg, 8<<10)))))
			if err.RetryAfter > 0 {
				b = appendNumber(b, 4, uint64(max(1, err.RetryAfter.Milliseconds())))
			}
			return b
		})
	})
}

func (protoWire) appendAccepted(dst []byte, id, job string) []byte {
	return answer(dst, reply{id: id}, func(b []byte) []byte { return appendString(b, 6, job) })
}

func (protoWire) appendCredits(dst []byte, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, 3, protowire.VarintType), uint64(n))
}

func (protoWire) appendSlow(dst []byte, waiting int, left time.Duration) []byte {
	return nest(dst, 4, func(b []byte) []byte {
		return appendNumber(appendNumber(b, 1, uint64(waiting)), 2, uint64(left.Milliseconds()))
	})
}

func (protoWire) appendDraining(dst []byte) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, 5, protowire.VarintType), 1)
}

func (protoWire) appendResumed(dst []byte, session string, last uint64, pending int) []byte {
	return nest(dst, 6, func(b []byte) []byte {
		return appendNumber(appendNumber(appendString(b, 1, session), 2, last), 3, uint64(pending))
	})
}
