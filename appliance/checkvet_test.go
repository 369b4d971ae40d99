// checkvet_test.go: `inferd check` refuses what the updater refuses, and says what reaches out of a model.
package appliance

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// checkFinding is what `inferd check` says about a version folder of the model "m".
func checkFinding(t *testing.T, dir string, m config.Model) Finding {
	t.Helper()
	cfg := config.Default()
	m.Name, m.BasePath = "m", filepath.Dir(dir)
	cfg.Models = []config.Model{m}
	report, err := Check(t.Context(), dir, CheckOptions{Config: cfg})
	if err != nil || len(report.Findings) == 0 {
		t.Fatalf("%v %v", report, err)
	}
	return report.Findings[0]
}

func TestCheckOps(t *testing.T) {
	dir := modeltest.WriteVersion(t, filepath.Join(t.TempDir(), "m"), 1, readsFile())
	m := config.Model{ModelOptions: config.Default().Defaults}
	if f := checkFinding(t, dir, m); f.Severity != FindingWrong || !strings.Contains(f.Message, outerLine) {
		t.Errorf("by default: %+v", f)
	}
	m.AllowOps = []string{"MatchingFiles"}
	if f := checkFinding(t, dir, m); f.Severity != FindingOK || !strings.Contains(f.Message, outerLine) {
		t.Errorf("allowed: %+v", f)
	}
}
