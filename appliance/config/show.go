// show.go: the configuration in force, with where each value came from.
package config

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Shown is one key with its value as in YAML and where that came from.
type Shown struct {
	Key   string `json:"key"`
	Value string `json:"value"`
	From  string `json:"from"` // "FILE:LINE", "--FLAG", "default", ...
}

// Show has every key of c in the order of the file.
func (c *Config) Show() []Shown {
	var list []Shown
	c.walk("", encode(reflect.ValueOf(c).Elem()), func(key string, _, n *yaml.Node) {
		flow := *n
		flow.Style |= yaml.FlowStyle
		if n.Kind == yaml.ScalarNode {
			flow.Style = n.Style
		}
		b, err := yaml.Marshal(&flow)
		if err != nil {
			panic("config: " + err.Error()) // the node was made here
		}
		list = append(list, Shown{Key: key, Value: strings.TrimSpace(string(b)), From: c.Origin(key)})
	})
	return list
}

// Annotated is the YAML of c with where each value came from behind its key. Parsing it gives the same configuration.
func (c *Config) Annotated() []byte {
	text := c.YAML()
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil || len(doc.Content) != 1 {
		panic(fmt.Sprintf("config: its own form is not read: %v", err)) // it was made here
	}
	lines := strings.Split(string(text), "\n")
	c.walk("", doc.Content[0], func(key string, k, v *yaml.Node) {
		from := " # " + strings.Join(strings.Fields(c.Origin(key)), " ")
		if i := k.Line - 1; v.Kind == yaml.ScalarNode && strings.Contains(v.Value, "\n") {
			lines[i] = from[1:] + "\n" + lines[i] // a text of several lines takes no comment behind it
		} else {
			lines[i] += from
		}
	})
	return []byte(strings.Join(lines, "\n"))
}

// walk visits everything that has a value of its own: keys that are no sections.
func (c *Config) walk(path string, n *yaml.Node, visit func(key string, k, v *yaml.Node)) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key := join(path, k.Value)
		switch {
		case key == "models":
			for j, m := range v.Content {
				c.walk(fmt.Sprintf("models[%d]", j), m, visit)
			}
			if len(v.Content) == 0 {
				visit(key, k, v)
			}
		case v.Kind == yaml.MappingNode && v.Style&yaml.FlowStyle == 0 && len(v.Content) > 0:
			c.walk(key, v, visit)
		default:
			visit(key, k, v)
		}
	}
}

// Origin says where the value at a key came from.
func (c *Config) Origin(key string) string {
	s := c.source
	if s == nil {
		return "given by the program"
	}
	var from string
	model, option, _ := strings.Cut(key, "].")
	model += "]"
	switch {
	case s.flags[key] != "":
		from = "--" + s.flags[key]
	case s.lines[key] > 0:
		from = strings.Join(s.places(key), ", ")
	case !strings.HasPrefix(key, "models["):
		from = "default"
	case s.single && s.lines[model] > 0:
		from = fmt.Sprintf("%s:%d", s.file, s.lines[model])
	case option == "base_path":
		from = "models_dir"
	case !isOption(strings.SplitN(option, ".", 2)[0]):
		from = "default"
	default:
		from = "as in defaults"
	}
	if s.kept[key] {
		return "as at the start; what is set now (" + from + ") waits for a restart"
	}
	return from
}

// places are where a key and, in other files, parts of its value stand: a map of labels, say, that a fragment has added to.
func (s *source) places(key string) []string {
	list := []string{fmt.Sprintf("%s:%d", s.fileOf(key), s.lines[key])}
	if len(s.files) == 0 {
		return list
	}
	first := make(map[string]int)
	for k, line := range s.lines {
		if file := s.fileOf(k); k != key && within(k, key) && file != s.fileOf(key) && (first[file] == 0 || line < first[file]) {
			first[file] = line
		}
	}
	for _, file := range slices.Sorted(maps.Keys(first)) {
		list = append(list, fmt.Sprintf("%s:%d", file, first[file]))
	}
	return list
}

// keep remembers that the value at the key is not what was read.
func (c *Config) keep(key string) {
	if c.source == nil {
		return
	}
	own := *c.source
	if own.kept = maps.Clone(own.kept); own.kept == nil {
		own.kept = make(map[string]bool)
	}
	own.kept[key], c.source = true, &own
}
