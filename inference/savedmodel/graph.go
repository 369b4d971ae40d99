// graph.go: the part of a GraphDef that tells what a run of it reaches: names, ops, inputs and called functions.
package savedmodel

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// graph is a GraphDef without attributes, but for the functions that they name.
type graph struct {
	nodes     map[string]*node
	functions map[string]*function
	names     map[string]string // every string once
	held      int64             // bytes, roughly
}

type node struct {
	op     string
	inputs []string // node names, without output numbers
	calls  []string // functions named by attributes
}

// function is what the body of one may do; all of it counts as run, for TensorFlow runs stateful nodes that no result needs.
type function struct {
	ops, calls map[string]bool
}

func newGraph() *graph {
	return &graph{nodes: make(map[string]*node), functions: make(map[string]*function), names: make(map[string]string)}
}

// Rough costs in Go: a string header with its map entry, a node, a slice element.
const (
	costName, costNode, costElement = 64, 160, 16
)

func (g *graph) hold(n int64) error {
	if g.held += n; g.held > maxNames {
		return fmt.Errorf("the graph's names take more than %d MiB", maxNames>>20)
	}
	return nil
}

func (g *graph) intern(b []byte) (string, error) {
	if s, ok := g.names[string(b)]; ok {
		return s, nil
	}
	s := string(b)
	g.names[s] = s
	return s, g.hold(int64(len(s)) + costName)
}

func (g *graph) name(w *wire, f field) (string, error) {
	b, err := w.content(f, maxName)
	if err != nil {
		return "", err
	}
	return g.intern(b)
}

// read adds a GraphDef.
func (g *graph) read(w *wire, m field) error {
	return w.sub(m, func(f field) error {
		switch f.num {
		case 1: // node
			name, n, err := g.readNode(w, f)
			if err != nil {
				return err
			}
			if g.nodes[name] == nil {
				g.nodes[name] = n
			}
			return g.hold(costNode + costName)
		case 2: // library
			return w.sub(f, func(f field) error {
				if f.num != 1 {
					return nil
				}
				return g.readFunction(w, f)
			})
		}
		return nil
	})
}

func (g *graph) readNode(w *wire, m field) (name string, n *node, err error) {
	n = &node{}
	namesFile := false
	err = w.sub(m, func(f field) (err error) {
		switch f.num {
		case 1:
			name, err = g.name(w, f)
		case 2:
			n.op, err = g.name(w, f)
		case 3:
			var b []byte
			if b, err = w.content(f, maxName); err != nil {
				return err
			}
			var in string
			if in, err = g.intern([]byte(nodeName(string(b)))); err != nil {
				return err
			}
			n.inputs = append(n.inputs, in)
			err = g.hold(costElement)
		case 5: // attr, a map entry
			file := false
			err = g.readAttr(w, f, 0, &file, func(call string) error {
				n.calls = append(n.calls, call)
				return g.hold(costElement)
			})
			namesFile = namesFile || file
		}
		return err
	})
	if namesFile && fileAttrOps[n.op] {
		n.op += fileMark
	}
	return name, n, err
}

// nodeName is the node in "node", "node:1", "^node" and a function body's "node:output:0".
func nodeName(input string) string {
	s, _, _ := strings.Cut(strings.TrimPrefix(input, "^"), ":")
	return s
}

// readAttr calls found for each function that one entry of an attr map names, however deep. It sets *file when the entry is one of
// those that make some ops touch files; nil does not ask.
func (g *graph) readAttr(w *wire, entry field, depth int, file *bool, found func(string) error) error {
	if depth > maxDepth {
		return fmt.Errorf("offset %d: functions nested more than %d deep", w.at, maxDepth)
	}
	named := func(f field) error { // NameAttrList
		return w.sub(f, func(f field) error {
			switch f.num {
			case 1:
				s, err := g.name(w, f)
				if err != nil {
					return err
				}
				return found(s)
			case 2:
				return g.readAttr(w, f, depth+1, nil, found)
			}
			return nil
		})
	}
	var key, value string
	err := w.sub(entry, func(f field) error {
		switch {
		case f.num == 1 && file != nil && f.bytes && f.end-w.at <= maxAttrKey:
			b, err := w.content(f, maxAttrKey)
			key = string(b)
			return err
		case f.num != 2:
			return nil
		}
		return w.sub(f, func(f field) error { // AttrValue
			switch f.num {
			case 2: // a string; no more of it is needed than tells a file from a stream
				if file == nil || !f.bytes {
					return nil
				}
				f.end = min(f.end, w.at+maxAttrKey)
				b, err := w.content(f, maxAttrKey)
				value = string(b)
				return err
			case 1: // list
				return w.sub(f, func(f field) error {
					if f.num != 9 {
						return nil
					}
					return named(f)
				})
			case 10: // func
				return named(f)
			case 9: // a placeholder
				value = attrOfCaller
			}
			return nil
		})
	})
	if file != nil {
		*file = attrNamesFile(key, value)
	}
	return err
}

func (g *graph) readFunction(w *wire, m field) error {
	var name string
	fn := &function{ops: make(map[string]bool), calls: make(map[string]bool)}
	add := func(set map[string]bool, s string) error {
		if set[s] {
			return nil
		}
		set[s] = true
		return g.hold(costName)
	}
	err := w.sub(m, func(f field) error {
		switch f.num {
		case 1: // signature, an OpDef
			return w.sub(f, func(f field) (err error) {
				if f.num == 1 {
					name, err = g.name(w, f)
				}
				return err
			})
		case 3: // node_def
			_, n, err := g.readNode(w, f)
			if err != nil {
				return err
			}
			if err := add(fn.ops, n.op); err != nil {
				return err
			}
			for _, c := range n.calls {
				if err := add(fn.calls, c); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	g.functions[name] = fn
	return g.hold(costNode + costName)
}

// ops has the distinct ops, sorted, without those that are functions of the library.
func (g *graph) ops() []string {
	set := make(map[string]bool)
	add := func(op string) { set[strings.TrimSuffix(op, fileMark)] = true }
	for _, n := range g.nodes {
		add(n.op)
	}
	for _, f := range g.functions {
		for op := range f.ops {
			add(op)
		}
	}
	maps.DeleteFunc(set, func(op string, _ bool) bool { return op == "" || g.functions[op] != nil })
	return slices.Sorted(maps.Keys(set))
}

// reach looks for an op that match accepts among everything that a run of the nodes runs. It returns the op and where it is, or "".
func (g *graph) reach(from []string, match func(op string) bool) (op, where string) {
	g.walk(from, func(o, kind, name string) bool {
		if !match(o) {
			return true
		}
		op, where = o, fmt.Sprintf("%s %q", kind, name)
		return false
	})
	return op, where
}

// walk visits the op of everything that a run of the nodes runs: their inputs, control inputs and the functions that these call. kind
// and name say where the op is: a "node" or a "function". It ends when visit returns false.
func (g *graph) walk(from []string, visit func(op, kind, name string) bool) {
	seen, called := make(map[string]bool), make(map[string]bool)
	stack := slices.Clone(from)
	var functions []string
	call := func(name string) {
		if g.functions[name] != nil && !called[name] {
			called[name] = true
			functions = append(functions, name)
		}
	}
	for len(stack) > 0 {
		name := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		n := g.nodes[name]
		if n == nil || seen[name] {
			continue
		}
		seen[name] = true
		if !visit(n.op, "node", name) {
			return
		}
		call(n.op)
		for _, c := range n.calls {
			call(c)
		}
		stack = append(stack, n.inputs...)
	}
	for i := 0; i < len(functions); i++ { // grows while it is walked
		f := g.functions[functions[i]]
		for _, op := range slices.Sorted(maps.Keys(f.ops)) {
			if !visit(op, "function", functions[i]) {
				return
			}
			call(op)
		}
		for _, c := range slices.Sorted(maps.Keys(f.calls)) {
			call(c)
		}
	}
}
