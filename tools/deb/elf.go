// elf.go: what a binary needs of the system's libraries, read from its own symbol versions: the packages it depends on, and the check
// that the oldest system that inferd runs on has them.
package main

import (
	"debug/elf"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// oldestGlibc is what Debian 11, Ubuntu 20.04 and JetPack 5 have.
const oldestGlibc = "2.31"

// need is the newest version of each family of symbols ("GLIBC", "GLIBCXX", "CXXABI", "GCC") that a binary asks for, with a symbol that does.
type need struct {
	path    string
	version map[string]string
	symbol  map[string]string
	library map[string]bool // DT_NEEDED
}

func newNeed(path string) *need {
	return &need{path: path, version: map[string]string{}, symbol: map[string]string{}, library: map[string]bool{}}
}

// elfNeeds reads the binary at path, which must be one for arch.
func elfNeeds(path, arch string) (*need, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if f.Machine != want {
		return nil, fmt.Errorf("%s is for %v; a package for %s needs %v", path, f.Machine, arch, want)
	}
	n := newNeed(path)
	libraries, err := f.ImportedLibraries()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, l := range libraries {
		n.library[l] = true
	}
	symbols, err := f.ImportedSymbols()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	for _, s := range symbols {
		family, version, ok := strings.Cut(s.Version, "_")
		if ok && compareVersions(version, n.version[family]) > 0 {
			n.version[family], n.symbol[family] = version, s.Name
		}
	}
	return n, nil
}

// runsOn is an error when the binary needs a newer glibc.
func (n *need) runsOn(glibc string) error {
	if v := n.version["GLIBC"]; compareVersions(v, glibc) > 0 {
		return fmt.Errorf("%s needs %s of glibc %s, and shall run on glibc %s: build it as `make deb` does, with the C compiler that tools/fetch.sh brings", n.path, n.symbol["GLIBC"], v, glibc)
	}
	return nil
}

// compilers has the first GCC with a version of the C++ library's symbols.
var compilers = map[string]string{
	"3.4": "4.1.1", "3.4.9": "4.2.1", "3.4.11": "4.4", "3.4.14": "4.5", "3.4.15": "4.6", "3.4.17": "4.7", "3.4.18": "4.8", "3.4.19": "4.8.1", "3.4.20": "4.9",
	"3.4.21": "5.2", "3.4.22": "6", "3.4.23": "7", "3.4.24": "7", "3.4.25": "8", "3.4.26": "9", "3.4.27": "9", "3.4.28": "9", "3.4.29": "11", "3.4.30": "12",
}

// depends is the list for the control file.
func (n *need) depends() []string {
	var list []string
	if v := n.version["GLIBC"]; v != "" {
		if compareVersions(v, "2.17") < 0 {
			v = "2.17" // arm64 begins with it
		}
		list = append(list, "libc6 (>= "+v+")")
	}
	if n.library["libgcc_s.so.1"] {
		list = append(list, "libgcc-s1 (>= 3.4)")
	}
	if n.library["libstdc++.so.6"] {
		v, ok := compilers[n.version["GLIBCXX"]]
		if !ok {
			v = "9"
		}
		list = append(list, "libstdc++6 (>= "+v+")")
	}
	return list
}

// join takes the newer of each family from another binary of the same package.
func (n *need) join(o *need) {
	for family, v := range o.version {
		if compareVersions(v, n.version[family]) > 0 {
			n.version[family], n.symbol[family] = v, o.symbol[family]
			if family == "GLIBC" {
				n.path = o.path
			}
		}
	}
	for l := range o.library {
		n.library[l] = true
	}
}

// compareVersions orders dotted numbers; "" is before all.
func compareVersions(a, b string) int {
	return slices.Compare(numbers(a), numbers(b))
}

func numbers(v string) []int {
	if v == "" {
		return nil
	}
	var list []int
	for part := range strings.SplitSeq(v, ".") {
		n, err := strconv.Atoi(part)
		if err != nil {
			return []int{0} // GLIBC_PRIVATE and the like
		}
		list = append(list, n)
	}
	return list
}
