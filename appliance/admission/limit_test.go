// limit_test.go: the memory limit in force, over recorded trees of /proc and /sys.
package admission

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

func TestMemoryLimit(t *testing.T) {
	const meminfo = "MemTotal:        8388608 kB\nMemFree:          123456 kB\n" // 8 GiB
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
		why   []string
	}{
		{"no cgroup at all", map[string]string{"proc/meminfo": meminfo}, 8 << 30, []string{"no cgroup limits it"}},
		{"version 2, unlimited", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/user.slice/session-1.scope\n",
			"sys/fs/cgroup/user.slice/memory.max": "max\n", "sys/fs/cgroup/user.slice/session-1.scope/memory.max": "max\n",
		}, 8 << 30, []string{"no cgroup limits it"}},
		{"version 2, a unit's MemoryMax", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/inferd.service\n",
			"sys/fs/cgroup/system.slice/memory.max": "max\n", "sys/fs/cgroup/system.slice/inferd.service/memory.max": "2147483648\n",
		}, 2 << 30, []string{"memory.max of cgroup /system.slice/inferd.service", "the machine has 8.0 GiB"}},
		{"version 2, the slice is tighter than the unit", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/inferd.service\n",
			"sys/fs/cgroup/system.slice/memory.max": "1073741824\n", "sys/fs/cgroup/system.slice/inferd.service/memory.max": "2147483648\n",
		}, 1 << 30, []string{"memory.max of cgroup /system.slice;"}},
		{"version 2, a container that sees only its own group", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, 512 << 20, []string{"memory.max of cgroup /;"}},
		{"version 2, a container with the host's path", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/../../docker/abc\n", "sys/fs/cgroup/memory.max": "536870912\n",
		}, 512 << 20, []string{"cgroup /;"}},
		{"version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "12:cpu,cpuacct:/x\n7:memory:/docker/abc\n1:name=systemd:/docker/abc\n0::/init.scope\n",
			"sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":            "9223372036854771712\n",
		}, 1 << 30, []string{"memory.limit_in_bytes of cgroup /docker/abc"}},
		{"version 1, a container with the host's path", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "7:hugetlb,memory:/docker/abc\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
		}, 1 << 30, []string{"cgroup /;"}},
		{"version 1, unlimited", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "7:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 8 << 30, []string{"no cgroup limits it"}},
		{"a limit above the machine", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "99999999999\n",
		}, 8 << 30, []string{"no cgroup limits it"}},
		{"no meminfo, a limit", map[string]string{"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "4096\n"}, 4096, []string{"cgroup /a"}},
		{"version 2, memory.high is tighter than memory.max", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "2147483648\n", "sys/fs/cgroup/a/memory.high": "1073741824\n",
		}, 1 << 30, []string{"memory.high of cgroup /a"}},
		{"nothing can be read", nil, 0, []string{"/proc/meminfo cannot be read"}},
		{"nonsense", map[string]string{"proc/meminfo": "MemTotal: lots\n", "proc/self/cgroup": "::::\nx\n0::\n\n"}, 0, nil},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		l := InForce(root, 0, 0)
		got, why := l.Bytes, l.Why
		if l.Reserve != ReserveOf(got, 0) || (l.Source == FromNowhere) != (c.want == 0) {
			t.Errorf("%s: %+v", c.name, l)
		}
		if got != c.want {
			t.Errorf("%s: %d (%s), want %d", c.name, got, why, c.want)
		}
		for _, w := range c.why {
			if !strings.Contains(why, w) {
				t.Errorf("%s: because %q, which lacks %q", c.name, why, w)
			}
		}
	}
}

func TestFreeMemory(t *testing.T) {
	const meminfo = "MemTotal:        8388608 kB\nMemAvailable:    4194304 kB\n" // 4 GiB left
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
		why   string
	}{
		{"no cgroup", map[string]string{"proc/meminfo": meminfo}, 4 << 30, "what the machine has left"},
		{"a unit's limit, file pages count as free", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/system.slice/inferd.service\n", "sys/fs/cgroup/system.slice/memory.max": "max\n",
			"sys/fs/cgroup/system.slice/inferd.service/memory.max": "2147483648\n", "sys/fs/cgroup/system.slice/inferd.service/memory.current": "1610612736\n",
			"sys/fs/cgroup/system.slice/inferd.service/memory.stat": "anon 1073741824\ninactive_file 268435456\nactive_file 268435456\n",
		}, 768 << 20, "what is left below memory.max of cgroup /system.slice/inferd.service"},
		{"the slice is fuller", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "2000\n", "sys/fs/cgroup/a/memory.current": "1900\n",
			"sys/fs/cgroup/a/b/memory.max": "1000\n", "sys/fs/cgroup/a/b/memory.current": "10\n",
		}, 100, "cgroup /a"},
		{"over the limit", map[string]string{
			"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "2000\n", "sys/fs/cgroup/a/memory.current": "2100\n",
		}, 0, "cgroup /a"},
		{"the machine is tighter", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "99999999999\n", "sys/fs/cgroup/a/memory.current": "0\n",
		}, 4 << 30, "what the machine has left"},
		{"version 1", map[string]string{
			"proc/meminfo": meminfo, "proc/self/cgroup": "7:memory:/x\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "1073741824\n",
			"sys/fs/cgroup/memory/x/memory.usage_in_bytes": "536870912\n", "sys/fs/cgroup/memory/x/memory.stat": "inactive_file 1\ntotal_inactive_file 1048576\n",
		}, 513 << 20, "memory.limit_in_bytes of cgroup /x"},
		{"nothing can be read", nil, 0, ""},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		if got, why := Available(root); got != c.want || !strings.Contains(why, c.why) || (why == "") != (c.why == "") {
			t.Errorf("%s: %d (%s), want %d (%s)", c.name, got, why, c.want, c.why)
		}
	}
}

func TestConfiguredLimit(t *testing.T) {
	root := fstest.MapFS{"proc/meminfo": {Data: []byte("MemTotal: 8388608 kB\n")}, "proc/self/cgroup": {Data: []byte("0::/a\n")},
		"sys/fs/cgroup/a/memory.max": {Data: []byte("1073741824\n")}}
	for _, c := range []struct {
		name                string
		root                fs.FS
		configured, reserve int64
		want                Limit
	}{
		{"tighter than the cgroup", root, 512 << 20, 0, Limit{512 << 20, 64 << 20, FromConfiguration, "by memory.limit"}},
		{"the cgroup is tighter", root, 2 << 30, 0, Limit{1 << 30, 64 << 20, FromCgroup2, "by memory.max of cgroup /a; the machine has 8.0 GiB; memory.limit, 2147 MB, is more and changes nothing"}},
		{"a reserve", root, 512 << 20, 100 << 20, Limit{512 << 20, 100 << 20, FromConfiguration, "by memory.limit"}},
		{"a reserve that a small limit cannot give", root, 200 << 20, 100 << 20, Limit{200 << 20, 50 << 20, FromConfiguration, "by memory.limit"}},
		{"nothing else is known", fstest.MapFS{}, 1 << 30, 0, Limit{1 << 30, 64 << 20, FromConfiguration, "by memory.limit"}},
	} {
		if got := InForce(c.root, c.configured, c.reserve); got != c.want {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestReserveAndShare(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct{ limit, reserve, share int64 }{
		{0, 0, unlimitedShare}, {128 * mb, 32 * mb, 32 * mb}, {256 * mb, 64 * mb, 64 * mb}, {1 << 30, 64 * mb, 256 * mb},
		{4 << 30, 256 * mb, 1 << 30}, {64 << 30, 1 << 30, 1 << 30},
	} {
		if got := ReserveOf(c.limit, 0); got != c.reserve {
			t.Errorf("reserve of %d: %d, want %d", c.limit, got, c.reserve)
		}
		if got := ShareOf(c.limit, 0); got != c.share {
			t.Errorf("share of %d: %d, want %d", c.limit, got, c.share)
		}
	}
}

// FuzzLimit: whatever a cgroup's files hold, the limit is sane.
func FuzzLimit(f *testing.F) {
	f.Add("0::/a\n", "4096\n", "MemTotal: 1 kB\n")
	f.Add("7:memory:/../x\n", "-1\n", "MemTotal: -9 kB\n")
	f.Fuzz(func(t *testing.T, group, number, meminfo string) {
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte(group)}, "proc/meminfo": {Data: []byte(meminfo)},
			"sys/fs/cgroup/a/memory.max": {Data: []byte(number)}, "sys/fs/cgroup/memory/memory.limit_in_bytes": {Data: []byte(number)}}
		if l := InForce(root, 0, 0); l.Bytes < 0 || l.Reserve < 0 || l.Reserve > l.Bytes || l.Why == "" {
			t.Fatalf("%+v", l)
		}
		if free, _ := Available(root); free < 0 {
			t.Fatal(free)
		}
	})
}
