// logline.go: TensorFlow's log lines, taken apart.
package tfrt

import (
	"log/slog"
	"strings"
)

// ParseLog takes a line apart that TensorFlow or a library in it wrote to stderr. source is "file:line" as written there; it is empty where
// the line has no header: it goes on from the line before, or something else wrote it. msg is the rest, without the header and without white
// space at its end. It knows TensorFlow's own form, absl's and glog's, and absl's notice before its first line; a fatal line is an error here,
// and the process is about to abort.
func ParseLog(line string) (level slog.Level, source, msg string) {
	line = strings.TrimRight(line, " \t\r\n")
	if rest, ok := strings.CutPrefix(line, "WARNING: "); ok {
		if strings.HasPrefix(rest, "All log messages before absl::InitializeLog()") {
			return slog.LevelDebug, "absl", rest // says only where lines go; they come here
		}
		return slog.LevelWarn, "", rest
	}
	if rest, ok := strings.CutPrefix(line, "ERROR: "); ok {
		return slog.LevelError, "", rest
	}
	header, msg, ok := strings.Cut(line, "] ")
	if !ok {
		if header, ok = strings.CutSuffix(line, "]"); !ok {
			return slog.LevelInfo, "", line
		}
	}
	fields := strings.Fields(header)
	var letter string
	switch {
	case len(fields) < 4:
		return slog.LevelInfo, "", line
	case like(fields[0], "0000-00-00") && like(prefix(fields[1], 8), "00:00:00"): // 2026-01-31 12:00:00.123456: I [thread] file:line
		letter = fields[2]
	case len(fields[0]) == 5 && like(fields[0][1:], "0000") && like(prefix(fields[1], 5), "00:00"): // I0131 12:00:00.123456 thread file:line
		letter = fields[0][:1]
	default:
		return slog.LevelInfo, "", line
	}
	levels := map[string]slog.Level{"I": slog.LevelInfo, "W": slog.LevelWarn, "E": slog.LevelError, "F": slog.LevelError}
	level, known := levels[letter]
	source = fields[len(fields)-1]
	if colon := strings.LastIndexByte(source, ':'); !known || colon <= 0 || source[colon+1:] == "" || strings.Trim(source[colon+1:], "0123456789") != "" {
		return slog.LevelInfo, "", line
	}
	return level, source, strings.TrimLeft(msg, " \t")
}

func prefix(s string, n int) string { return s[:min(n, len(s))] }

// like reports whether s is form with other digits.
func like(s, form string) bool {
	if len(s) != len(form) {
		return false
	}
	for i := range len(s) {
		if digit := s[i] >= '0' && s[i] <= '9'; digit != (form[i] == '0') || !digit && s[i] != form[i] {
			return false
		}
	}
	return true
}
