// logging_test.go: the form of log lines.
package appliance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd/inferd/appliance/config"
)

func TestLogForms(t *testing.T) {
	for name, c := range map[string]struct {
		log     config.Log
		journal bool
		want    []string
		time    bool
	}{
		"text":            {config.Log{Format: "text", Level: "info"}, false, []string{"level=INFO msg=published model=m", "level=ERROR msg=broke"}, true},
		"text, journal":   {config.Log{Format: "text", Level: "info"}, true, []string{"level=INFO msg=published model=m", "level=ERROR msg=broke"}, false},
		"json, journal":   {config.Log{Format: "json", Level: "info"}, true, []string{`"level":"INFO","msg":"published","model":"m"`, `"msg":"broke"`}, true},
		"only errors":     {config.Log{Format: "text", Level: "error"}, true, []string{"level=ERROR msg=broke"}, false},
		"everything":      {config.Log{Format: "text", Level: "debug"}, true, []string{"level=DEBUG msg=asked", "level=INFO msg=published model=m", "level=ERROR msg=broke"}, false},
		"level is folded": {config.Log{Format: "text", Level: "WARN"}, true, []string{"level=ERROR msg=broke"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			log, err := newLogger(&b, c.log, new(slog.LevelVar), c.journal, filepath.Join(t.TempDir(), "none"))
			if err != nil {
				t.Fatal(err)
			}
			log.Debug("asked")
			log.Info("published", "model", "m")
			log.Error("broke")
			lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
			if len(lines) != len(c.want) {
				t.Fatalf("%d lines: %q", len(lines), lines)
			}
			for i, line := range lines {
				if !strings.Contains(line, c.want[i]) || strings.Contains(line, "time") != c.time {
					t.Errorf("line %q, want %q, with a time: %v", line, c.want[i], c.time)
				}
				if c.log.Format == "json" && !json.Valid([]byte(line)) {
					t.Errorf("not JSON: %s", line)
				}
			}
		})
	}
	for _, o := range []config.Log{{Format: "xml", Level: "info"}, {Format: "text", Level: "loud"}} {
		if _, err := NewLogger(new(bytes.Buffer), o, nil); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestJournalIsTheStreamItself(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	st := info.Sys().(*syscall.Stat_t)
	for stream, want := range map[string]bool{
		fmt.Sprintf("%d:%d", st.Dev, st.Ino):   true,
		fmt.Sprintf("%d:%d", st.Dev, st.Ino+1): false,
		fmt.Sprintf("%d:%d", st.Dev+1, st.Ino): false,
		"":                                     false,
		"x":                                    false,
	} {
		if got := journal(f, stream); got != want {
			t.Errorf("stream %q: %v", stream, got)
		}
	}
	if journal(new(bytes.Buffer), fmt.Sprintf("%d:%d", st.Dev, st.Ino)) {
		t.Error("a buffer was taken for the journal")
	}
}

// logged are the methods of a logger, with the place of their first key.
var logged = map[string]int{"Debug": 1, "Info": 1, "Warn": 1, "Error": 1, "DebugContext": 2, "InfoContext": 2, "WarnContext": 2, "ErrorContext": 2, "With": 0}

func TestLogKeysAreListed(t *testing.T) {
	found := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"build", ".git", "tools", "testdata"}, d.Name()) {
			return filepath.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			for _, key := range keysIn(n) {
				found++
				if !slices.Contains(logKeys, key) {
					t.Errorf("%s: key %q is not in logKeys; use one that is, or add it", files.Position(n.Pos()), key)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found == 0 {
		t.Error("no log line was found, so nothing was checked")
	}
}

// keysIn has the constant keys of a call that looks like a logger's: log.Info("text", "key", value), log.With("key", value).
func keysIn(n ast.Node) (keys []string) {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return nil
	}
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return nil
	}
	if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "http" {
		return nil // http.Error answers a request
	}
	first, ok := logged[sel.Sel.Name]
	if !ok || len(call.Args) < first+2 {
		return nil
	}
	for i := first; i+1 < len(call.Args); i += 2 {
		lit, ok := call.Args[i].(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return keys
		}
		if s, err := strconv.Unquote(lit.Value); err == nil {
			keys = append(keys, s)
		}
	}
	return keys
}
