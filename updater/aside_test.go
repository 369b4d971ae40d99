// aside_test.go: summing up and copying in a real process beside, and what is done where there is none.
package updater

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// beside is a controller of which files are read and copied by this binary, see TestMain.
func beside(t *testing.T, executable string) (c *Controller, warned func() string) {
	t.Helper()
	var text bytes.Buffer // written to by the goroutine that reads it
	log := slog.New(slog.NewTextHandler(&text, nil))
	return &Controller{opts: Options{Executable: executable, Log: log}, sync: fsync}, text.String
}

func someFiles(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "1")
	for name, text := range map[string]string{"saved_model.pb": "graph", "variables/variables.index": "index", "variables/variables.data-00000-of-00001": strings.Repeat("x", 3<<20)} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestAside(t *testing.T) {
	dir := someFiles(t)
	want, err := treeOf(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, executable := range []string{"/proc/self/exe", "", "/nonexistent", "/bin/false"} {
		c, warned := beside(t, executable)
		for name, sync := range map[string]func(*os.File) error{"read": nil, "synced": fsync} {
			if got, err := c.sumUp(t.Context(), dir, sync); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%q, %s: %+v, %v, want %+v", executable, name, got, err, want)
			}
		}
		to := filepath.Join(t.TempDir(), "copy")
		if err := c.copyTree(t.Context(), dir, to); err != nil {
			t.Errorf("%q: %v", executable, err)
		}
		if got, err := treeOf(t.Context(), to, nil); err != nil || got.Sum != want.Sum {
			t.Errorf("%q: the copy is %+v, %v", executable, got, err)
		}
		if _, err := c.sumUp(t.Context(), filepath.Join(dir, "nothing"), nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "nothing") {
			t.Errorf("%q: a folder that is not there: %v", executable, err)
		}
		if err := c.copyTree(t.Context(), dir, filepath.Join(t.TempDir(), "none", "copy")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: a copy to nowhere: %v", executable, err)
		}
		broken := executable == "/nonexistent" || executable == "/bin/false"
		if said := strings.Contains(warned(), "in the core, slowly"); said != broken {
			t.Errorf("%q: the log says %q", executable, warned())
		}
	}
}

// TestAsideIsLow: every thread of the process has the lowest priority, and it ends with the context.
func TestAsideIsLow(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "large")
	if err := errors.Join(os.WriteFile(path, nil, 0o644), os.Truncate(path, 1<<40)); err != nil { // without bytes on disk, and an hour to read
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c, _ := beside(t, "/proc/self/exe")
	done := make(chan error, 1)
	go func() {
		_, err := c.sumUp(ctx, dir, nil)
		done <- err
	}()
	var pid int
	low := func() bool {
		pid = childBeside(t)
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if pid == 0 || err != nil || len(tasks) == 0 {
			return false
		}
		for _, task := range tasks {
			tid, err := strconv.Atoi(task.Name())
			if err != nil {
				return false
			}
			if at, err := unix.SchedGetAttr(tid, 0); err != nil || at.Policy != unix.SCHED_IDLE {
				return false
			}
		}
		return true
	}
	for end := time.Now().Add(time.Minute); !low(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("process %d does not get the lowest priority", pid)
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if left := childBeside(t); left != 0 {
		t.Errorf("process %d is left", left)
	}
}

// childBeside is the child of this process that does a chore, 0 when there is none.
func childBeside(t *testing.T) int {
	t.Helper()
	lines, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range lines {
		text, err := os.ReadFile(path)
		if err != nil || !strings.HasPrefix(string(text), asideName) {
			continue
		}
		status, err := os.ReadFile(filepath.Join(filepath.Dir(path), "status"))
		if err != nil || !strings.Contains(string(status), "PPid:\t"+strconv.Itoa(os.Getpid())+"\n") {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			return pid
		}
	}
	return 0
}
