// read.go: a SavedModel directory as an Info.
package savedmodel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
)

// Read reads the meta graph with exactly these tags (nil means [DefaultTag]) and checks that every file it needs is there and whole.
// A signature that cannot be served is no error: it stands in Info.Refused. Errors about the directory wrap [ErrNone], [ErrIncomplete],
// [ErrTags] or [ErrUnsupported].
func Read(dir string, tags []string) (*Info, error) {
	if len(tags) == 0 {
		tags = []string{DefaultTag}
	}
	info, err := read(dir, tags)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", dir, err)
	}
	return info, nil
}

func read(dir string, tags []string) (*Info, error) {
	r, size, closeFile, err := openGraph(dir)
	if err != nil {
		return nil, err
	}
	defer closeFile()
	m, err := readMeta(r, size, tags)
	if err != nil {
		return nil, fmt.Errorf("saved_model.pb: %w", err)
	}
	info := &Info{
		Dir: dir, Tags: slices.Sorted(slices.Values(tags)), GraphBytes: size, Defs: m.signatures, Ops: m.graph.ops(), Assets: m.assets,
		Signatures: make(map[string]*inference.Signature), Refused: make(map[string]string),
	}
	for key, def := range m.signatures {
		if key == initOp {
			continue
		}
		s, err := m.graph.signature(key, def)
		if err != nil {
			info.Refused[key] = err.Error()
			continue
		}
		info.Signatures[key] = s
	}
	info.Outer = m.outer(slices.Sorted(maps.Keys(info.Signatures)))
	if info.VariableBytes, err = m.checkFiles(dir); err != nil {
		return nil, err
	}
	return info, nil
}

// openGraph opens saved_model.pb, or saved_model.pbtxt as if it were one.
func openGraph(dir string) (r io.ReaderAt, size int64, closeFile func(), err error) {
	f, size, err := openFile(filepath.Join(dir, "saved_model.pb"))
	if err == nil {
		return f, size, func() { _ = f.Close() }, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil, err
	}
	f, size, err = openFile(filepath.Join(dir, "saved_model.pbtxt"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Stat(filepath.Join(dir, "saved_model.cpb")); err == nil {
			return nil, 0, nil, fmt.Errorf("%w: saved_model.cpb, the form in pieces of graphs over 2 GB, cannot be served; save it again with its weights in variables, as saved_model.pb", ErrUnsupported)
		}
		return nil, 0, nil, fmt.Errorf("%w: neither saved_model.pb nor saved_model.pbtxt is there", ErrNone)
	}
	if err != nil {
		return nil, 0, nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	if size > maxTextFile {
		return nil, 0, nil, fmt.Errorf("%w: saved_model.pbtxt has %d bytes, at most %d are read; save it as saved_model.pb", ErrUnsupported, size, maxTextFile)
	}
	text, err := io.ReadAll(io.LimitReader(f, size))
	if err != nil {
		return nil, 0, nil, err
	}
	var m pb.SavedModel
	if err := (prototext.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(text, &m); err != nil {
		return nil, 0, nil, fmt.Errorf("%w: saved_model.pbtxt: %w", ErrIncomplete, err)
	}
	b, err := proto.Marshal(&m)
	if err != nil {
		return nil, 0, nil, fmt.Errorf("%w: saved_model.pbtxt: %w", ErrIncomplete, err)
	}
	return bytes.NewReader(b), int64(len(b)), func() {}, nil
}

// meta is what is kept of a MetaGraphDef.
type meta struct {
	graph      *graph
	signatures map[string]*pb.SignatureDef
	assets     []string
	restoreOp  string   // node that restores the variables
	initOps    []string // nodes that the loader runs once, after that
}

// readMeta finds the meta graph with these tags in a SavedModel proto and reads it.
func readMeta(r io.ReaderAt, size int64, tags []string) (*meta, error) {
	if size > maxGraphFile {
		return nil, fmt.Errorf("%w: %d bytes, more than the 2 GB that a protobuf may have", ErrUnsupported, size)
	}
	w := newWire(r)
	var at []int64 // of the meta graphs that have the tags
	var ends []int64
	var seen []string
	err := w.message(size, func(f field) error {
		if f.num != 2 {
			return nil
		}
		if len(seen) == maxMetaGraphs {
			return fmt.Errorf("more than %d meta graphs", maxMetaGraphs)
		}
		start := w.at
		have, err := readTags(w, f)
		if err != nil {
			return err
		}
		seen = append(seen, strings.Join(have, ","))
		if sameSet(have, tags) {
			at, ends = append(at, start), append(ends, f.end)
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, damaged(err)
	case len(seen) == 0:
		return nil, fmt.Errorf("%w: it has no meta graph", ErrIncomplete)
	case len(at) == 0:
		return nil, fmt.Errorf("%w with the tags {%s}; it has {%s}; name one of these sets in the configuration (tags)", ErrTags, strings.Join(tags, ","), strings.Join(seen, "}, {"))
	}
	w.at = at[0] // of several TensorFlow takes the first as well
	m := &meta{graph: newGraph(), signatures: make(map[string]*pb.SignatureDef)}
	if err := m.read(w, ends[0]); err != nil {
		return nil, damaged(err)
	}
	return m, nil
}

// damaged marks what is wrong in a file as something that a copy under way may cure.
func damaged(err error) error { return fmt.Errorf("%w: %w", ErrIncomplete, err) }

func sameSet(a, b []string) bool {
	sorted := func(s []string) []string { return slices.Compact(slices.Sorted(slices.Values(s))) }
	return slices.Equal(sorted(a), sorted(b))
}

func readTags(w *wire, m field) (tags []string, err error) {
	err = w.sub(m, func(f field) error {
		if f.num != 1 { // meta_info_def
			return nil
		}
		return w.sub(f, func(f field) error {
			if f.num != 4 {
				return nil
			}
			b, err := w.content(f, 1<<10)
			if len(tags) == maxTags {
				err = fmt.Errorf("more than %d tags", maxTags)
			}
			tags = append(tags, string(b))
			return err
		})
	})
	return tags, err
}

func (m *meta) read(w *wire, end int64) error {
	signatures := int64(0)
	return w.message(end, func(f field) error {
		switch f.num {
		case 2:
			return m.graph.read(w, f)
		case 3: // saver_def
			return w.sub(f, func(f field) error {
				if f.num != 3 {
					return nil
				}
				b, err := w.content(f, maxName)
				m.restoreOp = nodeName(string(b))
				return err
			})
		case 5: // signature_def, a map entry
			if signatures += f.end - w.at; signatures > maxSignatures {
				return fmt.Errorf("signatures of more than %d MiB", maxSignatures>>20)
			}
			b, err := w.content(f, maxSignatures)
			if err != nil {
				return err
			}
			return m.addSignature(b)
		case 4: // collection_def, a map entry
			return m.readCollection(w, f)
		case 6: // asset_file_def
			return m.readAsset(w, f)
		}
		return nil
	})
}

func (m *meta) readAsset(w *wire, f field) error {
	return w.sub(f, func(f field) error {
		if f.num != 2 { // filename
			return nil
		}
		b, err := w.content(f, maxName)
		if len(m.assets) == maxAssets {
			err = fmt.Errorf("more than %d assets", maxAssets)
		}
		m.assets = append(m.assets, string(b))
		return err
	})
}

// readCollection reads what TensorFlow 1 kept in collections: the assets, as Any in "saved_model_assets", and the names of the nodes that
// the loader runs once, in "saved_model_main_op" or "legacy_init_op". The key may come after the value.
func (m *meta) readCollection(w *wire, f field) error {
	before, key := len(m.assets), ""
	var nodes []string
	err := w.sub(f, func(f field) error {
		switch f.num {
		case 1:
			b, err := w.content(f, maxName)
			key = string(b)
			return err
		case 2: // CollectionDef
			return w.sub(f, func(f field) error {
				switch {
				case f.num == 1 && (key == "" || initCollections[key]): // node_list
					return w.sub(f, func(f field) error {
						if f.num != 1 {
							return nil
						}
						b, err := w.content(f, maxName)
						if len(nodes) == maxInitOps {
							err = fmt.Errorf("a collection without a name, or of initialisers, with more than %d nodes", maxInitOps)
						}
						nodes = append(nodes, nodeName(string(b)))
						return err
					})
				case f.num == 5 && (key == "" || key == assetCollection): // any_list
					return w.sub(f, func(f field) error {
						if f.num != 1 {
							return nil
						}
						return w.sub(f, func(f field) error { // Any
							if f.num != 2 {
								return nil
							}
							return m.readAsset(w, f)
						})
					})
				}
				return nil
			})
		}
		return nil
	})
	if key != assetCollection {
		m.assets = m.assets[:before]
	}
	if initCollections[key] {
		m.initOps = append(m.initOps, nodes...)
	}
	return err
}

const assetCollection = "saved_model_assets"

var initCollections = map[string]bool{"saved_model_main_op": true, "legacy_init_op": true}

// addSignature reads one entry of the signature_def map, as a MetaGraphDef with nothing else.
func (m *meta) addSignature(entry []byte) error {
	one := append([]byte{5<<3 | wireBytes}, appendUvarint(len(entry))...)
	var def pb.MetaGraphDef
	if err := proto.Unmarshal(append(one, entry...), &def); err != nil {
		return fmt.Errorf("signature: %w", err)
	}
	for key, s := range def.GetSignatureDef() {
		m.signatures[key] = s
	}
	return nil
}

func appendUvarint(n int) (b []byte) {
	for ; n >= 0x80; n >>= 7 {
		b = append(b, byte(n)|0x80)
	}
	return append(b, byte(n))
}

// checkFiles holds the files beside saved_model.pb against what it needs, and returns the size of the variables.
func (m *meta) checkFiles(dir string) (variableBytes int64, err error) {
	slices.Sort(m.assets)
	m.assets = slices.Compact(m.assets)
	for _, name := range m.assets {
		if !filepath.IsLocal(name) {
			return 0, fmt.Errorf("%w: asset %q lies outside the folder", ErrUnsupported, name)
		}
		if _, err := fileSize(filepath.Join(dir, "assets", name)); err != nil {
			return 0, fmt.Errorf("%w: asset %q: %w", ErrIncomplete, name, err)
		}
	}
	variableBytes, err = checkVariables(dir)
	if !errors.Is(err, fs.ErrNotExist) {
		return variableBytes, err
	}
	// Without an index TensorFlow loads nothing and says nothing; whether that is right depends on the graph.
	if op, _ := m.graph.reach([]string{m.restoreOp}, restores); op != "" {
		return 0, fmt.Errorf("%w: the graph restores variables, and variables/variables.index is not there", ErrIncomplete)
	}
	if shards, _ := filepath.Glob(filepath.Join(escapeGlob(dir), "variables", "variables.data-*")); len(shards) > 0 {
		return 0, fmt.Errorf("%w: variables/ has %s, and no variables.index", ErrIncomplete, filepath.Base(shards[0]))
	}
	return 0, nil
}

// escapeGlob makes a path match itself only.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
