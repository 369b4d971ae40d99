// oomkills.go: whether the kernel has killed for memory where the daemon ran.
package appliance

import (
	"fmt"
	"io/fs"
	"path"
	"strings"
)

// oomKills is how many processes the kernel has killed for memory in the cgroup that the daemon was in, as whoever runs in the service's own
// or in the .control beside it can tell after the daemon's end. 0 where it cannot be known. In version 1 the workers may be among them.
func oomKills(root fs.FS) (kills int64) {
	own, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(own)) {
		_, rest, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		controllers, name, _ := strings.Cut(rest, ":")
		name = path.Clean("/" + name)
		if path.Base(name) == ".control" { // systemd's, for what is not the main process
			name = path.Dir(name)
		}
		var file string
		switch {
		case strings.Contains(","+controllers+",", ",memory,"):
			file = path.Join("sys/fs/cgroup/memory", name, "memory.oom_control")
		case controllers == "":
			file = path.Join("sys/fs/cgroup", name, "core", "memory.events")
			if _, err := fs.Stat(root, file); err != nil { // it was not divided: the service's own counts, with its workers
				file = path.Join("sys/fs/cgroup", name, "memory.events")
			}
		default:
			continue
		}
		text, err := fs.ReadFile(root, file)
		if err != nil {
			continue
		}
		for l := range strings.Lines(string(text)) {
			var n int64
			if _, err := fmt.Sscanf(l, "oom_kill %d", &n); err == nil {
				kills += max(n, 0)
			}
		}
	}
	return kills
}
