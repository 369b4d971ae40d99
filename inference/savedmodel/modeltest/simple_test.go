// simple_test.go: TensorFlow runs the models of the reference client's example programs.
package modeltest_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func TestTensorFlowRunsTheSimpleOnes(t *testing.T) {
	r := openRuntime(t)
	shape := tensor.Shape{1, 16}
	ints := func(f func(i int32) int32) *tensor.Tensor {
		v := make([]int32, 16)
		for i := range v {
			v[i] = f(int32(i))
		}
		return modeltest.Int32s(shape, v...)
	}
	words := func(f func(i int) int) *tensor.Tensor {
		v := &tensor.Tensor{DType: tensor.String, Shape: shape}
		for i := range 16 {
			v.Strings = append(v.Strings, []byte(strconv.Itoa(f(i))))
		}
		return v
	}
	bytes := func(f func(i int) int) *tensor.Tensor {
		v := &tensor.Tensor{DType: tensor.Int8, Shape: shape}
		for i := range 16 {
			v.Data = append(v.Data, byte(int8(f(i))))
		}
		return v
	}
	for _, c := range []struct {
		model    *modeltest.Model
		in, want []*tensor.Tensor
	}{
		{modeltest.Simple(), []*tensor.Tensor{ints(func(i int32) int32 { return i }), ints(func(int32) int32 { return 3 })},
			[]*tensor.Tensor{ints(func(i int32) int32 { return i + 3 }), ints(func(i int32) int32 { return i - 3 })}},
		{modeltest.SimpleInt8(), []*tensor.Tensor{bytes(func(i int) int { return i }), bytes(func(int) int { return 3 })},
			[]*tensor.Tensor{bytes(func(i int) int { return i + 3 }), bytes(func(i int) int { return i - 3 })}},
		{modeltest.SimpleString(), []*tensor.Tensor{words(func(i int) int { return i }), words(func(int) int { return 3 })},
			[]*tensor.Tensor{words(func(i int) int { return i + 3 }), words(func(i int) int { return i - 3 })}},
		{modeltest.SimpleIdentity(), []*tensor.Tensor{words(func(i int) int { return i })}, []*tensor.Tensor{words(func(i int) int { return i })}},
		{modeltest.CustomIdentity(), []*tensor.Tensor{ints(func(i int32) int32 { return i })}, []*tensor.Tensor{ints(func(i int32) int32 { return i })}},
	} {
		t.Run(c.model.Name, func(t *testing.T) {
			got, err := load(t, r, c.model).run(t, inference.DefaultSignature, c.in...)
			if err != nil || len(got) != len(c.want) {
				t.Fatalf("%v %v", got, err)
			}
			for i, want := range c.want {
				if !slices.Equal(got[i].Shape, want.Shape) || !slices.Equal(got[i].Data, want.Data) || text([]*tensor.Tensor{{DType: tensor.String, Strings: got[i].Strings}}) != text([]*tensor.Tensor{{DType: tensor.String, Strings: want.Strings}}) {
					t.Errorf("output %d: got %v, want %v", i, got[i], want)
				}
			}
		})
	}
}
