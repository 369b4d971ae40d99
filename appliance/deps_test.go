// deps_test.go: the import graph, one way only. A new edge is a decision: it is made here, and in ARCHITECTURE.md.
package appliance

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/inferd/inferd/"

// mayImport lists, for each package of ours, the packages of ours that its non-test code may import.
var mayImport = map[string][]string{
	"inference/tensor":               {},
	"inference/media":                {"inference/tensor"},
	"inference":                      {"inference/media", "inference/tensor"},
	"inference/savedmodel":           {"inference", "inference/tensor"},
	"inference/savedmodel/modeltest": {"inference", "inference/tensor", "inference/savedmodel"},
	"inference/batch":                {"inference", "inference/tensor"},
	"inference/fake":                 {"inference", "inference/tensor"},
	"inference/tuning":               {"inference", "inference/tensor"},
	"inference/worker":               {"inference", "inference/tensor"},
	"inference/device":               {},
	"inference/freeze":               {"inference", "inference/tensor"},
	"inference/tfrt":                 {"inference", "inference/freeze", "inference/tensor"},
	"updater":                        {"inference", "inference/tensor", "inference/savedmodel"},
	"appliance/health":               {},
	"appliance/config":               {"inference", "inference/media", "inference/tensor"},
	"appliance/admission":            {"inference"},
	"appliance/access":               {"inference"},
	"appliance/loadgen":              {"inference", "inference/tensor"},
	"appliance/api":                  {"appliance/admission", "inference", "inference/media", "inference/tensor"},
	"appliance/api/coding":           {},
	"appliance/reqlog":               {"appliance/api", "inference", "inference/savedmodel", "inference/tensor"},
	"appliance/jobs":                 {"appliance/access", "appliance/api", "inference", "storage"},
	"appliance/api/rest":             {"appliance/access", "appliance/admission", "appliance/api", "appliance/api/coding", "appliance/jobs", "inference", "inference/tensor"},
	"appliance/api/rpc":              {"appliance/access", "appliance/admission", "appliance/api", "appliance/api/coding", "appliance/api/oip", "appliance/api/rpc/jobspb", "appliance/api/rpc/oippb", "appliance/jobs", "inference", "inference/tensor"},
	"appliance/api/rpc/jobspb":       {},
	"appliance/api/rpc/oippb":        {},
	"appliance/api/oip":              {"appliance/access", "appliance/api", "inference", "inference/tensor"},
	"appliance/api/oip/oiprest":      {"appliance/access", "appliance/api", "appliance/api/oip", "appliance/api/rest", "inference", "inference/tensor"},
	"appliance/api/ws":               {"appliance/access", "appliance/admission", "appliance/api", "appliance/jobs", "inference", "inference/tensor", "storage"},
	"systemd":                        {},
	"clients/browser":                {},
	"clients/go":                     {}, // whoever imports it wants a client, not the daemon
	"storage":                        {},
	"appliance/backup":               {"storage"},
	"appliance/runtimes":             {"inference/tfrt", "packaging", "storage"},
	"packaging":                      {},
}

// free packages wire the others: they may import anything but main programs.
var free = []string{"appliance", "appliance/control", "cmd/inferd"}

func TestImportsGoOneWay(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports,CgoFiles", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	seen := 0
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath        string
			Imports, CgoFiles []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if len(p.CgoFiles) > 0 && name != "inference/tfrt" {
			t.Errorf("%s has cgo files %v: only inference/tfrt calls C", name, p.CgoFiles)
		}
		if strings.HasPrefix(name, "tools/") || strings.HasPrefix(name, "inference/tfrt/") || slices.Contains(free, name) {
			continue
		}
		seen++
		allowed, ok := mayImport[name]
		if !ok {
			t.Errorf("package %s is not in the table: decide what it may import", name)
			continue
		}
		for _, imp := range p.Imports {
			if ours, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s imports %s: the table allows only %v", name, ours, allowed)
			}
		}
	}
	if seen < 5 {
		t.Fatalf("go list found %d packages, expected the whole module", seen)
	}
}

// TestFilesAreShort keeps every file a reader's sitting long. A longer one has two reasons to change.
func TestFilesAreShort(t *testing.T) {
	const most = 620
	out, err := exec.CommandContext(t.Context(), "git", "-C", "..", "ls-files", "*.go", "*.c", "*.py", "*.sh").Output()
	if err != nil {
		t.Skipf("not a git checkout: %v", err)
	}
	files := strings.Fields(string(out))
	if len(files) < 50 {
		t.Fatalf("git names %d files", len(files))
	}
	for _, name := range files {
		if strings.HasSuffix(name, ".pb.go") {
			continue // nobody reads what was generated
		}
		text, err := os.ReadFile(filepath.Join("..", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed and not committed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(string(text), "\n"); n > most {
			t.Errorf("%s has %d lines, at most %d are wanted: split it where it has two reasons to change", name, n, most)
		}
	}
}
