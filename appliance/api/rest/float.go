// float.go: floating point numbers as TensorFlow Serving prints them: six digits where they are enough to read the number back, else
// as many as any number needs, and ".0" after whole ones.
package rest

import (
	"math"
	"math/bits"
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
	if digits, exponent, ok := nine(f); ok {
		return appendNine(dst, f, digits, exponent)
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

// nine is the number's first nine digits, correctly rounded, and the exponent of the first: digits / 1e8 * 10^exponent. ok is false outside of
// 1e-5 to 1e9, where the exact product of mantissa and power of ten would not fit 128 bits or the power is none.
func nine(f float32) (digits uint64, exponent int, ok bool) {
	if !(float64(f) >= 1e-5 && f < 1e9) {
		return 0, 0, false
	}
	for exponent = 8; exponent > -5 && float64(f) < decades[exponent+5]; exponent-- {
	}
	raw := math.Float32bits(f)
	mantissa, shift := uint64(raw&(1<<23-1)|1<<23), 150-int(raw>>23) // the value is mantissa / 2^shift
	hi, lo := bits.Mul64(mantissa, wholes[8-exponent])
	switch {
	case shift <= 0: // a whole number times a whole power: below 1e9, so that nothing is lost
		return lo << -shift, exponent, true
	case shift >= 64:
		return 0, 0, false
	}
	digits = hi<<(64-shift) | lo>>shift
	rest, half := lo&(1<<shift-1), uint64(1)<<(shift-1)
	if rest > half || rest == half && digits&1 == 1 {
		if digits++; digits == 1e9 {
			digits, exponent = 1e8, exponent+1
		}
	}
	return digits, exponent, true
}

// decades are 1e-5 to 1e8 and wholes 1 to 1e13, by index.
var (
	decades = [...]float64{1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8}
	wholes  = [...]uint64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13}
)

// appendNine prints f, of which these are the first nine digits. What is said of rest in appendFloat32 holds here.
func appendNine(dst []byte, f float32, digits uint64, exponent int) []byte {
	precision := 9
	switch rest := digits % 1000; {
	case rest == 0:
		precision = 6
	case rest <= 61 || rest >= 939:
		var six [24]byte
		short := strconv.AppendFloat(six[:0], float64(f), 'e', 5, 32)
		if back, err := strconv.ParseFloat(string(short), 32); err == nil && float32(back) == f {
			return newDecimal(short).append(dst, 6)
		}
	}
	var text [9]byte
	n := 0
	for i := 8; i >= 0; i-- {
		next := digits / 10
		text[i] = byte('0' + digits - 10*next)
		if digits = next; n == 0 && text[i] != '0' {
			n = i + 1
		}
	}
	return decimal{text[:n], exponent}.append(dst, precision)
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
