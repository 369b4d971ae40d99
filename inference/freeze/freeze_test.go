// freeze_test.go: what becomes of the graph, and what is refused, without TensorFlow.
package freeze

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	graphpb "github.com/wamuir/graft/tensorflow/core/framework/graph_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// signaturesOf are the signatures of a meta graph with their tensors' names.
func signaturesOf(meta *pb.MetaGraphDef) map[string]*inference.Signature {
	all := make(map[string]*inference.Signature)
	for key, def := range meta.GetSignatureDef() {
		if key == initOp {
			continue
		}
		side := func(m map[string]*pb.TensorInfo) (list []inference.TensorInfo) {
			for alias, t := range m {
				list = append(list, inference.TensorInfo{Alias: alias, Tensor: t.GetName(), DType: tensor.DType(t.GetDtype()).Base()})
			}
			return list
		}
		all[key] = &inference.Signature{Key: key, Inputs: side(def.GetInputs()), Outputs: side(def.GetOutputs())}
	}
	return all
}

// frozen is the graph of a model of modeltest with its variables as constants.
func frozen(t *testing.T, m *modeltest.Model) *graphpb.GraphDef {
	t.Helper()
	before := proto.Clone(m.Meta)
	p, err := New(m.Meta, signaturesOf(m.Meta))
	if err != nil {
		t.Fatal(err)
	}
	var values []*tensor.Tensor
	for _, v := range p.Variables {
		values = append(values, m.Variables[v.Name])
	}
	b, err := p.Encode(values)
	if err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, m.Meta) {
		t.Error("the graph that was given is another now")
	}
	g := new(graphpb.GraphDef)
	if err := proto.Unmarshal(b, g); err != nil {
		t.Fatal(err)
	}
	return g
}

// eachNode visits the nodes of a graph and of its functions.
func eachNode(g *graphpb.GraphDef, visit func(n *nodepb.NodeDef)) {
	for _, n := range g.GetNode() {
		visit(n)
	}
	for _, f := range g.GetLibrary().GetFunction() {
		for _, n := range f.GetNodeDef() {
			visit(n)
		}
	}
}

func TestNoHandleIsLeft(t *testing.T) {
	for _, m := range []*modeltest.Model{modeltest.TwoLayer(), modeltest.BigVariables(1, 1), modeltest.Captures(), modeltest.Loop(), modeltest.Branches(), modeltest.OldStyle()} {
		t.Run(m.Name, func(t *testing.T) {
			g := frozen(t, m)
			there := make(map[string]bool)
			for _, n := range g.GetNode() {
				there[n.GetName()] = true
			}
			for _, s := range m.Meta.GetSignatureDef() {
				for _, side := range []map[string]*pb.TensorInfo{s.GetInputs(), s.GetOutputs()} {
					for _, info := range side {
						if !there[nodeOf(info.GetName())] {
							t.Errorf("the signature's tensor %q is gone", info.GetName())
						}
					}
				}
			}
			eachNode(g, func(n *nodepb.NodeDef) {
				if strings.Contains(n.Op, "Var") && n.Op != "VarIsInitializedOp" || n.Op == "RestoreV2" {
					t.Errorf("node %q (%s) is left", n.Name, n.Op)
				}
				for key, a := range n.Attr {
					if slices.Contains(a.GetList().GetType(), 20) || a.GetType() == 20 {
						t.Errorf("node %q (%s): %s is of a handle", n.Name, n.Op, key)
					}
				}
			})
			for _, f := range g.GetLibrary().GetFunction() {
				for _, a := range append(f.GetSignature().GetInputArg(), f.GetSignature().GetOutputArg()...) {
					if a.GetType() == 20 {
						t.Errorf("function %q: %q is a handle", f.GetSignature().GetName(), a.GetName())
					}
				}
			}
		})
	}
}

func TestOneConstantForEachVariable(t *testing.T) {
	g := frozen(t, modeltest.Captures())
	bytes, copies := 0, 0
	eachNode(g, func(n *nodepb.NodeDef) { bytes += len(n.Attr["value"].GetTensor().GetTensorContent()) })
	for range g.GetLibrary().GetFunction() {
		copies++
	}
	if bytes != 8 || copies != 2 {
		t.Errorf("%d bytes of constants and %d functions, want 8 and 2: the two calls share one", bytes, copies)
	}
}

func TestRefusals(t *testing.T) {
	node := func(m *modeltest.Model, op, name string, inputs ...string) {
		m.Meta.GraphDef.Node = append(m.Meta.GraphDef.Node, &nodepb.NodeDef{Op: op, Name: name, Input: inputs, Attr: map[string]*attrpb.AttrValue{}})
	}
	output := func(m *modeltest.Model, name string) {
		m.Meta.SignatureDef["serving_default"].Outputs["more"] = &pb.TensorInfo{Encoding: &pb.TensorInfo_Name{Name: name}, Dtype: 1}
	}
	for name, c := range map[string]struct {
		change func(m *modeltest.Model, s map[string]*inference.Signature)
		want   string
	}{
		"writes": {func(_ *modeltest.Model, s map[string]*inference.Signature) { s["serving_default"].Writes = true }, `signature "serving_default" changes the model's state`},
		"unknown user": {func(m *modeltest.Model, _ map[string]*inference.Signature) {
			node(m, "Mystery", "m", "slope")
			output(m, "m:0")
		}, `node "m" (Mystery) uses variable "slope" in a way that is not known`},
		"queue": {func(m *modeltest.Model, _ map[string]*inference.Signature) {
			node(m, "FIFOQueueV2", "m")
			output(m, "m:0")
		}, "has state that a new session would not have"},
		"mutable": {func(m *modeltest.Model, _ map[string]*inference.Signature) {
			node(m, "MutableHashTableV2", "m")
			output(m, "m:0")
		}, "has state that a new session would not have"},
		"table": {func(m *modeltest.Model, _ map[string]*inference.Signature) {
			node(m, "HashTableV2", "m")
			output(m, "m:0")
		}, "it has tables, and no initialiser"},
		"absent": {func(m *modeltest.Model, _ map[string]*inference.Signature) { output(m, "m:0") }, `its graph has no node "m"`},
		"twice":  {func(m *modeltest.Model, _ map[string]*inference.Signature) { node(m, "NoOp", "y") }, `its graph has two nodes "y"`},
		"none":   {func(_ *modeltest.Model, s map[string]*inference.Signature) { clear(s) }, "it has no signature"},
		"chooses": {func(m *modeltest.Model, _ map[string]*inference.Signature) {
			node(m, "Merge", "m", "slope", "offset")
			node(m, "ReadVariableOp", "r", "m")
			output(m, "r:0")
		}, "chooses between"},
	} {
		t.Run(name, func(t *testing.T) {
			m := modeltest.HalfPlusTwo()
			s := signaturesOf(m.Meta)
			c.change(m, s)
			if name != "none" && name != "writes" {
				s = signaturesOf(m.Meta)
			}
			_, err := New(m.Meta, s)
			var refusal *Refusal
			if !errors.As(err, &refusal) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestRecursionAndDepthEnd(t *testing.T) {
	m := modeltest.Captures()
	for _, f := range m.Meta.GraphDef.Library.Function {
		for _, n := range f.NodeDef {
			if n.Op == "StatefulPartitionedCall" {
				n.Attr["f"].GetFunc().Name = f.Signature.Name
			}
		}
	}
	if _, err := New(m.Meta, signaturesOf(m.Meta)); err == nil {
		t.Error("a function that calls itself was taken")
	}
}

func TestEncodeHoldsValuesToTheirType(t *testing.T) {
	m := modeltest.HalfPlusTwo()
	p, err := New(m.Meta, signaturesOf(m.Meta))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Encode(nil); err == nil {
		t.Error("no values were enough")
	}
	wrong := []*tensor.Tensor{modeltest.Int32s(nil, 1), modeltest.Int32s(nil, 1)}
	if _, err := p.Encode(wrong); err == nil || !strings.Contains(err.Error(), "DT_INT32") {
		t.Errorf("values of another type: %v", err)
	}
}

func TestReadSaysWhatIsWrong(t *testing.T) {
	dir := modeltest.Write(t, modeltest.HalfPlusTwo())
	if _, err := Read(dir, []string{"serve"}); err != nil {
		t.Error(err)
	}
	if _, err := Read(dir, []string{"serve", "gpu"}); err == nil || err.Error() != "it has no meta graph with the tags {serve,gpu}" {
		t.Error(err)
	}
	if _, err := Read(t.TempDir(), []string{"serve"}); err == nil || !strings.Contains(err.Error(), "no saved_model.pb") {
		t.Error(err)
	}
	if err := os.WriteFile(dir+"/saved_model.pb", []byte{0xff}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, []string{"serve"}); err == nil {
		t.Error("garbage was read")
	}
}

func TestDiffers(t *testing.T) {
	f := func(v ...float32) *tensor.Tensor { return modeltest.Floats(tensor.Shape{int64(len(v))}, v...) }
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, c := range []struct {
		want, got *tensor.Tensor
		same      bool
	}{
		{f(1, 2), f(1, 2), true}, {f(1000), f(1000.5), true}, {f(1000, 0), f(1000, 0.05), true}, {f(1000, 0), f(1000, 0.5), false}, {f(1), f(1.01), false},
		{f(nan), f(nan), true}, {f(nan), f(1), false}, {f(1), f(nan), false}, {f(inf), f(inf), true}, {f(inf), f(1), false}, {f(1), f(inf), false},
		{f(1), f(1, 1), false}, {f(1), modeltest.Int32s(tensor.Shape{1}, 1), false},
		{modeltest.Int32s(tensor.Shape{1}, 1000), modeltest.Int32s(tensor.Shape{1}, 1001), false},
		{modeltest.Strings1D([]byte("a")), modeltest.Strings1D([]byte("a")), true}, {modeltest.Strings1D([]byte("a")), modeltest.Strings1D([]byte("b")), false},
		{&tensor.Tensor{DType: tensor.Half, Shape: tensor.Shape{1}, Data: []byte{0, 0x3c}}, &tensor.Tensor{DType: tensor.Half, Shape: tensor.Shape{1}, Data: []byte{8, 0x3c}}, true},
	} {
		if d := Differs(c.want, c.got); (d == "") != c.same {
			t.Errorf("%v and %v: %q", c.want, c.got, d)
		}
	}
	for bits, want := range map[uint16]float64{0: 0, 0x3c00: 1, 0xc000: -2, 1: math.Ldexp(1, -24), 0x7c00: math.Inf(1), 0x7bff: 65504} {
		if got := half(bits); got != want {
			t.Errorf("half %#x is %v, want %v", bits, got, want)
		}
	}
}

func TestMakeUpVaries(t *testing.T) {
	sig := &inference.Signature{Inputs: []inference.TensorInfo{{Alias: "x", DType: tensor.Float, Shape: tensor.Shape{-1, 3}}, {Alias: "s", DType: tensor.String, UnknownRank: true}}}
	in, ok := MakeUp(sig)
	if !ok || fmt.Sprint(in[0].Shape, in[1].Shape, len(in[1].Strings)) != "[1,3] [1] 1" {
		t.Fatalf("%v %v", in, ok)
	}
	if v := modeltest.FloatValues(in[0]); v[0] == v[1] || v[0] < 0 || v[0] >= 1 {
		t.Error(v)
	}
	sig.Inputs[0].Shape = tensor.Shape{1 << 40}
	if _, ok := MakeUp(sig); ok {
		t.Error("an input of 4 TB was made")
	}
}

// FuzzFreeze plans the freezing of any bytes as saved_model.pb and holds what comes of it to its promises.
func FuzzFreeze(f *testing.F) {
	for _, build := range []func() *modeltest.Model{modeltest.HalfPlusTwo, modeltest.Captures, modeltest.Loop, modeltest.Branches, modeltest.OldStyle, modeltest.Words, modeltest.Counter, modeltest.Functions} {
		b, err := proto.Marshal(build().Proto())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		meta, err := Decode(b, []string{"serve"})
		if err != nil {
			return
		}
		p, err := New(meta, signaturesOf(meta))
		if err != nil {
			return
		}
		var values []*tensor.Tensor
		for _, v := range p.Variables {
			values = append(values, &tensor.Tensor{DType: v.DType, Shape: tensor.Shape{0}})
		}
		if len(values) == 0 {
			t.Fatal("a plan without variables")
		}
		out, err := p.Encode(values)
		if err != nil {
			return
		}
		if err := proto.Unmarshal(out, new(graphpb.GraphDef)); err != nil {
			t.Fatalf("the frozen graph cannot be read: %v", err)
		}
	})
}
