// elf_test.go: versions as Debian and the loader order them, and what is read from binaries.
package main

import (
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDebianVersion(t *testing.T) {
	for in, want := range map[string]string{
		"v1.2.0":              "1.2.0",
		"1.2.0":               "1.2.0",
		"v1.2.0-14-gabcdef":   "1.2.0+14.gabcdef",
		"v1.2.0-1-gab-dirty":  "1.2.0+1.gab.dirty",
		"0.0~325.271dc5a":     "0.0~325.271dc5a",
		"0.0~325.ab12-dirty":  "0.0~325.ab12+dirty",
		"unknown":             "",
		"":                    "",
		"271dc5a":             "271dc5a", // begins with a number, so it is one
		"1.0 ; rm":            "",
		"v1.2.0-14-gabc/../x": "",
	} {
		got, err := debianVersion(in)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("debianVersion(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestNewerGlibcIsRefused(t *testing.T) {
	n := newNeed("inferd")
	n.version["GLIBC"], n.symbol["GLIBC"] = "2.31", "sem_clockwait"
	if err := n.runsOn(oldestGlibc); err != nil {
		t.Error(err)
	}
	n.version["GLIBC"], n.symbol["GLIBC"] = "2.34", "dlopen"
	err := n.runsOn(oldestGlibc)
	if err == nil || !strings.Contains(err.Error(), "inferd needs dlopen of glibc 2.34") {
		t.Errorf("a binary that needs glibc 2.34: %v", err)
	}
}

// TestBinaryRunsOnTheOldestGlibc reads the symbol versions of what `make deb` built, for each architecture that was built.
func TestBinaryRunsOnTheOldestGlibc(t *testing.T) {
	list, err := filepath.Glob("../../build/inferd-a*64")
	if err != nil {
		t.Fatal(err)
	}
	if len(list) == 0 {
		t.Skip("build/inferd-amd64 is not here; `make deb` builds it")
	}
	for _, path := range list {
		n, err := elfNeeds(path, strings.TrimPrefix(filepath.Base(path), "inferd-"))
		if err != nil {
			t.Fatal(err)
		}
		if n.version["GLIBC"] == "" {
			t.Errorf("%s: no glibc version was found in it", path)
		}
		if err := n.runsOn(oldestGlibc); err != nil {
			t.Error(err)
		}
		t.Logf("%s asks for glibc %s (%s)", path, n.version["GLIBC"], n.symbol["GLIBC"])
	}
}

func TestElfOfAnotherArchitectureIsRefused(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f, err := elf.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	other := "arm64"
	if f.Machine == elf.EM_AARCH64 {
		other = "amd64"
	}
	f.Close()
	if _, err := elfNeeds(self, other); err == nil || !strings.Contains(err.Error(), "a package for "+other) {
		t.Errorf("this test's binary as one for %s: %v", other, err)
	}
}

func TestDepends(t *testing.T) {
	n := newNeed("x")
	n.version["GLIBC"], n.version["GLIBCXX"] = "2.28", "3.4.22"
	n.library["libstdc++.so.6"], n.library["libgcc_s.so.1"] = true, true
	o := newNeed("y")
	o.version["GLIBC"], o.version["GLIBCXX"] = "2.4", "3.4.19"
	n.join(o)
	want := []string{"libc6 (>= 2.28)", "libgcc-s1 (>= 3.4)", "libstdc++6 (>= 6)"}
	if got := n.depends(); !slices.Equal(got, want) {
		t.Errorf("depends %v, want %v", got, want)
	}
}

// TestRunpath builds libraries as a GPU wheel has them and loads the one by the other from its new place.
func TestRunpath(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler is here")
	}
	dir := t.TempDir()
	gpu := standIns(t, cc, filepath.Join(dir, "runtime"))
	lib := filepath.Join(gpu, "libtensorflow_framework.so.2")
	main := filepath.Join(dir, "main.c")
	if err := os.WriteFile(main, []byte("#include <dlfcn.h>\n#include <stdio.h>\nint main(int n, char **a) { if (dlopen(a[1], RTLD_NOW)) return 0; puts(dlerror()); return 1; }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-o", filepath.Join(dir, "main"), main, "-ldl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(filepath.Join(dir, "main"), lib).CombinedOutput(); err == nil {
		t.Fatalf("the library finds CUDA below itself before its search path was changed\n%s", out)
	}
	if err := rewriteRunpath(lib, ownCuda); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(filepath.Join(dir, "main"), lib).CombinedOutput(); err != nil {
		t.Fatalf("the library does not find CUDA below itself: %s", out)
	}
	if err := rewriteRunpath(lib, func(s string) string { return s + ":/a/longer/one/than/there/is/room/for" }); err == nil {
		t.Error("a longer search path was written over what follows it")
	}
}

// standIns makes a runtime for GPUs of libraries with nothing in them, linked and placed as in the wheels.
func standIns(t *testing.T, cc, dir string) string {
	t.Helper()
	cuda := filepath.Join(dir, "nvidia", "cublas", "lib")
	licence := filepath.Join(dir, "nvidia_cublas_cu12-12.9.dist-info", "licenses")
	for _, d := range []string{cuda, licence} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(licence, "License.txt"), []byte("a stand-in\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	src := filepath.Join(t.TempDir(), "a.c")
	// It calls the C library, or it would depend on nothing.
	if err := os.WriteFile(src, []byte("#include <stdlib.h>\n#include <string.h>\nvoid *NAME(const char *s) { return strdup(s ? s : getenv(\"X\")); }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, lib := range [][]string{
		{filepath.Join(cuda, "libcublas.so.12"), "-DNAME=cublas"},
		{filepath.Join(dir, "libtensorflow_framework.so.2"), "-DNAME=tf", "-Wl,--no-as-needed", filepath.Join(cuda, "libcublas.so.12"),
			"-Wl,-rpath,$ORIGIN/../../nvidia/cublas/lib:$ORIGIN/../nvidia/cublas/lib:$ORIGIN/../../nvidia/cublas/lib"},
		{filepath.Join(dir, "libtensorflow_cc.so.2"), "-DNAME=tfcc", "-Wl,--no-as-needed", filepath.Join(dir, "libtensorflow_framework.so.2"), "-Wl,-rpath,$ORIGIN"},
	} {
		symbols := "-g" // as in TensorFlow's wheels: packing strips it. NVIDIA's come stripped, and nobody may change them.
		if filepath.Dir(lib[0]) == cuda {
			symbols = "-s"
		}
		args := append([]string{"-shared", symbols, "-fPIC", "-O2", "-Wl,-z,relro,-z,now,--enable-new-dtags", "-Wl,-soname," + filepath.Base(lib[0]), "-o", lib[0], lib[1], src}, lib[2:]...)
		if out, err := exec.Command(cc, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	return dir
}
