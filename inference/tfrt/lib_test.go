// lib_test.go: opening the real library, and what is said where it cannot be opened.
package tfrt

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runtimePath is the library that tests use: the directory in LIBTENSORFLOW, else build/runtime of the repository.
func runtimePath(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = filepath.Join("..", "..", "build", "runtime")
	}
	for _, name := range []string{"libtensorflow_cc.so.2", "libtensorflow.so.2", "libtensorflow.so"} {
		if path := filepath.Join(dir, name); fileExists(path) {
			return path
		}
	}
	tb.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW", dir)
	return ""
}

func fileExists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func openRuntime(tb testing.TB) *Runtime {
	tb.Helper()
	r, err := Open(runtimePath(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

func TestOpenTwiceAndVersion(t *testing.T) {
	r := openRuntime(t)
	if again := openRuntime(t); again.Path() != r.Path() {
		t.Errorf("opened %s, then %s", r.Path(), again.Path())
	}
	if v := r.Version(); !strings.HasPrefix(v, "2.") {
		t.Errorf("version %q", v)
	}
	_, err := Open(filepath.Join(t.TempDir(), "libtensorflow.so.2"))
	if err == nil || !strings.Contains(err.Error(), "open already") {
		t.Errorf("a second runtime: %v", err)
	}
}
