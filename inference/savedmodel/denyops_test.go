// denyops_test.go: ops that reach out of the model, where they count and where they do not.
package savedmodel

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	functionpb "github.com/wamuir/graft/tensorflow/core/framework/function_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	opdefpb "github.com/wamuir/graft/tensorflow/core/framework/op_def_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// withOp adds a node, whose string attributes are key, value, ...; by names who has it as a control input.
func withOp(m *pb.MetaGraphDef, by, op string, attrs ...string) *nodepb.NodeDef {
	n := &nodepb.NodeDef{Name: "added_" + op, Op: op, Attr: make(map[string]*attrpb.AttrValue)}
	for i := 0; i < len(attrs); i += 2 {
		n.Attr[attrs[i]] = &attrpb.AttrValue{Value: &attrpb.AttrValue_S{S: []byte(attrs[i+1])}}
	}
	for _, o := range m.GetGraphDef().GetNode() {
		if o.GetName() == by {
			o.Input = append(o.Input, "^"+n.GetName())
		}
	}
	m.GraphDef.Node = append(m.GraphDef.Node, n)
	return n
}

func withFunction(m *pb.MetaGraphDef, name, op string) {
	m.GraphDef.Library.Function = append(m.GraphDef.Library.Function, &functionpb.FunctionDef{
		Signature: &opdefpb.OpDef{Name: name}, NodeDef: []*nodepb.NodeDef{{Name: "inside", Op: op}}})
}

func inCollection(m *pb.MetaGraphDef, key, node string) {
	m.CollectionDef = map[string]*pb.CollectionDef{key: {Kind: &pb.CollectionDef_NodeList_{NodeList: &pb.CollectionDef_NodeList{Value: []string{node}}}}}
}

func TestOuterOps(t *testing.T) {
	const y, restore = "y", "save/restore_all"
	asInit := func(m *pb.MetaGraphDef, node string) {
		m.SignatureDef[initOp] = &pb.SignatureDef{Outputs: map[string]*pb.TensorInfo{initOp: {Encoding: &pb.TensorInfo_Name{Name: node}}}}
	}
	for _, tt := range []struct {
		name   string
		change func(m *pb.MetaGraphDef)
		want   string // what the refusal says, in parts; "" when nothing is refused
	}{
		{"nothing", func(*pb.MetaGraphDef) {}, ""},
		{"a file read", func(m *pb.MetaGraphDef) { withOp(m, y, "ReadFile") },
			`ReadFile reads files (in node "added_ReadFile", run by signature "serving_default")|allow_ops: [ReadFile]`},
		{"two, sorted", func(m *pb.MetaGraphDef) { withOp(m, y, "WriteFile"); withOp(m, y, "EagerPyFunc") }, "EagerPyFunc runs code|WriteFile writes|allow_ops: [EagerPyFunc, WriteFile]"},
		{"network", func(m *pb.MetaGraphDef) { withOp(m, y, "RpcClient") }, "RpcClient uses the network"},
		{"in a function that an op names", func(m *pb.MetaGraphDef) { withFunction(m, "f", "MatchingFiles"); withOp(m, y, "f") }, `MatchingFiles reads files (in function "f"`},
		{"in a function that an attribute of a function's node names", func(m *pb.MetaGraphDef) {
			withFunction(m, "inner", "WriteFile")
			withFunction(m, "f", "PartitionedCall")
			f := m.GraphDef.Library.Function
			f[len(f)-1].NodeDef[0].Attr = map[string]*attrpb.AttrValue{"f": {Value: &attrpb.AttrValue_Func{Func: &attrpb.NameAttrList{Name: "inner"}}}}
			withOp(m, y, "f")
		}, `WriteFile writes files (in function "inner"`},
		{"nobody runs the node", func(m *pb.MetaGraphDef) { withOp(m, "", "ReadFile") }, ""},
		{"nobody calls the function", func(m *pb.MetaGraphDef) { withFunction(m, "f", "ReadFile") }, ""},
		{"the saver's saving, which nobody runs", func(m *pb.MetaGraphDef) {
			m.SaverDef.SaveTensorName = withOp(m, "", "SaveV2").GetName() + ":0"
		}, ""},
		{"saving by a signature", func(m *pb.MetaGraphDef) { withOp(m, y, "SaveV2") }, "SaveV2 writes files"},
		{"restoring by a signature", func(m *pb.MetaGraphDef) { withOp(m, y, "RestoreV2") }, "RestoreV2 reads files"},
		{"restoring by the initialiser", func(m *pb.MetaGraphDef) { asInit(m, withOp(m, "", "RestoreV2").GetName()) }, "RestoreV2 reads files|run by the initialiser"},
		{"a file read while variables are restored", func(m *pb.MetaGraphDef) { withOp(m, restore, "ReadFile") }, "run by the restore of the variables"},
		{"saving while variables are restored", func(m *pb.MetaGraphDef) { withOp(m, restore, "MergeV2Checkpoints") }, "MergeV2Checkpoints writes files"},
		{"an initialiser", func(m *pb.MetaGraphDef) { asInit(m, withOp(m, "", "ReadFile").GetName()) }, "run by the initialiser"},
		{"an initialiser of TensorFlow 1", func(m *pb.MetaGraphDef) { inCollection(m, "legacy_init_op", withOp(m, "", "ReadFile").GetName()) }, "run by the initialiser"},
		{"a later initialiser of TensorFlow 1", func(m *pb.MetaGraphDef) { inCollection(m, "saved_model_main_op", withOp(m, "", "ReadFile").GetName()) }, "run by the initialiser"},
		{"a collection of something else", func(m *pb.MetaGraphDef) { inCollection(m, "train_op", withOp(m, "", "ReadFile").GetName()) }, ""},
		{"a vocabulary without an asset", func(m *pb.MetaGraphDef) { asInit(m, withOp(m, "", "InitializeTableFromTextFileV2").GetName()) }, "InitializeTableFromTextFileV2 reads files"},
		{"a vocabulary that is an asset", func(m *pb.MetaGraphDef) {
			asInit(m, withOp(m, "", "InitializeTableFromTextFileV2").GetName())
			m.AssetFileDef = []*pb.AssetFileDef{{Filename: "vocabulary.txt"}}
		}, ""},
		{"a vocabulary that a signature reads", func(m *pb.MetaGraphDef) {
			withOp(m, y, "InitializeTableFromTextFileV2")
			m.AssetFileDef = []*pb.AssetFileDef{{Filename: "vocabulary.txt"}}
		}, "InitializeTableFromTextFileV2 reads files"},
		{"printing", func(m *pb.MetaGraphDef) { withOp(m, y, "PrintV2", "output_stream", "stderr") }, ""},
		{"printing to the log", func(m *pb.MetaGraphDef) { withOp(m, y, "PrintV2", "output_stream", "log(info)") }, ""},
		{"printing nowhere in particular", func(m *pb.MetaGraphDef) { withOp(m, y, "PrintV2", "end", "file:///etc/x") }, ""},
		{"printing to a file", func(m *pb.MetaGraphDef) {
			withOp(m, y, "PrintV2", "output_stream", "file:///etc/"+strings.Repeat("x", 1000))
		}, "PrintV2 writes files|allow_ops: [PrintV2]"},
		{"a proto decoder with the descriptors in it", func(m *pb.MetaGraphDef) {
			withOp(m, y, "DecodeProtoV2", "descriptor_source", "bytes://"+strings.Repeat("x", 1000))
		}, ""},
		{"printing in a function whose caller says where", func(m *pb.MetaGraphDef) {
			withFunction(m, "f", "PrintV2")
			f := m.GraphDef.Library.Function
			f[len(f)-1].NodeDef[0].Attr = map[string]*attrpb.AttrValue{"output_stream": {Value: &attrpb.AttrValue_Placeholder{Placeholder: "where"}}}
			withOp(m, y, "PartitionedCall").Attr["f"] = &attrpb.AttrValue{Value: &attrpb.AttrValue_Func{Func: &attrpb.NameAttrList{Name: "f",
				Attr: map[string]*attrpb.AttrValue{"where": {Value: &attrpb.AttrValue_S{S: []byte("file:///etc/x")}}}}}}
		}, `PrintV2 writes files (in function "f"`},
		{"a sampler with its vocabulary in it", func(m *pb.MetaGraphDef) { withOp(m, y, "FixedUnigramCandidateSampler", "vocab_file", "") }, ""},
		{"a sampler that reads its vocabulary", func(m *pb.MetaGraphDef) { withOp(m, y, "FixedUnigramCandidateSampler", "vocab_file", "/etc/passwd") },
			"FixedUnigramCandidateSampler reads files"},
		{"a call of the compiler's own functions", func(m *pb.MetaGraphDef) { withOp(m, y, "XlaCustomCallV2", "call_target_name", "free") }, "XlaCustomCallV2 runs code from outside the graph"},
		{"a proto decoder with a file", func(m *pb.MetaGraphDef) { withOp(m, y, "DecodeProtoV2", "descriptor_source", "/etc/passwd") }, "DecodeProtoV2 reads files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			model := modeltest.HalfPlusTwo() // has variables, and so a saver
			model.Assets = map[string][]byte{"vocabulary.txt": []byte("a")}
			tt.change(model.Meta)
			info, err := Read(modeltest.Write(t, model), nil)
			if err != nil {
				t.Fatal(err)
			}
			err = DenyOps(info, nil)
			if (err == nil) != (tt.want == "") {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if err == nil {
				return
			}
			for part := range strings.SplitSeq(tt.want, "|") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q lacks %q", err, part)
				}
			}
			var names []string
			for _, o := range info.Outer {
				names = append(names, o.Op)
			}
			if err := DenyOps(info, names); err != nil {
				t.Errorf("all of %v are allowed, and still: %v", names, err)
			}
			if len(names) > 1 && DenyOps(info, names[1:]) == nil {
				t.Errorf("%s is not allowed, and nothing is refused", names[0])
			}
		})
	}
}

// TestOuterOpsValueBeforeKey: map entries whose value comes before the key mean the same to TensorFlow.
func TestOuterOpsValueBeforeKey(t *testing.T) {
	m := modeltest.HalfPlusTwo().Meta
	node := withOp(m, "", "ReadFile").GetName()
	list, err := proto.Marshal(&pb.CollectionDef{Kind: &pb.CollectionDef_NodeList_{NodeList: &pb.CollectionDef_NodeList{Value: []string{node}}}})
	if err != nil {
		t.Fatal(err)
	}
	field := func(num byte, content []byte) []byte {
		return append(append([]byte{num<<3 | wireBytes}, appendUvarint(len(content))...), content...)
	}
	entry := append(field(2, list), field(1, []byte("legacy_init_op"))...)
	inner, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	b := field(2, append(inner, field(4, entry)...))
	got, err := readMeta(strings.NewReader(string(b)), int64(len(b)), []string{DefaultTag})
	if err != nil {
		t.Fatal(err)
	}
	if outer := got.outer(nil); len(outer) != 1 || outer[0].Op != "ReadFile" {
		t.Errorf("got %v", outer)
	}
}

// TestModelsStayInside: no model of ours, nor a vocabulary in the way of TensorFlow 1, is refused.
func TestModelsStayInside(t *testing.T) {
	for name, model := range modeltest.All() {
		info, err := Read(modeltest.Write(t, model()), nil)
		if err != nil {
			continue // made to be unreadable
		}
		if err := DenyOps(info, nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	any1, err := anypb.New(&pb.AssetFileDef{Filename: "v.txt"})
	if err != nil {
		t.Fatal(err)
	}
	model := modeltest.HalfPlusTwo()
	model.Assets = map[string][]byte{"v.txt": nil}
	inCollection(model.Meta, "legacy_init_op", withOp(model.Meta, "", "InitializeTableFromTextFile").GetName())
	model.Meta.CollectionDef[assetCollection] = &pb.CollectionDef{Kind: &pb.CollectionDef_AnyList_{AnyList: &pb.CollectionDef_AnyList{Value: []*anypb.Any{any1}}}}
	info, err := Read(modeltest.Write(t, model), nil)
	if err != nil || len(info.Outer) > 0 {
		t.Errorf("%v %v", info, err)
	}
}
