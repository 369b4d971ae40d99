// doc_test.go: the exchanges of docs/streaming.md, held against a server.
package ws

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestPage runs the page's blocks, each on a connection of its own. What the first one of a session has called SESSION is known to the one that
// resumes it.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/streaming.md")
	if err != nil {
		t.Fatal(err)
	}
	r, run := withQueue(t, Options{})
	run()
	blocks := regexp.MustCompile("(?s)```stream( resumed)?\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	if len(blocks) < 3 {
		t.Fatalf("the page has %d exchanges", len(blocks))
	}
	session := ""
	for _, block := range blocks {
		p := r.knock(t, JSONProtocol)
		if block[1] == "" {
			session = ""
		}
		for line := range strings.Lines(block[2]) {
			way, text, _ := strings.Cut(strings.TrimSpace(line), " ")
			if way == ">" {
				p.send(strings.ReplaceAll(text, "SESSION", session))
				continue
			}
			var compact bytes.Buffer // a stored answer is laid out as :predict's
			if err := json.Compact(&compact, []byte(p.recv())); err != nil {
				t.Fatal(err)
			}
			got := compact.String()
			form := regexp.QuoteMeta(text)
			if session != "" {
				form = strings.ReplaceAll(form, "SESSION", session)
			}
			form = strings.NewReplacer("SESSION", "([0-9a-f]{32})", "JOB", "[0-9a-f]{16}-[0-9a-f]{16}", `\*`, `(?:[^"\\]|\\.)*`).Replace(form)
			m := regexp.MustCompile("^" + form + "$").FindStringSubmatch(got)
			if m == nil {
				t.Fatalf("%s\ngot  %s\nwant %s", block[2], got, text)
			}
			if len(m) > 1 {
				session = m[1]
			}
		}
		_ = p.conn.Close()
	}
}
