// options.go: what the integrator gives the controller, and what a model is to it.
package updater

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"time"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

// Policy says which of the versions on disk are wanted. The zero value is the newest one, TensorFlow Serving's default.
type Policy struct {
	All      bool    // every version
	Specific []int64 // these, when not empty
	Latest   int     // else the highest Latest that can be served; 0 means 1
}

func (p Policy) latest() int { return max(1, p.Latest) }

// String is the policy in words, for logs and errors.
func (p Policy) String() string {
	switch {
	case p.All:
		return "all"
	case len(p.Specific) > 0:
		return fmt.Sprintf("specific %v", p.Specific)
	default:
		return fmt.Sprintf("latest %d", p.latest())
	}
}

// Model is one model to serve.
type Model struct {
	Name     string
	BasePath string // the folder whose numeric folders are the versions
	Policy   Policy
	Labels   map[string]int64 // a label is handed to the catalog while its version is live
	Optional bool             // the appliance is ready without it
	// Assert has the signatures that the model must have, as configured; nil asks for nothing. Options.Assert compares.
	Assert map[string]*pb.SignatureDef
	// Compatible refuses a version that could not answer the requests that the highest live version answers (savedmodel.Compatible).
	Compatible bool
	// Retain removes the folders behind so many good versions; 0 removes none. See surplus for what stays in any case.
	Retain int
	// KeepLastGood keeps the files of the good versions a second time, under Options.KeepDir.
	KeepLastGood bool
	AllowNaN     bool // NaN and infinity in the answer to a recorded request are a warning only

	Rollout    Rollout
	Probation  Probation // of a new version that takes over from another; the zero value: none
	Transition Transition

	DefaultDeadline time.Duration // becomes inference.Version.DefaultDeadline
	StrictShapes    bool          // becomes inference.Version.StrictShapes
	// Settings is the integrator's own (batching, threads, isolation); the updater hands it to Load and Serve and never looks inside.
	Settings any
}

func (m Model) clone() Model {
	m.Labels = maps.Clone(m.Labels)
	m.Policy.Specific = slices.Clone(m.Policy.Specific)
	m.Rollout = m.Rollout.clone()
	return m
}

// Candidate is one version on its way to the catalog.
type Candidate struct {
	Model  Model
	Number int64
	Dir    string // the version folder
	Info   *savedmodel.Info
	// Attempt counts the loads of these very files, from 1.
	Attempt int
	// First says that no version of the model serves: somebody may be waiting for this one.
	First bool
	// Need is the memory that the version is expected to take while it is loaded and proven, in bytes; Least is less than that where it was
	// never measured: what it takes in any case.
	Need, Least int64
	// Again is to be asked before the version is loaded another time than by Load (its worker died): it answers with the folder to load,
	// whose bytes are those that were loaded first, or with an error when there is none any more: then the version is given up. It reads
	// the whole folder. nil: nothing is known, load Dir.
	Again func(ctx context.Context) (dir string, err error)
}

// Options of a Controller. Zero means default, except that Read, Load and Serve must be given.
type Options struct {
	// ModelsDir is a folder whose every subfolder is a model by its own name, without configuration. A configured model of the same
	// name wins. Empty means none.
	ModelsDir string
	// Discovered fills in what a model found in ModelsDir shall have beside Name and BasePath. nil leaves the defaults.
	Discovered func(m *Model)
	// Models are those configured at the start; Reconfigure replaces them.
	Models []Model

	PollInterval time.Duration // between looks that nothing has asked for; 5 s. Without working watches at most 1 s
	SettleTime   time.Duration // how long a folder's files must have been unchanged; 2 s
	StallTime    time.Duration // how long an incomplete folder may be unchanged before it counts as refused; 5 settle times, at least 10 s
	EmptyGrace   time.Duration // how long a base path (or ModelsDir's folder) must have been empty (or gone) before what it held is unloaded; 0: at once
	ForgetAfter  time.Duration // how long a removed model's last status is kept; 10 min
	LoadTimeout  time.Duration // of one load with its probe; 10 min
	DrainTimeout time.Duration // at the stop: how long held handles are waited for before the workers end; 10 s
	RetryFirst   time.Duration // before the first retry of a load that time may cure, doubling; 1 s
	Retries      int           // of such loads; 5 (as TensorFlow Serving), negative: none
	Loaders      int           // loads at once; 2
	StartLoaders int           // loads at once until everything that is there at the start has been decided; at least Loaders
	PollOnly     bool          // no fsnotify

	// Read reads a version folder of the model; an error means that the SavedModel is not whole. It runs on its own goroutine.
	Read func(m Model, dir string) (*savedmodel.Info, error)
	// Diagnose says what a folder that is no SavedModel holds and what to do, or "" when it does not know. nil never knows.
	Diagnose func(dir string) string
	// Assert compares a model with what the configuration asserts about it. nil refuses nothing.
	Assert func(info *savedmodel.Info, want map[string]*pb.SignatureDef) error
	// Vet says why a whole version that is what the configuration asserts must not be loaded all the same. An error that wraps
	// savedmodel.ErrIncomplete means that a copy may still be under way. It runs after Read, on its goroutine. nil lets all pass.
	Vet func(m Model, dir string, info *savedmodel.Info) error
	// Load starts a worker for the candidate. Cancelling ctx should end it early; it is waited for in any case. Errors should be
	// *inference.Error; UNAVAILABLE, RESOURCE_EXHAUSTED and ABORTED are tried again unless a worker died.
	// One that wraps a *NoRoom says that the load was not begun: the version waits.
	Load func(ctx context.Context, c Candidate) (inference.Runner, error)
	// Plainer, when not nil, is asked about a runner whose runs have failed: true says that it was not loaded as the model was saved, and that the
	// next Load of the candidate does that. It must not block.
	Plainer func(c Candidate, r inference.Runner, err error) bool
	// Tune, when not nil, may put another runner of the same version, proven too, in the place of one whose runs have succeeded, which it closes
	// then. It may block for as long as measuring takes; say shows how far it is.
	Tune func(ctx context.Context, p Proven, say func(string)) (inference.Runner, Proof)
	// Proven, when not nil, is told of a runner whose runs have succeeded, before Serve: what was held back for the load is let go. It may
	// block; its error ends the load.
	Proven func(ctx context.Context, r inference.Runner) error
	// Room says how much memory may still be taken, and why it is so much; ok is false when nobody knows. It runs on a loader. nil: loads
	// are never held against it.
	Room func() (free int64, why string, ok bool)
	// Serve wraps a proven runner; closing the servable closes the runner. It must not block. One that is [Measured] can be on probation.
	Serve func(v *inference.Version, r inference.Runner, c Candidate, p Proof) inference.Servable
	// Decode reads recorded requests and golden cases. See Prove.
	Decode Decode
	// Probe bounds the made-up run.
	Probe ProbeOptions

	// Journal keeps what must survive a restart; nil: nothing does, and no version's files are put on disk or summed up.
	Journal Journal
	// KeepDir is where good versions are kept a second time. Empty, or without a Journal: nowhere.
	KeepDir string
	// KeepCopyBytes is up to which size a version is copied where its file system cannot share bytes; a larger one is hard linked.
	KeepCopyBytes int64
	// DiskFloor is how many bytes of KeepDir's file system such a copy leaves free, as configured by now. 0 or nil: a twentieth of it.
	DiskFloor func() int64
	// Step, when not nil, is called at each named step of an update (trying, warming, loaded, published, good, retired), so that tests can
	// end the process there. It must not call the controller.
	Step func(name string)
	// OnlyGood has the folders that are there at the start left alone but for those that were good once: a safe start. What comes later, or is
	// changed, is tried as ever.
	OnlyGood bool
	// Build names this inferd and its runtime: a version that another one refused is tried again.
	Build string

	Log *slog.Logger // nil discards
}

func (o Options) withDefaults() (Options, error) {
	if o.Read == nil || o.Load == nil || o.Serve == nil {
		return o, errors.New("updater: Read, Load and Serve must be given")
	}
	o.defaultTimes()
	def := defaultTime
	def(&o.ForgetAfter, 10*time.Minute)
	def(&o.LoadTimeout, 10*time.Minute)
	def(&o.RetryFirst, time.Second)
	if o.Retries == 0 {
		o.Retries = 5
	}
	if o.Loaders <= 0 {
		o.Loaders = 2
	}
	o.StartLoaders = max(o.StartLoaders, o.Loaders)
	if o.Diagnose == nil {
		o.Diagnose = func(string) string { return "" }
	}
	if o.Assert == nil {
		o.Assert = func(*savedmodel.Info, map[string]*pb.SignatureDef) error { return nil }
	}
	if o.Vet == nil {
		o.Vet = func(Model, string, *savedmodel.Info) error { return nil }
	}
	if o.Step == nil {
		o.Step = func(string) {}
	}
	if o.Discovered == nil {
		o.Discovered = func(*Model) {}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.Log = o.Log.With("component", "updater")
	o.Probe = o.Probe.withDefaults()
	if o.ModelsDir != "" {
		o.ModelsDir = filepath.Clean(o.ModelsDir)
	}
	var err error
	o.Models, err = checkModels(o.Models)
	return o, err
}

// defaultTimes fills in the times that Apply may change.
func (o *Options) defaultTimes() {
	defaultTime(&o.PollInterval, 5*time.Second)
	defaultTime(&o.SettleTime, 2*time.Second)
	defaultTime(&o.DrainTimeout, 10*time.Second)
	defaultTime(&o.StallTime, max(10*time.Second, 5*o.SettleTime))
}

func defaultTime(d *time.Duration, v time.Duration) {
	if *d <= 0 {
		*d = v
	}
}

// checkModels returns clean copies, or every fault at once.
func checkModels(models []Model) ([]Model, error) {
	var errs []error
	seen := make(map[string]bool)
	out := make([]Model, 0, len(models))
	for i, m := range models {
		switch {
		case m.Name == "":
			errs = append(errs, fmt.Errorf("model %d has no name", i+1))
		case seen[m.Name]:
			errs = append(errs, fmt.Errorf("model %s is configured twice", m.Name))
		case m.BasePath == "":
			errs = append(errs, fmt.Errorf("model %s has no base path", m.Name))
		}
		seen[m.Name] = true
		m = m.clone()
		m.BasePath = filepath.Clean(m.BasePath)
		out = append(out, m)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return out, nil
}
