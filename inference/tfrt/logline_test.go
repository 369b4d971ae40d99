// logline_test.go: lines as TensorFlow 2.20 and its libraries print them.
package tfrt

import (
	"log/slog"
	"strings"
	"testing"
)

func TestParseLog(t *testing.T) {
	for _, c := range []struct {
		name, line  string
		level       slog.Level
		source, msg string
	}{
		{"information", "2026-11-23 12:14:03.518236: I tensorflow/cc/saved_model/reader.cc:83] Reading SavedModel from: /m/1\n", slog.LevelInfo,
			"tensorflow/cc/saved_model/reader.cc:83", "Reading SavedModel from: /m/1"},
		{"warning", "2026-11-23 12:14:03.518236: W external/local_xla/xla/tsl/framework/cpu_allocator_impl.cc:83] Allocation of 1 exceeds 10%.", slog.LevelWarn,
			"external/local_xla/xla/tsl/framework/cpu_allocator_impl.cc:83", "Allocation of 1 exceeds 10%."},
		{"error", "2026-11-23 12:14:03.518236: E a.cc:1] x", slog.LevelError, "a.cc:1", "x"},
		{"fatal", "2026-11-23 12:14:03.518236: F tensorflow/core/platform/cpu_feature_guard.cc:37] The TensorFlow library was compiled to use AVX instructions",
			slog.LevelError, "tensorflow/core/platform/cpu_feature_guard.cc:37", "The TensorFlow library was compiled to use AVX instructions"},
		{"with a thread", "2026-11-23 12:14:03.518236: I   12345 a/b.cc:1] x", slog.LevelInfo, "a/b.cc:1", "x"},
		{"absl before its start", "I0000 00:00:1763899023.266776    4242 gpu_device.cc:2022] Created device", slog.LevelInfo, "gpu_device.cc:2022", "Created device"},
		{"absl", "W1123 12:14:03.266776 4242 a.cc:7] careful", slog.LevelWarn, "a.cc:7", "careful"},
		{"absl fatal", "F1123 12:14:03.266776 4242 a.cc:7] Check failed: x", slog.LevelError, "a.cc:7", "Check failed: x"},
		{"notice", "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR", slog.LevelDebug, "absl",
			"All log messages before absl::InitializeLog() is called are written to STDERR"},
		{"other warning", "WARNING: something", slog.LevelWarn, "", "something"},
		{"other error", "ERROR: something", slog.LevelError, "", "something"},
		{"brackets in the text", "2026-11-23 12:14:03.518236: I a.cc:1] a[1] b[2] c", slog.LevelInfo, "a.cc:1", "a[1] b[2] c"},
		{"no text", "2026-11-23 12:14:03.518236: I a.cc:1] ", slog.LevelInfo, "a.cc:1", ""},
		{"goes on", "To enable the following instructions: AVX2 FMA, in other operations, rebuild", slog.LevelInfo, "",
			"To enable the following instructions: AVX2 FMA, in other operations, rebuild"},
		{"node", "\t [[{{node read}}]]", slog.LevelInfo, "", "\t [[{{node read}}]]"},
		{"unknown letter", "2026-11-23 12:14:03.518236: X a.cc:1] x", slog.LevelInfo, "", "2026-11-23 12:14:03.518236: X a.cc:1] x"},
		{"no line number", "2026-11-23 12:14:03.518236: I a.cc:] x", slog.LevelInfo, "", "2026-11-23 12:14:03.518236: I a.cc:] x"},
		{"empty", "", slog.LevelInfo, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			level, source, msg := ParseLog(c.line)
			if level != c.level || source != c.source || msg != c.msg {
				t.Errorf("got %v %q %q", level, source, msg)
			}
		})
	}
}

func FuzzParseLog(f *testing.F) {
	f.Add("2026-11-23 12:14:03.518236: I a.cc:1] x")
	f.Add("I0000 00:00:1763899023.266776    4242 a.cc:1] x")
	f.Add("WARNING: All log messages before absl::InitializeLog() is called")
	f.Add("] ")
	f.Fuzz(func(t *testing.T, line string) {
		_, source, msg := ParseLog(line)
		if !strings.Contains(line, msg) || source != "absl" && !strings.Contains(line, source) {
			t.Errorf("%q has no %q or no %q", line, source, msg)
		}
	})
}
