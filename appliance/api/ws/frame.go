// frame.go: WebSocket frames as a server writes them, and the memory that they are read into.
package ws

import (
	"encoding/binary"
	"sync"
)

// maxFrameHead is the longest head of a frame that a server writes.
const maxFrameHead = 10

// appendFrame appends one whole frame, whose payload of about size bytes is what f appends. A nil opcode function is for control frames.
func appendFrame(dst []byte, size int, opcode func(payload []byte) byte, f func([]byte) []byte) []byte {
	var head [maxFrameHead]byte
	from, guess := len(dst), headSize(size)
	dst = f(append(dst, head[:guess]...))
	payload := len(dst) - from - guess
	op := opcode(dst[from+guess:])
	if n := headSize(payload); n != guess {
		if n > guess {
			dst = append(dst, head[:n-guess]...)
		}
		copy(dst[from+n:], dst[from+guess:from+guess+payload])
		dst, guess = dst[:from+n+payload], n
	}
	putHead(dst[from:from+guess], op, payload)
	return dst
}

func headSize(payload int) int {
	switch {
	case payload <= 125:
		return 2
	case payload <= 1<<16-1:
		return 4
	default:
		return maxFrameHead
	}
}

func putHead(head []byte, op byte, payload int) {
	head[0] = 0x80 | op // final
	switch len(head) {
	case 2:
		head[1] = byte(payload)
	case 4:
		head[1] = 126
		binary.BigEndian.PutUint16(head[2:], uint16(payload))
	default:
		head[1] = 127
		binary.BigEndian.PutUint64(head[2:], uint64(payload))
	}
}

// appendControl appends a control frame; its payload has at most 125 bytes.
func appendControl(dst []byte, op byte, payload []byte) []byte {
	return append(append(dst, 0x80|op, byte(len(payload))), payload...)
}

// frameEnd is the offset of the first end of a frame in b, which is a row of whole frames of our own, that is not before at.
func frameEnd(b []byte, at int) int {
	end := 0
	for end < at && end+2 <= len(b) {
		switch n := b[end+1]; n {
		case 126:
			end += 4 + int(binary.BigEndian.Uint16(b[end+2:]))
		case 127:
			end += maxFrameHead + int(binary.BigEndian.Uint64(b[end+2:]))
		default:
			end += 2 + int(n)
		}
	}
	return min(end, len(b))
}

// buffer is memory that goes round.
type buffer struct{ b []byte }

// Buffers between these sizes are kept for later.
const (
	minBuffer = 4 << 10
	maxKept   = 256 << 10
)

var buffers sync.Pool

// takeBuffer is an empty buffer.
func takeBuffer() *buffer {
	if b, ok := buffers.Get().(*buffer); ok {
		return b
	}
	return &buffer{make([]byte, 0, minBuffer)}
}

func (b *buffer) give() {
	if cap(b.b) <= maxKept {
		b.b = b.b[:0]
		buffers.Put(b)
	}
}
