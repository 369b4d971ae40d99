// access.go: what this user may do in a directory, and whose it is.
package config

import (
	"errors"
	"path/filepath"

	"golang.org/x/sys/unix"
)

func mayWrite(dir string) error { return unix.Access(dir, unix.W_OK|unix.X_OK) }

// mayMake reports whether this user may make files in dir, or dir itself.
func mayMake(dir string) bool {
	for ; ; dir = filepath.Dir(dir) {
		err := mayWrite(dir)
		if !errors.Is(err, unix.ENOENT) || dir == filepath.Dir(dir) {
			return err == nil
		}
	}
}

// private reports whether dir is a folder of this user's that nobody else may write into, or is not there at all.
func private(dir string) bool {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	if errors.Is(err, unix.ENOENT) {
		return true
	}
	return err == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR && int(st.Uid) == unix.Getuid() && st.Mode&0o022 == 0
}
