// signatures.go: signature assertions in YAML.
package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	"github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	for_core_protos "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"go.yaml.in/yaml/v3"
)

// maxRank is TensorFlow's limit on dimensions.
const maxRank = 254

type yamlSignature struct {
	Method  string      `yaml:"method"`
	Inputs  yamlTensors `yaml:"inputs"`
	Outputs yamlTensors `yaml:"outputs"`
}

type yamlTensor struct {
	DType yamlDType `yaml:"dtype"`
	Shape yamlShape `yaml:"shape"`
	Name  string    `yaml:"name"`
}

type (
	yamlTensors map[string]*for_core_protos.TensorInfo
	yamlDType   types_go_proto.DataType
	yamlShape   struct {
		*tensor_shape_go_proto.TensorShapeProto // nil: not asserted
	}
)

func (s *Signatures) decodeNode(d *decoder, path string, n *yaml.Node) {
	got := make(Signatures)
	d.mapping(path, n, func(key string, _, v *yaml.Node) {
		var sig yamlSignature
		d.decode(join(path, key), v, reflect.ValueOf(&sig).Elem())
		got[key] = &for_core_protos.SignatureDef{Inputs: sig.Inputs, Outputs: sig.Outputs,
			MethodName: sig.Method} //nolint:staticcheck // SA1019: whoever asserts a method means the saved one
	})
	*s = got
}

func (t *yamlTensors) decodeNode(d *decoder, path string, n *yaml.Node) {
	got := make(yamlTensors)
	d.mapping(path, n, func(key string, _, v *yaml.Node) {
		var y yamlTensor
		d.decode(join(path, key), v, reflect.ValueOf(&y).Elem())
		info := &for_core_protos.TensorInfo{Dtype: types_go_proto.DataType(y.DType), TensorShape: y.Shape.TensorShapeProto}
		if y.Name != "" {
			info.Encoding = &for_core_protos.TensorInfo_Name{Name: y.Name}
		}
		got[key] = info
	})
	if len(got) > 0 {
		*t = got
	}
}

// decodeNode takes both of TensorFlow's spellings, DT_FLOAT and float.
func (t *yamlDType) decodeNode(d *decoder, path string, n *yaml.Node) {
	name := n.Value
	if !strings.HasPrefix(name, "DT_") {
		name = "DT_" + strings.ToUpper(name)
	}
	value, ok := types_go_proto.DataType_value[name]
	if n.Kind != yaml.ScalarNode || !ok || value == 0 {
		d.addf(n, path, "%s is not a type of TensorFlow's; write for example float or DT_FLOAT", describe(n))
		return
	}
	*t = yamlDType(value)
}

func (s *yamlShape) decodeNode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == "unknown" {
		s.TensorShapeProto = &tensor_shape_go_proto.TensorShapeProto{UnknownRank: true}
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.addf(n, path, "%s is not a shape; write a list such as [-1, 28, 28, 1], or unknown for an unknown rank", describe(n))
		return
	}
	var dims []int64
	d.decode(path, n, reflect.ValueOf(&dims).Elem())
	s.TensorShapeProto = &tensor_shape_go_proto.TensorShapeProto{}
	for _, size := range dims {
		s.Dim = append(s.Dim, &tensor_shape_go_proto.TensorShapeProto_Dim{Size: size})
	}
	if fault := shapeFault(s.TensorShapeProto); fault != "" {
		d.addf(n, path, "%s", fault)
	}
}

// shapeFault says why a shape cannot be asserted.
func shapeFault(s *tensor_shape_go_proto.TensorShapeProto) string {
	if len(s.GetDim()) > maxRank {
		return "has more dimensions than the 254 that TensorFlow allows"
	}
	for _, dim := range s.GetDim() {
		if dim.GetSize() < -1 {
			return "a dimension below -1 is impossible; write -1 for one of any size"
		}
	}
	return ""
}

func encodeSignatures(s Signatures) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		sig := &yaml.Node{Kind: yaml.MappingNode}
		if m := s[key].GetMethodName(); m != "" {
			sig.Content = append(sig.Content, plain("method"), text(m))
		}
		sig.Content = append(sig.Content, plain("inputs"), encodeTensors(s[key].GetInputs()), plain("outputs"), encodeTensors(s[key].GetOutputs()))
		n.Content = append(n.Content, text(key), sig)
	}
	return n
}

func encodeTensors(infos map[string]*for_core_protos.TensorInfo) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, alias := range slices.Sorted(maps.Keys(infos)) {
		info, e := infos[alias], pairs()
		if info.GetDtype() != types_go_proto.DataType_DT_INVALID {
			e.Content = append(e.Content, plain("dtype"), plain(info.GetDtype().String()))
		}
		if shape := info.GetTensorShape(); shape.GetUnknownRank() {
			e.Content = append(e.Content, plain("shape"), plain("unknown"))
		} else if shape != nil {
			var dims []int64
			for _, dim := range shape.GetDim() {
				dims = append(dims, dim.GetSize())
			}
			e.Content = append(e.Content, plain("shape"), encode(reflect.ValueOf(dims)))
		}
		if info.GetName() != "" {
			e.Content = append(e.Content, plain("name"), text(info.GetName()))
		}
		n.Content = append(n.Content, text(alias), e)
	}
	return n
}

// encodeMap is a map with string keys in order.
func encodeMap(v reflect.Value) *yaml.Node {
	n := pairs()
	for _, key := range slices.SortedFunc(slices.Values(v.MapKeys()), func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) }) {
		n.Content = append(n.Content, text(key.String()), encode(v.MapIndex(key)))
	}
	return n
}
