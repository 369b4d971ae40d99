// plankey.go: what a measured plan holds for: these files, this processor, this runtime, this configuration.
package appliance

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/tfrt"
)

const (
	hashedBytes = 64 << 20 // of a graph; of a longer one the begin and the end count
	hashedFiles = 10_000
)

// processor is the CPU as a plan's key has it, and in words.
type processor struct {
	name  string
	flags []string
	cores int
}

func thisProcessor() processor {
	flags, _ := tfrt.CPUFlags(runtime.GOARCH)
	p := processor{name: runtime.GOARCH, flags: flags, cores: runtime.GOMAXPROCS(0)}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				p.name = strings.TrimSpace(value)
				break
			}
		}
	}
	return p
}

func (p processor) String() string { return fmt.Sprintf("%s, %d cores", p.name, p.cores) }

// has reports whether the CPU has one of the flags.
func (p processor) has(any ...string) bool {
	return slices.ContainsFunc(any, func(f string) bool { return slices.Contains(p.flags, f) })
}

// runtimeName is the runtime as a plan's key has it: the version where that is known, and how large the library is.
func runtimeName(library string) string {
	name := RuntimeInUse(library)
	real, err := filepath.EvalSymlinks(library)
	if err != nil {
		real = library
	}
	if st, err := os.Stat(real); err == nil {
		name = strings.TrimSpace(fmt.Sprintf("%s %s of %d bytes", name, filepath.Base(real), st.Size()))
	}
	return name
}

// planKey names all that a plan was measured with.
func planKey(dir string, cpu processor, library string, isolation config.Isolation, m config.Model) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "1\n%v %v\n%s\n%v\n", cpu, cpu.flags, runtimeName(library), isolation)
	fmt.Fprintf(h, "%s %d %d %d %q %v\n", m.Optimize, m.Callers, m.IntraOpThreads, m.InterOpThreads, m.Tags, m.Batching)
	if err := hashVersion(h, dir); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// hashVersion names the files of a version by what is cheap to read and tells one from another: every path and size, and the bytes of
// the smaller ones: the graph, the assets, and the index of the variables, which has a checksum of each.
func hashVersion(h hash.Hash, dir string) error {
	files := 0
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if files++; files > hashedFiles {
			return fmt.Errorf("%s has more than %d files", dir, hashedFiles)
		}
		st, err := os.Stat(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q %d\n", rel, st.Size())
		if !st.Mode().IsRegular() || strings.HasPrefix(rel, "variables"+string(filepath.Separator)) && !strings.HasSuffix(rel, ".index") {
			return nil
		}
		return hashFile(h, path, st.Size())
	})
}

func hashFile(h hash.Hash, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	if size <= hashedBytes {
		_, err = io.Copy(h, io.LimitReader(f, hashedBytes))
		return err
	}
	for _, at := range []int64{0, size - hashedBytes/2} {
		if _, err := io.Copy(h, io.NewSectionReader(f, at, hashedBytes/2)); err != nil {
			return err
		}
	}
	return nil
}
