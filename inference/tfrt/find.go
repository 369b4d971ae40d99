// find.go: where libtensorflow may lie, and which of those it is.
package tfrt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// EnvRuntime names a runtime: a directory, or the library itself.
const EnvRuntime = "INFERD_RUNTIME"

// libraryNames are the names under which the library goes, the best first. libtensorflow_cc is what the Python wheel has.
var libraryNames = []string{"libtensorflow_cc.so.2", "libtensorflow.so.2", "libtensorflow_cc.so", "libtensorflow.so"}

// Found is a library that was checked and may be opened.
type Found struct {
	Path    string  // absolute
	From    string  // what led there: "--runtime", "INFERD_RUNTIME", "beside the binary", ...
	Refused []Tried // what was looked at before
}

// Tried is a place where no usable library is.
type Tried struct {
	Place string // a directory or a library
	Why   string
}

// FindError says what was looked at and why none of it will do. Its text is for an operator.
type FindError struct {
	Tried []Tried
}

// Error lists every place and says how to supply a runtime.
func (e *FindError) Error() string {
	var b strings.Builder
	b.WriteString("no usable TensorFlow runtime:")
	for _, t := range e.Tried {
		fmt.Fprintf(&b, " %s: %s;", t.Place, t.Why)
	}
	b.WriteString(" supply one with `make runtime`, or point --runtime or " + EnvRuntime + " at a directory that has libtensorflow_cc.so.2 or libtensorflow.so.2")
	return b.String()
}

// Find looks for a library that this process can open, without opening it: an ELF file that is whole, for this machine, with every function
// that inferd calls, and whose instructions the CPU has. It reads a few pages of each candidate and does not block on anything but the disk.
//
// The places, in this order: explicit (a flag's value, a directory or a file, may be empty), INFERD_RUNTIME, /var/lib/inferd/runtime,
// /usr/lib/inferd/runtime, the binary's own directory and runtime and build/runtime in it, and those of the system loader. In a directory
// the library may lie one folder deeper (2.20.0/libtensorflow_cc.so.2; the highest version first). explicit and INFERD_RUNTIME bind: where
// one is given and is no good, nothing further is tried. The error is a *FindError.
func Find(explicit string) (Found, error) {
	s := search{
		explicit: explicit,
		env:      os.Getenv(EnvRuntime),
		fixed:    []string{"/var/lib/inferd/runtime", "/usr/lib/inferd/runtime"},
		system:   systemDirs(os.Getenv("LD_LIBRARY_PATH")),
		arch:     runtime.GOARCH,
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		s.binary = filepath.Dir(exe)
	}
	if b, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		s.cached = cachedLibraries(b, libraryNames)
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		s.cpu = parseCPUFlags(string(b), s.arch)
	}
	return s.find()
}

// search is all that Find looks at, as values.
type search struct {
	explicit, env  string
	fixed          []string // directories of the appliance
	binary         string   // the binary's directory
	cached, system []string // libraries in the loader's cache, and its directories
	arch           string
	cpu            []string // flags of /proc/cpuinfo; nil when unknown
}

type place struct {
	from, path string
	quiet      bool // absent is normal and not worth a line of its own
}

func (s *search) places() []place {
	switch {
	case s.explicit != "":
		return []place{{from: "--runtime", path: s.explicit}}
	case s.env != "":
		return []place{{from: EnvRuntime, path: s.env}}
	}
	var list []place
	for _, dir := range s.fixed {
		list = append(list, place{from: dir, path: dir})
	}
	if s.binary != "" {
		for _, sub := range []string{".", "runtime", filepath.Join("build", "runtime")} {
			list = append(list, place{from: "beside the binary", path: filepath.Join(s.binary, sub)})
		}
	}
	for _, path := range s.cached {
		list = append(list, place{from: "the system loader", path: path})
	}
	for _, dir := range s.system {
		list = append(list, place{from: "the system loader", path: dir, quiet: true})
	}
	return list
}

func (s *search) find() (Found, error) {
	var tried []Tried
	var quiet []string
	for _, p := range s.places() {
		path, err := filepath.Abs(p.path)
		if err != nil {
			return Found{}, err
		}
		libraries, why := libraries(path, !p.quiet)
		if len(libraries) == 0 {
			if p.quiet {
				quiet = append(quiet, path)
			} else {
				tried = append(tried, Tried{path, why})
			}
			continue
		}
		for _, library := range libraries {
			if err := s.check(library); err != nil {
				tried = append(tried, Tried{library, err.Error()})
				continue
			}
			return Found{Path: library, From: p.from, Refused: tried}, nil
		}
	}
	if len(quiet) > 0 {
		tried = append(tried, Tried{"the system loader's directories (" + strings.Join(quiet, ", ") + ")", "no " + strings.Join(libraryNames, ", ")})
	}
	return Found{}, &FindError{Tried: tried}
}

// libraries are the candidates at path, the best first: path itself where it is a file, else files with the known names in it and, where
// deeper is set, one folder deeper. Where there are none, why says so.
func libraries(path string, deeper bool) (list []string, why string) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, "does not exist"
	case err != nil:
		return nil, cause(err)
	case !info.IsDir():
		return []string{path}, ""
	}
	list = named(path)
	if deeper {
		entries, err := os.ReadDir(path)
		if err != nil {
			return list, cause(err)
		}
		var folders []string
		for _, e := range entries {
			if info, err := os.Stat(filepath.Join(path, e.Name())); err == nil && info.IsDir() {
				folders = append(folders, e.Name())
			}
		}
		slices.SortStableFunc(folders, func(a, b string) int { return compareVersions(b, a) })
		for _, f := range folders {
			list = append(list, named(filepath.Join(path, f))...)
		}
	}
	if len(list) == 0 {
		return nil, "has no " + strings.Join(libraryNames, ", ")
	}
	return list, ""
}

// named are the libraries that lie in dir itself. Two names that lead to one file count once.
func named(dir string) []string {
	var list []string
	var seen []os.FileInfo
	for _, name := range libraryNames {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || !info.Mode().IsRegular() || slices.ContainsFunc(seen, func(s os.FileInfo) bool { return os.SameFile(s, info) }) {
			continue
		}
		list, seen = append(list, path), append(seen, info)
	}
	return list
}

// check is nil where the library may be opened, else a sentence's end: "is for ...".
func (s *search) check(library string) error {
	if err := checkELF(library, s.arch, symbols); err != nil {
		return err
	}
	needs, err := neededInstructions(library, s.arch)
	if err != nil {
		return err
	}
	if missing := missingInstructions(s.cpu, needs); len(missing) > 0 {
		return fmt.Errorf("needs the CPU instructions %s, which this CPU does not have (TensorFlow would end the process at once); "+
			"use a build without them and list the /proc/cpuinfo flags that it does need in %s", strings.Join(missing, ", "),
			filepath.Join(filepath.Dir(library), cpuFlagsFile))
	}
	return nil
}

// cause is the error without the path, which is printed beside it.
func cause(err error) string {
	var e *fs.PathError
	if errors.As(err, &e) {
		return e.Err.Error()
	}
	return err.Error()
}

// compareVersions orders dotted numbers by value ("2.9" before "2.20") and anything else by text, before every number.
func compareVersions(a, b string) int {
	for a != "" && b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		n, errX := strconv.ParseUint(x, 10, 64)
		m, errY := strconv.ParseUint(y, 10, 64)
		switch {
		case errX == nil && errY == nil && n != m:
			if n < m {
				return -1
			}
			return 1
		case errX == nil && errY != nil:
			return 1
		case errX != nil && errY == nil:
			return -1
		case errX != nil:
			if c := strings.Compare(x, y); c != 0 {
				return c
			}
		}
	}
	return len(a) - len(b)
}

// CompareVersions orders versions as [Find] does: dotted numbers by value.
func CompareVersions(a, b string) int { return compareVersions(a, b) }

// systemDirs are the loader's directories: the elements of its environment variable, then the standard ones.
func systemDirs(env string) []string {
	var dirs []string
	for _, dir := range filepath.SplitList(env) {
		if dir != "" {
			dirs = append(dirs, dir)
		}
	}
	triplet := map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}[runtime.GOARCH]
	return append(dirs, "/usr/local/lib", "/usr/lib/"+triplet, "/usr/lib64", "/usr/lib")
}
