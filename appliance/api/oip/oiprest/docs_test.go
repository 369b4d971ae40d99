// docs_test.go: docs/oip.md has every path and every parameter.
package oiprest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference/tensor"
)

func TestThePageHasItAll(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "..", "docs", "oip.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{LengthHeader, "timeout", "priority", "signature_name", "binary_data_output", "binary_data_size", "sequence_id", "sequence_start", "sequence_end", "classification",
		"/v2/health/live", "/v2/health/ready", "/v2/models/M[/versions/V]/ready", "/v2/models/M[/versions/V]/infer", "/v2/models/stats", "/v2/repository/index", "oip.repository"} {
		if !strings.Contains(string(page), want) {
			t.Errorf("docs/oip.md says nothing of %s", want)
		}
	}
	// Its first command.
	_, after, ok := strings.Cut(string(page), "curl -d '")
	body, _, ends := strings.Cut(after, "' localhost:8501/v2/models/half_plus_two/infer")
	h := serve(t, Options{}, oip.Options{}, version(in("x", tensor.Float, -1, 1)))
	if resp, got := h.do(t, "POST", "/v2/models/m/infer", body); !ok || !ends || resp.StatusCode != 200 || !strings.Contains(got, `"data":[1.0,2.0]`) {
		t.Errorf("%s: %d %s", body, resp.StatusCode, got)
	}
}
