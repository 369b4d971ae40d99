// diagnose.go: what lies in a folder that is no SavedModel, and the command that makes it one.
package savedmodel

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

const maxEntries = 2000 // of a directory; what lies after them is not looked at

// Diagnose looks at a folder that was expected to be a model's base path or one of its versions, and in which nothing can be served.
// It says what is there and which shell command puts it right; "" when it has nothing to add.
func Diagnose(dir string) string {
	p := newPlace(dir)
	for _, look := range []func(*place) string{
		(*place).savedModelHere, (*place).savedModelBelow, (*place).unzippedKeras, (*place).archive, (*place).foreignFile, (*place).checkpoint,
	} {
		if s := look(p); s != "" {
			return s
		}
	}
	return ""
}

// DiagnoseFile is [Diagnose] for one file that was given in place of a folder; "" when it is none of the formats that are known.
func DiagnoseFile(path string) string {
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	dir := filepath.Dir(path)
	p := &place{dir: dir, version: isNumber(filepath.Base(dir)), files: []string{filepath.Base(path)}}
	_, p.dirs = list(dir) // the command makes the next version
	for _, look := range []func(*place) string{(*place).archive, (*place).foreignFile} {
		if s := look(p); s != "" {
			return s
		}
	}
	return ""
}

// place is the folder in question.
type place struct {
	dir     string
	version bool // its name is a number, so it was meant as a version
	files   []string
	dirs    []string
}

func newPlace(dir string) *place {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs // the base's name decides, and the commands must work from anywhere
	}
	p := &place{dir: dir, version: isNumber(filepath.Base(dir))}
	p.files, p.dirs = list(dir)
	return p
}

func isNumber(name string) bool {
	_, err := strconv.ParseUint(name, 10, 63)
	return err == nil
}

// list has the names of the regular files and of the folders in dir, sorted. Hidden ones are left out, and names that would break a
// line of the log.
func list(dir string) (files, dirs []string) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, nil
	}
	defer f.Close() //nolint:errcheck // only read
	entries, err := f.ReadDir(maxEntries)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || strings.IndexFunc(e.Name(), unicode.IsControl) >= 0 {
			continue
		}
		mode := e.Type()
		if mode&fs.ModeSymlink != 0 {
			st, err := os.Stat(filepath.Join(dir, e.Name()))
			if err != nil {
				continue
			}
			mode = st.Mode()
		}
		switch {
		case mode.IsDir():
			dirs = append(dirs, e.Name())
		case mode.IsRegular():
			files = append(files, e.Name())
		}
	}
	slices.Sort(files)
	slices.Sort(dirs)
	return files, dirs
}

func (p *place) path(name ...string) string {
	return filepath.Join(append([]string{p.dir}, name...)...)
}

func (p *place) has(name string) bool { return slices.Contains(p.files, name) }

// target is the version folder that a command should fill: the place itself, or the next number in it.
func (p *place) target() string {
	if p.version {
		return p.dir
	}
	next := uint64(1)
	for _, d := range p.dirs {
		if n, err := strconv.ParseUint(d, 10, 63); err == nil && n >= next {
			next = n + 1
		}
	}
	return p.path(strconv.FormatUint(next, 10))
}

// savedModelNames are the parts of a SavedModel, saved_model.pb last: a folder that has it is meant to be whole.
var savedModelNames = []string{"variables", "assets", "assets.extra", "debug", "fingerprint.pb", "keras_metadata.pb", "saved_model.pbtxt", "saved_model.pb"}

func hasSavedModel(dir string) bool {
	for _, name := range []string{"saved_model.pb", "saved_model.pbtxt"} {
		if st, err := os.Stat(filepath.Join(dir, name)); err == nil && st.Mode().IsRegular() {
			return true
		}
	}
	return false
}

func (p *place) savedModelHere() string {
	if p.has("saved_model.cpb") {
		return "found saved_model.cpb, a graph of over 2 GB in pieces, which cannot be served; keep its weights in variables, then it is saved as saved_model.pb: " +
			kerasExport("ORIGINAL.keras", p.target())
	}
	if p.version || !hasSavedModel(p.dir) {
		return ""
	}
	var parts []string
	for _, name := range savedModelNames {
		if p.has(name) || slices.Contains(p.dirs, name) {
			parts = append(parts, quote(p.path(name)))
		}
	}
	to := p.target()
	return fmt.Sprintf("found a SavedModel without a version number: it must lie in a folder whose name is a number: mkdir %s && mv %s %s/",
		quote(to), strings.Join(parts, " "), quote(to))
}

// savedModelBelow finds a SavedModel one or two folders too deep.
func (p *place) savedModelBelow() string {
	for _, d := range p.dirs {
		switch deep := p.path(d); {
		case !p.version && isNumber(d): // a version, as it should be, or not whole
		case hasSavedModel(deep) && p.version:
			return fmt.Sprintf("found a SavedModel one level too deep, in %s: mv %s/* %s/ && rmdir %s", deep, quote(deep), quote(p.dir), quote(deep))
		case hasSavedModel(deep):
			return fmt.Sprintf("found a SavedModel in %s, whose name is no version number: mv %s %s", deep, quote(deep), quote(p.target()))
		default:
			_, below := list(deep)
			for _, v := range below {
				if !hasSavedModel(filepath.Join(deep, v)) {
					continue
				}
				from := filepath.Join(deep, v)
				if p.version {
					return fmt.Sprintf("found a SavedModel two levels too deep, in %s: mv %s/* %s/ && rm -r %s", from, quote(from), quote(p.dir), quote(deep))
				}
				if isNumber(v) {
					return fmt.Sprintf("found version %s one level too deep, in %s: mv %s %s", v, deep, quote(from), quote(p.target()))
				}
			}
		}
	}
	return ""
}

func (p *place) unzippedKeras() string {
	if !p.has("config.json") || !p.has("model.weights.h5") {
		return ""
	}
	file := p.dir + ".keras"
	return fmt.Sprintf("found the unpacked parts of a .keras file, not a SavedModel: (cd %s && python3 -m zipfile -c %s config.json metadata.json model.weights.h5) && %s",
		quote(p.dir), quote(file), kerasExport(file, p.target()))
}

// foreignFile knows other formats by the names of their files.
func (p *place) foreignFile() string {
	for _, name := range p.files {
		path, to := p.path(name), p.target()
		lower := strings.ToLower(name)
		switch {
		case strings.HasSuffix(lower, ".keras"):
			return fmt.Sprintf("found %s, a Keras model, not a SavedModel: %s", name, kerasExport(path, to))
		case strings.HasSuffix(lower, ".weights.h5"):
			return fmt.Sprintf("found %s, the weights of a Keras model without the model itself; in the program that builds the model: %s", name,
				"model.load_weights("+strconv.Quote(path)+"); model.export("+strconv.Quote(to)+")")
		case strings.HasSuffix(lower, ".h5"), strings.HasSuffix(lower, ".hdf5"):
			return fmt.Sprintf("found %s, a Keras model in HDF5, not a SavedModel: %s", name, kerasExport(path, to))
		case strings.HasSuffix(lower, ".tflite"):
			return fmt.Sprintf("found %s, a TensorFlow Lite model, which cannot be turned back into a SavedModel; export the model it was made from: %s",
				name, kerasExport("ORIGINAL.keras", to))
		case strings.HasSuffix(lower, ".onnx"):
			return fmt.Sprintf("found %s, an ONNX model, not a SavedModel: pip install onnx2tf && onnx2tf -osd -i %s -o %s", name, quote(path), quote(to))
		case strings.HasSuffix(lower, ".pt"), strings.HasSuffix(lower, ".pth"), strings.HasSuffix(lower, ".safetensors"):
			return fmt.Sprintf("found %s, weights of PyTorch; in the program that builds the model, torch.onnx.export(model, example, \"model.onnx\"), and then: pip install onnx2tf && onnx2tf -osd -i model.onnx -o %s",
				name, quote(to))
		case strings.HasSuffix(lower, ".pb") && name != "saved_model.pb":
			if s := p.otherPB(name); s != "" {
				return s
			}
		}
	}
	return ""
}

// otherPB tells a SavedModel under another name from a frozen graph.
func (p *place) otherPB(name string) string {
	path := p.path(name)
	f, size, err := openFile(path)
	if err != nil {
		return ""
	}
	defer f.Close() //nolint:errcheck // only read
	w, kind := newWire(f), 0
	err = w.message(size, func(f field) error {
		// SavedModel: 1 is a number, 2 a meta graph. GraphDef: 1 is a node, 2 a library, 4 versions.
		switch {
		case f.num == 1 && !f.bytes:
			kind = 1
		case f.num == 1 && f.bytes && kind == 0:
			kind = 2
		}
		return nil
	})
	switch {
	case err != nil || kind == 0:
		return ""
	case kind == 1:
		if p.version {
			return fmt.Sprintf("found %s, a SavedModel's graph under another name: mv %s %s", name, quote(path), quote(p.path("saved_model.pb")))
		}
		to := p.target()
		return fmt.Sprintf("found %s, a SavedModel's graph under another name and without a version number: mkdir %s && mv %s %s", name, quote(to), quote(path), quote(filepath.Join(to, "saved_model.pb")))
	}
	w.at = 0
	in, out := frozenEnds(w, size)
	return fmt.Sprintf("found %s, a frozen TensorFlow 1 graph, not a SavedModel: python3 -c '%s' %s %s %s %s", name,
		`import sys,tensorflow.compat.v1 as t; t.disable_eager_execution(); `+
			`t.import_graph_def(t.GraphDef.FromString(open(sys.argv[1],"rb").read()),name=""); s=t.Session(); `+
			`ends=lambda a:{n.split(":")[0]:s.graph.get_tensor_by_name(n) for n in a.split(",")}; `+
			`t.saved_model.simple_save(s,sys.argv[2],ends(sys.argv[3]),ends(sys.argv[4]))`,
		quote(path), quote(p.target()), quote(in), quote(out))
}

// frozenEnds guesses the inputs and outputs of a frozen graph: its placeholders, and the nodes that nobody reads.
func frozenEnds(w *wire, size int64) (in, out string) {
	g := newGraph()
	if err := g.read(w, field{num: 1, bytes: true, end: size}); err != nil {
		return "INPUT:0", "OUTPUT:0"
	}
	read := make(map[string]bool)
	for _, n := range g.nodes {
		for _, i := range n.inputs {
			read[i] = true
		}
	}
	var ins, outs []string
	for name, n := range g.nodes {
		switch {
		case n.op == "Placeholder":
			ins = append(ins, name+":0")
		case !read[name] && n.op != "Const" && n.op != "NoOp" && n.op != "Assert":
			outs = append(outs, name+":0")
		}
	}
	slices.Sort(ins)
	slices.Sort(outs)
	join := func(list []string, unknown string) string {
		if len(list) == 0 || len(list) > 20 {
			return unknown
		}
		return strings.Join(list, ",")
	}
	return join(ins, "INPUT:0"), join(outs, "OUTPUT:0")
}

func (p *place) checkpoint() string {
	if hasSavedModel(p.dir) {
		return ""
	}
	for _, name := range p.files {
		prefix, isMeta := strings.CutSuffix(name, ".meta")
		if isMeta && p.has(prefix+".index") {
			return fmt.Sprintf("found %s, a TensorFlow 1 checkpoint, not a SavedModel; with the names of its inputs and outputs for INPUT:0 and OUTPUT:0: python3 -c '%s' %s %s INPUT:0 OUTPUT:0", prefix,
				`import sys,tensorflow.compat.v1 as t; t.disable_eager_execution(); s=t.Session(); `+
					`t.train.import_meta_graph(sys.argv[1]+".meta").restore(s,sys.argv[1]); `+
					`ends=lambda a:{n.split(":")[0]:s.graph.get_tensor_by_name(n) for n in a.split(",")}; `+
					`t.saved_model.simple_save(s,sys.argv[2],ends(sys.argv[3]),ends(sys.argv[4]))`,
				quote(p.path(prefix)), quote(p.target()))
		}
	}
	for _, name := range p.files {
		prefix, isIndex := strings.CutSuffix(name, ".index")
		if isIndex && slices.ContainsFunc(p.files, func(f string) bool { return strings.HasPrefix(f, prefix+".data-") }) {
			return fmt.Sprintf("found %s, a checkpoint, which has weights and no graph; in the program that builds the model: tf.train.Checkpoint(model).restore(%s); tf.saved_model.save(model, %s)",
				prefix, strconv.Quote(p.path(prefix)), strconv.Quote(p.target()))
		}
	}
	return ""
}

// kerasExport is the command that turns a Keras file into a SavedModel.
func kerasExport(from, to string) string {
	return fmt.Sprintf(`python3 -c 'import sys,keras; keras.saving.load_model(sys.argv[1]).export(sys.argv[2])' %s %s`, quote(from), quote(to))
}

// quote makes one word of a path for a POSIX shell.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:=,@%", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
