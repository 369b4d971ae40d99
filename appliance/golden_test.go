// golden_test.go: golden cases, through the real codec and the real runtime, and in `inferd check`.
package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

// writeGolden makes lines the version folder's golden cases.
func writeGolden(t *testing.T, dir string, lines ...string) {
	t.Helper()
	path := filepath.Join(dir, savedmodel.GoldenFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestGoldenCases(t *testing.T) {
	cfg := config.Default()
	cfg.Runtime.Library = library(t)
	trial, err := NewTrial(t.Context(), cfg, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer trial.Close()
	for _, tt := range []struct {
		model  *modeltest.Model
		lines  []string
		golden int
		says   string
	}{
		{modeltest.HalfPlusTwo(), []string{`{"instances":[1,2,5],"predictions":[2.5,3,4.5]}`, `{"name":"column","inputs":{"x":[4]},"outputs":[4.001],"tolerance":0.01}`}, 2, ""},
		{modeltest.HalfPlusTwo(), []string{`{"instances":[1],"predictions":[2.5]}`, `{"name":"wrong","instances":[1,2],"predictions":[2.5,3.5]}`}, 0,
			`golden case "wrong" (line 2 of assets.extra/inferd_golden.jsonl): output "y"[1] is 3, expected 3.5 (rtol 1e-05, atol 1e-05), the first of 1 of 2 elements that differ`},
		{modeltest.HalfPlusTwo(), []string{`{"instances":[1],"predictions":[[2.5]]}`}, 0, `output "y" has shape [1], expected [1,1]`},
		{modeltest.HalfPlusTwo(), []string{`{"instances":[NaN],"predictions":[NaN]}`}, 1, ""},
		{modeltest.HalfPlusTwo(), []string{`{"instances":[NaN],"predictions":[2]}`}, 0, `output "y"[0] is NaN, expected 2`},
		{modeltest.HalfPlusTwo(), []string{`{"instances":["a"],"predictions":[2]}`}, 0, `golden case on line 1 of assets.extra/inferd_golden.jsonl: INVALID_ARGUMENT: `},
		{modeltest.HalfPlusTwo(), []string{`{"instances":[1],"outputs":1`}, 0, "JSON Parse error"},
	} {
		dir := modeltest.Write(t, tt.model)
		writeGolden(t, dir, tt.lines...)
		s, _, proof, err := trial.Open(t.Context(), dir)
		if (err == nil) != (tt.says == "") || err != nil && !strings.Contains(updater.Message(err), tt.says) {
			t.Errorf("%v: got %v, want %s", tt.lines, err, tt.says)
		}
		if err != nil {
			continue
		}
		if got := proof.Signatures[inference.DefaultSignature].Golden; got != tt.golden {
			t.Errorf("%v: %d cases, %+v", tt.lines, got, proof)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestCheckCases: `inferd check` counts the cases and reads them without a runtime; with one it says what ran.
func TestCheckCases(t *testing.T) {
	dir := modeltest.WriteVersion(t, filepath.Join(t.TempDir(), "m"), 1, modeltest.HalfPlusTwo())
	recordRequest(t, dir, 1)
	recordRequest(t, dir, 2)
	writeGolden(t, dir, `{"instances":[1],"predictions":[2.5]}`)
	m := config.Model{ModelOptions: config.Default().Defaults}
	if f := checkFinding(t, dir, m); f.Severity != FindingOK || !strings.Contains(f.Message, "; 2 recorded requests; 1 golden case") {
		t.Errorf("%+v", f)
	}
	cfg := config.Default()
	cfg.Runtime.Library = library(t)
	report, err := Check(t.Context(), dir, CheckOptions{Config: cfg, Load: true})
	if err != nil {
		t.Fatal(err)
	}
	if sig := report.Findings[0].Signatures; !report.OK || len(sig) != 1 || !strings.Contains(sig[0].Proof, "; answered 2 recorded requests; gave what 1 golden case expected") {
		t.Errorf("%+v", report)
	}
	writeGolden(t, dir, `{"instances":[1],"predictions":[2.5],"tolerances":1}`)
	if f := checkFinding(t, dir, m); f.Severity != FindingWrong || !strings.Contains(f.Message, `, but golden case on line 1 of assets.extra/inferd_golden.jsonl: INVALID_ARGUMENT: a golden case has no "tolerances"`) {
		t.Errorf("%+v", f)
	}
}
