// machine.go: one booted machine, and what can be done to it from outside.
package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	_ "embed"

	"golang.org/x/sys/unix"
)

//go:embed boot.sh
var bootScript string

// Machine is a root with a layer of its own, and a systemd in it while it is booted. Its methods are for one goroutine, but Dial, Command and
// Run, which are for any.
type Machine struct {
	// immutable after New
	name, dir string
	lower     []string // the layers below its own, top first
	cgroups   []string

	// owned by the test's goroutine
	process *exec.Cmd     // unshare, whose child is PID 1; nil while it is off
	ended   chan struct{} // closed when process has
	pid1    atomic.Int64  // 0: not booted; read by everybody
}

var machines atomic.Int64

// New makes a machine in dir, which must be empty and outlive it, above layers: the Upper of another machine first, the root last. It
// is not booted.
func New(dir string, layers ...string) (*Machine, error) {
	m := &Machine{name: fmt.Sprintf("inferd-test-%d-%d", os.Getpid(), machines.Add(1)), dir: dir, lower: layers}
	m.cgroups = cgroupDirs(m.name)
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := unix.Mount("overlay", m.Root(), "overlay", 0, "lowerdir="+strings.Join(layers, ":")+",upperdir="+m.Upper()+",workdir="+filepath.Join(dir, "work")); err != nil {
		return nil, fmt.Errorf("%w: no overlay can be mounted: %w", errUnavailable, err)
	}
	return m, nil
}

// Root is where its files are, while it is booted and while it is not. What it has mounted itself is not seen there.
func (m *Machine) Root() string { return filepath.Join(m.dir, "root") }

// Upper is the layer with what it has written.
func (m *Machine) Upper() string { return filepath.Join(m.dir, "upper") }

// Inside is where its files are with its own mounts. It must be booted.
func (m *Machine) Inside(path string) string {
	return filepath.Join("/proc", strconv.FormatInt(m.pid1.Load(), 10), "root", path)
}

// Boot starts systemd and returns once it is running. A unit that failed is an error.
func (m *Machine) Boot(ctx context.Context) error {
	for _, dir := range m.cgroups {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for _, file := range []string{"cpuset.cpus", "cpuset.mems"} { // a new one of version 1 has none, and takes no process
			text, err := os.ReadFile(filepath.Join(filepath.Dir(dir), file))
			if err != nil || exists(filepath.Join(dir, "cgroup.controllers")) {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, file), text, 0o644); err != nil {
				return err
			}
		}
	}
	log, err := os.OpenFile(m.console(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }() // the child has its own
	cmd := exec.Command("/bin/sh", "-c", bootScript)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "ROOT=" + m.Root(), "CGDIRS=" + strings.Join(m.cgroups, " "), "NAME=inferd-test"}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL} // a test that times out leaves no machine behind
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread() // for Pdeathsig is about the thread (golang/go#27505)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // its status says nothing
		}
		close(ended)
		runtime.UnlockOSThread()
	}()
	if err := <-started; err != nil {
		return err
	}
	m.process, m.ended = cmd, ended
	for {
		if m.pid1.Load() == 0 {
			m.pid1.Store(systemdBelow(cmd.Process.Pid))
		} else if exists(m.Inside("/run/systemd/private")) {
			if state, _ := m.Run(ctx, "systemctl", "is-system-running"); strings.TrimSpace(state) == "running" {
				return nil
			} else if strings.TrimSpace(state) == "degraded" {
				failed, _ := m.Run(ctx, "systemctl", "--failed", "--no-legend", "--plain")
				return fmt.Errorf("booted, but units have failed: %s", failed)
			}
		}
		if !m.pause(ctx) {
			text, _ := os.ReadFile(m.console()) // its end says why
			return errors.Join(fmt.Errorf("systemd did not come up; its console:\n%s", tail(string(text), 2000)), m.Kill())
		}
	}
}

func (m *Machine) console() string { return filepath.Join(m.dir, "console.log") }

// systemdBelow is the child of unshare once it has become systemd, else 0.
func systemdBelow(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil || len(strings.Fields(string(text))) == 0 {
		return 0
	}
	child := strings.Fields(string(text))[0]
	comm, err := os.ReadFile("/proc/" + child + "/comm")
	if err != nil || strings.TrimSpace(string(comm)) != "systemd" {
		return 0
	}
	n, err := strconv.ParseInt(child, 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// Kill ends every process of the machine at once, as a power cut does, and waits for that. It may be booted again.
func (m *Machine) Kill() error {
	if m.process == nil {
		return nil
	}
	if pid := m.pid1.Swap(0); pid != 0 {
		_ = unix.Kill(int(pid), unix.SIGKILL) // the kernel ends everybody else of its PID namespace; it may be gone
	} else {
		_ = m.process.Process.Kill() // with --kill-child
	}
	<-m.ended
	m.process = nil
	return m.dropCgroups()
}

// Halt shuts the machine down in order.
func (m *Machine) Halt(ctx context.Context) error {
	if m.process == nil {
		return nil
	}
	if pid := m.pid1.Load(); pid != 0 {
		const poweroff = 34 + 4 // SIGRTMIN+4 of systemd(1); glibc's SIGRTMIN is 34
		_ = unix.Kill(int(pid), unix.Signal(poweroff))
		for m.pause(ctx) {
		}
	}
	return m.Kill()
}

// Close kills the machine if it is booted and takes its mounts and cgroups away. What it has written stays in Upper.
func (m *Machine) Close() error {
	err := m.Kill()
	if uerr := unix.Unmount(m.Root(), 0); uerr != nil && !errors.Is(uerr, unix.EINVAL) {
		err = errors.Join(err, unix.Unmount(m.Root(), unix.MNT_DETACH))
	}
	return err
}

// dropCgroups removes the cgroups that nobody is in any more.
func (m *Machine) dropCgroups() error {
	for _, dir := range m.cgroups {
		for end := time.Now().Add(10 * time.Second); exists(dir); time.Sleep(20 * time.Millisecond) { // the kernel has just ended the last process
			var inner []string
			_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && d.IsDir() {
					inner = append(inner, path)
				}
				return nil
			})
			for i := len(inner) - 1; i >= 0; i-- {
				_ = os.Remove(inner[i])
			}
			if time.Now().After(end) {
				return fmt.Errorf("cgroup %s is left behind", dir)
			}
		}
	}
	return nil
}

// Command is a command in the machine, as root. It must be booted.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	pid := strconv.FormatInt(m.pid1.Load(), 10)
	all := append([]string{"-t", pid, "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "HOME=/root", "DEBIAN_FRONTEND=noninteractive", name}, args...)
	return exec.CommandContext(ctx, "nsenter", all...)
}

// Run runs a command in the machine, as root and without a standard input, and returns all it prints.
func (m *Machine) Run(ctx context.Context, name string, args ...string) (string, error) {
	out, err := m.Command(ctx, name, args...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, tail(string(out), 2000))
	}
	return string(out), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// pause waits a moment, and reports false when ctx is over or the machine off.
func (m *Machine) pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-m.ended:
		return false
	case <-time.After(20 * time.Millisecond):
		return true
	}
}

// tail is the end of a text.
func tail(s string, most int) string {
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}
