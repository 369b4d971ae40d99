// vet_test.go: versions that are not loaded.
package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	nodepb "github.com/wamuir/graft/tensorflow/core/framework/node_def_go_proto"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

// outerLine is what is said about readsFile.
const outerLine = `MatchingFiles reads files (in node "leak", run by signature "serving_default")`

// readsFile is a model whose answer depends on a file of the machine.
func readsFile() *modeltest.Model {
	m := modeltest.HalfPlusTwo()
	g := m.Meta.GraphDef
	for _, n := range g.Node {
		if n.GetName() == "y" {
			n.Input = append(n.Input, "^leak")
		}
	}
	g.Node = append(g.Node, &nodepb.NodeDef{Name: "leak", Op: "MatchingFiles", Input: []string{"save/filename"}})
	return m
}

// vetted is what the updater's check says about a folder under these settings.
func vetted(t *testing.T, dir string, m config.Model) error {
	t.Helper()
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return vet(updater.Model{Settings: m}, dir, info)
}

// TestVetOps: what reaches out of a model is refused by default, where the model is configured and where it is found.
func TestVetOps(t *testing.T) {
	base := t.TempDir()
	dir := modeltest.WriteVersion(t, filepath.Join(base, "m"), 1, readsFile())
	def := config.Model{ModelOptions: config.Default().Defaults}
	off, allowed := def, def
	off.DenyOps = false
	allowed.AllowOps = []string{"MatchingFiles"}
	for _, tt := range []struct {
		name    string
		m       config.Model
		refused bool
	}{{"by default", def, true}, {"with deny_ops off", off, false}, {"allowed by name", allowed, false}} {
		err := vetted(t, dir, tt.m)
		if (err != nil) != tt.refused {
			t.Errorf("%s: %v", tt.name, err)
		}
		if tt.refused && (!strings.Contains(err.Error(), outerLine) || !strings.Contains(err.Error(), "allow_ops: [MatchingFiles]")) {
			t.Errorf("%s: %v does not say what and what to do", tt.name, err)
		}
	}
}

// TestVetPaths: a link out of the folder is refused under any settings.
func TestVetPaths(t *testing.T) {
	dir := modeltest.WriteVersion(t, filepath.Join(t.TempDir(), "m"), 1, modeltest.HalfPlusTwo())
	if err := vetted(t, dir, config.Model{}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "extra")); err != nil {
		t.Fatal(err)
	}
	if err := vetted(t, dir, config.Model{}); err == nil || !strings.Contains(err.Error(), "extra is a symbolic link to /etc/passwd") {
		t.Errorf("got %v", err)
	}
}

// TestVetSigned: what `inferd sign` has signed with a key of `inferd keygen` passes, with ops that reach out too; anything else is refused
// where a signature is required, and so is what was changed after it.
func TestVetSigned(t *testing.T) {
	file := filepath.Join(t.TempDir(), "key")
	public, err := Keygen(file)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("%v %v", st, err)
	}
	if _, err := Keygen(file); err == nil {
		t.Error("a key was overwritten")
	}
	dir := modeltest.WriteVersion(t, filepath.Join(t.TempDir(), "m"), 1, readsFile())
	m := config.Model{ModelOptions: config.Default().Defaults}
	m.SignatureKeys, m.RequireSignature = []string{public}, true
	refused := func(what, want string) {
		t.Helper()
		if err := vetted(t, dir, m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	refused("not signed", "it has no MANIFEST ")
	for range 2 { // again over what is there
		if s, err := Sign(dir, file); err != nil || s.Files != 3 || s.Key != public {
			t.Fatalf("%+v %v", s, err)
		}
	}
	if err := vetted(t, dir, m); err != nil {
		t.Errorf("signed: %v", err)
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, ".inferd-*")); len(entries) > 0 {
		t.Errorf("left behind: %v", entries)
	}
	m.SignatureKeys, m.RequireSignature = nil, false
	refused("nobody is trusted, so nothing counts as signed", outerLine)
	other, err := Keygen(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	m.SignatureKeys = []string{other}
	refused("another key is trusted", "none of the 1 signature_keys")
	m.SignatureKeys = []string{other, public}
	if err := os.WriteFile(filepath.Join(dir, "variables", "variables.index"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := vetVersion(m, dir, new(savedmodel.Info)); err == nil || !strings.Contains(err.Error(), "variables/variables.index has the SHA-256") {
		t.Errorf("changed: %v", err)
	}
	if _, err := Sign(dir, filepath.Join(dir, "saved_model.pb")); err == nil || !strings.Contains(err.Error(), "holds no key") {
		t.Errorf("signed with a model: %v", err)
	}
}

// TestCompatibilityIsConfigured: on by default, off for who comes from TensorFlow Serving.
func TestCompatibilityIsConfigured(t *testing.T) {
	ours := config.Default()
	theirs, _, err := config.ParseTFServing([]string{"--model_name=m", "--model_base_path=/m"})
	if err != nil {
		t.Fatal(err)
	}
	for cfg, want := range map[*config.Config]bool{ours: true, theirs: false} {
		var m updater.Model
		c, _ := cfg.Model("m")
		if fill(&m, c); m.Compatible != want {
			t.Errorf("%v, want %v", m.Compatible, want)
		}
	}
}
