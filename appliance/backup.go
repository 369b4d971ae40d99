// backup.go: what of an appliance goes into a backup, running or not, and the end of a restore that was cut off.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance/backup"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/storage"
)

// backupSource is control's form of a [backup.Source].
type backupSource struct{ backup.Source }

func (b *backupSource) WriteBackup(ctx context.Context, w io.Writer) error {
	return backup.Make(ctx, w, b.Source)
}

// backup takes snapshots of what the running appliance has open.
func (a *Appliance) backup(ctx context.Context, versions bool) (control.BackupSource, error) {
	s := sourceOf(a.current.Load(), a.cfg.StateDir, a.opts.Version, versions)
	var err error
	if s.State, err = a.journal.snapshot(a.cfg.StateDir); err != nil {
		return nil, err
	}
	if q := a.jobs.Queue(); q != nil {
		if s.Queue, err = q.Snapshot(ctx, a.cfg.StateDir); err != nil {
			s.Close()
			return nil, fmt.Errorf("queue: %w", err)
		}
	}
	return &backupSource{s}, nil
}

func (j *stateJournal) snapshot(dir string) (*os.File, error) {
	j.mu.Lock()
	db, err := j.db, j.err
	j.mu.Unlock()
	if db == nil {
		return nil, errors.Join(err, errors.New("there is no state file to back up"))
	}
	return db.Snapshot(dir)
}

// Backup writes a backup of an inferd that does not run with this configuration; storage.ErrLocked where one does.
func Backup(ctx context.Context, cfg *config.Config, version string, versions bool, w io.Writer) error {
	s := sourceOf(cfg, cfg.StateDir, version, versions)
	found := false
	for _, f := range []struct {
		name string
		to   **os.File
	}{{stateFile, &s.State}, {queueFile, &s.Queue}} {
		file, err := storage.SnapshotFile(filepath.Join(cfg.StateDir, f.name), cfg.StateDir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			s.Close()
			return err
		}
		*f.to, found = file, true
	}
	if !found {
		return fmt.Errorf("there is nothing to back up: %s has neither %s nor %s; is it the right state_dir?", cfg.StateDir, stateFile, queueFile)
	}
	return backup.Make(ctx, w, s)
}

// sourceOf is everything but the snapshots.
func sourceOf(cfg *config.Config, stateDir, version string, versions bool) backup.Source {
	s := backup.Source{Manifest: backup.Manifest{Inferd: version, Made: time.Now().UTC().Truncate(time.Second), StateDir: stateDir, ConfigFile: cfg.File()}}
	if file := cfg.File(); file != "" {
		names := []backup.NamedFile{{Name: backup.ConfigName(file, false), Path: file}}
		for _, f := range cfg.Fragments() {
			names = append(names, backup.NamedFile{Name: backup.ConfigName(f, true), Path: f})
		}
		if tokens := filepath.Join(filepath.Dir(file), tokensFile); tokens != file {
			names = append(names, backup.NamedFile{Name: backup.ConfigName(tokens, false), Path: tokens}) // it has hashes only
		}
		for _, n := range names {
			if !strings.HasPrefix(filepath.Base(n.Path), ".") && n.Path != os.Stdin.Name() {
				s.Files = append(s.Files, n)
			}
		}
	}
	s.Files = append(s.Files, backup.NamedFile{Name: backup.RuntimeName, Path: filepath.Join(stateDir, backup.RuntimeName)})
	if versions {
		s.Versions = filepath.Join(stateDir, keptDir)
	}
	return s
}

// tokensFile lies beside the configuration.
const tokensFile = "tokens.yaml"

// RestoreOptions are how a backup is restored with this configuration.
func RestoreOptions(cfg *config.Config, version string) backup.Options {
	return backup.Options{StateDir: cfg.StateDir, Version: version, Queue: QueueOptions(cfg), Now: time.Now()}
}

// completeRestore puts in place what a restore that was cut off has left ready, before anything is opened.
func (a *Appliance) completeRestore() error {
	moved, err := backup.Complete(a.cfg.StateDir)
	if len(moved) > 0 {
		a.log.Warn("restore that was cut off is completed: what was there is moved aside", "path", a.cfg.StateDir, "name", moved)
	}
	return err
}
