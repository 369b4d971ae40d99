// e2e_restart_test.go: an appliance that is stopped and started again on the same directories: what served, what was refused, what an operator wanted.
package appliance

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func TestRestartRemembers(t *testing.T) {
	lib := library(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = lib })
	first := run(t, cfg)
	first.publish("m", 1, modeltest.Affine(0, 1))
	first.live("m", 1)
	folder := first.publish("m", 2, modeltest.Affine(0, 2))
	first.live("m", 2)
	if _, err := New(cfg, Options{}); err != nil { // building one opens nothing
		t.Fatal(err)
	}
	c := control.Dial(cfg.Listen.Control)
	defer c.Close()
	text, err := c.Verb(t.Context(), "rollback", "m", 0)
	if err != nil || !strings.Contains(text, "from version 2 to version 1") {
		t.Fatal(text, err)
	}
	first.live("m", 1)
	first.staged("m", 2, "retired", "rolled back to version 1 by")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := run(t, cfg)
	second.live("m", 1)
	second.ask("m", []float32{5}, []float32{1})
	if _, err := c.Verb(t.Context(), "retry", "m", 2); err != nil {
		t.Fatal(err)
	}
	second.live("m", 2)
	events, err := c.History(t.Context(), "m", 1000)
	if err != nil || len(events) < 8 {
		t.Fatalf("%d events, %v", len(events), err)
	}
	second.until("version 1 unloaded", func(st *control.Status) bool { v := version(st, "m", 1); return v == nil || v.Stage == "retired" })
	second.until("version 2 kept", func(st *control.Status) bool { return version(st, "m", 2).KeptCopy != "" })
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}

	// Cut back while nothing ran: the copy of it that is kept serves.
	path := filepath.Join(folder, "saved_model.pb")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-3); err != nil {
		t.Fatal(err)
	}
	third := run(t, cfg)
	third.live("m", 2)
	third.ask("m", []float32{5}, []float32{2})
	third.staged("m", 2, "live", "served from the kept copy", "does not hold what was good")
	if err := third.stop(); err != nil {
		t.Fatal(err)
	}

	// Nor is that of any use: the version before serves.
	copies, err := filepath.Glob(filepath.Join(cfg.StateDir, keptDir, "m", "2-*", "saved_model.pb"))
	if err != nil || len(copies) != 1 {
		t.Fatal(copies, err)
	}
	if err := os.Truncate(copies[0], 10); err != nil {
		t.Fatal(err)
	}
	fourth := run(t, cfg)
	fourth.live("m", 1)
	fourth.staged("m", 2, "quarantined", "saved_model.pb has")
}

// A worker that dies after its version's files were written over is started again from the kept copy, and a start after the folder
// was removed with it: the answers stay what they were.
func TestKeptCopyServes(t *testing.T) {
	lib := library(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library = lib })
	first := run(t, cfg)
	folder := first.publish("m", 1, modeltest.HalfPlusTwo())
	first.live("m", 1)
	st := first.until("version 1 kept", func(st *control.Status) bool { v := version(st, "m", 1); return v != nil && v.KeptCopy != "" })
	other := t.TempDir()
	if err := modeltest.Affine(0, 7).Save(other); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"saved_model.pb", shardFile, indexFile} { // in place, as cp does
		data, err := os.ReadFile(filepath.Join(other, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pid := version(st, "m", 1).Worker.PID
	kill(t, pid, syscall.SIGKILL)
	first.until("a new worker", func(st *control.Status) bool {
		v := version(st, "m", 1)
		return v != nil && v.Worker != nil && v.Worker.PID != 0 && v.Worker.PID != pid
	})
	first.ask("m", []float32{1}, []float32{2.5})
	first.staged("m", 1, "live", "started again from the kept copy")
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(filepath.Dir(folder), "2"), 0o755); err != nil { // a copy that has begun
		t.Fatal(err)
	}
	second := run(t, cfg)
	second.live("m", 1)
	second.ask("m", []float32{1}, []float32{2.5})
}

// A second inferd on the same state says so and ends; one whose state cannot be kept serves all the same.
func TestStateFileTaken(t *testing.T) {
	cfg := testConfig(t, nil)
	run(t, cfg)
	other := *cfg
	other.Listen.Control = filepath.Join(filepath.Dir(cfg.StateDir), "other.sock")
	a, err := New(&other, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another process has it open") {
		t.Fatal(err)
	}
	third := testConfig(t, func(cfg *config.Config) { cfg.StateDir = filepath.Join(cfg.StateDir, "x") })
	if err := os.WriteFile(filepath.Dir(third.StateDir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, third).until("the condition", func(st *control.Status) bool {
		for _, c := range st.Conditions {
			if c.Code == "journal" {
				return true
			}
		}
		return false
	})
}
