// namespace.go: for tests that need limits or mounts of their own.

// Package namespace runs a test again as root of a user namespace of its own, where it may lower limits and mount file systems without
// anybody else noticing and without being root outside. It is for tests only.
package namespace

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const env = "INFERD_TEST_NAMESPACE" // the test that shall run in it

// Inside runs the calling test again in a child process, in a new user namespace and, with mounts, a new mount namespace. It reports
// whether this is that run; the caller returns when it is not. Where such namespaces are not permitted the test is skipped.
func Inside(t *testing.T, mounts bool) bool {
	t.Helper()
	if os.Getenv(env) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), env+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	if mounts {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNS
	}
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespace is to be had here: %v", err)
	}
	switch err := cmd.Wait(); {
	case err != nil:
		t.Fatalf("in a namespace of its own: %v\n%s", err, out)
	case strings.Contains(out.String(), "--- SKIP: "+t.Name()):
		t.Skip(out)
	case !strings.Contains(out.String(), "--- PASS: "+t.Name()):
		t.Fatalf("in a namespace of its own nothing was tested:\n%s", out)
	}
	t.Logf("in a namespace of its own:\n%s", out)
	return false
}

// Limit sets a limit of the namespace, one of /proc/sys/user.
func Limit(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0o644); err != nil {
		t.Skipf("this kernel does not limit it in a namespace: %v", err)
	}
}

// Mount mounts a file system, until the test's end at the latest. A kernel that does not permit it skips the test.
func Mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("mount %s %s on %s is not permitted here: %v", kind, source, target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // it may be gone already
}

// Unmount takes what is mounted there away, whoever uses it.
func Unmount(t *testing.T, target string) {
	t.Helper()
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}
