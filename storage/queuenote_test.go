// queuenote_test.go: what is noted beside the jobs survives, and damage of it is no more than its absence.
package storage

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
)

func TestNote(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	open := func() *Queue {
		q, err := OpenQueue(path, QueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.Close() })
		return q
	}
	want := func(q *Queue, want string) {
		t.Helper()
		if got, err := q.Note("clock"); err != nil || string(got) != want {
			t.Errorf("note %q, %v; want %q", got, err, want)
		}
	}
	q := open()
	want(q, "")
	for _, value := range []string{"first", "second"} {
		if err := q.SetNote(t.Context(), "clock", []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	if err := q.SetNote(t.Context(), "clock", []byte(strings.Repeat("x", maxNote+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a note over the limit: %v", err)
	}
	want(q, "second")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	q = open()
	want(q, "second")
	if err := q.alone(t.Context(), func() {
		if _, err := q.transact(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(noteKey("clock"), []byte("second")) }); err != nil {
			t.Error(err)
		}
	}); err != nil {
		t.Fatal(err)
	}
	want(q, "")
}
