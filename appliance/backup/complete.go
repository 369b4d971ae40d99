// complete.go: the last part of a restore: renames, which whoever comes next does again where they were cut off.
package backup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/inferd/inferd/storage"
)

// Complete puts in place what a restore that was cut off has checked and noted, and does nothing where there is no note. moved are the names that
// were moved aside. It is to be called before anything in the state directory is opened.
func Complete(stateDir string) (moved []string, err error) {
	moved, err = complete(stateDir, func(string) {})
	if err != nil {
		err = fmt.Errorf("a restore into %s was cut off and cannot be completed: %w", stateDir, err)
	}
	return moved, err
}

func complete(dir string, step func(string)) (moved []string, err error) {
	path := filepath.Join(dir, noteName)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) || errors.Is(err, fs.ErrPermission) {
		return nil, nil // in a directory that cannot be had nothing was restored; who opens the files says so
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read; the lock goes with it
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("%s: a restore is under way: %w", path, err)
	}
	n, err := readNote(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; remove it, and look what of %s is to be kept", path, err, filepath.Join(dir, stagingName))
	}
	staging, aside := filepath.Join(dir, stagingName), filepath.Join(dir, n.Aside)
	for _, name := range n.Put {
		m, err := put(dir, staging, aside, name, step)
		moved = append(moved, m...)
		if err != nil {
			return moved, err
		}
	}
	if err := errors.Join(storage.SyncDir(dir), os.Remove(path), storage.SyncDir(dir)); err != nil {
		return moved, err
	}
	return moved, os.RemoveAll(staging)
}

// readNote reads a note, which lies where only this user writes, and believes it no more than it must.
func readNote(r io.Reader) (n note, err error) {
	b, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(b, &n); err != nil {
		return n, err
	}
	if !strings.HasPrefix(n.Aside, asidePrefix) || !filepath.IsLocal(n.Aside) || strings.ContainsRune(n.Aside, '/') {
		return n, fmt.Errorf("%.100q is no name for what is moved aside", n.Aside)
	}
	for _, name := range n.Put {
		if !slices.Contains([]string{StateName, QueueName, RuntimeName, strings.TrimSuffix(keptFolder, "/")}, name) {
			return n, fmt.Errorf("%.100q is nothing that a restore puts", name)
		}
	}
	return n, nil
}

// put moves one thing into place, and what was there, with the copies of its older schemas, aside. Done before, it does nothing.
func put(dir, staging, aside, name string, step func(string)) (moved []string, err error) {
	from, to := filepath.Join(staging, name), filepath.Join(dir, name)
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	old := []string{name}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+".schema-") {
			old = append(old, e.Name())
		}
	}
	for _, o := range old {
		if _, err := os.Lstat(filepath.Join(dir, o)); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.Mkdir(aside, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return moved, err
		}
		if err := errors.Join(giveFile(dir, aside), os.Rename(filepath.Join(dir, o), filepath.Join(aside, o))); err != nil {
			return moved, err
		}
		moved = append(moved, o)
	}
	if len(moved) > 0 {
		if err := storage.SyncDir(aside); err != nil {
			return moved, err
		}
	}
	step("aside " + name)
	if err := errors.Join(os.Rename(from, to), storage.SyncDir(dir)); err != nil {
		return moved, err
	}
	step("put " + name)
	return moved, nil
}
