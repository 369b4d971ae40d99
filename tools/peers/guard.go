// guard.go: a process between the bench and each server, which ends the server and all that it started, whatever becomes of the bench.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/tools/measure"
)

// grace is how long a server may take to end before it is killed.
const grace = 5 * time.Second

// guard is the child that runs ARGV. When standard input ends, which it does however the bench ends, everything that ARGV started is ended:
// it is the parent that orphans get, and looks for them until there are none.
func guard(argv []string) error {
	runtime.LockOSThread() // the server's PDEATHSIG is tied to the thread that starts it
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become the parent of orphans: %w", err)
	}
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	var ending atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		ending.Store(true)
	}()
	var since time.Time
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.ECHILD) {
			return nil
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return err
		}
		if pid == cmd.Process.Pid {
			ending.Store(true) // the server has ended; what it left behind goes too
		}
		if pid > 0 {
			continue
		}
		if ending.Load() {
			signal := syscall.SIGTERM
			if since.IsZero() {
				since = time.Now()
				_ = syscall.Kill(cmd.Process.Pid, signal) // the server ends its own first
			}
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", cmd.Process.Pid)); time.Since(since) > grace || err != nil && time.Since(since) > grace/5 {
				signal = syscall.SIGKILL
				kill(os.Getpid(), signal)
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// kill signals all descendants.
func kill(pid int, signal syscall.Signal) {
	for _, c := range measure.Children(pid) {
		kill(c, signal)
		_ = syscall.Kill(c, signal)
	}
}

// server is a guarded server.
type server struct {
	at    address
	guard *exec.Cmd
	stdin io.Closer
	log   string
	work  string // a folder of its own, removed with it
	ended chan struct{}
}

// launch starts argv under a guard. Its output goes into the file log.
func launch(log string, env []string, argv ...string) (*server, error) {
	me, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer func() { _ = out.Close() }() // the child has its own
	s := &server{log: log, ended: make(chan struct{}), guard: exec.Command(me, append([]string{"-child", "guard", "--"}, argv...)...)}
	s.guard.Stdout, s.guard.Stderr, s.guard.Env = out, out, append(os.Environ(), env...)
	if s.stdin, err = s.guard.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.guard.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = s.guard.Wait()
		close(s.ended)
	}()
	return s, nil
}

// stop ends the server and waits until nothing of it is left.
func (s *server) stop() {
	if s.guard == nil {
		return // the user's own
	}
	_ = s.stdin.Close()
	<-s.ended
	if s.work != "" {
		_ = os.RemoveAll(s.work)
	}
}

// gone says that the server has ended by itself.
func (s *server) gone() bool {
	if s.guard == nil {
		return false
	}
	select {
	case <-s.ended:
		return true
	default:
		return false
	}
}

// said is the end of the server's log, for the error that its end is reported with.
func (s *server) said() string {
	f, err := os.Open(s.log)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	var last []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if last = append(last, lines.Text()); len(last) > 12 {
			last = last[1:]
		}
	}
	text := ""
	for _, l := range last {
		text += "\n    " + l
	}
	return text
}

// pid is the server's process.
func (s *server) pid() int {
	if s.guard == nil {
		return 0
	}
	for _, c := range measure.Children(s.guard.Process.Pid) {
		return c
	}
	return 0
}

// memory is the proportional memory of the server and all that it started, in bytes. Who shares a file's pages with others is counted less.
func (s *server) memory() (total int64) {
	if s.guard == nil {
		return 0
	}
	for _, c := range measure.Children(s.guard.Process.Pid) {
		all, _ := measure.TreePSS(c)
		total += all
	}
	return total
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port, nil
}
