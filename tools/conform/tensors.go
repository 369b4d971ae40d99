// tensors.go: tensors as each protocol writes them, and back.
package conform

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// element is the number at a byte of t's data, as JSON has it.
func element(t *tensor.Tensor, at int) string {
	le, d := binary.LittleEndian, t.Data[at:]
	switch t.DType {
	case tensor.Float:
		return float(float64(math.Float32frombits(le.Uint32(d))), 32)
	case tensor.Double:
		return float(math.Float64frombits(le.Uint64(d)), 64)
	case tensor.Int32:
		return strconv.Itoa(int(int32(le.Uint32(d))))
	case tensor.Int64:
		return strconv.FormatInt(int64(le.Uint64(d)), 10)
	case tensor.Uint32:
		return strconv.Itoa(int(le.Uint32(d)))
	case tensor.Uint64:
		return strconv.FormatUint(le.Uint64(d), 10)
	case tensor.Int16:
		return strconv.Itoa(int(int16(le.Uint16(d))))
	case tensor.Uint16:
		return strconv.Itoa(int(le.Uint16(d)))
	case tensor.Int8:
		return strconv.Itoa(int(int8(d[0])))
	case tensor.Uint8:
		return strconv.Itoa(int(d[0]))
	case tensor.Bool:
		return strconv.FormatBool(d[0] != 0)
	}
	panic("conform: no case has tensors of type " + t.DType.Name())
}

func float(f float64, bits int) string {
	switch {
	case math.IsNaN(f):
		return "NaN"
	case math.IsInf(f, 1):
		return "Infinity"
	case math.IsInf(f, -1):
		return "-Infinity"
	}
	s := strconv.FormatFloat(f, 'g', -1, bits)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// elements are those of t in JSON: strings that are text as they are, others as an object with base64.
func elements(t *tensor.Tensor) (all []string) {
	if t.DType != tensor.String {
		for i := 0; i < len(t.Data); i += t.DType.Size() {
			all = append(all, element(t, i))
		}
		return all
	}
	for _, s := range t.Strings {
		if utf8.Valid(s) {
			quoted, _ := json.Marshal(string(s)) // a string can be
			all = append(all, string(quoted))
			continue
		}
		all = append(all, `{"b64":"`+base64.StdEncoding.EncodeToString(s)+`"}`)
	}
	return all
}

// nested is t as lists in lists.
func nested(t *tensor.Tensor) string { return nest(t.Shape, elements(t)) }

func nest(shape []int64, e []string) string {
	if len(shape) == 0 {
		return e[0]
	}
	parts := make([]string, shape[0])
	per := len(e) / max(1, int(shape[0]))
	for i := range parts {
		parts[i] = nest(shape[1:], e[i*per:(i+1)*per])
	}
	return "[" + strings.Join(parts, ",") + "]"
}

var bare = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b`)

// parse reads JSON whose numbers may be NaN and the infinities, as TensorFlow Serving writes them; these become strings.
func parse(body []byte, into any) error {
	body = bare.ReplaceAllFunc(body, func(m []byte) []byte {
		if m[0] == '"' {
			return m
		}
		return fmt.Appendf(nil, `{"bare":%q}`, m)
	})
	dec := json.NewDecoder(strings.NewReader(string(body)))
	dec.UseNumber()
	return dec.Decode(into)
}

// written is a value of JSON in Text's words.
func written(v any) string {
	var shape []int64
	var all []string
	var walk func(v any, depth int)
	walk = func(v any, depth int) {
		switch v := v.(type) {
		case []any:
			if depth == len(shape) {
				shape = append(shape, int64(len(v)))
			}
			for _, e := range v {
				walk(e, depth+1)
			}
		default:
			all = append(all, scalar(v))
		}
	}
	walk(v, 0)
	return text(shape, all)
}

func scalar(v any) string {
	switch v := v.(type) {
	case json.Number:
		return canonical(v.String())
	case string:
		return strconv.Quote(v)
	case bool:
		return strconv.FormatBool(v)
	case nil:
		return "null"
	case map[string]any:
		if s, ok := v["bare"].(string); ok {
			return s
		}
		if s, ok := v["b64"].(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			if err == nil {
				return strconv.Quote(string(b))
			}
		}
	}
	return fmt.Sprintf("%T %v", v, v)
}

// proto is t as TensorFlow has it.
func proto(t *tensor.Tensor) *tensorpb.TensorProto {
	p := &tensorpb.TensorProto{Dtype: typespb.DataType(t.DType), TensorShape: new(shapepb.TensorShapeProto)}
	for _, d := range t.Shape {
		p.TensorShape.Dim = append(p.TensorShape.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
	}
	p.TensorContent, p.StringVal = t.Data, t.Strings
	return p
}

// protoText is a TensorProto in Text's words.
func protoText(p *tensorpb.TensorProto) string {
	var shape []int64
	for _, d := range p.GetTensorShape().GetDim() {
		shape = append(shape, d.GetSize())
	}
	if len(p.GetTensorContent()) > 0 {
		return Text(&tensor.Tensor{DType: tensor.DType(p.Dtype), Shape: shape, Data: p.TensorContent})
	}
	var all []string
	for _, f := range p.FloatVal {
		all = append(all, canonical(float(float64(f), 32)))
	}
	for _, f := range p.DoubleVal {
		all = append(all, canonical(float(f, 64)))
	}
	for _, n := range p.IntVal {
		all = append(all, strconv.Itoa(int(n)))
	}
	for _, n := range p.Int64Val {
		all = append(all, strconv.FormatInt(n, 10))
	}
	for _, n := range p.Uint32Val {
		all = append(all, strconv.Itoa(int(n)))
	}
	for _, n := range p.Uint64Val {
		all = append(all, strconv.FormatUint(n, 10))
	}
	for _, b := range p.BoolVal {
		all = append(all, strconv.FormatBool(b))
	}
	for _, s := range p.StringVal {
		all = append(all, strconv.Quote(string(s)))
	}
	return text(shape, all)
}
