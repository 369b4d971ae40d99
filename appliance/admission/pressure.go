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
	Used, Limit    int64            // of the appliance and its workers; Limit 0: none
}

// Above the first number a level is reached, and it is left below the second, so that it does not flutter.
var bounds = struct{ someStall, highStall, someUsed, highUsed [2]float64 }{
	someStall: [2]float64{10, 5}, // of Some10
	highStall: [2]float64{10, 5}, // of Full10
	someUsed:  [2]float64{0.90, 0.85},
	highUsed:  [2]float64{0.95, 0.92},
}

// Judge is the level that follows from a sample, where the one before led to the level old.
func Judge(now, before Sample, old Level) Level {
	used := 0.0
	if now.Limit > 0 {
		used = float64(now.Used) / float64(now.Limit)
	}
	over := func(value float64, bound [2]float64, at Level) bool {
		if old >= at {
			return value >= bound[1]
		}
		return value >= bound[0]
	}
	killed := before.Events != nil && now.Events["oom_kill"] > before.Events["oom_kill"]
	switch {
	case killed || over(now.Full10, bounds.highStall, High) || over(used, bounds.highUsed, High):
		return High
	case over(now.Some10, bounds.someStall, Some) || over(used, bounds.someUsed, Some):
		return Some
	}
	return Calm
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
