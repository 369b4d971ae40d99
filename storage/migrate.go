// migrate.go: from one schema to the next: a copy of the file before, a refusal of what is newer, and when the copy may go.
package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
)

// A copy from before a migration stays until the new schema has been opened so often, and for so long, without being given up.
const (
	provenOpens = 3
	provenAfter = 7 * 24 * time.Hour
)

// In the bucket meta, beside the schema. None of it is a schema's: an older inferd leaves it alone.
var (
	keyWriter   = []byte("writer")   // the version of inferd that opened the file last
	keyMigrated = []byte("migrated") // schema before, when, opens since
	keyLineage  = []byte("lineage")  // which file this is: a restored one is another
)

// maxWriter bounds the text under keyWriter.
const maxWriter = 200

// NewerError says that a file is of a newer schema, and what to do. It is ErrNewer.
type NewerError struct {
	Path          string
	Writer        string // the version of inferd that wrote it; empty: it did not say
	Schema, Knows uint64
	Copy          string // from before that version migrated it; empty: there is none
}

// Error is for an operator.
func (e *NewerError) Error() string {
	by, install := "", "install that version again"
	if e.Writer != "" {
		by, install = " "+e.Writer, "install inferd "+e.Writer+" again"
	}
	text := fmt.Sprintf("%v%s (schema %d, this one knows %d), and is left as it is; %s", ErrNewer, by, e.Schema, e.Knows, install)
	if e.Copy != "" {
		return text + fmt.Sprintf(", or go back to what was there before it, without what came since: mv %s %s", e.Copy, e.Path)
	}
	return text + ", or bring back what this version wrote: inferd restore, with a backup of that time"
}

// Is makes it ErrNewer.
func (e *NewerError) Is(target error) bool { return target == ErrNewer }

// schemaOf is the schema of an open file, 0 where it has none, and who wrote it.
func schemaOf(t *bbolt.Tx) (at uint64, writer string) {
	meta := t.Bucket(bucketMeta)
	if meta == nil {
		return 0, ""
	}
	if b := meta.Get(keySchema); len(b) == 8 {
		at = binary.BigEndian.Uint64(b)
	}
	return at, string(meta.Get(keyWriter))
}

// newer is a *NewerError where the file's schema is beyond what is known.
func newer(t *bbolt.Tx, path string, knows uint64) error {
	at, writer := schemaOf(t)
	if at <= knows {
		return nil
	}
	e := &NewerError{Path: path, Writer: writer, Schema: at, Knows: knows}
	for n := knows; n > 0; n-- {
		if _, err := os.Stat(copyPath(path, n)); err == nil {
			e.Copy = copyPath(path, n)
			break
		}
	}
	return e
}

func copyPath(path string, schema uint64) string { return fmt.Sprintf("%s.schema-%d", path, schema) }

// copyBefore keeps a copy of a file that is to be migrated, where it has an older schema, and returns once the copy is on disk. file is the
// open file, locked, and nobody writes to it. Copies from before earlier migrations go.
func copyBefore(bolt *bbolt.DB, file *os.File, path string, knows uint64, step func(string)) error {
	var at uint64
	err := guard(func() error {
		return bolt.View(func(t *bbolt.Tx) error {
			at, _ = schemaOf(t)
			return newer(t, path, knows)
		})
	})
	if err != nil || at == 0 || at == knows {
		return err
	}
	to := copyPath(path, at)
	if err := copyFile(file, to); err != nil {
		return fmt.Errorf("its schema is %d and is to become %d, but the copy that is kept of it before that, %s, cannot be made: %w; make room, and start again", at, knows, to, err)
	}
	step("copied")
	for _, old := range copies(path) {
		if old != to {
			_ = os.Remove(old) // it takes room and no more
		}
	}
	return nil
}

// copies are the copies that lie beside the file.
func copies(path string) []string {
	list, _ := filepath.Glob(copyPattern(path)) // the pattern is well formed
	return list
}

func copyPattern(path string) string {
	var quoted []byte
	for _, c := range []byte(path) {
		if c == '*' || c == '?' || c == '[' || c == '\\' {
			quoted = append(quoted, '\\')
		}
		quoted = append(quoted, c)
	}
	return string(quoted) + ".schema-*"
}

// copyFile copies an open bbolt file to a path, durably and as a whole or not at all. Where the file system can share bytes it does.
func copyFile(from *os.File, to string) (err error) {
	st, err := from.Stat()
	if err != nil {
		return err
	}
	part := to + ".part"
	f, err := os.OpenFile(part, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(part)
		}
	}()
	if n, err := io.Copy(f, io.NewSectionReader(from, 0, st.Size())); err != nil || n != st.Size() {
		return errors.Join(err, short(n, st.Size()))
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := inspectFile(f); err != nil {
		return err
	}
	if err := errors.Join(f.Close(), os.Rename(part, to)); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(to))
}

func short(n, want int64) error {
	if n == want {
		return nil
	}
	return fmt.Errorf("%d bytes of %d", n, want)
}

// migrate brings the file to the newest schema, notes who has it, and gives an unnamed file its lineage. It runs in the transaction that opens
// the file.
func migrate(t *bbolt.Tx, path string, steps []func(tx *bbolt.Tx) error, writer string, step func(string)) error {
	knows := uint64(len(steps))
	if err := newer(t, path, knows); err != nil {
		return err
	}
	at, wrote := schemaOf(t)
	meta, err := t.CreateBucketIfNotExists(bucketMeta)
	if err != nil {
		return err
	}
	if at < knows {
		was := at
		for ; at < knows; at++ {
			if err := steps[at](t); err != nil {
				return fmt.Errorf("migrate to schema %d: %w", at+1, err)
			}
		}
		step("migrating")
		if err := meta.Put(keySchema, binary.BigEndian.AppendUint64(nil, knows)); err != nil {
			return err
		}
		if was > 0 {
			if err := meta.Put(keyMigrated, appendMigrated(was, time.Now(), 0)); err != nil {
				return err
			}
		}
	}
	if writer = writer[:min(len(writer), maxWriter)]; writer != "" && writer != wrote {
		if err := meta.Put(keyWriter, []byte(writer)); err != nil {
			return err
		}
	}
	if meta.Get(keyLineage) == nil {
		return newLineage(t)
	}
	return nil
}

func newLineage(t *bbolt.Tx) error {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	return t.Bucket(bucketMeta).Put(keyLineage, id)
}

func appendMigrated(was uint64, at time.Time, opens uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, was)
	b = binary.BigEndian.AppendUint64(b, uint64(at.Unix()))
	return binary.BigEndian.AppendUint64(b, opens)
}

// opened counts one more time that the file was opened with its schema, and reports whether the copy from before has served its purpose: gone
// is then to be removed, once the transaction is on disk.
func opened(t *bbolt.Tx, now time.Time) (gone bool, err error) {
	meta := t.Bucket(bucketMeta)
	b := meta.Get(keyMigrated)
	if len(b) != 24 {
		return false, nil
	}
	was, at, opens := binary.BigEndian.Uint64(b), time.Unix(int64(binary.BigEndian.Uint64(b[8:])), 0), binary.BigEndian.Uint64(b[16:])+1
	if opens >= provenOpens && now.Sub(at) >= provenAfter {
		return true, meta.Delete(keyMigrated)
	}
	return false, meta.Put(keyMigrated, appendMigrated(was, at, opens))
}

// dropCopies removes the copies of a file whose schema has proven itself.
func dropCopies(path string) (dropped []string) {
	for _, old := range copies(path) {
		if os.Remove(old) == nil {
			dropped = append(dropped, old)
		}
	}
	return dropped
}

// Lock takes the lock of a state or queue file, so that no inferd has it meanwhile, and changes nothing. ErrLocked: one has. Where there is no
// file there is nothing to lock.
func Lock(path string) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_RDONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // only read
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s: %w", path, ErrLocked)
		}
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
