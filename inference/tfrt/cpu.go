// cpu.go: whether the CPU has the instructions that a library was built for.
package tfrt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// cpuFlagsFile beside a library lists the /proc/cpuinfo flags that it needs, in place of officialFlags; # begins a comment. It is for
// builds of one's own: nothing in a library says what it was compiled for.
const cpuFlagsFile = "cpu-flags"

// officialFlags are what TensorFlow's own builds need: since 1.6 the x86-64 ones are compiled for AVX, and a guard in a static constructor
// aborts the process where it or one of the SSEs below it is missing. Anything newer is chosen at run time. The arm64 ones are for ARMv8.0.
var officialFlags = map[string][]string{
	"amd64": {"sse", "sse2", "pni", "ssse3", "sse4_1", "sse4_2", "avx"},
	"arm64": {"fp", "asimd"},
}

// instructionNames are what people call them, where that is not the flag in capitals.
var instructionNames = map[string]string{"pni": "SSE3", "sse4_1": "SSE4.1", "sse4_2": "SSE4.2", "asimd": "NEON"}

// neededInstructions are the flags that the library asks for.
func neededInstructions(library, arch string) ([]string, error) {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(library), cpuFlagsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return officialFlags[arch], nil
	}
	if err != nil {
		return nil, errors.New("has " + cpuFlagsFile + " beside it, which cannot be read: " + cause(err))
	}
	var flags []string
	for line := range strings.Lines(string(b)) {
		line, _, _ = strings.Cut(line, "#")
		flags = append(flags, strings.Fields(line)...)
	}
	return flags, nil
}

// missingInstructions are the names of the needed flags that the CPU does not have. Nothing is missing where nothing is known of the CPU.
func missingInstructions(has, needs []string) []string {
	if len(has) == 0 {
		return nil
	}
	var missing []string
	for _, flag := range needs {
		if slices.Contains(has, flag) {
			continue
		}
		name := instructionNames[flag]
		if name == "" {
			name = strings.ToUpper(flag)
		}
		missing = append(missing, name)
	}
	return missing
}

// parseCPUFlags reads /proc/cpuinfo: "flags" on x86-64, "Features" on arm64. On a machine with unlike cores only what all have counts. Under
// emulation the file can be the other machine's: then nothing is known.
func parseCPUFlags(cpuinfo, arch string) []string {
	want := map[string]string{"amd64": "flags", "arm64": "Features"}[arch]
	var flags []string
	first := true
	for line := range strings.Lines(cpuinfo) {
		key, value, ok := strings.Cut(line, ":")
		if !ok || strings.TrimSpace(key) != want {
			continue
		}
		has := strings.Fields(value)
		if first {
			flags, first = has, false
			continue
		}
		flags = slices.DeleteFunc(flags, func(f string) bool { return !slices.Contains(has, f) })
	}
	return flags
}

// CPUFlags are the flags that /proc/cpuinfo has for every core, and the names of those that TensorFlow's own builds need and this CPU
// lacks. Both are nil where the file cannot be read.
func CPUFlags(arch string) (has, missing []string) {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return nil, nil
	}
	has = parseCPUFlags(string(b), arch)
	return has, missingInstructions(has, officialFlags[arch])
}
