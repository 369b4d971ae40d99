// review_test.go: where the parts of an update meet: verdicts, seals, pins and trials that a restart interrupted.
package updater

import (
	"os"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// condemned is the model m, whose live version was found bad with nothing to take its place.
func (w *world) condemned(number int64) *model {
	w.t.Helper()
	var m *model
	w.ask(w.c.wish(w.t.Context(), "m", func(l *loop, of *model) (string, error) {
		m = of
		l.condemn(of, of.serving(number), inference.DataLoss, "the test says so", "none")
		return "", nil
	}))
	w.pass(time.Second)
	return m
}

// A trial that a restart interrupted ends where the policy wants its version no more: newer ones do not wait for it for ever.
func TestTrialEndsWithItsPolicy(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) { w.on(b.sub) })
	put(t, b.sub("3"), "")
	b.run(func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Policy = Policy{Specific: []int64{1, 3}}
	}, func(w *world) {
		w.pass(10 * time.Minute)
		w.wantLive(3, 1)
	})
}

// A version that was found bad and serves still is not pinned; pardoned it is good again.
func TestCondemnedAndPardoned(t *testing.T) {
	b := newBox(t)
	b.run(nil, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(5 * time.Second)
		m := w.condemned(1)
		if text, err := w.c.Pin(w.t.Context(), "m", 1, "me"); err == nil {
			t.Errorf("it was pinned: %s", text)
		}
		w.ask(w.c.Retry(w.t.Context(), "m", 1, "me"))
		w.pass(5 * time.Second)
		w.wantLive(1)
		if m.rec.good(1) == nil {
			t.Errorf("it is not good again: %v", w.events())
		}
		w.ask(w.c.Pin(w.t.Context(), "m", 1, "me"))
	})
}

// What is found bad while it is being summed up does not count as good.
func TestCondemnedIsNotSealed(t *testing.T) {
	b := newBox(t)
	var gate chan struct{}
	b.run(func(w *world, _ *Options) {
		gate = make(chan struct{})
		w.tweak = func(c *Controller) { c.sync = func(*os.File) error { <-gate; return nil } }
	}, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(5 * time.Second)
		m := w.condemned(1)
		close(gate)
		w.pass(5 * time.Second)
		if m.rec.good(1) != nil {
			t.Errorf("it counts as good: %v", w.events())
		}
	})
}
