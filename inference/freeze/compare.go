// compare.go: whether two answers are the same but for the rounding, and inputs to ask with where nobody gives any.
package freeze

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// A number may differ by rtol of itself, and by scaleTol of the largest of its output: folding adds in another order, and what nearly
// cancels out keeps the error of what it was made of.
const (
	rtol, scaleTol         = 1e-3, 1e-4
	rtolHalf, scaleTolHalf = 2e-2, 1e-2 // of the 16-bit types
)

// Differs says where an answer is not the wanted one, "" where it is but for the rounding. What is not floating point must be the same.
func Differs(want, got *tensor.Tensor) string {
	switch {
	case want.DType != got.DType:
		return fmt.Sprintf("is of type %s instead of %s", got.DType.Name(), want.DType.Name())
	case !want.Shape.Equal(got.Shape):
		return fmt.Sprintf("has shape %v instead of %v", got.Shape, want.Shape)
	}
	number, size := numbers(want.DType)
	if number == nil {
		return differsExactly(want, got)
	}
	rel, scaled := rtol, scaleTol
	if size == 2 {
		rel, scaled = rtolHalf, scaleTolHalf
	}
	largest := 0.0
	n := len(want.Data) / size
	for i := range n {
		if w := math.Abs(number(want.Data[i*size:])); w > largest && !math.IsInf(w, 0) {
			largest = w
		}
	}
	for i := range n {
		w, g := number(want.Data[i*size:]), number(got.Data[i*size:])
		if w == g || math.IsNaN(w) && math.IsNaN(g) {
			continue
		}
		if math.IsInf(w, 0) || !(math.Abs(w-g) <= rel*math.Abs(w)+scaled*largest) { // also where one is NaN
			return fmt.Sprintf("has %v instead of %v as element %d of %d", g, w, i, n)
		}
	}
	return ""
}

func differsExactly(want, got *tensor.Tensor) string {
	if len(want.Strings) != len(got.Strings) || len(want.Data) != len(got.Data) {
		return "has another length"
	}
	for i := range want.Strings {
		if string(want.Strings[i]) != string(got.Strings[i]) {
			return fmt.Sprintf("has another text as element %d of %d", i, len(want.Strings))
		}
	}
	size := max(1, want.DType.Size())
	for i := range want.Data {
		if want.Data[i] != got.Data[i] {
			return fmt.Sprintf("differs in element %d of %d", i/size, len(want.Data)/size)
		}
	}
	return ""
}

// numbers reads one element of a floating-point type; nil for every other. The halves of a complex number count as two.
func numbers(d tensor.DType) (read func([]byte) float64, size int) {
	switch d {
	case tensor.Float, tensor.Complex64:
		return func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }, 4
	case tensor.Double, tensor.Complex128:
		return func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }, 8
	case tensor.BFloat16:
		return func(b []byte) float64 {
			return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
		}, 2
	case tensor.Half:
		return func(b []byte) float64 { return half(binary.LittleEndian.Uint16(b)) }, 2
	default:
		return nil, 0
	}
}

func half(v uint16) float64 {
	sign := 1.0
	if v>>15 != 0 {
		sign = -1
	}
	exponent, fraction := int(v>>10&0x1f), float64(v&0x3ff)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 0x1f:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

const maxMadeUp = 64 << 20

// MakeUp is one row for each input of the signature: numbers of floating point that vary between 0 and 1, and 0 or the empty string for the
// rest. ok is false where an input cannot be made up.
func MakeUp(sig *inference.Signature) (inputs []*tensor.Tensor, ok bool) {
	left := int64(maxMadeUp)
	for i := range sig.Inputs {
		info := &sig.Inputs[i]
		shape := tensor.Shape{}
		if info.UnknownRank {
			shape = tensor.Shape{1}
		}
		for _, d := range info.Shape {
			if d < 0 {
				d = 1
			}
			shape = append(shape, d)
		}
		n, err := shape.Elements()
		size := int64(max(1, info.DType.Size()))
		if err != nil || !info.DType.Carried() || n > left/size {
			return nil, false
		}
		left -= n * size
		if info.DType == tensor.String {
			inputs = append(inputs, &tensor.Tensor{DType: tensor.String, Shape: shape, Strings: make([][]byte, n)})
			continue
		}
		t := &tensor.Tensor{DType: info.DType, Shape: shape, Data: make([]byte, n*size)}
		vary(t)
		inputs = append(inputs, t)
	}
	return inputs, true
}

// vary fills floating point with numbers from a fixed sequence.
func vary(t *tensor.Tensor) {
	state := uint32(1)
	next := func() float32 {
		state = state*1664525 + 1013904223
		return float32(state>>8) / (1 << 24)
	}
	switch t.DType {
	case tensor.Float, tensor.Complex64:
		for i := 0; i < len(t.Data); i += 4 {
			binary.LittleEndian.PutUint32(t.Data[i:], math.Float32bits(next()))
		}
	case tensor.Double, tensor.Complex128:
		for i := 0; i < len(t.Data); i += 8 {
			binary.LittleEndian.PutUint64(t.Data[i:], math.Float64bits(float64(next())))
		}
	case tensor.BFloat16:
		for i := 0; i < len(t.Data); i += 2 {
			binary.LittleEndian.PutUint16(t.Data[i:], uint16(math.Float32bits(next())>>16))
		}
	case tensor.Half: // 0.5 to 1, in steps of the fraction
		for i := 0; i < len(t.Data); i += 2 {
			binary.LittleEndian.PutUint16(t.Data[i:], 0x3800|uint16(next()*1024))
		}
	}
}
