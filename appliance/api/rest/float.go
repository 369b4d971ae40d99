// float.go: floating point numbers as TensorFlow Serving prints them: six digits where they are enough to read the number back, else
// as many as any number needs, and ".0" after whole ones.
package rest

import (
	"math"
	"strconv"
)

// decimal is digits d.ddd times ten to the exponent, without zeros at the end.
type decimal struct {
	digits   []byte
	exponent int
}

// newDecimal reads what strconv wrote in format 'e' for a positive number, and writes over it.
func newDecimal(s []byte) decimal {
	e := len(s) - 1
	for s[e] != 'e' {
		e--
	}
	exponent := 0
	for _, c := range s[e+2:] {
		exponent = exponent*10 + int(c-'0')
	}
	if s[e+1] == '-' {
		exponent = -exponent
	}
	digits := s[:e]
	if e > 1 { // the first digit takes the place of the point
		s[1] = s[0]
		digits = s[1:e]
	}
	for len(digits) > 1 && digits[len(digits)-1] == '0' {
		digits = digits[:len(digits)-1]
	}
	return decimal{digits, exponent}
}

// append prints as printf does with %g and that precision, and ".0" after a whole number.
func (d decimal) append(dst []byte, precision int) []byte {
	x, n := d.exponent, len(d.digits)
	switch {
	case x < -4 || x >= precision:
		dst = append(dst, d.digits[0])
		if n > 1 {
			dst = append(append(dst, '.'), d.digits[1:]...)
		}
		sign := byte('+')
		if x < 0 {
			sign, x = '-', -x
		}
		dst = append(dst, 'e', sign)
		if x < 10 {
			dst = append(dst, '0')
		}
		return strconv.AppendInt(dst, int64(x), 10)
	case x < 0:
		dst = append(dst, "0.000"[:1-x]...)
		return append(dst, d.digits...)
	case n > x+1:
		dst = append(dst, d.digits[:x+1]...)
		dst = append(dst, '.')
		return append(dst, d.digits[x+1:]...)
	default:
		dst = append(dst, d.digits...)
		for range x + 1 - n {
			dst = append(dst, '0')
		}
		return append(dst, ".0"...)
	}
}

// appendToken prints a number that is not finite as TensorFlow Serving does, which is not JSON.
func appendToken(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case f < 0:
		return append(dst, "-Infinity"...)
	default:
		return append(dst, "Infinity"...)
	}
}

// appendWhole prints zero and the whole numbers below a million, and reports whether f was one.
func appendWhole(dst []byte, f float64) ([]byte, bool) {
	i := int32(f)
	if float64(i) != f || i >= 1e6 || i <= -1e6 {
		return dst, false
	}
	if i == 0 && math.Signbit(f) {
		return append(dst, "-0.0"...), true
	}
	return append(strconv.AppendInt(dst, int64(i), 10), ".0"...), true
}

// appendFloat32 prints a finite number.
func appendFloat32(dst []byte, f float32) []byte {
	if math.Abs(float64(f)) < 1e6 {
		var ok bool
		if dst, ok = appendWhole(dst, float64(f)); ok {
			return dst
		}
	}
	if f < 0 {
		dst, f = append(dst, '-'), -f
	}
	var buf [24]byte
	s := strconv.AppendFloat(buf[:0], float64(f), 'e', 8, 32) // d.dddddddde-XX
	// The number lies within 61 units of the ninth digit of any other text that reads back as it. So the last three of nine digits
	// mostly tell whether six are enough.
	rest := int(s[7]-'0')*100 + int(s[8]-'0')*10 + int(s[9]-'0')
	switch {
	case rest == 0:
		return newDecimal(s).append(dst, 6)
	case rest > 61 && rest < 939 && f >= smallestNormal32:
		return newDecimal(s).append(dst, 9)
	}
	var six [24]byte
	short := strconv.AppendFloat(six[:0], float64(f), 'e', 5, 32)
	if back, err := strconv.ParseFloat(string(short), 32); err == nil && float32(back) == f {
		return newDecimal(short).append(dst, 6)
	}
	return newDecimal(s).append(dst, 9)
}

const (
	smallestNormal32 = 0x1p-126
	smallestNormal64 = 0x1p-1022
)

// appendFloat64 prints a finite number.
func appendFloat64(dst []byte, f float64) []byte {
	if math.Abs(f) < 1e6 {
		var ok bool
		if dst, ok = appendWhole(dst, f); ok {
			return dst
		}
	}
	if f < 0 {
		dst, f = append(dst, '-'), -f
	}
	var buf [32]byte
	s := strconv.AppendFloat(buf[:0], f, 'e', 16, 64) // d.dddddddddddddddde-XXX
	// As for float32, with 12 units of the seventeenth digit and eleven digits left.
	rest := int64(0)
	for _, c := range s[7:18] {
		rest = rest*10 + int64(c-'0')
	}
	switch {
	case rest == 0:
		return newDecimal(s).append(dst, 6)
	case rest > 12 && rest < 1e11-12 && f >= smallestNormal64:
		return newDecimal(s).append(dst, 17)
	}
	var six [32]byte
	short := strconv.AppendFloat(six[:0], f, 'e', 5, 64)
	if back, err := strconv.ParseFloat(string(short), 64); err == nil && back == f {
		return newDecimal(short).append(dst, 6)
	}
	return newDecimal(s).append(dst, 17)
}
