// media_test.go: files as strings, where the input takes them.
package rpc

import (
	"bytes"
	"image"
	"image/png"
	"strings"
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

func TestFilesAsStrings(t *testing.T) {
	r := start(t, Options{})
	x1 := info("x", tensor.Uint8, -1, 2, 2, 3)
	var err error
	if x1.Media, err = (media.Spec{Format: media.PNG}).Bind(x1.DType, x1.Shape, false); err != nil {
		t.Fatal(err)
	}
	r.publish(t, &inference.Version{Model: "m", Number: 1, Signatures: map[string]*inference.Signature{
		"serving_default": signature("serving_default", []inference.TensorInfo{x1}, []inference.TensorInfo{info("y", tensor.Uint8, -1, 2, 2, 3)}),
	}}, echo)
	var file bytes.Buffer
	m := image.NewRGBA(image.Rect(0, 0, 2, 2))
	copy(m.Pix, []byte{1, 2, 3, 255, 4, 5, 6, 255})
	if err := png.Encode(&file, m); err != nil {
		t.Fatal(err)
	}
	send := func(dims []int64, files ...[]byte) ([]byte, []int64, error) {
		in := &tensorpb.TensorProto{Dtype: typespb.DataType_DT_STRING, TensorShape: shapeOf(dims...), StringVal: files}
		got, err := r.predict(t.Context(), ask(modelSpec("m"), "", x(in)))
		if err != nil {
			return nil, nil, err
		}
		var shape []int64
		for _, d := range got.GetOutputs()["y"].GetTensorShape().GetDim() {
			shape = append(shape, d.GetSize())
		}
		var data []byte
		for _, v := range got.GetOutputs()["y"].GetIntVal() {
			data = append(data, byte(v))
		}
		return data, shape, nil
	}
	for _, dims := range [][]int64{{}, {1}} {
		data, shape, err := send(dims, file.Bytes())
		if err != nil || len(shape) != 4 || shape[0] != 1 || !bytes.HasPrefix(data, []byte{1, 2, 3, 4, 5, 6}) {
			t.Errorf("%v: %v %v %v", dims, data, shape, err)
		}
	}
	if _, shape, err := send([]int64{2}, file.Bytes(), file.Bytes()); err != nil || len(shape) != 4 || shape[0] != 2 {
		t.Errorf("two: %v %v", shape, err)
	}
	for _, bad := range []struct {
		dims  []int64
		files [][]byte
		says  string
	}{
		{[]int64{1, 1}, [][]byte{file.Bytes()}, `input "x": files in lists of shape [1,1]`},
		{[]int64{1}, [][]byte{file.Bytes()[:30]}, `input "x": it is a PNG file that is cut short`},
		{[]int64{0}, nil, `input "x": no file was sent`},
	} {
		_, _, err := send(bad.dims, bad.files...)
		if s := status.Convert(err); s.Code() != codes.InvalidArgument || !strings.Contains(s.Message(), bad.says) {
			t.Errorf("%v: %v, want %s", bad.dims, err, bad.says)
		}
	}
}
