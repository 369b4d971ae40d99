// oomkills_test.go: the counters of both versions of cgroups.
package appliance

import (
	"testing"
	"testing/fstest"
)

func TestOOMKills(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const unit = "inferd.slice/inferd.service"
	for name, c := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"no cgroups": {fstest.MapFS{}, 0},
		"version 2, divided": {fstest.MapFS{
			"proc/self/cgroup":                              file("0::/" + unit + "/.control\n"),
			"sys/fs/cgroup/" + unit + "/memory.events":      file("oom_kill 7\n"), // the workers' are in it
			"sys/fs/cgroup/" + unit + "/core/memory.events": file("low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n"),
		}, 1},
		"version 2, a worker's only": {fstest.MapFS{
			"proc/self/cgroup":                              file("0::/" + unit + "/.control\n"),
			"sys/fs/cgroup/" + unit + "/memory.events":      file("oom_kill 7\n"),
			"sys/fs/cgroup/" + unit + "/core/memory.events": file("oom_kill 0\n"),
		}, 0},
		"version 2, whole": {fstest.MapFS{
			"proc/self/cgroup":                         file("0::/" + unit + "\n"),
			"sys/fs/cgroup/" + unit + "/memory.events": file("oom_kill 2\n"),
		}, 2},
		"version 1": {fstest.MapFS{
			"proc/self/cgroup": file("5:memory:/" + unit + "\n1:name=systemd:/" + unit + "\n0::/" + unit + "\n"),
			"sys/fs/cgroup/memory/" + unit + "/memory.oom_control": file("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
		}, 3},
		"nonsense": {fstest.MapFS{"proc/self/cgroup": file("::\n\n0::\n"), "sys/fs/cgroup/memory.events": file("oom_kill -4\noom_kill x\n")}, 0},
	} {
		if got := oomKills(c.root); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
