// optimize.go: what may be changed in how TensorFlow is called for a model, by measuring.
package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Optimize is auto, off, or a list of what may be changed, with commas.
type Optimize string

// The forms of Optimize that are no list.
const (
	OptimizeAuto Optimize = "auto"
	OptimizeOff  Optimize = "off"
)

// Optimizations are what a list may name.
var Optimizations = []string{"freeze", "executor", "onednn", "threads", "bfloat16"}

// List is what may be changed, nil for nothing.
func (o Optimize) List() []string {
	switch o {
	case OptimizeAuto:
		return slices.Clone(Optimizations)
	case OptimizeOff, "":
		return nil
	}
	list := strings.Split(string(o), ",")
	for i := range list {
		list[i] = strings.TrimSpace(list[i])
	}
	return list
}

func (o *Optimize) decodeNode(d *decoder, path string, n *yaml.Node) {
	switch n.Kind {
	case yaml.ScalarNode:
		*o = Optimize(n.Value)
	case yaml.SequenceNode:
		var list []string
		for i, e := range n.Content {
			if e.Kind != yaml.ScalarNode {
				d.addf(e, fmt.Sprintf("%s[%d]", path, i), "%s where a word is expected", describe(e))
				return
			}
			list = append(list, e.Value)
		}
		if len(list) == 0 {
			d.addf(n, path, "is an empty list; write off")
			return
		}
		*o = Optimize(strings.Join(list, ","))
	default:
		d.addf(n, path, "%s where auto, off or a list is expected", describe(n))
	}
}

func (c *checker) optimize(key string, o Optimize) {
	list := o.List()
	if o == "" {
		c.addf(key, "is empty; write auto, off or a list of %s", strings.Join(Optimizations, ", "))
	}
	for i, name := range list {
		switch {
		case !slices.Contains(Optimizations, name):
			c.addf(key, "%q is none of %s; or write auto or off", shorten(name), strings.Join(Optimizations, ", "))
		case slices.Contains(list[:i], name):
			c.addf(key, "%s is given twice", name)
		}
	}
}
