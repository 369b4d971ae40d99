// docs_test.go: docs/request-log.md has every message and every reason of the log.
package reqlog

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/tools/words"
)

func TestEveryMessageIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "request-log.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := words.Literals(t, 0, words.Logged, "*.go")
	for _, why := range drops {
		found = append(found, string(why))
	}
	for _, text := range found {
		if !strings.Contains(string(page), "`"+text+"`") {
			t.Errorf("docs/request-log.md says nothing of %q", text)
		}
	}
	if len(found) < 3+len(drops) {
		t.Errorf("%d messages were found in the source", len(found))
	}
}
