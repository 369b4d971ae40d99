// status_test.go: what of the status is shown, and how.
package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/control"
)

func TestSaidBy(t *testing.T) {
	refused := control.Condition{Code: "version_refused", Severity: "warning", Model: "m", Message: "model m version 1 refused: why"}
	for _, c := range []struct {
		severity string // of the condition that the model has nothing live
		want     []string
	}{
		{"info", []string{"version_refused"}},
		{"unready", []string{"no_live_version"}},
	} {
		none := control.Condition{Code: "no_live_version", Severity: c.severity, Model: "m", Message: "model m has no version that answers: " + refused.Message}
		other := refused
		other.Model = "n"
		all := []control.Condition{refused, none}
		var shown []string
		for _, x := range all {
			if !saidBy(x, all) {
				shown = append(shown, x.Code)
			}
		}
		if !slices.Equal(shown, c.want) {
			t.Errorf("%s: %v, want %v", c.severity, shown, c.want)
		}
		if saidBy(other, []control.Condition{other, none}) {
			t.Error("another model's condition was left out")
		}
	}
}

func TestAgo(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", 93 * time.Second: "1m33s", 25 * time.Minute: "25m", 3 * time.Hour: "3h0m"} {
		if got := ago(time.Now().Add(-d)); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestModelsTable(t *testing.T) {
	var b bytes.Buffer
	now := time.Now()
	modelsTable(&b, []control.Model{
		{Name: "good", Versions: []control.Version{{Number: 2, State: "AVAILABLE", Stage: "live", Since: now, Worker: &control.Worker{PID: 7, State: "live", PrivateBytes: 12_340_000}}}},
		{Name: "fast", Versions: []control.Version{{Number: 1, State: "AVAILABLE", Stage: "live", Since: now, Worker: &control.Worker{PID: 8, State: "live", Device: "0"}}}},
		{Name: "down", Versions: []control.Version{{Number: 1, State: "AVAILABLE", Stage: "live", Since: now, Worker: &control.Worker{State: "restarting", Restarts: 2, LastDeath: "signal: killed"}}}},
		{Name: "bad", Versions: []control.Version{{Number: 1, State: "END", Stage: "quarantined", Since: now, Message: "model bad version 1 refused: " + strings.Repeat("long ", 100)}}},
		{Name: "said", Versions: []control.Version{{Number: 1, State: "END", Stage: "quarantined", Since: now, Message: "model said version 1 refused: " + strings.Repeat("said ", 50)}}},
		{Name: "empty", Problem: "holds no\nversion"},
	}, []control.Condition{{Message: "model said version 1 refused: " + strings.Repeat("said ", 50)}})
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(lines) != 9 {
		t.Fatalf("%d lines:\n%s", len(lines), &b)
	}
	for i, want := range [][]string{
		{"MODEL", "VERSION", "STATE", "FOR", "WORKER", "MEMORY", "NOTE"},
		{"good", "2", "AVAILABLE", "0s", "7", "12.3", "MB", "-"},
		{"fast", "1", "AVAILABLE", "0s", "8", "on", "GPU", "0", "0.0", "MB", "-"},
		{"down", "1", "AVAILABLE", "0s", "restarting", "-", "restarted", "2", "times,", "last:"},
		{"bad", "1", "END", "(quarantined)", "0s", "-", "-", "long"},
		{"said", "1", "END", "(quarantined)", "0s", "-", "-", "said"},
		{"empty", "-", "-", "-", "-", "-", "holds", "no", "version"},
		strings.Fields("down version 1: restarted 2 times, last: signal: killed"),
		strings.Fields("bad version 1: " + strings.Repeat("long ", 100)), // whole below the table; the other one is among the conditions
	} {
		if got := strings.Fields(lines[i]); len(got) < len(want) || !slices.Equal(got[:len(want)], want) {
			t.Errorf("line %d is %q, want %q", i, got, want)
		}
		if len(lines[i]) > 100 && i < 7 {
			t.Errorf("line %d is %d wide", i, len(lines[i]))
		}
	}
	at := strings.Index(lines[0], "NOTE")
	if lines[1][at] != '-' || lines[6][at] != 'h' {
		t.Errorf("the columns do not stand under each other:\n%s", &b)
	}
}
