// find_test.go: the search, on libraries made by the C compiler, in the table of what can be wrong with one.
package tfrt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// stub compiles a library with those functions at path.
func stub(t *testing.T, path string, names []string) {
	t.Helper()
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler named cc")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	var source strings.Builder
	for _, name := range names {
		source.WriteString("void " + name + "(void) {}\n")
	}
	c := exec.Command(cc, "-shared", "-fPIC", "-nostdlib", "-Wl,--hash-style=gnu", "-o", path, "-x", "c", "-")
	c.Stdin = strings.NewReader(source.String())
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// copyChanged writes from to path, changed.
func copyChanged(t *testing.T, from, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(b), 0o644); err != nil {
		t.Fatal(err)
	}
}

func allFlags() []string { return officialFlags[runtime.GOARCH] }

func TestFindRealRuntime(t *testing.T) {
	path := runtimePath(t)
	for _, explicit := range []string{path, filepath.Dir(path)} {
		f, err := Find(explicit)
		if err != nil {
			t.Fatal(err)
		}
		if f.Path != path || f.From != "--runtime" || f.Refused != nil {
			t.Errorf("%+v, want %s", f, path)
		}
	}
	t.Setenv(EnvRuntime, filepath.Dir(path))
	if f, err := Find(""); err != nil || f.Path != path || f.From != EnvRuntime {
		t.Errorf("by the environment: %+v %v", f, err)
	}
}

func TestCheckSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	good := filepath.Join(dir, "good", libraryNames[0])
	stub(t, good, symbols)
	other := map[string]uint16{"amd64": 183, "arm64": 62}[runtime.GOARCH]
	in := func(name string) string { return filepath.Join(dir, name, libraryNames[0]) }

	stub(t, in("lacks"), slices.DeleteFunc(slices.Clone(symbols), func(s string) bool { return s == "TF_SessionRun" }))
	stub(t, in("other library"), []string{"hello"})
	stub(t, in("split"), symbols[:40])
	stub(t, filepath.Join(dir, "split", "libtensorflow_framework.so.2"), symbols[40:])
	copyChanged(t, good, in("cut"), func(b []byte) []byte { return b[:len(b)/2] })
	copyChanged(t, good, in("empty"), func([]byte) []byte { return nil })
	copyChanged(t, good, in("text"), func([]byte) []byte { return []byte("<html>") })
	copyChanged(t, good, in("machine"), func(b []byte) []byte { binary.LittleEndian.PutUint16(b[18:], other); return b })
	copyChanged(t, good, in("program"), func(b []byte) []byte { binary.LittleEndian.PutUint16(b[16:], 2); return b })
	copyChanged(t, good, in("segment"), func(b []byte) []byte {
		first := b[binary.LittleEndian.Uint64(b[32:]):] // the first program header is a PT_LOAD
		binary.LittleEndian.PutUint64(first[32:], 1<<40)
		binary.LittleEndian.PutUint64(first[40:], 1<<40)
		return b
	})
	copyChanged(t, good, in("torn framework"), func(b []byte) []byte { return b })
	copyChanged(t, good, filepath.Join(dir, "torn framework", "libtensorflow_framework.so.2"), func(b []byte) []byte { return b[:100] })
	copyChanged(t, good, in("own flags"), func(b []byte) []byte { return b })
	copyChanged(t, good, filepath.Join(dir, "own flags", cpuFlagsFile), func([]byte) []byte { return []byte("# built here\nsse2 fp # all\n") })

	for _, c := range []struct {
		name, path string
		cpu        []string
		want       string // "" is good
	}{
		{"good", good, allFlags(), ""},
		{"cpu unknown", good, nil, ""},
		{"functions in the framework", in("split"), allFlags(), ""},
		{"lacks a function", in("lacks"), allFlags(), "has no TF_SessionRun and so is no TensorFlow of 2.11 or newer (1 of "},
		{"other library", in("other library"), allFlags(), "and so is no TensorFlow"},
		{"cut short", in("cut"), allFlags(), "is not a whole ELF library"},
		{"empty", in("empty"), allFlags(), "is not a whole ELF library"},
		{"text", in("text"), allFlags(), "is not a whole ELF library"},
		{"other machine", in("machine"), allFlags(), "is for EM_"},
		{"a program", in("program"), allFlags(), "is no shared library"},
		{"segments beyond the end", in("segment"), allFlags(), "is cut short"},
		{"framework cut short", in("torn framework"), allFlags(), "libtensorflow_framework.so.2 beside it is not a whole ELF library"},
		{"absent", filepath.Join(dir, "none.so"), allFlags(), "cannot be read: no such file"},
		{"old cpu", good, allFlags()[:1], "which this CPU does not have"},
		{"old cpu, built for it", in("own flags"), []string{"sse2", "fp"}, ""},
		{"older cpu than it was built for", in("own flags"), []string{"sse"}, "needs the CPU instructions SSE2, FP"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := search{arch: runtime.GOARCH, cpu: c.cpu}
			err := s.check(c.path)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestFindOrder(t *testing.T) {
	dir := t.TempDir()
	lib := filepath.Join(dir, "stub.so")
	stub(t, lib, symbols)
	put := func(elem ...string) string {
		t.Helper()
		path := filepath.Join(append([]string{dir}, elem...)...)
		copyChanged(t, lib, path, func(b []byte) []byte { return b })
		return path
	}
	s := search{
		fixed:  []string{filepath.Join(dir, "var"), filepath.Join(dir, "usr")},
		binary: filepath.Join(dir, "bin"), system: []string{filepath.Join(dir, "lib")},
		arch: runtime.GOARCH, cpu: allFlags(),
	}
	// From the last place to the first, each new one comes before those found until now.
	wants := []struct{ from, path string }{
		{"the system loader", put("lib", "libtensorflow.so.2")},
		{"the system loader", put("cached", "libtensorflow.so.2")},
		{"beside the binary", put("bin", "build", "runtime", "libtensorflow.so")},
		{"beside the binary", put("bin", "runtime", "libtensorflow.so")},
		{"beside the binary", put("bin", "libtensorflow.so")},
		{filepath.Join(dir, "usr"), put("usr", "2.9.1", "libtensorflow.so.2")},
		{filepath.Join(dir, "usr"), put("usr", "2.20.0", "libtensorflow.so.2")},
		{filepath.Join(dir, "usr"), put("usr", "2.20.0", "libtensorflow_cc.so.2")},
		{filepath.Join(dir, "usr"), put("usr", "libtensorflow.so.2")},
		{filepath.Join(dir, "var"), put("var", "libtensorflow.so")},
	}
	for n := range wants {
		for _, w := range wants[n+1:] {
			if err := os.Remove(w.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if n == 1 {
			s.cached = []string{wants[1].path}
		}
		f, err := s.find()
		if err != nil || f.Path != wants[n].path || f.From != wants[n].from {
			t.Errorf("place %d: got %+v %v, want %+v", n, f, err, wants[n])
		}
		for _, w := range wants[n+1:] {
			copyChanged(t, lib, w.path, func(b []byte) []byte { return b })
		}
	}
	// What is given by hand binds, and the flag comes before the environment.
	s.env = filepath.Join(dir, "nothing here")
	if f, err := s.find(); err == nil {
		t.Errorf("passed over %s to %s", EnvRuntime, f.Path)
	}
	s.explicit = wants[0].path
	if f, err := s.find(); err != nil || f.Path != s.explicit {
		t.Errorf("%+v %v", f, err)
	}
	// A bad one is passed over and remembered.
	s.explicit, s.env = "", ""
	copyChanged(t, lib, wants[9].path, func(b []byte) []byte { return b[:10] })
	f, err := s.find()
	if err != nil || f.Path != wants[8].path || len(f.Refused) != 1 || f.Refused[0].Place != wants[9].path {
		t.Errorf("%+v %v", f, err)
	}
}

func TestFindErrorListsEveryPlace(t *testing.T) {
	dir := t.TempDir()
	copyChanged(t, os.Args[0], filepath.Join(dir, "usr", "libtensorflow.so.2"), func([]byte) []byte { return []byte("text") })
	s := search{
		fixed:  []string{filepath.Join(dir, "var"), filepath.Join(dir, "usr")},
		binary: filepath.Join(dir, "usr", "libtensorflow.so.2"), // a file where a directory should be
		system: []string{filepath.Join(dir, "lib"), filepath.Join(dir, "lib64")}, arch: runtime.GOARCH,
	}
	_, err := s.find()
	var e *FindError
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	for _, want := range []string{
		filepath.Join(dir, "var") + ": does not exist;", filepath.Join(dir, "usr", "libtensorflow.so.2") + ": is not a whole ELF library",
		"the system loader's directories (" + filepath.Join(dir, "lib") + ", " + filepath.Join(dir, "lib64") + "): no libtensorflow_cc.so.2",
		"make runtime", "--runtime", EnvRuntime,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in: %v", want, err)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	sorted := []string{"", "abc", "xyz", "2", "2.9", "2.9.1", "2.20.0", "10.0"}
	for i, a := range sorted {
		for j, b := range sorted {
			if got := compareVersions(a, b); (got < 0) != (i < j) || (got > 0) != (i > j) {
				t.Errorf("%q and %q: %d", a, b, got)
			}
		}
	}
}

func TestCPUFlags(t *testing.T) {
	// Recorded from machines: only the lines that matter, and a few around them.
	const (
		epyc = "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu sse sse2 ht pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 popcnt avx f16c avx2\nbugs\t\t: sysret\n\n" +
			"processor\t: 1\nflags\t\t: fpu sse sse2 ht pni pclmulqdq ssse3 fma cx16 sse4_1 sse4_2 popcnt avx f16c avx2\n"
		atom   = "processor\t: 0\nmodel name\t: Intel(R) Celeron(R) J4105\nflags\t\t: fpu mmx fxsr sse sse2 ss ht pni pclmulqdq ssse3 cx16 sse4_1 sse4_2 popcnt aes\n"
		core2  = "processor\t: 0\nflags\t\t: fpu mmx fxsr sse sse2 ss ht pni ssse3 cx16\n"
		pi     = "processor\t: 0\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
		unlike = "flags: sse sse2 pni ssse3 sse4_1 sse4_2 avx\nflags: sse sse2 pni ssse3 sse4_1 sse4_2\n"
	)
	for _, c := range []struct{ name, cpuinfo, arch, want string }{
		{"a new x86", epyc, "amd64", ""},
		{"an Atom", atom, "amd64", "AVX"},
		{"an old x86", core2, "amd64", "SSE4.1 SSE4.2 AVX"},
		{"a Raspberry Pi", pi, "arm64", ""},
		{"unlike cores", unlike, "amd64", "AVX"},
		{"nothing known", "processor: 0\n", "amd64", ""},
		{"empty", "", "amd64", ""},
		{"arm64 emulated on x86", epyc, "arm64", ""},
		{"arm without vectors", "Features : fp\n", "arm64", "NEON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := strings.Join(missingInstructions(parseCPUFlags(c.cpuinfo, c.arch), officialFlags[c.arch]), " "); got != c.want {
				t.Errorf("missing %q, want %q", got, c.want)
			}
		})
	}
	if has, missing := CPUFlags(runtime.GOARCH); has != nil && !slices.Contains(has, officialFlags[runtime.GOARCH][0]) || len(missing) > len(allFlags()) {
		t.Errorf("this machine: %v %v", has, missing)
	}
}

// loaderCache is a cache in the new format, after that many bytes of an old one.
func loaderCache(before int, entries [][2]string) []byte {
	b := append(bytes.Repeat([]byte{'o'}, before), cacheMagic...)
	head := make([]byte, 28)
	binary.LittleEndian.PutUint32(head, uint32(len(entries)))
	b = append(b, head...)
	at := uint32(48 + 24*len(entries))
	var texts []byte
	for _, e := range entries {
		entry := make([]byte, 24)
		binary.LittleEndian.PutUint32(entry[4:], at+uint32(len(texts)))
		texts = append(append(texts, e[0]...), 0)
		binary.LittleEndian.PutUint32(entry[8:], at+uint32(len(texts)))
		texts = append(append(texts, e[1]...), 0)
		b = append(b, entry...)
	}
	return append(b, texts...)
}

func TestCachedLibraries(t *testing.T) {
	entries := [][2]string{{"libc.so.6", "/lib/libc.so.6"}, {"b.so", "/two/b.so"}, {"a.so", "/one/a.so"}, {"b.so", "/three/b.so"}, {"a.so", "relative/a.so"}}
	for _, before := range []int{0, 64} {
		if got := strings.Join(cachedLibraries(loaderCache(before, entries), []string{"a.so", "b.so"}), " "); got != "/one/a.so /two/b.so /three/b.so" {
			t.Errorf("after %d bytes: %s", before, got)
		}
	}
	if b, err := os.ReadFile("/etc/ld.so.cache"); err == nil {
		if list := cachedLibraries(b, []string{"libc.so.6"}); len(list) == 0 {
			t.Error("this machine's cache has no libc")
		}
	}
}

func FuzzCachedLibraries(f *testing.F) {
	f.Add(loaderCache(8, [][2]string{{"a.so", "/one/a.so"}}))
	f.Add([]byte(cacheMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, path := range cachedLibraries(b, []string{"a.so"}) {
			if !filepath.IsAbs(path) {
				t.Errorf("%q", path)
			}
		}
	})
}
