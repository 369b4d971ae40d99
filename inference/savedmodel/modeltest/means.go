// means.go: models of pictures and of sound, whose answers can be told in advance.
package modeltest

import (
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Brightness is [Colours] of 4 by 4.
func Brightness() *Model { return Colours(4, 4) }

// Colours is y FLOAT[-1,3] = the mean of each channel of the pictures image FLOAT[-1,h,w,3].
func Colours(h, w int64) *Model {
	return means("brightness", "image", tensor.Shape{-1, h, w, 3}, tensor.Shape{-1, 3}, 1, 2)
}

// Level is [Levels] of 8.
func Level() *Model { return Levels(8) }

// Levels is y FLOAT[-1] = the mean of each row of the samples sound FLOAT[-1,window].
func Levels(window int64) *Model {
	return means("level", "sound", tensor.Shape{-1, window}, vector, 1)
}

func means(name, input string, in, out tensor.Shape, axes ...int32) *Model {
	b := newBuilder(name)
	b.placeholder("x", floatT, in)
	b.constant("axes", Int32s(tensor.Shape{int64(len(axes))}, axes...))
	b.node("Mean", "y", []string{"x", "axes"}, attrs{"T": floatT, "Tidx": tensor.Int32, "keep_dims": false})
	b.sign(inference.DefaultSignature, []io{{input, "x", floatT, in}}, []io{{"y", "y", floatT, out}})
	return b.model()
}
