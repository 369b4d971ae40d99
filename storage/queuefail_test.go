// queuefail_test.go: commits that fail, and a file that cannot be read.
package storage

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// failing is a queue whose next commits find their descriptor closed, as many as fail says.
func failing(t *testing.T, path string) (q *Queue, fail *int) {
	t.Helper()
	fail = new(int)
	o := QueueOptions{Step: func(point string) {
		if point == "commit" && *fail > 0 { // on the writer; the test waits for its answer before it looks
			*fail--
			_ = q.file.Close()
		}
	}}
	q = openQueue(t, path, o)
	return q, fail
}

func TestFailedCommit(t *testing.T) {
	ctx := context.Background()
	q, fail := failing(t, filepath.Join(t.TempDir(), "queue.db"))
	kept := add(t, q, job("m"), "kept")
	lease(t, q, "m", 1)
	*fail = 1
	if _, _, err := q.Append(ctx, job("m"), []byte("x")); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	if q.Degraded() {
		t.Fatal("degraded after one failure")
	}
	// The lease of before is still this process's, and nothing of the failed one is there.
	if it, err := q.Get(kept.ID); err != nil || it.State != Leased || it.Interruptions != 0 {
		t.Fatalf("%+v %v", it, err)
	}
	clean(t, q)
	// A lease that failed is nobody's.
	other := add(t, q, job("m"), "other")
	*fail = 1
	if _, err := q.Lease(ctx, "m", 1, 1<<20, time.Time{}); !errors.Is(err, ErrNotStored) {
		t.Fatal(err)
	}
	if l := lease(t, q, "m", 5); len(l) != 1 || l[0].ID != other.ID {
		t.Fatalf("%+v", l)
	}
	finish(t, q, kept.ID, "r")
	if q.Stats().Queued != 0 {
		t.Fatalf("%+v", q.Stats())
	}
}

func TestDegraded(t *testing.T) {
	ctx := context.Background()
	q, fail := failing(t, filepath.Join(t.TempDir(), "queue.db"))
	kept := add(t, q, job("m"), "kept")
	*fail = 2
	for range 2 {
		if _, _, err := q.Append(ctx, job("m"), nil); !errors.Is(err, ErrNotStored) {
			t.Fatal(err)
		}
	}
	if !q.Degraded() {
		t.Fatal("not degraded after two failures")
	}
	q.probed = time.Now() // the writer waits for work
	if _, _, err := q.Append(ctx, job("m"), nil); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	if it, err := q.Get(kept.ID); err != nil || it.State != Queued {
		t.Fatal(it, err)
	}
	q.probed = time.Time{}
	if _, _, err := q.Append(ctx, job("m"), nil); err != nil {
		t.Fatal(err)
	}
	if q.Degraded() {
		t.Fatal("degraded after a good write")
	}
}

// TestQueueDamagedFile: what cannot be read is moved aside, at a start and in use, and never over an earlier one.
func TestQueueDamagedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	for i, damage := range []func(){
		func() { _ = os.Truncate(path, 5000) },
		func() { _ = os.WriteFile(path, noise(1<<20), 0o600) },
		func() { _ = os.Truncate(path, 0); _ = os.Truncate(path, 65536) },
	} {
		q, err := OpenQueue(path, QueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		add(t, q, job("m"), string(noise(50_000)))
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
		damage()
		q, err = OpenQueue(path, QueueOptions{})
		if err != nil {
			t.Fatal(err)
		}
		want := path + ".damaged" + []string{"", "-2", "-3"}[i]
		if q.Damaged() != want || q.Stats().Queued != 0 {
			t.Fatal(q.Damaged(), q.Stats())
		}
		if _, err := os.Stat(want); err != nil {
			t.Fatal(err)
		}
		clean(t, q)
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestQueueCutUnderneath: a file that loses its pages while it is open faults under the mapping, for a reader and for the writer.
func TestQueueCutUnderneath(t *testing.T) {
	for name, use := range map[string]func(q *Queue, id string) error{
		"reader": func(q *Queue, id string) error { _, _, err := q.Payload(id); return err },
		"writer": func(q *Queue, id string) error {
			_, err := q.Cancel(context.Background(), id, epoch)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			q := openQueue(t, path, QueueOptions{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
			it := add(t, q, job("m"), string(noise(200_000)))
			if err := os.Truncate(path, 8192); err != nil {
				t.Fatal(err)
			}
			if err := use(q, it.ID); err == nil {
				t.Fatal("a page that is not there was read")
			}
			if q.Damaged() == "" {
				t.Fatal("the file was not moved aside")
			}
			if _, err := q.Get(it.ID); !errors.Is(err, ErrNoJob) {
				t.Fatal(err)
			}
			add(t, q, job("m"), "goes on")
		})
	}
}

func TestQueueNewer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	old := queueMigrations
	queueMigrations = append(append(old[:0:0], old...), old...)
	q, err := OpenQueue(path, QueueOptions{})
	queueMigrations = old
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenQueue(path, QueueOptions{}); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
}
