// memory.go: how much memory this process and its workers may use, how much is left, and who says so.
package appliance

import (
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
)

// unlimited is more than any limit that somebody set: cgroup v1 says "none" with the largest number of pages.
const unlimited = 1 << 60

// memoryLimit is the tightest memory limit of this process's cgroup and its ancestors, of version 2 or 1, else the machine's memory; and
// why. It is 0 where nothing can be read. root is the file system from /, for /proc and /sys.
func memoryLimit(root fs.FS) (bytesLimit int64, why string) {
	bytesLimit, why = machineMemory(root), "the whole machine; no cgroup limits it"
	if bytesLimit == 0 {
		why = "/proc/meminfo cannot be read, so the machine's memory is not known"
	}
	machine := bytesLimit
	for dir, v1 := range groups(root) {
		file := "memory.max"
		if v1 {
			file = "memory.limit_in_bytes"
		}
		if n, ok := number64(root, dir, file); ok && n < unlimited && (bytesLimit == 0 || n < bytesLimit) {
			bytesLimit, why = n, fmt.Sprintf("by %s of cgroup %s", file, groupName(dir))
			if machine > 0 {
				why += fmt.Sprintf("; the machine has %.1f GiB", float64(machine)/(1<<30))
			}
		}
	}
	return bytesLimit, why
}

// Mounts of cgroups, in an fs.FS.
const (
	groupRoot   = "sys/fs/cgroup"
	groupRootV1 = "sys/fs/cgroup/memory"
)

// groups are the folders of this process's memory cgroup and of its ancestors; v1 tells which version's files they hold.
func groups(root fs.FS) iter.Seq2[string, bool] {
	return func(yield func(dir string, v1 bool) bool) {
		own, err := fs.ReadFile(root, "proc/self/cgroup")
		if err != nil {
			return
		}
		for line := range strings.Lines(string(own)) {
			// hierarchy-ID:controllers:path; version 2 has 0 and no controllers.
			id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			controllers, group, ok := strings.Cut(rest, ":")
			if !ok {
				continue
			}
			dir, v1 := groupRoot, false
			if id != "0" || controllers != "" {
				if !hasWord(controllers, "memory") {
					continue
				}
				dir, v1 = groupRootV1, true
			}
			// Inside a container the path can be the host's, which is not there: then the root of what is mounted is its own group.
			for p := path.Clean("/" + group); ; p = path.Dir(p) {
				if !yield(path.Join(dir, p), v1) {
					return
				}
				if p == "/" {
					break
				}
			}
		}
	}
}

// groupName is a group's path below where it is mounted.
func groupName(dir string) string {
	for _, mount := range []string{groupRootV1, groupRoot} {
		if rest, ok := strings.CutPrefix(dir, mount); ok {
			return path.Clean("/" + rest)
		}
	}
	return dir
}

// number64 is the number that a cgroup's file holds; ok is false where it holds none ("max").
func number64(root fs.FS, dir, file string) (n int64, ok bool) {
	text, err := fs.ReadFile(root, path.Join(dir, file))
	if err != nil {
		return 0, false
	}
	n, err = strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// freeMemory is what may still be taken before the tightest of the limits is reached, and which that is; why is empty where nothing can be
// read. Pages that hold files alone and were not used lately count as free, for the kernel takes them first.
func freeMemory(root fs.FS) (free int64, why string) {
	free, ok := memInfo(root, "MemAvailable:")
	if ok {
		why = "what the machine has left"
	}
	for dir, v1 := range groups(root) {
		limitFile, usedFile, inactive := "memory.max", "memory.current", "inactive_file"
		if v1 {
			limitFile, usedFile, inactive = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
		}
		limit, limited := number64(root, dir, limitFile)
		used, known := number64(root, dir, usedFile)
		if !limited || !known || limit >= unlimited {
			continue
		}
		if left := max(0, limit-used+groupStat(root, dir, inactive)); why == "" || left < free {
			free, why = left, fmt.Sprintf("what is left below %s of cgroup %s", limitFile, groupName(dir))
		}
	}
	return free, why
}

// groupStat is one number of a group's memory.stat, 0 where it is not there.
func groupStat(root fs.FS, dir, name string) int64 {
	text, err := fs.ReadFile(root, path.Join(dir, "memory.stat"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func hasWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// machineMemory is MemTotal, 0 where it cannot be read.
func machineMemory(root fs.FS) int64 {
	n, _ := memInfo(root, "MemTotal:")
	return n
}

// memInfo is a line of /proc/meminfo in bytes.
func memInfo(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			return kb << 10, err == nil
		}
	}
	return 0, false
}
