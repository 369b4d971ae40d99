// model.go: Model, one loaded version over a supervised worker.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// Options of a Model. Zero means default. Models of one Group share the options of the first.
type Options struct {
	RunTimeout  time.Duration // a run that takes longer ends its worker; 30 s
	LoadTimeout time.Duration // 10 min
	// Backoff before the second restart in a row, doubled up to MaxBackoff; the first is at once. 100 ms and 5 s. A worker that lived
	// for Stable (1 min) begins anew.
	Backoff, MaxBackoff, Stable time.Duration
	// GiveUpAfter is the number of deaths in a row without a suspect after which the worker is given up: runs fail at once, and it is
	// tried again once every GiveUpFor. A death has no suspect when nothing was running, or when that life had answered no run at all,
	// so that whatever is asked kills it; failing to start counts too. 6, and 10 min.
	GiveUpAfter int
	GiveUpFor   time.Duration
	MemoryLimit int64 // resident bytes of the process, see SetMemoryLimit; 0 means none
	MaxRunBytes int64 // of the inputs or the outputs of one run; 2 GiB
	// Group names a process that several models share, as on a GPU. Empty gives the model a process of its own.
	Group string
	// Folders are what the process of a Group may read, when it is confined, for those that join its first member: folders that hold
	// versions. A version that lies elsewhere gets a process of its own.
	Folders []string
	// Env is added to the environment of the version's process, which is started afresh for that: a library that the zygote has open has read
	// its environment. It means nothing in a Group that lives already.
	Env []string
	// Again, if not nil, is asked for the folder to load before a new process loads the version; an error counts as a failed
	// start, and DATA_LOSS gives the worker up at once.
	Again func(ctx context.Context) (dir string, err error)
	// Gently loads the version, and makes its runs, at low priority until Promote. A worker that gets no processor then is ended, with
	// inference.ErrStarved. It means nothing in a Group: the others' runs would wait for locks that a thread of low priority holds.
	// A worker that replaces one that died loads at normal priority.
	Gently bool
	// Room, if not nil, is asked before a process is started in the place of one that was parked or has died; its error goes to the runs that
	// wait, and is no death: the next run asks again. What it returns is called when that process has ended.
	Room func(ctx context.Context) (release func(), err error)
	// OnState, if not nil, is told of each change of state with the reason. It must not call the Model.
	OnState func(State, string)
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.RunTimeout, 30*time.Second)
	def(&o.LoadTimeout, 10*time.Minute)
	def(&o.Backoff, 100*time.Millisecond)
	def(&o.MaxBackoff, 5*time.Second)
	def(&o.Stable, time.Minute)
	def(&o.GiveUpFor, 10*time.Minute)
	if o.GiveUpAfter <= 0 {
		o.GiveUpAfter = 6
	}
	if o.MaxRunBytes <= 0 {
		o.MaxRunBytes = 2 << 30
	}
	o.Gently = o.Gently && o.Group == ""
	if o.OnState == nil {
		o.OnState = func(State, string) {}
	}
	return o
}

// State is how a Model's worker is.
type State int

// The states of a Model.
const (
	Live       State = iota + 1 // runs go through
	Restarting                  // runs wait
	GivenUp                     // runs fail at once
	Parked                      // the process was ended to save memory; the next run starts another
	Closed
)

// String is the state in lower case, for logs and status.
func (s State) String() string {
	return [...]string{"unknown", "live", "restarting", "given up", "parked", "closed"}[max(0, min(s, Closed))]
}

// Model is one loaded version in a supervised worker process. It is an inference.Runner.
type Model struct {
	unit   *unit
	load   Load
	opts   Options
	target target
	runs   atomic.Uint64
	closed atomic.Bool

	loadTook atomic.Int64 // nanoseconds
	frozen   atomic.Pointer[frozenness]
	failed   error // guarded by unit.mu: why it could not be loaded again, where the group lives on without it
}

var _ inference.Runner = (*Model)(nil)

// Open starts a worker (or joins its Group's), has it load l, and supervises it until Close. It blocks until the version is loaded, ctx
// ends or LoadTimeout passes. When the backend refuses, the error is an *inference.Error with the backend's code and text.
func (h *Host) Open(ctx context.Context, l Load, opts Options) (*Model, error) {
	opts = opts.withDefaults()
	l.Library = h.opts.Library
	if l.Callers <= 0 {
		l.Callers = runtime.GOMAXPROCS(0)
	}
	m := &Model{load: l, opts: opts}
	m.opts.Folders = nil
	for _, dir := range opts.Folders {
		m.opts.Folders = append(m.opts.Folders, resolved(dir))
	}
	m.target.signatures = make(map[string]targetSignature, len(l.Signatures))
	for i, key := range slices.Sorted(maps.Keys(l.Signatures)) {
		size := new(atomic.Int64)
		size.Store(minAreaBytes)
		m.target.signatures[key] = targetSignature{number: uint32(i), outBytes: size}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, opts.LoadTimeout, fmt.Errorf("loading took longer than %v: %w", opts.LoadTimeout, context.DeadlineExceeded))
	defer cancel()
	began := time.Now()
	u, err := h.join(ctx, m)
	if err == nil {
		if err = u.add(ctx, m); err == nil {
			m.loadTook.CompareAndSwap(0, int64(time.Since(began)))
			return m, nil
		}
		h.leave(u)
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return nil, fmt.Errorf("load model %s version %d: %w", l.Model, l.Version, err)
}

// join finds or makes the unit for m and takes a reference to it.
func (h *Host) join(ctx context.Context, m *Model) (*unit, error) {
	place := m.load.Dir
	if h.opts.Sandbox != nil {
		place = resolved(place)
	}
	h.mu.Lock()
	u := h.units[m.opts.Group]
	if u != nil && m.opts.Group != "" && h.opts.Sandbox != nil && !slices.ContainsFunc(u.opts.Folders, func(dir string) bool { return below(place, dir) }) {
		h.log.Info("version has a process of its own: the shared one was confined before its folder was known", "model", m.load.Model, "version", m.load.Version)
		m.opts.Group = ""
	}
	if u == nil || m.opts.Group == "" {
		u = newUnit(h, m)
		if m.opts.Group != "" {
			h.units[m.opts.Group] = u
		}
		u.refs = 1
		h.mu.Unlock()
		if err := u.begin(ctx); err != nil {
			h.leave(u)
			return nil, err
		}
		return u, nil
	}
	u.refs++
	h.mu.Unlock()
	select {
	case <-u.begun:
	case <-ctx.Done():
		h.leave(u)
		return nil, ctx.Err()
	}
	if u.beginErr != nil {
		h.leave(u)
		return nil, u.beginErr
	}
	return u, nil
}

// leave drops a reference, and ends the unit with the last one.
func (h *Host) leave(u *unit) {
	h.mu.Lock()
	u.refs--
	last := u.refs == 0
	if last && h.units[u.opts.Group] == u {
		delete(h.units, u.opts.Group)
	}
	h.mu.Unlock()
	if last {
		u.close()
	}
}

// Slots is the number of runs that may usefully be in flight: each caller of the worker has one, and the next one at hand.
func (m *Model) Slots() int { return 2 * m.unit.process.callers }

// Run is described at inference.Runner. Every error is an *inference.Error.
func (m *Model) Run(ctx context.Context, run *inference.Run) (*inference.Result, error) {
	for {
		p, err := m.unit.await(ctx, m)
		if err != nil {
			return nil, m.name(err)
		}
		res, err := p.run(ctx, &m.target, run)
		if err == nil {
			m.runs.Add(1)
			return res, nil
		}
		if !errors.Is(err, errNotBegun) {
			return nil, m.name(err)
		}
	}
}

// name puts the model into an error that has none.
func (m *Model) name(err error) error {
	e := inference.AsError(err)
	if e.Model == "" {
		e.Model, e.Version = m.load.Model, m.load.Version
	}
	return e
}

// frozenness is what became of Load.Freeze.
type frozenness struct {
	done   bool
	reason string
}

// Frozen reports whether the variables are constants in the process that loaded the version last, and what was found when that was asked for:
// on what the answers were compared, or why they are not. The reason is empty where nobody asked.
func (m *Model) Frozen() (frozen bool, reason string) {
	f := m.frozen.Load()
	if f == nil {
		return false, ""
	}
	return f.done, f.reason
}

// Shared reports whether the process may hold other models too.
func (m *Model) Shared() bool { return m.opts.Group != "" }

// Device is the GPU that the model computes on; empty: the CPU.
func (m *Model) Device() string { return m.load.Device }

// Close unloads the version and ends its process, unless others of its Group live there. No Run may be in progress; a Result that is not
// released yet stays readable. Calling it again does nothing.
func (m *Model) Close() error {
	if m.closed.CompareAndSwap(false, true) {
		m.unit.remove(m)
		m.unit.host.leave(m.unit)
		m.opts.OnState(Closed, "")
	}
	return nil
}

// Stats of a Model. Those of the process are of the whole group.
type Stats struct {
	State       State
	Reason      string // why it is not live
	PID         int    // 0 when there is no process
	Restarts    int
	Runs        uint64 // that were answered
	Device      string // Load.Device
	Started     time.Time
	LastDeath   *Death        // nil when it never died; immutable
	LoadTook    time.Duration // the last load into a new process
	Memory      Memory        // of the process; zero when there is none
	SharedBytes int64         // of tensors, mapped by the core
}

// Stats reads the process's memory, which takes milliseconds for a large one.
func (m *Model) Stats() Stats {
	s, p := m.unit.stats()
	s.Runs, s.Device, s.LoadTook = m.runs.Load(), m.load.Device, time.Duration(m.loadTook.Load())
	if m.closed.Load() {
		return Stats{State: Closed, Runs: s.Runs, Restarts: s.Restarts, LastDeath: s.LastDeath}
	}
	if p != nil {
		s.SharedBytes = p.arena.size()
		s.Memory, _ = readAllMemory(p.pid) // zero when it has just ended
	}
	return s
}

func subject(l *Load, group string) string {
	if group != "" {
		return "group " + group
	}
	return fmt.Sprintf("model %s version %d", l.Model, l.Version)
}

func logger(h *Host, l *Load, group string) *slog.Logger {
	if group != "" {
		return h.log.With("name", group)
	}
	return h.log.With("model", l.Model, "version", l.Version)
}
