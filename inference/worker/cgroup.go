// cgroup.go: a memory cgroup of its own for each worker, so that the kernel's choice is the model that grew.
package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Shared pages (the memfds of areas and rings) are charged to whoever touches them first: inputs to the core, outputs to the worker.
// Pages that a forked worker has in common with the zygote stay the zygote's, so they are charged to the core's cgroup.

// group is the cgroup of one worker process. A nil group does nothing.
type group struct {
	dir string
	v1  bool
	pid int

	mu      sync.Mutex
	set     int64  // guarded by mu: the limit of the worker that hardLimit was made from; 0: none
	ended   bool   // guarded by mu
	verdict string // guarded by mu: why the kernel ended the process; empty: it did not, for memory
}

// hardLimit is where a process of so large a limit is ended at once, by the kernel or by watch; between the two it may end its runs.
func hardLimit(limit int64) int64 { return limit + max(limit/4, farOver) }

// groupPrefix begins the names of our folders: worker-CORE-PID.
const groupPrefix = "worker-"

func writeGroup(dir, file, text string) error {
	f, err := os.OpenFile(filepath.Join(dir, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

func readGroup(dir, file string) []byte {
	b, _ := os.ReadFile(filepath.Join(dir, file)) // no such file says nothing
	return b
}

// isVersion1 reports whether dir is in a hierarchy of the memory controller's own.
func isVersion1(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "memory.limit_in_bytes"))
	return err == nil
}

// enclose gives a new process a cgroup of its own with its limit; nil where there is none to be had, which is logged once.
func (h *Host) enclose(pid int, limit int64) *group {
	if h.opts.Cgroup == "" {
		return nil
	}
	g, err := newGroup(h.opts.Cgroup, pid, limit)
	if err == nil || errors.Is(err, unix.ESRCH) { // it has ended already, which others tell
		return g
	}
	h.noGroup.Do(func() {
		h.log.Warn("worker gets no cgroup of its own; its memory is watched only", "err", err, "pid", pid)
	})
	return nil
}

func newGroup(parent string, pid int, limit int64) (*group, error) {
	g := &group{dir: filepath.Join(parent, fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), pid)), v1: isVersion1(parent), pid: pid}
	err := os.Mkdir(g.dir, 0o755)
	if errors.Is(err, fs.ErrExist) { // of a process that had the same number
		if err = os.Remove(g.dir); err == nil {
			err = os.Mkdir(g.dir, 0o755)
		}
	}
	if err != nil {
		return nil, err
	}
	if !g.v1 {
		_ = writeGroup(g.dir, "memory.oom.group", "1") // since Linux 4.19
		_ = writeGroup(g.dir, "memory.swap.max", "0")  // where the kernel counts swap
	}
	if err = g.limit(limit); err == nil {
		err = writeGroup(g.dir, "cgroup.procs", strconv.Itoa(pid))
	}
	if err != nil {
		_ = os.Remove(g.dir)
		return nil, err
	}
	return g, nil
}

// limit has the kernel hold the process to a little more than its limit; 0 is none. Where it has more already nothing is done: watch replaces
// it, without failing its runs where that can be.
func (g *group) limit(limit int64) error {
	if g == nil {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended || limit == g.set {
		return nil
	}
	hard, text := hardLimit(limit), strconv.FormatInt(hardLimit(limit), 10)
	lower := limit > 0 && (g.set == 0 || limit < g.set)
	if lower {
		if m, err := readMemory(g.pid); err == nil && m.Resident > hard {
			return nil
		}
	}
	none := "max"
	if g.v1 {
		none = "-1"
	}
	if limit == 0 {
		text = none
	}
	if err := g.write(text, lower); err != nil {
		return fmt.Errorf("limit the memory of cgroup %s: %w", g.dir, err)
	}
	g.set = limit
	return nil
}

// write sets the limit of memory and, in version 1, that of memory and swap together, which may never be the smaller one. mu is held.
func (g *group) write(text string, lower bool) error {
	if !g.v1 {
		return writeGroup(g.dir, "memory.max", text)
	}
	swap := func() error {
		err := writeGroup(g.dir, "memory.memsw.limit_in_bytes", text)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the kernel does not count swap
		}
		return err
	}
	if lower {
		if err := writeGroup(g.dir, "memory.limit_in_bytes", text); err != nil {
			return err
		}
		return swap()
	}
	if err := swap(); err != nil {
		return err
	}
	return writeGroup(g.dir, "memory.limit_in_bytes", text)
}

// end reads what the kernel did, and removes the cgroup. It is called when the process has ended.
func (g *group) end() {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.ended {
		return
	}
	g.ended = true
	g.verdict = g.judge()
	if !g.v1 {
		_ = writeGroup(g.dir, "cgroup.kill", "1") // children of its own; since Linux 5.14
	}
	_ = os.Remove(g.dir) // where a child of the worker's lives on, the next Host removes it
}

func (g *group) judge() string {
	var kills, own int64
	if g.v1 {
		kills = groupCount(readGroup(g.dir, "memory.oom_control"), "oom_kill")
		own, _ = strconv.ParseInt(string(bytes.TrimSpace(readGroup(g.dir, "memory.failcnt"))), 10, 64) // 0 where it is no number
	} else {
		events := readGroup(g.dir, "memory.events")
		kills, own = groupCount(events, "oom_kill"), groupCount(events, "oom")
	}
	switch {
	case kills == 0:
		return ""
	case own == 0:
		return "the kernel ended it for memory that the service or the machine did not have; give others less, or lower the memory limit"
	case g.set == 0:
		return "the kernel ended it for memory: its cgroup was given a limit by somebody else"
	}
	return fmt.Sprintf("the kernel ended it for memory: limit %d MiB, and it took %d MiB at once; raise the limit or give the model less work at once",
		g.set>>20, hardLimit(g.set)>>20)
}

// byKernel is why the kernel ended the process; empty where it did not, for memory. After end.
func (g *group) byKernel() string {
	if g == nil {
		return ""
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.verdict
}

// groupCount is the number on the line "name number"; 0 where there is none.
func groupCount(text []byte, name string) int64 {
	for line := range bytes.Lines(text) {
		if f := bytes.Fields(line); len(f) == 2 && string(f[0]) == name {
			n, _ := strconv.ParseInt(string(f[1]), 10, 64) // 0 where it is no number
			return n
		}
	}
	return 0
}

// sweepGroups removes the cgroups of workers whose core is no more.
func sweepGroups(parent string) {
	entries, err := os.ReadDir(parent)
	if parent == "" || err != nil {
		return
	}
	for _, e := range entries {
		core, pid, ok := groupOwner(e.Name())
		if !ok || !e.IsDir() || alive(core) && (core != os.Getpid() || alive(pid)) {
			continue
		}
		_ = os.Remove(filepath.Join(parent, e.Name())) // the kernel refuses while a process is in it
	}
}

// groupOwner reads a folder's name.
func groupOwner(name string) (core, pid int, ok bool) {
	rest, ours := strings.CutPrefix(name, groupPrefix)
	a, b, two := strings.Cut(rest, "-")
	core, err1 := strconv.Atoi(a)
	pid, err2 := strconv.Atoi(b)
	return core, pid, ours && two && err1 == nil && err2 == nil && core > 0 && pid > 0
}

func alive(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), unix.ESRCH) }
