// functions.go: copies of functions that take values where they took handles.
package freeze

import (
	"fmt"
	"maps"
	"strconv"

	attrpb "github.com/wamuir/graft/tensorflow/core/framework/attr_value_go_proto"
	functionpb "github.com/wamuir/graft/tensorflow/core/framework/function_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	opdefpb "github.com/wamuir/graft/tensorflow/core/framework/op_def_go_proto"
	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"
)

// special is a function with some arguments bound to variables.
type special struct {
	def     *functionpb.FunctionDef // the original where nothing changed
	returns []int                   // by result: the variable that it is a handle of, or none
}

// call says how an op calls functions with its inputs.
type call struct {
	skip    int      // inputs before the functions' arguments: the condition of an If
	attrs   []string // that name functions; nil: the op is the function
	list    string   // an attribute that names several
	in, out string   // attributes with the types of arguments and results; may be the same
	loop    bool     // results are the arguments of the next turn
}

var calls = map[string]*call{
	"PartitionedCall": {attrs: []string{"f"}, in: "Tin", out: "Tout"}, "StatefulPartitionedCall": {attrs: []string{"f"}, in: "Tin", out: "Tout"},
	"While": {attrs: []string{"cond", "body"}, in: "T", out: "T", loop: true}, "StatelessWhile": {attrs: []string{"cond", "body"}, in: "T", out: "T", loop: true},
	"If": {skip: 1, attrs: []string{"then_branch", "else_branch"}, in: "Tin", out: "Tout"}, "StatelessIf": {skip: 1, attrs: []string{"then_branch", "else_branch"}, in: "Tin", out: "Tout"},
	"Case": {skip: 1, list: "branches", in: "Tin", out: "Tout"}, "StatelessCase": {skip: 1, list: "branches", in: "Tin", out: "Tout"},
}

// call is how n calls functions, nil where it does not in a way that is known.
func (r *rewriter) call(n *nodepb.NodeDef) *call {
	if c := calls[n.Op]; c != nil {
		return c
	}
	if r.functions[n.Op] != nil {
		return &call{}
	}
	return nil
}

// named are the functions that n calls.
func (c *call) named(n *nodepb.NodeDef) (names []string) {
	switch {
	case c.list != "":
		for _, f := range n.Attr[c.list].GetList().GetFunc() {
			names = append(names, f.GetName())
		}
	case c.attrs == nil:
		names = []string{n.Op}
	default:
		for _, a := range c.attrs {
			names = append(names, n.Attr[a].GetFunc().GetName())
		}
	}
	return names
}

// output is what a function's body calls the nth result of n.
func (c *call) output(r *rewriter, n *nodepb.NodeDef, nth int) (name string, index int) {
	if c.attrs != nil || c.list != "" {
		return "output", nth
	}
	if args := r.functions[n.Op].GetSignature().GetOutputArg(); nth < len(args) {
		return args[nth].GetName(), 0
	}
	return "", 0
}

// returns is, by result of n, the variable that it is a handle of.
func (b *body) returns(n *nodepb.NodeDef, c *call, vars []int) ([]int, error) {
	if len(vars) < c.skip {
		return nil, refuse("node %q (%s) has no condition", n.Name, n.Op)
	}
	args := vars[c.skip:]
	if c.loop { // what goes in comes out: replaceCall holds the body to it
		return args, nil
	}
	var first []int
	for i, name := range c.named(n) {
		s, err := b.special(name, args)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			first = s.returns
		}
	}
	return first, nil
}

// replaceCall is n with the functions that take values.
func (b *body) replaceCall(n *nodepb.NodeDef, c *call, vars []int, any bool) (*nodepb.NodeDef, error) {
	if len(vars) < c.skip {
		return nil, refuse("node %q (%s) has no condition", n.Name, n.Op)
	}
	args := vars[c.skip:]
	for _, v := range vars[:c.skip] {
		if v != none {
			return nil, refuse("node %q (%s) has a variable's handle as its condition", n.Name, n.Op)
		}
	}
	var made []*special
	changed := any
	names := c.named(n)
	for i, name := range names {
		s, err := b.special(name, args)
		if err != nil {
			return nil, err
		}
		made, changed = append(made, s), changed || s.def != b.r.functions[name]
		want := made[0].returns
		if c.loop {
			want = args
		}
		if isCond := c.loop && i == 0; !isCond && !equal(s.returns, want) {
			return nil, refuse("node %q (%s) chooses between variables", n.Name, n.Op)
		}
	}
	if !changed {
		return b.loose(n), nil
	}
	d := clone(n)
	delete(d.Attr, "_class")
	delete(d.Attr, "_output_shapes")
	delete(d.Attr, "_read_only_resource_inputs")
	switch {
	case c.list != "":
		var list []*attrpb.NameAttrList
		for i, f := range n.Attr[c.list].GetList().GetFunc() {
			list = append(list, &attrpb.NameAttrList{Name: made[i].name(), Attr: f.GetAttr()})
		}
		d.Attr[c.list] = &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: &attrpb.AttrValue_ListValue{Func: list}}}
	case c.attrs == nil:
		d.Op = made[0].name()
		return d, nil
	default:
		for i, a := range c.attrs {
			d.Attr[a] = &attrpb.AttrValue{Value: &attrpb.AttrValue_Func{Func: &attrpb.NameAttrList{Name: made[i].name(), Attr: n.Attr[a].GetFunc().GetAttr()}}}
		}
	}
	if any {
		results := made[0].returns
		if c.loop {
			results = args
		}
		d.Attr[c.in] = b.r.retype(n.Attr[c.in], args)
		d.Attr[c.out] = b.r.retype(d.Attr[c.out], results)
		b.r.reshape(d, results)
	}
	return d, nil
}

// reshape gives a node's output_shapes those of the variables in the place of a handle's, which is a scalar.
func (r *rewriter) reshape(d *nodepb.NodeDef, results []int) {
	shapes := d.Attr["output_shapes"].GetList().GetShape()
	if len(shapes) == 0 {
		return
	}
	shapes = append(shapes[:0:0], shapes...)
	for i, v := range results {
		if i < len(shapes) && v != none {
			shapes[i] = r.variables[v].Shape
		}
	}
	d.Attr["output_shapes"] = &attrpb.AttrValue{Value: &attrpb.AttrValue_List{List: &attrpb.AttrValue_ListValue{Shape: shapes}}}
}

func equal(a, b []int) bool {
	for i := range max(len(a), len(b)) {
		x, y := none, none
		if i < len(a) {
			x = a[i]
		}
		if i < len(b) {
			y = b[i]
		}
		if x != y {
			return false
		}
	}
	return true
}

func (s *special) name() string { return s.def.GetSignature().GetName() }

// special is the function with its arguments bound.
func (b *body) special(name string, args []int) (*special, error) {
	r := b.r
	key := name + "\x00" + fmt.Sprint(args)
	if s := r.specials[key]; s != nil {
		return s, nil
	}
	f := r.functions[name]
	sig := f.GetSignature()
	switch {
	case f == nil:
		return nil, refuse("its graph has no function %q", name)
	case len(sig.GetInputArg()) != len(args):
		return nil, refuse("function %q has %d arguments and is called with %d", name, len(sig.GetInputArg()), len(args))
	case r.busy[key]:
		return nil, refuse("function %q calls itself", name)
	case b.depth >= maxDepth:
		return nil, refuse("its functions call each other more than %d deep", maxDepth)
	}
	r.busy[key] = true
	defer delete(r.busy, key)

	in := &body{r: r, nodes: f.GetNodeDef(), held: make(map[string]int), renamed: make(map[string]string), depth: b.depth + 1}
	bound := false
	for i, v := range args {
		if v == none {
			continue
		}
		a := sig.InputArg[i]
		if a.GetNumberAttr() != "" || a.GetTypeListAttr() != "" || a.GetTypeAttr() != "" {
			return nil, refuse("argument %q of function %q has no type of its own", a.GetName(), name)
		}
		bound, in.held[a.GetName()] = true, v
	}
	nodes, changed, err := in.rewrite()
	if err != nil {
		return nil, err
	}
	s := &special{def: f, returns: make([]int, len(sig.GetOutputArg()))}
	for i, o := range sig.GetOutputArg() {
		s.returns[i] = in.variable(f.GetRet()[o.GetName()])
	}
	if bound || changed {
		s.def = r.copy(f, in, nodes, args, s.returns)
	}
	r.specials[key] = s
	return s, nil
}

// copy is f with other nodes, and with values for the arguments and results that are handles.
func (r *rewriter) copy(f *functionpb.FunctionDef, in *body, nodes []*nodepb.NodeDef, args, returns []int) *functionpb.FunctionDef {
	sig := f.Signature
	name := sig.Name + "_frozen"
	for i := 2; r.names[name]; i++ {
		name = sig.Name + "_frozen_" + strconv.Itoa(i)
	}
	r.names[name] = true
	c := &functionpb.FunctionDef{
		Signature: &opdefpb.OpDef{
			Name: name, Attr: sig.Attr, ControlOutput: sig.ControlOutput, IsStateful: sig.IsStateful, Description: sig.Description, Summary: sig.Summary,
			InputArg: r.args(sig.InputArg, args), OutputArg: r.args(sig.OutputArg, returns),
		},
		NodeDef: nodes, Attr: maps.Clone(f.Attr), ArgAttr: maps.Clone(f.ArgAttr), Ret: make(map[string]string), ControlRet: f.ControlRet,
	}
	// What is said there of handles is true no more; and a function that implements the same as others must have their arguments.
	delete(c.Attr, "_input_shapes")
	delete(c.Attr, "api_implements")
	delete(c.Attr, "forward_function_name")
	delete(c.Attr, "backward_function_name")
	for i, v := range args {
		if v != none {
			delete(c.ArgAttr, uint32(i))
		}
	}
	for k, v := range f.Ret {
		if to, ok := in.renamed[in.key(v)]; ok {
			v = to
		}
		c.Ret[k] = v
	}
	return c
}

func (r *rewriter) args(list []*opdefpb.OpDef_ArgDef, vars []int) []*opdefpb.OpDef_ArgDef {
	list = append(list[:0:0], list...)
	for i, v := range vars {
		if v != none {
			list[i] = &opdefpb.OpDef_ArgDef{Name: list[i].Name, Description: list[i].Description, Type: typespb.DataType(r.variables[v].DType)}
		}
	}
	return list
}

// functionsOf are the functions that a node's attributes name.
func functionsOf(n *nodepb.NodeDef) (names []string) {
	for _, a := range n.GetAttr() {
		names = appendFunctions(names, a, 0)
	}
	return names
}

func appendFunctions(names []string, a *attrpb.AttrValue, depth int) []string {
	if depth > maxDepth {
		return names
	}
	add := func(f *attrpb.NameAttrList) {
		if f == nil {
			return
		}
		names = append(names, f.GetName())
		for _, a := range f.GetAttr() {
			names = appendFunctions(names, a, depth+1)
		}
	}
	add(a.GetFunc())
	for _, f := range a.GetList().GetFunc() {
		add(f)
	}
	return names
}

// untouched checks that a function which n calls in a way of its own has no variable in it, however deep.
func (r *rewriter) untouched(name string, n *nodepb.NodeDef) error {
	seen := make(map[string]bool)
	stack := []string{name}
	for len(stack) > 0 {
		name := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		f := r.functions[name]
		if f == nil || seen[name] {
			continue
		}
		seen[name] = true
		if r.work += len(f.GetNodeDef()); r.work > maxWork {
			return refuse("its functions come to more than %d nodes", maxWork)
		}
		for _, inner := range f.GetNodeDef() {
			if inner.Op == "VarHandleOp" || state(inner.Op) != "" {
				return refuse("node %q (%s) calls a function with state in it", n.Name, n.Op)
			}
			if tableOps[inner.Op] {
				r.tables = true
			}
			stack = append(append(stack, inner.Op), functionsOf(inner)...)
		}
	}
	return nil
}

// library is the functions that the nodes need.
func (r *rewriter) library(nodes []*nodepb.NodeDef) *functionpb.FunctionDefLibrary {
	defs := maps.Clone(r.functions)
	for _, s := range r.specials {
		defs[s.name()] = s.def
	}
	library := &functionpb.FunctionDefLibrary{}
	seen := make(map[string]bool)
	var visit func(nodes []*nodepb.NodeDef)
	visit = func(nodes []*nodepb.NodeDef) {
		for _, n := range nodes {
			for _, name := range append(functionsOf(n), n.Op) {
				f := defs[name]
				if f == nil || seen[name] {
					continue
				}
				seen[name] = true
				library.Function = append(library.Function, f)
				visit(f.GetNodeDef())
			}
		}
	}
	visit(nodes)
	return library
}
