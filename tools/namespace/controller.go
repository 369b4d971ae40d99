// controller.go: where this process may make cgroups of its own.
package namespace

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Controller is the directory of this process's cgroup for a controller ("memory", "cpu"), below which others with that controller can be made as
// far as its hierarchy goes, and whether it is one of version 1. Whether this process may make them shows when it does.
func Controller(name string) (dir string, v1 bool, err error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		root := "/sys/fs/cgroup"
		switch {
		case slices.Contains(strings.Split(parts[1], ","), name):
			root, v1 = filepath.Join(root, name), true
		case parts[0] != "0":
			continue
		default:
			have, err := os.ReadFile(filepath.Join(root, parts[2], "cgroup.subtree_control"))
			if err != nil || !slices.Contains(strings.Fields(string(have)), name) {
				continue // not delegated
			}
		}
		if dir = filepath.Join(root, parts[2]); !isDir(dir) { // the path is the host's
			dir = root
		}
		return dir, v1, nil
	}
	return "", false, fmt.Errorf("this process is in no %s cgroup that may be divided", name)
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
