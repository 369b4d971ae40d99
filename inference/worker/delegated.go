// delegated.go: which cgroup is ours to divide among the workers.
package worker

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Where the hierarchies of cgroups are, in an fs.FS of the whole machine.
const (
	mount2 = "sys/fs/cgroup"
	mount1 = "sys/fs/cgroup/memory"
)

// coreGroup is where the core is in version 2, beside its workers: a cgroup that gives memory to others may hold no process itself.
const coreGroup = "core"

// DelegatedCgroup is the folder of this process's memory cgroup, for [EnterCgroup] and HostOptions.Cgroup. Where there is none dir is empty.
// why says what it is, or why there is none. It only reads.
func DelegatedCgroup(root fs.FS) (dir, why string) {
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return "", fmt.Sprintf("the kernel tells of no cgroups: %v", err)
	}
	why = "the memory controller is in no hierarchy of cgroups"
	for line := range strings.Lines(string(own)) {
		// hierarchy-ID:controllers:path; version 2 has 0 and no controllers.
		id, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		controllers, name, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		name = path.Clean("/" + name)
		if slices.Contains(strings.Split(controllers, ","), "memory") {
			if dir := ownGroup(root, mount1, name, "memory.limit_in_bytes"); dir != "" {
				return "/" + dir, "cgroup v1 " + name
			}
			why = fmt.Sprintf("cgroup v1 %s has no folder here", name)
			continue
		}
		if id != "0" || controllers != "" {
			continue
		}
		if path.Base(name) == coreGroup {
			name = path.Dir(name)
		}
		dir := ownGroup(root, mount2, name, "memory.max")
		if dir == "" {
			if hasController(root, mount2) {
				why = fmt.Sprintf("cgroup v2 %s is the root, or was given no memory controller", name)
			}
			continue
		}
		if !hasController(root, dir) {
			return "", fmt.Sprintf("cgroup v2 %s was given no memory controller", name)
		}
		return "/" + dir, "cgroup v2 " + name
	}
	return "", why
}

// ownGroup is the folder of the cgroup called name, by a file that must be in it. Inside a container the name can be the host's, which is not
// there: then the root of what is mounted is its own.
func ownGroup(root fs.FS, mount, name, file string) string {
	for _, dir := range []string{path.Join(mount, name), mount} {
		if _, err := fs.Stat(root, path.Join(dir, file)); err == nil {
			return dir
		}
	}
	return ""
}

func hasController(root fs.FS, dir string) bool {
	b, _ := fs.ReadFile(root, path.Join(dir, "cgroup.controllers")) // no such file says no
	return slices.ContainsFunc(bytes.Fields(b), func(f []byte) bool { return string(f) == "memory" })
}

// EnterCgroup makes dir, of DelegatedCgroup, ready to hold a cgroup for each worker: in version 2 it moves this process into a child called
// core, where the processes that it starts afterwards are too. It is called before Host.Run. An error says why dir is not ours to divide, and
// leaves everything as it was.
func EnterCgroup(dir string) error {
	if err := delegated(dir); err != nil {
		return err
	}
	if isVersion1(dir) {
		trial := filepath.Join(dir, fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), os.Getpid()))
		if err := os.Mkdir(trial, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("divide cgroup %s: %w", dir, err)
		}
		return os.Remove(trial)
	}
	if !hasController(os.DirFS(dir), ".") {
		return fmt.Errorf("divide cgroup %s: it was given no memory controller; let the unit have Delegate=memory", dir)
	}
	core := filepath.Join(dir, coreGroup)
	err := os.Mkdir(core, 0o755)
	made := err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("divide cgroup %s: %w", dir, err)
	}
	if err = writeGroup(core, "cgroup.procs", "0"); err == nil {
		if err = writeGroup(dir, "cgroup.subtree_control", "+memory"); err == nil {
			return nil
		}
		_ = writeGroup(dir, "cgroup.procs", "0")
	}
	if made {
		_ = os.Remove(core)
	}
	if errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("divide cgroup %s: other processes are in it: %w", dir, err)
	}
	return fmt.Errorf("divide cgroup %s: %w", dir, err)
}

// delegated reports whether dir is ours. That it can be written says little for root: what systemd has not delegated it may change at any time.
func delegated(dir string) error {
	if err := unix.Access(dir, unix.W_OK); err != nil {
		return fmt.Errorf("divide cgroup %s: it may not be written: %w", dir, err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("divide cgroup: %w", err)
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid != 0 && int(st.Uid) == os.Geteuid() {
		return nil
	}
	for _, name := range []string{"trusted.delegate", "user.delegate"} { // systemd marks what it delegates
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return nil
		}
	}
	if _, err := os.Stat("/run/systemd/system"); errors.Is(err, fs.ErrNotExist) {
		return nil // nobody else divides it
	}
	return fmt.Errorf("divide cgroup %s: systemd has not delegated it; let the unit have Delegate=memory", dir)
}
