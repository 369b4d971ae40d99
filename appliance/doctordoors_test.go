// doctordoors_test.go: the tokens file as the doctor finds it.
package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/config"
)

func TestDoctorLooksAtTheTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens.yaml")
	look := func(severity, text string) {
		t.Helper()
		cfg := config.Default()
		cfg.Access.TokensFile = path
		d := &doctor{report: &CheckReport{OK: true}, cfg: cfg}
		d.tokens()
		if f := d.report.Findings; len(f) != 1 || f[0].Severity != severity || !strings.Contains(f[0].Message, text) {
			t.Errorf("%+v, want %s %q", f, severity, text)
		}
	}
	add := func(name string, expires time.Time) {
		t.Helper()
		err := access.Change(path, "", func(all []access.Token) ([]access.Token, error) {
			return append(all, access.Token{Name: name, Sum: access.SumOf(name), Scopes: access.Predict, Expires: expires}), nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look(FindingWarning, "is not there, so nobody is let in")
	add("old", time.Unix(1, 0))
	look(FindingWarning, "all of which have expired")
	add("new", time.Time{})
	look(FindingOK, "has 2 tokens, of which 1 have expired")
	if err := os.WriteFile(path, []byte("tokens: {"), 0o600); err != nil {
		t.Fatal(err)
	}
	look(FindingWrong, "is no tokens file")
}
