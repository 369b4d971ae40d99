// memory.go: how much memory this process may use, and who says so.
package appliance

import (
	"fmt"
	"io/fs"
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
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return bytesLimit, why
	}
	machine := bytesLimit
	for line := range strings.Lines(string(own)) {
		// hierarchy-ID:controllers:path; version 2 has 0 and no controllers.
		id, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		dir, file := "sys/fs/cgroup", "memory.max"
		if id != "0" || controllers != "" {
			if !hasWord(controllers, "memory") {
				continue
			}
			dir, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		}
		// Inside a container the path can be the host's, which is not there: then the root of what is mounted is its own group.
		for p := path.Clean("/" + group); ; p = path.Dir(p) {
			text, err := fs.ReadFile(root, strings.TrimPrefix(path.Join("/", dir, p, file), "/"))
			n, parseErr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // "max" is no number
			if err == nil && parseErr == nil && n < unlimited && (bytesLimit == 0 || n < bytesLimit) {
				bytesLimit, why = n, fmt.Sprintf("by %s of cgroup %s", file, p)
				if machine > 0 {
					why += fmt.Sprintf("; the machine has %.1f GiB", float64(machine)/(1<<30))
				}
			}
			if p == "/" {
				break
			}
		}
	}
	return bytesLimit, why
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
	text, err := fs.ReadFile(root, "proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
