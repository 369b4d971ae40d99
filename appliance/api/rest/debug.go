// debug.go: JSON values as TensorFlow Serving prints them in its messages.
package rest

import (
	"math"
	"strconv"
)

// debugBytes is where TensorFlow Serving stops printing a value: the first token that begins after so many bytes is left out, and all
// that follow.
const debugBytes = 256

// debugText prints the checked value at b[i] as TensorFlow Serving does in its messages: lists in one line, objects indented, cut off.
func debugText(b []byte, i int) string {
	p := debugPrinter{b: b}
	p.value(i, 0)
	return string(p.out)
}

type debugPrinter struct {
	b    []byte
	out  []byte
	full bool
}

// room reports whether another token is printed, and remembers that none is.
func (p *debugPrinter) room() bool {
	p.full = p.full || len(p.out) >= debugBytes
	return !p.full
}

func (p *debugPrinter) indent(depth int) {
	p.out = append(p.out, '\n')
	for range depth {
		p.out = append(p.out, "    "...)
	}
}

// value prints the value at i, which lies within depth lists and objects, and returns the offset after it, which is right unless
// printing has stopped.
func (p *debugPrinter) value(i, depth int) int {
	if !p.room() {
		return i
	}
	b := p.b
	switch b[i] {
	case '"':
		return p.text(i)
	case '[', '{':
		return p.members(i, depth)
	case 't', 'f', 'n':
		end, _ := skip(b, i, false)
		p.out = append(p.out, b[i:end]...)
		return end
	default:
		end, kind, _ := skipNumber(b, i, false)
		switch kind {
		case kindInteger:
			p.out = append(p.out, b[i:end]...)
		case kindToken:
			f, _ := tokenAt(b, i, false)
			p.out = appendToken(p.out, f)
		case kindDouble:
			f, _ := strconv.ParseFloat(string(b[i:end]), 64)
			p.out = appendDouble(p.out, f)
		}
		return end
	}
}

func (p *debugPrinter) members(i, depth int) int {
	b := p.b
	object := b[i] == '{'
	p.out = append(p.out, b[i])
	i = space(b, i+1)
	empty := true
	for b[i] != ']' && b[i] != '}' {
		if b[i] == ',' {
			i = space(b, i+1)
		}
		if !p.room() {
			return i
		}
		if !empty {
			p.out = append(p.out, ',')
		}
		switch {
		case object:
			p.indent(depth + 1)
			i = space(b, p.text(i))
			if !p.room() {
				return i
			}
			i = space(b, i+1)
			p.out = append(p.out, ": "...)
		case !empty:
			p.out = append(p.out, ' ')
		}
		empty = false
		if i = p.value(i, depth+1); p.full {
			return i
		}
		i = space(b, i)
	}
	if !p.room() {
		return i
	}
	if object && !empty {
		p.indent(depth)
	}
	p.out = append(p.out, b[i])
	return i + 1
}

func (p *debugPrinter) text(i int) int {
	s, end := text(p.b, i)
	// A string is one token and may be as long as the body. Nobody reads more of it.
	if len(s) > 4*debugBytes {
		s = s[:4*debugBytes]
	}
	p.out = appendString(p.out, s, false)
	return end
}

// appendDouble prints as RapidJSON does: the shortest digits, with a point or an exponent.
func appendDouble(dst []byte, f float64) []byte {
	if f == 0 {
		if math.Signbit(f) {
			dst = append(dst, '-')
		}
		return append(dst, "0.0"...)
	}
	var buf [32]byte
	s := strconv.AppendFloat(buf[:0], f, 'e', -1, 64)
	if s[0] == '-' {
		dst, s = append(dst, '-'), s[1:]
	}
	d := newDecimal(s)
	point := d.exponent + 1 // of the decimal point within the digits
	switch n := len(d.digits); {
	case n <= point && point <= 21:
		dst = append(dst, d.digits...)
		for range point - n {
			dst = append(dst, '0')
		}
		return append(dst, ".0"...)
	case point > 0 && point <= 21:
		dst = append(dst, d.digits[:point]...)
		dst = append(dst, '.')
		return append(dst, d.digits[point:]...)
	case point > -6 && point <= 0:
		dst = append(dst, "0."...)
		for range -point {
			dst = append(dst, '0')
		}
		return append(dst, d.digits...)
	}
	dst = append(dst, d.digits[0])
	if len(d.digits) > 1 {
		dst = append(append(dst, '.'), d.digits[1:]...)
	}
	return strconv.AppendInt(append(dst, 'e'), int64(d.exponent), 10)
}
