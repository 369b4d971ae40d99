// page_test.go: docs/protocols.md names tests that there are.
package conform

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestThePageNamesItsTests(t *testing.T) {
	page, err := os.ReadFile("../../docs/protocols.md")
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(`)
	for _, dir := range []string{"../../appliance", "."} {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			for _, m := range declared.FindAllSubmatch(text, -1) {
				there[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	named := 0
	for _, line := range strings.Split(string(page), "\n") {
		cells := strings.Split(strings.Trim(line, "|"), " | ")
		last := cells[len(cells)-1]
		for _, word := range strings.FieldsFunc(last, func(r rune) bool { return r == ',' || r == ' ' || r == '|' }) {
			switch {
			case strings.HasPrefix(word, "Test"):
				named++
				if !there[word] {
					t.Errorf("no test is called %s", word)
				}
			case strings.HasPrefix(word, "tools/e2e/"):
				named++
				if _, err := os.Stat(filepath.Join("../..", word)); err != nil {
					t.Error(err)
				}
			}
		}
	}
	if named < 40 {
		t.Errorf("%d tests are named, which is not one for each row", named)
	}
}
