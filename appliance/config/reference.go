// reference.go: the reference for users and the sample file, both made from the config types.
package config

import (
	"bytes"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Key is one key of the configuration file.
type Key struct {
	Path    string // "listen.grpc"; keys of a listed model begin with "models[]."
	Kind    string // "string", "bool", "int", "float", "duration", "size", "true, false or auto", "list", "list of keys", "version policy", "versions by label", "signatures", "media by input"
	Default string // as in YAML, empty for a section
	Doc     string
	Section bool // has keys below it
	Model   bool // a key of one listed model, or the list itself
}

// Keys has every key in the order of the file. Those that a listed model shares with the defaults section are named in the latter only.
func Keys() []Key {
	return keys("", reflect.ValueOf(Default()).Elem(), nil)
}

func keys(prefix string, v reflect.Value, list []Key) []Key {
	for _, f := range fieldsOf(v) {
		path := join(prefix, f.key)
		switch {
		case path == "models":
			list = append(list, Key{Path: path, Doc: f.doc, Section: true, Model: true})
			own := reflect.ValueOf(&Model{}).Elem()
			for _, f := range fieldsOf(own) {
				if !isOption(f.key) {
					list = append(list, Key{Path: "models[]." + f.key, Kind: kindOf(f.value), Default: inline(f.value), Doc: f.doc, Model: true})
				}
			}
		case kindOf(f.value) == "":
			list = append(list, Key{Path: path, Doc: f.doc, Section: true})
			list = keys(path, f.value, list)
		default:
			list = append(list, Key{Path: path, Kind: kindOf(f.value), Default: inline(f.value), Doc: f.doc})
		}
	}
	return list
}

func isOption(key string) bool {
	for _, f := range fieldsOf(reflect.ValueOf(&ModelOptions{}).Elem()) {
		if f.key == key {
			return true
		}
	}
	return false
}

// kindOf is the Kind of a value, "" for a section.
func kindOf(v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return "duration"
	case Bytes:
		return "size"
	case Switch:
		return "true, false or auto"
	case VersionPolicy:
		return "version policy"
	case Signatures:
		return "signatures"
	case MediaInputs:
		return "media by input"
	}
	switch v.Kind() {
	case reflect.Struct:
		return ""
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			return "list of keys"
		}
		return "list"
	case reflect.Map:
		return "versions by label"
	case reflect.Float64:
		return "float"
	default:
		return v.Kind().String()
	}
}

// inline is the value on one line of YAML.
func inline(v reflect.Value) string {
	n := encode(v)
	n.Style = yaml.FlowStyle
	if v.Kind() == reflect.String && v.Len() == 0 {
		n.Style = yaml.DoubleQuotedStyle
	}
	b, err := yaml.Marshal(n)
	if err != nil {
		panic("config: " + err.Error()) // the node was made here
	}
	return strings.TrimSpace(string(b))
}

// encode is the YAML of a value of the config types; decoding it gives the value again.
func encode(v reflect.Value) *yaml.Node {
	switch x := v.Interface().(type) {
	case time.Duration:
		return plain(formatDuration(x))
	case Bytes:
		return plain(x.String())
	case Switch:
		return plain(string(x))
	case VersionPolicy:
		switch {
		case x.All:
			return pairs(plain("all"), &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle})
		case len(x.Specific) > 0:
			return pairs(plain("specific"), encode(reflect.ValueOf(x.Specific)))
		default:
			return pairs(plain("latest"), encode(reflect.ValueOf(x.Latest)))
		}
	case Signatures:
		return encodeSignatures(x)
	case Media:
		return encodeMedia(x)
	}
	switch v.Kind() {
	case reflect.Struct:
		n := &yaml.Node{Kind: yaml.MappingNode}
		for _, f := range fieldsOf(v) {
			n.Content = append(n.Content, plain(f.key), encode(f.value))
		}
		return n
	case reflect.Slice:
		n := &yaml.Node{Kind: yaml.SequenceNode}
		if v.Type().Elem().Kind() != reflect.Struct {
			n.Style = yaml.FlowStyle
		}
		for i := range v.Len() {
			n.Content = append(n.Content, encode(v.Index(i)))
		}
		return n
	case reflect.Map:
		return encodeMap(v)
	case reflect.Bool:
		return plain(strconv.FormatBool(v.Bool()))
	case reflect.Int, reflect.Int64:
		return plain(strconv.FormatInt(v.Int(), 10))
	case reflect.Float64:
		return plain(strconv.FormatFloat(v.Float(), 'g', -1, 64))
	default:
		n := &yaml.Node{}
		n.SetString(v.String())
		if v.Len() == 0 {
			n.Style = yaml.DoubleQuotedStyle
		}
		return n
	}
}

func plain(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Value: s} }

func text(s string) *yaml.Node { return encode(reflect.ValueOf(s)) }

func pairs(content ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Style: yaml.FlowStyle, Content: content}
}

// YAML is the effective configuration, with every key. Parsing it gives the same configuration.
func (c *Config) YAML() []byte {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	if err := e.Encode(encode(reflect.ValueOf(c).Elem())); err != nil {
		panic("config: " + err.Error()) // the node was made here
	}
	return b.Bytes()
}

// Sample is a configuration file with every key commented out at its default.
func Sample() []byte {
	var b strings.Builder
	b.WriteString("# inferd.yaml: every key of inferd at its default. Take the # away from a key to change it.\n" +
		"# An unknown key is refused. `inferd check inferd.yaml` says what is wrong without serving.\n" +
		"# Made by tools/configdoc from appliance/config; do not edit in the repository.\n")
	for _, k := range Keys() {
		depth := strings.Count(k.Path, ".")
		indent := strings.Repeat("  ", depth)
		name := k.Path[strings.LastIndex(k.Path, ".")+1:]
		switch {
		case k.Path == "models":
			b.WriteString("\n" + comment("", k.Doc) + "models:\n")
			b.WriteString("#- name: resnet\n#  base_path: /srv/models/resnet\n#  version_policy: {latest: 2}\n")
			continue
		case k.Model:
			continue
		case k.Section:
			if depth == 0 {
				b.WriteByte('\n')
			}
			b.WriteString(comment(indent, k.Doc) + indent + name + ":\n")
		default:
			if depth == 0 {
				b.WriteByte('\n')
			}
			b.WriteString(comment(indent, k.Doc) + "#" + indent + name + ": " + k.Default + "\n")
		}
	}
	return []byte(b.String())
}

// comment wraps doc into comment lines of about 120 columns.
func comment(indent, doc string) string {
	var b strings.Builder
	line := indent + "#"
	for word := range strings.FieldsSeq(doc) {
		if len(line)+1+len(word) > 120 {
			b.WriteString(line + "\n")
			line = indent + "#"
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// Reference is docs/configuration.md.
func Reference() []byte {
	var b strings.Builder
	b.WriteString(`# Configuration

<!-- Made by tools/configdoc from appliance/config. Do not edit. -->

inferd reads one YAML file, and the fragments beside it. Every key has a default, so an empty file, or none, is a whole configuration. An unknown key is refused,
with its line. Durations are written with a unit (` + "`250ms`, `30s`" + `), sizes too (` + "`512MiB`" + `). Relative paths are taken from the file's
directory. ` + "`packaging/inferd.yaml`" + ` is a sample with every key.

## Fragments

What belongs to a whole fleet, and not to one machine, goes to files of its own in ` + "`conf.d`" + ` beside the file: ` + "`/etc/inferd/conf.d/*.yaml`" + `. They are read
after it, in the order of their names (` + "`10-fleet.yaml`" + ` before ` + "`9-site.yaml`" + `: names, not numbers), each laid over what was read before:

- a key of a section takes the place of the same key, the others stay; so do ` + "`version_labels`, `signatures` and `media`" + `;
- a model of ` + "`models`" + ` is merged into the one of the same ` + "`name`" + `, key by key, and is listed after the others where there is none;
- any other list, and ` + "`version_policy`" + `, is taken as a whole; a key without a value changes nothing.

Whatever their names, at most ` + fmt.Sprint(MaxFragments) + ` files of ` + Bytes(MaxFileBytes).String() + `, together ` + Bytes(MaxFragmentBytes).String() + `, are read; hidden files and those that do not end in ` + "`.yaml`" + ` are not.
Relative paths are taken from the main file's directory. A fault names the file, the line and the key. ` + "`inferd config show`" + ` prints what is in force and
where each value came from, ` + "`inferd config show --offline`" + ` and ` + "`inferd check`" + ` what would be. Where a fleet leaves all else at its default, there
need be no ` + "`/etc/inferd/inferd.yaml`" + `.

## Flags

Every key outside ` + "`models`" + ` is also a flag of the same name that overrides the file: ` + "`--listen.grpc=:8500`, `--runtime.zygote=false`" + `;
lists are written with commas, and those that have keys in the file alone. Flags for the keys of ` + "`defaults`" + ` yield to what a listed model sets itself.

`)
	for _, k := range Keys() {
		switch {
		case k.Section && !strings.Contains(k.Path, "."):
			b.WriteString("\n## " + k.Path + "\n\n" + k.Doc + "\n\n| key | kind | default | meaning |\n|---|---|---|---|\n")
			if k.Path == "models" {
				b.WriteString("| every key of `defaults` | | as in `defaults` | The model's own value. |\n")
			}
		case k.Section:
			fmt.Fprintf(&b, "| `%s` | | | %s |\n", k.Path, cell(k.Doc))
		case !strings.Contains(k.Path, "."):
			fmt.Fprintf(&b, "\n## %s\n\n%s\n\nKind: %s. Default: `%s`.\n", k.Path, k.Doc, k.Kind, k.Default)
		default:
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", k.Path, k.Kind, code(k.Default), cell(k.Doc))
		}
	}
	b.WriteString(reloadReference())
	b.WriteString(`
## Signature assertions

` + "```yaml" + `
models:
- name: mnist
  signatures:
    serving_default:
      method: tensorflow/serving/predict
      inputs:
        image: {dtype: float, shape: [-1, 28, 28, 1]}
      outputs:
        scores: {dtype: DT_FLOAT, shape: [-1, 10]}
` + "```" + `

What is left out is not asserted. ` + "`shape: unknown`" + ` asserts an unknown rank, ` + "`shape: []`" + ` a scalar. A shape holds when the model would accept a
tensor of that shape: a number fits the same number, -1 or an unknown rank in the model; -1 needs -1 or unknown.
`)
	b.WriteString(mediaReference())
	b.WriteString(`
## TensorFlow Serving's own command line

` + "`inferd tensorflow_model_server ...`" + `, or inferd started under the name ` + "`tensorflow_model_server`" + `, takes the flags of TensorFlow Serving, written as
there: ` + "`--flag=value`" + `, and for booleans also ` + "`--flag`" + `. The flags of this page may be mixed in and win. The ports are bound on every interface without
authentication, as TensorFlow Serving does; ` + "`--listen.grpc=127.0.0.1:8500 --listen.http=127.0.0.1:8501`" + ` closes them to other machines,
and ` + "`--access.tokens_file=/etc/inferd/tokens.yaml`" + ` has them ask for tokens ([security.md](security.md)).

| flag | kind | meaning here |
|---|---|---|
`)
	for _, f := range servingFlags {
		fmt.Fprintf(&b, "| `--%s` | %s | %s |\n", f.name, f.kind, cell(f.doc()))
	}
	return []byte(b.String())
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
