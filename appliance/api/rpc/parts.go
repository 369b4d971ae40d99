// parts.go: a message inside a message, whose values are found again when they are wanted.
package rpc

import "google.golang.org/protobuf/encoding/protowire"

// parts is a message as it was sent: in one part, or in several that protobuf merges.
type parts struct {
	raw  []byte
	more [][]byte
}

func (p *parts) add(raw []byte) {
	if p.raw == nil {
		p.raw = raw
	} else {
		p.more = append(p.more, raw)
	}
}

// each calls do for every field num of the message, until that returns false. The message is known to be well formed.
func (p *parts) each(num protowire.Number, do func(*field) bool) {
	for part, raw := 0, p.raw; ; part++ {
		for len(raw) > 0 {
			f, rest, err := next(raw)
			if err != nil {
				return
			}
			raw = rest
			if f.num == num && !do(&f) {
				return
			}
		}
		if part >= len(p.more) {
			return
		}
		raw = p.more[part]
	}
}

// onePiece is the payload of field num where all of its size bytes lie in one piece.
func (p *parts) onePiece(num protowire.Number, size int64) (b []byte, ok bool) {
	p.each(num, func(f *field) bool {
		b, ok = f.b, int64(len(f.b)) == size
		return len(f.b) == 0 // an empty piece before it does not matter
	})
	return b, ok
}
