// oipencode_test.go: the hand-written ModelInferResponse is, byte for byte, the generated one.
package rpc

import (
	"bytes"
	"math"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// everyOutput are the tensors of [everyContents].
func everyOutput(t *testing.T) (infos []inference.TensorInfo, tensors []*tensor.Tensor) {
	t.Helper()
	for _, in := range everyContents() {
		d, _ := oip.DType([]byte(in.Datatype))
		x, ok := referenceContents(in, d)
		if !ok {
			t.Fatal(in)
		}
		infos, tensors = append(infos, info(in.Name, d, -1)), append(tensors, x)
	}
	return infos, tensors
}

// generatedAnswer is what a was made of, as the generated code has it.
func generatedAnswer(a *inferAnswer, typed bool) *oippb.ModelInferResponse {
	m := &oippb.ModelInferResponse{ModelName: a.v.Model, ModelVersion: "7", Id: string(a.id)}
	if a.final {
		m.Parameters = map[string]*oippb.InferParameter{"triton_final_response": {ParameterChoice: &oippb.InferParameter_BoolParam{BoolParam: true}}}
	}
	contents := make(map[string]*oippb.InferTensorContents)
	for _, in := range everyContents() {
		contents[in.Name] = in.Contents
	}
	for i, x := range a.outputs {
		alias := a.sig.Outputs[a.indexes[i]].Alias
		out := &oippb.ModelInferResponse_InferOutputTensor{Name: alias, Datatype: oip.Datatype(x.DType), Shape: x.Shape}
		m.Outputs = append(m.Outputs, out)
		if !typed {
			m.RawOutputContents = append(m.RawOutputContents, oip.AppendRaw(nil, x))
			continue
		}
		if out.Contents = contents[alias]; len(x.Data)+len(x.Strings) == 0 {
			out.Contents = &oippb.InferTensorContents{}
		}
	}
	return m
}

func TestEncodeInferLikeGenerated(t *testing.T) {
	infos, tensors := everyOutput(t)
	half := &tensor.Tensor{DType: tensor.Half, Shape: tensor.Shape{1, 2}, Data: []byte{0, 60, 0, 64}}
	none := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{0, 5}}
	scalar := &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{}, Data: []byte{0, 0, 128, 63}}
	large := &tensor.Tensor{DType: tensor.Uint8, Shape: tensor.Shape{1 << 15}, Data: bytes.Repeat([]byte{3}, 1<<15)}
	all := make([]int, len(infos))
	for i := range all {
		all[i] = i
	}
	for name, c := range map[string]struct {
		infos       []inference.TensorInfo
		outputs     []*tensor.Tensor
		indexes     []int
		id          string
		typed, wish bool // what is written, and what was asked for
		final       bool
	}{
		"raw":                   {infos, tensors, all, "an id", false, false, false},
		"typed":                 {infos, tensors, all, "", true, true, false},
		"one of them":           {infos, tensors[3:4], []int{3}, "", true, true, true},
		"final":                 {infos, tensors[:1], []int{0}, "x", false, false, true},
		"FP16 makes all raw":    {append(infos[:1:1], info("h", tensor.Half, -1)), append(tensors[:1:1], half), []int{0, 1}, "", false, true, false},
		"no elements":           {[]inference.TensorInfo{info("n", tensor.Float, -1)}, []*tensor.Tensor{none}, []int{0}, "", false, false, false},
		"no elements, typed":    {[]inference.TensorInfo{info("n", tensor.Float, -1)}, []*tensor.Tensor{none}, []int{0}, "", true, true, false},
		"a scalar":              {[]inference.TensorInfo{info("s", tensor.Float)}, []*tensor.Tensor{scalar}, []int{0}, "", false, false, false},
		"larger than two bytes": {[]inference.TensorInfo{info("l", tensor.Uint8)}, []*tensor.Tensor{large}, []int{0}, "", false, false, false},
		"no outputs":            {nil, nil, nil, "", false, false, false},
	} {
		v, sig := &inference.Version{Model: "m", Number: 7}, signature("s", nil, c.infos)
		for _, streamed := range []bool{false, true} {
			a := &inferAnswer{v: v, sig: sig, indexes: c.indexes, outputs: c.outputs, id: []byte(c.id), typed: c.wish, final: c.final}
			r, err := a.encode(new(bufferPool), streamed)
			if err != nil {
				t.Fatal(err)
			}
			var m proto.Message = generatedAnswer(a, c.typed)
			if streamed {
				m = &oippb.ModelStreamInferResponse{InferResponse: generatedAnswer(a, c.typed)}
			}
			want, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if got := r.buffer.ReadOnlyData(); !bytes.Equal(got, want) {
				t.Errorf("%s, streamed %v:\n%x, want\n%x", name, streamed, got, want)
			}
		}
	}
}

func TestEncodeFailureLikeGenerated(t *testing.T) {
	for _, id := range []string{"", "7"} {
		want, err := proto.Marshal(&oippb.ModelStreamInferResponse{ErrorMessage: "no", InferResponse: &oippb.ModelInferResponse{Id: id}})
		if err != nil {
			t.Fatal(err)
		}
		if got := encodeFailure(new(bufferPool), "no", []byte(id)).buffer.ReadOnlyData(); !bytes.Equal(got, want) {
			t.Errorf("%x, want %x", got, want)
		}
	}
}

// FuzzModelInferResponse: any tensor of any type is written as the generated code reads it.
func FuzzModelInferResponse(f *testing.F) {
	f.Add(int32(tensor.Float), []byte{0, 0, 128, 63}, "id", false)
	f.Add(int32(tensor.Int8), []byte{200}, "", true)
	f.Add(int32(tensor.String), []byte("text"), "", true)
	f.Fuzz(func(t *testing.T, number int32, data []byte, id string, typed bool) {
		d := tensor.DType(number)
		if !d.Carried() {
			return
		}
		x := &tensor.Tensor{DType: d, Shape: tensor.Shape{1}, Strings: [][]byte{data}}
		if size := d.Size(); size > 0 {
			x = &tensor.Tensor{DType: d, Shape: tensor.Shape{int64(len(data) / size)}, Data: data[:len(data)/size*size]}
		}
		a := &inferAnswer{v: &inference.Version{Model: "m", Number: math.MaxInt64}, sig: signature("s", nil, []inference.TensorInfo{info("y", d)}), indexes: []int{0},
			outputs: []*tensor.Tensor{x}, id: []byte(id), typed: typed}
		r, err := a.encode(new(bufferPool), false)
		if err != nil {
			t.Fatal(err)
		}
		m := new(oippb.ModelInferResponse)
		if err := proto.Unmarshal(r.buffer.ReadOnlyData(), m); err != nil {
			if string([]rune(id)) == id {
				t.Fatal(err)
			}
			return
		}
		if a.typed {
			back, ok := referenceContents(&oippb.ModelInferRequest_InferInputTensor{Shape: m.Outputs[0].Shape, Contents: m.Outputs[0].Contents}, d)
			if want := normal(x).Data; !ok || !bytes.Equal(back.Data, want) || len(back.Strings) != len(x.Strings) {
				t.Errorf("%v, want %v", back, x)
			}
		} else if !bytes.Equal(m.RawOutputContents[0], oip.AppendRaw(nil, x)) {
			t.Errorf("%x of %v", m.RawOutputContents[0], x)
		}
	})
}
