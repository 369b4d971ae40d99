// words.go: for tests that hold a page of docs/ to what the code says.

// Package words finds in Go source the texts that a program logs or notes. It is for tests only.
package words

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Literals are the string literals at a place in the arguments of every call of one of the named functions, in the files that the patterns
// match, tests left out: sorted, each once.
func Literals(t *testing.T, at int, names []string, patterns ...string) (out []string) {
	t.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
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
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Logged are the names of the functions that log.
var Logged = []string{"Info", "Warn", "Error"}
