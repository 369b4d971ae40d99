// pressure.go: what the kernel says about memory getting short, and the level that follows from it.
package admission

import (
	"io/fs"
	"path"
	"strconv"
	"strings"
)

// Level is how short memory is.
type Level int

// The levels.
const (
	Calm Level = iota
	Some       // nothing more is loaded, and idle versions are parked
	High       // and batches are made smaller
)

// String is the word in the report.
func (l Level) String() string { return [...]string{"none", "some", "high"}[max(Calm, min(l, High))] }

// Sample is what was found at one look.
type Sample struct {
	Known          bool             // the kernel tells of stalls
	Some10, Full10 float64          // percent of the last 10 s in which some, or all, tasks stood still for memory
	Events         map[string]int64 // of memory.events
	Used           int64            // by the appliance and its workers
	Limit          Limit
}

// Stalls in percent from which on a level is reached, and below which it is left, so that it does not flutter.
const (
	stallFrom  = 10
	stallBelow = 5
)

// Judge is the level that follows from a sample, where the one before led to the level old. Into the reserve nothing that was booked
// reaches: what is there has grown unforeseen. Half of the reserve used is High.
func Judge(now, before Sample, old Level) Level {
	stalls := func(percent float64, at Level) bool {
		return percent >= stallFrom || old >= at && percent >= stallBelow
	}
	uses := func(eighths int64, at Level) bool { // of the reserve; a level is left two eighths below
		if old >= at {
			eighths -= 2
		}
		return now.Limit.Bytes > 0 && now.Used > now.Limit.Usable()+now.Limit.Reserve/8*eighths
	}
	killed := before.Events != nil && now.Events["oom_kill"] > before.Events["oom_kill"]
	switch {
	case killed || stalls(now.Full10, High) || uses(4, High):
		return High
	case stalls(now.Some10, Some) || uses(0, Some):
		return Some
	}
	return Calm
}

// UsedOf is what the cgroup whose limit l is uses, pages that hold files left out, for the kernel takes those back. ok is false where the
// limit is no cgroup's.
func UsedOf(root fs.FS, l Limit) (bytes int64, ok bool) {
	if l.Source != FromCgroup2 && l.Source != FromCgroup1 {
		return 0, false
	}
	for dir, v1 := range groups(root) {
		limits, used, inactive, active := []string{"memory.max", "memory.high"}, "memory.current", "inactive_file", "active_file"
		if v1 {
			limits, used, inactive, active = []string{"memory.limit_in_bytes"}, "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
		}
		for _, file := range limits {
			if n, ok := number64(root, dir, file); !ok || n != l.Bytes {
				continue
			}
			if n, ok := number64(root, dir, used); ok {
				return max(0, n-groupStat(root, dir, inactive)-groupStat(root, dir, active)), true
			}
		}
	}
	return 0, false
}

// Stalls reads the stalls and events of this process's own cgroup, or where it has no file of them the machine's. root is the file system
// from /.
func Stalls(root fs.FS) (s Sample) {
	for dir, v1 := range groups(root) {
		if v1 {
			s.Events = numbers(root, path.Join(dir, "memory.oom_control"))
			if n, ok := number64(root, dir, "memory.failcnt"); ok && s.Events != nil {
				s.Events["max"] = n
			}
		} else {
			s.Events = numbers(root, path.Join(dir, "memory.events"))
			s.psi(root, path.Join(dir, "memory.pressure"))
		}
		if s.Known || s.Events != nil {
			break // the innermost that tells anything
		}
	}
	if !s.Known {
		s.psi(root, "proc/pressure/memory")
	}
	return s
}

// psi reads a file of pressure stall information.
func (s *Sample) psi(root fs.FS, name string) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return
	}
	for line := range strings.Lines(string(text)) {
		kind, rest, _ := strings.Cut(line, " avg10=")
		digits, _, _ := strings.Cut(rest, " ")
		percent, err := strconv.ParseFloat(digits, 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			continue
		}
		switch kind {
		case "some":
			s.Some10, s.Known = percent, true
		case "full":
			s.Full10, s.Known = percent, true
		}
	}
}

// numbers reads a file of names and numbers, nil where there is none.
func numbers(root fs.FS, name string) map[string]int64 {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	out := make(map[string]int64)
	for line := range strings.Lines(string(text)) {
		key, digits, _ := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseInt(digits, 10, 64); err == nil && n >= 0 && len(out) < 16 {
			out[key] = n
		}
	}
	return out
}
