// unit.go: the supervision of one worker process and the models in it.
package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// unit keeps one worker process alive for its members: one model, or those of a group.
type unit struct {
	host    *Host
	opts    Options // of the first member
	process processOptions
	log     *slog.Logger
	refs    int // guarded by host.mu

	begun    chan struct{} // closed when the first process was started, or could not be
	beginErr error         // immutable after begun
	ctx      context.Context
	stop     context.CancelFunc
	wg       sync.WaitGroup

	mu       sync.Mutex
	members  []*Model
	nextID   uint32
	current  *process      // nil while there is none; it may be ending already
	changed  chan struct{} // closed when any of these changes, and then replaced
	state    State
	reason   string
	wake     chan struct{} // cap 1: full while somebody waits for a parked one
	waking   bool          // a parked one is being started
	refusal  error         // why the last start of a parked worker failed,
	refusals int           // and how many have
	release  func()        // of what Room gave for the current process; may be nil
	restarts int
	deaths   int
	started  time.Time
	death    *Death
}

func newUnit(h *Host, m *Model) *unit {
	ctx, stop := context.WithCancel(context.Background())
	u := &unit{
		host: h, opts: m.opts, log: logger(h, &m.load, m.opts.Group), begun: make(chan struct{}), ctx: ctx, stop: stop,
		changed: make(chan struct{}), wake: make(chan struct{}, 1), state: Restarting, reason: "starting",
	}
	model, version := m.load.Model, m.load.Version
	if m.opts.Group != "" {
		model, version = m.opts.Group, 0
	}
	u.process = processOptions{
		callers: m.load.Callers, runTimeout: m.opts.RunTimeout, memoryLimit: new(atomic.Int64), maxRunBytes: m.opts.MaxRunBytes,
		name: model, subject: subject(&m.load, m.opts.Group),
		lines: func(line string) { h.opts.Stderr(model, version, line) },
		dirs:  []string{m.load.Dir}, shared: m.opts.Folders, devices: m.load.Device != "", env: m.opts.Env,
	}
	u.process.memoryLimit.Store(m.opts.MemoryLimit)
	return u
}

// begin starts the first process and the supervision.
func (u *unit) begin(ctx context.Context) error {
	defer close(u.begun)
	first := u.process
	first.gently = u.opts.Gently // those that follow have requests waiting for them
	p, err := u.host.startProcess(ctx, first)
	if err != nil {
		u.beginErr = err
		return err
	}
	u.publish(p)
	u.wg.Go(func() { u.supervise(p) })
	return nil
}

// close ends the process and the supervision.
func (u *unit) close() {
	u.stop()
	u.wg.Wait()
}

// change is a critical section after which those who wait look again.
func (u *unit) change(f func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	f()
	close(u.changed)
	u.changed = make(chan struct{})
}

func (u *unit) publish(p *process) {
	u.change(func() { u.current, u.state, u.reason, u.started = p, Live, "", time.Now() })
}

// add loads m into the process and makes it a member.
func (u *unit) add(ctx context.Context, m *Model) error {
	m.unit = u
	u.mu.Lock()
	u.nextID++
	m.target.model = u.nextID
	u.mu.Unlock()
	for {
		p, err := u.await(ctx, m)
		if err != nil {
			return err
		}
		if err := p.load(ctx, m.target.model, &m.load, &m.frozen); err != nil {
			return err
		}
		u.mu.Lock()
		joined := u.current == p && !p.isEnding()
		if joined {
			u.members = append(u.members, m)
		}
		u.mu.Unlock()
		if joined {
			m.opts.OnState(Live, "")
			return nil
		}
	}
}

// remove unloads m where the process lives on with others.
func (u *unit) remove(m *Model) {
	u.mu.Lock()
	u.members = slices.DeleteFunc(u.members, func(x *Model) bool { return x == m })
	p, others := u.current, len(u.members)
	u.mu.Unlock()
	if p != nil && others > 0 {
		p.unload(m.target.model)
	}
}

// await returns the process for a run of m, and waits while there is none.
func (u *unit) await(ctx context.Context, m *Model) (*process, error) {
	for before := -1; ; {
		u.mu.Lock()
		p, changed, state, reason, failed := u.current, u.changed, u.state, u.reason, m.failed
		refusal, refusals := u.refusal, u.refusals
		u.mu.Unlock()
		if before < 0 {
			before = refusals
		}
		switch {
		case m.closed.Load() || u.ctx.Err() != nil:
			return nil, &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: inference.ErrClosed,
				Msg: fmt.Sprintf("%s is closed", u.process.subject)}
		case failed != nil:
			return nil, failed
		case p != nil && !p.isEnding():
			return p, nil
		case state == Parked && refusals != before:
			return nil, m.refused(refusal)
		case state == Parked:
			u.rouse()
		case state == GivenUp:
			return nil, inference.Errorf(inference.Unavailable, inference.ReasonWorker,
				"the worker of %s was given up: %s; it is tried again every %v", u.process.subject, reason, u.opts.GiveUpFor)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-u.ctx.Done():
		}
	}
}

func (u *unit) stats() (Stats, *process) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := Stats{State: u.state, Reason: u.reason, Restarts: u.restarts, Started: u.started, LastDeath: u.death}
	if u.current != nil && !u.current.isEnding() {
		s.PID = u.current.pid
		return s, u.current
	}
	return s, nil
}

// supervise replaces the process when it dies, until close.
func (u *unit) supervise(p *process) {
	var streak streak
	for {
		select {
		case <-u.ctx.Done():
			p.kill(ending{closed: true, reason: "closed"})
			<-p.done
			u.free(p)
			u.change(func() { u.current, u.state, u.reason = nil, Closed, "" })
			return
		case <-p.down:
		}
		old := p
		u.wg.Go(func() { <-old.done })
		u.free(old)
		if u.isParked() {
			if p = u.sleep(); p == nil {
				return
			}
			continue
		}
		streak.died(p.death, time.Since(u.started), u.opts)
		u.enter(Restarting, p.death.Reason, p.death)
		if p = u.replace(&streak); p == nil {
			return
		}
	}
}

// replace starts processes until one has loaded the members; nil when the unit is closed.
func (u *unit) replace(s *streak) *process {
	lost := false // what it was loaded from is no more
	for {
		pause := s.pause(u.opts)
		if s.hopeless(u.opts) {
			pause = u.opts.GiveUpFor
			reason := u.lastReason()
			if !lost {
				reason = fmt.Sprintf("it ended %d times in a row without a request to blame, last: %s", s.barren, reason)
			}
			u.enter(GivenUp, reason, nil)
			s.barren-- // the next try decides again
		}
		select {
		case <-u.ctx.Done():
			u.change(func() { u.state, u.reason = Closed, "" })
			return nil
		case <-time.After(pause):
		}
		p, err := u.restart()
		if err == nil {
			return p
		}
		if u.ctx.Err() == nil {
			u.enter(Restarting, err.Error(), nil)
			if errors.Is(err, errNoRoom) {
				s.quick++ // it says nothing of the version
				continue
			}
			s.failed()
			if lost = inference.AsError(err).Code == inference.DataLoss; lost {
				s.barren = u.opts.GiveUpAfter // its files are gone: nobody shall wait for it
			}
		}
	}
}

// restart starts a process, loads the members and publishes it.
func (u *unit) restart() (*process, error) {
	began := time.Now()
	release, err := u.room()
	if err != nil {
		return nil, err
	}
	u.mu.Lock()
	members := slices.Clone(u.members)
	u.mu.Unlock()
	loads, unknown, opts := u.again(members)
	p, err := u.host.startProcess(u.ctx, opts)
	if err != nil {
		release()
		return nil, err
	}
	var failure error
	loaded := 0
	for i, m := range members {
		err := unknown[i]
		if err == nil {
			ctx, cancel := context.WithTimeout(u.ctx, m.opts.LoadTimeout)
			err = p.load(ctx, m.target.model, &loads[i], &m.frozen)
			cancel()
		}
		u.mu.Lock()
		if m.failed = nil; err != nil {
			failure = fmt.Errorf("load model %s version %d again: %w", m.load.Model, m.load.Version, err)
			m.failed = m.name(inference.Errorf(inference.Unavailable, inference.ReasonWorker, "%v", failure))
		} else {
			loaded++
		}
		u.mu.Unlock()
		if p.isEnding() {
			break
		}
	}
	if failure != nil && (loaded == 0 || p.isEnding()) {
		u.mu.Lock()
		for _, m := range members { // the process failed, not they
			m.failed = nil
		}
		u.mu.Unlock()
		p.kill(ending{closed: true, reason: "closed"})
		<-p.done
		release()
		return nil, failure
	}
	u.mu.Lock()
	u.release = release
	for _, m := range members {
		m.loadTook.Store(int64(time.Since(began)))
	}
	if u.state != Parked {
		u.restarts++
	}
	gone := slices.DeleteFunc(members, func(m *Model) bool { return slices.Contains(u.members, m) })
	u.mu.Unlock()
	for _, m := range gone { // closed meanwhile
		p.unload(m.target.model)
	}
	u.publish(p)
	u.log.Info("worker restarted", "pid", p.pid, "took", time.Since(began).Round(time.Millisecond))
	u.notify(Live, "")
	return p, nil
}

// again asks what is to be loaded into a process that takes the place of one that has ended, or why nothing is; and makes that process's
// options, for what it may read is settled when it starts.
func (u *unit) again(members []*Model) (loads []Load, unknown []error, opts processOptions) {
	opts = u.process
	opts.dirs = nil
	for _, m := range members {
		load, err := m.load, error(nil)
		if m.opts.Again != nil {
			ctx, cancel := context.WithTimeout(u.ctx, m.opts.LoadTimeout)
			load.Dir, err = m.opts.Again(ctx)
			cancel()
		}
		if err == nil {
			opts.dirs = append(opts.dirs, load.Dir)
		}
		loads, unknown = append(loads, load), append(unknown, err)
	}
	return loads, unknown, opts
}

// enter records a state that is not live, and tells the log and the members.
func (u *unit) enter(s State, reason string, d *Death) {
	u.change(func() {
		u.current, u.state, u.reason = nil, s, reason
		if d != nil {
			u.death = d
			if !d.Starved {
				u.deaths++
			}
		}
	})
	switch {
	case u.ctx.Err() != nil:
		return
	case s == GivenUp:
		u.log.Error("worker given up; requests are refused", "err", reason, "wait", u.opts.GiveUpFor)
	case d != nil:
		u.log.Warn("worker died; starting another", "err", reason, "pid", d.PID, "requests", d.Running)
	default:
		u.log.Warn("worker did not start; trying again", "err", reason)
	}
	u.notify(s, reason)
}

func (u *unit) lastReason() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.reason
}

func (u *unit) notify(s State, reason string) {
	u.mu.Lock()
	members := slices.Clone(u.members)
	u.mu.Unlock()
	for _, m := range members {
		m.opts.OnState(s, reason)
	}
}

// streak counts deaths in a row, and decides how long to wait and when to give up.
type streak struct {
	quick  int // lives shorter than Stable, in a row: for the backoff
	barren int // deaths without a suspect, in a row: for giving up
}

// died counts the end of a life that lasted for lived.
func (s *streak) died(d *Death, lived time.Duration, o Options) {
	if lived >= o.Stable {
		*s = streak{}
	}
	s.quick++
	if d.Memory && d.Completed > 0 {
		*s = streak{} // it answers, and grows: another one answers as many again
		return
	}
	if d.Running == 0 || d.Completed == 0 {
		s.barren++
	} else {
		s.barren = 0 // it answers, and dies of some requests: those are the suspects
	}
}

// failed counts a start that failed.
func (s *streak) failed() {
	s.quick++
	s.barren++
}

// pause before the next start.
func (s *streak) pause(o Options) time.Duration {
	if s.quick <= 1 {
		return 0
	}
	return min(o.MaxBackoff, o.Backoff<<min(s.quick-2, 20))
}

func (s *streak) hopeless(o Options) bool { return s.barren >= o.GiveUpAfter }
