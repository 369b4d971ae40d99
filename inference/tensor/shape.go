// shape.go: tensor shapes, with every product checked for overflow.
package tensor

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ErrShape is wrapped by every error about a shape that cannot be: a negative dimension, too many, or a product that overflows.
var ErrShape = errors.New("impossible shape")

// MaxRank is TensorFlow's own limit (TensorShape::MaxDimensions).
const MaxRank = 254

// Shape is the list of dimensions, outermost first. In a signature -1 is a dimension of any size; in a tensor every dimension is known.
// An empty Shape is a scalar.
type Shape []int64

// Elements is the product of the dimensions. It fails on a negative dimension, on more than [MaxRank] and on overflow of int64.
func (s Shape) Elements() (int64, error) {
	if len(s) > MaxRank {
		return 0, fmt.Errorf("%w: %d dimensions, at most %d are allowed", ErrShape, len(s), MaxRank)
	}
	n := int64(1)
	zero := false
	for _, d := range s {
		switch {
		case d < 0:
			return 0, fmt.Errorf("%w: dimension %d in %v", ErrShape, d, s)
		case d == 0:
			zero = true
		case n > math.MaxInt64/d:
			return 0, fmt.Errorf("%w: the product of %v overflows", ErrShape, s)
		default:
			n *= d
		}
	}
	if zero {
		return 0, nil
	}
	return n, nil
}

// Bytes is the size in bytes of a tensor of this shape and a fixed-size type.
func (s Shape) Bytes(d DType) (int64, error) {
	n, err := s.Elements()
	if err != nil {
		return 0, err
	}
	if size := int64(d.Size()); size > 0 && n > math.MaxInt64/size {
		return 0, fmt.Errorf("%w: the bytes of %v %v overflow", ErrShape, d, s)
	}
	return n * int64(d.Size()), nil
}

// Accepts reports whether a tensor of shape t may be fed where s is declared: equal rank, and each dimension equal or -1 in s.
func (s Shape) Accepts(t Shape) bool {
	if len(s) != len(t) {
		return false
	}
	for i, d := range s {
		if d >= 0 && d != t[i] {
			return false
		}
	}
	return true
}

// Equal reports whether both have the same dimensions.
func (s Shape) Equal(t Shape) bool { return slices.Equal(s, t) }

// String prints as TensorFlow does: [1,28,28,1].
func (s Shape) String() string {
	var b strings.Builder
	b.WriteByte('[')
	for i, d := range s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.FormatInt(d, 10))
	}
	b.WriteByte(']')
	return b.String()
}
