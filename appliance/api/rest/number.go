// number.go: JSON numbers to binary, correctly rounded.
package rest

import (
	"encoding/binary"
	"math"
	"strconv"
	"unsafe"
)

// digits reads a number that may not be NaN or infinite: its digits as an integer, their power of ten, and how many there are. It
// returns -1 where there is no number. fraction is whether it had a point or an exponent.
func digits(b []byte, i int) (mantissa uint64, power, count int, negative, fraction bool, end int) {
	if b[i] == '-' {
		negative = true
		i++
	}
	first := i
	if b[i] == '0' {
		i++
	} else {
		for b[i]-'0' < 10 {
			mantissa = mantissa*10 + uint64(b[i]-'0')
			i++
		}
		if i == first {
			return 0, 0, 0, false, false, -1
		}
	}
	count = i - first
	if b[i] == '.' {
		fraction = true
		i++
		point := i
		// The sentinel is as long as a chunk.
		if chunk := binary.LittleEndian.Uint64(b[i:]); eightDigits(chunk) {
			mantissa = mantissa*100_000_000 + parseEight(chunk)
			i += 8
		}
		for b[i]-'0' < 10 {
			mantissa = mantissa*10 + uint64(b[i]-'0')
			i++
		}
		if i == point {
			return 0, 0, 0, false, false, -1
		}
		power = point - i
		count += i - point
	}
	if b[i]|0x20 == 'e' {
		fraction = true
		i++
		down := b[i] == '-'
		if down || b[i] == '+' {
			i++
		}
		first, e := i, 0
		for b[i]-'0' < 10 {
			e = min(e*10+int(b[i]-'0'), 1_000_000)
			i++
		}
		if i == first {
			return 0, 0, 0, false, false, -1
		}
		if down {
			e = -e
		}
		power += e
	}
	return mantissa, power, count, negative, fraction, i
}

// eightDigits reports whether all eight bytes are digits: neither adding 0x46 nor subtracting 0x30 may reach a high bit.
func eightDigits(chunk uint64) bool {
	return ((chunk+0x4646464646464646)|(chunk-0x3030303030303030))&0x8080808080808080 == 0
}

// parseEight is the value of eight digits, the first in the lowest byte: pairs, then fours, then all.
func parseEight(chunk uint64) uint64 {
	chunk -= 0x3030303030303030
	chunk = chunk*10 + chunk>>8
	return ((chunk&0x000000FF000000FF)*(100+1_000_000<<32) + (chunk>>16&0x000000FF000000FF)*(1+10_000<<32)) >> 32
}

// powers of ten that a float64 holds exactly.
var powers = [...]float64{1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19,
	1e20, 1e21, 1e22}

// float32At reads the number at b[i], correctly rounded. The offset is -1 where there is none.
func float32At(b []byte, i int, strict bool) (float32, int) {
	m, p, count, negative, fraction, end := digits(b, i)
	if end < 0 {
		f, end := tokenAt(b, i, strict)
		return float32(f), end
	}
	if m == 0 && count <= 19 && p < 308 {
		if negative && fraction { // -0 is an integer, which has no sign
			return float32(math.Copysign(0, -1)), end
		}
		return 0, end
	}
	if count <= 19 && p >= -22 && p <= 22 {
		// Two roundings leave d at most two units of a float64 away. That settles the float32 unless d is that near to the middle
		// between two of them. (With these powers d is no denormal float32; where it is too large, the middle is the border too.)
		d := float64(m)
		if p < 0 {
			d /= powers[-p]
		} else {
			d *= powers[p]
		}
		if low := math.Float64bits(d) & (1<<29 - 1); low-(1<<28-8) > 16 {
			if negative {
				d = -d
			}
			return float32(d), end
		}
	}
	return slowFloat32(b[i:end], p, end)
}

func slowFloat32(literal []byte, power, end int) (float32, int) {
	if (power > 250 || len(literal) > 300) && tooBig(literal) {
		return 0, -1
	}
	// An error is a value beyond float32, which is an infinity, as in TensorFlow Serving. The string is not kept.
	f, _ := strconv.ParseFloat(unsafe.String(&literal[0], len(literal)), 32)
	return float32(f), end
}

// float64At reads the number at b[i], correctly rounded. The offset is -1 where there is none.
func float64At(b []byte, i int, strict bool) (float64, int) {
	m, p, count, negative, fraction, end := digits(b, i)
	switch {
	case end < 0:
		return tokenAt(b, i, strict)
	case count <= 19 && m <= 1<<53 && p >= -22 && p <= 22:
		d := float64(m)
		if p < 0 {
			d /= powers[-p]
		} else {
			d *= powers[p]
		}
		if negative && (m != 0 || fraction) {
			d = -d
		}
		return d, end
	}
	literal := b[i:end]
	if (p > 250 || len(literal) > 300) && tooBig(literal) {
		return 0, -1
	}
	f, err := strconv.ParseFloat(unsafe.String(&literal[0], len(literal)), 64)
	if err != nil {
		return 0, -1
	}
	return f, end
}

// tokenAt reads NaN, Infinity or Inf.
func tokenAt(b []byte, i int, strict bool) (float64, int) {
	end, _, err := skipNumber(b, i, strict)
	if err != nil {
		return 0, -1
	}
	switch c := b[i]; {
	case c == '-' && b[i+1] == 'I':
		return math.Inf(-1), end
	case c == 'I':
		return math.Inf(1), end
	default:
		return math.NaN(), end
	}
}

// intAt reads an integer literal within int64.
func intAt(b []byte, i int) (int64, int) {
	m, end, negative := integer(b, i)
	switch {
	case end < 0:
	case negative && m <= 1<<63:
		return -int64(m), end
	case !negative && m < 1<<63:
		return int64(m), end
	}
	return 0, -1
}

// uintAt reads an integer literal within uint64.
func uintAt(b []byte, i int) (uint64, int) {
	m, end, negative := integer(b, i)
	if end < 0 || negative && m != 0 {
		return 0, -1
	}
	return m, end
}

func integer(b []byte, i int) (m uint64, end int, negative bool) {
	if b[i] == '-' {
		negative = true
		i++
	}
	first := i
	if b[i] == '0' {
		i++
	} else {
		for b[i]-'0' < 10 {
			c := uint64(b[i] - '0')
			if i-first >= 19 && m > (math.MaxUint64-c)/10 {
				return 0, -1, false
			}
			m = m*10 + c
			i++
		}
	}
	if c := b[i]; i == first || c == '.' || c == 'e' || c == 'E' {
		return 0, -1, false
	}
	return m, i, negative
}

// inverse powers of ten, nearly.
var inverse = [...]float64{1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12, 1e-13, 1e-14, 1e-15, 1e-16, 1e-17,
	1e-18, 1e-19}
