// docs_test.go: docs/updating.md has every message that the updater logs and every word of its history.
package updater

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/tools/words"
)

func TestEveryMessageIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "updating.md"))
	if err != nil {
		t.Fatal(err)
	}
	logged, noted := words.Literals(t, 0, words.Logged, "*.go"), words.Literals(t, 1, []string{"note", "noteBy", "noteLive"}, "*.go")
	if len(logged) < 30 || len(noted) < 15 {
		t.Fatalf("%d messages and %d words were found in the source: %v", len(logged), len(noted), noted)
	}
	for _, text := range slices.Concat(logged, noted) {
		if !strings.Contains(string(page), "`"+text+"`") {
			t.Errorf("docs/updating.md says nothing of %q", text)
		}
	}
}
