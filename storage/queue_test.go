// queue_test.go: the queue as its callers see it.
package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// openQueue opens a queue in a directory of the test's, and checks it at the end.
func openQueue(t testing.TB, path string, o QueueOptions) *Queue {
	t.Helper()
	if path == "" {
		path = filepath.Join(t.TempDir(), "queue.db")
	}
	q, err := OpenQueue(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		clean(t, q)
		if err := q.Close(); err != nil {
			t.Error(err)
		}
	})
	return q
}

func clean(t testing.TB, q *Queue) Report {
	t.Helper()
	r, err := q.Check(context.Background())
	if err != nil && !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	for _, f := range r.Faults {
		t.Errorf("check: %s", f)
	}
	return r
}

var epoch = time.Unix(1_700_000_000, 0)

func job(model string) Item { return Item{Model: model, Kind: 1, Class: 2, Submitted: epoch} }

// noise does not pack.
func noise(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

func add(t testing.TB, q *Queue, it Item, payload string) Item {
	t.Helper()
	stored, existed, err := q.Append(context.Background(), it, []byte(payload))
	if err != nil || existed {
		t.Fatal(existed, err)
	}
	return stored
}

func lease(t testing.TB, q *Queue, model string, n int) []Lease {
	t.Helper()
	l, err := q.Lease(context.Background(), model, n, 1<<30, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func finish(t testing.TB, q *Queue, id string, result string) Item {
	t.Helper()
	it, err := q.Finish(context.Background(), id, Outcome{State: Done, Result: []byte(result), Version: 3, At: epoch.Add(time.Minute)})
	if err != nil {
		t.Fatal(err)
	}
	return it
}

func TestQueueOfOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "queue.db")
	q := openQueue(t, path, QueueOptions{})
	ctx := context.Background()
	large := string(bytes.Repeat([]byte("0123456789abcdef"), 20_000))
	it := add(t, q, job("m"), large)
	if got, err := q.Get(it.ID); err != nil || got.State != Queued || got.PayloadBytes != int64(len(large)) || got.StoredBytes >= got.PayloadBytes {
		t.Fatalf("%+v, %v", got, err)
	}
	changed, stop := q.Changed(it.ID)
	defer stop()
	l := lease(t, q, "m", 10)
	if len(l) != 1 || string(l[0].Payload) != large || l[0].State != Leased {
		t.Fatal(len(l))
	}
	<-changed
	if more := lease(t, q, "m", 10); len(more) != 0 {
		t.Fatal("leased twice")
	}
	finish(t, q, it.ID, "answer")
	result, got, err := q.Result(it.ID)
	if err != nil || string(result) != "answer" || got.State != Done || got.AnsweredBy != 3 || !got.Finished.Equal(epoch.Add(time.Minute)) {
		t.Fatalf("%q %+v %v", result, got, err)
	}
	if _, err := q.Finish(ctx, it.ID, Outcome{State: Done}); !errors.Is(err, ErrState) {
		t.Fatal(err)
	}
	if err := q.Delete(ctx, it.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Get(it.ID); !errors.Is(err, ErrNoJob) {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Queued != 0 || s.Finished != 0 || s.Bytes != 0 {
		t.Fatalf("%+v", s)
	}
}

func TestQueueOrder(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	var want []string
	for i := range 9 {
		it := job("m")
		it.Class = uint8(2 - i/3) // the last are the most urgent
		want = append(want, add(t, q, it, fmt.Sprint(i)).ID)
	}
	want = append(append(append([]string{}, want[6:]...), want[3:6]...), want[:3]...)
	for _, n := range []int{2, 4, 3} {
		for _, l := range lease(t, q, "m", n) {
			if l.ID != want[0] {
				t.Fatalf("%s in place of %s", l.ID, want[0])
			}
			want = want[1:]
		}
	}
}

func TestQueueLanes(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	ctx := context.Background()
	var ids []string
	for i := range 4 {
		it := job([]string{"m", "n"}[i%2]) // a lane may pass through models
		it.Lane = "a"
		ids = append(ids, add(t, q, it, fmt.Sprint(i)).ID)
	}
	free := add(t, q, job("m"), "free")
	l := lease(t, q, "m", 10)
	if len(l) != 2 || l[0].ID != ids[0] || l[1].ID != free.ID || len(lease(t, q, "n", 10)) != 0 {
		t.Fatalf("%+v", l)
	}
	// One that comes back keeps the others waiting, in a delay too.
	if _, err := q.Release(ctx, ids[0], Back{Attempt: true, Delay: time.Hour, Error: "x"}); err != nil {
		t.Fatal(err)
	}
	if len(lease(t, q, "m", 10)) != 0 || len(lease(t, q, "n", 10)) != 0 {
		t.Fatal("a lane was overtaken")
	}
	// Who is cancelled in the middle is passed over, who is cancelled at the front lets the next go.
	for _, id := range []string{ids[1], ids[0]} {
		if _, err := q.Cancel(ctx, id, epoch); err != nil {
			t.Fatal(err)
		}
	}
	l = lease(t, q, "m", 10)
	if len(l) != 1 || l[0].ID != ids[2] || len(lease(t, q, "n", 10)) != 0 {
		t.Fatalf("%+v", l)
	}
	finish(t, q, ids[2], "r")
	if l = lease(t, q, "n", 10); len(l) != 1 || l[0].ID != ids[3] {
		t.Fatalf("%+v", l)
	}
	// A retried one waits for who is at work.
	if it, err := q.Retry(ctx, ids[1]); err != nil || it.State != Queued {
		t.Fatal(it, err)
	}
	if len(lease(t, q, "n", 10)) != 0 {
		t.Fatal("a lane has two at work")
	}
	finish(t, q, ids[3], "r")
	if l = lease(t, q, "n", 10); len(l) != 1 || l[0].ID != ids[1] {
		t.Fatalf("%+v", l)
	}
}

func TestQueueKeys(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	ctx := context.Background()
	it := job("m")
	it.Key, it.Digest = "k", sha256.Sum256([]byte("one"))
	first := add(t, q, it, "one")
	again, existed, err := q.Append(ctx, it, []byte("one"))
	if err != nil || !existed || again.ID != first.ID {
		t.Fatal(again.ID, existed, err)
	}
	it.Digest = sha256.Sum256([]byte("two"))
	if _, _, err := q.Append(ctx, it, []byte("two")); !errors.Is(err, ErrConflict) {
		t.Fatal(err)
	}
	lease(t, q, "m", 1)
	finish(t, q, first.ID, "r")
	if err := q.Delete(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	if other := add(t, q, it, "two"); other.ID == first.ID { // the key is free again
		t.Fatal(other)
	}
}

func TestQueueFull(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, "", QueueOptions{Whole: Limits{Jobs: 4}, Model: func(m string) Limits { return Limits{Bytes: 20} }})
	add(t, q, job("a"), "0123456789")
	add(t, q, job("a"), "0123456789")
	var full *FullError
	if _, _, err := q.Append(ctx, job("a"), []byte("x")); !errors.As(err, &full) || full.Model != "a" || full.What != "bytes" {
		t.Fatal(err)
	}
	add(t, q, job("b"), "x")
	add(t, q, job("b"), "x")
	if _, _, err := q.Append(ctx, job("b"), []byte("x")); !errors.As(err, &full) || full.Model != "" || full.What != "jobs" {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Queued != 4 || s.Bytes != 22 {
		t.Fatalf("%+v", s)
	}
}

func TestQueueFullEvicts(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, "", QueueOptions{Whole: Limits{Jobs: 3}, WhenFull: Evict})
	urgent := job("a")
	urgent.Class = 0
	add(t, q, urgent, "urgent")
	old := add(t, q, job("b"), "old")
	add(t, q, job("a"), "young")
	add(t, q, job("a"), "new")
	got, err := q.Get(old.ID)
	if err != nil || got.State != Expired || got.Reason != "queue_full" || got.Error == "" {
		t.Fatalf("%+v %v", got, err)
	}
	// Nothing less urgent than the newcomer is left but the class of its own; with three urgent ones a lesser is refused.
	add(t, q, urgent, "u")
	add(t, q, urgent, "u")
	if _, _, err := q.Append(ctx, job("a"), []byte("x")); !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
}

func TestQueueSurvives(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "queue.db")
	q, err := OpenQueue(path, QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := add(t, q, job("m"), "a"), add(t, q, job("m"), "b"), add(t, q, job("m"), "c")
	lease(t, q, "m", 2)
	finish(t, q, b.ID, "r")
	if _, err := OpenQueue(path, QueueOptions{Timeout: 10 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.Append(ctx, job("m"), nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	q = openQueue(t, path, QueueOptions{})
	if it, err := q.Get(a.ID); err != nil || it.State != Queued || it.Interruptions != 1 || it.Attempts != 0 {
		t.Fatalf("%+v %v", it, err)
	}
	l := lease(t, q, "m", 5)
	if len(l) != 2 || l[0].ID != a.ID || l[1].ID != c.ID {
		t.Fatalf("%+v", l)
	}
	if r, _, err := q.Result(b.ID); err != nil || string(r) != "r" {
		t.Fatalf("%q %v", r, err)
	}
}

func TestQueueDelay(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "queue.db")
	q := openQueue(t, path, QueueOptions{})
	it := add(t, q, job("m"), "a")
	lease(t, q, "m", 1)
	if got, err := q.Release(ctx, it.ID, Back{Attempt: true, Death: true, Delay: 20 * time.Millisecond, Code: 14, Reason: "worker", Error: "it died"}); err != nil || got.Attempts != 1 || got.Deaths != 1 {
		t.Fatalf("%+v %v", got, err)
	}
	for {
		<-q.Wake()
		if l := lease(t, q, "m", 1); len(l) == 1 {
			if l[0].Error != "it died" {
				t.Fatalf("%+v", l[0])
			}
			break
		}
	}
}

func TestSessions(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "queue.db")
	q := openQueue(t, path, QueueOptions{})
	if _, _, err := q.Append(ctx, Item{Model: "m", Session: "foreign"}, nil); !errors.Is(err, ErrNoSession) {
		t.Fatal(err)
	}
	s := "0123456789abcdef0123456789abcdef"
	for range 2 {
		if err := q.NewSession(ctx, s, epoch); err != nil {
			t.Fatal(err)
		}
	}
	var ids []string
	for i := range 600 {
		it := job("m")
		it.Session, it.Ref = s, fmt.Sprint(i)
		ids = append(ids, add(t, q, it, "x").ID)
	}
	lease(t, q, "m", 600)
	arrived, stop := q.Changed(ArrivedKey(s))
	defer stop()
	for i := range ids {
		finish(t, q, ids[len(ids)-1-i], fmt.Sprint(i))
	}
	<-arrived
	out, err := q.Outbox(s, 0, 10, 1<<20)
	if err != nil || len(out) != 10 || out[0].Out != 1 || out[0].Ref != "599" || string(out[9].Result) != "9" {
		t.Fatalf("%+v %v", out, err)
	}
	if err := q.Ack(ctx, s, 601); !errors.Is(err, ErrNotSent) {
		t.Fatal(err)
	}
	if err := q.Ack(ctx, s, 590); err != nil {
		t.Fatal(err)
	}
	if err := q.Ack(ctx, s, 5); err != nil { // an old one changes nothing
		t.Fatal(err)
	}
	if out, err = q.Outbox(s, 0, 100, 1<<20); err != nil || len(out) != 10 || out[0].Out != 591 {
		t.Fatalf("%d %v", len(out), err)
	}
	if st := q.Stats(); st.Finished != 10 {
		t.Fatalf("%+v", st)
	}
	if err := q.DropSession(ctx, s); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Outbox(s, 0, 1, 1); !errors.Is(err, ErrNoSession) {
		t.Fatal(err)
	}
}

func TestSweep(t *testing.T) {
	ctx := context.Background()
	q := openQueue(t, "", QueueOptions{})
	it := job("m")
	it.Expires = epoch.Add(time.Minute)
	late := add(t, q, it, "late")
	running := add(t, q, it, "running")
	if l := lease(t, q, "m", 1); l[0].ID != late.ID {
		t.Fatal(l)
	}
	if _, err := q.Release(ctx, late.ID, Back{}); err != nil {
		t.Fatal(err)
	}
	if l, err := q.Lease(ctx, "m", 2, 1<<20, epoch.Add(2*time.Minute)); err != nil || len(l) != 0 { // both are late
		t.Fatal(l, err)
	}
	if got, _ := q.Get(running.ID); got.State != Expired {
		t.Fatalf("%+v", got)
	}
	done := add(t, q, job("m"), "x")
	lease(t, q, "m", 1)
	finish(t, q, done.ID, "r")
	if e, f, more, err := q.Sweep(ctx, epoch.Add(time.Hour), Retention{Finished: 24 * time.Hour}); e != 0 || f != 0 || more || err != nil {
		t.Fatal(e, f, more, err)
	}
	if e, f, more, err := q.Sweep(ctx, epoch.Add(25*time.Hour), Retention{Finished: 24 * time.Hour}); e != 0 || f != 3 || more || err != nil {
		t.Fatal(e, f, more, err)
	}
}

func TestCompact(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	q := openQueue(t, "", QueueOptions{})
	noise := make([]byte, 100_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	var ids []string
	for range 100 {
		ids = append(ids, add(t, q, job("m"), string(noise)).ID)
	}
	for _, id := range ids[1:] {
		if _, err := q.Cancel(ctx, id, epoch); err != nil {
			t.Fatal(err)
		}
		if err := q.Delete(ctx, id); err != nil {
			t.Fatal(err)
		}
	}
	before, after, err := q.Compact(ctx, nil)
	if err != nil || after >= before/4 {
		t.Fatal(before, after, err)
	}
	if l := lease(t, q, "m", 2); len(l) != 1 || string(l[0].Payload) != string(noise) {
		t.Fatal(len(l))
	}
}

// TestQueueDamagedRecord: a flipped byte loses one job, and stops nothing.
func TestQueueDamagedRecord(t *testing.T) {
	ctx := context.Background()
	path := filepath.Join(t.TempDir(), "queue.db")
	q, err := OpenQueue(path, QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for i := range 5 {
		it := job("m")
		it.Lane = []string{"", "l"}[min(i, 1)]
		it.Ref = "mark-" + fmt.Sprint(i)
		ids = append(ids, add(t, q, it, "x").ID)
	}
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; ; at++ { // every copy of the record, old pages too
		i := bytes.Index(raw[at:], []byte("mark-1"))
		if i < 0 {
			break
		}
		at += i
		raw[at] ^= 0x40
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	q = openQueue(t, path, QueueOptions{})
	if l := lease(t, q, "m", 5); len(l) != 1 || l[0].ID != ids[0] {
		t.Fatalf("%+v", l)
	}
	l := lease(t, q, "m", 5) // the lane goes on without the one at its front
	if len(l) != 1 || l[0].ID != ids[2] {
		t.Fatalf("%+v", l)
	}
	if _, err := q.Get(ids[1]); !errors.Is(err, ErrNoJob) {
		t.Fatal(err)
	}
	if s := q.Stats(); s.Damaged != 1 || s.Queued != 2 || s.Leased != 2 {
		t.Fatalf("%+v", s)
	}
	if _, err := q.Release(ctx, ids[2], Back{}); err != nil {
		t.Fatal(err)
	}
}

func TestGroupCommit(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for range 20 {
				if _, _, err := q.Append(context.Background(), job("m"), []byte("x")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s := q.Stats(); s.Writes != 64*20 || s.Commits*4 > s.Writes {
		t.Fatalf("%d writes took %d commits", s.Writes, s.Commits)
	}
}

// TestLaneExpiresTogether: who becomes the front of a lane in a transaction, and ends in it too, lets the next one go.
func TestLaneExpiresTogether(t *testing.T) {
	q := openQueue(t, "", QueueOptions{})
	for i := range 4 {
		it := job("m")
		it.Lane = "l"
		if i < 3 {
			it.Expires = epoch.Add(time.Second)
		}
		add(t, q, it, "x")
	}
	if n, _, _, err := q.Sweep(context.Background(), epoch.Add(time.Minute), Retention{}); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	if l := lease(t, q, "m", 4); len(l) != 1 {
		t.Fatal(len(l))
	}
}

// TestCheckFinds: what nothing of the queue's would do, done to its file.
func TestCheckFinds(t *testing.T) {
	key := func(b *bbolt.Bucket) []byte { k, _ := b.Cursor().First(); return append([]byte{}, k...) }
	for name, plant := range map[string]func(tx *bbolt.Tx) error{
		"ready lost":   func(tx *bbolt.Tx) error { b := tx.Bucket(bucketReady); return b.Delete(key(b)) },
		"ready stray":  func(tx *bbolt.Tx) error { return tx.Bucket(bucketReady).Put(readyKey(1, 1, 99), nil) },
		"chunk lost":   func(tx *bbolt.Tx) error { b := tx.Bucket(bucketBodies); return b.Delete(key(b)) },
		"chunk stray":  func(tx *bbolt.Tx) error { return tx.Bucket(bucketBodies).Put(bodyKey(99, 0, 0), []byte("x")) },
		"chunk flips":  func(tx *bbolt.Tx) error { b := tx.Bucket(bucketBodies); return b.Put(key(b), []byte("y")) },
		"record flips": func(tx *bbolt.Tx) error { b := tx.Bucket(bucketJobs); return b.Put(key(b), []byte("y")) },
		"job lost":     func(tx *bbolt.Tx) error { b := tx.Bucket(bucketJobs); return b.Delete(key(b)) },
		"end lost":     func(tx *bbolt.Tx) error { b := tx.Bucket(bucketEnds); return b.Delete(key(b)) },
		"key lost":     func(tx *bbolt.Tx) error { b := tx.Bucket(bucketKeys); return b.Delete(key(b)) },
		"lane lost":    func(tx *bbolt.Tx) error { b := tx.Bucket(bucketLanes); return b.Delete(key(b)) },
		"expiry stray": func(tx *bbolt.Tx) error { return tx.Bucket(bucketExpiry).Put(timeKey(epoch, 2), nil) },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "queue.db")
			q, err := OpenQueue(path, QueueOptions{})
			if err != nil {
				t.Fatal(err)
			}
			it := job("m")
			it.Key, it.Lane = "k", "l"
			add(t, q, it, "x")
			done := add(t, q, job("n"), "x")
			lease(t, q, "n", 1)
			finish(t, q, done.ID, "r")
			clean(t, q)
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
			db, err := bbolt.Open(path, 0o600, nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := db.Update(plant); err != nil {
				t.Fatal(err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			q, err = OpenQueue(path, QueueOptions{ReadOnly: true})
			if err != nil {
				t.Fatal(err)
			}
			r, err := q.Check(context.Background())
			if err != nil || len(r.Faults) == 0 {
				t.Fatalf("%+v %v", r, err)
			}
			if err := q.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestLeaseOfAnEarlierRun(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "queue.db"), QueueOptions{})
	it := add(t, q, job("m"), "x")
	first := lease(t, q, "m", 1)[0]
	if _, err := q.Cancel(t.Context(), it.ID, epoch); err != nil {
		t.Fatal(err)
	}
	if _, err := q.Retry(t.Context(), it.ID); err != nil {
		t.Fatal(err)
	}
	second := lease(t, q, "m", 1)[0]
	if _, err := q.Finish(t.Context(), it.ID, Outcome{Lease: first.Number, State: Done, Result: []byte("1"), At: epoch}); !errors.Is(err, ErrState) {
		t.Errorf("the first run ended the second's job: %v", err)
	}
	if _, err := q.Release(t.Context(), it.ID, Back{Lease: first.Number}); !errors.Is(err, ErrState) {
		t.Errorf("the first run released the second's lease: %v", err)
	}
	if _, err := q.Finish(t.Context(), it.ID, Outcome{Lease: second.Number, State: Done, Result: []byte("2"), At: epoch}); err != nil {
		t.Error(err)
	}
	if result, _, err := q.Result(it.ID); err != nil || string(result) != "2" {
		t.Errorf("%q, %v", result, err)
	}
}
