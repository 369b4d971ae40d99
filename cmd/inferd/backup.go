// backup.go: one file of what must not be lost, and back.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/backup"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/storage"
)

func backupCommand(e *env) *cobra.Command {
	var versions bool
	cmd := &cobra.Command{
		Use:   "backup FILE|-",
		Short: "Write state, queue and configuration into one file, of a running inferd or of one that is stopped",
		Long: "backup writes what an inferd must not lose: what it remembers of its models, the queue with every job and result, the configuration with\n" +
			"conf.d and the hashes of its tokens, and with --versions the kept copies of good versions. The running inferd is asked for it, and goes on\n" +
			"meanwhile; where none runs the files are read. FILE is whole and checked when it has its name; an older one is replaced then. - is standard output.\n" +
			"Private keys and models are not in it.",
		Example: "  inferd backup /backup/inferd.tar.zst\n  inferd backup --versions - | ssh elsewhere 'cat > box7.tar.zst'",
		Args:    exactly(1, "one file, or - for standard output"),
	}
	cmd.Flags().BoolVar(&versions, "versions", false, "also the kept copies of good versions, so that models serve before their folders are there again")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		take := func(w io.Writer) error {
			c, err := e.client()
			if err != nil {
				return err
			}
			defer c.Close()
			err = c.Backup(ctx, versions, w)
			if e.address != "" || !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
				return err
			}
			cfg, loadErr := config.Load(e.configFile(), nil)
			if loadErr != nil {
				return errors.Join(err, loadErr)
			}
			fmt.Fprintf(e.err, "inferd: no inferd answers: the files in %s are read\n", cfg.StateDir)
			return appliance.Backup(ctx, cfg, version, versions, w)
		}
		if args[0] == "-" {
			_, _, err := checkedBackup(e.out, take)
			return err
		}
		m, size, err := backupFile(args[0], take)
		if err != nil {
			return err
		}
		return e.print(map[string]any{"file": args[0], "bytes": size, "manifest": m}, func(w io.Writer) {
			fmt.Fprintf(w, "%s: %d bytes, checked; `inferd restore %s` puts it back\n", args[0], size, args[0])
		})
	}
	return cmd
}

// checkedBackup writes a backup to w and reads it at the same time: what is not whole is an error.
func checkedBackup(w io.Writer, take func(io.Writer) error) (m backup.Manifest, size int64, err error) {
	r, pipe := io.Pipe()
	counted := &counter{w: w}
	taken := make(chan error, 1)
	go func() {
		err := take(io.MultiWriter(counted, pipe))
		_ = pipe.CloseWithError(err) // nil is the end; it never fails
		taken <- err
	}()
	m, err = backup.Read(r, func(backup.Member, io.Reader) error { return nil })
	_ = r.CloseWithError(err) // it never fails
	if e := <-taken; e != nil && !errors.Is(e, backup.ErrArchive) {
		err = e // why it was cut off
	}
	return m, counted.n, err
}

type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// backupFile gives the file its name when it is whole.
func backupFile(path string, take func(io.Writer) error) (m backup.Manifest, size int64, err error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".")
	if err != nil {
		return m, 0, err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if m, size, err = checkedBackup(f, take); err != nil {
		return m, 0, err
	}
	if err = f.Sync(); err != nil {
		return m, 0, err
	}
	if err = errors.Join(f.Close(), os.Rename(f.Name(), path)); err != nil {
		return m, 0, err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return m, size, nil //nolint:nilerr // it is there; where its folder cannot be read it cannot be synced
	}
	_ = dir.Sync() // likewise
	return m, size, dir.Close()
}

func restoreCommand(e *env) *cobra.Command {
	var configuration bool
	cmd := &cobra.Command{
		Use:   "restore FILE|-",
		Short: "Put back what `inferd backup` wrote, while no inferd runs; what is there is moved aside",
		Long: "restore reads a backup, checks all of it, and only then puts it in the place of what is in state_dir, which is moved aside. Jobs that ran are\n" +
			"queued again. Where the queue that is there can be read, what has been answered since the backup is not answered a second time. Streams'\n" +
			"sessions end. Cut off at any point, it has either changed nothing, or the next start of inferd completes it.",
		Example: "  systemctl stop inferd && inferd restore /backup/inferd.tar.zst && systemctl start inferd\n  inferd restore --configuration box7.tar.zst",
		Args:    exactly(1, "one file, or - for standard input"),
	}
	s := e.settings(cmd)
	cmd.Flags().BoolVar(&configuration, "configuration", false, "also put back the configuration; files that differ are kept beside it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		cfg, err := s.load()
		if err != nil && configuration && errors.Is(err, fs.ErrNotExist) { // it is what is to be put back
			return usagef("%w; make an empty one first", err)
		}
		if err != nil {
			return err
		}
		in := e.in
		if args[0] != "-" {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }() // only read
			in = f
		}
		o := appliance.RestoreOptions(cfg, version)
		if configuration {
			if o.ConfigFile = e.configFile(); o.ConfigFile == "" {
				o.ConfigFile = config.DefaultFile
			}
		}
		done, err := restore(cmd.Context(), in, o)
		if err != nil {
			return err
		}
		return e.print(done, func(w io.Writer) { restoredText(w, cfg.StateDir, &done) })
	}
	return cmd
}

func restore(ctx context.Context, in io.Reader, o backup.Options) (backup.Restored, error) {
	done, err := backup.Restore(ctx, in, o)
	switch {
	case errors.Is(err, storage.ErrLocked):
		return done, fmt.Errorf("%w: an inferd runs on %s; stop it first (systemctl stop inferd); nothing was changed", err, o.StateDir)
	case err != nil:
		return done, fmt.Errorf("restore: %w", err)
	}
	return done, nil
}

func restoredText(w io.Writer, dir string, r *backup.Restored) {
	fmt.Fprintf(w, "restored into %s: %s, as inferd %s wrote them on %s\n", dir, strings.Join(r.Put, ", "), r.Manifest.Inferd, r.Manifest.Made.Format("2006-01-02 15:04:05 UTC"))
	if r.Aside != "" {
		fmt.Fprintf(w, "what was there (%s) lies in %s; remove that when nothing is missed\n", strings.Join(r.Moved, ", "), r.Aside)
	}
	if j := r.Jobs; j != nil {
		fmt.Fprintf(w, "queue: %d jobs wait and will be answered, %d have ended\n", j.Waiting, j.Finished)
		switch {
		case j.Compared:
			fmt.Fprintf(w, "  held against the queue that was there: %d had been answered since and keep that answer, %d had been acknowledged and are not brought back\n", j.Answered, j.Gone)
			if j.Later > 0 {
				fmt.Fprintf(w, "  %d jobs came after the backup and are not in it; `inferd queue ls --file %s` shows them\n", j.Later, filepath.Join(r.Aside, backup.QueueName))
			}
		default:
			fmt.Fprintf(w, "  what has been answered since the backup is not known (%s): those jobs run a second time, and their results are kept for whoever asks for them by their ids\n", j.Why)
		}
		if j.Sessions > 0 {
			fmt.Fprintf(w, "  %d sessions of streams are ended: their clients begin new ones\n", j.Sessions)
		}
	}
	if len(r.Config) > 0 {
		fmt.Fprintf(w, "configuration: %s\n", strings.Join(r.Config, ", "))
	}
	if len(r.Replaced) > 0 {
		fmt.Fprintf(w, "  what that replaced lies beside it: %s\n", strings.Join(r.Replaced, ", "))
	}
	if len(r.Left) > 0 {
		fmt.Fprintf(w, "the configuration was left as it is; the backup has %s, which --configuration puts back\n", strings.Join(r.Left, ", "))
	}
}
