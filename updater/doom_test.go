// doom_test.go: live versions that are found bad.
package updater

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

func (w *world) condemn(number int64) {
	w.t.Helper()
	w.ask(w.c.wish(w.t.Context(), "m", func(l *loop, m *model) (string, error) {
		l.condemn(m, m.serving(number), inference.DataLoss, "scripted", "publish another")
		return "condemned", nil
	}))
}

// A condemned version gives way to the one before it, without a gap, and stays refused over a restart.
func TestCondemnedGivesWay(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
		w.condemn(2)
		w.pass(5 * time.Second)
		w.wantLive(1)
		all := w.wantPublic("2 END DATA_LOSS, 1 AVAILABLE")
		if !strings.Contains(all[0].Message, "scripted") || !strings.Contains(all[0].Message, "still serving version 1") {
			t.Fatal(all[0].Message)
		}
		if !slices.Contains(w.events(), "condemned 2") {
			t.Fatal(w.events())
		}
	})
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if w.loadCount("2") != 0 {
			t.Fatal("a condemned version was loaded again after a restart")
		}
		w.ask(w.c.Retry(w.t.Context(), "m", 2, ""))
		w.pass(5 * time.Second)
		w.wantLive(2)
	})
}

// Where nothing can take its place, a condemned version goes on serving.
func TestCondemnedWithoutAnother(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("2"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.condemn(2)
		w.pass(5 * time.Second)
		w.wantLive(2)
		put(t, b.sub("1"), "")
		w.pass(5 * time.Second)
		w.wantLive(1)
		w.wantPublic("2 END DATA_LOSS, 1 AVAILABLE")
	})
}
