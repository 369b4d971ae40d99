// oipwire_test.go: the hand-written reader of ModelInferRequest against the generated one, on made messages and on any bytes.
package rpc

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rpc/oippb"
	"github.com/inferd/inferd/inference/tensor"
)

// compareInfer reads data both ways and says where they differ.
func compareInfer(data []byte) error {
	want := new(oippb.ModelInferRequest)
	wantErr := proto.Unmarshal(data, want)
	got := new(inferRequest)
	gotErr := got.read(data)
	if gotErr != nil && strings.Contains(gotErr.Error(), "more than") {
		return nil // the bounds that the generated code does not have
	}
	if (wantErr == nil) != (gotErr == nil) {
		return fmt.Errorf("by hand: %s; generated: %s", fmt.Sprint(gotErr), fmt.Sprint(wantErr))
	}
	if wantErr != nil {
		return nil
	}
	if string(got.model) != want.ModelName || string(got.version) != want.ModelVersion || string(got.id) != want.Id {
		return fmt.Errorf("%q %q %q, want %v", got.model, got.version, got.id, want)
	}
	if err := compareParams(got.params, want.Parameters); err != nil {
		return err
	}
	if len(got.inputs) != len(want.Inputs) || len(got.outputs) != len(want.Outputs) || !slices.EqualFunc(got.raw, want.RawInputContents, bytes.Equal) {
		return fmt.Errorf("%d inputs, %d outputs, %d raw, want %v", len(got.inputs), len(got.outputs), len(got.raw), want)
	}
	for i, w := range want.Inputs {
		in := &got.inputs[i]
		if string(in.name) != w.Name || string(in.datatype) != w.Datatype {
			return fmt.Errorf("input %d: %q %q, want %v", i, in.name, in.datatype, w)
		}
		if n := min(len(w.Shape), tensor.MaxRank+1); !slices.Equal(in.shape, w.Shape[:n]) {
			return fmt.Errorf("input %d: shape %v, want %v", i, in.shape, w.Shape)
		}
		if err := compareParams(in.params, w.Parameters); err != nil {
			return fmt.Errorf("input %d: %w", i, err)
		}
		d, known := oip.DType(in.datatype)
		if !known {
			continue
		}
		left := int64(limit)
		t, err := in.typed("x", d, &left)
		wantTensor, ok := referenceContents(w, d)
		switch {
		case err != nil && err.Msg == oip.TooLarge("x").Msg:
		case ok != (err == nil):
			return fmt.Errorf("input %d: refused with %w, want %v", i, err, wantTensor)
		case ok && (t.DType != d || !slices.Equal(t.Shape, wantTensor.Shape) || !bytes.Equal(t.Data, wantTensor.Data) || !slices.EqualFunc(t.Strings, wantTensor.Strings, bytes.Equal)):
			return fmt.Errorf("input %d: %v, want %v", i, t, wantTensor)
		}
	}
	for i, w := range want.Outputs {
		if string(got.outputs[i].name) != w.Name {
			return fmt.Errorf("output %d: %q, want %q", i, got.outputs[i].name, w.Name)
		}
		if err := compareParams(got.outputs[i].params, w.Parameters); err != nil {
			return fmt.Errorf("output %d: %w", i, err)
		}
	}
	return nil
}

func compareParams(got []inferParam, want map[string]*oippb.InferParameter) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d parameters, want %v", len(got), want)
	}
	for i := range got {
		w, ok := want[string(got[i].name)]
		if !ok {
			return fmt.Errorf("parameter %q was not sent", got[i].name)
		}
		var value any
		switch c := w.GetParameterChoice().(type) {
		case *oippb.InferParameter_BoolParam:
			value = c.BoolParam
		case *oippb.InferParameter_Int64Param:
			value = c.Int64Param
		case *oippb.InferParameter_StringParam:
			value = c.StringParam
		case *oippb.InferParameter_DoubleParam:
			if v, ok := got[i].value().(float64); !ok || math.Float64bits(v) != math.Float64bits(c.DoubleParam) {
				return fmt.Errorf("parameter %q is %v, want %v", got[i].name, got[i].value(), c.DoubleParam)
			}
			continue
		case *oippb.InferParameter_Uint64Param:
			value = c.Uint64Param
		}
		if got[i].value() != value {
			return fmt.Errorf("parameter %q is %v, want %v", got[i].name, got[i].value(), value)
		}
	}
	return nil
}

// referenceContents makes a tensor from the generated message in the plainest way. ok is false for what must be refused.
func referenceContents(in *oippb.ModelInferRequest_InferInputTensor, d tensor.DType) (t *tensor.Tensor, ok bool) {
	c := in.GetContents()
	lens := []int{0, len(c.GetBoolContents()), len(c.GetIntContents()), len(c.GetInt64Contents()), len(c.GetUintContents()), len(c.GetUint64Contents()),
		len(c.GetFp32Contents()), len(c.GetFp64Contents()), len(c.GetBytesContents())}
	t = &tensor.Tensor{DType: d, Shape: in.Shape}
	n, err := t.Shape.Elements()
	num := int(contentsField(d))
	if err != nil || num == 0 {
		return nil, false
	}
	for i, l := range lens {
		if i == num && int64(l) != n || i != num && l > 0 {
			return nil, false
		}
	}
	add := func(v any) { t.Data, _ = binary.Append(t.Data, binary.LittleEndian, v) }
	switch d {
	case tensor.Bool:
		add(c.GetBoolContents())
	case tensor.Int8, tensor.Int16:
		for _, v := range c.GetIntContents() {
			if d == tensor.Int8 && v != int32(int8(v)) || v != int32(int16(v)) {
				return nil, false
			}
			if d == tensor.Int8 {
				add(int8(v))
			} else {
				add(int16(v))
			}
		}
	case tensor.Int32:
		add(c.GetIntContents())
	case tensor.Uint8, tensor.Uint16:
		for _, v := range c.GetUintContents() {
			if d == tensor.Uint8 && v > math.MaxUint8 || v > math.MaxUint16 {
				return nil, false
			}
			if d == tensor.Uint8 {
				add(uint8(v))
			} else {
				add(uint16(v))
			}
		}
	case tensor.Uint32:
		add(c.GetUintContents())
	case tensor.Int64:
		add(c.GetInt64Contents())
	case tensor.Uint64:
		add(c.GetUint64Contents())
	case tensor.Float:
		add(c.GetFp32Contents())
	case tensor.Double:
		add(c.GetFp64Contents())
	case tensor.String:
		t.Strings = c.GetBytesContents()
	}
	return t, true
}

// typedInput is an input with contents.
func typedInput(name, datatype string, shape []int64, c *oippb.InferTensorContents) *oippb.ModelInferRequest_InferInputTensor {
	return &oippb.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Shape: shape, Contents: c}
}

// everyContents has an input of each datatype with a field in InferTensorContents.
func everyContents() []*oippb.ModelInferRequest_InferInputTensor {
	two := []int64{2}
	return []*oippb.ModelInferRequest_InferInputTensor{
		typedInput("bool", "BOOL", two, &oippb.InferTensorContents{BoolContents: []bool{true, false}}),
		typedInput("i8", "INT8", two, &oippb.InferTensorContents{IntContents: []int32{-128, 127}}),
		typedInput("i16", "INT16", two, &oippb.InferTensorContents{IntContents: []int32{-32768, 32767}}),
		typedInput("i32", "INT32", two, &oippb.InferTensorContents{IntContents: []int32{math.MinInt32, math.MaxInt32}}),
		typedInput("i64", "INT64", two, &oippb.InferTensorContents{Int64Contents: []int64{math.MinInt64, math.MaxInt64}}),
		typedInput("u8", "UINT8", two, &oippb.InferTensorContents{UintContents: []uint32{0, 255}}),
		typedInput("u16", "UINT16", two, &oippb.InferTensorContents{UintContents: []uint32{0, 65535}}),
		typedInput("u32", "UINT32", two, &oippb.InferTensorContents{UintContents: []uint32{0, math.MaxUint32}}),
		typedInput("u64", "UINT64", two, &oippb.InferTensorContents{Uint64Contents: []uint64{0, math.MaxUint64}}),
		typedInput("f32", "FP32", two, &oippb.InferTensorContents{Fp32Contents: []float32{1.5, -2}}),
		typedInput("f64", "FP64", two, &oippb.InferTensorContents{Fp64Contents: []float64{1.5, -2}}),
		typedInput("str", "BYTES", two, &oippb.InferTensorContents{BytesContents: [][]byte{{}, []byte("h\x00i")}}),
	}
}

// inferMessages are requests as they can come, by what is remarkable about them.
func inferMessages(t testing.TB) map[string][]byte {
	t.Helper()
	must := func(m proto.Message) raw {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	param := func(key string, value raw) raw { return raw{}.bytes(1, []byte(key)).bytes(2, value) }
	floats := func(b ...byte) raw { return raw{}.bytes(6, b) }
	input := func(contents ...raw) []byte { // FP32 of shape [2]
		in := raw{}.bytes(1, []byte("x")).bytes(2, []byte("FP32")).varint(3, 2)
		for _, c := range contents {
			in = in.bytes(5, c)
		}
		return raw{}.bytes(5, in)
	}
	eight := []byte{0, 0, 128, 63, 0, 0, 0, 64}
	many := raw{}
	for range oip.MaxParts + 1 {
		many = many.bytes(7, nil)
	}
	fields := raw{}
	for i := range maxParams + 1 {
		fields = fields.bytes(4, param(fmt.Sprint("p", i), nil))
	}
	return map[string][]byte{
		"empty": nil,
		"every datatype": must(&oippb.ModelInferRequest{ModelName: "m", ModelVersion: "3", Id: "id", Inputs: everyContents(),
			Outputs: []*oippb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: map[string]*oippb.InferParameter{"binary_data": {ParameterChoice: &oippb.InferParameter_BoolParam{BoolParam: true}}}}, {}},
			Parameters: map[string]*oippb.InferParameter{
				"b": {ParameterChoice: &oippb.InferParameter_BoolParam{}}, "i": {ParameterChoice: &oippb.InferParameter_Int64Param{Int64Param: -1}},
				"s": {ParameterChoice: &oippb.InferParameter_StringParam{StringParam: "x"}}, "d": {ParameterChoice: &oippb.InferParameter_DoubleParam{DoubleParam: math.NaN()}},
				"u": {ParameterChoice: &oippb.InferParameter_Uint64Param{Uint64Param: math.MaxUint64}}, "none": {}}}),
		"raw":                         must(&oippb.ModelInferRequest{ModelName: "m", Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP16", Shape: []int64{1, 2}}}, RawInputContents: [][]byte{{1, 2, 3, 4}}}),
		"contents in two parts":       input(floats(eight[:4]...), floats(eight[4:]...)),
		"an empty part before":        input(floats(), floats(eight...)),
		"contents twice in one":       input(append(floats(eight[:4]...), floats(eight[4:]...)...)),
		"single numbers":              input(raw{}.fixed32(6, 1).fixed32(6, 2)),
		"numbers of another type":     input(raw{}.varint(6, 1).fixed64(6, 2)),
		"half a float":                input(floats(1, 2, 3)),
		"half a double":               input(raw{}.bytes(7, []byte{1, 2, 3, 4})),
		"unknown fields":              raw{}.varint(99, 1).bytes(100, []byte("x")).fixed32(5, 1).varint(1, 3),
		"a group":                     raw{}.tag(9, protowire.StartGroupType).varint(1, 2).tag(9, protowire.EndGroupType),
		"an end without a group":      raw{}.tag(9, protowire.EndGroupType),
		"a name that is not UTF-8":    raw{}.bytes(1, []byte{0xff}),
		"an id that is not UTF-8":     raw{}.bytes(3, []byte{0xff}),
		"a datatype not UTF-8":        raw{}.bytes(5, raw{}.bytes(2, []byte{0xff})),
		"an output not UTF-8":         raw{}.bytes(6, raw{}.bytes(1, []byte{0xff})),
		"a parameter not UTF-8":       raw{}.bytes(4, raw{}.bytes(1, []byte{0xff})),
		"a value not UTF-8":           raw{}.bytes(4, param("x", raw{}.bytes(3, []byte{0xff}))),
		"a parameter twice":           raw{}.bytes(4, param("x", raw{}.varint(1, 1))).bytes(4, param("x", raw{}.varint(2, 7))),
		"a parameter of two kinds":    raw{}.bytes(4, param("x", raw{}.varint(1, 1).bytes(3, []byte("s")).varint(5, 3))),
		"a parameter in two parts":    raw{}.bytes(4, append(param("x", raw{}.varint(2, 9)), raw{}.bytes(2, raw{}.varint(99, 9))...)),
		"a parameter without a value": raw{}.bytes(4, raw{}.bytes(1, []byte("x"))),
		"a parameter of wrong type":   raw{}.bytes(4, param("x", raw{}.fixed32(2, 1))),
		"a shape in both forms":       raw{}.bytes(5, raw{}.varint(3, 2).bytes(3, []byte{3, 4}).fixed32(3, 5)),
		"a shape that ends early":     raw{}.bytes(5, raw{}.bytes(3, []byte{0x80})),
		"a negative shape":            raw{}.bytes(5, raw{}.bytes(2, []byte("FP32")).varint(3, math.MaxUint64)),
		"too many dimensions":         raw{}.bytes(5, raw{}.bytes(2, []byte("FP32")).bytes(3, bytes.Repeat([]byte{1}, 400))),
		"an int8 of 200":              raw{}.bytes(5, raw{}.bytes(2, []byte("INT8")).varint(3, 1).bytes(5, raw{}.varint(2, 200))),
		"a uint8 of 256":              raw{}.bytes(5, raw{}.bytes(2, []byte("UINT8")).varint(3, 1).bytes(5, raw{}.bytes(4, []byte{0x80, 2}))),
		"an int32 of 40 bits":         raw{}.bytes(5, raw{}.bytes(2, []byte("INT32")).varint(3, 1).bytes(5, raw{}.varint(2, 1<<40|5))),
		"a bool of 2":                 raw{}.bytes(5, raw{}.bytes(2, []byte("BOOL")).varint(3, 1).bytes(5, raw{}.varint(1, 2))),
		"a varint that ends early":    raw{}.bytes(5, raw{}.bytes(5, raw{}.bytes(3, []byte{0xff}))),
		"too many raw contents":       many,
		"too many parameters":         fields,
		"a length beyond the end":     {0x0a, 5, 'm'},
	}
}

func TestParseInferLikeGenerated(t *testing.T) {
	accepted := 0
	for name, data := range inferMessages(t) {
		if err := compareInfer(data); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if proto.Unmarshal(data, new(oippb.ModelInferRequest)) == nil {
			accepted++
		}
		if len(data) > 1000 {
			continue
		}
		for i := range data {
			if err := compareInfer(data[:i]); err != nil { // every torn message
				t.Errorf("%s, cut at %d: %v", name, i, err)
			}
			bent := bytes.Clone(data) // every message with one byte changed
			bent[i] ^= 1 << (i % 8)
			if err := compareInfer(bent); err != nil {
				t.Errorf("%s: %x: %v", name, bent, err)
			}
		}
	}
	if accepted < 20 {
		t.Errorf("only %d of the messages are valid: the test shows little", accepted)
	}
}

func TestParseInferBounds(t *testing.T) {
	part := raw{}.bytes(5, nil)
	for what, data := range map[string][]byte{
		"inputs": bytes.Repeat(part, oip.MaxParts+1), "outputs": bytes.Repeat(raw{}.bytes(6, nil), oip.MaxParts+1),
		"raw_input_contents": bytes.Repeat(raw{}.bytes(7, nil), oip.MaxParts+1),
	} {
		err := new(inferRequest).read(data)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("more than %d %s", oip.MaxParts, what)) {
			t.Errorf("%s: %v", what, err)
		}
		if err := new(inferRequest).read(data[:oip.MaxParts*2]); err != nil {
			t.Errorf("%s, as many as may be: %v", what, err)
		}
	}
	if err := new(inferRequest).read(inferMessages(t)["too many parameters"]); err == nil || !strings.Contains(err.Error(), "parameters") {
		t.Errorf("parameters: %v", err)
	}
}

// TestInferSharesMemory: raw contents, packed floats and strings lie where the message does, also when that came in several frames and was joined.
func TestInferSharesMemory(t *testing.T) {
	raw4, packed := []byte{1, 2, 3, 4, 5, 6, 7, 8}, []float32{1, 2}
	for name, m := range map[string]*oippb.ModelInferRequest{
		"raw":    {Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{2}}}, RawInputContents: [][]byte{raw4}},
		"packed": {Inputs: []*oippb.ModelInferRequest_InferInputTensor{typedInput("x", "FP32", []int64{2}, &oippb.InferTensorContents{Fp32Contents: packed})}},
		"strings": {Inputs: []*oippb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "BYTES", Shape: []int64{1}}},
			RawInputContents: [][]byte{append([]byte{4, 0, 0, 0}, "text"...)}},
	} {
		data, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, frames := range []mem.BufferSlice{{mem.SliceBuffer(data)}, {mem.SliceBuffer(data[:5]), mem.SliceBuffer(data[5:])}} {
			req := new(inferRequest)
			if err := newCodec(new(bufferPool)).Unmarshal(frames, req); err != nil || req.bad != nil {
				t.Fatal(err, req.bad)
			}
			left := int64(limit)
			inputs, failure := req.tensors(&left)
			if failure != nil {
				t.Fatal(failure)
			}
			got := inputs[0].Tensor.Data
			if name == "strings" {
				got = inputs[0].Tensor.Strings[0]
			}
			in := req.buffer.ReadOnlyData()
			at := bytes.Index(in, got)
			if at < 0 || &in[at] != &got[0] {
				t.Errorf("%s in %d frames: the tensor has memory of its own", name, len(frames))
			}
			if len(frames) == 1 && &in[0] != &data[0] {
				t.Errorf("%s: a message in one frame was copied", name)
			}
			req.free()
		}
	}
}

func FuzzModelInferRequest(f *testing.F) {
	for _, data := range inferMessages(f) {
		if len(data) < 1<<12 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := compareInfer(data); err != nil {
			t.Error(err)
		}
		req := new(inferRequest)
		if req.read(data) == nil {
			left := int64(limit)
			_, _ = req.tensors(&left) // any raw bytes must not break it
			if left < 0 {
				t.Errorf("%d bytes are left", left)
			}
		}
	})
}
