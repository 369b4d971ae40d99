// docs_test.go: docs/queue.md has every message that the queue logs.
package jobs_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/tools/words"
)

func TestEveryMessageIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "queue.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := words.Literals(t, 0, words.Logged, "*.go", filepath.Join("..", "..", "storage", "queue*.go"))
	for _, text := range found {
		if !strings.Contains(string(page), "`"+strings.ReplaceAll(text, "`", "")+"`") {
			t.Errorf("docs/queue.md says nothing of %q", text)
		}
	}
	if len(found) < 15 {
		t.Errorf("%d messages were found in the source", len(found))
	}
}
