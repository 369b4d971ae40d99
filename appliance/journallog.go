// journallog.go: log lines as records of the journal, each with its priority, and with every attribute a field that can be asked for.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/inferd/inferd/systemd"
)

// journalHandler is a slog.Handler. `journalctl -u inferd MODEL=resnet` finds what concerns a model: an attribute's field has its key in
// capitals. EVENT is the constant phrase, MESSAGE the phrase with the attributes, as a reader wants it.
type journalHandler struct {
	level  slog.Leveler
	send   func([]systemd.Field) error // of a systemd.Journal
	stream io.Writer                   // standard error, for when the socket does not work

	// of With; never written after it is shared
	group  string // with its dot
	fields []systemd.Field
}

// journalTo logs to the journal at a socket's path, and by itself where the stream goes while that fails. An error: nothing is at the path.
func journalTo(path string, stream io.Writer, level slog.Leveler) (*journalHandler, error) {
	j, err := systemd.DialJournal(path)
	if err != nil {
		return nil, err
	}
	return &journalHandler{level: level, send: j.Send, stream: stream}, nil // open for the process's life, as standard error is
}

// Enabled implements slog.Handler.
func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

// WithAttrs implements slog.Handler.
func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *h
	with.fields = h.fields[:len(h.fields):len(h.fields)]
	for _, a := range attrs {
		with.fields = appendAttr(with.fields, h.group, a)
	}
	return &with
}

// WithGroup implements slog.Handler.
func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	with := *h
	with.group += name + "."
	return &with
}

// Handle implements slog.Handler. The record's time is left to the journal, which has its own.
func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := h.fields[:len(h.fields):len(h.fields)]
	r.Attrs(func(a slog.Attr) bool {
		attrs = appendAttr(attrs, h.group, a)
		return true
	})
	var text strings.Builder
	text.WriteString(r.Message)
	for _, a := range attrs {
		text.WriteString(" " + a.Name + "=" + quoted(a.Value))
	}
	priority := priorityOf(r.Level)
	err := h.send(append([]systemd.Field{
		{Name: "PRIORITY", Value: strconv.Itoa(priority)}, {Name: "SYSLOG_IDENTIFIER", Value: "inferd"},
		{Name: "MESSAGE", Value: text.String()}, {Name: "EVENT", Value: r.Message},
	}, attrs...))
	if err == nil || errors.Is(err, systemd.ErrJournalFull) {
		return err // the stream is no less full than the socket; the next record says how many were lost
	}
	// journald reads the number in angle brackets as the priority of a line.
	_, err = fmt.Fprintf(h.stream, "<%d>%s\n", priority, strings.ReplaceAll(text.String(), "\n", " "))
	return err
}

func priorityOf(l slog.Level) int {
	switch {
	case l >= slog.LevelError:
		return systemd.PriorityError
	case l >= slog.LevelWarn:
		return systemd.PriorityWarning
	case l >= slog.LevelInfo:
		return systemd.PriorityInfo
	default:
		return systemd.PriorityDebug
	}
}

// reserved are the names of fields that a record has whatever its attributes are called.
var reserved = map[string]bool{"PRIORITY": true, "SYSLOG_IDENTIFIER": true, "MESSAGE": true, "EVENT": true, "LOST": true, "TRUNCATED": true}

// appendAttr adds an attribute, or those of a group, under the names that they have in a line.
func appendAttr(to []systemd.Field, group string, a slog.Attr) []systemd.Field {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, in := range v.Group() {
			to = appendAttr(to, group, in)
		}
		return to
	}
	if a.Equal(slog.Attr{}) {
		return to
	}
	name := group + a.Key
	if reserved[systemd.FieldName(name)] {
		name = "attr_" + name
	}
	text := v.String()
	if v.Kind() == slog.KindTime {
		text = v.Time().Format(time.RFC3339Nano)
	}
	return append(to, systemd.Field{Name: name, Value: text})
}

// quoted is a value as it stands in a line: bare, unless it would not read as one word.
func quoted(s string) string {
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r == '"' || r == '=' || r == ' ' || !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}
