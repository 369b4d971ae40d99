// leaks.go: what a process tree holds of the system beside memory.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/inferd/inferd/tools/measure"
)

// holdings are what must not grow over updates.
type holdings struct {
	processes   int // of the tree
	descriptors int // of the core
	shared      int // memfds that the core has mapped or open
	watches     int // inotify watches of the core
}

// held counts the holdings of a core and its workers.
func held(core int) (h holdings) {
	dir := fmt.Sprintf("/proc/%d", core)
	links, _ := filepath.Glob(filepath.Join(dir, "fd", "*")) // the pattern is well-formed, as below
	for _, link := range links {
		target, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		h.descriptors++
		if strings.HasPrefix(target, "/memfd:") {
			h.shared++
		}
	}
	maps, _ := os.ReadFile(filepath.Join(dir, "maps")) // empty when it has ended, which is noticed elsewhere
	h.shared += strings.Count(string(maps), "/memfd:")
	infos, _ := filepath.Glob(filepath.Join(dir, "fdinfo", "*"))
	for _, info := range infos {
		text, err := os.ReadFile(info)
		if err == nil {
			h.watches += strings.Count(string(text), "inotify wd:")
		}
	}
	h.processes = countTree(core)
	return h
}

func countTree(pid int) int {
	n := 1
	for _, c := range measure.Children(pid) {
		n += countTree(c)
	}
	return n
}

// judge prints whether any holding of the last third is above the most of the first third.
func judge(all []holdings) {
	third := max(1, len(all)/3)
	for _, k := range []struct {
		name string
		of   func(holdings) int
	}{
		{"processes", func(h holdings) int { return h.processes }}, {"descriptors", func(h holdings) int { return h.descriptors }},
		{"shared memory files", func(h holdings) int { return h.shared }}, {"watches", func(h holdings) int { return h.watches }},
	} {
		var first, last int
		for i, h := range all {
			if i < third {
				first = max(first, k.of(h))
			}
			if i >= len(all)-third {
				last = max(last, k.of(h))
			}
		}
		// Beside what is held for good there are files that are open for a moment: a look at a folder, the reading of a worker's memory.
		verdict(fmt.Sprintf("%s in the last third, most", k.name), float64(last), float64(first+2), "")
	}
}
