// memory.go: the keeper of the account of memory: it reserves for loads and makes room by parking idle versions.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/tuning"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

const (
	roomWait = 10 * time.Second       // for others to become idle, before those who wait for a parked version are told
	roomLook = 100 * time.Millisecond // how often it is looked meanwhile whether somebody is

	// freezeTimes is how many times the memory of its variables a version is booked for more while it is frozen. Its first run may take more, of
	// which the worker's limit is the bound (see tfrt.Options.Freeze).
	freezeTimes = 3
)

// parkable is a worker whose process can be ended for a while; the next run starts it again.
type parkable interface {
	Park(reason string) error
	Vitals() (deaths int, last string, bytes int64)
}

// keeper keeps the account of memory true.
type keeper struct {
	// immutable
	ledger *admission.Ledger
	root   fs.FS // the file system from /, for what the kernel says about memory
	config func() *config.Config
	live   *workers
	health *health.Tracker
	log    *slog.Logger
	turn   chan struct{} // cap 1: full while somebody makes room

	// set before run
	fork  int64 // what the zygote takes, before it is there to be measured
	host  func() worker.HostStats
	freed func()                 // who waits for memory may try again
	anon  func(pid string) int64 // of a process: the pages that are no file's and not shared; 0 when it is no more

	mu       sync.Mutex
	accounts map[*account]struct{} // guarded by mu
	sample   admission.Sample      // guarded by mu; the last one
	level    admission.Level       // guarded by mu
	disk     admission.Disk        // guarded by mu

	core, zygote, storage *admission.Entry
	goLimit               int64 // owned by run
}

func newKeeper(cfg func() *config.Config, root fs.FS, live *workers, tracker *health.Tracker, log *slog.Logger) *keeper {
	k := &keeper{
		ledger: admission.NewLedger(), root: root, config: cfg, live: live, health: tracker, log: log.With("component", "memory"),
		turn: make(chan struct{}, 1), accounts: make(map[*account]struct{}), host: func() worker.HostStats { return worker.HostStats{} },
		freed: func() {}, anon: procAnon,
	}
	k.core = k.ledger.Book(admission.Owner{Kind: admission.OwnerCore})
	k.zygote = k.ledger.Book(admission.Owner{Kind: admission.OwnerZygote})
	k.storage = k.ledger.Book(admission.Owner{Kind: admission.OwnerStorage})
	k.limit()
	k.bookCore()
	return k
}

// limit puts the limit in force into the ledger.
func (k *keeper) limit() {
	m := k.config().Memory
	l := admission.InForce(k.root, int64(m.Limit), int64(m.Reserve))
	old := k.ledger.Limit()
	k.ledger.SetLimit(l, admission.ShareOf(l.Bytes, int64(m.Requests)))
	if l.Usable() > old.Usable() {
		k.freed()
	}
	if old.Bytes != l.Bytes && l.Bytes > 0 {
		k.log.Info("memory limit is in force", "bytes", l.Bytes, "reason", l.Why)
	}
}

// account is what one version's worker has of the memory, from before it is loaded until it is closed.
type account struct {
	keeper *keeper
	entry  *admission.Entry
	owner  admission.Owner // when it is proven
	need   int64           // as reserved for the load
	own    int64           // its configured limit, 0 for none

	mu    sync.Mutex
	model parkable // guarded by mu; nil until it is loaded, and with isolation none
	floor int64    // guarded by mu; the most that it had while it was proven: what it may take at any time
	load  int64    // guarded by mu; the most that it had while it was loaded: what is reserved until it answers
	awake bool     // guarded by mu; its process is there, or is about to be
	comes bool     // guarded by mu; it is about to be: the reservation counts, not what is measured
	life  int      // guarded by mu; of its process
}

// reserve books what the candidate's load is expected to take, and parks idle versions for it where that is allowed. An error wraps
// updater.NoRoom.
func (k *keeper) reserve(ctx context.Context, c updater.Candidate) (*account, error) {
	if k == nil {
		return nil, nil //nolint:nilnil // a trial keeps no account, and a nil account does nothing
	}
	need := c.Need
	if k.pressure() > admission.Calm && len(k.live.all()) > 0 {
		free, _ := k.ledger.Free()
		return nil, &updater.NoRoom{Need: need, Free: free, Why: "memory is short: nothing is loaded while it is"}
	}
	owner := admission.Owner{Kind: admission.OwnerLoading, Model: c.Model.Name, Version: c.Number}
	var e *admission.Entry
	for c.First && k.loading() { // they give back what they have reserved too much: before that nobody is parked, and nothing put off
		room := k.ledger.Room()
		var err error
		if e, err = k.ledger.Reserve(owner, need); err == nil {
			return k.account(c, e), nil
		}
		select {
		case <-room:
		case <-time.After(roomLook): // a load that has ended in another way
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	take := func(bytes int64) error {
		return k.makeRoom(ctx, bytes, owner, false, func() (err error) {
			e, err = k.ledger.Reserve(owner, bytes)
			return err
		})
	}
	err := take(need)
	if err != nil { // the core may hold pages that it does not need
		k.tidy()
		err = take(need)
	}
	if err != nil && c.Least < need { // it was only a guess
		if err = take(c.Least); err == nil {
			if free, limited := k.ledger.Free(); limited {
				_ = e.Grow(min(free, need-c.Least)) // somebody else has taken it: then this is what it has
			}
		}
	}
	var short *admission.Short
	switch {
	case errors.As(err, &short):
		return nil, &updater.NoRoom{Need: short.Needed, Free: short.Free, Why: fmt.Sprintf("of %s, %s", gib(short.Limit), short.Why)}
	case err != nil:
		return nil, err
	}
	return k.account(c, e), nil
}

// loading reports whether something is being loaded or proven.
func (k *keeper) loading() bool {
	owners, _ := k.ledger.Snapshot()
	return slices.ContainsFunc(owners, func(o admission.OwnerReport) bool { return o.Owner == admission.OwnerLoading })
}

// account makes the candidate's account of what was reserved.
func (k *keeper) account(c updater.Candidate, e *admission.Entry) *account {
	a := &account{keeper: k, entry: e, need: e.Bytes(), own: k.config().WorkerLimit(settings(c).ModelOptions), awake: true,
		owner: admission.Owner{Kind: admission.OwnerWorker, Model: c.Model.Name, Version: c.Number}}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.accounts[a] = struct{}{}
	return a
}

// spare reserves what a process beside a proven version of the candidate is expected to take. Nobody is parked for it.
func (k *keeper) spare(c updater.Candidate, p updater.Proof, plan tuning.Plan) (*account, error) {
	if k == nil {
		return nil, nil //nolint:nilnil // a trial keeps no account, and a nil account does nothing
	}
	if k.pressure() > admission.Calm {
		return nil, errors.New("memory is short: nothing is tried while it is")
	}
	need := max(c.Need, p.LoadPeak, p.Peak)
	if plan.Freeze {
		need += freezeTimes * c.Info.VariableBytes
	}
	e, err := k.ledger.Reserve(admission.Owner{Kind: admission.OwnerLoading, Model: c.Model.Name, Version: c.Number}, need)
	if err != nil {
		return nil, err
	}
	return k.account(c, e), nil
}

// tidy has the core give back what it does not need, and books it.
func (k *keeper) tidy() {
	debug.FreeOSMemory()
	k.bookCore()
}

// loaded notes the runner of the account.
func (a *account) loaded(r inference.Runner) {
	if a == nil {
		return
	}
	if m, ok := r.(parkable); ok {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.model = m
	}
}

// proven books what the proof has measured.
func (a *account) proven(p updater.Proof) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.floor = max(p.Peak, p.Rest); a.floor == 0 {
		a.floor = a.need
	}
	a.load = max(a.floor, p.LoadPeak)
	a.entry.Own(a.owner)
	a.entry.SetPeak(a.load)
	a.entry.SetLimit(a.own)
	a.entry.Set(a.floor, p.Rest)
}

// close takes the account out of the ledger. Calling it again does nothing.
func (a *account) close() {
	if a == nil {
		return
	}
	a.entry.Release()
	a.keeper.mu.Lock()
	delete(a.keeper.accounts, a)
	a.keeper.mu.Unlock()
	a.keeper.freed()
}

// room is asked before another process of the version is started: books it again, and parks others for it. What is returned is called when
// that process has ended.
func (a *account) room(ctx context.Context) (release func(), err error) {
	ctx, cancel := context.WithTimeout(ctx, roomWait)
	defer cancel()
	a.mu.Lock()
	need := max(a.load, 1)
	if a.floor == 0 {
		need = a.need
	}
	a.mu.Unlock()
	err = a.keeper.makeRoom(ctx, need-a.entry.Bytes(), a.owner, true, func() error {
		return a.entry.Grow(max(0, need-a.entry.Bytes()))
	})
	if err != nil {
		return nil, &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, Model: a.owner.Model, Version: a.owner.Version,
			Err: err, RetryAfter: time.Second,
			Msg: fmt.Sprintf("model %s version %d is parked, and there is no memory to load it again: %v, and no other version is idle; send it again later",
				a.owner.Model, a.owner.Version, err)}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.awake, a.comes = true, true
	a.confine(0)
	a.life++
	life := a.life
	return func() { a.ended(life) }, nil
}

// loadLimit is what the worker may take while it is loaded and proven: as configured, else what was reserved and what is free beside; 0 for
// any.
func (a *account) loadLimit() int64 {
	if a == nil {
		return 0
	}
	free, limited := a.keeper.ledger.Free()
	if a.own > 0 || !limited {
		return a.own
	}
	return a.entry.Bytes() + free
}

// confine tells a worker how far it may grow: as configured, else over what is free, which it is told of once a second; and in any case by a
// quarter more than what it was proven with, so that none is ended for what others took. mu is held.
func (a *account) confine(free int64) {
	m, ok := a.model.(interface {
		parkable
		SetMemoryLimit(bytes int64)
		Shared() bool
	})
	if !ok || m.Shared() || a.floor == 0 {
		return
	}
	limit := a.own
	if limit == 0 {
		most := a.floor
		if a.comes {
			most = a.load
		}
		_, _, resident := m.Vitals()
		limit = max(most+most/4+slack, resident+free)
	}
	m.SetMemoryLimit(limit)
	a.entry.SetLimit(limit)
}

// answers notes that the version's process has loaded it.
func (a *account) answers() {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.comes = false
}

// ended books nothing for a process that is no more, unless another one has followed.
func (a *account) ended(life int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.life == life && a.awake {
		a.awake, a.comes = false, false
		a.entry.Set(0, 0)
	}
}

// park ends the version's process until somebody asks for it.
func (a *account) park(reason string) error {
	a.mu.Lock()
	m, life, awake := a.model, a.life, a.awake
	a.mu.Unlock()
	if m == nil || !awake {
		return errors.ErrUnsupported
	}
	if err := m.Park(reason); err != nil {
		return err
	}
	a.ended(life)
	return nil
}

// parked reports whether there is no process, by intent.
func (a *account) parked() bool {
	if a == nil {
		return false
	}
	a.mu.Lock()
	m, awake := a.model, a.awake
	a.mu.Unlock()
	if p, ok := m.(interface{ Parked() bool }); ok {
		return p.Parked() // one that died has no process either, and not by intent
	}
	return !awake
}

// makeRoom calls take until it succeeds, parking idle versions, the least recently used first, until they are enough. Where they cannot be
// enough, none is parked. With wait those that are busy are waited for, until ctx ends. The error is take's, or ctx's.
func (k *keeper) makeRoom(ctx context.Context, need int64, who admission.Owner, wait bool, take func() error) error {
	err := take()
	if err == nil || !k.config().Memory.Evict {
		return err
	}
	select { // one at a time, so that none parks for another's sake
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return err
	}
	tick := time.NewTicker(roomLook)
	defer tick.Stop()
	for {
		room := k.ledger.Room()
		if err = take(); err == nil {
			return nil
		}
		free, _ := k.ledger.Free()
		live, idlers := k.idlers(time.Now(), who)
		now, later := yields(idlers)
		if free+later < need {
			return err
		}
		i := admission.Victim(idlers)
		if i >= 0 && (wait || free+now >= need) && ctx.Err() == nil {
			if k.evict(live[i], fmt.Sprintf("memory is needed for model %s version %d", who.Model, who.Version)) {
				continue
			}
		}
		if !wait {
			if i >= 0 && free+now >= need && ctx.Err() == nil {
				continue // a request came to the victim: it is busy now
			}
			return err
		}
		select {
		case <-room:
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// yields are the bytes that parking would give now, and when those that are busy become idle.
func yields(all []admission.Idler) (now, later int64) {
	for _, v := range all {
		if v.Pinned || v.Parked {
			continue
		}
		later += v.Bytes
		if !v.Busy {
			now += v.Bytes
		}
	}
	return now, later
}

// idlers are the live versions but for who, as eviction sees them.
func (k *keeper) idlers(now time.Time, who admission.Owner) ([]*servable, []admission.Idler) {
	live := k.live.all()
	out := make([]admission.Idler, len(live))
	for i, s := range live {
		out[i] = s.idler(now)
		if s.model == who.Model && s.version == who.Version {
			out[i].Parked = true
		}
	}
	return live, out
}

// evict parks a live version, and reports whether it did.
func (k *keeper) evict(s *servable, reason string) bool {
	if err := s.account.park(reason); err != nil {
		s.busyUntil.Store(time.Now().Add(roomLook).UnixNano())
		k.log.Debug("version was not parked", "model", s.model, "version", s.version, "err", err)
		return false
	}
	s.evictions.Add(1)
	k.log.Info("version is parked until somebody asks for it", "model", s.model, "version", s.version, "reason", reason)
	return true
}

// pressure is the level at the last look.
func (k *keeper) pressure() admission.Level {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.level
}

// usage is what eviction and the report know of a live version's requests.
type usage struct {
	account   *account
	pinned    bool
	keepAlive time.Duration
	born      time.Time
	inside    atomic.Int32
	last      atomic.Int64 // UnixNano, when the last request came or was answered
	busyUntil atomic.Int64 // UnixNano; parking it failed
	evictions atomic.Int64
	answered  atomic.Int64 // without an error
	runs      atomic.Int64
	rows      atomic.Int64 // in all runs
	window    window
}

func newUsage(of any, m config.Model) *usage {
	a, _ := of.(*account) // nil for a trial's
	return &usage{account: a, pinned: m.Pinned, keepAlive: m.KeepAlive, born: time.Now()}
}

// begin counts a request in; what it returns counts it out.
func (u *usage) begin() time.Time {
	now := time.Now()
	u.inside.Add(1)
	u.last.Store(now.UnixNano())
	return now
}

func (u *usage) end(began time.Time, err error) {
	now := time.Now()
	if err == nil {
		u.answered.Add(1)
		u.window.add(now, now.Sub(began))
	}
	u.last.Store(now.UnixNano())
	u.inside.Add(-1)
}

// ran counts a run.
func (u *usage) ran(o batch.Observation) {
	u.runs.Add(1)
	u.rows.Add(o.Rows)
}

// idle is how long nobody has asked.
func (u *usage) idle(now time.Time) time.Duration {
	if last := u.last.Load(); last > 0 {
		return max(0, now.Sub(time.Unix(0, last)))
	}
	return now.Sub(u.born)
}

// idler is the version as eviction sees it.
func (s *servable) idler(now time.Time) admission.Idler {
	if s.account == nil {
		return admission.Idler{Parked: true}
	}
	m, ok := s.runner.(interface {
		parkable
		Shared() bool
	})
	st := s.Batcher.Stats()
	return admission.Idler{
		Idle: s.idle(now), Bytes: s.account.entry.Bytes(), Pinned: s.pinned, Parked: !ok || m.Shared() || s.account.parked(),
		Busy: s.inside.Load() > 0 || st.Queued+st.InFlight+st.Promised > 0 || now.UnixNano() < s.busyUntil.Load(),
	}
}
