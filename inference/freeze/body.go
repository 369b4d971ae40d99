// body.go: one body of nodes, the graph's or a function's: where the handles of variables go, and what each node becomes.
package freeze

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	functionpb "github.com/wamuir/graft/tensorflow/core/framework/function_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

// none is the variable of a tensor that is no handle.
const none = -1

// rewriter is one attempt at a whole graph with its functions.
type rewriter struct {
	functions map[string]*functionpb.FunctionDef
	names     map[string]bool     // of all functions, also the copies
	specials  map[string]*special // by function and bindings
	busy      map[string]bool     // specials that are being made
	variables []Variable
	constants [][]*nodepb.NodeDef // by variable
	byKey     map[string]int
	keep      map[string]bool   // variables that stay, by key
	reads     map[string]string // nodes of the graph that read a variable, by key
	assigned  string            // the key of a variable that is assigned, and so must stay
	tables    bool              // something is looked up in a table
	work      int
}

// body is the nodes of the graph or of a function. A tensor's key is "node:0" in the graph; in a function it is "node:output:0", or the
// argument's name.
type body struct {
	r       *rewriter
	graph   bool
	nodes   []*nodepb.NodeDef
	held    map[string]int    // tensors that are handles of variables, by key; they become the values
	renamed map[string]string // tensors that have another key now
	added   []*nodepb.NodeDef // beside the old ones
	names   map[string]bool   // of nodes; made when it is needed
	depth   int
}

// rewrite is the nodes as they are to be; changed is false where all are what they were.
func (b *body) rewrite() (nodes []*nodepb.NodeDef, changed bool, err error) {
	if b.r.work += len(b.nodes); b.r.work > maxWork {
		return nil, false, refuse("its functions come to more than %d nodes", maxWork)
	}
	for again := true; again; {
		if again, err = b.flow(); err != nil {
			return nil, false, err
		}
	}
	nodes = make([]*nodepb.NodeDef, len(b.nodes))
	was := make([]*nodepb.NodeDef, len(b.nodes))
	for i, n := range b.nodes {
		if nodes[i], err = b.replace(n); err != nil {
			return nil, false, err
		}
		was[i] = n
	}
	for i, n := range nodes {
		nodes[i] = b.wire(n, n != was[i])
		changed = changed || nodes[i] != was[i]
	}
	return append(nodes, b.added...), changed, nil
}

// fresh is a name that no node of the body has.
func (b *body) fresh(name string) string {
	if b.names == nil {
		b.names = make(map[string]bool)
		for _, n := range b.nodes {
			b.names[n.GetName()] = true
		}
	}
	for b.names[name] {
		name += "_"
	}
	b.names[name] = true
	return name
}

// wire gives a node's inputs their new names.
func (b *body) wire(n *nodepb.NodeDef, owned bool) *nodepb.NodeDef {
	for i, in := range n.Input {
		to, ok := b.renamed[b.key(in)]
		if !ok {
			continue
		}
		if !owned {
			n, owned = clone(n), true
		}
		n.Input[i] = to
	}
	return n
}

// clone is a copy that shares the attributes' values.
func clone(n *nodepb.NodeDef) *nodepb.NodeDef {
	return &nodepb.NodeDef{Name: n.Name, Op: n.Op, Input: slices.Clone(n.Input), Device: n.Device, Attr: maps.Clone(n.Attr)}
}

// key is the key of a tensor that an input names, "" for a control input.
func (b *body) key(input string) string {
	if strings.HasPrefix(input, "^") {
		return ""
	}
	colons := strings.Count(input, ":")
	switch {
	case b.graph && colons == 0:
		return input + ":0"
	case !b.graph && colons == 1:
		if name, ok := strings.CutSuffix(input, ":0"); ok { // an argument, which is its own only tensor
			return name
		}
		return input + ":0"
	}
	return input
}

// out is the key of a node's output: nth of all, or ith of those with that name.
func (b *body) out(n *nodepb.NodeDef, nth int, name string, i int) string {
	if b.graph {
		return n.Name + ":" + strconv.Itoa(nth)
	}
	return n.Name + ":" + name + ":" + strconv.Itoa(i)
}

// variable is the variable that an input is a handle of, or none.
func (b *body) variable(input string) int {
	if v, ok := b.held[b.key(input)]; ok && input != "" && input[0] != '^' {
		return v
	}
	return none
}

// data is a node's inputs without the control inputs, and their variables; any says whether there is one.
func (b *body) data(n *nodepb.NodeDef) (vars []int, any bool) {
	for _, in := range n.Input {
		if strings.HasPrefix(in, "^") {
			break
		}
		v := b.variable(in)
		vars, any = append(vars, v), any || v != none
	}
	return vars, any
}

// hold notes that a tensor is a handle of v; changed says that this is news.
func (b *body) hold(n *nodepb.NodeDef, key string, v int, changed *bool) error {
	if v == none {
		return nil
	}
	was, ok := b.held[key]
	if ok && was != v {
		return refuse("node %q (%s) chooses between variables", n.Name, n.Op)
	}
	if !ok {
		b.held[key], *changed = v, true
	}
	return nil
}

// flow carries handles over every node once; again says that something new was found.
func (b *body) flow() (again bool, err error) {
	for _, n := range b.nodes {
		if n.Op == "VarHandleOp" {
			v, err := b.r.handle(b, n)
			if err != nil {
				return false, err
			}
			if err := b.hold(n, b.out(n, 0, "resource", 0), v, &again); err != nil {
				return false, err
			}
			continue
		}
		vars, any := b.data(n)
		if p, ok := passes[n.Op]; ok {
			if !any {
				continue
			}
			for nth, o := range p.outputs(vars) {
				if err := b.hold(n, b.out(n, nth, o.name, o.index), o.variable, &again); err != nil {
					return false, err
				}
			}
			continue
		}
		c := b.r.call(n)
		if c == nil || !any {
			continue
		}
		returns, err := b.returns(n, c, vars)
		if err != nil {
			return false, err
		}
		for i, v := range returns {
			name, index := c.output(b.r, n, i)
			if err := b.hold(n, b.out(n, i, name, index), v, &again); err != nil {
				return false, err
			}
		}
	}
	return again, nil
}

// handle is the variable that a VarHandleOp is of, none where it stays.
func (r *rewriter) handle(b *body, n *nodepb.NodeDef) (int, error) {
	v := handleOf(n)
	if !b.graph && len(n.Attr["shared_name"].GetS()) == 0 {
		return none, refuse("node %q in a function makes a handle of a variable without a name", n.Name)
	}
	return r.variable(v)
}

// handleOf is the variable that a VarHandleOp of the graph is of.
func handleOf(n *nodepb.NodeDef) Variable {
	shared := string(n.GetAttr()["shared_name"].GetS())
	if shared == "" {
		shared = n.GetName()
	}
	return Variable{Name: n.GetName(), Container: string(n.GetAttr()["container"].GetS()), Shared: shared,
		DType: tensor.DType(n.GetAttr()["dtype"].GetType()), Shape: n.GetAttr()["shape"].GetShape()}
}

func (v *Variable) key() string {
	if v.Ref {
		return "ref\x00" + v.Name
	}
	return v.Container + "\x00" + v.Shared
}

func (r *rewriter) variable(v Variable) (int, error) {
	key := v.key()
	if r.keep[key] {
		return none, nil
	}
	if i, ok := r.byKey[key]; ok {
		if r.variables[i].DType != v.DType {
			return none, refuse("nodes %q and %q are of one variable and of two types", r.variables[i].Name, v.Name)
		}
		return i, nil
	}
	if !v.DType.Carried() {
		return none, refuse("variable %q is of type %v", v.Name, v.DType)
	}
	if v.Ref {
		v.Read = v.Name
	} else {
		v.Read = r.reads[key]
	}
	i := len(r.variables)
	r.byKey[key], r.variables, r.constants = i, append(r.variables, v), append(r.constants, nil)
	return i, nil
}

// constant is the node that takes a variable's value in the place of n.
func (r *rewriter) constant(n *nodepb.NodeDef, v int) *nodepb.NodeDef {
	c := &nodepb.NodeDef{Name: n.Name, Op: "Const", Device: n.Device, Attr: map[string]*attrpb.AttrValue{"dtype": typeAttr(r.variables[v].DType)}}
	for _, in := range n.Input {
		if strings.HasPrefix(in, "^") {
			c.Input = append(c.Input, in)
		}
	}
	r.constants[v] = append(r.constants[v], c)
	return c
}

func typeAttr(d tensor.DType) *attrpb.AttrValue {
	return &attrpb.AttrValue{Value: &attrpb.AttrValue_Type{Type: typespb.DataType(d)}}
}
