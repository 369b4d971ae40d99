// status.go: what the controller knows, as data for `inferd status`, health and metrics.
package updater

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// State is where a version stands, finer than the public inference.State.
type State int

// The states of a version, in the order in which it goes through them.
const (
	StateSeen        State = iota + 1 // on disk; not wanted yet, or waiting for its turn or a retry
	StateSettling                     // its files still change, or are not whole yet
	StateValidating                   // the SavedModel is read and held against what the configuration asserts
	StateLoading                      // a worker loads it
	StateWarming                      // the made-up run
	StateLive                         // published
	StateDraining                     // retired, handles are still held
	StateRetired                      // its worker has ended
	StateQuarantined                  // refused until its files change
)

var stateNames = [...]string{"", "seen", "settling", "validating", "loading", "warming", "live", "draining", "retired", "quarantined"}

// String is the state's word.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return ""
	}
	return stateNames[s]
}

// MarshalText makes the word the JSON form.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// public is TensorFlow Serving's state for it; StateUnknown where nothing is shown.
func (s State) public() inference.State {
	switch s {
	case StateSettling, StateValidating:
		return inference.StateStart
	case StateLoading, StateWarming:
		return inference.StateLoading
	case StateLive:
		return inference.StateAvailable
	case StateDraining:
		return inference.StateUnloading
	case StateRetired, StateQuarantined:
		return inference.StateEnd
	default:
		return inference.StateUnknown
	}
}

// Status is everything at one moment. It is the caller's to keep; what it points to is read-only.
type Status struct {
	// Scanned says that every base path and the models directory have been looked at at least once.
	Scanned bool
	// Watch is why changes are found by polling alone, empty while they are watched.
	Watch string
	// Polled says that the models directory is polled, for its file system may not tell of every change; empty where it does.
	Polled string
	// Journal is why what happens is not remembered over a restart, empty when it is.
	Journal string
	// Problem is what is wrong with the models directory, empty when nothing is.
	Problem string
	Models  []ModelStatus // by name
}

// Model is the status of one model.
func (s Status) Model(name string) (ModelStatus, bool) {
	i, ok := slices.BinarySearchFunc(s.Models, name, func(m ModelStatus, n string) int { return cmp.Compare(m.Name, n) })
	if !ok {
		return ModelStatus{}, false
	}
	return s.Models[i], true
}

// ModelStatus is one model at one moment.
type ModelStatus struct {
	Name       string
	BasePath   string
	Policy     string
	Configured bool // by name; false for one that was found in the models directory
	Optional   bool
	Removed    bool // no longer configured or on disk; forgotten after a while
	Looked     bool // its base path has been looked at
	// Verdict says that every version of the first look has been served, refused, or found incomplete; it is never taken back.
	Verdict  bool
	Crowded  string       // old versions fill the disk, empty when they do not
	Problem  string       // what is wrong with the base path, empty when nothing is
	Polled   string       // that the base path is polled, empty where changes are heard of
	Live     []int64      // highest first
	Intent   string       // what an operator wants beside the policy: a pin, a rollback; empty when nothing
	Trial    *TrialStatus // of a version on probation; nil when none is
	Alarm    string       // what a probation found against the version that serves, where there was none to go back to
	Unloaded bool         // an operator wants none of it
	// Deciding says that a version which the policy wants is on its way, or that nobody has looked yet where the configuration points.
	Deciding bool
	Labels   map[string]int64  // as configured and as operators have moved them
	LabelsBy map[string]string // who moved those that are not as configured
	Held     []string          // labels whose version is not live, sorted
	// Versions on disk or in memory, highest number first.
	Versions []VersionStatus
}

// Version is the status of the version by number; the live one where two folders carry it.
func (m ModelStatus) Version(number int64) (VersionStatus, bool) {
	var found VersionStatus
	ok := false
	for _, v := range m.Versions {
		if v.Number == number && (!ok || v.State == StateLive) {
			found, ok = v, true
		}
	}
	return found, ok
}

// VersionStatus is one version at one moment.
type VersionStatus struct {
	Number   int64
	Dir      string
	State    State
	Code     inference.Code // of a refusal
	Reason   string         // why it is where it is: what is missing, why it was refused, a warning on a live one
	Since    time.Time      // of the state
	Attempts int            // loads of these files
	LoadTook time.Duration  // of a live version, the made-up run included
	Bytes    int64          // on disk
	Changed  bool           // its files changed after it was loaded
	Kept     bool           // Dir is the kept copy of a good version
	KeptCopy string         // where its files are kept a second time, empty when they are not
	Proof    Proof          // of a live version
}

// published is the status that other goroutines read. The loop replaces one model's at a time.
type published struct {
	scanned bool
	watch   string
	polled  string
	problem string
	journal string
	models  map[string]ModelStatus
	changed chan struct{} // closed at the next change
}

func (p *published) status() Status {
	s := Status{Scanned: p.scanned, Watch: p.watch, Polled: p.polled, Problem: p.problem, Journal: p.journal, Models: make([]ModelStatus, 0, len(p.models))}
	for _, name := range sortedKeys(p.models) {
		s.Models = append(s.Models, p.models[name])
	}
	return s
}

// status is the model for other goroutines.
func (m *model) status() ModelStatus {
	s := ModelStatus{
		Name: m.Name, BasePath: m.BasePath, Policy: m.Policy.String(), Configured: m.configured, Optional: m.Optional, Removed: m.gone,
		Looked: m.looked, Verdict: m.verdict, Problem: m.problem, Polled: m.polled, Crowded: m.crowd, Live: m.live(), Intent: m.intent(), Unloaded: m.rec.Off != nil,
		Deciding: m.unseen || m.deciding, Labels: m.labels(), LabelsBy: m.labelsBy(), Held: slices.Clone(m.held),
	}
	s.Trial = m.trialStatus()
	for _, v := range m.ordered() {
		if v.alarm != "" && v.state == StateLive {
			s.Alarm = v.alarm
		}
		if v.kept && (v.state == StateSeen || v.state == StateRetired) {
			continue // it stands ready, and that is all
		}
		copied := ""
		if g := m.rec.good(v.number); g != nil && (g.Dir == v.dir || v.kept) {
			copied = g.Kept
		}
		s.Versions = append(s.Versions, VersionStatus{
			Number: v.number, Dir: v.dir, State: v.state, Code: v.code, Reason: v.reason, Since: v.since, Attempts: v.attempts,
			LoadTook: v.took, Bytes: v.sight.Print.Bytes, Changed: v.changed, Kept: v.kept, KeptCopy: copied, Proof: v.proof,
		})
	}
	return s
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
