// sandbox_calls_test.go: the system calls that a confined worker is refused, tried one by one in a real one.
package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tries are made by a worker, with nothing that does harm where they are let through: arguments that the kernel refuses in another way, or the
// parent (the core) asked for what changes nothing. want is what a confined one gets; 0, that the call is left to it.
var tries = map[string]struct {
	call func() error
	want syscall.Errno
}{
	"execve":            {func() error { return unix.Exec("/nonexistent", []string{"x"}, nil) }, unix.EPERM},
	"execveat":          {func() error { return raw(unix.SYS_EXECVEAT, bad, 0, 0, 0, 0, 0) }, unix.EPERM},
	"a program":         {program, unix.EPERM},
	"clone":             {func() error { return raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|unix.CLONE_THREAD, 0, 0, 0, 0, 0) }, unix.EPERM},
	"clone3":            {func() error { return raw(unix.SYS_CLONE3, 0, 0, 0, 0, 0, 0) }, unix.ENOSYS},
	"unshare":           {func() error { return unix.Unshare(0) }, unix.EPERM},
	"setns":             {func() error { return unix.Setns(-1, 0) }, unix.EPERM},
	"socket unix":       {func() error { return socket(unix.AF_UNIX, unix.SOCK_STREAM) }, unix.EPERM},
	"socket inet":       {func() error { return socket(unix.AF_INET, unix.SOCK_STREAM) }, unix.EPERM},
	"socket inet6 udp":  {func() error { return socket(unix.AF_INET6, unix.SOCK_DGRAM) }, unix.EPERM},
	"socket netlink":    {func() error { return socket(unix.AF_NETLINK, unix.SOCK_RAW) }, unix.EPERM},
	"a datagram socket": {func() error { return socket(unix.AF_UNIX, unix.SOCK_DGRAM) }, unix.EPERM},
	"name a thread":     {named, unix.EACCES},
	"socketpair":        {func() error { return pair() }, unix.EPERM},
	"connect":           {func() error { return unix.Connect(0, &unix.SockaddrUnix{Name: "/x"}) }, unix.EPERM},
	"kill the core":     {func() error { return unix.Kill(os.Getppid(), 0) }, unix.EPERM},
	"kill everybody":    {func() error { return raw(unix.SYS_KILL, bad, 100, 0, 0, 0, 0) }, unix.EPERM},
	"kill the group":    {func() error { return unix.Kill(0, 0) }, unix.EPERM},
	"tgkill the core":   {func() error { return unix.Tgkill(os.Getppid(), os.Getppid(), 0) }, unix.EPERM},
	"tkill the core":    {func() error { return raw(unix.SYS_TKILL, uintptr(os.Getppid()), 0, 0, 0, 0, 0) }, unix.EPERM},
	"sigqueue the core": {func() error { return raw(unix.SYS_RT_SIGQUEUEINFO, uintptr(os.Getppid()), 0, 0, 0, 0, 0) }, unix.EPERM},
	"own the core":      {func() error { return fcntl(unix.F_SETOWN, os.Getppid()) }, unix.EPERM},
	"pidfd_open":        {func() error { return pidfdOf(os.Getppid()) }, unix.EPERM},
	"ptrace":            {func() error { return raw(unix.SYS_PTRACE, unix.PTRACE_PEEKDATA, uintptr(os.Getppid()), 0, 0, 0, 0) }, unix.EPERM},
	"process_vm_readv":  {func() error { return raw(unix.SYS_PROCESS_VM_READV, uintptr(os.Getppid()), 0, 0, 0, 0, 0) }, unix.EPERM},
	"process_vm_writev": {func() error { return raw(unix.SYS_PROCESS_VM_WRITEV, uintptr(os.Getppid()), 0, 0, 0, 0, 0) }, unix.EPERM},
	"the core's limits": {func() error { return unix.Prlimit(os.Getppid(), unix.RLIMIT_NOFILE, nil, new(unix.Rlimit)) }, unix.EPERM},
	"the core's nice":   {func() error { return unix.Setpriority(unix.PRIO_PROCESS, os.Getppid(), 0) }, unix.EPERM},
	"the user's nice":   {func() error { return unix.Setpriority(unix.PRIO_USER, bad32, 0) }, unix.EPERM},
	"the core's place":  {func() error { return affinity(os.Getppid()) }, unix.EPERM},
	"mount":             {func() error { return unix.Mount("", "/nonexistent", "", 0, "") }, unix.EPERM},
	"chroot":            {func() error { return unix.Chroot("/nonexistent") }, unix.EPERM},
	"fsopen":            {func() error { return raw(430, 0, 0, 0, 0, 0, 0) }, unix.EPERM},
	"keyctl":            {func() error { return raw(unix.SYS_KEYCTL, 9999, 0, 0, 0, 0, 0) }, unix.EPERM},
	"bpf":               {func() error { return raw(unix.SYS_BPF, 9999, 0, 0, 0, 0, 0) }, unix.EPERM},
	"perf_event_open":   {func() error { return raw(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0, 0) }, unix.EPERM},
	"io_uring_setup":    {func() error { return raw(unix.SYS_IO_URING_SETUP, 0, 0, 0, 0, 0, 0) }, unix.EPERM},
	"open_by_handle_at": {func() error { return raw(unix.SYS_OPEN_BY_HANDLE_AT, bad, 0, 0, 0, 0, 0) }, unix.EPERM},
	"inotify":           {func() error { return raw(unix.SYS_INOTIFY_INIT1, bad, 0, 0, 0, 0, 0) }, unix.EPERM},
	"userfaultfd":       {func() error { return raw(unix.SYS_USERFAULTFD, bad, 0, 0, 0, 0, 0) }, unix.EPERM},
	"shared memory":     {func() error { return raw(unix.SYS_SHMGET, 0, 0, 0, 0, 0, 0) }, unix.EPERM},
	"terminal":          {func() error { return raw(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0, 0, 0, 0) }, unix.EPERM},
	"dumpable":          {func() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) }, unix.EPERM},
	"outlive the core":  {func() error { return unix.Prctl(unix.PR_SET_PDEATHSIG, 9, 0, 0, 0) }, unix.EPERM},
	"what comes later":  {func() error { return raw(900, 0, 0, 0, 0, 0, 0) }, 0}, // ENOSYS either way
	"openat2":           {func() error { return raw(unix.SYS_OPENAT2, bad, 0, 0, 0, 0, 0) }, unix.ENOSYS},
	"open for writing":  {func() error { return opened("/dev/null", unix.O_WRONLY) }, unix.EACCES},
	"open both ways":    {func() error { return opened("/dev/null", unix.O_RDWR) }, unix.EACCES},
	"truncate":          {func() error { return unix.Truncate("/nonexistent", 0) }, unix.EACCES},
	"mkdir":             {func() error { return unix.Mkdir("/nonexistent/x", 0) }, unix.EACCES},
	"rename":            {func() error { return unix.Rename("/nonexistent", "/nonexistent/x") }, unix.EACCES},
	"unlink":            {func() error { return unix.Unlink("/nonexistent") }, unix.EACCES},
	"symlink":           {func() error { return unix.Symlink("x", "/nonexistent/x") }, unix.EACCES},
	"chmod":             {func() error { return unix.Chmod("/nonexistent", 0) }, unix.EACCES},
	"chown":             {func() error { return unix.Chown("/nonexistent", 0, 0) }, unix.EACCES},
	"setxattr":          {func() error { return unix.Setxattr("/nonexistent", "user.x", nil, 0) }, unix.EACCES},

	"read itself":       {func() error { return read("/proc/self/status") }, 0},
	"read processors":   {func() error { return read("/sys/devices/system/cpu/online") }, 0},
	"list itself":       {func() error { return listed("/proc/self/task") }, 0},
	"kill itself":       {func() error { return unix.Kill(os.Getpid(), 0) }, 0},
	"a thread":          {aThread, 0},
	"its own limits":    {func() error { return unix.Getrlimit(unix.RLIMIT_NOFILE, new(unix.Rlimit)) }, 0},
	"lower priority":    {lowered, 0},
	"memory by the way": {memory, 0},
}

// triesOfFiles are refused by Landlock alone.
var triesOfFiles = map[string]struct {
	call func() error
	want syscall.Errno
}{
	"read a password file":     {func() error { return read("/etc/passwd") }, unix.EACCES},
	"list the root":            {func() error { return listed("/") }, unix.EACCES},
	"list processes":           {func() error { return listed("/proc") }, unix.EACCES},
	"read the core's memory":   {func() error { return read(fmt.Sprintf("/proc/%d/mem", os.Getppid())) }, unix.EACCES},
	"read the core's command":  {func() error { return read(fmt.Sprintf("/proc/%d/cmdline", os.Getppid())) }, unix.EACCES},
	"read through its own dir": {func() error { return read("/proc/self/root/etc/passwd") }, unix.EACCES},
	"read through its cwd":     {func() error { return read("/proc/self/cwd/doc.go") }, unix.EACCES},
	"list the devices":         {func() error { return listed("/dev") }, unix.EACCES},
}

const (
	bad   = ^uintptr(0)
	bad32 = 1<<31 - 1
)

func raw(nr, a, b, c, d, e, f uintptr) error {
	if _, _, errno := syscall.Syscall6(nr, a, b, c, d, e, f); errno != 0 {
		return errno
	}
	return nil
}

func closing(fd int, err error) error {
	if err == nil {
		err = unix.Close(fd)
	}
	return err
}

func named() error {
	return os.WriteFile(fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid()), []byte("a name"), 0)
}

func program() error {
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{})
	if err == nil {
		_, err = syscall.Wait4(pid, nil, 0, nil)
	}
	return err
}

func socket(family, kind int) error { return closing(unix.Socket(family, kind, 0)) }

func pair() error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err == nil {
		_, _ = unix.Close(fds[0]), unix.Close(fds[1])
	}
	return err
}

func pidfdOf(pid int) error { return closing(unix.PidfdOpen(pid, 0)) }

func fcntl(cmd, arg int) error {
	_, err := unix.FcntlInt(1, cmd, arg)
	return err
}

func affinity(pid int) error {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(pid, &set); err != nil {
		return err
	}
	return unix.SchedSetaffinity(pid, &set)
}

func opened(path string, flags int) error { return closing(unix.Open(path, flags, 0)) }

func read(path string) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	return closing(fd, err)
}

func listed(path string) error {
	_, err := os.ReadDir(path)
	return err
}

func aThread() error {
	done := make(chan int)
	go func() {
		runtime.LockOSThread() // and not unlocked: the thread ends with it
		done <- unix.Gettid()
	}()
	<-done
	return nil
}

func lowered() error {
	done := make(chan error)
	go low(func() {
		var at *unix.SchedAttr
		at, err := unix.SchedGetAttr(0, 0)
		if err == nil && at.Policy != unix.SCHED_IDLE {
			err = errors.New("the priority is as before")
		}
		done <- err
	}, func() {})
	return <-done
}

func memory() error {
	fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	b, err := unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err == nil {
		err = unix.Munmap(b)
	}
	return err
}

// tryCall is the worker's side.
func tryCall(name string) string {
	t, ok := tries[name]
	if !ok {
		t = triesOfFiles[name]
	}
	err := t.call()
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return fmt.Sprint(err)
}

func TestSandboxSystemCalls(t *testing.T) {
	for _, c := range []struct {
		name    string
		sandbox func(*testing.T) *Sandbox
		zygote  bool
	}{
		{"off", func(*testing.T) *Sandbox { return nil }, true},
		{"forked", whole, true},
		{"fresh", whole, false},
		{"seccomp alone", func(t *testing.T) *Sandbox { return confinedTo(t, 0) }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.sandbox(t)
			h := startHostWith(t, HostOptions{UseZygote: c.zygote, Sandbox: s})
			m := open(t, h, fakeLoad("tries"), Options{})
			check := func(name string, want syscall.Errno, holds bool) {
				t.Helper()
				res, err := m.Run(t.Context(), runOf("try", stringTensor(name)))
				if err != nil {
					t.Fatalf("%s: %v", name, err)
				}
				defer res.Release()
				got := string(res.Outputs[0].Strings[0])
				switch {
				case want == 0 && name == "what comes later":
					if got != "ENOSYS" {
						t.Errorf("%s: %s", name, got)
					}
				case want == 0:
					if got != "<nil>" {
						t.Errorf("%s: %s; a worker needs it", name, got)
					}
				case holds != (got == unix.ErrnoName(want)):
					t.Errorf("%s: %s; a confined worker gets %v", name, got, want)
				}
			}
			for name, try := range tries {
				check(name, try.want, s != nil)
			}
			for name, try := range triesOfFiles {
				check(name, try.want, s != nil && s.kernel.Landlock > 0)
			}
		})
	}
}

// TestSandboxWithDevices: what a process that uses a GPU may do beside, and may not. (That CUDA works in it was tried on an H200.)
func TestSandboxWithDevices(t *testing.T) {
	for _, zygote := range []bool{true, false} {
		h := startHostWith(t, HostOptions{UseZygote: zygote, Sandbox: whole(t)})
		l := fakeLoad("tries")
		l.Device = "0"
		m := open(t, h, l, Options{})
		for name, want := range map[string]string{
			"socket unix": "<nil>", "open both ways": "<nil>", "name a thread": "<nil>", "unlink": "ENOENT",
			"socketpair": "EPERM", "socket inet": "EPERM", "a datagram socket": "EPERM", "connect": "EPERM", "a program": "EPERM", "kill the core": "EPERM",
			"read a password file": "EACCES", "list the root": "EACCES", "mkdir": "EACCES", "read the core's memory": "EACCES",
		} {
			res, err := m.Run(t.Context(), runOf("try", stringTensor(name)))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if got := string(res.Outputs[0].Strings[0]); got != want {
				t.Errorf("zygote %v: %s: %s, want %s", zygote, name, got, want)
			}
			res.Release()
		}
	}
}

func TestLinkerDirs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"ld.so.conf": "include conf.d/*.conf\n/one # why\nrelative\n/\n", "conf.d/a.conf": "/two\n\n#/no\ninclude ../ld.so.conf\n", "conf.d/b.txt": "/no\n",
	} {
		if err := os.MkdirAll(filepath.Join(dir, "conf.d"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got := linkerDirs(filepath.Join(dir, "ld.so.conf"), 0) // which includes itself, and ends all the same
	slices.Sort(got)
	if got := slices.Compact(got); !slices.Equal(got, []string{"/one", "/two"}) {
		t.Errorf("%q", got)
	}
}

// TestSandboxDescriptors: a worker has its output, its control socket and nothing else of the core's when it begins.
func TestSandboxDescriptors(t *testing.T) {
	for _, zygote := range []bool{true, false} {
		h := startHostWith(t, HostOptions{UseZygote: zygote, Sandbox: whole(t)})
		m := open(t, h, fakeLoad("m"), Options{})
		echo(t, m, 1)
		pid := m.Stats().PID
		list, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			to, err := os.Readlink(filepath.Join(fmt.Sprintf("/proc/%d/fd", pid), e.Name()))
			if err != nil {
				continue // closed meanwhile
			}
			switch kind, _, _ := strings.Cut(to, ":"); {
			case kind == "pipe", kind == "socket", kind == "anon_inode" && !strings.Contains(to, "landlock"), to == "/dev/null", strings.HasPrefix(to, "/memfd:inferd-"):
			case strings.HasPrefix(to, "/sys/fs/cgroup/"): // the Go runtime's own, for GOMAXPROCS
			default:
				t.Errorf("zygote %v: descriptor %s is %s", zygote, e.Name(), to)
			}
		}
	}
}

// TestProbeConfinement: what is said where the kernel refuses to tell, which a filter on one thread plays here.
func TestProbeConfinement(t *testing.T) {
	for errno, want := range map[syscall.Errno]string{
		unix.ENOSYS: "Linux 5.13", unix.EOPNOTSUPP: "lsm=", unix.EPERM: "filter of system calls", unix.EIO: "input/output error",
	} {
		got := make(chan Confinement)
		go func() {
			runtime.LockOSThread() // and not unlocked: the filter goes with the thread
			if err := refuseLandlock(errno); err != nil {
				t.Errorf("no filter: %v", err)
			}
			got <- ProbeConfinement()
		}()
		if c := <-got; c.Landlock != 0 || !strings.Contains(c.NoLandlock, want) || c.Full() || !c.Seccomp || !strings.Contains(c.String(), want) {
			t.Errorf("%v: %+v", errno, c)
		}
	}
}

// refuseLandlock has the kernel answer the calling thread, and those that it makes, as one without Landlock would.
func refuseLandlock(errno syscall.Errno) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
