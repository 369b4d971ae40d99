// fault.go: what is wrong with a configuration, said once per place.
package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Fault is one thing that is wrong, in one sentence with its place.
type Fault struct {
	File string // empty when it came from no file
	Line int    // from 1; 0 when unknown
	Flag string // the flag that brought the value, without dashes; empty when it came from no flag
	Key  string // key path, "models[2].batching.max_batch_size"; empty when it is about the whole
	Msg  string
}

// Error is "inferd.yaml:12: listen.grpc: what is wrong and what to write".
func (f Fault) Error() string {
	var b strings.Builder
	switch {
	case f.Flag != "":
		b.WriteString("flag --" + f.Flag + ": ")
		if f.Key == f.Flag {
			f.Key = ""
		}
	case f.File != "" && f.Line > 0:
		fmt.Fprintf(&b, "%s:%d: ", f.File, f.Line)
	case f.File != "":
		b.WriteString(f.File + ": ")
	}
	if f.Key != "" {
		b.WriteString(f.Key + ": ")
	}
	return b.String() + f.Msg
}

// Faults is every fault that was found, in the order of the file. It is the error that a wrong configuration gives, and means exit
// code 2; any other error (a file that cannot be read) means exit code 1.
type Faults []Fault

// Error has one fault on each line.
func (f Faults) Error() string {
	lines := make([]string, len(f))
	for i := range f {
		lines[i] = f[i].Error()
	}
	return strings.Join(lines, "\n")
}

// err is the faults in order as an error, nil when there are none.
func (f Faults) err() error {
	if len(f) == 0 {
		return nil
	}
	slices.SortStableFunc(f, func(a, b Fault) int {
		return cmp.Or(strings.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return f
}

// source remembers where values came from.
type source struct {
	file  string
	lines map[string]int    // key path to line
	files map[string]string // key path to the fragment that its line is in; the others are in file
	flags map[string]string // key path to the flag that set it
	kept  map[string]bool   // key paths whose value is of before, for another needs a restart
	sum   string            // of the files' bytes

	fragments []string // that were read
	empty     []string // files without a byte
	single    bool     // file has no conf.d: it is TensorFlow Serving's
}

// fault is one about the value at key, placed as well as the source knows: at the key, else at the closest key around it.
func (s *source) fault(key, format string, args ...any) Fault {
	f := Fault{Key: key, Msg: fmt.Sprintf(format, args...)}
	if s == nil {
		return f
	}
	for k := key; k != ""; k = parent(k) {
		if flag := s.flags[k]; flag != "" {
			f.Flag = flag
			return f
		}
		if line := s.lines[k]; line > 0 {
			f.File, f.Line = s.fileOf(k), line
			return f
		}
	}
	f.File = s.file
	return f
}

// fileOf is the file that a key path with a line stands in.
func (s *source) fileOf(key string) string {
	if name := s.files[key]; name != "" {
		return name
	}
	return s.file
}

func parent(key string) string {
	return key[:max(0, strings.LastIndexAny(key, ".["))]
}

// nearest is the candidate that s was probably meant to be, "" when none is close.
func nearest(s string, candidates []string) string {
	best, bestDistance := "", len(s)/3+1
	for _, c := range candidates {
		if d := distance(s, c); d < bestDistance || d == bestDistance && best == "" {
			best, bestDistance = c, d
		}
	}
	return best
}

// distance is the number of single-character edits between a and b, counting at most the first 64 bytes of each.
func distance(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replace := diagonal
			if a[i] != b[j] {
				replace++
			}
			diagonal = row[j+1]
			row[j+1] = min(replace, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
