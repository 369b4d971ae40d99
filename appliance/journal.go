// journal.go: the state file as the updater's journal.
package appliance

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/storage"
)

// What lies in state_dir.
const (
	stateFile = "state.db"
	keptDir   = "versions" // the kept copies of good versions
)

// KeepDir is where the kept copies of good versions lie.
func KeepDir(cfg *config.Config) string { return filepath.Join(cfg.StateDir, keptDir) }

// stateJournal is what the updater writes to. A state file that cannot be opened stops nothing: every method then says why.
type stateJournal struct {
	mu    sync.Mutex
	db    *storage.DB // guarded by mu
	state *storage.State
	err   error // guarded by mu: why there is none
}

// open opens the state file. The only errors are that another process has it, and that a newer inferd wrote it: what that remembers, refusals
// and rollbacks among it, is not to be passed over.
func (j *stateJournal) open(dir, version string, log *slog.Logger) error {
	db, err := storage.Open(filepath.Join(dir, stateFile), storage.Options{Log: log, Version: version})
	j.mu.Lock()
	defer j.mu.Unlock()
	if errors.Is(err, storage.ErrLocked) {
		j.err = fmt.Errorf("nothing is remembered over a restart: %w", err)
		return fmt.Errorf("%w; is another inferd running? stop it, or give this one another state_dir", err)
	}
	if errors.Is(err, storage.ErrNewer) {
		j.err = fmt.Errorf("nothing is remembered over a restart: %w", err)
		return err
	}
	if err != nil {
		j.err = fmt.Errorf("nothing is remembered over a restart: %w", err)
		log.Error("no state file: nothing is remembered over a restart", "err", err)
		return nil
	}
	j.db, j.state = db, db.State()
	return nil
}

func (j *stateJournal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.db == nil {
		return nil
	}
	return j.db.Close()
}

func (j *stateJournal) get() (*storage.State, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.state == nil && j.err == nil {
		return nil, storage.ErrClosed
	}
	return j.state, j.err
}

// States implements updater.Journal.
func (j *stateJournal) States() (map[string][]byte, error) {
	s, err := j.get()
	if err != nil {
		return nil, err
	}
	return s.States()
}

// Record implements updater.Journal.
func (j *stateJournal) Record(model string, state []byte, events ...[]byte) error {
	s, err := j.get()
	if err != nil {
		return err
	}
	return s.Record(model, state, events...)
}

// History implements updater.Journal.
func (j *stateJournal) History(model string, limit int) ([][]byte, error) {
	s, err := j.get()
	if err != nil {
		return nil, err
	}
	return s.History(model, limit)
}

// conditions say what is wrong with the journal; problem is the updater's word.
func (j *stateJournal) conditions(problem string) (out []health.Condition) {
	if problem != "" {
		out = append(out, health.Condition{Code: health.CodeJournal, Severity: health.Warning,
			Message: "what happens is not remembered over a restart: " + problem + "; make room or put right state_dir"})
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.db != nil && j.db.Damaged() != "" && problem == "" {
		out = append(out, health.Condition{Code: health.CodeJournal, Severity: health.Warning,
			Message: "the state file was damaged and begun anew: refusals and history from before are lost; the old one is " + j.db.Damaged()})
	}
	return out
}
