// seal.go: the bytes of a version: put on disk, and summed up so that what comes back after a restart can be held against it.
package updater

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	maxNamedFiles = 200 // files whose own sums are kept, to name the one that differs
	syncfsFiles   = 256 // a version of more files is put on disk with all of its file system
)

// tree is the content of a version folder.
type tree struct {
	Sum   string    `json:"sum"` // SHA-256 over every file's path, size and SHA-256
	Count int       `json:"count"`
	Bytes int64     `json:"bytes"`
	Files []fileSum `json:"files,omitempty"` // left out where there are too many
}

type fileSum struct {
	Path  string `json:"path"`
	Bytes int64  `json:"bytes"`
	Sum   string `json:"sum"`
}

// difference says how now differs from t, nil when it does not.
func (t tree) difference(now tree) error {
	if t.Sum == now.Sum {
		return nil
	}
	files := make(map[string]fileSum, len(now.Files))
	for _, f := range now.Files {
		files[f.Path] = f
	}
	for _, f := range t.Files {
		g, ok := files[f.Path]
		switch {
		case !ok && len(now.Files) > 0:
			return fmt.Errorf("%s is missing", f.Path)
		case ok && g.Bytes != f.Bytes:
			return fmt.Errorf("%s has %d bytes and had %d", f.Path, g.Bytes, f.Bytes)
		case ok && g.Sum != f.Sum:
			return fmt.Errorf("%s has other bytes than it had", f.Path)
		}
	}
	return fmt.Errorf("it has %d files with %d bytes and had %d with %d", now.Count, now.Bytes, t.Count, t.Bytes)
}

// treeOf reads a version folder through, following links. sync, when not nil, is called on every file before it is read and on every
// folder after what is in it.
func treeOf(ctx context.Context, dir string, sync func(f *os.File) error) (tree, error) {
	return readTree(ctx, dir, false, sync)
}

// readTree is treeOf, paced where something serves meanwhile.
func readTree(ctx context.Context, dir string, paced bool, sync func(f *os.File) error) (tree, error) {
	var t tree
	whole := sha256.New()
	entries := 0
	buffer := make([]byte, 1<<18)
	var walk func(path, rel string, depth int) error
	walk = func(path, rel string, depth int) (err error) {
		if err := ctx.Err(); err != nil {
			return err
		}
		if entries++; entries > maxEntries || depth > maxDepth {
			return fmt.Errorf("%w: %s", ErrTooMany, dir)
		}
		// Not blocking: a pipe that somebody put there must not hold us.
		f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }() // it was only read
		info, err := f.Stat()
		switch {
		case err != nil:
			return err
		case info.IsDir():
			list, err := os.ReadDir(path) // sorted
			if err != nil {
				return err
			}
			for _, e := range list {
				if err := walk(filepath.Join(path, e.Name()), filepath.Join(rel, e.Name()), depth+1); err != nil {
					return err
				}
			}
			if sync != nil {
				return sync(f)
			}
			return nil
		case !info.Mode().IsRegular():
			return fmt.Errorf("%s is no file", path)
		}
		if sync != nil {
			if err := sync(f); err != nil {
				return err
			}
		}
		h := sha256.New()
		n, err := io.CopyBuffer(h, struct{ io.Reader }{newReader(ctx, f, paced)}, buffer)
		if err != nil {
			return err
		}
		s := fileSum{Path: rel, Bytes: n, Sum: hex.EncodeToString(h.Sum(nil))}
		fmt.Fprintf(whole, "%q %d %s\n", s.Path, s.Bytes, s.Sum)
		t.Count++
		t.Bytes += n
		if t.Count <= maxNamedFiles {
			t.Files = append(t.Files, s)
		}
		return nil
	}
	if err := walk(dir, "", 0); err != nil {
		return tree{}, err
	}
	if t.Count > maxNamedFiles {
		t.Files = nil
	}
	t.Sum = hex.EncodeToString(whole.Sum(nil))
	return t, nil
}

// syncFS puts everything on dir's file system on disk, which many files take less time for than one by one. Links that lead out of a
// version folder are refused before it is loaded, so one file system holds all of it.
func syncFS(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// fsync puts an open file or folder on disk. A file system that knows no such thing is none of our faults.
func fsync(f *os.File) error {
	err := f.Sync()
	for _, none := range []error{syscall.EINVAL, syscall.ENOTSUP, syscall.ENOSYS, syscall.EROFS} {
		if errors.Is(err, none) {
			return nil
		}
	}
	return err
}

// seal puts the files of a folder, so many of them, on disk, the entry in the folder above too, and sums them up. It returns errTorn when
// they are not, or no longer, those that digest names.
func (c *Controller) seal(ctx context.Context, dir, digest string, files int) (tree, error) {
	sync := c.sync
	if files > syncfsFiles {
		if err := c.syncFS(dir); err != nil {
			return tree{}, err
		}
		sync = nil
	}
	t, err := readTree(ctx, dir, true, sync)
	if err == nil && sync != nil {
		err = c.syncDir(filepath.Dir(dir))
	}
	if ctx.Err() != nil {
		return t, err
	}
	// Files that cannot be seen at the moment, as those of a mount that is away, are not others for that.
	now, unseen := c.print(dir)
	switch {
	case unseen != nil:
		return tree{}, unseen
	case now.Digest != digest:
		return tree{}, errTorn
	}
	return t, err
}
