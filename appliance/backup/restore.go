// restore.go: from an archive to the files of an inferd that does not run.
package backup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/inferd/inferd/storage"
)

// What a restore has in the state directory while it runs, and leaves there.
const (
	stagingName = "restore.part"
	noteName    = "restore.json"
	asidePrefix = "before-restore-"
	reserve     = 64 << 20 // stays free
	stamp       = "20060102T150405Z"
)

// Options of Restore.
type Options struct {
	StateDir string
	// ConfigFile is where the configuration goes, with its conf.d beside it; empty: it is not restored.
	ConfigFile string
	Version    string               // of this inferd
	Queue      storage.QueueOptions // how its queue is opened
	Now        time.Time            // names what is moved aside
	// Step is called at named points, for tests that end the process there.
	Step func(point string)
}

// Restored is what a restore has done.
type Restored struct {
	Manifest Manifest         `json:"manifest"`
	Put      []string         `json:"put"`             // in the state directory
	Aside    string           `json:"aside,omitempty"` // where what was there lies; empty: nothing was
	Moved    []string         `json:"moved"`           // into Aside
	Jobs     *storage.Rewound `json:"jobs,omitempty"`  // nil: there is no queue in the archive
	Config   []string         `json:"config"`          // files of the configuration that were put
	Replaced []string         `json:"replaced"`        // what they replaced, under its name now
	Left     []string         `json:"left"`            // files of the configuration in the archive that were left there
}

// note says what is to be moved. It is written when everything is ready.
type note struct {
	Aside string   `json:"aside"`
	Put   []string `json:"put"`
}

// Restore reads an archive, checks everything in it, and puts it in the place of what is there, which is moved aside. No inferd may use the state
// directory: that is storage.ErrLocked. An error before anything was replaced leaves everything as it was; what was unpacked is removed.
func Restore(ctx context.Context, r io.Reader, o Options) (done Restored, err error) {
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if err := os.MkdirAll(o.StateDir, 0o750); err != nil {
		return done, err
	}
	if _, err := Complete(o.StateDir); err != nil { // of one that was cut off
		return done, err
	}
	unlock, err := lockAll(o.StateDir)
	if err != nil {
		return done, err
	}
	defer func() { unlock() }()
	staging := filepath.Join(o.StateDir, stagingName)
	if err := os.RemoveAll(staging); err != nil {
		return done, err
	}
	if err := os.Mkdir(staging, 0o700); err != nil {
		return done, err
	}
	noted := false
	defer func() {
		if !noted {
			err = errors.Join(err, os.RemoveAll(staging))
		}
	}()
	if done.Manifest, err = Read(r, func(m Member, r io.Reader) error { return unpack(ctx, staging, m, r) }); err != nil {
		return done, err
	}
	o.Step("unpacked")
	if err := done.check(ctx, staging, &o, &unlock); err != nil {
		return done, err
	}
	if err := errors.Join(giveTo(o.StateDir, staging), syncTree(staging)); err != nil {
		return done, err
	}
	n := note{Aside: asidePrefix + o.Now.UTC().Format(stamp)}
	for _, name := range []string{QueueName, StateName, RuntimeName, strings.TrimSuffix(keptFolder, "/")} {
		if _, err := os.Lstat(filepath.Join(staging, name)); err == nil {
			n.Put = append(n.Put, name)
		}
	}
	if len(n.Put) == 0 {
		return done, wrongf("it has neither state nor queue")
	}
	settings, err := done.configuration(staging, &o)
	if err != nil {
		return done, err
	}
	if err := writeNote(o.StateDir, n); err != nil {
		return done, err
	}
	noted = true
	o.Step("noted")
	unlock() // they are renamed, and whoever starts now finds the note first
	moved, err := complete(o.StateDir, o.Step)
	if err != nil {
		return done, fmt.Errorf("everything is checked and lies in %s, but could not all be put in place: %w; do the same again, or start inferd: it puts the rest in place", staging, err)
	}
	if done.Put, done.Moved = n.Put, moved; len(moved) > 0 {
		done.Aside = filepath.Join(o.StateDir, n.Aside)
	}
	for i := range settings {
		if err := settings[i].put(&done, o.Now); err != nil {
			return done, fmt.Errorf("state and queue are restored; %s is not: %w", settings[i].to, err)
		}
	}
	return done, nil
}

// lockAll makes sure that no inferd has the files.
func lockAll(dir string) (unlock func(), err error) {
	var releases []func()
	unlock = func() {
		for _, f := range releases {
			f()
		}
		releases = nil
	}
	for _, name := range []string{StateName, QueueName} {
		release, err := storage.Lock(filepath.Join(dir, name))
		if err != nil {
			unlock()
			return nil, err
		}
		releases = append(releases, release)
	}
	return unlock, nil
}

// unpack writes a member below the folder.
func unpack(ctx context.Context, folder string, m Member, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !filepath.IsLocal(m.Name) { // Read lets none pass
		return wrongf("%q leads elsewhere", m.Name)
	}
	to := filepath.Join(folder, filepath.FromSlash(m.Name))
	if m.Mode.IsDir() {
		return os.MkdirAll(to, m.Mode.Perm()|0o700)
	}
	var fs syscall.Statfs_t
	if err := syscall.Statfs(folder, &fs); err == nil {
		if free := int64(fs.Bavail) * fs.Bsize; free < m.Size+reserve {
			return fmt.Errorf("%s needs %d bytes beside what is there now, and %d are free; make room", m.Name, m.Size, max(0, free-reserve))
		}
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, m.Mode.Perm()|0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Chtimes(to, m.Written, m.Written)
	}
	return err
}

// check opens what was unpacked with the code that will use it.
func (done *Restored) check(ctx context.Context, staging string, o *Options, unlock *func()) error {
	present := func(name string) bool { _, err := os.Stat(filepath.Join(staging, name)); return err == nil }
	if present(StateName) {
		if err := storage.CheckState(filepath.Join(staging, StateName), o.Version); err != nil {
			return err
		}
	}
	if !present(QueueName) {
		return nil
	}
	(*unlock)() // the present queue is read, under a lock of its reader's
	q := o.Queue
	q.Version = o.Version
	jobs, err := storage.Rewind(ctx, filepath.Join(staging, QueueName), filepath.Join(o.StateDir, QueueName), q)
	if err != nil {
		return err
	}
	done.Jobs = &jobs
	again, err := lockAll(o.StateDir)
	if err == nil {
		*unlock = again
	}
	return err
}

// giveTo gives what was unpacked the owner of the state directory, which is not root's where root restores.
func giveTo(dir, staging string) error {
	st, err := os.Stat(dir)
	if err != nil {
		return err
	}
	owner, ok := st.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 || owner.Uid == 0 && owner.Gid == 0 {
		return nil
	}
	return filepath.WalkDir(staging, func(p string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(owner.Uid), int(owner.Gid))
	})
}

func syncTree(dir string) error {
	return filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return storage.SyncDir(p)
	})
}

// setting is a file of the configuration that is to be put.
type setting struct {
	to   string
	text []byte
	mode fs.FileMode
}

// configuration reads the files of the configuration, where they are to be restored.
func (done *Restored) configuration(staging string, o *Options) (list []setting, err error) {
	from := filepath.Join(staging, strings.TrimSuffix(configFolder, "/"))
	main := ""
	if done.Manifest.ConfigFile != "" {
		main = filepath.Base(done.Manifest.ConfigFile)
	}
	err = filepath.WalkDir(from, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && p == from {
			return filepath.SkipAll
		}
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		if o.ConfigFile == "" {
			done.Left = append(done.Left, rel)
			return nil
		}
		to := filepath.Join(filepath.Dir(o.ConfigFile), rel)
		if rel == main {
			to = o.ConfigFile
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		st, err := e.Info()
		if err == nil {
			list = append(list, setting{to, text, st.Mode().Perm()})
		}
		return err
	})
	return list, err
}

// put replaces a file of the configuration, and keeps what was there beside it.
func (s *setting) put(done *Restored, now time.Time) error {
	if old, err := os.ReadFile(s.to); err == nil && bytes.Equal(old, s.text) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(s.to), 0o755); err != nil { //nolint:gosec // as the package makes /etc/inferd: everybody may read it
		return err
	}
	part := s.to + ".restoring"
	if err := writeFile(part, s.text, s.mode); err != nil {
		return err
	}
	aside := s.to + "." + asidePrefix + now.UTC().Format(stamp)
	if err := os.Link(s.to, aside); err == nil {
		done.Replaced = append(done.Replaced, aside)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if owner, ok := sysOf(s.to); ok { // a group that may read it still may
		_ = os.Chown(part, int(owner.Uid), int(owner.Gid))
	}
	if err := os.Rename(part, s.to); err != nil {
		return err
	}
	done.Config = append(done.Config, s.to)
	return storage.SyncDir(filepath.Dir(s.to))
}

// writeFile writes a file and syncs it.
func writeFile(path string, text []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func sysOf(path string) (*syscall.Stat_t, bool) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, false
	}
	sys, ok := st.Sys().(*syscall.Stat_t)
	return sys, ok
}

func writeNote(dir string, n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	part := filepath.Join(dir, noteName+".part")
	if err := errors.Join(writeFile(part, b, 0o600), giveFile(dir, part)); err != nil {
		return err
	}
	if err := os.Rename(part, filepath.Join(dir, noteName)); err != nil {
		return err
	}
	return storage.SyncDir(dir)
}

func giveFile(dir, path string) error {
	owner, ok := sysOf(dir)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return os.Chown(path, int(owner.Uid), int(owner.Gid))
}
