// wire_test.go: the hand-written reader against the generated one, on made messages and on any bytes.
package rpc

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference/tensor"
)

// limit bounds repeated values in these tests, so that a fuzzer cannot ask for much memory.
const limit = 1 << 16

func allowed() *int64 { left := int64(limit); return &left }

// compare reads data both ways and says where they differ.
func compare(data []byte) error {
	want := new(pb.PredictRequest)
	wantErr := proto.Unmarshal(data, want)
	got := new(request)
	gotErr := got.parse(data)
	if (wantErr == nil) != (gotErr == nil) {
		return fmt.Errorf("by hand: %s; generated: %s", fmt.Sprint(gotErr), fmt.Sprint(wantErr))
	}
	if wantErr != nil {
		return nil
	}
	if err := compareSpec(got, want.ModelSpec); err != nil {
		return err
	}
	if len(got.filter) != len(want.OutputFilter) {
		return fmt.Errorf("%d output names, want %d", len(got.filter), len(want.OutputFilter))
	}
	for i, f := range want.OutputFilter {
		if string(got.filter[i]) != f {
			return fmt.Errorf("output name %d is %q, want %q", i, got.filter[i], f)
		}
	}
	if len(got.inputs) != len(want.Inputs) {
		return fmt.Errorf("%d inputs, want %d", len(got.inputs), len(want.Inputs))
	}
	for alias, p := range want.Inputs {
		i := got.find([]byte(alias))
		if i < 0 {
			return fmt.Errorf("input %q is missing", alias)
		}
		t, err := got.inputs[i].tensor.decode(allowed())
		if err := compareTensor(t, err, p); err != nil {
			return fmt.Errorf("input %q: %w", alias, err)
		}
	}
	return nil
}

func compareSpec(got *request, want *pb.ModelSpec) error {
	if got.hasSpec != (want != nil) {
		return fmt.Errorf("has a spec: %v, want %v", got.hasSpec, want != nil)
	}
	s := &got.spec
	if string(s.name) != want.GetName() || string(s.signature) != want.GetSignatureName() {
		return fmt.Errorf("spec %q %q, want %v", s.name, s.signature, want)
	}
	choice := choiceNone
	switch want.GetVersionChoice().(type) {
	case *pb.ModelSpec_Version:
		choice = choiceVersion
	case *pb.ModelSpec_VersionLabel:
		choice = choiceLabel
	}
	if s.choice != choice || s.version != want.GetVersion().GetValue() || string(s.label) != want.GetVersionLabel() {
		return fmt.Errorf("version choice %d %d %q, want %v", s.choice, s.version, s.label, want)
	}
	return nil
}

// compareTensor holds a decoded tensor against what [reference] makes of the generated message.
func compareTensor(got *tensor.Tensor, gotErr error, p *tensorpb.TensorProto) error {
	want, ok := reference(p)
	if !ok {
		if gotErr == nil {
			return fmt.Errorf("accepted as %v %v: %v", got.DType, got.Shape, p)
		}
		return nil
	}
	if gotErr != nil {
		return fmt.Errorf("refused: %w", gotErr)
	}
	if got.DType != want.DType || !got.Shape.Equal(want.Shape) || !bytes.Equal(got.Data, want.Data) ||
		!slices.EqualFunc(got.Strings, want.Strings, bytes.Equal) {
		return fmt.Errorf("got %v, want %v", got, want)
	}
	// Its own checks accept what was made.
	if got.DType == tensor.String {
		_, gotErr = tensor.NewStrings(got.Shape, got.Strings)
	} else {
		_, gotErr = tensor.New(got.DType, got.Shape, got.Data)
	}
	return gotErr
}

// reference makes a tensor from the generated message in the plainest way: element by element. ok is false for what must be refused.
func reference(p *tensorpb.TensorProto) (t *tensor.Tensor, ok bool) {
	d := tensor.DType(p.Dtype)
	shape := tensor.Shape{}
	for _, dim := range p.TensorShape.GetDim() {
		shape = append(shape, dim.GetSize())
	}
	n, err := shape.Elements()
	if !d.Carried() || p.TensorShape.GetUnknownRank() || err != nil {
		return nil, false
	}
	var b []byte
	switch {
	case len(p.TensorContent) > 0 && d == tensor.String:
		return referenceStrings(p.TensorContent, shape, n)
	case len(p.TensorContent) > 0:
		b = p.TensorContent
	default:
		elements, ok := referenceElements(p, d)
		if !ok || int64(len(elements)) > n || (len(elements) == 0 && hasValues(p)) {
			return nil, false
		}
		size := int64(max(d.Size(), 1))
		if d == tensor.String {
			size = stringHeader
		}
		if int64(len(elements)) < n && n > limit/size {
			return nil, false
		}
		for int64(len(elements)) < n {
			if len(elements) == 0 {
				elements = append(elements, make([]byte, d.Size()))
			} else {
				elements = append(elements, elements[len(elements)-1])
			}
		}
		if d == tensor.String {
			return &tensor.Tensor{DType: d, Shape: shape, Strings: elements}, true
		}
		b = bytes.Join(elements, nil)
	}
	t, err = tensor.New(d, shape, b)
	return t, err == nil
}

func hasValues(p *tensorpb.TensorProto) bool {
	return len(p.FloatVal)+len(p.DoubleVal)+len(p.IntVal)+len(p.StringVal)+len(p.ScomplexVal)+len(p.Int64Val)+len(p.BoolVal)+
		len(p.DcomplexVal)+len(p.HalfVal)+len(p.Uint32Val)+len(p.Uint64Val)+len(p.Float8Val) > 0
}

func referenceElements(p *tensorpb.TensorProto, d tensor.DType) (elements [][]byte, ok bool) {
	add := func(size int, v uint64) {
		elements = append(elements, binary.LittleEndian.AppendUint64(nil, v)[:size])
	}
	size := d.Size()
	switch d {
	case tensor.Float:
		for _, v := range p.FloatVal {
			add(size, uint64(math.Float32bits(v)))
		}
	case tensor.Double:
		for _, v := range p.DoubleVal {
			add(size, math.Float64bits(v))
		}
	case tensor.Half, tensor.BFloat16:
		for _, v := range p.HalfVal {
			add(size, uint64(v))
		}
	case tensor.String:
		return slices.Clone(p.StringVal), true
	case tensor.Complex64:
		for i := 0; i+1 < len(p.ScomplexVal); i += 2 {
			add(size, uint64(math.Float32bits(p.ScomplexVal[i]))|uint64(math.Float32bits(p.ScomplexVal[i+1]))<<32)
		}
		return elements, len(p.ScomplexVal)%2 == 0
	case tensor.Complex128:
		for i := 0; i+1 < len(p.DcomplexVal); i += 2 {
			re, im := math.Float64bits(p.DcomplexVal[i]), math.Float64bits(p.DcomplexVal[i+1])
			elements = append(elements, binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, re), im))
		}
		return elements, len(p.DcomplexVal)%2 == 0
	case tensor.Int64:
		for _, v := range p.Int64Val {
			add(size, uint64(v))
		}
	case tensor.Bool:
		for _, v := range p.BoolVal {
			if v {
				add(size, 1)
			} else {
				add(size, 0)
			}
		}
	case tensor.Uint32:
		for _, v := range p.Uint32Val {
			add(size, uint64(v))
		}
	case tensor.Uint64:
		for _, v := range p.Uint64Val {
			add(size, v)
		}
	case tensor.Float8E5M2, tensor.Float8E4M3:
		for _, v := range p.Float8Val {
			add(size, uint64(v))
		}
	default:
		for _, v := range p.IntVal {
			add(size, uint64(v))
		}
	}
	return elements, true
}

func referenceStrings(content []byte, shape tensor.Shape, n int64) (*tensor.Tensor, bool) {
	var lengths []uint64
	for int64(len(lengths)) < n {
		v, size := protowire.ConsumeVarint(content)
		if size < 0 {
			return nil, false
		}
		lengths, content = append(lengths, v), content[size:]
	}
	elements := [][]byte{}
	for _, l := range lengths {
		if l > uint64(len(content)) {
			return nil, false
		}
		elements, content = append(elements, content[:l]), content[l:]
	}
	return &tensor.Tensor{DType: tensor.String, Shape: shape, Strings: elements}, len(content) == 0
}

// A builder of messages that the generated code never writes.
type raw []byte

func (r raw) bytes(num protowire.Number, b []byte) raw {
	return protowire.AppendBytes(protowire.AppendTag(r, num, protowire.BytesType), b)
}

func (r raw) varint(num protowire.Number, v uint64) raw {
	return protowire.AppendVarint(protowire.AppendTag(r, num, protowire.VarintType), v)
}

func (r raw) fixed32(num protowire.Number, v uint32) raw {
	return protowire.AppendFixed32(protowire.AppendTag(r, num, protowire.Fixed32Type), v)
}

func (r raw) fixed64(num protowire.Number, v uint64) raw {
	return protowire.AppendFixed64(protowire.AppendTag(r, num, protowire.Fixed64Type), v)
}

func (r raw) tag(num protowire.Number, typ protowire.Type) raw {
	return protowire.AppendTag(r, num, typ)
}

// input is a request with one entry of the inputs map.
func (r raw) input(alias string, tensor raw) raw {
	return r.bytes(2, raw(nil).bytes(1, []byte(alias)).bytes(2, tensor))
}

func dims(sizes ...uint64) raw {
	var s raw
	for _, d := range sizes {
		s = s.bytes(2, raw(nil).varint(1, d))
	}
	return raw(nil).bytes(2, s)
}

// messages are requests that a careless reader gets wrong, by name.
func messages() map[string][]byte {
	f := func(tensor raw) []byte { return raw(nil).input("x", tensor) }
	ones := bytes.Repeat([]byte{0, 0, 128, 63}, 4)
	list := map[string][]byte{
		"empty":                     nil,
		"spec in two parts":         raw(nil).bytes(1, raw(nil).bytes(1, []byte("a"))).bytes(1, raw(nil).bytes(3, []byte("s"))),
		"name twice":                raw(nil).bytes(1, raw(nil).bytes(1, []byte("a")).bytes(1, []byte("b"))),
		"version then label":        raw(nil).bytes(1, raw(nil).bytes(2, raw(nil).varint(1, 5)).bytes(4, []byte("l"))),
		"label then version":        raw(nil).bytes(1, raw(nil).bytes(4, []byte("l")).bytes(2, raw(nil).varint(1, 5))),
		"version, label, version 0": raw(nil).bytes(1, raw(nil).bytes(2, raw(nil).varint(1, 5)).bytes(4, []byte("l")).bytes(2, nil)),
		"version in two parts":      raw(nil).bytes(1, raw(nil).bytes(2, raw(nil).varint(1, 5))).bytes(1, raw(nil).bytes(2, nil)),
		"negative version":          raw(nil).bytes(1, raw(nil).bytes(2, raw(nil).varint(1, math.MaxUint64))),
		"spec of wrong type":        raw(nil).varint(1, 7),
		"bad UTF-8 in name":         raw(nil).bytes(1, raw(nil).bytes(1, []byte{0xff})),
		"bad UTF-8 in label":        raw(nil).bytes(1, raw(nil).bytes(4, []byte{0xff})),
		"bad UTF-8 in filter":       raw(nil).bytes(3, []byte{0xff}),
		"bad UTF-8 in alias":        raw(nil).input("\xff", nil),
		"bad UTF-8 in dim name":     f(raw(nil).bytes(2, raw(nil).bytes(2, raw(nil).bytes(2, []byte{0xff})))),
		"bad UTF-8 in client_id":    raw(nil).bytes(6, []byte{0xff}),
		"filter":                    raw(nil).bytes(3, []byte("b")).bytes(3, []byte("a")).bytes(3, nil),
		"streamed options":          raw(nil).bytes(5, raw(nil).varint(1, 2).bytes(2, raw(nil).bytes(1, []byte("x")).varint(2, 1))),
		"bad streamed options":      raw(nil).bytes(5, []byte{0xff}),
		"request options":           raw(nil).bytes(7, raw(nil).bytes(1, []byte{0xff}).varint(2, 1)),
		"bad request options":       raw(nil).bytes(7, []byte{8}),
		"unknown fields":            raw(nil).varint(99, 1).bytes(4, []byte("reserved")).fixed32(1000, 1).fixed64(1<<29-1, 1).bytes(3, []byte("y")),
		"unknown group":             raw(nil).tag(50, protowire.StartGroupType).varint(1, 1).tag(50, protowire.EndGroupType).bytes(3, []byte("y")),
		"group not ended":           raw(nil).tag(50, protowire.StartGroupType).varint(1, 1),
		"group not begun":           raw(nil).tag(50, protowire.EndGroupType),
		"known field as a group":    raw(nil).tag(2, protowire.StartGroupType).tag(2, protowire.EndGroupType),
		"field number 0":            {0, 0},
		"field number too large":    protowire.AppendVarint(nil, 1<<32),
		"reserved wire type":        {6, 0},
		"key twice in an entry":     raw(nil).bytes(2, raw(nil).bytes(1, []byte("a")).bytes(1, []byte("b"))),
		"no key":                    raw(nil).bytes(2, raw(nil).bytes(2, raw(nil).varint(1, 1))),
		"no value":                  raw(nil).bytes(2, raw(nil).bytes(1, []byte("a"))),
		"key of wrong type":         raw(nil).bytes(2, raw(nil).varint(1, 3)),
		"value merged in an entry": raw(nil).bytes(2, raw(nil).bytes(1, []byte("a")).bytes(2, append(raw(nil).varint(1, 1), dims(3)...)).
			bytes(2, append(raw(nil).bytes(5, ones[:4]), dims(1)...)).bytes(2, raw(nil).bytes(5, ones[:8]))),
		"entry replaced": raw(nil).input("a", append(raw(nil).varint(1, 1).bytes(5, ones), dims(4)...)).
			input("b", raw(nil).varint(1, 2)).input("a", raw(nil).varint(1, 3)),
		"packed and unpacked floats": f(append(raw(nil).varint(1, 1).fixed32(5, 7).bytes(5, ones).fixed32(5, 9).bytes(5, nil), dims(6)...)),
		"empty piece before floats":  f(append(raw(nil).varint(1, 1).bytes(5, nil).bytes(5, ones), dims(4)...)),
		"values before dtype":        f(append(raw(nil).bytes(5, ones), append(dims(4), raw(nil).varint(1, 1)...)...)),
		"half a float":               f(raw(nil).bytes(5, ones[:3])),
		"half a double":              f(raw(nil).bytes(6, ones[:12])),
		"packed varint cut":          f(raw(nil).bytes(7, []byte{1, 0x80})),
		"packed varint too long":     f(raw(nil).bytes(10, bytes.Repeat([]byte{0xff}, 11))),
		"float as varint":            f(append(raw(nil).varint(1, 1).varint(5, 7), dims(1)...)),
		"int as fixed":               f(append(raw(nil).varint(1, 3).fixed32(7, 7), dims(1)...)),
		"long varints":               f(append(raw(nil).varint(1, 3).bytes(7, []byte{0x81, 0x80, 0x80, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}), dims(2)...)),
		"bool above one":             f(append(raw(nil).varint(1, 10).bytes(11, []byte{0, 2, 0x80, 2}).varint(11, 1<<63), dims(4)...)),
		"dtype wraps":                f(append(raw(nil).varint(1, 1<<32|3).bytes(7, []byte{1}), dims(1)...)),
		"content twice":              f(append(raw(nil).varint(1, 1).bytes(4, ones).bytes(4, ones[:4]), dims(1)...)),
		"content emptied":            f(append(raw(nil).varint(1, 1).bytes(4, ones).bytes(4, nil).bytes(5, ones), dims(4)...)),
		"content beats values":       f(append(raw(nil).varint(1, 1).bytes(4, make([]byte, 16)).bytes(5, ones), dims(4)...)),
		"strings":                    f(append(raw(nil).varint(1, 7).bytes(8, []byte("ab")).bytes(8, nil).bytes(8, []byte{0xff}), dims(4)...)),
		"strings in content":         f(append(raw(nil).varint(1, 7).bytes(4, []byte("\x02\x00\x01abc")), dims(3)...)),
		"strings in content, short":  f(append(raw(nil).varint(1, 7).bytes(4, []byte("\x02\x00\x02abc")), dims(3)...)),
		"strings in content, long":   f(append(raw(nil).varint(1, 7).bytes(4, []byte("\x02\x00\x00abc")), dims(3)...)),
		"strings in content, few":    f(append(raw(nil).varint(1, 7).bytes(4, []byte("\x00")), dims(3)...)),
		"strings in content, many":   f(append(raw(nil).varint(1, 7).bytes(4, []byte("\x00\x00")), dims(1<<40)...)),
		"strings in content, huge":   f(append(raw(nil).varint(1, 7).bytes(4, append(bytes.Repeat([]byte{0xff}, 9), 1, 'a')), dims(1)...)),
		"shape in two parts":         f(append(raw(nil).varint(1, 1).bytes(5, ones[:4]), append(dims(2), dims(3)...)...)),
		"unknown rank taken back":    f(raw(nil).varint(1, 1).bytes(2, raw(nil).varint(3, 1)).bytes(2, raw(nil).varint(3, 0))),
		"dim with size twice":        f(raw(nil).varint(1, 1).bytes(2, raw(nil).bytes(2, raw(nil).varint(1, 9).varint(1, 2).bytes(2, []byte("n"))))),
		"no shape is a scalar":       f(raw(nil).varint(1, 1).bytes(5, ones[:4])),
		"resource handle":            f(raw(nil).varint(1, 20).bytes(14, raw(nil).bytes(1, []byte("cpu")))),
		"bad resource handle":        f(raw(nil).varint(1, 20).bytes(14, raw(nil).bytes(1, []byte{0xff}))),
		"variant":                    f(raw(nil).varint(1, 21).bytes(15, raw(nil).bytes(3, raw(nil).varint(1, 1)))),
		"bad variant":                f(raw(nil).varint(1, 21).bytes(15, raw(nil).bytes(3, raw(nil).bytes(5, ones[:3])))),
		"values beside an odd field": f(append(raw(nil).varint(1, 1).varint(18, 3).varint(8, 3).bytes(1, ones).bytes(5, ones), dims(4)...)),
	}
	for n := range 12 { // around the deepest nesting that is read
		list[fmt.Sprint("nested ", 9988+n)] = f(raw(nil).varint(1, 21).bytes(15, nest(9988+n)))
	}
	many := raw(nil)
	for i := range 100 { // past the linear search, with every name twice
		many = many.input(fmt.Sprint("n", i%50), append(raw(nil).varint(1, 3).varint(7, uint64(i)), dims(1)...))
	}
	list["many inputs"] = many
	values := map[typespb.DataType]*tensorpb.TensorProto{
		typespb.DataType_DT_FLOAT:         {FloatVal: []float32{1, float32(math.NaN())}},
		typespb.DataType_DT_DOUBLE:        {DoubleVal: []float64{1, math.Inf(-1)}},
		typespb.DataType_DT_INT32:         {IntVal: []int32{1, -2}},
		typespb.DataType_DT_UINT8:         {IntVal: []int32{1, 300}},
		typespb.DataType_DT_INT16:         {IntVal: []int32{1, -2}},
		typespb.DataType_DT_INT8:          {IntVal: []int32{1, -2}},
		typespb.DataType_DT_STRING:        {StringVal: [][]byte{[]byte("a"), []byte("bc")}},
		typespb.DataType_DT_COMPLEX64:     {ScomplexVal: []float32{1, 2, 3, 4}},
		typespb.DataType_DT_INT64:         {Int64Val: []int64{1, math.MinInt64}},
		typespb.DataType_DT_BOOL:          {BoolVal: []bool{true, false}},
		typespb.DataType_DT_QINT8:         {IntVal: []int32{1, -2}},
		typespb.DataType_DT_QUINT8:        {IntVal: []int32{1, 255}},
		typespb.DataType_DT_QINT32:        {IntVal: []int32{1, -2}},
		typespb.DataType_DT_BFLOAT16:      {HalfVal: []int32{1, 0xffff}},
		typespb.DataType_DT_QINT16:        {IntVal: []int32{1, -2}},
		typespb.DataType_DT_QUINT16:       {IntVal: []int32{1, 0xffff}},
		typespb.DataType_DT_UINT16:        {IntVal: []int32{1, 0xffff}},
		typespb.DataType_DT_COMPLEX128:    {DcomplexVal: []float64{1, 2, 3, 4}},
		typespb.DataType_DT_HALF:          {HalfVal: []int32{1, 0x7c00}},
		typespb.DataType_DT_UINT32:        {Uint32Val: []uint32{1, math.MaxUint32}},
		typespb.DataType_DT_UINT64:        {Uint64Val: []uint64{1, math.MaxUint64}},
		typespb.DataType_DT_FLOAT8_E5M2:   {Float8Val: []byte{1, 255}},
		typespb.DataType_DT_FLOAT8_E4M3FN: {Float8Val: []byte{1, 255}},
		typespb.DataType_DT_INT4:          {IntVal: []int32{1, -2}},
		typespb.DataType_DT_UINT4:         {IntVal: []int32{1, 15}},
	}
	for d, p := range values {
		for n := range int64(5) { // none, too many, exact and repeated; and no value at all
			p.Dtype, p.TensorShape = d, shapeOf(n)
			empty := &tensorpb.TensorProto{Dtype: d, TensorShape: p.TensorShape}
			b, err := proto.Marshal(ask(modelSpec("m"), "", map[string]*tensorpb.TensorProto{"x": p, "empty": empty}))
			if err != nil {
				panic(err)
			}
			list[fmt.Sprint(d, " ", n)] = b
		}
	}
	return list
}

// nest is a VariantTensorDataProto with n messages inside each other.
func nest(n int) raw {
	var b raw
	if n%2 == 1 {
		b = raw(nil).bytes(3, nil)
	}
	for range n / 2 {
		b = raw(nil).bytes(3, raw(nil).bytes(15, b))
	}
	return b
}

func TestParseLikeGenerated(t *testing.T) {
	accepted := 0
	for name, data := range messages() {
		t.Run(name, func(t *testing.T) {
			if err := compare(data); err != nil {
				t.Errorf("%x: %v", data[:min(len(data), 200)], err)
			}
			if proto.Unmarshal(data, new(pb.PredictRequest)) == nil {
				accepted++
			}
			if len(data) > 1000 {
				return
			}
			for cut := range data { // every torn message
				if err := compare(data[:cut]); err != nil {
					t.Errorf("%x: %v", data[:cut], err)
				}
			}
			for i := range data { // every message with one byte changed
				bent := bytes.Clone(data)
				bent[i] ^= 1 << (i % 8)
				if err := compare(bent); err != nil {
					t.Errorf("%x: %v", bent, err)
				}
			}
		})
	}
	if accepted < 150 {
		t.Errorf("only %d of the messages are valid: the test shows little", accepted)
	}
}

// The one difference from the generated reader: too many entries are refused, before they take memory.
func TestParseTooManyEntries(t *testing.T) {
	inputs := raw(nil)
	for i := range maxEntries + 1 {
		inputs = inputs.input(fmt.Sprint(i), nil)
	}
	if err := new(request).parse(inputs); err == nil || !strings.Contains(err.Error(), "inputs") {
		t.Errorf("%d inputs: %v", maxEntries+1, err)
	}
	filter := raw(bytes.Repeat(raw(nil).bytes(3, nil), maxEntries+1))
	if err := new(request).parse(filter); err == nil || !strings.Contains(err.Error(), "outputs") {
		t.Errorf("%d outputs: %v", maxEntries+1, err)
	}
}

// Tensors lie in the received message where the wire has their bytes, also when it came in several pieces.
func TestUnmarshalSharesMemory(t *testing.T) {
	payload := bytes.Repeat([]byte{0, 0, 128, 63}, 2000)
	for name, p := range map[string]*tensorpb.TensorProto{
		"tensor_content": content(typespb.DataType_DT_FLOAT, []int64{2000}, payload),
		"packed floats":  {Dtype: typespb.DataType_DT_FLOAT, TensorShape: shapeOf(2000), FloatVal: slices.Repeat([]float32{1}, 2000)},
		"strings":        {Dtype: typespb.DataType_DT_STRING, TensorShape: shapeOf(1), StringVal: [][]byte{payload}},
		"float8":         {Dtype: typespb.DataType_DT_FLOAT8_E5M2, TensorShape: shapeOf(8000), Float8Val: payload},
	} {
		data, err := proto.Marshal(ask(modelSpec("m"), "", x(p)))
		if err != nil {
			t.Fatal(err)
		}
		for _, pieces := range []mem.BufferSlice{{mem.SliceBuffer(data)}, {mem.SliceBuffer(data[:5000]), mem.SliceBuffer(data[5000:])}} {
			req := new(request)
			if err := newCodec(new(bufferPool)).Unmarshal(pieces, req); err != nil {
				t.Fatal(err)
			}
			got, err := req.inputs[0].tensor.decode(allowed())
			if err != nil {
				t.Fatal(err)
			}
			lies := got.Data
			if got.DType == tensor.String {
				lies = got.Strings[0]
			}
			if !bytes.Equal(lies, payload) {
				t.Errorf("%s in %d pieces: wrong bytes", name, len(pieces))
			}
			whole := req.buffer.ReadOnlyData()
			at := bytes.Index(whole, payload)
			if &lies[0] != &whole[at] {
				t.Errorf("%s in %d pieces was copied", name, len(pieces))
			}
			if len(pieces) == 1 && &whole[0] != &data[0] {
				t.Errorf("%s in one piece: the message was copied", name)
			}
			req.free()
			req.free()
		}
	}
}

// A message that cannot be parsed does not keep its buffer.
func TestUnmarshalFreesOnError(t *testing.T) {
	pool := &countingPool{}
	data := bytes.Repeat([]byte{0xff}, 5000)
	message := mem.BufferSlice{mem.NewBuffer(&data, pool)}
	if err := newCodec(new(bufferPool)).Unmarshal(message, new(request)); !errors.Is(err, errMalformed) {
		t.Fatal(err)
	}
	message.Free() // as grpc does when Unmarshal returns
	if pool.put != 1 {
		t.Errorf("the buffer came back %d times, want 1", pool.put)
	}
}

// countingPool counts what it lends and what comes back, which it spoils.
type countingPool struct {
	mu       sync.Mutex
	got, put int
}

func (p *countingPool) Get(n int) *[]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got++
	b := make([]byte, n)
	return &b
}

func (p *countingPool) Put(b *[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.put++
	clear(*b)
}

func (p *countingPool) counts() (got, put int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.got, p.put
}

func FuzzPredictRequest(f *testing.F) {
	for _, data := range messages() {
		if len(data) < 1000 {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := compare(data); err != nil {
			t.Error(err)
		}
	})
}
