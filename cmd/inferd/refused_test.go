// refused_test.go: a start that is refused again and again waits longer each time, under systemd alone.
package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRefusedStartsSlowDown(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	t.Setenv("RUNTIME_DIRECTORY", dir+":/somewhere/else")
	t.Setenv("NOTIFY_SOCKET", path)
	ended, end := context.WithCancel(t.Context())
	end() // as SIGTERM does: no test waits
	fault, other := errors.New("listen.http: no port"), errors.New("another")
	for i, c := range []struct {
		err   error
		times int
		rest  time.Duration
	}{{fault, 1, 0}, {fault, 2, time.Second}, {fault, 3, 2 * time.Second}, {other, 1, 0}, {other, 2, time.Second}, {nil, 0, 0}, {other, 1, 0}} {
		if err := slowly(ended, c.err); !errors.Is(err, c.err) {
			t.Errorf("%d: returned %v", i, err)
		}
		r := readRefused(filepath.Join(dir, refusedFile))
		if r.Times != c.times || r.restAfter() != c.rest {
			t.Errorf("%d: %+v, rests %s; want %d times and %s", i, r, r.restAfter(), c.times, c.rest)
		}
		if c.rest > 0 {
			buf := make([]byte, 200)
			n, err := conn.Read(buf)
			if err != nil || !strings.HasPrefix(string(buf[:n]), "STATUS=cannot start, tries again in "+c.rest.String()+": "+c.err.Error()) {
				t.Errorf("%d: said %q, %v", i, buf[:n], err)
			}
		}
	}
	if got := (refused{Times: 1 << 30}).restAfter(); got != longestRest {
		t.Errorf("rests %s after very many", got)
	}
}

func TestRefusedWithoutSystemd(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("RUNTIME_DIRECTORY", dir)
	t.Setenv("NOTIFY_SOCKET", "")
	if err := slowly(t.Context(), errors.ErrUnsupported); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) > 0 {
		t.Errorf("left %v behind", entries)
	}
}

func TestRefusedFileIsDamaged(t *testing.T) {
	path := filepath.Join(t.TempDir(), refusedFile)
	for _, text := range []string{"", "{", `{"times":-5}`, strings.Repeat(" ", 2*refusedBytes) + `{"times":5}`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := readRefused(path); r != (refused{}) {
			t.Errorf("%.10q is read as %+v", text, r)
		}
	}
}
