// reader_test.go: the controller with the real SavedModel reader: whatever way the files come, nothing torn is loaded.
package updater

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// realReader makes the world's loads hold what they load against the source.
func realReader(w *world, o *Options) (source string, files []string) {
	source = modeltest.WriteVersion(w.t, w.t.TempDir(), 1, modeltest.TwoLayer())
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			rel, _ := filepath.Rel(source, path)
			files = append(files, rel)
		}
		return err
	})
	if err != nil || len(files) < 3 {
		w.t.Fatalf("files of the model: %v %v", files, err)
	}
	o.Read = func(_ Model, dir string) (*savedmodel.Info, error) { return savedmodel.Read(dir, nil) }
	o.Diagnose = savedmodel.Diagnose
	w.during = func(c Candidate) {
		for _, f := range files {
			want, _ := os.ReadFile(filepath.Join(source, f))
			got, err := os.ReadFile(filepath.Join(c.Dir, f))
			if err != nil || string(got) != string(want) {
				w.fault(fmt.Sprintf("%s was loaded with a torn %s (%d of %d bytes, %v)", c.Dir, f, len(got), len(want), err))
			}
		}
	}
	return source, files
}

// orders are all permutations.
func orders(list []string) [][]string {
	if len(list) <= 1 {
		return [][]string{list}
	}
	var out [][]string
	for i := range list {
		for _, rest := range orders(slices.Delete(slices.Clone(list), i, i+1)) {
			out = append(out, append([]string{list[i]}, rest...))
		}
	}
	return out
}

// TestCopyInEveryOrder: the files of a model in every order, each in three pieces, with pauses longer than the settle time.
func TestCopyInEveryOrder(t *testing.T) {
	var source string
	var files []string
	start(t, func(w *world, o *Options) {
		w.t = t
		source, files = realReader(w, o)
		put1(w, source, files)
	}, func(t *testing.T, w *world) {
		w.t = t
		w.pass(4 * time.Second)
		w.wantLive(1)
		for i, order := range orders(files) {
			number := i + 2
			for _, name := range order {
				content, err := os.ReadFile(filepath.Join(source, name))
				if err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(w.sub(number), name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				for part := range 3 {
					if err := os.WriteFile(path, content[:len(content)*(part+1)/3], 0o644); err != nil {
						t.Fatal(err)
					}
					if name != order[len(order)-1] || part < 2 {
						w.pass(3 * time.Second)
						w.wantLive(int64(number - 1))
					}
				}
			}
			w.pass(4 * time.Second)
			w.wantLive(int64(number))
			if err := os.RemoveAll(w.sub(number - 1)); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func put1(w *world, source string, files []string) {
	for _, f := range files {
		copyFile(w.t, filepath.Join(source, f), filepath.Join(w.sub(1), f), -1)
	}
}

// copyFile copies at most n bytes, all when n is negative.
func copyFile(t *testing.T, from, to string, n int) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if n >= 0 {
		b = b[:min(n, len(b))]
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestTruncatedFiles: a folder with one file cut short, by a copy or by a rename into place, is refused with the file's name.
func TestTruncatedFiles(t *testing.T) {
	var source string
	var files []string
	start(t, func(w *world, o *Options) {
		w.t = t
		source, files = realReader(w, o)
		put1(w, source, files)
	}, func(t *testing.T, w *world) {
		w.t = t
		w.pass(4 * time.Second)
		for i, cut := range files {
			number := i + 2
			tmp := filepath.Join(w.dir, ".tmp")
			for _, f := range files {
				n := -1
				if f == cut {
					n = 10
				}
				copyFile(t, filepath.Join(source, f), filepath.Join(tmp, f), n)
			}
			if err := os.Rename(tmp, w.sub(number)); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Minute)
			if cut == "fingerprint.pb" {
				continue // nobody reads it
			}
			w.wantLive(1)
			v, _ := w.model().Version(int64(number))
			if v.State != StateQuarantined || !strings.Contains(v.Reason, filepath.Base(cut)) || !strings.Contains(v.Reason, "still serving version 1") {
				t.Errorf("%s cut short: %+v", cut, v)
			}
			copyFile(t, filepath.Join(source, cut), filepath.Join(w.sub(number), cut), -1) // put right
			w.pass(5 * time.Second)
			w.wantLive(int64(number))
			if err := os.RemoveAll(w.sub(number)); err != nil {
				t.Fatal(err)
			}
			w.pass(3 * time.Second)
			w.wantLive(1)
		}
	})
}

// TestForeignFolder: what is no SavedModel is named, with the command that puts it right.
func TestForeignFolder(t *testing.T) {
	start(t, func(w *world, o *Options) {
		w.t = t
		realReader(w, o)
		writeFiles(t, w.dir, "1/model.h5")
	}, func(t *testing.T, w *world) {
		w.pass(time.Minute)
		all := w.wantPublic("1 END FAILED_PRECONDITION")
		if !strings.Contains(all[0].Message, "model.h5") {
			t.Errorf("message: %s", all[0].Message)
		}
		if all[0].Code != inference.FailedPrecondition {
			t.Errorf("code: %v", all[0].Code)
		}
	})
}

// TestHopeless: a whole model without the wanted meta graph is refused at once.
func TestHopeless(t *testing.T) {
	start(t, func(w *world, o *Options) {
		w.t = t
		source, files := realReader(w, o)
		put1(w, source, files)
		o.Read = func(_ Model, dir string) (*savedmodel.Info, error) { return savedmodel.Read(dir, []string{"train"}) }
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantPublic("1 END FAILED_PRECONDITION")
	})
}
