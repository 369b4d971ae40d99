// docs_test.go: docs/updating.md has every message that the updater logs and every word of its history.
package updater

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// literals are the string literals at a place in the arguments of every call of one of the named functions.
func literals(t *testing.T, at int, names ...string) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) <= at {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			lit, isLit := call.Args[at].(*ast.BasicLit)
			if ok && isLit && slices.Contains(names, f.Sel.Name) {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, s)
				}
			}
			return true
		})
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestEveryMessageIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "updating.md"))
	if err != nil {
		t.Fatal(err)
	}
	logged, noted := literals(t, 0, "Info", "Warn", "Error"), literals(t, 1, "note", "noteBy", "noteLive")
	if len(logged) < 30 || len(noted) < 15 {
		t.Fatalf("%d messages and %d words were found in the source: %v", len(logged), len(noted), noted)
	}
	for _, text := range slices.Concat(logged, noted) {
		if !strings.Contains(string(page), "`"+text+"`") {
			t.Errorf("docs/updating.md says nothing of %q", text)
		}
	}
}
