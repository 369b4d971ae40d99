// unload_test.go: a model that an operator unloads as a whole and loads again.
package updater

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestUnloadAndLoad(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	put(t, b.sub("2"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(2)
		ctx := w.t.Context()
		for _, step := range []struct {
			got, want string
		}{
			{said(w.c.Unload(ctx, "n", "ann")), `NOT_FOUND no model is called "n"`},
			{said(w.c.Load(ctx, "n", "ann")), `NOT_FOUND no model is called "n"`},
			{said(w.c.Load(ctx, "m", "ann")), "model m is loaded as its policy says: latest 1"}, // it is
			{said(w.c.Unload(ctx, "m", "ann")), "model m is unloaded until `inferd models load m`"},
			{said(w.c.Unload(ctx, "m", "bob")), "model m is unloaded already, by ann"},
		} {
			if step.got != step.want {
				t.Errorf("%s\nwant %s", step.got, step.want)
			}
		}
		if w.catalog.Available("m") {
			t.Error("it answers when Unload has returned")
		}
		put(t, b.sub("3"), "") // what comes meanwhile is left alone
		w.pass(10 * time.Second)
		w.wantLive()
		if m := w.model(); !m.Unloaded || m.Intent != "unloaded by ann" || !m.Verdict || m.Deciding || w.loadCount("3") != 0 {
			t.Errorf("%+v; version 3 was loaded %d times", m, w.loadCount("3"))
		}
	})
	b.run(nil, func(w *world) { // over a restart
		w.pass(10 * time.Second)
		w.wantLive()
		if m := w.model(); !m.Unloaded || !m.Verdict {
			t.Errorf("%+v", m)
		}
		if got := said(w.c.Load(w.t.Context(), "m", "bob")); got != "model m is loaded as its policy says: latest 1" {
			t.Error(got)
		}
		w.wantLive(3) // when Load has returned
		if m := w.model(); m.Unloaded || m.Intent != "" {
			t.Errorf("%+v", m)
		}
		if got := said(w.c.Unload(w.t.Context(), "m", "ann")); !strings.HasPrefix(got, "model m is unloaded until") {
			t.Error(got)
		}
		w.pass(time.Second)
		w.ask(w.c.Pin(w.t.Context(), "m", 1, "ann")) // a pin loads too
		w.pass(5 * time.Second)
		w.wantLive(1)
		if m := w.model(); m.Unloaded {
			t.Errorf("%+v", m)
		}
	})
}

func TestLoadTellsWhatFails(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "load INVALID_ARGUMENT")
	b.run(nil, func(w *world) {
		w.pass(10 * time.Second)
		if got := said(w.c.Load(w.t.Context(), "m", "ann")); !strings.HasPrefix(got, "FAILED_PRECONDITION model m version 1 refused: ") || w.loadCount("1") != 2 {
			t.Errorf("%s; it was loaded %d times", got, w.loadCount("1"))
		}
		put(t, b.sub("1"), "slow")
		w.pass(5 * time.Second)
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		_, err := w.c.Load(ctx, "m", "ann")
		if got := said("", err); got != "DEADLINE_EXCEEDED model m is not loaded in time; that goes on, and its status tells how far it is" || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s", got)
		}
		w.ask(w.c.Unload(w.t.Context(), "m", "ann")) // the load is called off
		w.pass(time.Second)
		close(w.gate)
		w.pass(10 * time.Second)
		w.wantLive()
	})
	empty := newBox(t)
	empty.run(nil, func(w *world) {
		w.pass(10 * time.Second)
		if got := said(w.c.Load(w.t.Context(), "m", "ann")); !strings.HasPrefix(got, "FAILED_PRECONDITION model m has nothing to load: ") {
			t.Error(got)
		}
	})
}
