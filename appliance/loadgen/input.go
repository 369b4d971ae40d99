// input.go: the inputs that are sent: made up from what the model declares, or from a file.
package loadgen

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	serving "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// maxMade bounds the elements of a made-up input.
const maxMade = 16 << 20

// named is one request's inputs.
type named map[string]*tensor.Tensor

// makeUp makes random inputs: rows for the first dimension where the model takes any number, 1 for other such dimensions.
func makeUp(random *rand.Rand, infos []inference.TensorInfo, rows int64) (named, error) {
	made := named{}
	for _, info := range infos {
		shape := tensor.Shape{rows}
		if !info.UnknownRank {
			shape = make(tensor.Shape, len(info.Shape))
			for i, d := range info.Shape {
				switch {
				case d >= 0:
					shape[i] = d
				case i == 0:
					shape[i] = rows
				default:
					shape[i] = 1
				}
			}
		}
		n, err := shape.Elements()
		switch {
		case err == nil && n > maxMade:
			err = fmt.Errorf("%d elements are more than %d; send fewer --rows", n, maxMade)
		case err == nil && n == 0: // besides, one of its other dimensions may be endless
			err = errors.New("it has no elements")
		}
		if err != nil {
			return nil, fmt.Errorf("input %q of shape %.200v: %w; give a request with --input", info.Alias, shape, err)
		}
		t, err := randomTensor(random, info.DType, shape, n)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w; give a request with --input", info.Alias, err)
		}
		made[info.Alias] = t
	}
	return made, nil
}

// randomTensor stays in what models like: numbers from 0 to 1, small whole numbers (they may be indexes), bytes of any value.
func randomTensor(random *rand.Rand, d tensor.DType, shape tensor.Shape, n int64) (*tensor.Tensor, error) {
	if d == tensor.String {
		elements := make([][]byte, n)
		for i := range elements {
			elements[i] = fmt.Appendf(nil, "%08x", random.Uint32())
		}
		return tensor.NewStrings(shape, elements)
	}
	data := make([]byte, 0, n*int64(d.Size()))
	le := binary.LittleEndian
	for range n {
		switch d {
		case tensor.Float:
			data = le.AppendUint32(data, math.Float32bits(random.Float32()))
		case tensor.Double:
			data = le.AppendUint64(data, math.Float64bits(random.Float64()))
		case tensor.Half:
			data = le.AppendUint16(data, 0x3800|uint16(random.Uint32N(1<<10))) // 0.5 to 1
		case tensor.BFloat16:
			data = le.AppendUint16(data, 0x3f00|uint16(random.Uint32N(1<<7))) // 0.5 to 1
		case tensor.Uint8:
			data = append(data, byte(random.Uint32()))
		case tensor.Int8:
			data = append(data, byte(random.Uint32N(10)))
		case tensor.Bool:
			data = append(data, byte(random.Uint32N(2)))
		case tensor.Int16, tensor.Uint16:
			data = le.AppendUint16(data, uint16(random.Uint32N(10)))
		case tensor.Int32, tensor.Uint32:
			data = le.AppendUint32(data, random.Uint32N(10))
		case tensor.Int64, tensor.Uint64:
			data = le.AppendUint64(data, random.Uint64N(10))
		default:
			return nil, fmt.Errorf("no values are made up for %v", d)
		}
	}
	return tensor.New(d, shape, data)
}

// encodeREST is the body {"signature_name": ..., "inputs": {...}}.
func encodeREST(in named, infos []inference.TensorInfo, signature string) ([]byte, error) {
	var b []byte
	b = append(b, '{')
	if signature != inference.DefaultSignature {
		name, err := json.Marshal(signature)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, `"signature_name":`...), name...), ',')
	}
	b = append(b, `"inputs":{`...)
	for i, info := range infos {
		if i > 0 {
			b = append(b, ',')
		}
		alias, err := json.Marshal(info.Alias)
		if err != nil {
			return nil, err
		}
		b = append(append(b, alias...), ':')
		at := 0
		b = appendNested(b, in[info.Alias], 0, &at)
	}
	return append(b, "}}"...), nil
}

func appendNested(b []byte, t *tensor.Tensor, dim int, at *int) []byte {
	if dim == len(t.Shape) {
		b = appendElement(b, t, *at)
		*at++
		return b
	}
	b = append(b, '[')
	for i := range t.Shape[dim] {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendNested(b, t, dim+1, at)
	}
	return append(b, ']')
}

func appendElement(b []byte, t *tensor.Tensor, i int) []byte {
	le, size := binary.LittleEndian, t.DType.Size()
	d := t.Data[min(i*size, len(t.Data)):]
	switch t.DType {
	case tensor.String:
		b = append(b, `{"b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, t.Strings[i])
		return append(b, `"}`...)
	case tensor.Float:
		return strconv.AppendFloat(b, float64(math.Float32frombits(le.Uint32(d))), 'g', -1, 32)
	case tensor.Double:
		return strconv.AppendFloat(b, math.Float64frombits(le.Uint64(d)), 'g', -1, 64)
	case tensor.Half: // made up: 0.5 to 1
		return strconv.AppendFloat(b, 0.5+float64(le.Uint16(d)&0x3ff)/2048, 'g', -1, 32)
	case tensor.BFloat16:
		return strconv.AppendFloat(b, float64(math.Float32frombits(uint32(le.Uint16(d))<<16)), 'g', -1, 32)
	case tensor.Bool:
		return strconv.AppendBool(b, d[0] != 0)
	case tensor.Uint8, tensor.Int8: // an int8 is made up from 0 to 9
		return strconv.AppendUint(b, uint64(d[0]), 10)
	case tensor.Int16, tensor.Uint16:
		return strconv.AppendUint(b, uint64(le.Uint16(d)), 10)
	case tensor.Int32, tensor.Uint32:
		return strconv.AppendUint(b, uint64(le.Uint32(d)), 10)
	default:
		return strconv.AppendUint(b, le.Uint64(d), 10)
	}
}

// encodeGRPC is a PredictRequest.
func encodeGRPC(in named, t Target, signature string) ([]byte, error) {
	req := &serving.PredictRequest{ModelSpec: t.spec(signature), Inputs: map[string]*framework.TensorProto{}}
	for alias, v := range in {
		shape := &shapepb.TensorShapeProto{}
		for _, d := range v.Shape {
			shape.Dim = append(shape.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
		}
		req.Inputs[alias] = &framework.TensorProto{Dtype: typespb.DataType(v.DType), TensorShape: shape, TensorContent: v.Data, StringVal: v.Strings}
	}
	return proto.Marshal(req)
}

// parseInput reads {"inputs": ...} or {"instances": ...} as tensors, for gRPC.
func parseInput(doc []byte, infos []inference.TensorInfo) (named, error) {
	var body struct{ Inputs, Instances any }
	dec := json.NewDecoder(bytes.NewReader(doc))
	dec.UseNumber()
	if err := dec.Decode(&body); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	columns := map[string]any{}
	switch {
	case body.Inputs != nil:
		m, ok := body.Inputs.(map[string]any)
		if _, coded := m["b64"]; !ok || coded && len(m) == 1 && len(infos) == 1 && infos[0].DType == tensor.String {
			if len(infos) != 1 {
				return nil, fmt.Errorf("\"inputs\" must be an object with the model's %d inputs", len(infos))
			}
			m = map[string]any{infos[0].Alias: body.Inputs}
		}
		columns = m
	case body.Instances != nil:
		list, ok := body.Instances.([]any)
		if !ok || len(list) == 0 {
			return nil, fmt.Errorf("\"instances\" must be a list with a row or more")
		}
		for _, row := range list {
			m, ok := row.(map[string]any)
			if _, coded := m["b64"]; !ok || coded && len(m) == 1 {
				if len(infos) != 1 {
					return nil, fmt.Errorf("a row must be an object with the model's %d inputs", len(infos))
				}
				m = map[string]any{infos[0].Alias: row}
			}
			for alias, v := range m {
				column, _ := columns[alias].([]any)
				columns[alias] = append(column, v)
			}
		}
	default:
		return nil, fmt.Errorf("it has neither \"inputs\" nor \"instances\"")
	}
	in := named{}
	for alias, v := range columns {
		i := 0
		for i < len(infos) && infos[i].Alias != alias {
			i++
		}
		if i == len(infos) {
			return nil, fmt.Errorf("the model has no input %.80q", alias)
		}
		t, err := flatten(v, infos[i].DType)
		if err != nil {
			return nil, fmt.Errorf("input %q: %w", alias, err)
		}
		in[alias] = t
	}
	return in, nil
}

// flatten makes a tensor of nested lists.
func flatten(v any, d tensor.DType) (*tensor.Tensor, error) {
	var (
		shape   tensor.Shape
		data    []byte
		strs    [][]byte
		descend func(v any, depth int) error
	)
	for at := v; ; {
		list, ok := at.([]any)
		if !ok {
			break
		}
		if shape = append(shape, int64(len(list))); len(shape) > tensor.MaxRank {
			return nil, fmt.Errorf("more than %d lists lie in each other", tensor.MaxRank)
		}
		if len(list) == 0 {
			break
		}
		at = list[0]
	}
	descend = func(v any, depth int) error {
		list, ok := v.([]any)
		if depth < len(shape) {
			if !ok || int64(len(list)) != shape[depth] {
				return fmt.Errorf("its lists are not all of the same length")
			}
			for _, e := range list {
				if err := descend(e, depth+1); err != nil {
					return err
				}
			}
			return nil
		}
		var err error
		if d == tensor.String {
			strs, err = appendString(strs, v)
		} else {
			data, err = appendNumber(data, v, d)
		}
		return err
	}
	if err := descend(v, 0); err != nil {
		return nil, err
	}
	if d == tensor.String {
		return tensor.NewStrings(shape, strs)
	}
	return tensor.New(d, shape, data)
}

func appendString(to [][]byte, v any) ([][]byte, error) {
	switch s := v.(type) {
	case string:
		return append(to, []byte(s)), nil
	case map[string]any:
		if text, ok := s["b64"].(string); ok && len(s) == 1 {
			b, err := base64.StdEncoding.DecodeString(text)
			if err != nil {
				return nil, fmt.Errorf("b64: %w", err)
			}
			return append(to, b), nil
		}
	}
	return nil, fmt.Errorf("a string is wanted, or {\"b64\": ...}")
}

func appendNumber(to []byte, v any, d tensor.DType) ([]byte, error) {
	le := binary.LittleEndian
	if b, ok := v.(bool); ok && d == tensor.Bool {
		if b {
			return append(to, 1), nil
		}
		return append(to, 0), nil
	}
	number, ok := v.(json.Number)
	if !ok {
		return nil, fmt.Errorf("%v is wanted, not %.40q", d, fmt.Sprint(v))
	}
	bits := d.Size() * 8
	switch d {
	case tensor.Float, tensor.Double:
		f, err := strconv.ParseFloat(number.String(), bits)
		if err != nil {
			return nil, err
		}
		if d == tensor.Float {
			return le.AppendUint32(to, math.Float32bits(float32(f))), nil
		}
		return le.AppendUint64(to, math.Float64bits(f)), nil
	case tensor.Int8, tensor.Int16, tensor.Int32, tensor.Int64:
		n, err := strconv.ParseInt(number.String(), 10, bits)
		if err != nil {
			return nil, err
		}
		return le.AppendUint64(to, uint64(n))[:len(to)+d.Size()], nil
	case tensor.Uint8, tensor.Uint16, tensor.Uint32, tensor.Uint64:
		n, err := strconv.ParseUint(number.String(), 10, bits)
		if err != nil {
			return nil, err
		}
		return le.AppendUint64(to, n)[:len(to)+d.Size()], nil
	default:
		return nil, fmt.Errorf("%v cannot be read from a file for gRPC; send it over REST", d)
	}
}
