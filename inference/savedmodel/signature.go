// signature.go: SignatureDefs as inference.Signatures.
package savedmodel

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// signature converts one SignatureDef; an error says why it cannot be served.
func (g *graph) signature(key string, def *pb.SignatureDef) (*inference.Signature, error) {
	s := &inference.Signature{Key: key, Method: def.GetMethodName()}
	var err error
	if s.Inputs, err = g.infos("input", def.GetInputs()); err != nil {
		return nil, err
	}
	if s.Outputs, err = g.infos("output", def.GetOutputs()); err != nil {
		return nil, err
	}
	if len(s.Outputs) == 0 {
		return nil, errors.New("it has no outputs")
	}
	for alias, value := range def.GetDefaults() {
		i := s.Input(alias)
		if i < 0 {
			continue // TensorFlow Serving ignores a default for an input that does not exist
		}
		in := &s.Inputs[i]
		t, err := decodeTensor(value)
		if err != nil {
			return nil, fmt.Errorf("the default of input %q: %w", alias, err)
		}
		if t.DType != in.DType {
			return nil, fmt.Errorf("the default of input %q is %v, the input %v", alias, t.DType, in.DType)
		}
		in.Default = t
	}
	var outputs []string
	for i := range s.Outputs {
		outputs = append(outputs, nodeName(s.Outputs[i].Tensor))
	}
	op, where := g.reach(outputs, changesState)
	s.Writes = op != ""
	s.Unbatchable = unbatchable(s, op, where)
	s.Batchable = s.Unbatchable == ""
	return s, nil
}

func (g *graph) infos(side string, defs map[string]*pb.TensorInfo) ([]inference.TensorInfo, error) {
	list := make([]inference.TensorInfo, 0, len(defs))
	for alias, def := range defs {
		fail := func(format string, args ...any) error {
			return fmt.Errorf("%s %q %s", side, alias, fmt.Sprintf(format, args...))
		}
		switch def.GetEncoding().(type) {
		case *pb.TensorInfo_CooSparse_:
			return nil, fail("is a sparse tensor (coo_sparse); only dense tensors can be sent")
		case *pb.TensorInfo_CompositeTensor_:
			return nil, fail("is a composite tensor (ragged or the like); only dense tensors can be sent")
		}
		t := inference.TensorInfo{Alias: alias, Tensor: def.GetName(), DType: tensor.DType(def.GetDtype()).Base()}
		if t.Tensor == "" {
			return nil, fail("names no tensor")
		}
		if g.nodes[nodeName(t.Tensor)] == nil {
			return nil, fail("is tensor %q, which the graph does not have", t.Tensor)
		}
		if !t.DType.Carried() {
			return nil, fail("is %v, which cannot be sent", t.DType)
		}
		var err error
		if t.Shape, t.UnknownRank, err = shapeOf(def.GetTensorShape()); err != nil {
			return nil, fail("has an %v", err)
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b inference.TensorInfo) int { return strings.Compare(a.Alias, b.Alias) })
	return list, nil
}

// shapeOf reads a declared shape; one that is missing has an unknown rank.
func shapeOf(p *shapepb.TensorShapeProto) (shape tensor.Shape, unknownRank bool, err error) {
	if p == nil || p.GetUnknownRank() {
		return nil, true, nil
	}
	if len(p.GetDim()) > tensor.MaxRank {
		return nil, false, fmt.Errorf("%w: %d dimensions", tensor.ErrShape, len(p.GetDim()))
	}
	shape = make(tensor.Shape, 0, len(p.GetDim()))
	for _, d := range p.GetDim() {
		if d.GetSize() < -1 {
			return nil, false, fmt.Errorf("%w: dimension %d", tensor.ErrShape, d.GetSize())
		}
		shape = append(shape, d.GetSize())
	}
	return shape, false, nil
}

// unbatchable is the reason why requests must not be joined, or "".
func unbatchable(s *inference.Signature, op, where string) string {
	if s.Writes {
		return fmt.Sprintf("it changes the model's state (%s in %s)", op, where)
	}
	if len(s.Inputs) == 0 {
		return "it has no inputs"
	}
	check := func(side string, list []inference.TensorInfo) string {
		for i := range list {
			switch t := &list[i]; {
			case t.UnknownRank:
			case len(t.Shape) == 0:
				return fmt.Sprintf("%s %q is a scalar", side, t.Alias)
			case t.Shape[0] >= 0:
				return fmt.Sprintf("the first dimension of %s %q is fixed: %v", side, t.Alias, t.Shape)
			}
		}
		return ""
	}
	if why := check("input", s.Inputs); why != "" {
		return why
	}
	if why := check("output", s.Outputs); why != "" {
		return why
	}
	return raggedInput(s)
}

// raggedInput finds a ragged input as TensorFlow 2 saves it: "x" with the values and "x_1" with the row splits, INT64[-1]. Splits that are
// joined end to end mean something else, and the answers would be wrong without an error. An input that only looks so costs speed.
func raggedInput(s *inference.Signature) string {
	for i := range s.Inputs {
		t := &s.Inputs[i]
		values, ok := strings.CutSuffix(t.Alias, "_1")
		if ok && s.Input(values) >= 0 && t.DType == tensor.Int64 && t.Shape.Equal(tensor.Shape{-1}) {
			return fmt.Sprintf("inputs %q and %q look like the values and the row splits of a ragged tensor", values, t.Alias)
		}
	}
	return ""
}
