// sample.go: what inferd and its workers hold at a moment.
package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

type sample struct {
	at                                        time.Duration // since the load began
	memory                                    float64       // bytes that are no file's, of all processes, shared ones counted once
	core                                      float64       // of the core alone
	descriptors, threads, processes, memfiles float64       // of all; the last are mappings of the core
	disk                                      float64       // bytes that the state directory takes
}

func (s sample) String() string {
	return fmt.Sprintf("%v: %.1f MB (core %.1f), %.0f descriptors, %.0f threads, %.0f processes, %.0f shared mappings, %.1f MB of disk",
		s.at.Round(time.Second), s.memory/1e6, s.core/1e6, s.descriptors, s.threads, s.processes, s.memfiles, s.disk/1e6)
}

func (s *soak) look(began time.Time) sample {
	out := sample{at: time.Since(began), disk: diskUsed(filepath.Join(s.dir, "state"))}
	core := s.daemon.Process.Pid
	out.core = ownMemory(core)
	maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", core)) // empty when it has ended, which is noticed elsewhere
	out.memfiles = float64(strings.Count(string(maps), "/memfd:"))
	for _, pid := range tree(core) {
		out.memory += ownMemory(pid)
		out.processes++
		dir := filepath.Join("/proc", strconv.Itoa(pid))
		tasks, _ := os.ReadDir(filepath.Join(dir, "task")) // none when it has ended
		out.threads += float64(len(tasks))
		links, _ := os.ReadDir(filepath.Join(dir, "fd")) // as above
		for _, l := range links {
			if _, err := os.Readlink(filepath.Join(dir, "fd", l.Name())); err == nil { // else it is closed meanwhile
				out.descriptors++
			}
		}
	}
	return out
}

// tree is a process and all its descendants.
func tree(pid int) []int {
	all := []int{pid}
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well-formed
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // the thread has ended
		}
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(all, tree(child)...)
			}
		}
	}
	return all
}

// ownMemory is a process's share of what is no file's, in bytes.
func ownMemory(pid int) (bytes float64) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0 // it has ended
	}
	for line := range strings.Lines(string(text)) {
		for _, field := range []string{"Pss_Anon:", "Pss_Shmem:"} {
			if rest, ok := strings.CutPrefix(line, field); ok {
				kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64) // the kernel's own number
				bytes += kb * 1024
			}
		}
	}
	return bytes
}

// diskUsed is what the files below dir take, holes not counted and two names of one file once.
func diskUsed(dir string) (bytes float64) {
	type file struct{ dev, ino uint64 }
	seen := make(map[file]bool)
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error { // what goes away while it is walked is not there
		if err != nil || d.IsDir() {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return nil
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[file{st.Dev, st.Ino}] {
			seen[file{st.Dev, st.Ino}] = true
			bytes += float64(st.Blocks) * 512
		}
		return nil
	})
	return bytes
}
