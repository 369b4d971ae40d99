// bundleasked.go: the archive's parts that a running inferd tells, and those that its files tell when none runs.
package appliance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/storage"
	"github.com/inferd/inferd/updater"
)

const (
	bundleStateBytes = 256 << 20 // of a state file that is copied to be read
	bundleHistory    = 200       // events of each model
)

// running asks the inferd that runs; nil: none answers.
func (b *bundle) running(c *control.Client, o BundleOptions) *control.Status {
	var s *control.Status
	b.add("status.json", "inferd status", func(ctx context.Context) (_ []byte, err error) {
		if s, err = c.Status(ctx); err != nil {
			return nil, err
		}
		return indented(s)
	})
	b.add("version.txt", "inferd version", func(context.Context) ([]byte, error) {
		text := "this command: inferd " + o.Version + "\n"
		if s != nil {
			text += "running:      inferd " + s.Version + "\nTensorFlow:   " + s.Runtime.Library + "\n"
		}
		return []byte(text), nil
	})
	if s == nil {
		return nil
	}
	b.manifest.Running = true
	b.add("metrics.txt", "/metrics", func(ctx context.Context) ([]byte, error) {
		paths := o.Config.Monitoring.Paths
		if len(paths) == 0 {
			return nil, errors.New("monitoring.paths is empty")
		}
		return fetch(ctx, c, paths[0])
	})
	b.add("admission.json", "/v1/admission, without its clients", func(ctx context.Context) ([]byte, error) {
		text, err := fetch(ctx, c, admissionPath)
		if err != nil {
			return nil, err
		}
		var r admission.Report
		if err := json.Unmarshal(text, &r); err != nil {
			return nil, err
		}
		r.Clients = nil // their names are theirs
		return indented(r)
	})
	b.add("queue.json", "inferd queue ls, the counts alone", func(ctx context.Context) ([]byte, error) {
		q, err := c.Overview(ctx)
		if err != nil {
			return nil, err
		}
		return indented(q)
	})
	for _, m := range s.Models {
		b.add("history/"+filepath.Base(m.Name)+".json", "inferd models history "+m.Name, func(ctx context.Context) ([]byte, error) {
			events, err := c.History(ctx, m.Name, bundleHistory)
			if err != nil {
				return nil, err
			}
			return indented(events)
		})
	}
	b.gap("audit.txt", "the running inferd has the state file; `inferd status` tells what is wrong with it, and an archive that is made while inferd is stopped audits it")
	return s
}

func fetch(ctx context.Context, c *control.Client, path string) ([]byte, error) {
	code, text, err := c.Do(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("%s answers %d", path, code)
	}
	return text, nil
}

// configuration is the effective one: the file's comments and the places that only its author knows are not in it.
func (b *bundle) configuration(o BundleOptions) {
	b.add("configuration.yaml", "the configuration that this command read, every key", func(context.Context) ([]byte, error) {
		if o.ConfigErr != nil {
			return nil, fmt.Errorf("the configuration has faults: %w", o.ConfigErr)
		}
		return withoutSecrets(o.Config.YAML())
	})
}

// atRest looks into the state and the queue, which nobody has open.
func (b *bundle) atRest(cfg *config.Config) {
	b.add("audit.txt", "the journal in "+stateFile+", held to its invariants", func(context.Context) ([]byte, error) {
		return auditCopy(filepath.Join(cfg.StateDir, stateFile))
	})
	b.add("queue.json", "the counts of "+queueFile, func(context.Context) ([]byte, error) {
		path := QueueFile(cfg)
		if _, err := os.Stat(path); err != nil {
			return nil, err // opening would make one
		}
		opts := QueueOptions(cfg)
		opts.ReadOnly = true
		q, err := storage.OpenQueue(path, opts)
		if err != nil {
			return nil, err
		}
		defer func() { _ = q.Close() }() // only read
		return indented(q.Stats())
	})
}

// auditCopy checks a copy of the state file, for opening it brings an older one up to date and moves a damaged one aside.
func auditCopy(path string) ([]byte, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }() // only read
	dir, err := os.MkdirTemp("", "inferd-audit")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears what is left
	copied := filepath.Join(dir, stateFile)
	out, err := os.OpenFile(copied, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(out, io.LimitReader(in, bundleStateBytes+1))
	if err = errors.Join(err, out.Close()); err != nil {
		return nil, err
	}
	if n > bundleStateBytes {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, bundleStateBytes>>20)
	}
	db, err := storage.Open(copied, storage.Options{})
	if err != nil {
		return nil, err
	}
	defer func() { _ = db.Close() }() // a copy
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s, %d bytes\n", path, n)
	if db.Damaged() != "" {
		fmt.Fprintln(&text, "the file is damaged: inferd will move it aside and begin a new one")
	} else if err := updater.CheckJournal(db.State()); err != nil {
		fmt.Fprintln(&text, err)
	} else {
		fmt.Fprintln(&text, "nothing is wrong with it")
	}
	return text.Bytes(), nil
}
