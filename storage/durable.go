// durable.go: small files that are replaced in one step, for what needs no database.
package storage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// ReplaceFile puts a file with the bytes and the mode in the place of the one at path: after a crash or a power cut the old one or the new one is
// there, whole. It returns once the new one is on disk. One process at a time may do that to a path.
func ReplaceFile(path string, b []byte, mode fs.FileMode) error {
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes what was created, renamed and removed in the directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
