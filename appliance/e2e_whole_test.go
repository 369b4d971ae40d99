// e2e_whole_test.go: the forms that a SavedModel comes in, whole, cut short and signed, dropped into a running appliance.
package appliance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/prototext"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestForms: the text form is served, the form in pieces is refused in a sentence, and where the binary form lies beside another it counts,
// for TensorFlow as for the reader that looks at the graph's ops.
func TestForms(t *testing.T) {
	s := serve(t, nil)
	text, err := prototext.Marshal(modeltest.HalfPlusTwo().Proto())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		model string
		spoil func(pb string) error // of a model that is 1x + 1 in its binary form
		want  []float32             // for 4
	}{
		{"text", func(pb string) error {
			if err := os.Remove(pb); err != nil {
				return err
			}
			return os.WriteFile(pb+"txt", text, 0o644)
		}, []float32{4}},
		{"binary_and_text", func(pb string) error { return os.WriteFile(pb+"txt", text, 0o644) }, []float32{5}},
		{"binary_and_pieces", func(pb string) error {
			return os.WriteFile(strings.TrimSuffix(pb, ".pb")+".cpb", []byte("pieces"), 0o644)
		}, []float32{5}},
	} {
		dir := modeltest.Write(t, modeltest.Affine(1, 1))
		if tt.model == "text" {
			dir = modeltest.Write(t, modeltest.HalfPlusTwo()) // the variables' names are the graph's
		}
		if err := tt.spoil(filepath.Join(dir, "saved_model.pb")); err != nil {
			t.Fatal(err)
		}
		moveInto(t, dir, filepath.Join(s.cfg.ModelsDir, tt.model), "1")
		s.live(tt.model, 1)
		s.ask(tt.model, []float32{4}, tt.want)
	}
	dir := modeltest.Write(t, modeltest.HalfPlusTwo())
	if err := os.Rename(filepath.Join(dir, "saved_model.pb"), filepath.Join(dir, "saved_model.cpb")); err != nil {
		t.Fatal(err)
	}
	moveInto(t, dir, filepath.Join(s.cfg.ModelsDir, "text"), "2")
	s.staged("text", 2, "quarantined", "saved_model.cpb, the form in pieces of graphs over 2 GB, cannot be served", "still serving version 1")
	s.ask("text", []float32{4}, []float32{4})
}

// TestCutNeverServes: a version with any of its files cut short waits for the rest. (That every cut is noticed the reader's own test shows;
// this is about what follows.) Put right, it serves.
func TestCutNeverServes(t *testing.T) {
	source := modeltest.Write(t, modeltest.HalfPlusTwo())
	whole := make(map[string][]byte)
	var folders []string
	s := serve(t, func(cfg *config.Config) {
		for _, file := range []string{"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"} {
			b, err := os.ReadFile(filepath.Join(source, file))
			if err != nil {
				t.Fatal(err)
			}
			whole[file] = b
			for n := 0; n < len(b); n += 1 + len(b)/8 {
				model := fmt.Sprintf("cut%d", len(folders))
				dir := filepath.Join(cfg.ModelsDir, model, "1")
				if err := os.CopyFS(dir, os.DirFS(source)); err != nil {
					t.Fatal(err)
				}
				if err := os.Truncate(filepath.Join(dir, file), int64(n)); err != nil {
					t.Fatal(err)
				}
				folders = append(folders, filepath.Join(dir, file))
			}
		}
	})
	for i := range folders {
		v := notWhole(s, fmt.Sprintf("cut%d", i), 1)
		if v.Proof != nil {
			t.Errorf("%s: %+v", folders[i], v)
		}
	}
	for i, path := range folders {
		if err := os.WriteFile(path, whole[strings.TrimPrefix(path, filepath.Join(s.cfg.ModelsDir, fmt.Sprintf("cut%d", i), "1")+"/")], 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.until("all that were put right live", func(st *control.Status) bool {
		for i := range folders {
			if !isLive(st, fmt.Sprintf("cut%d", i), 1) {
				return false
			}
		}
		return true
	})
}

// notWhole waits until the version is found not to be whole: it waits for the rest, or has waited long enough and is refused.
func notWhole(s *server, model string, number int64, texts ...string) *control.Version {
	s.t.Helper()
	st := s.until(fmt.Sprintf("model %s version %d not whole because of %q", model, number, texts), func(st *control.Status) bool {
		v := version(st, model, number)
		return v != nil && (v.Stage == "settling" && strings.Contains(v.Message, "waiting for the rest: ") || v.Stage == "quarantined") && containsAll(v.Message, texts)
	})
	return version(st, model, number)
}

// TestSignedVersions: where a signature is required nothing else serves, and what was changed after it was signed does not either.
func TestSignedVersions(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	public, err := Keygen(key)
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(cfg *config.Config) {
		m := listed(cfg, "m")
		m.SignatureKeys, m.RequireSignature = []string{public}, true
		cfg.Models = []config.Model{m}
	})
	base := filepath.Join(s.cfg.ModelsDir, "m")
	signed := func() string {
		t.Helper()
		dir := modeltest.Write(t, modeltest.HalfPlusTwo())
		if _, err := Sign(dir, key); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	moveInto(t, signed(), base, "1")
	s.live("m", 1)
	moveInto(t, modeltest.Write(t, modeltest.HalfPlusTwo()), base, "2")
	notWhole(s, "m", 2, "it has no MANIFEST", "inferd sign ")
	for i, tamper := range []struct {
		what func(dir string) error
		says string
	}{
		{func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "variables", "variables.data-00000-of-00001"), make([]byte, 8), 0o644)
		}, "variables/variables.data-00000-of-00001 has the SHA-256"},
		{func(dir string) error { return os.WriteFile(filepath.Join(dir, "more"), nil, 0o644) }, "more is not in its MANIFEST"},
		{func(dir string) error { return os.Remove(filepath.Join(dir, "MANIFEST.sig")) }, "it has no MANIFEST.sig"},
		{func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "MANIFEST"), []byte(strings.Repeat("0", 64)+"  saved_model.pb\n"), 0o644)
		}, "none of the 1 signature_keys has signed its MANIFEST as it is"},
	} {
		dir := signed()
		if err := tamper.what(dir); err != nil {
			t.Fatal(err)
		}
		number := int64(i + 3)
		moveInto(t, dir, base, fmt.Sprint(number))
		notWhole(s, "m", number, tamper.says)
	}
	s.ask("m", []float32{4}, []float32{4})
	if _, err := Sign(filepath.Join(base, "2"), key); err != nil {
		t.Fatal(err)
	}
	s.live("m", 2)
}
