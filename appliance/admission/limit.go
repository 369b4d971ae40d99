// limit.go: how much memory this process and its workers may use, how much of it is kept back, and who says so.
package admission

import (
	"cmp"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
)

// unlimited is more than any limit that somebody set: cgroup v1 says "none" with the largest number of pages.
const unlimited = 1 << 60

// Sources of a limit.
const (
	FromConfiguration = "configuration"
	FromCgroup2       = "cgroup v2"
	FromCgroup1       = "cgroup v1"
	FromMachine       = "machine"
	FromNowhere       = "unknown"
)

// Limit is the memory that the appliance and its workers may take together. The zero Limit is none.
type Limit struct {
	Bytes   int64 // 0: none is known, and nothing is refused
	Reserve int64 // of Bytes, kept free
	Source  string
	Why     string
}

// Usable is what may be booked.
func (l Limit) Usable() int64 { return l.Bytes - l.Reserve }

// Bounds of the reserve that is chosen for a limit.
const (
	minReserve = 64 << 20
	maxReserve = 1 << 30
)

// ReserveOf is what is kept free of a limit: as configured, else a sixteenth, and at most a quarter in any case.
func ReserveOf(limit, configured int64) int64 {
	return min(limit/4, cmp.Or(configured, min(max(limit/16, minReserve), maxReserve)))
}

// Bounds of the share of requests in flight that is chosen for a limit.
const (
	maxShare       = 1 << 30
	unlimitedShare = 1 << 30 // where no limit is known
)

// ShareOf is what requests in flight may take of a limit together: as configured, else a quarter and at most 1 GiB.
func ShareOf(limit, configured int64) int64 {
	switch {
	case configured > 0 && limit > 0:
		return min(configured, limit/2) // a limit that was tightened since leaves models something
	case configured > 0:
		return configured
	case limit > 0:
		return min(limit/4, maxShare)
	}
	return unlimitedShare
}

// InForce is the limit in force: the configured one (0: none is), unless a cgroup's or the machine's is tighter; with the configured
// reserve (0: chosen). root is the file system from /, for /proc and /sys.
func InForce(root fs.FS, configured, reserve int64) Limit {
	l := Limit{Bytes: machineMemory(root), Source: FromMachine, Why: "the whole machine; no cgroup limits it"}
	if l.Bytes == 0 {
		l.Source, l.Why = FromNowhere, "/proc/meminfo cannot be read, so the machine's memory is not known"
	}
	machine := l.Bytes
	for dir, v1 := range groups(root) {
		source, files := FromCgroup2, []string{"memory.max", "memory.high"}
		if v1 {
			source, files = FromCgroup1, []string{"memory.limit_in_bytes"}
		}
		for _, file := range files {
			if n, ok := number64(root, dir, file); ok && n < unlimited && (l.Bytes == 0 || n < l.Bytes) {
				l.Bytes, l.Source, l.Why = n, source, fmt.Sprintf("by %s of cgroup %s", file, groupName(dir))
				if machine > 0 {
					l.Why += fmt.Sprintf("; the machine has %.1f GiB", float64(machine)/(1<<30))
				}
			}
		}
	}
	switch {
	case configured <= 0:
	case l.Bytes == 0 || configured <= l.Bytes:
		l.Bytes, l.Source, l.Why = configured, FromConfiguration, "by memory.limit"
	default:
		l.Why += fmt.Sprintf("; memory.limit, %s, is more and changes nothing", megabytes(configured))
	}
	l.Reserve = ReserveOf(l.Bytes, reserve)
	return l
}

// megabytes is a size for people.
func megabytes(n int64) string {
	if n < 10_000_000 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%d MB", (n+500_000)/1_000_000)
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
	return n, err == nil && n >= 0
}

// Available is what may still be taken before the tightest of the limits is reached, and which that is; why is empty where nothing can be
// read. Pages that hold files alone and were not used lately count as free, for the kernel takes them first.
func Available(root fs.FS) (free int64, why string) {
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
			if err != nil || n < 0 || n > unlimited {
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
			if err != nil || kb < 0 || kb > unlimited>>10 {
				return 0, false
			}
			return kb << 10, true
		}
	}
	return 0, false
}
