// snapshot.go: a whole copy of a file at one moment, while it is in use.
package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// snapshotReserve is what must stay free beside a snapshot.
const snapshotReserve = 64 << 20

// Snapshot is the file as it is now, copied into a file without a name in dir, from its beginning. The caller closes it. Writers wait for the
// length of the copy.
func (db *DB) Snapshot(dir string) (*os.File, error) {
	return snapshot(dir, func(f *os.File) error {
		return db.do(false, func(tx *bbolt.Tx) error { return writeTo(f, tx) })
	})
}

// Snapshot is the file as it is now, copied into a file without a name in dir, from its beginning. The caller closes it. Nobody waits for the
// copy, but for a writer who needs a larger mapping.
func (q *Queue) Snapshot(_ context.Context, dir string) (*os.File, error) {
	return snapshot(dir, func(f *os.File) error {
		return q.view(func(x *tx) error { return writeTo(f, x.Tx) })
	})
}

// SnapshotFile is the same of a file that nobody has open; ErrLocked where somebody has.
func SnapshotFile(path, dir string) (*os.File, error) {
	release, err := Lock(path)
	if err != nil {
		return nil, err
	}
	defer release()
	from, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = from.Close() }() // only read
	return snapshot(dir, func(f *os.File) error {
		st, err := from.Stat()
		if err == nil {
			err = room(f, st.Size())
		}
		if err != nil {
			return err
		}
		n, err := io.Copy(f, io.NewSectionReader(from, 0, st.Size()))
		return errors.Join(err, short(n, st.Size()))
	})
}

func writeTo(f *os.File, tx *bbolt.Tx) error {
	if err := room(f, tx.Size()); err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil { // a transaction is run again where it found the file damaged
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := tx.WriteTo(f)
	return err
}

// room refuses a copy that would fill the disk.
func room(f *os.File, size int64) error {
	var fs syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil //nolint:nilerr // the copy itself will tell
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < size+snapshotReserve {
		return fmt.Errorf("a copy of %d bytes is needed for a moment, and %d are free beside the %d that must stay; make room", size, max(0, free-snapshotReserve), int64(snapshotReserve))
	}
	return nil
}

// snapshot makes the file, has it filled, and walks every page of it.
func snapshot(dir string, fill func(*os.File) error) (*os.File, error) {
	f, err := os.OpenFile(dir, unix.O_TMPFILE|unix.O_RDWR, 0o600)
	if err != nil { // not every file system can
		if f, err = os.CreateTemp(dir, ".snapshot-"); err != nil {
			return nil, err
		}
		_ = os.Remove(f.Name())
	}
	err = fill(f)
	if err == nil {
		err = inspectFile(f)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}
