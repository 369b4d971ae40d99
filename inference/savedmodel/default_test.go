// default_test.go: TensorProtos in every form.
package savedmodel

import (
	"fmt"
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func TestDefaults(t *testing.T) {
	shape := func(d ...int64) *shapepb.TensorShapeProto {
		p := &shapepb.TensorShapeProto{}
		for _, n := range d {
			p.Dim = append(p.Dim, &shapepb.TensorShapeProto_Dim{Size: n})
		}
		return p
	}
	dt := func(d tensor.DType) typespb.DataType { return typespb.DataType(d) }
	tests := []struct {
		name string
		p    *tensorpb.TensorProto
		want string // shape and bytes, or strings; or the error
	}{
		{"float", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: shape(2), FloatVal: []float32{1, 2}}, "[2] 0000803f00000040"},
		{"one value for all", &tensorpb.TensorProto{Dtype: dt(tensor.Uint8), TensorShape: shape(3), IntVal: []int32{7}}, "[3] 070707"},
		{"no value is zeros", &tensorpb.TensorProto{Dtype: dt(tensor.Int16), TensorShape: shape(2)}, "[2] 00000000"},
		{"last value repeated", &tensorpb.TensorProto{Dtype: dt(tensor.Int64), TensorShape: shape(3), Int64Val: []int64{1, -1}}, "[3] 0100000000000000ffffffffffffffffffffffffffffffff"},
		{"content", &tensorpb.TensorProto{Dtype: dt(tensor.Half), TensorShape: shape(2), TensorContent: []byte{1, 2, 3, 4}}, "[2] 01020304"},
		{"half", &tensorpb.TensorProto{Dtype: dt(tensor.Half), TensorShape: shape(), HalfVal: []int32{0x3c00}}, "[] 003c"},
		{"bool", &tensorpb.TensorProto{Dtype: dt(tensor.Bool), TensorShape: shape(2), BoolVal: []bool{true, false}}, "[2] 0100"},
		{"double", &tensorpb.TensorProto{Dtype: dt(tensor.Double), TensorShape: shape(), DoubleVal: []float64{1}}, "[] 000000000000f03f"},
		{"complex64", &tensorpb.TensorProto{Dtype: dt(tensor.Complex64), TensorShape: shape(), ScomplexVal: []float32{1, 2}}, "[] 0000803f00000040"},
		{"complex128", &tensorpb.TensorProto{Dtype: dt(tensor.Complex128), TensorShape: shape(), DcomplexVal: []float64{1, 0}}, "[] 000000000000f03f0000000000000000"},
		{"half a complex number", &tensorpb.TensorProto{Dtype: dt(tensor.Complex64), TensorShape: shape(), ScomplexVal: []float32{1}}, "[] 0000000000000000"},
		{"uint32", &tensorpb.TensorProto{Dtype: dt(tensor.Uint32), TensorShape: shape(), Uint32Val: []uint32{9}}, "[] 09000000"},
		{"uint64", &tensorpb.TensorProto{Dtype: dt(tensor.Uint64), TensorShape: shape(), Uint64Val: []uint64{9}}, "[] 0900000000000000"},
		{"float8", &tensorpb.TensorProto{Dtype: dt(tensor.Float8E5M2), TensorShape: shape(2), Float8Val: []byte{1, 2}}, "[2] 0102"},
		{"reference", &tensorpb.TensorProto{Dtype: dt(tensor.Int32 + 100), TensorShape: shape(), IntVal: []int32{-1}}, "[] ffffffff"},
		{"no shape is a scalar", &tensorpb.TensorProto{Dtype: dt(tensor.Int32), IntVal: []int32{5}}, "[] 05000000"},
		{"strings", &tensorpb.TensorProto{Dtype: dt(tensor.String), TensorShape: shape(3), StringVal: [][]byte{[]byte("a"), []byte("b")}}, `[3] ["a" "b" "b"]`},
		{"empty", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: shape(0)}, "[0] "},
		{"too many", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: shape(1), FloatVal: []float32{1, 2}}, "error"},
		{"too many strings", &tensorpb.TensorProto{Dtype: dt(tensor.String), TensorShape: shape(0), StringVal: [][]byte{nil}}, "error"},
		{"content too short", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: shape(2), TensorContent: []byte{1, 2, 3, 4}}, "error"},
		{"negative", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: shape(-1)}, "error"},
		{"huge", &tensorpb.TensorProto{Dtype: dt(tensor.String), TensorShape: shape(1<<31, 1<<31)}, "error"},
		{"unknown rank", &tensorpb.TensorProto{Dtype: dt(tensor.Float), TensorShape: &shapepb.TensorShapeProto{UnknownRank: true}}, "error"},
		{"resource", &tensorpb.TensorProto{Dtype: dt(tensor.Resource), TensorShape: shape()}, "error"},
		{"nil", nil, "error"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v, err := decodeTensor(tt.p)
			got := "error"
			if err == nil && v.DType == tensor.String {
				got = fmt.Sprintf("%v %q", v.Shape, v.Strings)
			} else if err == nil {
				got = fmt.Sprintf("%v %x", v.Shape, v.Data)
			}
			if got != tt.want {
				t.Errorf("got %s (%v), want %s", got, err, tt.want)
			}
		})
	}
	in := mustRead(t, modeltest.Defaults()).Signatures["serving_default"].Inputs
	if in[0].Alias != "scale" || in[0].Default == nil || fmt.Sprint(modeltest.FloatValues(in[0].Default)) != "[10]" || in[1].Default != nil {
		t.Errorf("inputs %+v", in)
	}
}
