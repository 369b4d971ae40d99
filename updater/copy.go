// copy.go: a second place for a version's files: reflinks, a copy, or hard links, checked against what the files were.
package updater

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// duplicate is how a version's files are kept a second time.
type duplicate int

const (
	byReflink duplicate = iota + 1 // the file system shares the bytes until one side writes
	byCopy                         // as good, and takes room
	byLink                         // survives that the folder is removed or its files replaced, not that they are written in place
)

var duplicateNames = [...]string{"", "reflink", "copy", "hard link"}

func (d duplicate) String() string { return duplicateNames[max(0, min(int(d), len(duplicateNames)-1))] }

// errNoRoom: the files cannot be linked, and are too large to be copied.
var errNoRoom = errors.New("too large to be copied")

const (
	storeTemporary = ".new-"
	longName       = 100 // bytes of a model's name that are a folder's name as they are
)

// storeName is a model's folder in the store.
func storeName(model string) string {
	name := url.PathEscape(model)
	if strings.HasPrefix(name, ".") {
		name = "%2E" + name[1:]
	}
	if len(name) > longName {
		name = fmt.Sprintf("%s-%x", name[:longName/2], sha256.Sum256([]byte(model)))
	}
	return name
}

// keptName is a version's folder in its model's.
func keptName(number int64, t tree) string { return fmt.Sprintf("%d-%.12s", number, t.Sum) }

// keep puts the files of dir, which hold t, into the folder to a second time, on disk when it returns, and says how. Links in dir are
// followed. copyLimit bounds what may be copied, in bytes.
func (c *Controller) keep(ctx context.Context, dir string, t tree, to string, copyLimit int64) (how duplicate, print string, err error) {
	parent := filepath.Dir(to)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return 0, "", err
	}
	tmp := filepath.Join(parent, storeTemporary+filepath.Base(to))
	if err := os.RemoveAll(tmp); err != nil {
		return 0, "", err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(tmp))
		}
	}()
	ways := []duplicate{byReflink, byLink}
	if t.Bytes <= copyLimit && c.roomFor(parent, t.Bytes) {
		ways = []duplicate{byReflink, byCopy, byLink}
	}
	for _, how = range ways {
		if err = errors.Join(os.RemoveAll(tmp), duplicateTree(ctx, dir, tmp, how, 0)); err == nil || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		if len(ways) == 2 {
			err = fmt.Errorf("%w (%d bytes): %w", errNoRoom, t.Bytes, err)
		}
		return 0, "", err
	}
	now, err := readTree(ctx, tmp, true, c.sync)
	if err == nil {
		err = t.difference(now)
	}
	if err != nil {
		return 0, "", err
	}
	if err := errors.Join(os.RemoveAll(to), os.Rename(tmp, to)); err != nil {
		return 0, "", err
	}
	for _, above := range []string{parent, filepath.Dir(parent), filepath.Dir(filepath.Dir(parent))} {
		if err := c.syncDir(above); err != nil {
			return 0, "", err
		}
	}
	p, err := c.print(to)
	return how, p.Digest, err
}

// syncDir puts a folder's entries on disk.
func (c *Controller) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(c.sync(f), f.Close())
}

// roomFor reports whether the floor, or a twentieth of the file system, stays free with so many bytes more on it.
func (c *Controller) roomFor(dir string, bytes int64) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	free, whole := int64(s.Bavail)*s.Bsize, int64(s.Blocks)*s.Bsize
	var floor int64
	if c.opts.DiskFloor != nil {
		floor = c.opts.DiskFloor()
	}
	return free-bytes >= cmp.Or(floor, whole/20)
}

func duplicateTree(ctx context.Context, from, to string, how duplicate, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth > maxDepth {
		return fmt.Errorf("%w: %s", ErrTooMany, from)
	}
	info, err := os.Stat(from)
	switch {
	case err != nil:
		return err
	case info.Mode().IsRegular():
		return duplicateFile(ctx, from, to, how)
	case !info.IsDir():
		return fmt.Errorf("%s is no file", from)
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := duplicateTree(ctx, filepath.Join(from, e.Name()), filepath.Join(to, e.Name()), how, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func duplicateFile(ctx context.Context, from, to string, how duplicate) (err error) {
	if how == byLink {
		return unix.Linkat(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
	}
	// Not blocking, and not over a pipe that somebody put there since it was looked at.
	src, err := os.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = src.Close() }() // it was only read
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if how == byReflink {
		return unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	}
	_, err = io.Copy(struct{ io.Writer }{dst}, newReader(ctx, src, true)) // through our hands, so that ctx can end it
	return err
}
