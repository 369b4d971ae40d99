// apply_test.go: settings that change while the controller runs.
package updater

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// TestApply: times count from then on, found models take their settings anew, and one that is no longer listed but lies in the models
// directory never stops to answer.
func TestApply(t *testing.T) {
	deadline := time.Second
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		o.ModelsDir = filepath.Dir(w.dir)
		put(t, filepath.Join(o.ModelsDir, "found", "1"), "")
		o.Discovered = func(m *Model) { m.DefaultDeadline, m.Settings = deadline, deadline }
	}, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if err := w.c.Apply(t.Context(), Settings{Models: []Model{{Name: "x"}}}); err == nil {
			t.Fatal("a model without a base path is taken")
		}
		deadline = 2 * time.Second // the loop is idle, and the call below is after it
		if err := w.c.Apply(t.Context(), Settings{PollInterval: time.Hour, SettleTime: time.Minute}); err != nil {
			t.Fatal(err)
		}
		m := w.model()
		if m.Configured || m.Removed {
			t.Fatalf("%+v", m)
		}
		w.wantLive(1)
		if n := w.loadCount("1"); n != 2 { // m's and found's
			t.Fatalf("%d loads", n)
		}
		put(t, filepath.Join(filepath.Dir(w.dir), "found", "2"), "")
		w.c.Rescan()
		w.pass(50 * time.Second)
		if f, _ := w.c.Status().Model("found"); !slices.Equal(f.Live, []int64{1}) {
			t.Fatalf("loaded before it has settled by the new time: %+v", f)
		}
		w.pass(time.Minute)
		f, _ := w.c.Status().Model("found")
		if !slices.Equal(f.Live, []int64{2}) {
			t.Fatalf("%+v", f)
		}
		// Listed again, under another name's settings: still the same process.
		if err := w.c.Apply(t.Context(), Settings{Models: []Model{{Name: "m", BasePath: w.dir, Policy: Policy{All: true}}}, PollInterval: time.Second}); err != nil {
			t.Fatal(err)
		}
		if m := w.model(); !m.Configured || m.Policy != "all" || w.loadCount("1") != 2 {
			t.Fatalf("%+v", m)
		}
		// Unlisted and its folder gone: then it goes.
		if err := w.c.Apply(t.Context(), Settings{PollInterval: time.Second}); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		if m := w.model(); !m.Removed || len(m.Live) != 0 {
			t.Fatalf("%+v", m)
		}
	})
}

// TestApplyEnds: a caller who has gone, or a controller that stops, changes nothing.
func TestApplyEnds(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		c, err := New(w.catalog, w.c.opts) // nobody runs it
		if err != nil {
			t.Fatal(err)
		}
		gone, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := c.Apply(gone, Settings{}); !errors.Is(err, context.DeadlineExceeded) || len(c.takeAsk().applies) != 0 {
			t.Fatalf("%v, and it is still asked for", err)
		}
	})
}

// TestDeciding: until a version that is wanted has come or cannot come.
func TestDeciding(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "slow") }, func(t *testing.T, w *world) {
		want := func(deciding bool, live ...int64) {
			t.Helper()
			if m := w.model(); m.Deciding != deciding || !slices.Equal(m.Live, live) {
				t.Fatalf("deciding %v, live %v; want %v, %v: %+v", m.Deciding, m.Live, deciding, live, m)
			}
		}
		apply := func(m Model) {
			t.Helper()
			m.Name = "m"
			if err := w.c.Apply(t.Context(), Settings{Models: []Model{m}}); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(5 * time.Second)
		want(true) // loading
		close(w.gate)
		w.pass(5 * time.Second)
		want(false, 1)

		other := filepath.Join(filepath.Dir(w.dir), "other")
		if err := os.Mkdir(other, 0o755); err != nil {
			t.Fatal(err)
		}
		w.gate = make(chan struct{})
		put(t, filepath.Join(other, "7"), "slow")
		w.pass(time.Hour) // it has settled
		apply(Model{BasePath: other})
		want(true, 1)
		w.pass(5 * time.Second)
		want(true, 1)
		close(w.gate)
		w.pass(5 * time.Second)
		want(false, 7)

		apply(Model{BasePath: filepath.Join(other, "missing")})
		w.pass(5 * time.Second)
		want(false, 7) // it has been looked for

		put(t, filepath.Join(other, "8"), "load INVALID_ARGUMENT")
		apply(Model{BasePath: other, Policy: Policy{Specific: []int64{7, 8, 9}}})
		w.pass(5 * time.Second)
		want(false, 7)
	})
}
