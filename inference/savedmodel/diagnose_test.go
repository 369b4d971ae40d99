// diagnose_test.go: what Diagnose finds, and whether the commands that it gives do what they say.
package savedmodel

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// save writes a model (with a space and a quote in the path, for the shell) into base/name.
func save(t *testing.T, dir string) {
	t.Helper()
	if err := withAsset().Save(dir); err != nil {
		t.Fatal(err)
	}
}

// files of a SavedModel by their path in it.
func parts(t *testing.T) map[string][]byte {
	t.Helper()
	dir := modeltest.Write(t, withAsset())
	all := make(map[string][]byte)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		all[rel], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func tarball(t *testing.T, path, prefix string) {
	t.Helper()
	var b bytes.Buffer
	var out io.WriteCloser = nopCloser{&b}
	if strings.HasSuffix(path, "gz") {
		out = gzip.NewWriter(&b)
	}
	w := tar.NewWriter(out)
	for name, content := range parts(t) {
		if err := w.WriteHeader(&tar.Header{Name: prefix + name, Size: int64(len(content)), Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.Bytes())
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

func zipped(t *testing.T, path string, files map[string][]byte, prefix string) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(prefix + name)
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, path, b.Bytes())
}

// Each case makes something wrong in base; the command that Diagnose gives must leave a whole version in base/1.
func TestCommandsPutItRight(t *testing.T) {
	keras := map[string][]byte{"config.json": nil, "metadata.json": nil, "model.weights.h5": nil}
	tests := []struct {
		name  string
		needs string
		at    string // the folder to diagnose, below base
		make  func(t *testing.T, base string)
		found string
	}{
		{"no version number", "", "", func(t *testing.T, base string) { save(t, base) }, "without a version number"},
		{"too deep in a version", "", "1", func(t *testing.T, base string) { save(t, filepath.Join(base, "1", "my export")) }, "one level too deep"},
		{"two too deep in a version", "", "1", func(t *testing.T, base string) { save(t, filepath.Join(base, "1", "a", "b")) }, "two levels too deep"},
		{"name is no number", "", "", func(t *testing.T, base string) { save(t, filepath.Join(base, "export")) }, "whose name is no version number"},
		{"version too deep", "", "", func(t *testing.T, base string) { save(t, filepath.Join(base, "model", "7")) }, "found version 7 one level too deep"},
		{"tar", "tar", "", func(t *testing.T, base string) { tarball(t, filepath.Join(base, "m.tar"), "") }, "m.tar, an archive"},
		{"tar.gz with a dot", "tar", "", func(t *testing.T, base string) { tarball(t, filepath.Join(base, "m.tar.gz"), "./") }, "an archive"},
		{"tgz of a folder", "tar", "", func(t *testing.T, base string) { tarball(t, filepath.Join(base, "m.tgz"), "./my model/1/") }, "an archive"},
		{"tgz in a version", "tar", "1", func(t *testing.T, base string) {
			if err := os.Mkdir(filepath.Join(base, "1"), 0o755); err != nil {
				t.Fatal(err)
			}
			tarball(t, filepath.Join(base, "1", "m.tgz"), "export/")
		}, "an archive"},
		{"zip", "python3", "", func(t *testing.T, base string) { zipped(t, filepath.Join(base, "m.zip"), parts(t), "") }, "an archive"},
		{"zip of a folder", "python3", "", func(t *testing.T, base string) { zipped(t, filepath.Join(base, "m.zip"), parts(t), "a/b c/") }, "an archive"},
		{"another name in a version", "", "1", func(t *testing.T, base string) {
			save(t, filepath.Join(base, "1"))
			if err := os.Rename(filepath.Join(base, "1", "saved_model.pb"), filepath.Join(base, "1", "model.pb")); err != nil {
				t.Fatal(err)
			}
		}, "under another name"},
		{"keras as zip", "-", "", func(t *testing.T, base string) { zipped(t, filepath.Join(base, "m.zip"), keras, "") }, "a Keras model under another name"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			base := filepath.Join(t.TempDir(), "it's a model")
			if err := os.Mkdir(base, 0o755); err != nil {
				t.Fatal(err)
			}
			tt.make(t, base)
			said := Diagnose(filepath.Join(base, tt.at))
			if !strings.Contains(said, tt.found) {
				t.Fatalf("got %q, want %q in it", said, tt.found)
			}
			if tt.needs == "-" {
				return
			}
			if tt.needs != "" {
				if _, err := exec.LookPath(tt.needs); err != nil {
					t.Skipf("no %s here", tt.needs)
				}
			}
			_, command, ok := strings.Cut(said, ": ")
			command = strings.TrimPrefix(command, "it must lie in a folder whose name is a number: ")
			if !ok {
				t.Fatalf("no command in %q", said)
			}
			if out, err := exec.CommandContext(t.Context(), "sh", "-c", command).CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", command, err, out)
			}
			if _, err := Read(filepath.Join(base, "1"), nil); err != nil {
				t.Errorf("after %s: %v", command, err)
			}
			if again := Diagnose(base); again != "" && !strings.Contains(again, "archive") { // the archive itself stays
				t.Errorf("after %s it still says %q", command, again)
			}
		})
	}
}

func TestDiagnoseFormats(t *testing.T) {
	frozen := modeltest.MatrixHalfPlusTwo()
	tests := []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"keras", map[string]string{"m.keras": ""}, []string{"found m.keras, a Keras model", "keras.saving.load_model(sys.argv[1]).export(sys.argv[2])", "/m.keras ", "/1"}},
		{"h5", map[string]string{"m.h5": ""}, []string{"found m.h5", "HDF5", ".export("}},
		{"weights", map[string]string{"m.weights.h5": ""}, []string{"without the model itself", "model.load_weights"}},
		{"unpacked keras", map[string]string{"config.json": "{}", "metadata.json": "{}", "model.weights.h5": ""}, []string{"unpacked parts of a .keras file", "zipfile -c", ".export("}},
		{"tflite", map[string]string{"m.tflite": ""}, []string{"TensorFlow Lite", "ORIGINAL.keras"}},
		{"onnx", map[string]string{"m.onnx": ""}, []string{"an ONNX model", "onnx2tf -osd -i ", "/m.onnx -o "}},
		{"pytorch", map[string]string{"m.safetensors": ""}, []string{"PyTorch", "onnx2tf"}},
		{"chunks", map[string]string{"saved_model.cpb": ""}, []string{"saved_model.cpb"}},
		{"frozen", map[string]string{"frozen.pb": string(encode(t, frozen.Meta.GraphDef))}, []string{"a frozen TensorFlow 1 graph", "simple_save", " x:0 y:0"}},
		{"checkpoint 1", map[string]string{"checkpoint": "", "m.ckpt-5.meta": "", "m.ckpt-5.index": "", "m.ckpt-5.data-00000-of-00001": ""},
			[]string{"found m.ckpt-5, a TensorFlow 1 checkpoint", "import_meta_graph"}},
		{"checkpoint 2", map[string]string{"checkpoint": "", "ckpt-1.index": "", "ckpt-1.data-00000-of-00001": ""}, []string{"weights and no graph", "tf.train.Checkpoint"}},
		{"archive of something else", map[string]string{"m.tar": string(make([]byte, 1024))}, []string{"without a SavedModel in it"}},
		{"archive that cannot be looked into", map[string]string{"m.tar.xz": "?"}, []string{"tar -xf"}},
		{"nothing known", map[string]string{"readme.txt": "hello", "x.pb": "no proto at all", "empty.pb": ""}, nil},
		{"nothing", nil, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			base := filepath.Join(dir, "model")
			if err := os.Mkdir(base, 0o755); err != nil {
				t.Fatal(err)
			}
			for name, content := range tt.files {
				write(t, filepath.Join(base, name), []byte(content))
			}
			said := Diagnose(base)
			if tt.want == nil && said != "" {
				t.Errorf("got %q", said)
			}
			for _, w := range tt.want {
				if !strings.Contains(said, w) {
					t.Errorf("got %q, want %q in it", said, w)
				}
			}
		})
	}
}

func TestDiagnoseIsSilentAboutGoodFolders(t *testing.T) {
	base := filepath.Join(t.TempDir(), "m")
	dir := modeltest.WriteVersion(t, base, 1, modeltest.HalfPlusTwo())
	modeltest.WriteVersion(t, base, 20, modeltest.HalfPlusTwo())
	for _, d := range []string{base, dir, filepath.Join(base, "nowhere")} {
		if s := Diagnose(d); s != "" {
			t.Errorf("%s: %q", d, s)
		}
	}
	// A new export beside them becomes the next version.
	if err := modeltest.HalfPlusTwo().Save(filepath.Join(base, "new")); err != nil {
		t.Fatal(err)
	}
	if s := Diagnose(base); !strings.Contains(s, filepath.Join(base, "21")) {
		t.Errorf("got %q, want version 21", s)
	}
}

// The names in an archive are someone else's words: none may become an option, another folder or a second line.
func TestArchiveNamesAreNotTrusted(t *testing.T) {
	for _, prefix := range []string{"../../etc/", "/etc/", "-x/", "a\nb/"} {
		dir := t.TempDir()
		zipped(t, filepath.Join(dir, "m.zip"), map[string][]byte{"saved_model.pb": nil}, prefix)
		if s := Diagnose(dir); strings.Contains(s, strings.TrimSuffix(prefix, "/")) && !strings.HasSuffix(s, "without a SavedModel in it") {
			t.Errorf("%q: %s", prefix, s)
		}
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "two\nlines.keras"), nil)
	if s := Diagnose(dir); s != "" {
		t.Errorf("a name with a line break: %q", s)
	}
	if got, want := quote("it's $HOME; rm"), `'it'\''s $HOME; rm'`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
