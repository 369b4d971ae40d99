// namespace_test.go: tests that need limits or mounts of their own run again in a child process with namespaces of its own.
package updater

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const envNamespace = "UPDATER_TEST_NAMESPACE"

// inNamespace runs the calling test again as root of a user namespace, with those other namespaces too, and reports whether this is that
// run: the caller returns when it is not. Where user namespaces are not permitted the test is skipped.
func inNamespace(t *testing.T, flags uintptr) bool {
	t.Helper()
	if os.Getenv(envNamespace) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), envNamespace+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | flags,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out := new(strings.Builder)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Skipf("no user namespace is to be had here: %v", err)
	}
	switch err := cmd.Wait(); {
	case err != nil:
		t.Fatalf("in a namespace of its own: %v\n%s", err, out)
	case strings.Contains(out.String(), "--- SKIP"):
		t.Skip(out)
	case !strings.Contains(out.String(), "--- PASS: "+t.Name()):
		t.Fatalf("in a namespace of its own nothing was tested:\n%s", out)
	}
	return false
}

// sysctl sets a limit of the namespace.
func sysctl(t *testing.T, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/user/"+name, []byte(value), 0o644); err != nil {
		t.Skipf("this kernel does not limit it in a namespace: %v", err)
	}
}

// mount mounts in the test's own mount namespace, until the test's end at the latest.
func mount(t *testing.T, source, target, kind string, flags uintptr, data string) {
	t.Helper()
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		t.Skipf("mount %s on %s: not permitted here: %v", kind, target, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) }) // it may be gone already
}

func unmount(t *testing.T, target string) {
	t.Helper()
	if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
}
