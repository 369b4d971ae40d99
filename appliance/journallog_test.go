// journallog_test.go: the log as the journal has it, read at a socket.
package appliance

import (
	"bytes"
	"errors"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
)

func TestLogInTheJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var stream bytes.Buffer
	level := new(slog.LevelVar)
	log, err := newLogger(&stream, config.Log{Format: "text", Level: "info"}, level, true, path)
	if err != nil {
		t.Fatal(err)
	}
	next := func() map[string]string {
		t.Helper()
		b := make([]byte, 64<<10)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got := make(map[string]string)
		for line := range strings.Lines(string(b[:n])) { // none of these values has a line of its own
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			got[k] = v
		}
		return got
	}
	part := log.With("component", "updater")
	for name, c := range map[string]struct {
		log  func()
		want map[string]string
	}{
		"info": {func() { part.Info("published", "model", "m", "version", 7, "took", 1500*time.Millisecond) }, map[string]string{
			"PRIORITY": "6", "MESSAGE": "published component=updater model=m version=7 took=1.5s", "EVENT": "published", "SYSLOG_IDENTIFIER": "inferd",
			"COMPONENT": "updater", "MODEL": "m", "VERSION": "7", "TOOK": "1.5s"}},
		"warning": {func() { log.Warn("version refused", "reason", `input "x" is gone`) }, map[string]string{
			"PRIORITY": "4", "MESSAGE": `version refused reason="input \"x\" is gone"`, "EVENT": "version refused", "SYSLOG_IDENTIFIER": "inferd", "REASON": `input "x" is gone`}},
		"error": {func() { log.Error("broke", "err", errors.New("no space")) }, map[string]string{
			"PRIORITY": "3", "MESSAGE": `broke err="no space"`, "EVENT": "broke", "SYSLOG_IDENTIFIER": "inferd", "ERR": "no space"}},
		"groups": {func() { log.WithGroup("a").With("b", 1).Info("x", slog.Group("c", "d", 2), slog.Group("", "e", 3)) }, map[string]string{
			"PRIORITY": "6", "MESSAGE": "x a.b=1 a.c.d=2 a.e=3", "EVENT": "x", "SYSLOG_IDENTIFIER": "inferd", "A_B": "1", "A_C_D": "2", "A_E": "3"}},
		"a key cannot stand for what the record has": {func() { log.Info("x", "priority", 0) }, map[string]string{
			"PRIORITY": "6", "MESSAGE": "x attr_priority=0", "EVENT": "x", "SYSLOG_IDENTIFIER": "inferd", "ATTR_PRIORITY": "0"}},
	} {
		t.Run(name, func(t *testing.T) {
			log.Debug("not asked for")
			c.log()
			if got := next(); !maps.Equal(got, c.want) {
				t.Errorf("got  %q\nwant %q", got, c.want)
			}
		})
	}
	level.Set(slog.LevelDebug) // as a reload does
	part.Debug("asked for")
	if got := next(); got["PRIORITY"] != "7" || got["EVENT"] != "asked for" {
		t.Errorf("got %q", got)
	}
	if stream.Len() > 0 {
		t.Errorf("on the stream too: %s", &stream)
	}

	conn.Close() // as while journald is replaced
	part.Warn("nobody\nlistens", "model", "m")
	if got, want := stream.String(), "<4>nobody listens component=updater model=m\n"; got != want {
		t.Errorf("without a journal the line is %q, want %q", got, want)
	}
}

// TestLogForTheJournalAsJSON: who asked for JSON gets JSON, in the journal too.
func TestLogForTheJournalAsJSON(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var stream bytes.Buffer
	log, err := newLogger(&stream, config.Log{Format: "json", Level: "info"}, new(slog.LevelVar), true, path)
	if err != nil {
		t.Fatal(err)
	}
	log.Info("published")
	if !strings.Contains(stream.String(), `"msg":"published"`) {
		t.Errorf("the stream has %q", &stream)
	}
}
