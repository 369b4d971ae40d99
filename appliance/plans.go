// plans.go: how versions are best run, as it was measured: remembered beside the journal, so that a restart or a rollback does not measure again.
package appliance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/inferd/inferd/inference/tuning"
	"github.com/inferd/inferd/storage"
)

const (
	plansFile   = "plans.json"
	plansFormat = 1
	mostPlans   = 512 // the oldest go first
	mostOfPlans = 16 << 20
	// mostTries is how often a version is measured of which not everything could be decided: its figures differed too much, or there was no
	// time or memory; then what was found stands.
	mostTries = 3
)

// tuned is what measuring a version has come to.
type tuned struct {
	Key     string           `json:"key"` // see planKey
	Model   string           `json:"model"`
	Version int64            `json:"version"`
	At      time.Time        `json:"at"`
	Took    time.Duration    `json:"took"`
	CPU     string           `json:"cpu"`
	Runtime string           `json:"runtime"`
	Plain   tuning.Plan      `json:"plain"`
	Plan    tuning.Plan      `json:"plan"`
	Tried   []tuning.Outcome `json:"tried"`
	Reason  string           `json:"reason,omitempty"` // why nothing was measured, or why what was found is not used
	Tries   int              `json:"tries,omitempty"`  // that did not decide
}

// decided reports whether another measurement would be for nothing.
func (t *tuned) decided() bool { return t.Tries == 0 || t.Tries >= mostTries }

// plans are the remembered ones. Every method may be called from any goroutine, also of nil, which remembers nothing.
type plans struct {
	path string
	log  *slog.Logger

	mu   sync.Mutex
	read bool              // guarded by mu, as the next
	all  map[string]*tuned // by key; what it points to is immutable
}

func newPlans(stateDir string, log *slog.Logger) *plans {
	return &plans{path: filepath.Join(stateDir, plansFile), log: log.With("component", "tuning"), all: make(map[string]*tuned)}
}

// load reads the file at the first use. One that cannot be read is begun anew: all that is lost is time. mu is held.
func (p *plans) load() {
	if p.read {
		return
	}
	p.read = true
	b, err := readSmall(p.path, mostOfPlans)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var list []*tuned
	if err == nil {
		list, err = parsePlans(b)
	}
	if err != nil {
		p.log.Warn("measured plans are not read: versions are measured again", "path", p.path, "err", err)
		return
	}
	for _, t := range list {
		p.all[t.Key] = t
	}
}

type plansText struct {
	Format int      `json:"format"`
	Plans  []*tuned `json:"plans"`
}

func parsePlans(b []byte) ([]*tuned, error) {
	var text plansText
	if err := json.Unmarshal(b, &text); err != nil {
		return nil, err
	}
	if text.Format != plansFormat {
		return nil, fmt.Errorf("has format %d, this inferd reads %d", text.Format, plansFormat)
	}
	if len(text.Plans) > mostPlans {
		return nil, fmt.Errorf("has %d plans, at most %d are kept", len(text.Plans), mostPlans)
	}
	for i, t := range text.Plans {
		if t == nil || t.Key == "" {
			return nil, fmt.Errorf("plan %d has no key", i+1)
		}
		if err := errors.Join(t.Plan.Check(), t.Plain.Check()); err != nil {
			return nil, fmt.Errorf("plan %d: %w", i+1, err)
		}
	}
	return text.Plans, nil
}

// find is what is remembered, nil for nothing.
func (p *plans) find(key string) *tuned {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load()
	return p.all[key]
}

// put remembers t.
func (p *plans) put(t *tuned) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load()
	p.all[t.Key] = t
	p.save()
}

// drop forgets what is remembered.
func (p *plans) drop(key string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.load()
	if _, there := p.all[key]; there {
		delete(p.all, key)
		p.save()
	}
}

// save writes the file. Where that fails versions are measured again after a restart, and nothing else. mu is held.
func (p *plans) save() {
	text := plansText{Format: plansFormat, Plans: make([]*tuned, 0, len(p.all))}
	for _, t := range p.all {
		text.Plans = append(text.Plans, t)
	}
	slices.SortFunc(text.Plans, func(a, b *tuned) int { return cmp.Or(b.At.Compare(a.At), cmp.Compare(a.Key, b.Key)) })
	for _, t := range text.Plans[min(len(text.Plans), mostPlans):] {
		delete(p.all, t.Key)
	}
	text.Plans = text.Plans[:min(len(text.Plans), mostPlans)]
	b, err := json.MarshalIndent(text, "", " ")
	if err == nil {
		err = storage.ReplaceFile(p.path, append(b, '\n'), 0o640)
	}
	if err != nil {
		p.log.Warn("measured plan is not remembered over a restart", "path", p.path, "err", err)
	}
}
