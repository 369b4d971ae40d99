// lesson_test.go: what was found bad as it served stays away, whatever else arrives or is set.
package updater

import (
	"testing"
	"time"
)

// A higher version that fails on probation gives way to what served, not to the version that an operator rolled back from.
func TestRollbackOutlivesAFailedTrial(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		w.ask(w.c.Rollback(w.t.Context(), "m", "me"))
		w.pass(5 * time.Second)
		w.wantLive(1)
		put(t, b.sub("3"), "")
		w.pass(4 * time.Second)
		w.wantLive(3, 1)
		w.counts(3, Measures{Requests: 50, Checked: 50, NaN: 30})
		w.pass(10 * time.Second)
		w.wantLive(1)
		if w.loadCount("2") != 1 {
			t.Fatal("the version that was rolled back from was loaded again")
		}
		put(t, b.sub("4"), "")
		w.pass(4 * time.Second)
		w.wantLive(4, 1)
		w.pass(70 * time.Second)
		w.wantLive(4)
		if text := w.model().Intent; text != "" {
			t.Fatalf("a version has proven itself since, and the model is still %s", text)
		}
	})
}

// A version that was bad on real traffic is not tried again because a setting changed, at a restart or while it runs.
func TestCondemnedOutlivesTheConfiguration(t *testing.T) {
	b := newBox(t)
	lenient := func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].AllowNaN, o.Models[0].Probation.NaN = true, 1
	}
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 30})
		w.pass(2 * time.Second)
		w.wantLive(1)
	})
	b.run(lenient, func(w *world) {
		w.pass(10 * time.Second)
		w.wantLive(1)
		models := []Model{{Name: "m", BasePath: b.dir}}
		if err := w.c.Reconfigure(models); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Second)
		w.wantLive(1)
		if w.loadCount("2") != 0 {
			t.Fatal("it was loaded again")
		}
		w.ask(w.c.Retry(w.t.Context(), "m", 2, "me"))
		w.pass(5 * time.Second)
		w.wantLive(2)
	})
}
