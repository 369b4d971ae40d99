// bundlemachine.go: the archive's parts about the machine: folders and their sizes, kernel, limits, memory, GPUs, the unit, the log.
package appliance

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
)

const (
	bundleFolders  = 5000 // listed
	bundleFiles    = 1 << 20
	bundleLogLines = "5000"
	unitName       = "inferd.service"
)

// folders lists the models' folders, version by version, and what lies in the state directory.
func (b *bundle) folders(cfg *config.Config, running *control.Status) {
	b.add("folders.txt", "sizes of the models' folders and of the state", func(ctx context.Context) ([]byte, error) {
		w := &folderList{ctx: ctx}
		roots := map[string]string{"models_dir": cfg.ModelsDir}
		for _, m := range cfg.Models {
			roots["model "+m.Name] = m.BasePath
		}
		if running != nil {
			for _, m := range running.Models {
				roots["model "+m.Name] = m.BasePath
			}
		}
		for _, what := range slices.Sorted(maps.Keys(roots)) {
			if roots[what] != "" {
				w.list(what, roots[what], map[bool]int{true: 2, false: 1}[what == "models_dir"])
			}
		}
		w.list("state_dir", cfg.StateDir, 1)
		return w.text.Bytes(), w.err
	})
}

// folderList is the text in the making.
type folderList struct {
	ctx            context.Context
	text           bytes.Buffer
	folders, files int
	err            error
}

func (w *folderList) list(what, root string, depth int) {
	fmt.Fprintf(&w.text, "%s %s", what, root)
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err == nil {
		fmt.Fprintf(&w.text, ", %d of %d MiB free, file system %#x", st.Bavail*uint64(st.Bsize)>>20, st.Blocks*uint64(st.Bsize)>>20, st.Type)
	}
	fmt.Fprintln(&w.text)
	w.below(root, depth, "  ")
}

func (w *folderList) below(dir string, depth int, indent string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		fmt.Fprintf(&w.text, "%s%v\n", indent, err)
		return
	}
	for _, e := range entries {
		if w.folders++; w.folders > bundleFolders || w.ctx.Err() != nil {
			w.err = errors.New("too many folders, or too slow a disk: the list is not whole")
			return
		}
		path := filepath.Join(dir, e.Name())
		info, err := e.Info()
		if err != nil {
			fmt.Fprintf(&w.text, "%s%s: %v\n", indent, e.Name(), err)
			continue
		}
		files, size := 1, info.Size()
		if e.IsDir() {
			files, size = w.sum(path)
		}
		fmt.Fprintf(&w.text, "%s%s\t%v\t%d bytes in %d files\t%s\n", indent, e.Name(), info.Mode(), size, files, info.ModTime().UTC().Format(time.RFC3339))
		if e.IsDir() && depth > 1 {
			w.below(path, depth-1, indent+"  ")
		}
	}
}

func (w *folderList) sum(dir string) (files int, size int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if w.files++; w.files > bundleFiles || w.ctx.Err() != nil {
			return errors.New("too many files, or too slow a disk: sizes are not whole")
		}
		if info, err := d.Info(); err == nil && info.Mode().IsRegular() {
			files++
			size += info.Size()
		}
		return nil
	})
	if err != nil && w.err == nil {
		w.err = err
	}
	return files, size
}

// machine is what the kernel and the drivers say.
func (b *bundle) machine(running *control.Status) {
	self := "self"
	if running != nil {
		self = strconv.Itoa(running.PID)
	}
	file := func(name string, paths ...string) {
		b.add(name, strings.Join(paths, ", "), func(context.Context) ([]byte, error) { return someFiles(paths) })
	}
	file("kernel.txt", "/proc/version", "/etc/os-release", "/proc/uptime", "/proc/loadavg", "/sys/kernel/security/lsm", "/proc/sys/kernel/core_pattern")
	file("memory.txt", "/proc/meminfo", "/proc/pressure/memory", "/proc/pressure/io", "/proc/pressure/cpu",
		"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/proc/sys/vm/overcommit_memory", "/proc/swaps")
	file("process.txt", "/proc/"+self+"/limits", "/proc/"+self+"/status", "/proc/"+self+"/cgroup")
	b.command("gpus.txt", "nvidia-smi")
	b.command("unit.txt", "systemctl", "show", unitName, "--no-pager", "-p", // by name, for all of them would have Environment=
		"Id,LoadState,ActiveState,SubState,Result,StatusText,NRestarts,ExecMainCode,ExecMainStatus,ExecMainStartTimestamp,ActiveEnterTimestamp,MemoryCurrent,MemoryPeak,MemoryMax,MemoryHigh,TasksCurrent,TasksMax,WatchdogUSec,WatchdogTimestamp,FragmentPath,DropInPaths,UnitFileState")
}

// someFiles are those of the files that can be read, each under its name.
func someFiles(paths []string) ([]byte, error) {
	var text bytes.Buffer
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			continue // not every kernel has every one
		}
		content, err := io.ReadAll(io.LimitReader(f, bundleEntryBytes))
		_ = f.Close() // only read
		if err == nil {
			fmt.Fprintf(&text, "# %s\n%s\n", path, bytes.TrimRight(content, "\n"))
		}
	}
	if text.Len() == 0 {
		return nil, errors.New("none of the files can be read")
	}
	return text.Bytes(), nil
}

func (b *bundle) command(name string, argv ...string) {
	b.add(name, strings.Join(argv, " "), func(ctx context.Context) ([]byte, error) { return output(ctx, argv...) })
}

// output is what a command of the machine's prints.
func output(ctx context.Context, argv ...string) ([]byte, error) {
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return nil, fmt.Errorf("%s is not there", argv[0])
	}
	cmd := exec.CommandContext(ctx, path, argv[1:]...)
	cmd.WaitDelay = time.Second // a child of it may hold the pipe
	out, err := cmd.Output()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		return nil, fmt.Errorf("%s: %w: %.300s", argv[0], err, ended.Stderr)
	}
	return out, err
}

// log is the last of what the journal has of the unit.
func (b *bundle) log() {
	dropped := 0
	b.add("log.txt", "the journal of "+unitName+", without debug lines, without what models print, and without error texts about requests", func(ctx context.Context) ([]byte, error) {
		records, err := output(ctx, "journalctl", "-u", unitName, "-n", bundleLogLines, "--no-pager", "-p", "info", "-o", "json")
		if err != nil {
			return nil, err
		}
		text, n := logLines(bytes.NewReader(records))
		dropped = n
		if len(text) == 0 {
			return nil, errors.New("the journal has no line of " + unitName + "; a log that goes elsewhere must be looked through by whoever sends it")
		}
		return text, nil
	})
	if dropped > 0 {
		b.gap("lines of the log", "%d lines are not known to be free of payloads", dropped)
	}
}

// aboutModels are the components whose error texts speak of models, files and processes. Those of the others may quote a request.
var aboutModels = []string{"", "updater", "memory", "storage", "worker"}

// crash is a line of what the Go runtime prints when it ends the process.
var crash = regexp.MustCompile(`^(goroutine \d+ \[|fatal error: |SIG[A-Z]+: |\[signal |created by |PC=0x|\t?/\S+\.go:\d+|[\w./*()-]+\((0x[0-9a-f]+|\.\.\.|\{|\)))`)

// logLines makes lines of the journal's JSON, out of the fields that cannot have a payload. dropped counts what was not written by the
// daemon's logger, nor by systemd.
func logLines(records io.Reader) (text []byte, dropped int) {
	var out bytes.Buffer
	scan := bufio.NewScanner(records)
	scan.Buffer(nil, 8<<20)
	for scan.Scan() {
		var r map[string]any // a value that is no text is a list of numbers
		if json.Unmarshal(scan.Bytes(), &r) != nil {
			dropped++
			continue
		}
		field := func(name string) string { s, _ := r[name].(string); return s }
		line := ""
		switch message := field("MESSAGE"); {
		case field("EVENT") != "":
			line = loggedLine(r)
		case field("_PID") == "1" || field("SYSLOG_IDENTIFIER") == "systemd":
			line = message
		case crash.MatchString(message):
			line = message
		default:
			dropped++
			continue
		}
		micros, _ := strconv.ParseInt(field("__REALTIME_TIMESTAMP"), 10, 64)
		fmt.Fprintf(&out, "%s <%s> %s\n", time.UnixMicro(micros).UTC().Format("2006-01-02T15:04:05.000Z"), field("PRIORITY"), line)
	}
	return out.Bytes(), dropped
}

// loggedLine is a record of journalHandler without the fields that may quote somebody.
func loggedLine(r map[string]any) string {
	line, _ := r["EVENT"].(string)
	component, _ := r["COMPONENT"].(string)
	for _, key := range logKeys {
		value, ok := r[strings.ToUpper(key)].(string)
		switch {
		case !ok:
			continue
		case slices.Contains([]string{"text", "stack", "labels", "address", "by", "id"}, key):
			continue
		case (key == "err" || key == "reason") && !slices.Contains(aboutModels, component):
			value = blackened
		}
		line += " " + key + "=" + quoted(value)
	}
	return line
}
