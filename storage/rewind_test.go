// rewind_test.go: a snapshot of a queue in use, and an earlier one that is gone back to.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// save writes a snapshot to a path.
func save(t *testing.T, f *os.File, err error, to string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotOfState(t *testing.T) {
	dir := t.TempDir()
	path, to := filepath.Join(dir, "state.db"), filepath.Join(dir, "copy.db")
	db := open(t, path)
	record(t, db, "m", "one", "a")
	f, err := db.Snapshot(dir)
	save(t, f, err, to)
	record(t, db, "m", "two", "b")
	if err := CheckState(to, ""); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, to), "m", "one", "a")
	if _, err := SnapshotFile(path, dir); !errors.Is(err, ErrLocked) {
		t.Fatalf("of a file in use: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	f, err = SnapshotFile(path, dir)
	save(t, f, err, to+"2")
	want(t, open(t, to+"2"), "m", "two", "b", "a")
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("%v is left, %v", entries, err)
	}
}

func TestCheckStateRefusesDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(path, make([]byte, 1<<15), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := CheckState(path, ""); !errors.Is(err, errDamaged) {
		t.Fatal(err)
	}
}

// A snapshot that is taken while jobs come and go is whole, and has every job that was acknowledged before.
func TestSnapshotOfAQueueInUse(t *testing.T) {
	dir := t.TempDir()
	q := openQueue(t, filepath.Join(dir, "queue.db"), QueueOptions{})
	ctx, stop := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	for range 3 {
		busy.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				it, _, err := q.Append(ctx, job("m"), make([]byte, 5000))
				if err != nil {
					return
				}
				if i%2 == 0 {
					_, _ = q.Cancel(ctx, it.ID, epoch)
					_ = q.Delete(ctx, it.ID)
				}
			}
		})
	}
	defer busy.Wait()
	defer stop()
	for i := range 5 {
		mine := add(t, q, job("n"), fmt.Sprint(i))
		f, err := q.Snapshot(t.Context(), dir)
		to := filepath.Join(dir, fmt.Sprint(i))
		save(t, f, err, to)
		copied := openQueue(t, to, QueueOptions{ReadOnly: true})
		if payload, _, err := copied.Payload(mine.ID); err != nil || string(payload) != fmt.Sprint(i) {
			t.Fatalf("%q, %v", payload, err)
		}
	}
}

func ends(t *testing.T, q *Queue, id, result string) {
	t.Helper()
	if _, err := q.Finish(t.Context(), id, Outcome{State: Done, Result: []byte(result), Version: 3, At: epoch}); err != nil {
		t.Fatal(err)
	}
}

// What a client has been answered since the snapshot is not answered another time, and what it has not been is.
func TestRewind(t *testing.T) {
	ctx := t.Context()
	dir := t.TempDir()
	present, old := filepath.Join(dir, "queue.db"), filepath.Join(dir, "old.db")
	q, err := OpenQueue(present, QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const session = "0123456789abcdef"
	if err := q.NewSession(ctx, session, epoch); err != nil {
		t.Fatal(err)
	}
	streamed := job("m")
	streamed.Session, streamed.Ref = session, "r"
	laned := job("m")
	laned.Lane = "lane"
	kept := map[string]Item{}
	for _, name := range []string{"acked", "done", "failed", "running", "waiting", "fetched", "first", "second"} {
		it := job("m")
		if name == "first" || name == "second" {
			it = laned
		}
		kept[name] = add(t, q, it, name)
	}
	sent := add(t, q, streamed, "streamed")
	lease(t, q, "m", 9)
	ends(t, q, kept["fetched"].ID, "result of fetched")
	f, err := q.Snapshot(ctx, dir)
	save(t, f, err, old)

	// Since then.
	ends(t, q, kept["acked"].ID, "x")
	ends(t, q, kept["done"].ID, "result of done")
	ends(t, q, sent.ID, "streamed")
	ends(t, q, kept["first"].ID, "first")
	if err := errors.Join(q.Delete(ctx, kept["acked"].ID), q.Delete(ctx, kept["fetched"].ID), q.Ack(ctx, session, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Finish(ctx, kept["failed"].ID, Outcome{State: Failed, Code: 3, Reason: "input", Error: "wrong", At: epoch}); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Release(ctx, kept["waiting"].ID, Back{}); err != nil {
		t.Fatal(err)
	}
	later := add(t, q, job("m"), "later")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}

	r, err := Rewind(ctx, old, present, QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Rewound{Waiting: 3, Finished: 3, Compared: true, Answered: 3, Gone: 3, Later: 1, Sessions: 1}); r != want {
		t.Errorf("%+v", r)
	}
	now := openQueue(t, old, QueueOptions{})
	for name, want := range map[string]JobState{"done": Done, "failed": Failed, "running": Queued, "waiting": Queued, "first": Done, "second": Queued} {
		if it, err := now.Get(kept[name].ID); err != nil || it.State != want {
			t.Errorf("%s is %v, %v", name, it.State, err)
		}
	}
	for _, id := range []string{kept["acked"].ID, kept["fetched"].ID, sent.ID, later.ID} {
		if _, err := now.Get(id); !errors.Is(err, ErrNoJob) {
			t.Errorf("%s: %v", id, err)
		}
	}
	if result, it, err := now.Result(kept["done"].ID); err != nil || string(result) != "result of done" || it.AnsweredBy != 3 {
		t.Errorf("%q, %+v, %v", result, it, err)
	}
	if _, err := now.Session(session); !errors.Is(err, ErrNoSession) {
		t.Error(err)
	}
	got := map[string]bool{}
	for _, l := range lease(t, now, "m", 10) {
		got[string(l.Payload)] = true
	}
	if len(got) != 3 || !got["running"] || !got["waiting"] || !got["second"] {
		t.Errorf("%v run again", got)
	}
	if it := add(t, now, job("m"), "new"); it.Seq <= later.Seq {
		t.Errorf("number %d is given again", it.Seq)
	}

	// It is a file of its own from then on.
	other := filepath.Join(dir, "other.db")
	if q, err = OpenQueue(other, QueueOptions{}); err != nil {
		t.Fatal(err)
	}
	mine := add(t, q, job("m"), "mine")
	f, err = q.Snapshot(ctx, dir)
	save(t, f, err, other+".old")
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	for _, present := range []string{present, filepath.Join(dir, "nothing.db")} {
		if r, err = Rewind(ctx, other+".old", present, QueueOptions{}); err != nil || r.Compared || r.Why == "" || r.Waiting != 1 {
			t.Errorf("beside %s: %+v, %v", present, r, err)
		}
	}
	if r, err = Rewind(ctx, other+".old", other, QueueOptions{}); err != nil || r.Compared {
		t.Errorf("a file that was rewound is another: %+v, %v", r, err)
	}
	if it, err := openQueue(t, other+".old", QueueOptions{}).Get(mine.ID); err != nil || it.State != Queued {
		t.Errorf("%+v, %v", it, err)
	}
}

func TestRewindRefusesDamage(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "queue.db")
	if err := os.WriteFile(path, make([]byte, 1<<16), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Rewind(t.Context(), path, filepath.Join(dir, "none.db"), QueueOptions{}); !errors.Is(err, errDamaged) {
		t.Fatal(err)
	}
}
