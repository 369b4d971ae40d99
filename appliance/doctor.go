// doctor.go: what `inferd doctor` says about this machine.
package appliance

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/tfrt"
)

// Doctor looks at everything that serving with cfg needs, without opening a model or a port for longer than a moment.
func Doctor(cfg *config.Config) *CheckReport {
	r := &CheckReport{OK: true}
	say := func(ok bool, what, format string, args ...any) {
		r.add(Finding{OK: ok, Path: what, Message: fmt.Sprintf(format, args...)})
	}
	if found, err := tfrt.Find(cfg.Runtime.Library); err != nil {
		say(false, "runtime", "%v", err)
	} else {
		say(true, "runtime", "%s", found.Path)
	}
	if has, missing := tfrt.CPUFlags(runtime.GOARCH); has == nil {
		say(true, "cpu", "%s, %d cores; /proc/cpuinfo cannot be read, so its instructions are not known", runtime.GOARCH, runtime.NumCPU())
	} else {
		say(len(missing) == 0, "cpu", "%s, %d cores%s", runtime.GOARCH, runtime.NumCPU(), cpuWords(has, missing))
	}
	gpus, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is well-formed
	if len(gpus) == 0 {
		say(true, "gpu", "none: models run on the CPU")
	} else {
		say(true, "gpu", "%d NVIDIA device(s): %s", len(gpus), strings.Join(gpus, " "))
	}
	limit, why := memoryLimit("/sys/fs/cgroup", "/proc")
	say(limit > 0, "memory", "%.1f GiB, %s", float64(limit)/(1<<30), why)
	for _, p := range []struct{ name, address string }{{"grpc port", cfg.Listen.GRPC}, {"http port", cfg.Listen.HTTP}} {
		if p.address == "" {
			say(true, p.name, "off")
			continue
		}
		l, err := net.Listen("tcp", p.address)
		if errors.Is(err, unix.EADDRINUSE) {
			say(false, p.name, "%s is in use, by an inferd that runs or by something else", p.address)
			continue
		}
		if err != nil {
			say(false, p.name, "%v", err)
			continue
		}
		_ = l.Close()
		say(true, p.name, "%s is free", p.address)
	}
	if cfg.ModelsDir != "" {
		if _, err := os.ReadDir(cfg.ModelsDir); err != nil {
			say(false, "models_dir", "%v; make it, or name another with --models-dir", err)
		} else {
			say(true, "models_dir", "%s can be read", cfg.ModelsDir)
		}
	}
	if err := writable(cfg.StateDir); err != nil {
		say(false, "state_dir", "%v; give it to inferd's user, or name another with --state-dir", err)
	} else {
		say(true, "state_dir", "%s can be written", cfg.StateDir)
	}
	return r
}

func cpuWords(has, missing []string) string {
	if len(missing) > 0 {
		return ", without " + strings.Join(missing, ", ") + ", which TensorFlow's own builds need"
	}
	var notable []string
	for _, f := range []string{"avx", "avx2", "fma", "avx512f", "amx_tile", "asimd", "sve"} {
		for _, h := range has {
			if h == f {
				notable = append(notable, f)
			}
		}
	}
	return ", " + strings.Join(notable, " ")
}

// writable reports whether files can be made in dir, or dir itself can be made.
func writable(dir string) error {
	for p := dir; ; p = filepath.Dir(p) {
		if _, err := os.Stat(p); errors.Is(err, os.ErrNotExist) && p != filepath.Dir(p) {
			continue
		}
		if err := unix.Access(p, unix.W_OK|unix.X_OK); err != nil {
			return &os.PathError{Op: "write", Path: p, Err: err}
		}
		return nil
	}
}

// memoryLimit is the tightest memory limit of this process's cgroup and its ancestors (v2), else the machine's memory, and why.
func memoryLimit(cgroupRoot, procRoot string) (bytesLimit int64, why string) {
	bytesLimit, why = machineMemory(procRoot), "the whole machine; no cgroup limits it"
	own, err := os.ReadFile(filepath.Join(procRoot, "self/cgroup"))
	if err != nil {
		return bytesLimit, why
	}
	for line := range bytes.Lines(own) {
		path, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "0::")
		if !ok {
			continue
		}
		for p := filepath.Clean(path); ; p = filepath.Dir(p) {
			text, err := os.ReadFile(filepath.Join(cgroupRoot, p, "memory.max"))
			if n, perr := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil && perr == nil && n < bytesLimit {
				bytesLimit, why = n, "by memory.max of cgroup "+p
			}
			if p == "/" || p == "." {
				break
			}
		}
	}
	return bytesLimit, why
}

func machineMemory(procRoot string) int64 {
	text, err := os.ReadFile(filepath.Join(procRoot, "meminfo"))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				return 0
			}
			return kb << 10
		}
	}
	return 0
}
