// captures.go: models whose variables are reached in other ways than a node beside them: through functions, control flow and tables.
package modeltest

import (
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// read is a node of a function that reads the variable of an argument.
func read(name, handle string) *nodepb.NodeDef {
	return nodeDef("ReadVariableOp", name, []string{handle}, attrs{"dtype": floatT})
}

// Captures is y = (0.5x + 2) twice, for x FLOAT[-1,1]: two functions deep, which take the handles of slope and offset as arguments, and
// return one, as TensorFlow 2 saves models. Both calls share a function. The variables are read nowhere else.
func Captures() *Model {
	b := newBuilder("captures")
	slope, offset := arg{"slope", tensor.Resource}, arg{"offset", tensor.Resource}
	inner := b.function("inner", []arg{{"x", floatT}, slope, offset}, []arg{{"y", floatT}, {"same", tensor.Resource}}, []*nodepb.NodeDef{
		read("s", "slope"), read("o", "offset"),
		nodeDef("Mul", "mul", []string{"x", "s:value:0"}, attrs{"T": floatT}),
		nodeDef("AddV2", "add", []string{"mul:z:0", "o:value:0"}, attrs{"T": floatT}),
		nodeDef("Identity", "slope_again", []string{"slope"}, attrs{"T": tensor.Resource}),
	}, map[string]string{"y": "add:z:0", "same": "slope_again:output:0"})
	in := attrs{"Tin": []tensor.DType{floatT, tensor.Resource, tensor.Resource}, "Tout": []tensor.DType{floatT, tensor.Resource}, "f": inner}
	outer := b.function("outer", []arg{{"x", floatT}, slope, offset}, []arg{{"y", floatT}}, []*nodepb.NodeDef{
		nodeDef("StatefulPartitionedCall", "once", []string{"x", "slope", "offset"}, in),
		nodeDef("StatefulPartitionedCall", "twice", []string{"once:output:0", "once:output:1", "offset", "^once"}, in),
	}, map[string]string{"y": "twice:output:0"})
	b.placeholder("x", floatT, column)
	s, o := b.bare("slope", Floats(scalar, 0.5)), b.bare("offset", Floats(scalar, 2))
	b.node("StatefulPartitionedCall", "y", []string{"x", s, o},
		attrs{"Tin": []tensor.DType{floatT, tensor.Resource, tensor.Resource}, "Tout": []tensor.DType{floatT}, "f": outer})
	b.serve("x", column, "y", column)
	return b.model()
}

// bare is a variable that is restored and has no node that reads it.
func (b *builder) bare(name string, value *tensor.Tensor) (handle string) {
	b.variables[name], b.restored = value, append(b.restored, name)
	return b.handle(name, value.DType, value.Shape)
}

// Loop is x * factor^3 for x FLOAT[-1,1], by a While whose body captures the handle of factor, 2.
func Loop() *Model {
	b := newBuilder("loop")
	args := []arg{{"i", tensor.Int32}, {"v", floatT}, {"factor", tensor.Resource}}
	cond := b.function("cond", args, []arg{{"more", tensor.Bool}}, []*nodepb.NodeDef{
		nodeDef("Const", "three", nil, attrs{"dtype": tensor.Int32, "value": Int32s(scalar, 3)}),
		nodeDef("Less", "less", []string{"i", "three:output:0"}, attrs{"T": tensor.Int32}),
	}, map[string]string{"more": "less:z:0"})
	body := b.function("body", args, []arg{{"i_out", tensor.Int32}, {"v_out", floatT}, {"factor_out", tensor.Resource}}, []*nodepb.NodeDef{
		nodeDef("Const", "one", nil, attrs{"dtype": tensor.Int32, "value": Int32s(scalar, 1)}),
		nodeDef("AddV2", "next", []string{"i", "one:output:0"}, attrs{"T": tensor.Int32}),
		read("f", "factor"),
		nodeDef("Mul", "mul", []string{"v", "f:value:0"}, attrs{"T": floatT}),
	}, map[string]string{"i_out": "next:z:0", "v_out": "mul:z:0", "factor_out": "factor"})
	b.placeholder("x", floatT, column)
	factor := b.bare("factor", Floats(scalar, 2))
	b.constant("zero", Int32s(scalar, 0))
	b.node("While", "loop", []string{"zero", "x", factor}, attrs{"T": []tensor.DType{tensor.Int32, floatT, tensor.Resource}, "cond": cond, "body": body,
		"output_shapes": []tensor.Shape{scalar, column, scalar}, "parallel_iterations": 10})
	b.node("Identity", "y", []string{"loop:1"}, attrs{"T": floatT})
	b.serve("x", column, "y", column)
	return b.model()
}

// Branches is x*up where x FLOAT[] is over 0, else x*down, by an If, and the same again by a Case: "y" and "z". up is 2 and down is 3.
func Branches() *Model {
	b := newBuilder("branches")
	args := []arg{{"x", floatT}, {"up", tensor.Resource}, {"down", tensor.Resource}}
	branch := func(name, by string) fn {
		return b.function(name, args, []arg{{"y", floatT}}, []*nodepb.NodeDef{
			read("v", by), nodeDef("Mul", "mul", []string{"x", "v:value:0"}, attrs{"T": floatT}),
		}, map[string]string{"y": "mul:z:0"})
	}
	up, down := branch("times_up", "up"), branch("times_down", "down")
	b.placeholder("x", floatT, scalar)
	u, d := b.bare("up", Floats(scalar, 2)), b.bare("down", Floats(scalar, 3))
	b.constant("zero", Floats(scalar, 0))
	b.node("Greater", "positive", []string{"x", "zero"}, attrs{"T": floatT})
	b.node("Cast", "number", []string{"positive"}, attrs{"SrcT": tensor.Bool, "DstT": tensor.Int32})
	types := attrs{"Tin": []tensor.DType{floatT, tensor.Resource, tensor.Resource}, "Tout": []tensor.DType{floatT}}
	b.node("If", "y", []string{"positive", "x", u, d}, types.with("Tcond", tensor.Bool).with("then_branch", up).with("else_branch", down))
	b.node("Case", "z", []string{"number", "x", u, d}, types.with("branches", []fn{down, up}))
	b.sign("serving_default", []io{{"x", "x", floatT, scalar}}, []io{{"y", "y", floatT, scalar}, {"z", "z", floatT, scalar}})
	return b.model()
}

// OldStyle is y = 0.5x + 2 for x FLOAT[-1,1] in TensorFlow 1's ways: slope is a variable with a reference, offset one whose handle goes
// through the Switch and the Merge of a condition; "rows" is the shape of a third.
func OldStyle() *Model {
	b := newBuilder("old_style")
	b.placeholder("x", floatT, column)
	slope := b.refVariable("slope", Floats(scalar, 0.5))
	b.node("Identity", "slope/read", []string{slope}, attrs{"T": floatT})
	b.node("Mul", "mul", []string{"x", "slope/read"}, attrs{"T": floatT})
	offset := b.bare("offset", Floats(scalar, 2))
	b.node("Size", "size", []string{"x"}, attrs{"T": floatT, "out_type": tensor.Int32})
	b.constant("two", Int32s(scalar, 2))
	b.node("Less", "few", []string{"size", "two"}, attrs{"T": tensor.Int32})
	b.node("Switch", "switch", []string{offset, "few"}, attrs{"T": tensor.Resource})
	b.node("ReadVariableOp", "many/read", []string{"switch"}, attrs{"dtype": floatT})
	b.node("ReadVariableOp", "few/read", []string{"switch:1"}, attrs{"dtype": floatT})
	b.node("Merge", "offset/read", []string{"many/read", "few/read"}, attrs{"T": floatT, "N": 2})
	b.node("AddV2", "y", []string{"mul", "offset/read"}, attrs{"T": floatT})
	third := b.bare("third", Floats(tensor.Shape{2, 3}, 1, 2, 3, 4, 5, 6))
	b.node("VariableShape", "rows", []string{third}, attrs{"out_type": tensor.Int32})
	b.constant("ones", Int32s(tensor.Shape{2, 1}, 1, 0))
	b.node("ResourceGather", "picked", []string{third, "ones"}, attrs{"dtype": floatT, "Tindices": tensor.Int32, "batch_dims": 1})
	b.sign("serving_default", []io{{"x", "x", floatT, column}}, []io{{"y", "y", floatT, column}, {"rows", "rows", tensor.Int32, vector},
		{"picked", "picked", floatT, tensor.Shape{2, 1}}})
	return b.model()
}

// Words looks x STRING[-1] up in a table that the initialiser fills from assets/words.txt, one word per line, and answers the word's row
// of a variable, y FLOAT[-1]: 10 for the first line, 20, 30; and -1 for a word that is not there. "size", a variable that the initialiser assigns, is
// 3; it is not in the checkpoint.
func Words() *Model {
	b := newBuilder("words")
	b.placeholder("x", tensor.String, vector)
	b.node("HashTableV2", "table", nil, attrs{"key_dtype": tensor.String, "value_dtype": tensor.Int64, "shared_name": "words"})
	b.constant("words/path", &tensor.Tensor{DType: tensor.String, Shape: scalar, Strings: [][]byte{[]byte("to be fed")}})
	b.node("InitializeTableFromTextFileV2", "fill", []string{"table", "words/path"}, attrs{"key_index": -2, "value_index": -1})
	size := b.handle("size", floatT, scalar)
	b.constant("three", Floats(scalar, 3))
	b.node("AssignVariableOp", "size/Assign", []string{size, "three"}, attrs{"dtype": floatT})
	b.node("ReadVariableOp", "size/Read", []string{size}, attrs{"dtype": floatT})
	b.node("NoOp", "init", []string{"^fill", "^size/Assign"}, nil)
	b.constant("missing", Int64s(scalar, 3))
	b.node("LookupTableFindV2", "find", []string{"table", "x", "missing"}, attrs{"Tin": tensor.String, "Tout": tensor.Int64})
	rows := b.bare("rows", Floats(tensor.Shape{4}, 10, 20, 30, -1))
	b.node("ResourceGather", "y", []string{rows, "find"}, attrs{"dtype": floatT, "Tindices": tensor.Int64})
	b.sign("serving_default", []io{{"x", "x", tensor.String, vector}}, []io{{"y", "y", floatT, vector}, {"size", "size/Read", floatT, scalar}})
	m := b.model()
	m.Assets = map[string][]byte{"words.txt": []byte("one\ntwo\nthree\n")}
	m.Meta.AssetFileDef = []*pb.AssetFileDef{{TensorInfo: &pb.TensorInfo{Encoding: &pb.TensorInfo_Name{Name: "words/path:0"},
		Dtype: typespb.DataType_DT_STRING}, Filename: "words.txt"}}
	m.Meta.CollectionDef = map[string]*pb.CollectionDef{"saved_model_main_op": {Kind: &pb.CollectionDef_NodeList_{NodeList: &pb.CollectionDef_NodeList{Value: []string{"init"}}}}}
	return m
}
