// scan.go: the only file that looks at the disk. It turns a base path into a value.
package updater

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrTooMany is wrapped when a version folder holds more than a SavedModel can: a symbolic link that leads in a circle, or the wrong folder.
var ErrTooMany = errors.New("too many files for a version folder")

const (
	maxEntries = 20000 // files and folders in one version
	maxDepth   = 16    // folders in folders in one version
)

// Print is what a version folder's files look like from outside. Two equal digests mean: the same names, sizes, times, modes and inodes.
type Print struct {
	Digest string    // of every path, size, modification time, mode and inode; stable over restarts
	Newest time.Time // the newest modification or inode change in the folder, the folder itself included
	// Renamed says that the folder itself was changed last and not by an entry coming or going: it arrived by a rename of the whole
	// (or somebody set its mode last), after all that is in it was written.
	Renamed bool
	Files   int
	Bytes   int64
}

// folder is one numeric folder of a base path.
type folder struct {
	Number int64
	Dir    string
	Print  Print
	Err    error // it could not be read through
}

// baseState is what a base path is.
type baseState int

const (
	baseThere   baseState = iota + 1
	baseMissing           // it does not exist: not yet, or no more
	baseFailed            // it is no folder, or cannot be read
)

// look is one look at a base path.
type look struct {
	Base    baseState
	Err     error     // with baseMissing and baseFailed
	Folders []folder  // lowest number first
	Dups    []string  // one sentence per number with two folders
	Others  bool      // something lies there that is no version folder
	Hint    string    // Diagnose's words when there is no version but something else
	Watch   []watched // what to watch for news
	Disk    disk
	On      string // the base path's file system, where watching it does not tell of everything
}

// rootLook is one look at ModelsDir.
type rootLook struct {
	Base    baseState
	Err     error
	Models  []string // names of its folders, sorted
	Skipped []string // folders whose names no request can carry, sorted
	Hint    string   // Diagnose's words when there are files but no folder
	Watch   []watched
	On      string
}

// parseVersion reads a folder's name as TensorFlow Serving does (absl::SimpleAtoi): 00000123 is 123; what is no number is no version.
func parseVersion(name string) (int64, bool) {
	n, err := strconv.ParseInt(strings.Trim(name, " \t\n\v\f\r"), 10, 64)
	return n, err == nil
}

// numbered sorts out the names of a base path: which number is which folder, what is ignored because another folder has its number.
// The name that sorts first wins, so that every look decides alike.
func numbered(names []string) (byNumber map[int64]string, dups []string, others bool) {
	names = slices.Sorted(slices.Values(names))
	byNumber = make(map[int64]string)
	for _, name := range names {
		n, ok := parseVersion(name)
		if !ok {
			others = true
			continue
		}
		if first, taken := byNumber[n]; taken {
			dups = append(dups, fmt.Sprintf("folders %s and %s both mean version %d: %s is used, %s is ignored until one is renamed", first, name, n, first, name))
			continue
		}
		byNumber[n] = name
	}
	return byNumber, dups, others
}

// lookAt looks at a base path. It blocks as long as the file system does.
func lookAt(base string, diagnose func(string) string) look {
	l := look{Watch: baseWatches(base)}
	entries, err := os.ReadDir(base)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.Base, l.Err = baseMissing, fmt.Errorf("base path %s does not exist", base)
		return l
	case err != nil:
		l.Base, l.Err = baseFailed, fmt.Errorf("base path %s cannot be read: %w", base, err)
		return l
	}
	l.Base, l.Disk, l.On = baseThere, diskOf(base), remoteAt(base)
	var names []string
	for _, e := range entries {
		if isDir(base, e) || dangling(base, e) {
			names = append(names, e.Name())
		} else {
			l.Others = true
		}
	}
	byNumber, dups, others := numbered(names)
	l.Dups, l.Others = dups, l.Others || others
	for n, name := range byNumber {
		f := folder{Number: n, Dir: filepath.Join(base, name)}
		var w []watched
		f.Print, w, f.Err = printOf(f.Dir)
		if errors.Is(f.Err, fs.ErrNotExist) {
			if _, err := os.Lstat(f.Dir); errors.Is(err, fs.ErrNotExist) {
				continue // removed while we looked: as good as never seen
			}
		}
		l.Folders = append(l.Folders, f)
		l.Watch = append(l.Watch, w...)
	}
	slices.SortFunc(l.Folders, func(a, b folder) int { return cmp.Compare(a.Number, b.Number) })
	if len(l.Folders) == 0 && l.Others {
		l.Hint = diagnose(base)
	}
	return l
}

// isDir follows a symbolic link, for people link versions and models into place.
func isDir(base string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return e.IsDir()
	}
	info, err := os.Stat(filepath.Join(base, e.Name()))
	return err == nil && info.IsDir()
}

// dangling: a symbolic link that leads nowhere for now, as one onto a mount that is away does. The version it stands for is not gone.
func dangling(base string, e fs.DirEntry) bool {
	if e.Type()&fs.ModeSymlink == 0 {
		return false
	}
	_, err := os.Stat(filepath.Join(base, e.Name()))
	return err != nil
}

// lookAtRoot looks at ModelsDir. Names that begin with a dot are nobody's model (temporary folders of copying tools, lost+found's kin).
func lookAtRoot(dir string, diagnose func(string) string) rootLook {
	l := rootLook{Watch: baseWatches(dir)}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		l.Base, l.Err = baseMissing, fmt.Errorf("models directory %s does not exist", dir)
		return l
	case err != nil:
		l.Base, l.Err = baseFailed, fmt.Errorf("models directory %s cannot be read: %w", dir, err)
		return l
	}
	l.Base, l.On = baseThere, remoteAt(dir)
	files := false
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, "."), name == "lost+found":
		case !isDir(dir, e):
			files = true
		case !goodName(name):
			l.Skipped = append(l.Skipped, name)
		default:
			l.Models = append(l.Models, name)
		}
	}
	if files && len(l.Models) == 0 {
		l.Hint = diagnose(dir)
	}
	return l
}

// goodName: the REST path takes [^/:]+, and a name that is not UTF-8 or has control characters cannot be a label of a metric.
func goodName(name string) bool {
	return strings.ToValidUTF8(name, "") == name && !strings.ContainsFunc(name, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f })
}

// printOf walks a version folder, following links, and returns the folders to watch in it. Times come from the inodes, so that a
// rename of the whole into place can be told from a copy in progress.
func printOf(dir string) (Print, []watched, error) {
	var (
		p       Print
		watches []watched
		inside  time.Time // the newest change of anything but the folder itself
		top     fs.FileInfo
		hash    = sha256.New()
		count   int
	)
	var walk func(path, rel string, depth int) error
	walk = func(path, rel string, depth int) error {
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		modified, changed, dev, ino := times(info)
		// The device's number is no part of the digest: it is another after a restart on some file systems.
		newest := modified
		if changed.After(newest) {
			newest = changed
		}
		if depth == 0 {
			top = info
		} else if newest.After(inside) {
			inside = newest
		}
		if newest.After(p.Newest) {
			p.Newest = newest
		}
		if count++; count > maxEntries || depth > maxDepth {
			return fmt.Errorf("%w: more than %d entries or %d levels in %s", ErrTooMany, maxEntries, maxDepth, dir)
		}
		if !info.IsDir() {
			p.Files++
			p.Bytes += info.Size()
			fmt.Fprintf(hash, "%q %d %d %d %o\n", rel, info.Size(), modified.UnixNano(), ino, info.Mode())
			return nil
		}
		watches = append(watches, watched{Path: path, ID: identity{dev, ino}})
		entries, err := os.ReadDir(path)
		if err != nil {
			return err
		}
		// A folder's own time is no part of the digest: a reader that makes and removes a temporary file changes nothing for us.
		fmt.Fprintf(hash, "%q dir %d %d %o\n", rel, ino, len(entries), info.Mode())
		for _, e := range entries {
			if err := walk(filepath.Join(path, e.Name()), rel+"/"+e.Name(), depth+1); err != nil {
				return err
			}
		}
		return nil
	}
	err := walk(dir, "", 0)
	p.Digest = hex.EncodeToString(hash.Sum(nil)[:16])
	if top != nil {
		modified, changed, _, _ := times(top)
		p.Renamed = err == nil && p.Files > 0 && changed.After(modified) && changed.After(inside)
	}
	return p, watches, err
}

// times has the inode's times and identity.
func times(info fs.FileInfo) (modified, changed time.Time, dev, ino uint64) {
	modified = info.ModTime()
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return modified, modified, 0, 0
	}
	return modified, time.Unix(st.Ctim.Unix()), st.Dev, st.Ino
}

// baseWatches are the folders whose news tell about a base path: itself, whose own watch also tells when it goes, and, where it is a link or is
// not there, the nearest folder above that exists. That one is watched for no other reason: in the default layout it is state_dir, where the
// queue writes at each commit.
func baseWatches(base string) []watched {
	var out []watched
	if w, ok := watchOf(base, ""); ok {
		out = append(out, w)
		if info, err := os.Lstat(base); err == nil && info.IsDir() {
			return out
		}
	}
	for child := base; ; {
		parent := filepath.Dir(child)
		if parent == child {
			return out
		}
		if w, ok := watchOf(parent, filepath.Base(child)); ok {
			return append(out, w)
		}
		child = parent
	}
}

func watchOf(path, child string) (watched, bool) {
	info, err := os.Stat(path)
	if err != nil || !info.IsDir() {
		return watched{}, false
	}
	_, _, dev, ino := times(info)
	return watched{Path: path, Child: child, ID: identity{dev, ino}}, true
}
