// lib_test.go: opening the real library, and what is said where it cannot be opened.
package tfrt

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	tf "github.com/tensorflow/tensorflow/tensorflow/go"
)

// TestMain is also the child of some tests: a process in which no library is open yet.
func TestMain(m *testing.M) {
	switch what, path, _ := strings.Cut(os.Getenv("INFERD_TFRT_CHILD"), " "); what {
	case "unopened":
		tf.Version()
		os.Exit(3)
	case "open":
		if r := Opened(); r != nil {
			os.Stdout.WriteString("open before it was opened: " + r.Path())
			os.Exit(4)
		}
		if _, err := Open(path); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(4)
		}
		os.Exit(0)
	case "hang":
		library, dir, _ := strings.Cut(path, " ")
		if err := hang(library, dir); err != nil {
			os.Stdout.WriteString(err.Error())
			os.Exit(5)
		}
		os.Exit(0)
	}
	if _, set := os.LookupEnv("TF_CPP_MIN_LOG_LEVEL"); !set {
		os.Setenv("TF_CPP_MIN_LOG_LEVEL", "2") // TensorFlow reads it at its first line
	}
	os.Exit(m.Run())
}

func child(t *testing.T, what string) (string, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "INFERD_TFRT_CHILD="+what)
	out, err := c.CombinedOutput()
	return string(out), err
}

func TestOpenTwiceAndVersion(t *testing.T) {
	r := openRuntime(t)
	if again := openRuntime(t); again.Path() != r.Path() {
		t.Errorf("opened %s, then %s", r.Path(), again.Path())
	}
	if o := Opened(); o == nil || o.Path() != r.Path() {
		t.Errorf("opened %+v, want %s", o, r.Path())
	}
	if v := r.Version(); !strings.HasPrefix(v, "2.") {
		t.Errorf("version %q", v)
	}
	_, err := Open(filepath.Join(t.TempDir(), "libtensorflow.so.2"))
	if err == nil || !strings.Contains(err.Error(), "open already") {
		t.Errorf("a second runtime: %v", err)
	}
}

func TestCallBeforeOpenNamesTheFunction(t *testing.T) {
	out, err := child(t, "unopened")
	if err == nil || !strings.Contains(out, "inferd: TF_Version was called before a TensorFlow runtime was opened") {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(out, "SIGABRT") {
		t.Errorf("not aborted: %s", out)
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	text := filepath.Join(t.TempDir(), "libtensorflow.so.2")
	if err := os.WriteFile(text, []byte("not a library"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, path, want string }{
		{"absent", filepath.Join(t.TempDir(), "none.so"), "none.so: cannot open shared object file"},
		{"not ELF", text, "file too short"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := child(t, "open "+c.path)
			if err == nil || !strings.Contains(out, c.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

func TestOpenFindsWhatTheLibraryNeedsBesideIt(t *testing.T) {
	library := runtimePath(t)
	framework := filepath.Join(filepath.Dir(library), "libtensorflow_framework.so.2")
	if _, err := os.Stat(framework); err != nil {
		t.Skip("a libtensorflow in one piece")
	}
	// A link in another folder: the loader takes the library's own search path from there, and it leads nowhere.
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, name); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "libtensorflow_cc.so.2")
	link(library, path)
	if out, err := child(t, "open "+path); err == nil || !strings.Contains(out, "libtensorflow_framework.so.2: cannot open") {
		t.Errorf("without the framework: %v: %s", err, out)
	}
	if err := os.Mkdir(filepath.Join(dir, "tensorflow.libs"), 0o755); err != nil {
		t.Fatal(err)
	}
	link(framework, filepath.Join(dir, "tensorflow.libs", "libtensorflow_framework.so.2"))
	others, _ := filepath.Glob(filepath.Join(filepath.Dir(library), "libomp*")) // arm64's wheel has it beside
	for _, other := range others {
		link(other, filepath.Join(dir, "tensorflow.libs", filepath.Base(other)))
	}
	if out, err := child(t, "open "+path); err != nil {
		t.Errorf("with it: %v: %s", err, out)
	}
}
