// host.go: the Host, whose one thread spawns every worker.
package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// HostOptions say how a Host spawns.
type HostOptions struct {
	// Executable is what a worker runs; empty means this binary.
	Executable string
	// Library is the path of the TensorFlow library, given to the zygote and in Load to the backend. Empty opens none.
	Library string
	// UseZygote forks workers from a process that has the library open. Where that fails they are started afresh.
	UseZygote bool
	// Env is added to this process's environment.
	Env []string
	// Cgroup is a folder that EnterCgroup has made ready: each worker gets a cgroup of its own below it, with a little more than its memory
	// limit. Empty: they stay in the core's, and their memory is watched only.
	Cgroup string
	// Sandbox confines the workers; nil lets them do what this process may.
	Sandbox *Sandbox
	// Log may be nil.
	Log *slog.Logger
	// Stderr gets each line that a worker writes to its standard output or error; the model is empty for the zygote's. It is called from
	// one goroutine per worker and should not block. Nil discards them.
	Stderr func(model string, version int64, line string)
}

// Host owns spawning. All its methods may be called from any goroutine.
type Host struct {
	opts    HostOptions
	log     *slog.Logger
	spawns  chan *spawnRequest
	done    chan struct{} // closed when Run has returned
	running atomic.Int32  // runs in flight in all workers: what the spinning of each goes by
	noGroup sync.Once     // said that workers get no cgroups
	raises  bool          // threads of low priority can be raised again

	mu    sync.Mutex
	units map[string]*unit // guarded by mu: groups that several models share
	stats HostStats        // guarded by mu
}

// HostStats describe a Host's processes.
type HostStats struct {
	ZygotePID      int // 0 when there is none
	ZygoteRestarts int
	Forked, Fresh  int // workers made so far, by way
}

// NewHost is a Host that spawns once Run runs.
func NewHost(opts HostOptions) *Host {
	if opts.Executable == "" {
		opts.Executable = "/proc/self/exe"
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Stderr == nil {
		opts.Stderr = func(string, int64, string) {}
	}
	return &Host{
		opts: opts, log: opts.Log.With("component", "worker"),
		spawns: make(chan *spawnRequest), done: make(chan struct{}), units: make(map[string]*unit), raises: raisable(),
	}
}

// Stats may be called at any time.
func (h *Host) Stats() HostStats {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stats
}

func (h *Host) count(f func(*HostStats)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f(&h.stats)
}

// Run spawns until ctx ends. Workers that are alive then are killed with it; close the Models before. Called once.
func (h *Host) Run(ctx context.Context) error {
	defer close(h.done)
	sweepGroups(h.opts.Cgroup)
	exited := make(chan struct{})
	go func() {
		defer close(exited)
		// Never unlocked: the kernel sends the workers their PDEATHSIG when the *thread* that spawned them ends (golang/go#27505). So it
		// is this one thread, and it ends with this goroutine.
		runtime.LockOSThread()
		h.spawnLoop(ctx)
	}()
	<-exited
	return nil
}

// spawnRequest asks for one process. The reply channel has room for the one reply.
type spawnRequest struct {
	ctx     context.Context
	name    string // for ps, at most 15 bytes of it
	try     bool   // no process: only whether the library can be opened
	confine confinement
	env     []string // not empty: started afresh, with these
	reply   chan spawnReply
}

type spawnReply struct {
	spawned *spawned
	err     error
}

// spawned is a new worker process. The receiver owns all of it.
type spawned struct {
	process *os.Process
	control *control
	stderr  *os.File
	forked  bool
}

func (s *spawned) discard() {
	_ = s.process.Kill()
	_, _ = s.process.Wait()
	_ = s.control.conn.Close()
	_ = s.stderr.Close()
}

// spawn makes a worker process.
func (h *Host) spawn(ctx context.Context, opts *processOptions) (*spawned, error) {
	confine, err := h.opts.Sandbox.confine(h.opts.Library, opts)
	if err != nil {
		return nil, err
	}
	defer confine.close()
	r := &spawnRequest{ctx: ctx, name: opts.name, confine: confine, env: opts.env, reply: make(chan spawnReply, 1)}
	select {
	case h.spawns <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.done:
		return nil, fmt.Errorf("start a worker: the worker host: %w", inference.ErrClosed)
	}
	reply := <-r.reply // the loop always answers, and bounds each wait of its own by ctx
	return reply.spawned, reply.err
}

const (
	// zygoteTries in a row without a forked worker turn the zygote off for zygoteRest.
	zygoteTries = 3
	zygoteRest  = time.Minute
)

// spawnLoop owns the zygote and makes every process, all on its thread.
func (h *Host) spawnLoop(ctx context.Context) {
	var (
		z      *zygote
		ended  <-chan struct{} // of z
		tries  int
		resume time.Time // when the zygote may be tried again
	)
	start := func() {
		if !h.opts.UseZygote || z != nil || time.Now().Before(resume) {
			return
		}
		var err error
		if z, err = h.startZygote(); err != nil {
			h.log.Warn("zygote did not start; workers are started afresh", "err", err)
			resume = time.Now().Add(zygoteRest)
			return
		}
		ended = z.ended
		h.count(func(s *HostStats) { s.ZygotePID = z.pid })
	}
	drop := func() {
		z.close()
		z, ended = nil, nil
		h.count(func(s *HostStats) { s.ZygotePID = 0 })
		if tries++; tries >= zygoteTries {
			h.log.Warn("zygote keeps ending; workers are started afresh for a while", "attempt", tries, "wait", zygoteRest)
			tries, resume = 0, time.Now().Add(zygoteRest)
		}
	}
	spawn := func(r *spawnRequest) spawnReply {
		for range 2 { // the first zygote may have ended a moment ago
			if start(); z == nil || len(r.env) > 0 {
				break
			}
			s, err := h.fork(ctx, z, r)
			if err == nil {
				tries = 0
				return spawnReply{spawned: s}
			}
			if r.ctx.Err() != nil || ctx.Err() != nil {
				return spawnReply{err: errors.Join(r.ctx.Err(), ctx.Err())}
			}
			h.log.Warn("zygote cannot fork; another way is tried", "err", err)
			drop()
		}
		s, err := h.startFresh(r)
		return spawnReply{spawned: s, err: err}
	}
	start()
	for {
		select {
		case <-ctx.Done():
			if z != nil {
				z.close()
				h.count(func(s *HostStats) { s.ZygotePID = 0 })
			}
			return
		case <-ended:
			h.log.Warn("zygote ended; starting another", "err", z.state())
			h.count(func(s *HostStats) { s.ZygoteRestarts++ })
			drop()
			start()
		case r := <-h.spawns:
			if r.try {
				start()
				err := h.tryZygote(ctx, z, r)
				if err != nil && r.ctx.Err() == nil && ctx.Err() == nil {
					drop()
				}
				r.reply <- spawnReply{err: err}
				continue
			}
			r.reply <- spawn(r)
		}
	}
}

// plumbing is what connects the core and a new process: a control socket and a pipe for its output.
type plumbing struct {
	control, stderr           int // the core's ends
	workerControl, workerErrs int // the worker's ends
}

func plumb() (p plumbing, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return p, fmt.Errorf("make a control socket: %w", err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		_, _ = unix.Close(pair[0]), unix.Close(pair[1])
		return p, fmt.Errorf("make a pipe: %w", err)
	}
	return plumbing{control: pair[0], workerControl: pair[1], stderr: pipe[0], workerErrs: pipe[1]}, nil
}

func (p plumbing) closeWorkerEnds() { _, _ = unix.Close(p.workerControl), unix.Close(p.workerErrs) }
func (p plumbing) closeCoreEnds()   { _, _ = unix.Close(p.control), unix.Close(p.stderr) }

// own makes the core's side of a process that has the worker's ends.
func (p plumbing) own(process *os.Process, forked bool) (*spawned, error) {
	ctl, err := newControl(p.control)
	if err == nil {
		err = unix.SetNonblock(p.stderr, true)
	}
	if err != nil {
		_ = unix.Close(p.stderr)
		_ = process.Kill()
		_, _ = process.Wait()
		return nil, err
	}
	return &spawned{process: process, control: ctl, stderr: os.NewFile(uintptr(p.stderr), "worker output"), forked: forked}, nil
}

// environ is this process's environment with add, and without what the hidden verbs go by.
func (h *Host) environ(add ...string) []string {
	var env []string
	for _, e := range append(os.Environ(), h.opts.Env...) {
		if !strings.HasPrefix(e, EnvWorker+"=") && !strings.HasPrefix(e, EnvZygote+"=") && !strings.HasPrefix(e, EnvConfine+"=") {
			env = append(env, e)
		}
	}
	// Go's part of a worker is small: with its usual setting it would keep some megabytes of garbage in each of them.
	return append(append(env, add...), "GOGC=25")
}

// startFresh starts a worker with fork and exec.
func (h *Host) startFresh(r *spawnRequest) (*spawned, error) {
	p, err := plumb()
	if err != nil {
		return nil, err
	}
	control, output := os.NewFile(uintptr(p.workerControl), "control"), os.NewFile(uintptr(p.workerErrs), "output")
	cmd := &exec.Cmd{
		Path: h.opts.Executable, Args: []string{"inferd-worker", r.name}, Env: h.environ(slices.Concat(r.confine.env(), r.env, []string{EnvWorker + "=" + h.opts.Library})...),
		Stdout: output, Stderr: output, ExtraFiles: []*os.File{control},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if r.confine.rules >= 0 {
		rules, err := unix.FcntlInt(uintptr(r.confine.rules), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			_, _ = control.Close(), output.Close()
			p.closeCoreEnds()
			return nil, fmt.Errorf("start a worker: %w", err)
		}
		f := os.NewFile(uintptr(rules), "rules")
		defer func() { _ = f.Close() }()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f) // descriptor 4
	}
	err = cmd.Start()
	_, _ = control.Close(), output.Close()
	if err != nil {
		p.closeCoreEnds()
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	h.count(func(s *HostStats) { s.Fresh++ })
	return p.own(cmd.Process, false)
}

// maxLine bounds a line of a worker's output; the rest of a longer one becomes lines of its own.
const maxLine = 8 << 10

// readLines hands each line of r to f until r ends, and closes r.
func readLines(r io.ReadCloser, f func(line string)) {
	defer func() { _ = r.Close() }()
	b := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if text := strings.TrimRight(strings.ToValidUTF8(string(line), "\uFFFD"), "\r\n"); text != "" {
			f(text)
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}
