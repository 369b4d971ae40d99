// graph.go: a small builder for GraphDefs, signatures and functions.
package modeltest

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	functionpb "github.com/wamuir/graft/tensorflow/core/framework/function_go_proto"
	graphpb "github.com/wamuir/graft/tensorflow/core/framework/graph_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	opdefpb "github.com/wamuir/graft/tensorflow/core/framework/op_def_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	versionspb "github.com/wamuir/graft/tensorflow/core/framework/versions_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// producer is the GraphDef version that the models are written with (TensorFlow 2.11's, which every later one reads).
const producer = 1205

// builder collects the nodes, variables and signatures of one model.
type builder struct {
	name       string
	graph      *graphpb.GraphDef
	signatures map[string]*pb.SignatureDef
	variables  map[string]*tensor.Tensor
	restored   []string // variables in the order in which they were made
	refs       map[string]bool
}

func newBuilder(name string) *builder {
	return &builder{
		name: name,
		graph: &graphpb.GraphDef{
			Versions: &versionspb.VersionDef{Producer: producer},
			Library:  &functionpb.FunctionDefLibrary{},
		},
		signatures: make(map[string]*pb.SignatureDef),
		variables:  make(map[string]*tensor.Tensor),
		refs:       make(map[string]bool),
	}
}

// attrs are the attributes of a node: DType, bool, int, string, []DType, []tensor.Shape, *tensor.Tensor, tensor.Shape, fn or []fn.
type attrs map[string]any

// with is a copy with one more attribute.
func (a attrs) with(key string, value any) attrs {
	a = maps.Clone(a)
	a[key] = value
	return a
}

// fn names a function of the library.
type fn string

// node adds a node and returns its name, which is also the name of its first output. Inputs are "name", "name:1" or "^name".
func (b *builder) node(op, name string, inputs []string, a attrs) string {
	b.graph.Node = append(b.graph.Node, nodeDef(op, name, inputs, a))
	return name
}

func nodeDef(op, name string, inputs []string, a attrs) *nodepb.NodeDef {
	n := &nodepb.NodeDef{Name: name, Op: op, Input: inputs, Attr: make(map[string]*attrpb.AttrValue)}
	for k, v := range a {
		n.Attr[k] = attrValue(v)
	}
	return n
}

func attrValue(v any) *attrpb.AttrValue {
	switch v := v.(type) {
	case tensor.DType:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_Type{Type: typespb.DataType(v)}}
	case bool:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_B{B: v}}
	case int:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_I{I: int64(v)}}
	case string:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_S{S: []byte(v)}}
	case tensor.Shape:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_Shape{Shape: shapeProto(v)}}
	case *tensor.Tensor:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_Tensor{Tensor: tensorProto(v)}}
	case fn:
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_Func{Func: &attrpb.NameAttrList{Name: string(v)}}}
	case []fn:
		list := &attrpb.AttrValue_ListValue{}
		for _, f := range v {
			list.Func = append(list.Func, &attrpb.NameAttrList{Name: string(f)})
		}
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: list}}
	case []tensor.DType:
		list := &attrpb.AttrValue_ListValue{}
		for _, d := range v {
			list.Type = append(list.Type, typespb.DataType(d))
		}
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: list}}
	case []tensor.Shape:
		list := &attrpb.AttrValue_ListValue{}
		for _, s := range v {
			list.Shape = append(list.Shape, shapeProto(s))
		}
		return &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: list}}
	default:
		panic(fmt.Sprintf("modeltest: no attribute of type %T", v))
	}
}

func tensorProto(t *tensor.Tensor) *tensorpb.TensorProto {
	return &tensorpb.TensorProto{
		Dtype: typespb.DataType(t.DType), TensorShape: shapeProto(t.Shape), TensorContent: t.Data, StringVal: t.Strings,
	}
}

func (b *builder) constant(name string, t *tensor.Tensor) string {
	return b.node("Const", name, nil, attrs{"dtype": t.DType, "value": t})
}

func (b *builder) placeholder(name string, d tensor.DType, shape tensor.Shape) string {
	return b.node("Placeholder", name, nil, attrs{"dtype": d, "shape": shape})
}

// variable adds a resource variable that is restored from the bundle, and returns the nodes of its handle and of its value.
func (b *builder) variable(name string, value *tensor.Tensor) (handle, read string) {
	handle = b.handle(name, value.DType, value.Shape)
	b.variables[name], b.restored = value, append(b.restored, name)
	return handle, b.node("ReadVariableOp", name+"/Read", []string{handle}, attrs{"dtype": value.DType})
}

func (b *builder) handle(name string, d tensor.DType, shape tensor.Shape) string {
	return b.node("VarHandleOp", name, nil, attrs{"dtype": d, "shape": shape, "shared_name": name})
}

// refVariable adds a variable of TensorFlow 1's kind, whose output has a reference type.
func (b *builder) refVariable(name string, value *tensor.Tensor) string {
	b.variables[name], b.restored, b.refs[name] = value, append(b.restored, name), true
	return b.node("VariableV2", name, nil, attrs{"dtype": value.DType, "shape": value.Shape, "shared_name": name})
}

// io is one input or output of a signature: its alias, the node (or "node:1"), type and shape.
type io struct {
	alias, node string
	dtype       tensor.DType
	shape       tensor.Shape
}

func (b *builder) sign(key string, inputs, outputs []io) *pb.SignatureDef {
	side := func(list []io) map[string]*pb.TensorInfo {
		m := make(map[string]*pb.TensorInfo)
		for _, t := range list {
			name := t.node
			if !slices.Contains([]byte(name), ':') {
				name += ":0"
			}
			m[t.alias] = &pb.TensorInfo{
				Encoding: &pb.TensorInfo_Name{Name: name}, Dtype: typespb.DataType(t.dtype), TensorShape: shapeProto(t.shape),
			}
		}
		return m
	}
	s := &pb.SignatureDef{Inputs: side(inputs), Outputs: side(outputs), MethodName: "tensorflow/serving/predict"} //nolint:staticcheck // metadata shows it still
	b.signatures[key] = s
	return s
}

// function adds a function to the library: argument and result names with their types, the body, and the body's tensor
// ("node:output:0") for each result.
func (b *builder) function(name string, in, out []arg, body []*nodepb.NodeDef, ret map[string]string) fn {
	sig := &opdefpb.OpDef{Name: name}
	for _, a := range in {
		sig.InputArg = append(sig.InputArg, &opdefpb.OpDef_ArgDef{Name: a.name, Type: typespb.DataType(a.dtype)})
	}
	for _, a := range out {
		sig.OutputArg = append(sig.OutputArg, &opdefpb.OpDef_ArgDef{Name: a.name, Type: typespb.DataType(a.dtype)})
	}
	b.graph.Library.Function = append(b.graph.Library.Function, &functionpb.FunctionDef{Signature: sig, NodeDef: body, Ret: ret})
	return fn(name)
}

type arg struct {
	name  string
	dtype tensor.DType
}

// saver adds the nodes that TensorFlow's loader runs to restore the variables; nil when there are none.
func (b *builder) saver() *pb.SaverDef {
	if len(b.restored) == 0 {
		return nil
	}
	var names, slicesOf [][]byte
	var types []tensor.DType
	for _, name := range b.restored {
		names, slicesOf, types = append(names, []byte(name)), append(slicesOf, nil), append(types, b.variables[name].DType)
	}
	b.placeholder("save/filename", tensor.String, tensor.Shape{})
	b.constant("save/names", Strings1D(names...))
	b.constant("save/slices", Strings1D(slicesOf...))
	b.node("RestoreV2", "save/RestoreV2", []string{"save/filename", "save/names", "save/slices"}, attrs{"dtypes": types})
	var done []string
	for i, name := range b.restored {
		t, from := b.variables[name].DType, fmt.Sprintf("save/RestoreV2:%d", i)
		assign := fmt.Sprintf("save/Assign_%d", i)
		if b.refs[name] {
			b.node("Assign", assign, []string{name, from}, attrs{"T": t})
		} else {
			b.node("AssignVariableOp", assign, []string{name, from}, attrs{"dtype": t})
		}
		done = append(done, "^"+assign)
	}
	b.node("NoOp", "save/restore_all", done, nil)
	return &pb.SaverDef{
		FilenameTensorName: "save/filename:0", RestoreOpName: "save/restore_all", Version: pb.SaverDef_V2,
	}
}

// model closes the graph.
func (b *builder) model() *Model {
	return &Model{
		Name: b.name,
		Meta: &pb.MetaGraphDef{
			MetaInfoDef:  &pb.MetaGraphDef_MetaInfoDef{Tags: []string{"serve"}, TensorflowVersion: "2.20.0"},
			SaverDef:     b.saver(), // adds nodes, so it comes before the graph is used
			GraphDef:     b.graph,
			SignatureDef: b.signatures,
		},
		Variables: b.variables,
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Floats is a FLOAT tensor of that shape. It panics where the numbers do not fill it.
func Floats(shape tensor.Shape, v ...float32) *tensor.Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, f := range v {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(f))
	}
	return must(tensor.New(tensor.Float, shape, data))
}

// FloatValues are the numbers of a FLOAT tensor.
func FloatValues(t *tensor.Tensor) []float32 {
	v := make([]float32, 0, len(t.Data)/4)
	for i := 0; i+4 <= len(t.Data); i += 4 {
		v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(t.Data[i:])))
	}
	return v
}

// Int32s is an INT32 tensor of that shape. It panics where the numbers do not fill it.
func Int32s(shape tensor.Shape, v ...int32) *tensor.Tensor {
	data := make([]byte, 0, 4*len(v))
	for _, n := range v {
		data = binary.LittleEndian.AppendUint32(data, uint32(n))
	}
	return must(tensor.New(tensor.Int32, shape, data))
}

// Int64s is an INT64 tensor of that shape. It panics where the numbers do not fill it.
func Int64s(shape tensor.Shape, v ...int64) *tensor.Tensor {
	data := make([]byte, 0, 8*len(v))
	for _, n := range v {
		data = binary.LittleEndian.AppendUint64(data, uint64(n))
	}
	return must(tensor.New(tensor.Int64, shape, data))
}

// Strings1D is a STRING tensor of rank 1.
func Strings1D(v ...[]byte) *tensor.Tensor {
	return must(tensor.NewStrings(tensor.Shape{int64(len(v))}, v))
}

func must(t *tensor.Tensor, err error) *tensor.Tensor {
	if err != nil {
		panic("modeltest: " + err.Error())
	}
	return t
}
