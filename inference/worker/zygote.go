// zygote.go: the core's side of the zygote.
package worker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// zygote is a process that forks workers, see inference/tfrt/zygote.c. Only the spawning thread uses it.
type zygote struct {
	cmd   *exec.Cmd
	conn  *net.UnixConn
	pid   int
	ended chan struct{} // closed when the process has ended
	ready bool          // it has the library open and said so
	lines sync.WaitGroup
}

const (
	// zygotePatience bounds the wait for the library to be opened, which may come from a slow disk; forkPatience that for a fork.
	zygotePatience = 2 * time.Minute
	forkPatience   = 10 * time.Second
)

// startZygote starts the process and does not wait until it is ready.
func (h *Host) startZygote() (*zygote, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	theirs := os.NewFile(uintptr(pair[1]), "zygote")
	defer func() { _ = theirs.Close() }()
	ours := os.NewFile(uintptr(pair[0]), "zygote")
	defer func() { _ = ours.Close() }()
	c, err := net.FileConn(ours)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	defer func() { _ = w.Close() }()
	z := &zygote{conn: c.(*net.UnixConn), ended: make(chan struct{})}
	z.cmd = &exec.Cmd{
		Path: h.opts.Executable, Args: []string{"inferd-zygote"}, Env: h.environ(EnvZygote + "=" + h.opts.Library),
		Stdout: w, Stderr: w, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL},
	}
	if err := z.cmd.Start(); err != nil {
		_, _ = c.Close(), r.Close()
		return nil, err
	}
	z.pid = z.cmd.Process.Pid
	z.lines.Go(func() { readLines(r, func(line string) { h.opts.Stderr("", 0, line) }) })
	go func() {
		_ = z.cmd.Wait() // state has the outcome
		close(z.ended)
	}()
	return z, nil
}

// close ends the process and waits for it.
func (z *zygote) close() {
	_ = z.conn.Close()
	_ = z.cmd.Process.Kill()
	<-z.ended
	z.lines.Wait()
}

// state is how it ended. Only after ended.
func (z *zygote) state() string { return z.cmd.ProcessState.String() }

// receive waits for the zygote's next word: a number and a text.
func (z *zygote) receive(ctx context.Context, patience time.Duration) (int32, string, error) {
	stop := context.AfterFunc(ctx, func() { _ = z.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := z.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return 0, "", err
	}
	if err := ctx.Err(); err != nil {
		return 0, "", err // the deadline above may have replaced AfterFunc's
	}
	var b [1024]byte
	n, err := z.conn.Read(b[:])
	if err != nil {
		return 0, "", fmt.Errorf("the zygote does not answer: %w", err)
	}
	if n < 4 {
		return 0, "", fmt.Errorf("the zygote answered %d bytes", n)
	}
	return int32(binary.NativeEndian.Uint32(b[:])), string(b[4:n]), nil
}

// Try reports why the library cannot be opened, as the zygote finds out; nil where it can, or where there is no zygote to tell.
func (h *Host) Try(ctx context.Context) error {
	r := &spawnRequest{ctx: ctx, try: true, reply: make(chan spawnReply, 1)}
	select {
	case h.spawns <- r:
	case <-ctx.Done():
		return ctx.Err()
	case <-h.done:
		return fmt.Errorf("open %s: the worker host: %w", h.opts.Library, inference.ErrClosed)
	}
	if err := (<-r.reply).err; err != nil {
		return fmt.Errorf("open %s: %w", h.opts.Library, err)
	}
	return nil
}

func (h *Host) tryZygote(ctx context.Context, z *zygote, r *spawnRequest) error {
	if z == nil || z.ready {
		return nil
	}
	both, cancel := context.WithCancel(r.ctx)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	code, text, err := z.receive(both, zygotePatience)
	if err == nil && code < 0 {
		err = errors.New(text)
	}
	z.ready = err == nil
	return err
}

// fork makes a worker from the zygote. After an error the zygote is of no more use, unless a ctx ended.
func (h *Host) fork(ctx context.Context, z *zygote, r *spawnRequest) (*spawned, error) {
	// The requester's ctx only counts until the fork is asked for: a late answer would be taken for the next one's.
	if !z.ready {
		both, cancel := context.WithCancel(r.ctx)
		defer cancel()
		defer context.AfterFunc(ctx, cancel)()
		code, text, err := z.receive(both, zygotePatience)
		if err != nil {
			return nil, err
		}
		if code < 0 {
			return nil, errors.New(text)
		}
		z.ready = true
	}
	p, err := plumb()
	if err != nil {
		return nil, err
	}
	pid, err := z.ask(ctx, r, p)
	p.closeWorkerEnds()
	if err != nil {
		p.closeCoreEnds()
		return nil, err
	}
	// The child is ours, so its pid cannot be reused before we wait for it.
	process, err := os.FindProcess(pid)
	if err != nil {
		p.closeCoreEnds()
		return nil, err
	}
	h.count(func(s *HostStats) { s.Forked++ })
	return p.own(process, true)
}

// ask sends a request: our pid, what to confine the worker to, its name, and its descriptors.
func (z *zygote) ask(ctx context.Context, r *spawnRequest, p plumbing) (int, error) {
	packet := binary.NativeEndian.AppendUint32(nil, uint32(os.Getpid()))
	packet = binary.NativeEndian.AppendUint32(packet, uint32(r.confine.what))
	packet = append(packet, strings.ReplaceAll(r.name, "\x00", "")[:min(len(r.name), 15)]...)
	fds := []int{p.workerControl, p.workerErrs}
	if r.confine.rules >= 0 {
		fds = append(fds, r.confine.rules)
	}
	if err := z.conn.SetWriteDeadline(time.Now().Add(forkPatience)); err != nil {
		return 0, err
	}
	if _, _, err := z.conn.WriteMsgUnix(packet, unix.UnixRights(fds...), nil); err != nil {
		return 0, fmt.Errorf("ask the zygote for a worker: %w", err)
	}
	pid, text, err := z.receive(ctx, forkPatience)
	if err != nil {
		return 0, err
	}
	if pid <= 0 {
		return 0, fmt.Errorf("the zygote cannot fork: %s", text)
	}
	return int(pid), nil
}
