// load.go: a file and flags into a Config.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the file and the fragments in conf.d beside it, lays the flags over them and validates the whole. An empty path means no file.
// The error is a [Faults] when the configuration is wrong, else says why a file cannot be read. Relative paths in the files are taken from
// the main file's directory, those in flags from the working directory.
func Load(path string, flags *Flags) (*Config, error) {
	files, err := readFiles(path)
	if err != nil {
		return nil, err
	}
	return ParseFiles(files, flags)
}

// readFile reads a whole file that is not larger than a configuration can be.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	data, err := io.ReadAll(io.LimitReader(f, MaxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	if len(data) > MaxFileBytes {
		return nil, Faults{{File: path, Msg: fmt.Sprintf("larger than %v, which no configuration is; is it the right file?", Bytes(MaxFileBytes))}}
	}
	return data, nil
}

// Parse is Load for bytes that have been read; name is used in messages and for relative paths. It reads no file. flags may be nil.
func Parse(name string, data []byte, flags *Flags) (*Config, error) {
	return ParseFiles([]File{{Name: name, Data: data}}, flags)
}

// ParseFiles is Parse for a main file and the fragments that are merged over it, in their order.
func ParseFiles(files []File, flags *Flags) (*Config, error) {
	c, err := parse(files, flags)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// parse is ParseFiles that returns what could be read beside the error.
func parse(texts []File, flags *Flags) (*Config, error) {
	c := Default()
	d := &decoder{source: source{file: texts[0].Name, lines: make(map[string]int), files: make(map[string]string), flags: make(map[string]string), sum: digestOf(texts)}}
	root, models := d.merge(texts), (*yaml.Node)(nil)
	if root != nil {
		fields := fieldsOf(reflect.ValueOf(c).Elem())
		d.mapping("", root, func(key string, k, v *yaml.Node) {
			for _, f := range fields {
				if f.key == key {
					if key == "models" {
						models = v // after everything that their defaults may come from
					} else {
						d.decode(key, v, f.value)
					}
					return
				}
			}
			d.unknown("", k, keysOf(fields))
		})
	}
	d.faults = append(d.faults, flags.apply(c, d.flags)...)
	if models != nil {
		d.models(c, models)
	}
	c.source = &d.source
	c.resolve()
	return c, d.finish(c)
}

// finish joins what decoding and validation found. What could not be read is not found missing or out of range as well.
func (d *decoder) finish(c *Config) error {
	var faults Faults
	if err := c.Validate(); err != nil && !errors.As(err, &faults) {
		return err
	}
	unread := d.faults
	for _, f := range faults {
		if !slices.ContainsFunc(unread, func(u Fault) bool { return within(f.Key, u.Key) }) {
			d.faults = append(d.faults, f)
		}
	}
	return d.faults.err()
}

// within reports whether a key path is another or lies below it.
func within(key, above string) bool {
	rest, ok := strings.CutPrefix(key, above)
	return ok && above != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// document is the root of the one document in data, nil when there is none or it is no YAML.
func (d *decoder) document(data []byte) *yaml.Node {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		return nil // nothing but comments
	}
	if err == nil {
		if err = dec.Decode(&more); errors.Is(err, io.EOF) {
			err = nil
		} else if err == nil {
			d.addf(&more, "", "a second document begins; a configuration is one")
		}
	}
	if err != nil {
		d.faults = append(d.faults, syntaxFault(d.nodeFile(nil), err))
		return nil
	}
	if len(doc.Content) != 1 || doc.Content[0].ShortTag() == "!!null" {
		return nil
	}
	return doc.Content[0]
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxFault(file string, err error) Fault {
	msg := err.Error()
	line := 0
	if m := yamlLine.FindStringSubmatch(msg); m != nil {
		line, _ = strconv.Atoi(m[1])
		msg = msg[len(m[0]):]
	}
	return Fault{File: file, Line: line, Msg: "not YAML: " + msg}
}

// models reads the list of models, each of which begins as the defaults section says.
func (d *decoder) models(c *Config, n *yaml.Node) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		d.addf(n, "models", "%s where a list is expected; begin each model with a dash: - name: NAME", describe(n))
		return
	}
	if len(n.Content) > MaxModels {
		d.addf(n, "models", "%d models, at most %d can be listed", len(n.Content), MaxModels)
		return
	}
	c.Models = make([]Model, len(n.Content))
	for i, e := range n.Content {
		at := fmt.Sprintf("models[%d]", i)
		d.place(at, e)
		c.Models[i].ModelOptions = c.Defaults
		d.decode(at, e, reflect.ValueOf(&c.Models[i]).Elem())
	}
}

// resolve makes every path absolute and fills in the base paths that are left out.
func (c *Config) resolve() {
	c.path("models_dir", &c.ModelsDir)
	c.path("state_dir", &c.StateDir)
	c.path("listen.grpc_socket", &c.Listen.GRPCSocket)
	c.path("listen.control", &c.Listen.Control)
	c.path("listen.tls.cert", &c.Listen.TLS.Cert)
	c.path("listen.tls.key", &c.Listen.TLS.Key)
	c.path("listen.tls.client_ca", &c.Listen.TLS.ClientCA)
	c.path("listen.tls.ssl_config_file", &c.Listen.TLS.SSLConfigFile)
	c.path("access.tokens_file", &c.Access.TokensFile)
	c.path("runtime.library", &c.Runtime.Library)
	for i := range c.Models {
		m := &c.Models[i]
		if m.BasePath == "" && m.Name != "" && c.ModelsDir != "" {
			m.BasePath = filepath.Join(c.ModelsDir, m.Name)
		}
		c.path(fmt.Sprintf("models[%d].base_path", i), &m.BasePath)
	}
}

// path makes *p absolute: from the file's directory, or from the working directory where a flag gave it.
func (c *Config) path(key string, p *string) {
	if *p == "" || filepath.IsAbs(*p) || strings.Contains(*p, "://") {
		return
	}
	if c.source.flags[key] == "" && c.source.file != "" {
		*p = filepath.Join(filepath.Dir(c.source.file), *p)
	}
	if abs, err := filepath.Abs(*p); err == nil {
		*p = abs
	}
}

// Model is the settings of a model: the listed ones, else those that a model found in models_dir has. listed says which.
func (c *Config) Model(name string) (m Model, listed bool) {
	for i := range c.Models {
		if c.Models[i].Name == name {
			return c.Models[i], true
		}
	}
	return Model{Name: name, BasePath: filepath.Join(c.ModelsDir, name), ModelOptions: c.Defaults}, false
}

// Fault is one about the value at key, with the file and line or the flag that it came from. Whoever finds out later that a value cannot
// be used (an address that is taken, a directory that is not there) says so with it. It does not count as wrong usage.
func (c *Config) Fault(key, format string, args ...any) Fault {
	return c.source.fault(key, format, args...)
}
