// bolt.go: opening a bbolt file that may be damaged, locked, or on a failing disk.
package storage

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// Errors that callers branch on.
var (
	ErrLocked = errors.New("another process has it open")
	ErrNewer  = errors.New("it was written by a newer inferd")
	ErrClosed = errors.New("the state file is closed")
)

// errDamaged: the file's own structure cannot be read.
var errDamaged = errors.New("the file is damaged")

// openBolt opens the file. The *os.File is what bolt reads, for when bolt can no longer be closed. On an error nothing is held.
func openBolt(path string, o bbolt.Options) (*bbolt.DB, *os.File, error) {
	var file *os.File
	var bolt *bbolt.DB
	o.FreelistType = bbolt.FreelistMapType
	o.OpenFile = func(name string, flag int, mode os.FileMode) (*os.File, error) {
		f, err := os.OpenFile(name, flag, mode)
		file = f
		return f, err
	}
	err := guard(func() (err error) {
		bolt, err = bbolt.Open(path, 0o640, &o)
		return err
	})
	var system syscall.Errno
	switch {
	case err == nil:
		return bolt, file, nil
	case errors.Is(err, berrors.ErrTimeout):
		return nil, nil, ErrLocked
	case !errors.As(err, &system) && !errors.Is(err, errDamaged):
		err = fmt.Errorf("%w: %w", errDamaged, err) // bbolt's own verdicts on the bytes are not all sentinels
	}
	abandon(file)
	return nil, nil, err
}

// update runs f in a transaction and commits it. It never rolls back: to find the free pages again bbolt then reads every page in a goroutine of
// its own, where a fault ends the process. settled is false where the transaction is still open; then the file can only be abandoned.
func update(bolt *bbolt.DB, f func(t *bbolt.Tx) error) (settled bool, err error) {
	err = guard(func() error {
		t, err := bolt.Begin(true)
		if err != nil {
			settled = true
			return err
		}
		if err := f(t); err != nil {
			return err
		}
		err = t.Commit()
		settled = true
		return err
	})
	return settled, err
}

// whole reports a file that is shorter than its own account of it: reading its mapping would fault.
func whole(tx *bbolt.Tx, file *os.File) error {
	st, err := file.Stat()
	if err == nil && st.Size() < tx.Size() {
		return fmt.Errorf("%w: it has %d bytes and should have %d", errDamaged, st.Size(), tx.Size())
	}
	return err
}

// probe reads every page that holds something, where a fault or a bad page is an error. Where bbolt itself reads them, to find the free ones
// or to check, it does so in goroutines of its own, in which either would end the process, at every start anew.
func probe(path string, timeout time.Duration) error {
	bolt, file, err := openBolt(path, bbolt.Options{Timeout: timeout, ReadOnly: true})
	if err != nil {
		return err
	}
	err = guard(func() error {
		return bolt.View(func(t *bbolt.Tx) error {
			if err := whole(t, file); err != nil {
				return err
			}
			return walkPages(t)
		})
	})
	if err != nil {
		abandon(file)
		return err
	}
	return guard(bolt.Close)
}

// walkPages reads a byte of every page that holds something.
func walkPages(t *bbolt.Tx) error {
	return t.ForEach(func(_ []byte, b *bbolt.Bucket) error {
		walkKeys(b)
		return nil
	})
}

func walkKeys(b *bbolt.Bucket) {
	c := b.Cursor()
	for k, v := c.First(); k != nil; k, v = c.Next() {
		if v == nil {
			if inner := b.Bucket(k); inner != nil {
				walkKeys(inner)
			}
		}
	}
}

// abandon gives the descriptor and the lock back where bbolt cannot be closed any more: its own Close may wait for a lock that a panic left
// held. The mapping stays until the process ends, and would keep the file locked with it.
func abandon(file *os.File) {
	if file != nil {
		_ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) // both fail where bbolt could close it
		_ = file.Close()
	}
}

// guard turns faults (a mapped page that cannot be read) and bbolt's panics into errDamaged.
func guard(f func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errDamaged, p)
		}
	}()
	return f()
}
