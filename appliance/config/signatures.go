// signatures.go: signature assertions in YAML.
package config

import (
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

type yamlSignature struct {
	Method  string      `yaml:"method"`
	Inputs  yamlTensors `yaml:"inputs"`
	Outputs yamlTensors `yaml:"outputs"`
}

type yamlTensor struct {
	DType string    `yaml:"dtype"`
	Shape yamlShape `yaml:"shape"`
	Name  string    `yaml:"name"`
}

type (
	yamlTensors []inference.TensorInfo
	yamlShape   struct {
		dims    tensor.Shape
		unknown bool
	}
)

func (s *Signatures) decodeNode(d *decoder, path string, n *yaml.Node) {
	got := make(Signatures)
	d.mapping(path, n, func(key string, _, v *yaml.Node) {
		var sig yamlSignature
		d.decode(join(path, key), v, reflect.ValueOf(&sig).Elem())
		got[key] = &inference.Signature{Key: key, Method: sig.Method, Inputs: sig.Inputs, Outputs: sig.Outputs}
	})
	*s = got
}

func (t *yamlTensors) decodeNode(d *decoder, path string, n *yaml.Node) {
	d.mapping(path, n, func(key string, _, v *yaml.Node) {
		var y yamlTensor
		at := join(path, key)
		d.decode(at, v, reflect.ValueOf(&y).Elem())
		info := inference.TensorInfo{Alias: key, Tensor: y.Name, Shape: y.Shape.dims, UnknownRank: y.Shape.unknown}
		if y.DType != "" {
			dtype, ok := tensor.ParseDType(y.DType)
			if !ok || dtype == tensor.Invalid {
				d.addf(v, at+".dtype", "%q is not a type of TensorFlow's; write for example float or DT_FLOAT", shorten(y.DType))
			}
			info.DType = dtype
		}
		*t = append(*t, info)
	})
	sortByAlias(*t)
}

func sortByAlias(list []inference.TensorInfo) {
	slices.SortFunc(list, func(a, b inference.TensorInfo) int { return strings.Compare(a.Alias, b.Alias) })
}

func (s *yamlShape) decodeNode(d *decoder, path string, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.Value == "unknown" {
		s.unknown = true
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.addf(n, path, "%s is not a shape; write a list such as [-1, 28, 28, 1], or unknown for an unknown rank", describe(n))
		return
	}
	s.dims = tensor.Shape{}
	d.decode(path, n, reflect.ValueOf(&s.dims).Elem())
	for i, size := range s.dims {
		if size < -1 {
			d.addf(n.Content[i], path, "dimension %d is impossible; write -1 for one of any size", size)
		}
	}
	if len(s.dims) > tensor.MaxRank {
		d.addf(n, path, "%d dimensions, at most %d are possible", len(s.dims), tensor.MaxRank)
	}
}

func encodeSignatures(s Signatures) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, key := range slices.Sorted(maps.Keys(s)) {
		sig := &yaml.Node{Kind: yaml.MappingNode}
		if s[key].Method != "" {
			sig.Content = append(sig.Content, plain("method"), text(s[key].Method))
		}
		sig.Content = append(sig.Content, plain("inputs"), encodeTensors(s[key].Inputs), plain("outputs"), encodeTensors(s[key].Outputs))
		n.Content = append(n.Content, text(key), sig)
	}
	return n
}

func encodeTensors(list []inference.TensorInfo) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, t := range list {
		e := pairs()
		if t.DType != tensor.Invalid {
			e.Content = append(e.Content, plain("dtype"), plain(t.DType.String()))
		}
		switch {
		case t.UnknownRank:
			e.Content = append(e.Content, plain("shape"), plain("unknown"))
		case t.Shape != nil:
			e.Content = append(e.Content, plain("shape"), encode(reflect.ValueOf([]int64(t.Shape))))
		}
		if t.Tensor != "" {
			e.Content = append(e.Content, plain("name"), text(t.Tensor))
		}
		n.Content = append(n.Content, text(t.Alias), e)
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
