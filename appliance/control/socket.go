// socket.go: the socket file: who owns it, when it may be replaced, and how long its path may be.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// MaxPath is the most bytes that a unix socket's path may have: sun_path has 108 with its final zero.
const MaxPath = 107

// ErrAnswered: a process answers on the socket already.
var ErrAnswered = errors.New("another process answers on it")

// Listen opens a unix socket at path with mode 0660 and makes the directory that it lies in. A socket that nobody answers on is what a
// killed process left behind, and is replaced; one that answers is [ErrAnswered]; anything else in its place is an error and is left alone.
func Listen(path string) (net.Listener, error) {
	if err := checkPath(path); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, err)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if err := removeStale(path); err != nil {
			return nil, fmt.Errorf("socket %s: %w", path, err)
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", path, cause(err))
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("socket %s: %w", path, cause(err))
	}
	return l, nil
}

// removeStale removes a socket that nobody answers on. Only a refused connection shows that: no right to connect, or no time to accept, does not.
func removeStale(path string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return cause(err)
	}
	if st.Mode()&fs.ModeSocket == 0 {
		return errors.New("something that is no socket lies there; move it away, or choose another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		_ = c.Close()
		return fmt.Errorf("%w; stop that one, or choose another path", ErrAnswered)
	case !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("it cannot be told whether a process answers on it (%w); remove it if none does, or choose another path", cause(err))
	}
	return cause(os.Remove(path))
}

func checkPath(path string) error {
	if n := len(path); n > MaxPath {
		return fmt.Errorf("socket %s: its path has %d bytes, and that of a unix socket at most %d; choose a shorter one", path, n, MaxPath)
	}
	return nil
}

// cause is err without the operation and the path, which the caller names.
func cause(err error) error {
	var (
		p *fs.PathError
		o *net.OpError
		s *os.SyscallError
	)
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &s):
		return s.Err
	case errors.As(err, &o):
		return o.Err
	}
	return err
}
