// ops.go: the ops that a handle of a variable may go into, and what becomes of them.
package freeze

import (
	"strings"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	tensorpb "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// passed is an output of an op that hands its inputs on.
type passed struct {
	name     string
	index    int
	variable int
}

// pass is an op that hands its inputs on: it stays, with the value's type in its attribute T.
type pass struct {
	outputs func(vars []int) []passed
	list    bool // T is a list of types, one per input
}

func one(name string) pass {
	return pass{outputs: func(vars []int) []passed { return []passed{{name, 0, vars[0]}} }}
}

var passes = map[string]pass{
	"Identity": one("output"), "StopGradient": one("output"), "PreventGradient": one("output"),
	"Enter": one("output"), "Exit": one("output"), "NextIteration": one("output"),
	"IdentityN": {list: true, outputs: func(vars []int) (all []passed) {
		for i, v := range vars {
			all = append(all, passed{"output", i, v})
		}
		return all
	}},
	"Switch": {outputs: func(vars []int) []passed { return []passed{{"output_false", 0, vars[0]}, {"output_true", 0, vars[0]}} }},
	"Merge": {outputs: func(vars []int) []passed {
		for _, v := range vars {
			if v != none {
				return []passed{{"output", 0, v}}
			}
		}
		return nil
	}},
}

// withoutRef are the ops that take a reference, and those that do the same with a value.
var withoutRef = map[string]string{
	"RefIdentity": "Identity", "RefSwitch": "Switch", "RefMerge": "Merge", "RefEnter": "Enter", "RefExit": "Exit", "RefNextIteration": "NextIteration",
}

// replace is what becomes of a node; its inputs still have their old names. It returns n itself where nothing changes.
func (b *body) replace(n *nodepb.NodeDef) (*nodepb.NodeDef, error) {
	vars, any := b.data(n)
	c := b.r.call(n)
	switch {
	case c != nil:
		return b.replaceCall(n, c, vars, any)
	case any:
		return b.replaceUse(n, vars)
	}
	switch n.Op {
	case "VarHandleOp":
		v := b.variable(b.out(n, 0, "resource", 0))
		if v == none {
			return b.loose(n), nil
		}
		b.rename(n, "resource", "output")
		return b.r.constant(n, v), nil
	case "VariableV2", "Variable":
		if !b.graph {
			return nil, refuse("node %q in a function is a variable of TensorFlow 1", n.Name)
		}
		v, err := b.r.variable(Variable{Name: n.Name, Ref: true, DType: tensor.DType(n.Attr["dtype"].GetType()), Shape: n.Attr["shape"].GetShape()})
		if err != nil {
			return nil, err
		}
		return b.r.constant(n, v), nil
	case "IsVariableInitialized":
		return b.yes(n, "is_initialized"), nil
	}
	if op, ok := withoutRef[n.Op]; ok {
		d := b.loose(n)
		if d == n {
			d = clone(n)
		}
		d.Op = op
		return d, nil
	}
	if why := state(n.Op); why != "" {
		return nil, refuse("node %q (%s) %s", n.Name, n.Op, why)
	}
	if tableOps[n.Op] {
		b.r.tables = true
	}
	for _, f := range functionsOf(n) { // of an op that calls them in a way of its own
		if err := b.r.untouched(f, n); err != nil {
			return nil, err
		}
	}
	return b.loose(n), nil
}

// replaceUse is what becomes of a node that takes a handle.
func (b *body) replaceUse(n *nodepb.NodeDef, vars []int) (*nodepb.NodeDef, error) {
	if p, ok := passes[n.Op]; ok {
		c := clone(n)
		delete(c.Attr, "_class")
		delete(c.Attr, "_output_shapes")
		if p.list {
			c.Attr["T"] = b.r.retype(n.Attr["T"], vars)
			return c, nil
		}
		for i, v := range vars {
			if v != vars[0] && (n.Op == "Merge" || i == 0) {
				return nil, refuse("node %q (%s) chooses between a variable and something else", n.Name, n.Op)
			}
		}
		c.Attr["T"] = typeAttr(b.r.variables[vars[0]].DType)
		return c, nil
	}
	for i, v := range vars {
		if i > 0 && v != none {
			return nil, refuse("node %q (%s) uses variable %q in a way that is not known", n.Name, n.Op, b.r.variables[v].Name)
		}
	}
	v := &b.r.variables[vars[0]]
	value := typeAttr(v.DType)
	switch n.Op {
	case "ReadVariableOp":
		b.rename(n, "value", "output")
		return derive(n, "Identity", n.Input, map[string]*attrpb.AttrValue{"T": value}), nil
	case "VariableShape":
		return derive(n, "Shape", n.Input, map[string]*attrpb.AttrValue{"T": value, "out_type": orInt32(n.Attr["out_type"])}), nil
	case "ResourceGather":
		axis := n.Attr["batch_dims"]
		name := b.fresh(n.Name + "/frozen_axis")
		zero := &nodepb.NodeDef{Name: name, Op: "Const", Device: n.Device, Attr: map[string]*attrpb.AttrValue{"dtype": typeAttr(tensor.Int32),
			"value": {Value: &attrpb.AttrValue_Tensor{Tensor: &tensorpb.TensorProto{Dtype: typespb.DataType_DT_INT32, TensorShape: &shapepb.TensorShapeProto{},
				IntVal: []int32{int32(axis.GetI())}}}}}}
		b.added = append(b.added, zero)
		inputs := append([]string{n.Input[0], n.Input[1], b.ref(name, "output")}, n.Input[2:]...)
		a := map[string]*attrpb.AttrValue{"Tparams": value, "Tindices": n.Attr["Tindices"], "Taxis": typeAttr(tensor.Int32)}
		if axis != nil {
			a["batch_dims"] = axis
		}
		return derive(n, "GatherV2", inputs, a), nil
	case "ResourceGatherNd":
		return derive(n, "GatherNd", n.Input, map[string]*attrpb.AttrValue{"Tparams": value, "Tindices": n.Attr["Tindices"]}), nil
	case "VarIsInitializedOp":
		return b.yes(n, "is_initialized"), nil
	case "DisableCopyOnRead":
		return &nodepb.NodeDef{Name: n.Name, Op: "NoOp", Device: n.Device, Input: controls(n)}, nil
	case "AssignVariableOp":
		// No signature writes, so this is the initialiser's: it puts the value there in a new session as well.
		b.r.assigned = v.key()
	}
	return nil, refuse("node %q (%s) uses variable %q in a way that is not known", n.Name, n.Op, v.Name)
}

// yes is a constant true in the place of n.
func (b *body) yes(n *nodepb.NodeDef, output string) *nodepb.NodeDef {
	b.rename(n, output, "output")
	return &nodepb.NodeDef{Name: n.Name, Op: "Const", Device: n.Device, Input: controls(n), Attr: map[string]*attrpb.AttrValue{"dtype": typeAttr(tensor.Bool),
		"value": {Value: &attrpb.AttrValue_Tensor{Tensor: &tensorpb.TensorProto{Dtype: typespb.DataType_DT_BOOL, TensorShape: &shapepb.TensorShapeProto{}, BoolVal: []bool{true}}}}}}
}

// derive is another op in the place of n, with the attributes that begin with an underscore.
func derive(n *nodepb.NodeDef, op string, inputs []string, a map[string]*attrpb.AttrValue) *nodepb.NodeDef {
	for k, v := range n.Attr {
		if strings.HasPrefix(k, "_") && k != "_class" && k != "_output_shapes" {
			a[k] = v
		}
	}
	return &nodepb.NodeDef{Name: n.Name, Op: op, Input: append([]string(nil), inputs...), Device: n.Device, Attr: a}
}

// loose is n without the wish to be placed beside another node, which may be gone.
func (b *body) loose(n *nodepb.NodeDef) *nodepb.NodeDef {
	if n.Attr["_class"] == nil {
		return n
	}
	c := clone(n)
	delete(c.Attr, "_class")
	return c
}

// rename notes that a node's only output has another name now, which only functions know.
func (b *body) rename(n *nodepb.NodeDef, was, is string) {
	if !b.graph && was != is {
		b.renamed[b.out(n, 0, was, 0)] = n.Name + ":" + is + ":0"
	}
}

// ref is an input that names a node's first output.
func (b *body) ref(name, output string) string {
	if b.graph {
		return name
	}
	return name + ":" + output + ":0"
}

func controls(n *nodepb.NodeDef) (list []string) {
	for _, in := range n.Input {
		if strings.HasPrefix(in, "^") {
			list = append(list, in)
		}
	}
	return list
}

func orInt32(a *attrpb.AttrValue) *attrpb.AttrValue {
	if a == nil {
		return typeAttr(tensor.Int32)
	}
	return a
}

// retype is a list of types with those of the variables.
func (r *rewriter) retype(list *attrpb.AttrValue, vars []int) *attrpb.AttrValue {
	types := append([]typespb.DataType(nil), list.GetList().GetType()...)
	for i := range types {
		if i < len(vars) && vars[i] != none {
			types[i] = typespb.DataType(r.variables[vars[i]].DType)
		}
	}
	return &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: &attrpb.AttrValue_ListValue{Type: types}}}
}

// tableOps make tables that an initialiser fills.
var tableOps = map[string]bool{"HashTable": true, "HashTableV2": true}

// state says why an op keeps a model from being frozen: what it has is restored with the variables, or lives in the session; "" when it does not.
func state(op string) string {
	for _, part := range []string{"MutableHashTable", "MutableDenseHashTable", "BoostedTrees", "DecisionTree", "TensorForest", "FertileStats"} {
		if strings.Contains(op, part) {
			return "has state that a new session would not have"
		}
	}
	for _, prefix := range []string{"AutoReloadVariable", "Assign", "RefSelect", "Scatter", "CountUpTo", "FIFOQueue", "PaddingFIFOQueue", "RandomShuffleQueue", "PriorityQueue", "Barrier",
		"Iterator", "OneShotIterator", "AnonymousIterator", "MultiDeviceIterator", "ConditionalAccumulator", "SparseConditionalAccumulator", "ResourceApply", "ResourceScatter"} {
		if strings.HasPrefix(op, prefix) && !pure[op] && op != "AssignVariableOp" {
			return "has state that a new session would not have"
		}
	}
	return ""
}

// pure are the ops that a prefix in state takes wrongly.
var pure = map[string]bool{"ScatterNd": true, "ScatterNdNonAliasingAdd": true}
