// fragments.go: the files of conf.d beside the main file, merged over it in the order of their names.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// FragmentsDir is the folder beside the main file whose *.yaml are merged over it.
const FragmentsDir = "conf.d"

// Limits on the fragments, beside MaxFileBytes for each.
const (
	MaxFragments     = 256
	MaxFragmentBytes = 4 << 20 // of all together
)

// File is the text of one file of a configuration.
type File struct {
	Name string
	Data []byte

	written time.Time
}

// readFiles reads the main file and its fragments, the main file first. An empty path means no file. The default file may be missing where
// it has fragments: a fleet that leaves the defaults alone needs no more than those.
func readFiles(path string) ([]File, error) {
	if path == "" {
		return []File{{}}, nil
	}
	names, err := fragments(path)
	if err != nil {
		return nil, err
	}
	main, err := readOne(path)
	if err != nil && (!errors.Is(err, fs.ErrNotExist) || path != DefaultFile || len(names) == 0) {
		return nil, err
	}
	main.Name = path
	files, total := []File{main}, 0
	for _, name := range names {
		f, err := readOne(name)
		if err != nil {
			return nil, err
		}
		if total += len(f.Data); total > MaxFragmentBytes {
			return nil, Faults{{File: name, Msg: fmt.Sprintf("with it the files of %s are larger than %v together, which no configuration is; take away what does not belong there", FragmentsDir, Bytes(MaxFragmentBytes))}}
		}
		files = append(files, f)
	}
	return files, nil
}

func readOne(path string) (File, error) {
	data, err := readFile(path)
	if err != nil {
		return File{}, err
	}
	st, err := os.Stat(path)
	if err != nil {
		return File{}, fmt.Errorf("read configuration: %w", err)
	}
	return File{Name: path, Data: data, written: st.ModTime()}, nil
}

// fragments are the paths of the main file's fragments, in the order of their names. Hidden files and other names than *.yaml are left alone.
func fragments(path string) ([]string, error) {
	dir := filepath.Join(filepath.Dir(path), FragmentsDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || filepath.Ext(e.Name()) != ".yaml" {
			continue
		}
		name := filepath.Join(dir, e.Name())
		if st, err := os.Stat(name); err == nil && !st.Mode().IsRegular() { // one that cannot be looked at is found when it is read
			return nil, Faults{{File: name, Msg: "is no file; everything in " + FragmentsDir + " whose name ends in .yaml is read, so give it another name"}}
		}
		names = append(names, name)
	}
	if len(names) > MaxFragments {
		return nil, Faults{{File: dir, Msg: fmt.Sprintf("has %d fragments, at most %d are read; join some", len(names), MaxFragments)}}
	}
	slices.Sort(names)
	return names, nil
}

// HasFragments reports whether conf.d beside the file has anything that is read.
func HasFragments(path string) bool {
	names, err := fragments(path)
	return err != nil || len(names) > 0
}

// digestOf names the contents of all the files. For one file alone it is that one's digest.
func digestOf(files []File) string {
	if len(files) == 1 {
		return digest(files[0].Data)
	}
	var all []byte
	for _, f := range files {
		all = fmt.Appendf(all, "%d %s %d ", len(f.Name), f.Name, len(f.Data))
		all = append(all, f.Data...)
	}
	return digest(all)
}

// merge reads the documents and lays each over those before it; nil when all are empty.
func (d *decoder) merge(files []File) *yaml.Node {
	var root *yaml.Node
	for i, f := range files {
		d.reading = f.Name
		doc := d.document(f.Data)
		if len(f.Data) == 0 {
			d.empty = append(d.empty, f.Name)
		}
		if doc == nil {
			continue
		}
		if i > 0 {
			d.mark(doc, f.Name)
			d.fragments = append(d.fragments, f.Name)
		}
		switch {
		case root == nil:
			root = doc
		case doc.Kind != yaml.MappingNode:
			d.addf(doc, "", "%s where keys are expected", describe(doc))
		case root.Kind == yaml.MappingNode: // else it is refused when it is decoded
			d.lay("", root, doc)
		}
	}
	d.reading = ""
	return root
}

// mark remembers which fragment a node and all below it came from.
func (d *decoder) mark(n *yaml.Node, name string) {
	if d.from == nil {
		d.from = make(map[*yaml.Node]string)
	}
	d.from[n] = name
	for _, c := range n.Content {
		d.mark(c, name)
	}
}

// lay puts the pairs of the mapping over into the mapping below: mappings key by key, models by name, anything else in place of what is there.
// A key without a value changes nothing. What over gives twice is refused here, for it could not be told any more.
func (d *decoder) lay(path string, below, over *yaml.Node) {
	seen := make(map[string]int)
	at := make(map[string]int, len(below.Content)/2)
	for i := 0; i+1 < len(below.Content); i += 2 {
		at[below.Content[i].Value] = i
	}
	for i := 0; i+1 < len(over.Content); i += 2 {
		k, v := over.Content[i], over.Content[i+1]
		if k.Kind != yaml.ScalarNode || k.ShortTag() == "!!merge" || k.ShortTag() == "!!null" {
			below.Content = append(below.Content, k, v) // it is refused when it is decoded
			continue
		}
		key := join(path, k.Value)
		if seen[k.Value] > 0 {
			d.addf(k, key, "given twice; it is on line %d already", seen[k.Value])
			continue
		}
		seen[k.Value] = k.Line
		j, there := at[k.Value]
		if !there {
			below.Content = append(below.Content, k, v)
			continue
		}
		old := below.Content[j+1]
		switch {
		case isNull(v), k.Value == "name" && strings.HasPrefix(path, "models[") && !strings.Contains(path, "]."): // it is the same
		case old.Kind == yaml.MappingNode && v.Kind == yaml.MappingNode && k.Value != "version_policy": // that has one key of several
			d.lay(key, old, v)
		case key == "models" && old.Kind == yaml.SequenceNode && v.Kind == yaml.SequenceNode:
			d.layModels(old, v)
		default:
			below.Content[j], below.Content[j+1] = k, v
		}
	}
}

// layModels merges a list of models by their names. One that a file lists twice stays twice, and is refused for that.
func (d *decoder) layModels(below, over *yaml.Node) {
	at := make(map[string]*yaml.Node, len(below.Content))
	for _, m := range below.Content {
		if name := nameOf(m); name != "" && at[name] == nil {
			at[name] = m
		}
	}
	for _, m := range over.Content {
		name := nameOf(m)
		if old := at[name]; name != "" && old != nil {
			delete(at, name)
			d.lay("models["+name+"]", old, m)
			continue
		}
		below.Content = append(below.Content, m)
	}
}

// nameOf is the name of a model in a list, "" when it has none.
func nameOf(m *yaml.Node) string {
	if m.Kind != yaml.MappingNode {
		return ""
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if k, v := m.Content[i], m.Content[i+1]; k.Value == "name" && v.Kind == yaml.ScalarNode {
			return v.Value
		}
	}
	return ""
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// file is where a node came from.
func (d *decoder) nodeFile(n *yaml.Node) string {
	if name, ok := d.from[n]; ok {
		return name
	}
	if d.reading != "" {
		return d.reading
	}
	return d.source.file
}

// place remembers where a key path stands.
func (d *decoder) place(path string, n *yaml.Node) {
	d.lines[path] = n.Line
	if name, ok := d.from[n]; ok {
		d.files[path] = name
	} else {
		delete(d.files, path)
	}
}

// LookAt is the [Config.Digest] of what the files of the configuration hold now, conf.d included where it was read, and when the newest of
// them was written.
func (c *Config) LookAt() (sum string, written time.Time, err error) {
	if c.source == nil || c.source.file == "" {
		return "", time.Time{}, errors.New("the configuration was read from no file")
	}
	var files []File
	if c.source.single {
		f, err := readOne(c.source.file)
		if err != nil {
			return "", time.Time{}, err
		}
		files = []File{f}
	} else if files, err = readFiles(c.source.file); err != nil {
		return "", time.Time{}, err
	}
	for _, f := range files {
		if f.written.After(written) {
			written = f.written
		}
	}
	return digestOf(files), written, nil
}

// Fragments are the files of conf.d that the configuration was read from, in their order.
func (c *Config) Fragments() []string {
	if c.source == nil {
		return nil
	}
	return slices.Clone(c.source.fragments)
}

// Emptied is a file that has not one byte in c and had some in before; "" when there is none. Whoever writes a file may have begun with that.
func (c *Config) Emptied(before *Config) string {
	if c.source == nil || before.source == nil {
		return ""
	}
	for _, name := range c.source.empty {
		had := name == before.source.file || slices.Contains(before.source.fragments, name)
		if had && !slices.Contains(before.source.empty, name) {
			return name
		}
	}
	return ""
}
