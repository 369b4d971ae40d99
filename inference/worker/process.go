// process.go: one worker process from its start to its end.
package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// Death says how a worker ended.
type Death struct {
	Time   time.Time
	PID    int
	Reason string         // "killed by SIGSEGV", "passed run_timeout", ... for people
	Signal syscall.Signal // 0 when it was none
	Exit   int            // exit status, -1 when a signal ended it or nobody knows
	// Running is the number of runs that were in flight, Completed that of the runs that it had answered.
	Running   int
	Completed uint64
	Memory    bool // it was over its memory limit
	Starved   bool // at low priority, of having no processor: that says nothing of the version
}

// processOptions is what a process needs of [Options].
type processOptions struct {
	callers     int
	gently      bool // low priority until promote
	runTimeout  time.Duration
	memoryLimit *atomic.Int64 // 0: none
	maxRunBytes int64
	name        string   // for ps
	subject     string   // for messages: "model resnet version 7"
	dirs        []string // version folders that are loaded in it, for the sandbox
	shared      []string // folders of versions that may be, likewise
	devices     bool     // it uses GPUs, likewise
	env         []string // in which case it is not forked from the zygote
	lines       func(line string)
}

// process is a worker process. Its goroutines are listen (control frames), reap (completions), watch (time) and await (the end), and one
// for its output; done is closed when all have ended.
type process struct {
	host       *Host
	opts       processOptions
	pid        int
	spawned    *spawned
	ctl        *control
	ring       coreRing
	ringMem    []byte   // guarded by reapMu and mu, either to read: nil once unmapped
	bell       *os.File // rings at the worker, only through ringWorker: a Write would wait while the pipe is full
	ringWorker func()
	bells      *os.File // the worker rings here
	arena      *arena
	slots      []*slot
	free       chan *slot // room for every slot
	down       chan struct{}
	done       chan struct{}
	wg         sync.WaitGroup

	promotion promotion
	wholly    bool // every thread is low until the promotion, not only those that load and call
	timed     timed

	confined bool // a model's errors say so

	spinner spinner
	typical atomic.Int64 // nanoseconds that a run takes lately, from submission to completion

	reapMu sync.Mutex // guards the core's side of the completion ring; a run that polls holds it meanwhile
	rung   uint64     // guarded by reapMu: doorbells heard

	mu        sync.Mutex
	ending    *ending               // guarded by mu: why it is being ended; the first reason stays
	death     *Death                // guarded by mu until down is closed, then immutable
	loads     map[uint32]chan frame // guarded by mu: loads that wait for their answer; channels have room for it
	completed uint64                // guarded by mu
	stop      chan struct{}         // closed with ending set
	dozing    atomic.Bool           // watch looks seldom, until it is roused
	rouse     chan struct{}         // cap 1
	retired   atomic.Bool           // runs that have not begun go to the next process
	group     *group                // nil: the process is in the core's cgroup
}

// ending is why the core ends a process, or that it found it ended.
type ending struct {
	reason  string // empty: it ended by itself, and the wait status says how
	timeout *slot  // the run that took too long
	closed  bool   // wanted
	parked  bool   // wanted, for a while
	memory  bool   // it was over its memory limit
	starved bool   // it had low priority and got no processor
}

type slotState int

const (
	slotFree      slotState = iota
	slotRunning             // submitted, its caller waits
	slotAbandoned           // submitted, its caller has left
	slotFinished            // completed, its caller has not seen it yet
)

// slot is the place of one run in flight.
type slot struct {
	index    uint32
	finished chan struct{} // room for one: sent to once per run that is not abandoned

	// owned by who began the run, and then by who waits for it
	run    *inference.Run
	sig    targetSignature
	since  time.Time
	beside int32 // runs in flight in all processes, with it
	polled bool  // finished has been received from
	of     *Model
	owner  *process

	// guarded by process.mu
	state    slotState
	in, out  *area
	outgrown []*area   // replaced by larger ones during the run; the worker may be reading them
	number   uint64    // of the submission
	refused  bool      // no larger output area will be given
	begun    time.Time // when watch first saw that a caller must have taken it
}

// startProcess spawns a worker and sends it the first frame. The caller ends it with kill and waits for done.
func (h *Host) startProcess(ctx context.Context, opts processOptions) (*process, error) {
	s, err := h.spawn(ctx, &opts)
	if err != nil {
		return nil, err
	}
	slots := 2 * opts.callers
	entries := 8
	for entries < slots {
		entries *= 2
	}
	p := &process{
		host: h, opts: opts, pid: s.process.Pid, spawned: s, ctl: s.control,
		free: make(chan *slot, slots), down: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{}),
		confined: h.opts.Sandbox != nil && h.opts.Sandbox.kernel.Seccomp,
		rouse:    make(chan struct{}, 1), loads: make(map[uint32]chan frame), promotion: newPromotion(opts.gently),
	}
	p.dozing.Store(true)
	if p.wholly = opts.gently && h.raises; p.wholly {
		lowerProcess(p.pid)
	}
	p.group = h.enclose(p.pid, opts.memoryLimit.Load()) // before it has taken any memory worth the name
	p.arena = &arena{max: int(opts.maxRunBytes), announce: p.announce, forget: p.forget}
	if err := p.connect(entries); err != nil {
		s.discard()
		p.group.end()
		return nil, fmt.Errorf("start a worker for %s: %w", opts.subject, err)
	}
	for i := range slots {
		x := &slot{index: uint32(i), finished: make(chan struct{}, 1)}
		p.slots = append(p.slots, x)
		p.free <- x
	}
	p.wg.Go(p.listen)
	p.wg.Go(p.reap)
	p.wg.Go(p.watch)
	p.wg.Go(func() { readLines(s.stderr, opts.lines) })
	go p.await()
	return p, nil
}

// connect makes the rings and the doorbells and sends the worker its ends.
func (p *process) connect(entries int) (err error) {
	fd, mem, err := newShared("inferd-ring", ringBytes(entries))
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var toWorker, toCore [2]int
	if err = unix.Pipe2(toWorker[:], unix.O_CLOEXEC); err == nil {
		if err = unix.Pipe2(toCore[:], unix.O_CLOEXEC); err != nil {
			_, _ = unix.Close(toWorker[0]), unix.Close(toWorker[1])
		}
	}
	if err != nil {
		_ = unix.Munmap(mem)
		return fmt.Errorf("make doorbells: %w", err)
	}
	defer func() { _, _ = unix.Close(toWorker[0]), unix.Close(toCore[1]) }()
	_, _ = unix.SetNonblock(toWorker[1], true), unix.SetNonblock(toCore[0], true)
	p.bell, p.bells = os.NewFile(uintptr(toWorker[1]), "doorbell"), os.NewFile(uintptr(toCore[0]), "doorbells")
	raw, err := p.bell.SyscallConn()
	if err != nil {
		return err
	}
	p.ringMem = mem
	ringOnce := func(fd uintptr) bool {
		_, _ = unix.Write(int(fd), []byte{1}) // a full pipe rings as well, and an end of the worker is told elsewhere
		return true
	}
	p.ringWorker = func() { _ = raw.Write(ringOnce) }
	if p.ring.ring, err = newRing(mem, entries); err == nil {
		err = p.ctl.send(frame{Op: "start", Slots: entries, Callers: p.opts.callers, Gently: p.inPart()}, fd, toWorker[0], toCore[1])
	}
	if err != nil {
		_, _ = p.bell.Close(), p.bells.Close()
		_ = unix.Munmap(mem)
	}
	return err
}

// kill ends the process for the given reason, unless it is ending already. It does not wait.
func (p *process) kill(e ending) { p.end(e, false) }

// end is kill, or with idle kill only while no run is in flight: one that comes now has not begun, and goes to the next process. It reports whether
// e is why the process ends.
func (p *process) end(e ending, idle bool) bool {
	p.mu.Lock()
	if idle && p.held() > 0 {
		p.mu.Unlock()
		return false
	}
	first := p.ending == nil
	if first {
		p.ending = &e
		close(p.stop)
	}
	p.mu.Unlock()
	if first {
		p.lowerFor(e)
		_ = p.spawned.process.Kill() // an error means that it has ended
	}
	return first
}

// held is the number of slots with a run, also one that has completed and whose caller has not seen it. mu is held.
func (p *process) held() (n int) {
	for _, s := range p.slots {
		if s.state != slotFree {
			n++
		}
	}
	return n
}

// running is the number of runs that are with the worker. mu is held.
func (p *process) running() (n int) {
	for _, s := range p.slots {
		if s.state == slotRunning || s.state == slotAbandoned {
			n++
		}
	}
	return n
}

// fail ends the process for an error of its control socket or its memory.
func (p *process) fail(err error) {
	switch {
	case errors.Is(err, errLies):
		p.kill(ending{reason: err.Error()})
	case errors.Is(err, os.ErrDeadlineExceeded):
		p.kill(ending{reason: fmt.Sprintf("%v: it does not read its control socket", errLies)})
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ECONNRESET):
		p.kill(ending{}) // the socket has ended, so the process has or will
	default:
		p.kill(ending{reason: err.Error()})
	}
}

// longestEnd is how long a killed process may take before it is left to the kernel: one whose file system hangs never ends.
const longestEnd = 30 * time.Second

// await waits for the process's end, tells everyone, and cleans up. The callers are told within a second of the first reason; done, which says
// that the process's memory is back, waits for the process itself.
func (p *process) await() {
	status := make(chan *os.ProcessState, 1)
	go func() {
		state, _ := p.spawned.process.Wait() // nil where the kernel does not know it, which cannot be helped
		p.group.end()
		status <- state
		p.kill(ending{}) // it may have ended with its socket still open in a child of its own
	}()
	<-p.stop
	var state *os.ProcessState
	ended := false
	select {
	case state = <-status:
		ended = true
	case <-time.After(time.Second): // the kernel still takes it apart; the callers need not wait for that
		if p.host.raises {
			_ = raiseProcess(p.pid) // others want every processor, and its memory is wanted too
		}
	}

	p.mu.Lock()
	p.death = p.describe(state)
	p.mu.Unlock()
	_ = p.ctl.conn.Close()
	_ = p.bells.Close()
	close(p.down)

	// What it wrote last is worth waiting for, but a child of its own may hold the pipe open.
	_ = p.spawned.stderr.SetReadDeadline(time.Now().Add(time.Second))
	p.wg.Wait()
	p.reapMu.Lock()
	p.mu.Lock()
	for _, s := range p.slots {
		if s.state == slotAbandoned {
			p.release(s)
		}
	}
	_ = unix.Munmap(p.ringMem) // nobody submits after death is set, or polls after ringMem is nil
	p.ringMem = nil
	p.mu.Unlock()
	p.reapMu.Unlock()
	p.arena.close()
	_ = p.bell.Close()
	if !ended {
		// Its memory is not given back yet. Threads at the lowest priority end late where others want every processor.
		select {
		case <-status:
		case <-time.After(longestEnd):
			p.host.log.Error("worker does not end: the kernel holds it; what it has of the box's memory stays taken", "pid", p.pid, "wait", longestEnd)
		}
	}
	close(p.done)
}

// describe says how it ended. mu is held.
func (p *process) describe(state *os.ProcessState) *Death {
	d := &Death{Time: time.Now(), PID: p.pid, Reason: p.ending.reason, Exit: -1, Completed: p.completed, Starved: p.ending.starved, Memory: p.ending.memory}
	d.Running = p.running()
	natural := "ended in an unknown way"
	if state != nil {
		if w, ok := state.Sys().(syscall.WaitStatus); ok && w.Signaled() {
			d.Signal = w.Signal()
			natural = "killed by " + unix.SignalName(d.Signal)
		} else {
			d.Exit = state.ExitCode()
			natural = fmt.Sprintf("exited with status %d", d.Exit)
			if d.Exit == exitUnconfined {
				natural = "could not be confined, and so did not start (the log has what it wrote)"
			}
		}
	}
	if d.Reason == "" {
		d.Reason = natural
		if why := p.group.byKernel(); why != "" && d.Signal == syscall.SIGKILL {
			d.Reason, d.Memory = why, true
		}
	}
	return d
}

// isEnding reports whether new runs must go elsewhere. It is true from the first reason to end the process, before down.
func (p *process) isEnding() bool {
	select {
	case <-p.stop:
		return true
	default:
		return p.retired.Load()
	}
}

// tell sends the worker a frame. When that cannot be done the process is ended.
func (p *process) tell(f frame, fds ...int) error {
	err := p.ctl.send(f, fds...)
	if err != nil {
		p.fail(err)
	}
	return err
}

// announce tells the worker about a new area. One that answers a request for a larger one is announced by more instead.
func (p *process) announce(x *area, fd int) error {
	return p.tell(frame{Op: "area", Area: x.id, Size: int64(len(x.mem))}, fd)
}

func (p *process) forget(id uint32) { _ = p.tell(frame{Op: "drop", Area: id}) }

// load has the worker load l under the number id, and waits until it has.
func (p *process) load(ctx context.Context, id uint32, l *Load, frozen *atomic.Pointer[frozenness]) error {
	answer := make(chan frame, 1)
	p.mu.Lock()
	p.loads[id] = answer
	p.mu.Unlock()
	load := *l
	load.Gently, load.Confined = p.inPart(), p.confined
	fd, size, err := loadMemory(&load)
	if err != nil {
		return err
	}
	_ = p.tell(frame{Op: "load", Model: id, Size: int64(size)}, fd) // otherwise it goes down
	_ = unix.Close(fd)
	select {
	case f := <-answer:
		if f.Code != inference.OK {
			reason := inference.ReasonRuntime
			if f.NoDevice {
				reason = inference.ReasonDevice
			}
			return &inference.Error{Code: f.Code, Model: l.Model, Version: l.Version, Reason: reason, Msg: f.Text}
		}
		frozen.Store(&frozenness{f.Frozen, f.Text})
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.down:
		return p.died("while it loaded")
	}
}

// unload has the worker give up what load loaded. No run of it is in flight.
func (p *process) unload(id uint32) { _ = p.tell(frame{Op: "unload", Model: id}) }

// died is the error for who was waiting when the process ended. Only after down.
func (p *process) died(when string) error {
	if p.ending.starved {
		return p.starvedError()
	}
	return &inference.Error{
		Code: inference.Unavailable, Reason: inference.ReasonWorker, Err: inference.ErrWorkerDied,
		Msg: fmt.Sprintf("the worker of %s (pid %d) ended %s: %s; it is being replaced, try again", p.opts.subject, p.pid, when, p.death.Reason),
	}
}

// listen reads the worker's control frames. Each must answer something, so a flood of them is a breach at its first.
func (p *process) listen() {
	for {
		f, err := p.ctl.receive()
		if err == nil {
			err = p.handle(f)
		}
		if err != nil {
			p.fail(err)
			return
		}
	}
}

func (p *process) handle(f frame) error {
	switch f.Op {
	case "loaded":
		p.mu.Lock()
		answer := p.loads[f.Model]
		delete(p.loads, f.Model)
		p.mu.Unlock()
		if answer == nil {
			return lies("model %d loaded, which was not asked for", f.Model)
		}
		if f.Code < inference.OK || f.Code > inference.Unauthenticated {
			return lies("a load that ended with code %d", int(f.Code))
		}
		answer <- f // the one who asked may have left
		return nil
	case "more":
		return p.more(f)
	case "timed":
		return p.timed.answered(f)
	case "promoting", "promoted":
		return p.promotion.answered(f.Op)
	default:
		return lies("a control frame %q", f.Op)
	}
}

// more answers a worker whose outputs do not fit: a larger area, or a refusal.
func (p *process) more(f frame) error {
	p.mu.Lock()
	if int64(f.Slot) >= int64(len(p.slots)) {
		p.mu.Unlock()
		return lies("more memory for slot %d of %d", f.Slot, len(p.slots))
	}
	s := p.slots[f.Slot]
	if (s.state != slotRunning && s.state != slotAbandoned) || s.refused || f.Size <= int64(len(s.out.mem)) {
		p.mu.Unlock()
		return lies("%d bytes for slot %d, which does not need them", f.Size, f.Slot)
	}
	s.refused = s.state == slotAbandoned || f.Size > p.opts.maxRunBytes
	refused := s.refused
	p.mu.Unlock()
	if refused {
		return p.tell(frame{Op: "refuse", Slot: f.Slot})
	}

	larger, fd, err := p.arena.make(int(f.Size))
	p.mu.Lock()
	if err != nil { // the core is out of memory or descriptors
		s.refused = true
		p.mu.Unlock()
		return p.tell(frame{Op: "refuse", Slot: f.Slot})
	}
	if s.state != slotRunning && s.state != slotAbandoned {
		p.mu.Unlock()
		_ = unix.Close(fd)
		p.arena.discard(larger)
		return lies("slot %d completed while it waited for memory", f.Slot)
	}
	s.outgrown = append(s.outgrown, s.out)
	s.out = larger // before the worker can complete in it
	p.mu.Unlock()
	err = p.tell(frame{Op: "area", Area: larger.id, Size: int64(len(larger.mem)), Grow: true, Slot: f.Slot}, fd)
	_ = unix.Close(fd)
	return err
}

// reap reads completions when the doorbell rings.
func (p *process) reap() {
	bells := make([]byte, 4096)
	for {
		p.reapMu.Lock()
		p.ring.asleep.Store(1)
		err := p.collect() // what came before the line above rang no bell
		p.reapMu.Unlock()
		if err != nil {
			p.fail(err)
			return
		}
		n, err := p.bells.Read(bells)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) && !errors.Is(err, io.EOF) {
				p.fail(err)
			}
			return // an end of file means that the process has ended, which listen and await tell
		}
		p.reapMu.Lock()
		p.rung += uint64(n)
		// The worker rings at most once for a completion, and after it.
		if err = p.collect(); err == nil && p.rung > p.ring.taken {
			err = lies("%d doorbells for %d completions", p.rung, p.ring.taken)
		}
		p.reapMu.Unlock()
		if err != nil {
			p.fail(err)
			return
		}
	}
}

// collect hands on every completion that is in the ring. reapMu is held.
func (p *process) collect() error {
	for {
		index, ok := p.ring.next()
		if !ok {
			return nil
		}
		if err := p.complete(index); err != nil {
			return err
		}
	}
}

func (p *process) complete(index uint32) error {
	if int64(index) >= int64(len(p.slots)) {
		return lies("a completion of slot %d, there are %d", index, len(p.slots))
	}
	s := p.slots[index]
	p.mu.Lock()
	defer p.mu.Unlock()
	switch s.state {
	case slotRunning:
		s.state = slotFinished
		s.finished <- struct{}{}
	case slotAbandoned:
		p.recycle(s, resultIsLate(s.out.mem))
		p.arena.put(s.out)
		s.out = nil
		p.vacate(s)
	default:
		return lies("a completion of slot %d, in which nothing runs", index)
	}
	p.completed++
	return nil
}

// recycle gives back what a completed run no longer needs: all but its outputs. mu is held.
func (p *process) recycle(s *slot, late bool) {
	if late {
		p.arena.discard(s.in)
	} else {
		p.arena.put(s.in)
	}
	for _, x := range s.outgrown {
		p.arena.put(x)
	}
	s.in, s.outgrown = nil, nil
}

// vacate makes the slot free for the next run. mu is held.
func (p *process) vacate(s *slot) {
	s.state, s.begun, s.refused = slotFree, time.Time{}, false
	p.free <- s
}

// release gives back everything of a run that will not complete, for the process has ended. mu is held.
func (p *process) release(s *slot) {
	p.recycle(s, false)
	p.arena.put(s.out)
	s.out = nil
	s.state = slotFree
}
