// encode.go: the frozen graph as bytes.
package freeze

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// constantBytes is what so many values take in the frozen graph: a variable that several functions make a handle of counts as often.
func (p *Plan) constantBytes(values []*tensor.Tensor) (n int64) {
	for i, v := range values {
		n += v.Bytes() * int64(len(p.constants[i]))
	}
	return n
}

// Encode is the frozen GraphDef, with one value per variable. Their memory is read and not kept. It fails with a [Refusal] where the graph
// would be larger than TensorFlow reads.
func (p *Plan) Encode(values []*tensor.Tensor) ([]byte, error) {
	if len(values) != len(p.Variables) {
		return nil, fmt.Errorf("%d values for %d variables", len(values), len(p.Variables))
	}
	if n := p.constantBytes(values); n > maxEncoded {
		return nil, refuse("its variables take %d MB as constants, and a graph may have 2 GB", n/1e6)
	}
	defer func() { // the values are lent
		for _, nodes := range p.constants {
			for _, n := range nodes {
				delete(n.Attr, "value")
			}
		}
	}()
	for i, v := range values {
		if want := p.Variables[i].DType; v.DType != want {
			return nil, refuse("variable %q is declared as %v and holds %v", p.Variables[i].Name, want, v.DType)
		}
		shape := &shapepb.TensorShapeProto{}
		for _, d := range v.Shape {
			shape.Dim = append(shape.Dim, &shapepb.TensorShapeProto_Dim{Size: d})
		}
		value := &attrpb.AttrValue{Value: &attrpb.AttrValue_Tensor{Tensor: &tensorpb.TensorProto{
			Dtype: typespb.DataType(v.DType), TensorShape: shape, TensorContent: v.Data, StringVal: v.Strings,
		}}}
		for _, n := range p.constants[i] {
			n.Attr["value"] = value
		}
	}
	if n := proto.Size(p.graph); n > maxEncoded {
		return nil, refuse("its frozen graph takes %d MB, and a graph may have 2 GB", n/1e6)
	}
	return proto.Marshal(p.graph)
}
