// storage_test.go: what is kept, what is bounded, and what damage does, on real files.
package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	beChild()
	beMigrator()
	if path := os.Getenv("STORAGE_HOLD"); path != "" {
		db, err := Open(path, Options{})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("open")
		for i := 0; ; i++ { // until it is killed
			if err := db.State().Record("m", fmt.Appendf(nil, "%08d", i), fmt.Appendf(nil, "%08d", i)); err != nil {
				os.Exit(1)
			}
			fmt.Println(i)
		}
	}
	// The tests that are parallel wait for disks, not for processors.
	if err := flag.Set("test.parallel", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

func open(t *testing.T, path string) *DB {
	t.Helper()
	db, err := Open(path, Options{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func record(t *testing.T, db *DB, name, state string, events ...string) {
	t.Helper()
	var all [][]byte
	for _, e := range events {
		all = append(all, []byte(e))
	}
	if err := db.State().Record(name, []byte(state), all...); err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, db *DB, name, state string, events ...string) {
	t.Helper()
	states, err := db.State().States()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(states[name]); got != state {
		t.Fatalf("state of %s: %q, want %q", name, got, state)
	}
	history, err := db.State().History(name, 100)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%s", history); got != fmt.Sprint(events) {
		t.Fatalf("history of %s: %s, want %v", name, got, events)
	}
}

func TestStateSurvives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deep", "state.db")
	db := open(t, path)
	record(t, db, "a", "1", "x", "y")
	record(t, db, "b", "2")
	record(t, db, "a", "3", "z")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.State().Record("a", nil); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
	db = open(t, path)
	want(t, db, "a", "3", "z", "y", "x")
	want(t, db, "b", "2")
	record(t, db, "b", "")
	want(t, db, "b", "")
	if db.Damaged() != "" {
		t.Fatal("found damage")
	}
}

func TestHistoryIsBounded(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	batch := make([][]byte, MaxHistory+7)
	for i := range batch {
		batch[i] = fmt.Append(nil, i)
	}
	if err := db.State().Record("m", nil, batch...); err != nil {
		t.Fatal(err)
	}
	all, err := db.State().History("m", 2*MaxHistory)
	if err != nil || len(all) != MaxHistory || string(all[0]) != fmt.Sprint(MaxHistory+6) {
		t.Fatalf("%d entries, newest %s, %v", len(all), all[0], err)
	}
	for _, bad := range []error{
		db.State().Record("", nil), db.State().Record("m", make([]byte, MaxValue+1)), db.State().Record("m", nil, make([]byte, MaxValue+1)),
	} {
		if bad == nil {
			t.Fatal("a value past the bounds was taken")
		}
	}
}

func TestSecondProcess(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	open(t, path)
	if _, err := Open(path, Options{Timeout: 10 * time.Millisecond}); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
}

func TestSchema(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	set := func(n uint64) {
		b, err := bbolt.Open(path, 0o600, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = b.Close() }()
		if err := b.Update(func(tx *bbolt.Tx) error {
			m, err := tx.CreateBucketIfNotExists(bucketMeta)
			if err != nil {
				return err
			}
			return m.Put(keySchema, binary.BigEndian.AppendUint64(nil, n))
		}); err != nil {
			t.Fatal(err)
		}
	}
	set(0)
	db := open(t, path)
	record(t, db, "m", "kept")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	set(uint64(len(migrations)) + 1)
	if _, err := Open(path, Options{}); !errors.Is(err, ErrNewer) {
		t.Fatal(err)
	}
	set(uint64(len(migrations)))
	want(t, open(t, path), "m", "kept")
}

func TestDamagedRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	record(t, db, "a", "1")
	record(t, db, "b", "2", "old", "new")
	if err := db.bolt.Update(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketState).Put([]byte("a"), tx.Bucket(bucketState).Get([]byte("b"))); err != nil {
			return err
		}
		h := tx.Bucket(bucketHistory).Bucket([]byte("b"))
		k, _ := h.Cursor().Last()
		return h.Put(k, []byte("rubbish"))
	}); err != nil {
		t.Fatal(err)
	}
	want(t, db, "a", "") // a record in the wrong place
	want(t, db, "b", "2", "old")
	if err := db.bolt.View(func(tx *bbolt.Tx) error {
		if n := tx.Bucket(bucketDamaged).Stats().KeyN; n != 1 {
			t.Errorf("%d records set aside", n)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// Every way of cutting the file off ends in a file that works, and the damaged one is kept.
func TestTruncated(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.db")
	db := open(t, path)
	for i := range 40 {
		record(t, db, fmt.Sprint("m", i), string(bytes.Repeat([]byte("x"), 3000)), "event")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	moved := 0
	for cut := 0; cut < len(whole); cut += 4096 + 1000 {
		at := filepath.Join(dir, fmt.Sprint(cut), "state.db")
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		db := open(t, at)
		record(t, db, "new", "works")
		want(t, db, "new", "works")
		if db.Damaged() != "" {
			moved++
			if st, err := os.Stat(db.Damaged()); err != nil || st.Size() != int64(cut) {
				t.Fatalf("cut at %d: %v", cut, err)
			}
		}
	}
	if moved < 5 {
		t.Fatalf("%d of the cuts were noticed", moved)
	}
}

func TestOverwritten(t *testing.T) {
	for _, fill := range []byte{0, 0xff} {
		path := filepath.Join(t.TempDir(), "state.db")
		db := open(t, path)
		for i := range 40 {
			record(t, db, fmt.Sprint("m", i), string(bytes.Repeat([]byte("x"), 3000)))
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 3 * 4096; i < len(whole); i++ {
			whole[i] = fill
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		db = open(t, path)
		record(t, db, "new", "works")
		want(t, db, "new", "works")
		if _, err := os.Stat(path + ".damaged"); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that is cut off under a running process faults in the mapping; the states that this process knows go on in a new file.
func TestCutOffWhileOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	for i := range 40 {
		record(t, db, fmt.Sprint("m", i), string(bytes.Repeat([]byte("x"), 3000)))
	}
	record(t, db, "m", "kept")
	if err := os.Truncate(path, 8192); err != nil {
		t.Fatal(err)
	}
	record(t, db, "n", "new")
	want(t, db, "m", "kept")
	want(t, db, "n", "new")
	if db.Damaged() == "" {
		t.Fatal("no damage was seen")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, open(t, path), "m", "kept")
}

func TestWriteErrors(t *testing.T) {
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	record(t, db, "m", "before", "one")
	db.before = func(write bool) error {
		if write {
			return &fs.PathError{Op: "write", Path: "state.db", Err: syscall.ENOSPC}
		}
		return nil
	}
	if err := db.State().Record("m", []byte("after"), []byte("two")); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	want(t, db, "m", "before", "one")
	db.before = nil
	record(t, db, "m", "after", "two")
	want(t, db, "m", "after", "two", "one")
}

// What was acknowledged before a kill -9 is there afterwards, state and history alike.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "STORAGE_HOLD="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var word string
	acknowledged := -1
	for acknowledged < 20 {
		if _, err := fmt.Fscan(out, &word); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Sscan(word, &acknowledged) // the first word is no number
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	db := open(t, path)
	states, err := db.State().States()
	if err != nil {
		t.Fatal(err)
	}
	history, err := db.State().History("m", 1)
	if err != nil || len(history) != 1 || !bytes.Equal(history[0], states["m"]) {
		t.Fatalf("state %s, history %s, %v", states["m"], history, err)
	}
	var n int
	if _, err := fmt.Sscanf(string(states["m"]), "%d", &n); err != nil || n < acknowledged {
		t.Fatalf("%d is there, %d was acknowledged", n, acknowledged)
	}
}

func FuzzUnseal(f *testing.F) {
	f.Add([]byte("k"), seal([]byte("k"), []byte("value")))
	f.Add([]byte("k"), []byte{1, 0, 0})
	f.Fuzz(func(t *testing.T, key, stored []byte) {
		value, err := unseal(key, stored)
		if err == nil && !bytes.Equal(seal(key, value), stored) {
			t.Fatal("another record was read than was written")
		}
	})
}
