// serve.go: the worker's side: Main, its callers, and the backend that they call.
package worker

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Backend runs one loaded version inside a worker. Call comes from several locked threads at once.
type Backend interface {
	// Call runs sig. The inputs lie in shared memory, 64-byte aligned, and stay as they are until Call has returned; if TensorFlow keeps
	// one for longer, Call says so with late, which is nil otherwise. out gets output i (an index into outputs) lent for the length of
	// the callback, in the order of outputs; its error ends the Call with that error. An *inference.Error keeps its code on the way to the client.
	Call(sig *inference.Signature, in []*tensor.Tensor, outputs []int, out func(i int, t *tensor.Tensor) error) (late Late, err error)
	Close() error
}

// Freezer is a Backend that knows what became of Load.Freeze.
type Freezer interface {
	// Frozen reports whether the variables are constants, and what was found: on what the answers were compared, or why not. The reason is
	// empty where nobody asked.
	Frozen() (frozen bool, reason string)
}

// Late is input memory that was still in use when a Call returned.
type Late interface {
	// Freed reports whether nobody uses the memory any more. Once true it stays true.
	Freed() bool
}

// IsWorker reports whether this process was started by a [Host] as a worker; main then calls [Main] and nothing else.
func IsWorker() bool {
	_, ok := os.LookupEnv(EnvWorker)
	return ok
}

// Main is a worker's life: it serves the core on its control socket until that ends, and returns the exit code. open makes the backend of
// a version; it blocks while it loads and may be called for several versions, at once. Main never returns while the core lives.
func Main(open func(Load) (Backend, error)) int {
	settle()
	ctl, err := newControl(controlFD)
	if err != nil {
		fmt.Fprintf(os.Stderr, "inferd worker: %v; a worker is started by inferd, not by hand\n", err)
		return 2
	}
	s := &server{ctl: ctl, open: open, models: make(map[uint32]*loadedModel), areas: make(map[uint32][]byte), grown: make(map[uint32]chan []byte)}
	s.arrived.L = &s.mu
	err = s.run()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
		return 0 // the core has ended, or wants this worker to
	}
	fmt.Fprintf(os.Stderr, "inferd worker: %v\n", err)
	return 1
}

// settle makes the process one that dies as it should: of the signal that killed it, at once, and not of the terminal's.
func settle() {
	// The core ends its workers when it has drained; a Ctrl-C or a service manager's SIGTERM to the whole group must not.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	// Go's handlers would turn a fault in C into a dump of every goroutine and exit status 2, and the core could not name the signal.
	for _, s := range []syscall.Signal{syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGABRT, syscall.SIGTRAP, syscall.SIGSYS} {
		var byDefault [8]uint64 // struct sigaction of the kernel, all zero: SIG_DFL, no flags, empty mask
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0)
	}
	// Writing gigabytes of core file would delay the news of a death by seconds. The kernel takes 1 to mean none at all, also for a
	// core_pattern that is a pipe, to which 0 does not apply.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1, Max: 1})
	signal.Ignore(syscall.SIGXFSZ) // a confined worker may write no file; an error says it better than a signal
	// When memory runs out, a worker goes before the core. (A confined one could not say so any more, and has said so.)
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("500"), 0)
	unix.CloseOnExec(controlFD)
}

// server is the worker's state.
type server struct {
	ctl  *control
	open func(Load) (Backend, error)

	ring    workerRing // immutable after start, like the two doorbells
	bell    int        // blocks until the core rings
	coreFD  int        // rings at the core
	spinner spinner
	running atomic.Int32 // callers inside the backend
	timing  timing

	callers int          // immutable after start
	gently  bool         // immutable after start: loads and callers have low priority until the promotion
	retired atomic.Bool  // callers of low priority are to end
	lowered atomic.Int32 // callers of low priority

	mu      sync.Mutex
	arrived sync.Cond // areas has grown
	models  map[uint32]*loadedModel
	areas   map[uint32][]byte
	grown   map[uint32]chan []byte // by slot: a caller that waits for a larger output area; nil means refused
	late    []lateArea
	hasLate atomic.Bool // late is not empty, so that callers need not lock to find out
}

type loadedModel struct {
	backend    Backend
	signatures []*inference.Signature // sorted by key
	confined   bool
	calls      sync.RWMutex // held for reading during a call, for writing while it is closed
}

type lateArea struct {
	mem  []byte
	late Late
}

func (s *server) run() error {
	if err := s.start(); err != nil {
		return err
	}
	for {
		f, fds, err := s.ctl.receiveWithFDs()
		if err != nil {
			return err
		}
		if err := s.handle(f, fds); err != nil {
			return err
		}
	}
}

func (s *server) start() error {
	f, fds, err := s.ctl.receiveWithFDs()
	if err != nil {
		return err
	}
	if f.Op != "start" || len(fds) != 3 || f.Callers < 1 {
		return fmt.Errorf("the first frame is %q with %d descriptors", f.Op, len(fds))
	}
	mem, err := mapShared(fds[0], ringBytes(f.Slots))
	if err != nil {
		return err
	}
	_ = unix.Close(fds[0])
	s.bell, s.coreFD = fds[1], fds[2]
	if s.ring.ring, err = newRing(mem, f.Slots); err != nil {
		return err
	}
	if s.callers, s.gently = f.Callers, f.Gently; s.gently {
		s.lowered.Store(int32(f.Callers))
		for range f.Callers {
			onLow(s.callLow)
		}
		return nil
	}
	for range f.Callers {
		go s.call()
	}
	return nil
}

func (s *server) handle(f frame, fds []int) error {
	switch {
	case f.Op == "load" && len(fds) == 1:
		l, err := readLoad(fds[0], f.Size)
		if err != nil {
			return err
		}
		load := func() { s.load(f.Model, l) } // not here: C cannot be interrupted, and the socket's end must be seen meanwhile
		if s.gently {
			onLow(load)
		} else {
			go load()
		}
	case f.Op == "promote" && s.gently:
		s.retired.Store(true)
		return s.ctl.send(frame{Op: "promoting"}) // and now the core wakes those that sleep
	case f.Op == "time":
		return s.ctl.send(frame{Op: "timed", Nanos: s.timing.read(f.Off)})
	case f.Op == "unload":
		s.mu.Lock()
		m := s.models[f.Model]
		delete(s.models, f.Model)
		s.mu.Unlock()
		if m != nil {
			go m.close()
		}
	case f.Op == "area" && len(fds) == 1:
		mem, err := mapShared(fds[0], int(f.Size))
		if err != nil {
			return err
		}
		_ = unix.Close(fds[0])
		s.mu.Lock()
		s.areas[f.Area] = mem
		s.arrived.Broadcast()
		waiting := s.grown[f.Slot]
		s.mu.Unlock()
		if f.Grow && waiting != nil {
			waiting <- mem
		}
	case f.Op == "refuse":
		s.mu.Lock()
		waiting := s.grown[f.Slot]
		s.mu.Unlock()
		if waiting != nil {
			waiting <- nil
		}
	case f.Op == "drop":
		s.mu.Lock()
		mem := s.areas[f.Area]
		delete(s.areas, f.Area)
		s.mu.Unlock()
		if mem != nil {
			return unix.Munmap(mem)
		}
	default:
		return fmt.Errorf("a control frame %q with %d descriptors", f.Op, len(fds))
	}
	return nil
}

func (s *server) load(id uint32, l *Load) {
	reply := frame{Op: "loaded", Model: id}
	backend, err := s.open(*l)
	if err != nil {
		if l.Confined {
			err = explain(err)
		}
		e := inference.AsError(err)
		reply.Code, reply.Text = max(e.Code, inference.Canceled), e.Msg // the code has a place of its own
		reply.NoDevice = e.Reason == inference.ReasonDevice
	} else {
		if f, ok := backend.(Freezer); ok {
			reply.Frozen, reply.Text = f.Frozen()
		}
		m := &loadedModel{backend: backend, confined: l.Confined}
		for _, key := range slices.Sorted(maps.Keys(l.Signatures)) {
			m.signatures = append(m.signatures, l.Signatures[key])
		}
		s.mu.Lock()
		s.models[id] = m
		s.mu.Unlock()
	}
	if err := s.ctl.send(reply); err != nil {
		fatal(err)
	}
}

func (m *loadedModel) close() {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.backend.Close(); err != nil {
		fmt.Fprintf(os.Stderr, "inferd worker: unload: %v\n", err)
	}
}

// call is a caller's life: a thread that takes runs off the ring.
func (s *server) call() {
	runtime.LockOSThread() // TensorFlow keeps state per thread
	var never atomic.Bool
	for {
		sub, _ := s.next(&never)
		s.serve(sub)
	}
}

// callLow is the life of a caller of low priority, on a thread by onLow. The last one that ends starts those of normal priority; sooner they
// would take the doorbells that are meant for the others.
func (s *server) callLow() {
	for {
		sub, ok := s.next(&s.retired)
		if !ok {
			break
		}
		s.serve(sub)
	}
	if s.lowered.Add(-1) == 0 {
		for range s.callers {
			go s.call()
		}
		if err := s.ctl.send(frame{Op: "promoted"}); err != nil {
			fatal(err)
		}
	}
}

// next blocks until there is a submission for this caller; false when it is retired.
func (s *server) next(retired *atomic.Bool) (submission, bool) {
	for {
		if retired.Load() {
			return submission{}, false
		}
		if sub, ok := s.ring.claim(); ok {
			return sub, true
		}
		s.freeLate()
		// While another caller computes, the core is not waiting for this one: let it have the processor.
		if s.running.Load() == 0 && s.spinner.spin(maxSpin, s.ring.waiting) {
			continue
		}
		s.ring.sleepers.Add(1)
		if (s.ring.waiting() || retired.Load()) && takeSleeper(s.ring.sleepers) {
			continue // awake before the core could ring
		}
		s.sleep()
	}
}

// sleep blocks until the core rings, once for this caller.
func (s *server) sleep() {
	for {
		var b [1]byte
		switch n, err := unix.Read(s.bell, b[:]); {
		case n == 1:
			return
		case err == nil:
			os.Exit(0) // the core has ended
		case !errors.Is(err, unix.EINTR):
			fatal(fmt.Errorf("wait for work: %w", err))
		}
	}
}

// area waits for the frame that brings the area, which may be behind the submission that names it.
func (s *server) area(id uint32) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.areas[id] == nil {
		s.arrived.Wait()
	}
	return s.areas[id]
}

func (s *server) serve(sub submission) {
	in := s.area(sub.in)
	w := newResultWriter(s.area(sub.out), func(size int) ([]byte, error) { return s.grow(sub.slot, size) })
	s.running.Add(1)
	began := s.timing.begin()
	late, err := s.invoke(in, w)
	s.timing.end(began)
	s.running.Add(-1)
	if late != nil {
		s.keep(sub.in, late)
	}
	w.finish(late != nil, err)
	if s.ring.complete(sub.slot) {
		_, _ = unix.Write(s.coreFD, []byte{1}) // a full pipe rings too; a closed one means the core is gone, which the socket tells
	}
}

func (s *server) invoke(in []byte, w *resultWriter) (Late, error) {
	run, err := decodeRun(in)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	m := s.models[run.model]
	s.mu.Unlock()
	if m == nil || int(run.signature) >= len(m.signatures) {
		return nil, inference.Errorf(inference.Internal, inference.ReasonWorker, "the worker has no signature %d of model %d", run.signature, run.model)
	}
	m.calls.RLock()
	defer m.calls.RUnlock()
	late, err := m.backend.Call(m.signatures[run.signature], run.inputs, run.outputs, func(_ int, t *tensor.Tensor) error { return w.add(t) })
	if err != nil && m.confined {
		err = explain(err)
	}
	return late, err
}

// grow asks the core for a larger output area for the run in slot.
func (s *server) grow(slot uint32, size int) ([]byte, error) {
	answer := make(chan []byte, 1)
	s.mu.Lock()
	s.grown[slot] = answer
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.grown, slot)
		s.mu.Unlock()
	}()
	if err := s.ctl.send(frame{Op: "more", Slot: slot, Size: int64(size)}); err != nil {
		fatal(err)
	}
	if mem := <-answer; mem != nil {
		return mem, nil
	}
	return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
		"the outputs take %d bytes or more, which is over the limit for one run; ask for fewer outputs or send a smaller batch", size)
}

// keep takes an input area out of use until TensorFlow has freed it. The core lets go of it when it reads the completion.
func (s *server) keep(id uint32, late Late) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = append(s.late, lateArea{s.areas[id], late})
	delete(s.areas, id)
	s.hasLate.Store(true)
}

// freeLate unmaps the kept areas that are free by now. Idle callers do it, so at most what was kept since the last run stays.
func (s *server) freeLate() {
	if !s.hasLate.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = slices.DeleteFunc(s.late, func(l lateArea) bool {
		if !l.late.Freed() {
			return false
		}
		_ = unix.Munmap(l.mem)
		return true
	})
	s.hasLate.Store(len(s.late) > 0)
}

// fatal ends the worker from a goroutine that has nobody to return to.
func fatal(err error) {
	fmt.Fprintf(os.Stderr, "inferd worker: %v\n", err)
	os.Exit(1)
}
