// rollback_test.go: rollbacks that the end of inferd interrupts.
package updater

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/storage"
)

// leaveRollback makes a state in which version 2 serves, is to give way to version 1, and inferd ended before that one served.
func (b *box) leaveRollback() {
	b.t.Helper()
	put(b.t, b.sub("1"), "")
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		put(b.t, b.sub("2"), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
	})
	db, err := storage.Open(b.state, storage.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	j := db.State()
	l := &loop{o: Options{Journal: j}, records: make(map[string]*chronicle)}
	l.recall()
	r := l.records["m"]
	r.Back = &back{From: 2, To: 1, Print: r.good(2).Print}
	if err := j.Record("m", encode(r), encode(Event{What: "rolled back", Version: 2})); err != nil {
		b.t.Fatal(err)
	}
	if err := CheckJournal(j); err != nil {
		b.t.Fatal(err)
	}
}

// The version that is being left does not hold up the one that is gone back to.
func TestRollbackInterrupted(t *testing.T) {
	b := newBox(t)
	b.leaveRollback()
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if w.loadCount("2") != 0 {
			t.Fatal("what was rolled back was loaded")
		}
	})
}

// Where the one to go back to cannot be loaded any more, the other one serves again rather than none.
func TestRollbackInterruptedAndFails(t *testing.T) {
	b := newBox(t)
	b.leaveRollback()
	if err := os.WriteFile(filepath.Join(b.sub("1"), "saved_model.pb"), []byte("die"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.run(nil, func(w *world) {
		w.pass(10 * time.Second)
		w.wantLive(2)
		if m := w.model(); m.Intent != "" || !strings.Contains(strings.Join(w.events(), " "), "rollback failed 2") {
			t.Fatalf("%q %v", m.Intent, w.events())
		}
	})
}
