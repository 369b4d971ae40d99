// sandbox_test.go: what the scripts run to play a kernel without Landlock, and the daemon as a user of its own.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// oldKernel runs a command for which the kernel has no Landlock, as one that was started without it has none: it answers so itself.
func oldKernel() {
	runtime.LockOSThread()
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.SYS_LANDLOCK_CREATE_RULESET, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EOPNOTSUPP)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
	if err == nil {
		err = unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
	}
	path, look := exec.LookPath(os.Args[1])
	if err == nil && look == nil {
		err = unix.Exec(path, os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, "oldkernel:", err, look)
	os.Exit(9)
}

// TestCoreIsHidden: other processes of the daemon's user cannot look into it, and it still counts the memory of its workers, which are not
// hidden. Only a user without privileges can show that.
func TestCoreIsHidden(t *testing.T) {
	lib := tensorflow(t)
	switch {
	case lib == "":
		t.Skip("no TensorFlow runtime: `make runtime` fetches it, LIBTENSORFLOW names another")
	case os.Getuid() != 0:
		t.Skip("only root can start a daemon as another user")
	}
	const nobody = 65534
	dir, err := os.MkdirTemp("", "inferd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	exe := filepath.Join(dir, "inferd")
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(exe, self, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	modeltest.WriteVersion(t, filepath.Join(dir, "models", "half"), 1, modeltest.HalfPlusTwo())
	if err := os.Mkdir(filepath.Join(dir, "state"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := filepath.Walk(dir, func(path string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "ctl")
	cmd := exec.Command(exe, "serve", "--models-dir="+filepath.Join(dir, "models"), "--state-dir="+filepath.Join(dir, "state"), "--listen.control="+socket,
		"--http=127.0.0.1:0", "--grpc=", "--updater.settle_time=100ms", "--runtime="+lib)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	cmd.Dir = dir
	var said bytes.Buffer // read after Wait
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Skipf("a copy of the binary cannot be run as nobody: %v", err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the daemon said:\n%s", said.String())
		}
	}()

	var w *control.Worker
	for end := time.Now().Add(patience); w == nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the model does not serve")
		}
		c := control.Dial(socket)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		if s, err := c.Status(ctx); err == nil && len(s.Models) == 1 && len(s.Models[0].Versions) == 1 {
			w = s.Models[0].Versions[0].Worker
		}
		cancel()
		c.Close()
	}
	// What /proc says about a process that is not dumpable belongs to root.
	owner := func(pid int) uint32 {
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/environ", pid), &st); err != nil {
			t.Fatal(err)
		}
		return st.Uid
	}
	if uid := owner(cmd.Process.Pid); uid != 0 {
		t.Errorf("the core can be looked into by user %d", uid)
	}
	if uid := owner(w.PID); uid != nobody || w.PrivateBytes == 0 {
		t.Errorf("its worker belongs to user %d, and has %d bytes of its own", uid, w.PrivateBytes)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", w.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`NoNewPrivs:\t1\n`, `Seccomp:\t2\n`, `Uid:\t` + strconv.Itoa(nobody)} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("the worker's status has no %s:\n%s", want, status)
		}
	}
}
