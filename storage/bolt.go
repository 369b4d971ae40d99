// bolt.go: opening a bbolt file that may be damaged, locked, or on a failing disk.
package storage

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"

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

// whole reports a file that is shorter than its own account of it: reading its mapping would fault.
func whole(tx *bbolt.Tx, file *os.File) error {
	st, err := file.Stat()
	if err == nil && st.Size() < tx.Size() {
		return fmt.Errorf("%w: it has %d bytes and should have %d", errDamaged, st.Size(), tx.Size())
	}
	return err
}

// abandon gives the descriptor and with it the lock back where bbolt cannot be closed any more: its own Close may wait for a lock that a
// panic left held. The mapping of a damaged file stays until the process ends.
func abandon(file *os.File) {
	if file != nil {
		_ = file.Close() // closed already where bbolt could
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
