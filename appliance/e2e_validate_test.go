// e2e_validate_test.go: versions that must not serve, dropped into a running appliance, and what was measured of the one that does.
package appliance

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func TestValidatedBeforeTraffic(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		dir := modeltest.Write(t, modeltest.HalfPlusTwo())
		recordRequest(t, dir, 4)
		recordRequest(t, dir, 6)
		writeGolden(t, dir, `{"name":"four","instances":[4],"predictions":[4]}`)
		moveInto(t, dir, filepath.Join(cfg.ModelsDir, "m"), "1")
	})
	v := s.live("m", 1)
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	p := v.Proof
	if p == nil || p.LoadMicros <= 0 || p.Unproven != "" {
		t.Fatalf("%s", text)
	}
	if p.LoadPeakBytes <= 0 || p.PeakBytes < p.RestBytes || p.RestBytes <= 0 {
		t.Errorf("%s", text)
	}
	if sig := p.Signatures[inference.DefaultSignature]; sig.Recorded != 2 || sig.Golden != 1 || sig.SlowestRecordedMicros <= 0 || sig.LargestBatch < 2 || sig.RunMicros[1] <= 0 || sig.MemoryBytes <= 0 {
		t.Errorf("%s", text)
	}
	for i, bad := range []struct {
		name  string
		model *modeltest.Model
		spoil func(dir string) error
		says  []string
	}{
		{"an op that reaches out", readsFile(), nil, []string{outerLine, "allow_ops: [MatchingFiles]"}},
		{"a link that leads out", modeltest.HalfPlusTwo(), func(dir string) error { return os.Symlink("/etc", filepath.Join(dir, "extra")) },
			[]string{"extra is a symbolic link to /etc"}},
		{"another shape of input", modeltest.MatrixHalfPlusTwo(), nil, []string{"compared with version 1", "compatibility: any"}},
		{"a recorded request that fails", modeltest.HalfPlusTwo(), func(dir string) error {
			path := filepath.Join(dir, savedmodel.WarmupFile)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("no records here, for sure"), 0o644)
		}, []string{"record 1 of " + savedmodel.WarmupFile}},
		{"a golden case that is answered otherwise", modeltest.Affine(0.5, 3), func(dir string) error {
			writeGolden(t, dir, `{"name":"four","instances":[4],"predictions":[4]}`)
			return nil
		}, []string{`golden case "four" (line 1 of assets.extra/inferd_golden.jsonl): output "y"[0] is 5, expected 4 (rtol 1e-05, atol 1e-05)`, "still serving version 1"}},
	} {
		dir := modeltest.Write(t, bad.model)
		if bad.spoil != nil {
			if err := bad.spoil(dir); err != nil {
				t.Fatal(err)
			}
		}
		number := int64(i + 2)
		moveInto(t, dir, filepath.Join(s.cfg.ModelsDir, "m"), string('0'+rune(number)))
		s.staged("m", number, "quarantined", bad.says...)
		s.ask("m", []float32{4}, []float32{4})
	}
}

// moveInto renames a version folder into a base path.
func moveInto(t *testing.T, dir, base, name string) {
	t.Helper()
	if err := os.MkdirAll(base, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(dir, filepath.Join(base, name)); err != nil {
		t.Fatal(err)
	}
}

// TestCostsMore: a version that takes far more memory goes live all the same, and says so.
func TestCostsMore(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		moveInto(t, modeltest.Write(t, modeltest.Hungry(1)), filepath.Join(cfg.ModelsDir, "m"), "1")
	})
	s.live("m", 1)
	moveInto(t, modeltest.Write(t, modeltest.Hungry(200)), filepath.Join(s.cfg.ModelsDir, "m"), "2")
	v := s.live("m", 2)
	if !strings.Contains(v.Message, "it costs more than version 1: ") || !strings.Contains(v.Message, "its worker used up to ") {
		t.Errorf("%q", v.Message)
	}
	if v.Proof.PeakBytes < 200<<20 || v.Proof.RestBytes > v.Proof.PeakBytes {
		t.Errorf("%+v", v.Proof)
	}
}

// TestNaNPolicy: NaN in the answer to a recorded request refuses the version, or with nan: warn goes live with a line in the log.
func TestNaNPolicy(t *testing.T) {
	s := serve(t, func(cfg *config.Config) {
		warned := listed(cfg, "warned")
		warned.NaN = config.Warn
		cfg.Models = []config.Model{listed(cfg, "refused"), warned}
		for _, m := range cfg.Models {
			dir := modeltest.Write(t, modeltest.HalfPlusTwo())
			recordRequest(t, dir, float32(math.NaN()))
			moveInto(t, dir, m.BasePath, "1")
		}
	})
	s.staged("refused", 1, "quarantined", "recorded request 1 of "+savedmodel.WarmupFile, `output "y" is NaN; if that is right, write nan: warn`)
	v := s.live("warned", 1)
	s.ask("warned", []float32{4}, []float32{4})
	if w := v.Proof.Signatures[inference.DefaultSignature].Warnings; len(w) != 1 || w[0] != `output "y" is NaN on recorded request 1` {
		t.Errorf("%q", w)
	}
}
