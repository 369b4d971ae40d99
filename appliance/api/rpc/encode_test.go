// encode_test.go: the hand-written answer as the generated code reads it.
package rpc

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

var everyDType = []tensor.DType{tensor.Float, tensor.Double, tensor.Int32, tensor.Uint8, tensor.Int16, tensor.Int8, tensor.String,
	tensor.Complex64, tensor.Int64, tensor.Bool, tensor.QInt8, tensor.QUint8, tensor.QInt32, tensor.BFloat16, tensor.QInt16, tensor.QUint16,
	tensor.Uint16, tensor.Complex128, tensor.Half, tensor.Uint32, tensor.Uint64, tensor.Float8E5M2, tensor.Float8E4M3, tensor.Int4, tensor.Uint4}

// encoded is the answer for one output, read by the generated code.
func encoded(t *tensor.Tensor, model string, number int64, alias string, asContent bool) (*pb.PredictResponse, error) {
	sig := signature("serving_default", nil, []inference.TensorInfo{info("other", tensor.Float), info(alias, t.DType)})
	r := encodeReply(new(bufferPool), &inference.Version{Model: model, Number: number}, sig, []int{1}, []*tensor.Tensor{t}, asContent)
	defer r.buffer.Free()
	got := new(pb.PredictResponse)
	if err := proto.Unmarshal(r.buffer.ReadOnlyData(), got); err != nil {
		return nil, err
	}
	want := modelVersion(model, number)
	want.SignatureName = "serving_default"
	if !proto.Equal(got.ModelSpec, want) {
		return nil, fmt.Errorf("model_spec %v, want %v", got.ModelSpec, want)
	}
	if got.Outputs[alias] == nil || len(got.Outputs) != 1 || len(got.ProtoReflect().GetUnknown()) > 0 {
		return nil, fmt.Errorf("got %v, want one output %q", got, alias)
	}
	return got, nil
}

// check holds what was encoded against the tensor: the generated message read in the plainest way, and read back by hand.
func checkEncoded(t *tensor.Tensor, model string, number int64, alias string, asContent bool) error {
	got, err := encoded(t, model, number, alias, asContent)
	if err != nil {
		return err
	}
	out := got.Outputs[alias]
	if wantContent := asContent && len(t.Data) > 0; wantContent != (len(out.TensorContent) > 0) || (wantContent && hasValues(out)) {
		return fmt.Errorf("as content %v: %v", asContent, out)
	}
	if err := compareTensor(normal(t), nil, out); err != nil {
		return fmt.Errorf("read plainly: %w", err)
	}
	b, err := proto.Marshal(out)
	if err != nil {
		return err
	}
	var w wireTensor
	if err := w.merge(b); err != nil {
		return err
	}
	again, err := w.decode(new(int64)) // nothing may have to be repeated
	return compareTensor(again, err, out)
}

// normal is t as it comes back: a bool is 0 or 1.
func normal(t *tensor.Tensor) *tensor.Tensor {
	n := t.Clone()
	if n.DType == tensor.Bool {
		for i, v := range n.Data {
			n.Data[i] = min(v, 1)
		}
	}
	return n
}

func TestEncodeEveryType(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, d := range everyDType {
		for _, shape := range []tensor.Shape{{}, {0}, {1}, {3, 2}, {2, 0, 5}, {1000, 7}} {
			n, _ := shape.Elements()
			in := &tensor.Tensor{DType: d, Shape: shape, Data: make([]byte, n*int64(d.Size()))}
			for i := range in.Data {
				in.Data[i] = byte(random.Uint32())
			}
			if d == tensor.String {
				in.Data, in.Strings = nil, make([][]byte, n)
				for i := range in.Strings {
					in.Strings[i] = bytes.Repeat([]byte{byte(i)}, int(random.Uint32()%200))
				}
			}
			for _, asContent := range []bool{false, true} {
				// A bool that is neither 0 nor 1 goes into tensor_content as it is.
				if d == tensor.Bool && asContent {
					in = normal(in)
				}
				if err := checkEncoded(in, "m", 1<<40, "y", asContent); err != nil {
					t.Errorf("%v %v as content %v: %v", d, shape, asContent, err)
				}
			}
		}
	}
}

// The typed fields are the ones that TensorFlow's own client reads.
func TestEncodeFields(t *testing.T) {
	for d, num := range map[tensor.DType]protowire.Number{tensor.Float: 5, tensor.Double: 6, tensor.Int32: 7, tensor.Uint8: 7, tensor.Int16: 7,
		tensor.Int8: 7, tensor.Uint16: 7, tensor.String: 8, tensor.Complex64: 9, tensor.Int64: 10, tensor.Bool: 11, tensor.Complex128: 12,
		tensor.Half: 13, tensor.BFloat16: 13, tensor.Uint32: 16, tensor.Uint64: 17, tensor.Float8E5M2: 18} {
		one := &tensor.Tensor{DType: d, Shape: tensor.Shape{1}, Data: make([]byte, d.Size()), Strings: [][]byte{[]byte("s")}}
		if d != tensor.String {
			one.Strings, one.Data[0] = nil, 1
		}
		got, err := encoded(one, "m", 1, "y", false)
		if err != nil {
			t.Fatal(err)
		}
		fields := got.Outputs["y"].ProtoReflect()
		if !fields.Has(fields.Descriptor().Fields().ByNumber(num)) {
			t.Errorf("%v is not in field %d: %v", d, num, got)
		}
	}
}

// Small integers keep their sign in int_val: a client that reads 255 for an int8 has an overflow.
func TestEncodeSigns(t *testing.T) {
	for d, want := range map[tensor.DType]int32{tensor.Int8: -1, tensor.QInt8: -1, tensor.Int4: -1, tensor.Int16: -1, tensor.QInt16: -1, tensor.Int32: -1,
		tensor.QInt32: -1, tensor.Uint8: 255, tensor.QUint8: 255, tensor.Uint4: 255, tensor.Uint16: 65535, tensor.QUint16: 65535} {
		got, err := encoded(&tensor.Tensor{DType: d, Shape: tensor.Shape{1}, Data: bytes.Repeat([]byte{255}, d.Size())}, "m", 1, "y", false)
		if err != nil {
			t.Fatal(err)
		}
		if v := got.Outputs["y"].IntVal; len(v) != 1 || v[0] != want {
			t.Errorf("%v: int_val %v, want %d", d, v, want)
		}
	}
	for _, d := range []tensor.DType{tensor.Half, tensor.BFloat16} {
		got, err := encoded(&tensor.Tensor{DType: d, Shape: tensor.Shape{1}, Data: []byte{255, 255}}, "m", 1, "y", false)
		if err != nil {
			t.Fatal(err)
		}
		if v := got.Outputs["y"].HalfVal; len(v) != 1 || v[0] != 65535 {
			t.Errorf("%v: half_val %v, want 65535", d, v)
		}
	}
}

// The answer is written once: no allocation grows with it.
func TestEncodeAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled buffers at random")
	}
	pool := new(bufferPool)
	sig := signature("serving_default", nil, []inference.TensorInfo{info("y", tensor.Float)})
	v := &inference.Version{Model: "m", Number: 1}
	out := []*tensor.Tensor{{DType: tensor.Float, Shape: tensor.Shape{100_000}, Data: make([]byte, 400_000)}}
	if n := testing.AllocsPerRun(100, func() { encodeReply(pool, v, sig, []int{0}, out, false).buffer.Free() }); n > 4 {
		t.Errorf("%v allocations for an answer, want at most 4", n)
	}
}

func FuzzPredictResponse(f *testing.F) {
	for i := range everyDType {
		f.Add(byte(i), uint8(1), []byte("some bytes of a tensor, 32 of it"), int64(i), "y", false)
	}
	f.Add(byte(0), uint8(0), []byte{}, int64(-1), "", true)
	f.Fuzz(func(t *testing.T, which byte, width uint8, data []byte, number int64, alias string, asContent bool) {
		d := everyDType[int(which)%len(everyDType)]
		in := &tensor.Tensor{DType: d}
		per := int64(max(width, 1))
		if d == tensor.String {
			in.Strings = bytes.Split(data, []byte{0})
			in.Shape = tensor.Shape{int64(len(in.Strings)), 1}
		} else {
			rows := int64(len(data)) / int64(d.Size()) / per
			in.Shape, in.Data = tensor.Shape{rows, per}, data[:rows*per*int64(d.Size())]
		}
		if asContent {
			in = normal(in)
		}
		if !bytes.Equal([]byte(alias), bytes.ToValidUTF8([]byte(alias), nil)) || alias == "other" {
			t.Skip("a signature has no such name")
		}
		if err := checkEncoded(in, "m", number, alias, asContent); err != nil {
			t.Errorf("%v %v: %v", d, in.Shape, err)
		}
	})
}
