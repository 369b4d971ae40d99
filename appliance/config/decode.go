// decode.go: YAML nodes into the config types, with every fault and every line kept.
package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// decoder fills values in place: what the document does not mention keeps what it had.
type decoder struct {
	source
	faults  Faults
	reading string                // the file whose document is being read
	from    map[*yaml.Node]string // the fragments that nodes came from; the others are the main file's
}

// nodeDecoder is implemented by pointers to types with a form of their own.
type nodeDecoder interface {
	decodeNode(d *decoder, path string, n *yaml.Node)
}

// otherNames are keys that people bring along, and what they are called here.
var otherNames = map[string]string{
	"batch_timeout_micros":          "batch_timeout (a duration: 1ms)",
	"enable_batching":               "enabled",
	"enable_large_batch_splitting":  "large_batch_splitting",
	"model_version_policy":          "version_policy",
	"model_config_list":             "models",
	"port":                          "listen.grpc",
	"rest_api_port":                 "listen.http",
	"file_system_poll_wait_seconds": "updater.poll_interval (a duration: 1s)",
}

func (d *decoder) addf(n *yaml.Node, path, format string, args ...any) {
	d.faults = append(d.faults, Fault{File: d.nodeFile(n), Line: n.Line, Key: path, Msg: fmt.Sprintf(format, args...)})
}

// mapping calls visit for each pair, after refusing what is no mapping, keys that are no plain words and keys given twice.
func (d *decoder) mapping(path string, n *yaml.Node, visit func(key string, k, v *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.addf(n, path, "%s where keys are expected", describe(n))
		return
	}
	seen := make(map[string]int)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		switch {
		case k.ShortTag() == "!!merge":
			d.addf(k, path, "merge keys (<<) are not read; write the values, or use the defaults section for what models share")
		case k.Kind != yaml.ScalarNode || k.ShortTag() == "!!null":
			d.addf(k, path, "%s cannot be a key", describe(k))
		case seen[k.Value] > 0:
			d.addf(k, join(path, k.Value), "given twice; it is on line %d already", seen[k.Value])
		case v.Kind == yaml.AliasNode:
			d.addf(v, join(path, k.Value), "aliases (*%s) are not read; write the value, or use the defaults section for what models share", v.Value)
		default:
			seen[k.Value] = k.Line
			d.place(join(path, k.Value), k)
			visit(k.Value, k, v)
		}
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// decode fills v, which is addressable, from n.
func (d *decoder) decode(path string, n *yaml.Node, v reflect.Value) {
	if n.Kind == yaml.AliasNode {
		d.addf(n, path, "aliases (*%s) are not read; write the value", n.Value)
		return
	}
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return // a key with no value keeps its default
	}
	if c, ok := v.Addr().Interface().(nodeDecoder); ok {
		c.decodeNode(d, path, n)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(path, n, v)
	case reflect.Slice:
		if n.Kind != yaml.SequenceNode {
			d.addf(n, path, "%s where a list is expected", describe(n))
			return
		}
		list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
		for i, e := range n.Content {
			at := fmt.Sprintf("%s[%d]", path, i)
			d.place(at, e)
			d.decode(at, e, list.Index(i))
		}
		v.Set(list)
	case reflect.Map:
		m := reflect.MakeMap(v.Type())
		d.mapping(path, n, func(key string, _, e *yaml.Node) {
			value := reflect.New(v.Type().Elem()).Elem()
			d.decode(join(path, key), e, value)
			m.SetMapIndex(reflect.ValueOf(key), value)
		})
		v.Set(m)
	default:
		if n.Kind != yaml.ScalarNode {
			d.addf(n, path, "%s where %s is expected", describe(n), want(v))
			return
		}
		if err := setScalar(v, n.Value); err != nil {
			d.addf(n, path, "%v", err)
		}
	}
}

func (d *decoder) decodeStruct(path string, n *yaml.Node, v reflect.Value) {
	fields := fieldsOf(v)
	d.mapping(path, n, func(key string, k, e *yaml.Node) {
		for _, f := range fields {
			if f.key == key {
				d.decode(join(path, key), e, f.value)
				return
			}
		}
		d.unknown(path, k, keysOf(fields))
	})
}

func (d *decoder) unknown(path string, k *yaml.Node, known []string) {
	where := "at the top"
	if path != "" {
		where = "in " + path
	}
	hint := nearest(k.Value, known)
	if other, ok := otherNames[k.Value]; ok && hint != k.Value {
		hint = other
	}
	if hint != "" {
		hint = "; did you mean " + hint + "?"
	} else {
		hint = "; the keys are " + strings.Join(known, ", ")
	}
	d.addf(k, "", "unknown key %q %s%s", shorten(k.Value), where, hint)
}

// field is one key of a struct.
type field struct {
	key   string
	doc   string
	value reflect.Value
}

// fieldsOf has the keys of a struct in the order of its declaration, with those of inlined structs in their place.
func fieldsOf(v reflect.Value) []field {
	var fields []field
	for i := range v.NumField() {
		f := v.Type().Field(i)
		switch tag := f.Tag.Get("yaml"); {
		case tag == ",inline":
			fields = append(fields, fieldsOf(v.Field(i))...)
		case tag != "":
			fields = append(fields, field{key: tag, doc: f.Tag.Get("doc"), value: v.Field(i)})
		}
	}
	return fields
}

func keysOf(fields []field) []string {
	keys := make([]string, len(fields))
	for i, f := range fields {
		keys[i] = f.key
	}
	return keys
}

// want names what a scalar of v's type looks like.
func want(v reflect.Value) string {
	switch v.Interface().(type) {
	case time.Duration:
		return "a duration (250ms)"
	case Bytes:
		return "a size (512MiB)"
	}
	switch v.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	default:
		return "a word"
	}
}

// setScalar reads s as v's type. The same text means the same in a file and in a flag.
func setScalar(v reflect.Value, s string) error {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		d, err := parseDuration(s)
		if err == nil {
			*p = d
		}
		return err
	case *Bytes:
		b, err := ParseBytes(s)
		if err == nil {
			*p = b
		}
		return err
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(s)
	case reflect.Bool:
		if s != "true" && s != "false" {
			return fmt.Errorf("%q is neither true nor false", shorten(s))
		}
		v.SetBool(s == "true")
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil || v.OverflowInt(n) {
			return fmt.Errorf("%q is not a whole number", shorten(s))
		}
		v.SetInt(n)
	case reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return fmt.Errorf("%q is not a number", shorten(s))
		}
		v.SetFloat(x)
	default:
		panic("config: no scalar form for " + v.Type().String())
	}
	return nil
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "keys"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	default:
		return strconv.Quote(shorten(n.Value))
	}
}

// shorten keeps messages readable when the value is not.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

func (p *VersionPolicy) decodeNode(d *decoder, path string, n *yaml.Node) {
	const forms = "write one of {latest: N}, {all: {}}, {specific: [1, 2]}"
	if n.Kind != yaml.MappingNode {
		d.addf(n, path, "%s is not a version policy; %s", describe(n), forms)
		return
	}
	if len(n.Content) != 2 {
		d.addf(n, path, "a version policy has exactly one key, not %d; %s", len(n.Content)/2, forms)
		return
	}
	var got VersionPolicy
	before := len(d.faults)
	d.mapping(path, n, func(key string, k, v *yaml.Node) {
		at := join(path, key)
		switch key {
		case "latest":
			d.decode(at, v, reflect.ValueOf(&got.Latest).Elem())
			if got.Latest < 1 && len(d.faults) == before {
				d.addf(v, at, "%d is less than 1, the least number of versions that can be served", got.Latest)
			}
		case "all":
			if v.Kind != yaml.MappingNode || len(v.Content) > 0 {
				d.addf(v, at, "%s has no meaning here; write {all: {}}", describe(v))
			}
			got.All = true
		case "specific":
			d.decode(at, v, reflect.ValueOf(&got.Specific).Elem())
			if len(got.Specific) == 0 && len(d.faults) == before {
				d.addf(v, at, "names no version; write for example [1, 2]")
			}
		default:
			d.unknown(path, k, []string{"latest", "all", "specific"})
		}
	})
	if len(d.faults) == before {
		*p = got
	}
}
