// examples_test.go: the shell examples of the pages in docs, for scripts to run.
package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdExamples(ts *testscript.TestScript, neg bool, args []string) {
	want(ts, neg, len(args) == 2, "examples PAGE FILE")
	_, file, _, _ := runtime.Caller(0)
	page, err := os.ReadFile(filepath.Join(filepath.Dir(file), "..", "..", "docs", args[0]))
	ts.Check(err)
	script, inside := "inferd() { command inferd \"$@\" --address=\"$CTL\"; }\n", false
	for line := range strings.Lines(string(page)) {
		switch {
		case strings.HasPrefix(line, "```"):
			inside = strings.TrimSpace(line) == "```sh"
		case inside:
			script += line
		}
	}
	if strings.Count(script, "\n") < 2 {
		ts.Fatalf("docs/%s has no shell examples", args[0])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(script), 0o600))
}
