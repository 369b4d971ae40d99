// host_test.go: the zygote's life, and what becomes of workers when the core dies.
package worker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
)

// pidfdOrGone is pidfd, or a descriptor that is readable at once where the process has been reaped.
func pidfdOrGone(tb testing.TB, pid int) int {
	tb.Helper()
	if fd, err := unix.PidfdOpen(pid, 0); err == nil {
		tb.Cleanup(func() { _ = unix.Close(fd) })
		return fd
	}
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestZygoteDies(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	zygote := h.Stats().ZygotePID
	end := pidfd(t, zygote)
	if err := syscall.Kill(zygote, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, end)
	echo(t, m, 1)
	open(t, h, fakeLoad("b"), Options{})
	echo(t, m, 1)
	s := h.Stats()
	if m.Stats().Restarts != 0 || s.ZygotePID == zygote || s.ZygotePID == 0 || s.Forked != 2 {
		t.Errorf("host %+v, model %+v", s, m.Stats())
	}
}

const missingLibrary = "/nonexistent/libtensorflow.so"

func TestZygoteThatCannotOpenTheLibrary(t *testing.T) {
	h := &testHost{heard: make(chan struct{})}
	h.Host = NewHost(HostOptions{UseZygote: true, Library: missingLibrary})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = h.Run(ctx); close(done) }()
	m := open(t, h, fakeLoad("a"), Options{}) // by a fresh process, whose backend does not need it
	echo(t, m, 1)
	if s := h.Stats(); s.Fresh != 1 || s.Forked != 0 {
		t.Errorf("%+v", s)
	}
	_ = m.Close()
	stop()
	<-done
	if _, err := h.Open(t.Context(), fakeLoad("a"), Options{}); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("a host that has ended: %v", err)
	}
}

func TestForkedWorkerIsOurChild(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("some/model"), Options{})
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Stats().PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{fmt.Sprintf("PPid:\t%d\n", os.Getpid()), "Name:\tsome/model\n"} {
		if !strings.Contains(string(stat), want) {
			t.Errorf("%q is not in\n%s", want, stat)
		}
	}
	// It has its own ends and nothing of the zygote's or of another worker's: one control socket, which Go has duplicated from 3.
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", m.Stats().PID))
	if err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err == nil && strings.HasPrefix(target, "socket:") {
			sockets++
		}
	}
	if sockets != 1 {
		t.Errorf("%d sockets in the worker", sockets)
	}
}

// coreMain is a core whose workers are to die with it: one that computes, one that is stopped, forked and fresh.
func coreMain() {
	for _, zygote := range []bool{true, false} {
		h := NewHost(HostOptions{UseZygote: zygote, Env: []string{envCore + "="}, Stderr: func(_ string, _ int64, line string) { fmt.Println("line", line) }})
		go func() { _ = h.Run(context.Background()) }()
		for _, key := range []string{"spin", "echo"} {
			m, err := h.Open(context.Background(), fakeLoad(key), Options{})
			if err != nil {
				fmt.Println("error", err)
				os.Exit(1)
			}
			fmt.Println("pid", m.Stats().PID)
			if key == "spin" {
				go func() { _, _ = m.Run(context.Background(), runOf("spin", floatTensor(1))) }()
			} else {
				_ = syscall.Kill(m.Stats().PID, syscall.SIGSTOP)
			}
		}
		if pid := h.Stats().ZygotePID; pid != 0 {
			fmt.Println("pid", pid)
		}
	}
	fmt.Println("up")
	select {}
}

func TestCoreDies(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envCore+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	var ends []int
	spinning := 0
	up := false
	lines := bufio.NewScanner(out)
	for (!up || spinning < 2) && lines.Scan() {
		word, rest, _ := strings.Cut(lines.Text(), " ")
		switch word {
		case "pid":
			pid, err := strconv.Atoi(rest)
			if err != nil {
				t.Fatal(err)
			}
			ends = append(ends, pidfd(t, pid))
		case "line":
			if rest == "spinning" {
				spinning++
			}
		case "up":
			up = true
		default:
			t.Fatal(lines.Text())
		}
	}
	if len(ends) != 5 {
		t.Fatalf("%d processes, want 4 workers and a zygote", len(ends))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for _, fd := range ends {
		waitEnd(t, fd)
	}
}
