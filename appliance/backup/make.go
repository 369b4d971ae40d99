// make.go: from the files of an inferd to an archive.
package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Source is what goes into an archive.
type Source struct {
	Manifest Manifest
	// State and Queue are snapshots, whole and from their beginning; they are closed. Nil: there is none.
	State, Queue *os.File
	Files        []NamedFile
	Versions     string // the folder of kept versions; empty: they stay out
}

// NamedFile is a small file and its name in the archive. One that is not there is left out.
type NamedFile struct{ Name, Path string }

// ConfigName is the name in the archive of a configuration's main file, of a fragment of it, or of another file beside it.
func ConfigName(file string, fragment bool) string {
	if fragment {
		return configFolder + "conf.d/" + filepath.Base(file)
	}
	return configFolder + filepath.Base(file)
}

// Close closes the snapshots.
func (s *Source) Close() {
	for _, f := range []*os.File{s.State, s.Queue} {
		if f != nil {
			_ = f.Close() // only read
		}
	}
}

// Make writes an archive of s and closes s. It ends early with ctx.
func Make(ctx context.Context, w io.Writer, s Source) error {
	defer s.Close()
	s.Manifest.Format, s.Manifest.Versions = Format, s.Versions != ""
	a, err := newWriter(&until{ctx, w}, s.Manifest)
	if err != nil {
		return err
	}
	for _, f := range s.Files {
		if err := a.addFile(f, maxSmall); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, f := range []struct {
		name string
		file *os.File
	}{{StateName, s.State}, {QueueName, s.Queue}} {
		if f.file == nil {
			continue
		}
		st, err := f.file.Stat()
		if err != nil {
			return err
		}
		if err := a.add(Member{Name: f.name, Size: st.Size(), Mode: 0o640, Written: s.Manifest.Made}, f.file); err != nil {
			return err
		}
	}
	if s.Versions != "" {
		if err := a.addTree(s.Versions); err != nil {
			return err
		}
	}
	return a.close()
}

// until is a writer that fails when ctx has ended.
type until struct {
	ctx context.Context
	w   io.Writer
}

func (u *until) Write(b []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(b)
}

func (a *writer) addFile(f NamedFile, limit int64) error {
	if !known(f.Name, false) {
		return fmt.Errorf("%s: no file of a backup can have the name %.200q", f.Path, f.Name)
	}
	file, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }() // only read
	st, err := file.Stat()
	switch {
	case err != nil:
		return err
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is no file", f.Path)
	case limit > 0 && st.Size() > limit:
		return fmt.Errorf("%s has %d bytes, at most %d go into a backup", f.Path, st.Size(), limit)
	}
	return a.add(Member{Name: f.Name, Size: st.Size(), Mode: st.Mode(), Written: st.ModTime()}, file)
}

// addTree adds the kept versions. What an update takes away meanwhile is an error: a part of a version is none.
func (a *writer) addTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if p == dir {
			if errors.Is(err, fs.ErrNotExist) {
				return filepath.SkipAll
			}
			return err
		}
		if err != nil {
			return fmt.Errorf("%w: the kept versions changed while they were read; try again", err)
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		name := keptFolder + filepath.ToSlash(rel)
		if !e.IsDir() {
			return a.addFile(NamedFile{name, p}, 0)
		}
		st, err := e.Info()
		if err != nil {
			return err
		}
		if !known(name, true) {
			return fmt.Errorf("%s: no folder of a backup can have that name", p)
		}
		return a.add(Member{Name: name, Mode: st.Mode(), Written: st.ModTime()}, nil)
	})
}
