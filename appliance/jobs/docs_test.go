// docs_test.go: docs/queue.md has every message that the queue logs.
package jobs_test

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

func TestEveryMessageIsDocumented(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "queue.md"))
	if err != nil {
		t.Fatal(err)
	}
	here, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := filepath.Glob(filepath.Join("..", "..", "storage", "queue*.go"))
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, path := range slices.Concat(here, stored) {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			f, ok := call.Fun.(*ast.SelectorExpr)
			lit, isLit := call.Args[0].(*ast.BasicLit)
			if !ok || !isLit || !slices.Contains([]string{"Info", "Warn", "Error"}, f.Sel.Name) {
				return true
			}
			text, err := strconv.Unquote(lit.Value)
			if err != nil {
				t.Fatal(err)
			}
			found++
			if !strings.Contains(string(page), "`"+strings.ReplaceAll(text, "`", "")+"`") {
				t.Errorf("docs/queue.md says nothing of %q", text)
			}
			return true
		})
	}
	if found < 15 {
		t.Errorf("%d messages were found in the source", found)
	}
}
