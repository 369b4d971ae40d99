// migrate_test.go: from one schema to the next, with a copy before, whatever ends the process; and what an older inferd says.
package storage

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// envMigrate has this process open a file with one schema more than there is, and end at a point: "state PATH POINT" or "queue PATH POINT".
const envMigrate = "STORAGE_MIGRATE"

// nextSchema adds a schema to both files until the test ends.
func nextSchema(tb interface{ Cleanup(func()) }) {
	state, queue := migrations, queueMigrations
	step := func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists([]byte("new"))
		return err
	}
	migrations = append(append(state[:0:0], state...), step)
	queueMigrations = append(append(queue[:0:0], queue...), step)
	tb.Cleanup(func() { migrations, queueMigrations = state, queue })
}

type never struct{}

func (never) Cleanup(func()) {}

// beMigrator is the child's main program. It returns where this process is none.
func beMigrator() {
	words := strings.Fields(os.Getenv(envMigrate))
	if len(words) != 3 {
		return
	}
	nextSchema(never{})
	step := func(point string) {
		if point == words[2] {
			die()
		}
	}
	if words[0] == "state" {
		_, _ = Open(words[1], Options{Step: step, Version: "2.0.0"})
	} else {
		_, _ = OpenQueue(words[1], QueueOptions{Step: step, Version: "2.0.0"})
	}
	os.Exit(1) // it should have ended
}

// A file of either kind, with something in it, and what finds that out.
var migrated = []struct {
	kind string
	make func(t *testing.T, path string)
	open func(path string) (interface{ Close() error }, error) // as version 2.0.0
	want func(t *testing.T, path string)                       // as version 1.0.0
}{
	{"state", func(t *testing.T, path string) {
		db, err := Open(path, Options{Version: "1.0.0"})
		if err != nil {
			t.Fatal(err)
		}
		record(t, db, "m", "kept", "event")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}, func(path string) (interface{ Close() error }, error) { return Open(path, Options{Version: "2.0.0"}) },
		func(t *testing.T, path string) { want(t, open(t, path), "m", "kept", "event") }},
	{"queue", func(t *testing.T, path string) {
		q, err := OpenQueue(path, QueueOptions{Version: "1.0.0"})
		if err != nil {
			t.Fatal(err)
		}
		add(t, q, job("m"), "kept")
		if err := q.Close(); err != nil {
			t.Fatal(err)
		}
	}, func(path string) (interface{ Close() error }, error) {
		return OpenQueue(path, QueueOptions{Version: "2.0.0"})
	}, func(t *testing.T, path string) {
		q := openQueue(t, path, QueueOptions{})
		l := lease(t, q, "m", 2)
		if len(l) != 1 || string(l[0].Payload) != "kept" {
			t.Fatalf("%d jobs", len(l))
		}
	}},
}

func TestMigrationKeepsACopy(t *testing.T) {
	for _, c := range migrated {
		t.Run(c.kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "a[b]*.db")
			c.make(t, path)
			if err := os.WriteFile(copyPath(path, 0), []byte("of an earlier one"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run("up", func(t *testing.T) {
				nextSchema(t)
				for range 2 { // the second time there is nothing to migrate
					f, err := c.open(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := f.Close(); err != nil {
						t.Fatal(err)
					}
				}
			})
			kept := copyPath(path, 1)
			if got := copies(path); len(got) != 1 || got[0] != kept {
				t.Fatalf("copies %q", got)
			}
			_, err := c.open(path)
			var e *NewerError
			if !errors.As(err, &e) || !errors.Is(err, ErrNewer) || e.Writer != "2.0.0" || e.Schema != 2 || e.Knows != 1 || e.Copy != kept {
				t.Fatalf("the older one: %v", err)
			}
			for _, words := range []string{"newer inferd 2.0.0", "install inferd 2.0.0 again", "mv " + kept + " " + path} {
				if !strings.Contains(err.Error(), words) {
					t.Errorf("%q is not in: %v", words, err)
				}
			}
			if err := os.Rename(kept, path); err != nil {
				t.Fatal(err)
			}
			c.want(t, path)
		})
	}
}

func TestNewerWithoutACopy(t *testing.T) {
	for _, c := range migrated {
		path := filepath.Join(t.TempDir(), "f.db")
		t.Run(c.kind, func(t *testing.T) {
			nextSchema(t)
			c.make(t, path)
		})
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.open(path); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "inferd restore") {
			t.Errorf("%s: %v", c.kind, err)
		}
		if after, err := os.ReadFile(path); err != nil || string(after) != string(before) {
			t.Errorf("%s: the file was changed (%v)", c.kind, err)
		}
	}
}

// Wherever a migration is cut off, the next start migrates and has everything.
func TestMigrationKilled(t *testing.T) {
	for _, c := range migrated {
		for _, point := range []string{"copied", "migrating"} {
			t.Run(c.kind+" "+point, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "f.db")
				c.make(t, path)
				cmd, _ := command(t, orders{})
				cmd.Env = append(os.Environ(), envMigrate+"="+c.kind+" "+path+" "+point)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				killed(t, cmd)
				if _, err := os.Stat(copyPath(path, 1)); err != nil {
					t.Fatal(err)
				}
				t.Run("the older one goes on", func(t *testing.T) { c.want(t, path) }) // nothing was migrated
				t.Run("again", func(t *testing.T) {
					nextSchema(t)
					f, err := c.open(path)
					if err != nil {
						t.Fatal(err)
					}
					if err := f.Close(); err != nil {
						t.Fatal(err)
					}
				})
				if _, err := c.open(path); !errors.Is(err, ErrNewer) {
					t.Fatal(err)
				}
			})
		}
	}
}

func TestMigrationWithoutRoomForTheCopy(t *testing.T) {
	for _, c := range migrated {
		t.Run(c.kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.db")
			c.make(t, path)
			if err := os.Mkdir(copyPath(path, 1)+".part", 0o700); err != nil { // as good as a full disk, to root too
				t.Fatal(err)
			}
			t.Run("up", func(t *testing.T) {
				nextSchema(t)
				if _, err := c.open(path); err == nil || !strings.Contains(err.Error(), "the copy that is kept of it before that") {
					t.Fatal(err)
				}
			})
			c.want(t, path)
		})
	}
}

// The copy goes when the new schema was opened a few times, over a week.
func TestCopyGoes(t *testing.T) {
	for _, c := range migrated {
		t.Run(c.kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f.db")
			c.make(t, path)
			nextSchema(t)
			visit := func() {
				t.Helper()
				f, err := c.open(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.Close(); err != nil {
					t.Fatal(err)
				}
			}
			age := func(opens uint64, at time.Time) {
				t.Helper()
				b, err := bbolt.Open(path, 0o600, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = b.Close() }()
				if err := b.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyMigrated, appendMigrated(1, at, opens)) }); err != nil {
					t.Fatal(err)
				}
			}
			visit()
			age(provenOpens, time.Now())
			visit()
			age(0, time.Now().Add(-provenAfter-time.Hour))
			visit()
			if len(copies(path)) != 1 {
				t.Fatal("the copy is gone early")
			}
			age(provenOpens-1, time.Now().Add(-provenAfter-time.Hour))
			visit()
			if got := copies(path); len(got) != 0 {
				t.Fatalf("%q stay", got)
			}
		})
	}
}
