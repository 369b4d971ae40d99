// db.go: the file: opening, locking, migrating, and what happens when it is damaged.
package storage

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// migrations bring a file from schema i to i+1.
var migrations = []func(tx *bbolt.Tx) error{
	func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketState, bucketHistory, bucketDamaged} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	},
}

var (
	bucketMeta    = []byte("meta")
	bucketState   = []byte("state")
	bucketHistory = []byte("history")
	bucketDamaged = []byte("damaged")
	keySchema     = []byte("schema")
)

// Options of Open. Zero means default.
type Options struct {
	Timeout time.Duration // for another process to let go of the file; 1 s
	Log     *slog.Logger  // nil discards
	Version string        // of this inferd, for who opens the file with an older one
	// Step is called at named points, for tests that end the process there.
	Step func(point string)
}

// DB is the open file.
type DB struct {
	path string
	opts Options
	log  *slog.Logger

	mu     sync.Mutex             // held for the length of every transaction: there is one writer, and reads are few and short
	bolt   *bbolt.DB              // guarded by mu; nil after Close
	file   *os.File               // guarded by mu: what bolt reads, kept for when bolt can no longer be closed
	moved  string                 // guarded by mu: where a damaged file lies
	seeds  map[string][]byte      // guarded by mu: the last states that this process read or wrote
	before func(write bool) error // tests inject errors; immutable after Open
}

// Open opens the file at path, or makes it and its directory. It waits for a lock at most Options.Timeout. A damaged file is moved aside
// and a new one begun; Damaged says so.
func Open(path string, opts Options) (*DB, error) {
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Step == nil {
		opts.Step = func(string) {}
	}
	db := &DB{path: path, opts: opts, log: opts.Log.With("component", "storage"), seeds: make(map[string][]byte)}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	err := db.openOnce()
	if errors.Is(err, errDamaged) {
		err = db.replace(err)
	}
	if err != nil {
		return nil, fmt.Errorf("state file %s: %w", path, err)
	}
	return db, nil
}

// Close lets go of the file. It is idempotent; later calls of other methods give ErrClosed.
func (db *DB) Close() error {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.bolt == nil {
		return nil
	}
	bolt := db.bolt
	db.bolt = nil
	return guard(bolt.Close)
}

// Damaged is where a damaged file was moved to since Open, empty when none was.
func (db *DB) Damaged() string {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.moved
}

// openOnce opens what lies at the path. On an error nothing is held.
func (db *DB) openOnce() error {
	bolt, file, err := openBolt(db.path, bbolt.Options{Timeout: db.opts.Timeout})
	if err != nil {
		return err
	}
	err = copyBefore(bolt, file, db.path, uint64(len(migrations)), db.opts.Step)
	gone := false
	if err == nil {
		err = guard(func() error {
			return bolt.Update(func(tx *bbolt.Tx) (err error) {
				gone, err = prepare(tx, db.path, &db.opts)
				return err
			})
		})
	}
	if errors.Is(err, ErrNewer) {
		_ = guard(bolt.Close) // nothing was written
		return err
	}
	if err != nil {
		abandon(file)
		return err
	}
	if gone {
		db.log.Info("file of an older schema is removed: the new one has proven itself", "path", dropCopies(db.path))
	}
	db.bolt, db.file = bolt, file
	return nil
}

// prepare migrates, and reads everything once, so that damage shows now. gone: the copies of an older schema may go.
func prepare(tx *bbolt.Tx, path string, o *Options) (gone bool, err error) {
	if err := migrate(tx, path, migrations, o.Version, o.Step); err != nil {
		return false, err
	}
	if gone, err = opened(tx, time.Now()); err != nil {
		return false, err
	}
	total := 0
	for _, name := range [][]byte{bucketState, bucketHistory, bucketDamaged} {
		b := tx.Bucket(name)
		if b == nil {
			return false, fmt.Errorf("%w: bucket %s is missing", errDamaged, name)
		}
		total += walk(b)
	}
	_ = total // the bytes had to be touched, not used
	return gone, nil
}

func walk(b *bbolt.Bucket) (sum int) {
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if v == nil {
			sum += walk(b.Bucket(k))
			continue
		}
		for _, x := range v {
			sum += int(x)
		}
	}
	return sum
}

// replace moves the damaged file aside and begins a new one with the last known states.
func (db *DB) replace(why error) error {
	aside := db.path + ".damaged"
	if err := os.Rename(db.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w, and it cannot be moved aside: %w", why, err)
	}
	if err := db.openOnce(); err != nil {
		return err
	}
	db.moved = aside
	db.log.Error("state file was damaged: it was moved aside and a new one begun", "path", db.path, "to", aside, "err", why)
	if len(db.seeds) == 0 {
		return nil
	}
	return guard(func() error {
		return db.bolt.Update(func(tx *bbolt.Tx) error {
			for name, value := range db.seeds {
				if err := tx.Bucket(bucketState).Put([]byte(name), seal([]byte(name), value)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// do runs one transaction. One that finds the file damaged is run again on a new file.
func (db *DB) do(write bool, f func(tx *bbolt.Tx) error) error {
	db.mu.Lock()
	defer db.mu.Unlock()
	var err error
	for range 2 {
		if db.bolt == nil {
			return ErrClosed
		}
		bolt := db.bolt
		err = guard(func() error {
			if db.before != nil {
				if err := db.before(write); err != nil {
					return err
				}
			}
			if write {
				return bolt.Update(f)
			}
			return bolt.View(f)
		})
		if !errors.Is(err, errDamaged) {
			break
		}
		abandon(db.file)
		db.bolt, db.file = nil, nil
		if err := db.replace(err); err != nil {
			return fmt.Errorf("state file %s: %w", db.path, err)
		}
	}
	if err != nil {
		return fmt.Errorf("state file %s: %w", db.path, err)
	}
	return nil
}
