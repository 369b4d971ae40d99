// paths.go: symbolic links must not lead out of a version folder.
package savedmodel

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ErrOutside is wrapped by errors about a folder that reaches files outside itself.
var ErrOutside = errors.New("it leads out of the version folder")

// maxTreeEntries bounds the walk through a version folder.
const maxTreeEntries = 100_000

// CheckPaths refuses a version folder with a symbolic link that leads out of it. The folder itself may be a link. (Asset names are looked
// at by [Read].)
func CheckPaths(dir string) error {
	root, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	return eachEntryBelow(root, func(rel string, e fs.DirEntry) error {
		if e.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		path := filepath.Join(root, rel)
		target, err := filepath.EvalSymlinks(path)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %s is a symbolic link to nothing", ErrIncomplete, rel)
		}
		if err != nil {
			return err
		}
		if in, err := filepath.Rel(root, target); err != nil || !filepath.IsLocal(in) {
			says, _ := os.Readlink(path) // only for the message
			return fmt.Errorf("%w: %s is a symbolic link to %s; copy the file itself into the folder", ErrOutside, rel, says)
		}
		return nil
	})
}

// eachEntryBelow visits everything below root, sorted, by its path from there. It follows no link.
func eachEntryBelow(root string, visit func(rel string, e fs.DirEntry) error) error {
	count := 0
	return filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == root {
			return nil
		}
		if count++; count > maxTreeEntries {
			return fmt.Errorf("more than %d files and folders", maxTreeEntries)
		}
		return visit(strings.TrimPrefix(strings.TrimPrefix(path, root), string(filepath.Separator)), e)
	})
}
