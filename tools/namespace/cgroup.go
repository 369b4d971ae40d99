// cgroup.go: for tests that need a memory limit that the kernel keeps.
package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const cgroupEnv = "INFERD_TEST_CGROUP" // the test that shall run in it, and where it is

// Cgroup is a memory cgroup that a test has to itself.
type Cgroup struct {
	dir string
	v1  bool
}

// InCgroup runs the calling test again in a child process, in a memory cgroup of its own with so many bytes. It reports whether this is that
// run; the caller returns when it is not. Where no cgroup can be made the test is skipped.
func InCgroup(t *testing.T, bytes int64) (Cgroup, bool) {
	t.Helper()
	if rest, ok := strings.CutPrefix(os.Getenv(cgroupEnv), t.Name()+"="); ok {
		version, dir, _ := strings.Cut(rest, "=")
		return Cgroup{dir: dir, v1: version == "1"}, true
	}
	g, err := newCgroup(bytes)
	if err != nil {
		t.Skipf("no memory cgroup of its own is to be had here: %v", err)
	}
	t.Cleanup(func() {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) { // its last process has just ended
			if err := os.Remove(g.dir); err == nil || errors.Is(err, os.ErrNotExist) {
				return
			} else if time.Now().After(end) {
				t.Errorf("cgroup is left behind: %v", err)
				return
			}
		}
	})
	version := "2"
	if g.v1 {
		version = "1"
	}
	// The shell moves itself before it becomes the test, so that nothing of the test is charged elsewhere.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", `echo $$ >"$0/cgroup.procs" && exec "$@"`, g.dir,
		self(t), "-test.run=^"+t.Name()+"$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), cgroupEnv+"="+t.Name()+"="+version+"="+g.dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	switch {
	case err != nil:
		t.Fatalf("in a cgroup of its own: %v; %s\n%s", err, g, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()):
		t.Skip(string(out))
	case !strings.Contains(string(out), "--- PASS: "+t.Name()):
		t.Fatalf("in a cgroup of its own nothing was tested:\n%s", out)
	}
	t.Logf("in a cgroup of its own: %s\n%s", g, out)
	return g, false
}

func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func newCgroup(bytes int64) (Cgroup, error) {
	dir, v1, err := Controller("memory")
	if err != nil {
		return Cgroup{}, err
	}
	g := Cgroup{dir: filepath.Join(dir, "inferd-test-"+strconv.Itoa(os.Getpid())), v1: v1}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return g, err
	}
	if err := g.SetLimit(bytes); err != nil {
		_ = os.Remove(g.dir) // err says more
		return g, err
	}
	return g, nil
}

// SetLimit changes the limit, without swap.
func (g Cgroup) SetLimit(bytes int64) error {
	text := []byte(strconv.FormatInt(bytes, 10))
	if !g.v1 {
		_ = os.WriteFile(filepath.Join(g.dir, "memory.swap.max"), []byte("0"), 0o644) // a kernel without swap has no such file
		return os.WriteFile(filepath.Join(g.dir, "memory.max"), text, 0o644)
	}
	limit, swap := filepath.Join(g.dir, "memory.limit_in_bytes"), filepath.Join(g.dir, "memory.memsw.limit_in_bytes")
	err := os.WriteFile(limit, text, 0o644)
	if serr := os.WriteFile(swap, text, 0o644); err != nil && serr == nil { // memory alone may not be more than memory and swap
		err = os.WriteFile(limit, text, 0o644)
	}
	return err
}

// Killed is how many processes the kernel has ended for memory.
func (g Cgroup) Killed() int64 {
	name := "memory.events"
	if g.v1 {
		name = "memory.oom_control"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return -1
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64) // the kernel's own number
			return n
		}
	}
	return -1
}

// Peak is the most that was charged at once, file pages included; -1 where the kernel does not tell.
func (g Cgroup) Peak() int64 {
	name := "memory.peak"
	if g.v1 {
		name = "memory.max_usage_in_bytes"
	}
	text, err := os.ReadFile(filepath.Join(g.dir, name))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// String says what has happened in it.
func (g Cgroup) String() string {
	return fmt.Sprintf("at most %d MiB were charged, %d processes were ended by the kernel", g.Peak()>>20, g.Killed())
}
