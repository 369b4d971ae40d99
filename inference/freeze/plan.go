// plan.go: what of a graph stays, and which values it takes to freeze it.
package freeze

import (
	"maps"
	"slices"
	"strings"

	functionpb "github.com/wamuir/graft/tensorflow/core/framework/function_go_proto"
	graphpb "github.com/wamuir/graft/tensorflow/core/framework/graph_go_proto"
	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"
	shapepb "github.com/wamuir/graft/tensorflow/core/framework/tensor_shape_go_proto"
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Variable is one whose value the frozen graph needs.
type Variable struct {
	Name      string // the node's in the graph, or in the function that makes the handle
	Ref       bool   // of TensorFlow 1's kind: the value is the node's own output 0
	Container string
	Shared    string // the resource's name; never empty unless Ref
	Read      string // a node of the graph whose output 0 is the value, "" where it has none
	DType     tensor.DType
	Shape     *shapepb.TensorShapeProto // as declared, which may be unknown
}

// Plan is a graph that waits for its values.
type Plan struct {
	// Variables in the order in which Encode wants their values.
	Variables []Variable
	// Init is the node to run once in a new session over the frozen graph before anything else, "" when there is nothing to initialise; Assets
	// are to be fed then.
	Init   string
	Assets []Asset

	graph     *graphpb.GraphDef
	constants [][]*nodepb.NodeDef // by variable: the nodes that take its value
}

// New plans the freezing of the meta graph for these signatures. It fails with a [Refusal] where the model cannot be frozen.
func New(meta *pb.MetaGraphDef, signatures map[string]*inference.Signature) (*Plan, error) {
	if len(signatures) == 0 {
		return nil, refuse("it has no signature")
	}
	for _, key := range slices.Sorted(maps.Keys(signatures)) {
		if signatures[key].Writes {
			return nil, refuse("signature %q changes the model's state", key)
		}
	}
	files, err := assets(meta)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, s := range signatures {
		for _, side := range [][]inference.TensorInfo{s.Inputs, s.Outputs} {
			for i := range side {
				roots = append(roots, nodeOf(side[i].Tensor))
			}
		}
	}
	init := initialiser(meta)
	keep := make(map[string]bool) // variables that the initialiser assigns stay
	for {
		p, more, err := attempt(meta.GetGraphDef(), roots, init, keep)
		if err != nil {
			return nil, err
		}
		if more == "" {
			p.useAssets(files)
			return p, nil
		}
		keep[more] = true // there are fewer variables than nodes, so this ends
	}
}

// attempt rewrites the graph, leaving the variables in keep as they are; more names another that must stay.
func attempt(graph *graphpb.GraphDef, roots []string, init string, keep map[string]bool) (p *Plan, more string, err error) {
	r := &rewriter{functions: make(map[string]*functionpb.FunctionDef), specials: make(map[string]*special), busy: make(map[string]bool),
		names: make(map[string]bool), byKey: make(map[string]int), keep: keep, reads: reads(graph)}
	for _, f := range graph.GetLibrary().GetFunction() {
		r.functions[f.GetSignature().GetName()] = f
		r.names[f.GetSignature().GetName()] = true
	}
	nodes, err := reach(graph, append(slices.Clone(roots), init))
	if err != nil {
		return nil, "", err
	}
	b := &body{r: r, graph: true, nodes: nodes, held: make(map[string]int), renamed: make(map[string]string)}
	rewritten, _, err := b.rewrite()
	if r.assigned != "" {
		return nil, r.assigned, nil
	}
	if err != nil {
		return nil, "", err
	}
	if len(r.variables) == 0 {
		return nil, "", refuse("it has no variables that could be frozen")
	}
	p = &Plan{Variables: r.variables, constants: r.constants, graph: &graphpb.GraphDef{
		Node: rewritten, Versions: graph.GetVersions(), Library: r.library(rewritten),
	}}
	for _, n := range nodes {
		if n.Name == init && (n.Op != "NoOp" || len(n.Input) > 0) {
			p.Init = init
		}
	}
	if r.tables && p.Init == "" {
		return nil, "", refuse("it has tables, and no initialiser that fills them")
	}
	return p, "", nil
}

// reads has, by the key of a variable, a node that reads it and waits for nothing: the one for the checkpoint, as a rule.
func reads(graph *graphpb.GraphDef) map[string]string {
	handles := make(map[string]string)
	for _, n := range graph.GetNode() {
		if n.GetOp() == "VarHandleOp" && len(n.GetInput()) == 0 {
			v := handleOf(n)
			handles[n.GetName()] = v.key()
		}
	}
	nodes := make(map[string]string)
	for _, n := range graph.GetNode() {
		if n.GetOp() != "ReadVariableOp" || len(n.GetInput()) != 1 {
			continue
		}
		if key, ok := handles[strings.TrimSuffix(n.Input[0], ":0")]; ok && nodes[key] == "" {
			nodes[key] = n.GetName()
		}
	}
	return nodes
}

// useAssets keeps those that the frozen graph has a place for.
func (p *Plan) useAssets(files []Asset) {
	if p.Init == "" {
		return
	}
	there := make(map[string]bool)
	for _, n := range p.graph.Node {
		there[n.Name] = true
	}
	for _, a := range files {
		if there[nodeOf(a.Tensor)] {
			p.Assets = append(p.Assets, a)
		}
	}
}

// reach is the nodes that the roots need, in the graph's order.
func reach(graph *graphpb.GraphDef, roots []string) ([]*nodepb.NodeDef, error) {
	byName := make(map[string]*nodepb.NodeDef, len(graph.GetNode()))
	for _, n := range graph.GetNode() {
		if byName[n.GetName()] != nil {
			return nil, refuse("its graph has two nodes %q", n.GetName())
		}
		byName[n.GetName()] = n
	}
	seen := make(map[string]bool)
	stack := roots
	for len(stack) > 0 {
		name := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if name == "" || seen[name] {
			continue
		}
		n := byName[name]
		if n == nil {
			return nil, refuse("its graph has no node %q", name)
		}
		seen[name] = true
		for _, in := range n.GetInput() {
			stack = append(stack, nodeOf(in))
		}
	}
	var nodes []*nodepb.NodeDef
	for _, n := range graph.GetNode() {
		if seen[n.GetName()] {
			nodes = append(nodes, n)
		}
	}
	return nodes, nil
}
