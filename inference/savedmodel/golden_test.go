// golden_test.go: golden cases from outside.
package savedmodel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
)

func TestEachGolden(t *testing.T) {
	long := strings.Repeat("x", maxGoldenLine)
	for _, tt := range []struct {
		name, file string
		seen       string
		want       string
	}{
		{"empty", "", "", ""},
		{"two, with empty lines and Windows' line ends", "a\r\n\r\n  \nb", "1:a 4:b ", ""},
		{"the most", strings.Repeat("a\n", 1000), "", ""},
		{"one too many", strings.Repeat("a\n", 1001), "", "has more than 1000 cases, on line 1001 and after"},
		{"a line that is too long", "a\n" + long, "1:a ", "line 2 of assets.extra/inferd_golden.jsonl has 16777216 bytes or more"},
	} {
		dir := t.TempDir()
		writeFile(t, filepath.Join(dir, GoldenFile), []byte(tt.file))
		var seen strings.Builder
		err := EachGolden(dir, func(line int, text []byte) error {
			fmt.Fprintf(&seen, "%d:%s ", line, text)
			return nil
		})
		if tt.seen != "" && seen.String() != tt.seen {
			t.Errorf("%s: saw %q", tt.name, seen.String())
		}
		if e := (*inference.Error)(nil); (err == nil) != (tt.want == "") || err != nil && (!errors.As(err, &e) || e.Code != inference.InvalidArgument || !strings.Contains(e.Msg, tt.want)) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if err := EachGolden(t.TempDir(), nil); err != nil {
		t.Errorf("no file: %v", err)
	}
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, GoldenFile), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := EachGolden(dir, nil); err == nil || !strings.Contains(err.Error(), "is not a regular file") {
		t.Errorf("a folder: %v", err)
	}
	dir = t.TempDir()
	writeFile(t, filepath.Join(dir, GoldenFile), nil)
	if err := os.Truncate(filepath.Join(dir, GoldenFile), maxGoldenFile+1); err != nil {
		t.Fatal(err)
	}
	if err := EachGolden(dir, nil); err == nil || !strings.Contains(err.Error(), "has 268435457 bytes, at most 268435456 are read") {
		t.Errorf("a large file: %v", err)
	}
}

func FuzzGolden(f *testing.F) {
	f.Add([]byte("{}\n\n{}"))
	f.Add([]byte("a\r\n\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		last := 0
		err := eachGolden(bytes.NewReader(b), func(line int, text []byte) error {
			if line <= last || len(text) == 0 || bytes.IndexByte(text, '\n') >= 0 {
				t.Errorf("line %d after %d: %q", line, last, text)
			}
			last = line
			return nil
		})
		if err != nil && bytes.Count(b, []byte("\n")) < maxGoldenCases {
			t.Error(err)
		}
	})
}
