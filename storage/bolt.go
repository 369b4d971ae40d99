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
		if err != nil {
			return nil, err
		}
		file = f
		// bbolt asks for the same lock on the same description next, and has it.
		if err := lock(f, o.ReadOnly, o.Timeout); err != nil {
			return f, err
		}
		return f, inspectFile(f)
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
		abandon(file)
		return nil, nil, ErrLocked
	case !errors.As(err, &system) && !errors.Is(err, errDamaged):
		err = fmt.Errorf("%w: %w", errDamaged, err) // bbolt's own verdicts on the bytes are not all sentinels
	}
	abandon(file)
	return nil, nil, err
}

// lock takes the lock of bbolt's on the file, and waits for it at most so long.
func lock(f *os.File, shared bool, timeout time.Duration) error {
	how := syscall.LOCK_NB | syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_NB | syscall.LOCK_SH
	}
	for end := time.Now().Add(timeout); ; time.Sleep(20 * time.Millisecond) { // nothing tells when it is free
		if err := syscall.Flock(int(f.Fd()), how); !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(end) {
			return berrors.ErrTimeout
		}
	}
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
