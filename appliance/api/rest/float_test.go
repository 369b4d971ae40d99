// float_test.go: the digits that are worked out here are those of strconv.
package rest

import (
	"math"
	"math/rand/v2"
	"strconv"
	"testing"
)

// slowly prints f as the slow way does.
func slowly(f float32) string {
	var buf [24]byte
	sign := ""
	if f < 0 {
		sign, f = "-", -f
	}
	six := strconv.AppendFloat(buf[:0], float64(f), 'e', 5, 32)
	if back, err := strconv.ParseFloat(string(six), 32); err == nil && float32(back) == f {
		return sign + string(newDecimal(six).append(nil, 6))
	}
	return sign + string(newDecimal(strconv.AppendFloat(buf[:0], float64(f), 'e', 8, 32)).append(nil, 9))
}

func TestNineDigits(t *testing.T) {
	check := func(f float32) {
		t.Helper()
		digits, exponent, ok := nine(f)
		if !ok {
			return
		}
		want := strconv.FormatFloat(float64(f), 'e', 8, 32)
		text := strconv.FormatUint(digits, 10)
		if len(text) != 9 {
			t.Fatalf("%v: digits %s", f, text)
		}
		sign := "+"
		if exponent < 0 {
			sign = "-"
		}
		if got := text[:1] + "." + text[1:] + "e" + sign + "0" + strconv.Itoa(max(exponent, -exponent)); got != want {
			t.Fatalf("%x: %s, want %s", math.Float32bits(f), got, want)
		}
		if got := string(appendFloat32(nil, f)); math.Trunc(float64(f)) != float64(f) && got != slowly(f) {
			t.Fatalf("%v is printed %s, want %s", f, got, slowly(f))
		}
		if math.Trunc(float64(f)) != float64(f) && string(appendFloat32(nil, -f)) != "-"+slowly(f) {
			t.Fatalf("%v is printed %s", -f, appendFloat32(nil, -f))
		}
	}
	rnd := rand.New(rand.NewPCG(5, 6))
	covered := 0
	for range 300_000 {
		f := math.Float32frombits(rnd.Uint32()&(1<<23-1) | uint32(127-18+rnd.IntN(50))<<23)
		if _, _, ok := nine(f); ok {
			covered++
		}
		check(f)
		check(float32(rnd.IntN(1e6)) / 1e3)
		check(float32(rnd.IntN(1e9)))
	}
	for p := float32(1e-5); p < 1e9; p *= 10 {
		check(p)
		check(math.Nextafter32(p, 0))
		check(math.Nextafter32(p, 1e30))
		check(math.Nextafter32(p*5, 0))
	}
	for e := -16; e < 30; e++ { // ties are dyadic fractions
		for m := range 4096 {
			check(float32(math.Ldexp(float64(m+4096), e-12)))
		}
	}
	if covered < 200_000 {
		t.Errorf("the fast way took %d of 300,000", covered)
	}
}
