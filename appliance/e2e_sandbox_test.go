// e2e_sandbox_test.go: a whole appliance whose models reach for what is not theirs.
package appliance

import (
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/worker"
)

// TestModelsAreConfined asks a served model, by the front door, for the queue, the tokens and another model, and to write and to look around.
func TestModelsAreConfined(t *testing.T) {
	for _, sandbox := range []config.Sandbox{config.SandboxOff, config.SandboxAuto} {
		t.Run(string(sandbox), func(t *testing.T) {
			if sandbox == config.SandboxAuto && !worker.ProbeConfinement().Full() {
				t.Skipf("this kernel confines with %v", worker.ProbeConfinement())
			}
			var state, tokens, other string
			s := serve(t, func(cfg *config.Config) {
				cfg.Runtime.Sandbox, cfg.Defaults.DenyOps = sandbox, false
				state = cfg.StateDir
				tokens = filepath.Join(filepath.Dir(state), "tokens.yaml")
				if err := os.WriteFile(tokens, []byte("hashes"), 0o600); err != nil {
					t.Fatal(err)
				}
				modeltest.WriteVersion(t, filepath.Join(cfg.ModelsDir, "reaches"), 1, modeltest.Reaches())
				other = filepath.Join(modeltest.WriteVersion(t, filepath.Join(cfg.ModelsDir, "other"), 1, modeltest.HalfPlusTwo()), "saved_model.pb")
			})
			s.live("reaches", 1)
			s.live("other", 1)
			written := filepath.Join(s.models, "new", "1", "saved_model.pb")
			for _, a := range []struct {
				key, path string
				reached   func(answer string) bool
			}{
				{"read", filepath.Join(state, "queue.db"), func(a string) bool { return len(a) > 1000 }},
				{"read", tokens, func(a string) bool {
					return strings.Contains(a, base64.StdEncoding.EncodeToString([]byte("hashes"))) || strings.Contains(a, "hashes")
				}},
				{"read", other, func(a string) bool { return len(a) > 100 }},
				{"list", filepath.Join(s.models, "other", "*"), func(a string) bool { return strings.Contains(a, "other") }},
				{"write", written, func(string) bool { _, err := os.Stat(written); return err == nil }},
				{"save", filepath.Join(s.models, "saved"), func(string) bool { _, err := os.Stat(filepath.Join(s.models, "saved.index")); return err == nil }},
			} {
				code, answer, err := s.rest(t.Context(), "/v1/models/reaches:predict", `{"signature_name": "`+a.key+`", "inputs": "`+a.path+`"}`)
				if err != nil {
					t.Fatal(err)
				}
				body := string(answer)
				reached := code == http.StatusOK && a.reached(body)
				if reached != (sandbox == config.SandboxOff) {
					t.Errorf("%s of %s: %d %.300s", a.key, a.path, code, body)
				}
				if sandbox == config.SandboxAuto && a.key != "list" && (code != http.StatusForbidden || !strings.Contains(body, "a model may read nothing but its own version folder")) {
					t.Errorf("%s of %s: %d %.300s", a.key, a.path, code, body)
				}
			}
			if told := s.health.Has(health.CodeSandbox); told != (sandbox == config.SandboxOff) {
				t.Errorf("the condition is there: %v", told)
			}
			want := "inferd_models_confined 1"
			if sandbox == config.SandboxOff {
				want = "inferd_models_confined 0"
			}
			if _, text := s.get("/metrics"); !strings.Contains(text, want) {
				t.Errorf("no %q", want)
			}
		})
	}
}
