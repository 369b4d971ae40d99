// proc.go: what /proc says of a process and its descendants.
package measure

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ProcBytes reads one line of a /proc file of a process, in bytes.
func ProcBytes(pid int, file, field string) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kb, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s of %d has no %s", file, pid, field)
}

// Children are the processes whose parent is pid.
func Children(pid int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, s := range stats {
		text, err := os.ReadFile(s)
		if err != nil {
			continue // it has ended
		}
		after := text[bytes.LastIndexByte(text, ')')+1:]
		f := strings.Fields(string(after))
		if len(f) > 1 && f[1] == strconv.Itoa(pid) {
			n, err := strconv.Atoi(filepath.Base(filepath.Dir(s)))
			if err == nil {
				pids = append(pids, n)
			}
		}
	}
	return pids
}

// TreeCPU is the user and system time in seconds of a process and all its descendants, those that have ended included.
func TreeCPU(pid int) float64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0 // it has ended
	}
	f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	total := 0.0
	for _, field := range f[11:15] { // user and system, then those of the children it has waited for
		ticks, _ := strconv.ParseFloat(field, 64)
		total += ticks / 100 // USER_HZ, which is 100 on every Linux that Go knows
	}
	for _, c := range Children(pid) {
		total += TreeCPU(c)
	}
	return total
}

// TreePSS is the proportional memory of a process and all its descendants, and the part of it that is no file's: how much of a file counts
// depends on who else has it open.
func TreePSS(pid int) (all, own int64) {
	all, _ = ProcBytes(pid, "smaps_rollup", "Pss") // 0 when it has just ended
	anonymous, _ := ProcBytes(pid, "smaps_rollup", "Pss_Anon")
	shared, _ := ProcBytes(pid, "smaps_rollup", "Pss_Shmem")
	own = anonymous + shared
	for _, c := range Children(pid) {
		a, o := TreePSS(c)
		all, own = all+a, own+o
	}
	return all, own
}
