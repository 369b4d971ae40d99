// model.go: a servable that runs each request alone, and makers for what tests need.
package fake

import (
	"context"
	"encoding/binary"
	"math"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Model is an [inference.Servable] that runs each request alone over Runner, as soon as it comes.
type Model struct{ Runner }

// Predict runs the request.
func (m *Model) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	run := &inference.Run{Signature: req.Signature, Outputs: req.Outputs}
	for _, t := range req.Inputs {
		run.Inputs = append(run.Inputs, tensor.One(t))
	}
	result, err := m.Run(ctx, run)
	if err != nil {
		return nil, inference.AsError(err)
	}
	return inference.NewResponse(result.Outputs, result.Release), nil
}

// Signature is a signature with one input x and one output y of the same type and shape. It is batchable when the first dimension is -1.
func Signature(key string, d tensor.DType, shape ...int64) *inference.Signature {
	s := &inference.Signature{
		Key: key, Method: "tensorflow/serving/predict",
		Inputs:  []inference.TensorInfo{{Alias: "x", Tensor: "x:0", DType: d, Shape: shape}},
		Outputs: []inference.TensorInfo{{Alias: "y", Tensor: "y:0", DType: d, Shape: shape}},
	}
	if s.Batchable = len(shape) > 0 && shape[0] == -1; !s.Batchable {
		s.Unbatchable = "the first dimension is fixed"
	}
	return s
}

// Floats is a float tensor.
func Floats(shape tensor.Shape, values ...float32) *tensor.Tensor {
	data := make([]byte, 0, 4*len(values))
	for _, v := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(v))
	}
	t, err := tensor.New(tensor.Float, shape, data)
	if err != nil {
		panic(err)
	}
	return t
}

// Values are the numbers of a float tensor.
func Values(t *tensor.Tensor) []float32 {
	values := make([]float32, 0, len(t.Data)/4)
	for at := 0; at+4 <= len(t.Data); at += 4 {
		values = append(values, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[at:])))
	}
	return values
}
