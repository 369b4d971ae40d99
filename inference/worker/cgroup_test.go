// cgroup_test.go: workers in real memory cgroups, where the machine gives some, and what is ours to divide.
package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/inferd/inferd/inference"
)

// ownCgroup is a cgroup of the test's own to divide.
func ownCgroup(t *testing.T) string {
	t.Helper()
	dir, why := DelegatedCgroup(os.DirFS("/"))
	if dir == "" {
		t.Skip("no memory cgroup to divide: " + why)
	}
	if err := EnterCgroup(dir); err != nil {
		t.Skipf("no memory cgroup to divide: %v", err)
	}
	own := filepath.Join(dir, fmt.Sprintf("inferd-test-%d", os.Getpid()))
	if err := os.Mkdir(own, 0o755); err != nil {
		t.Skipf("no memory cgroup to divide: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(own); err != nil {
			t.Errorf("something is left in the cgroup: %v", err)
		}
	})
	if !isVersion1(own) {
		if err := writeGroup(own, "cgroup.subtree_control", "+memory"); err != nil {
			t.Fatal(err)
		}
	}
	return own
}

// groupsIn are the names of the cgroups of workers.
func groupsIn(t *testing.T, dir string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, groupPrefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range all {
		names = append(names, filepath.Base(g))
	}
	return names
}

func limitFile(dir string) string {
	if isVersion1(dir) {
		return "memory.limit_in_bytes"
	}
	return "memory.max"
}

func groupOf(m *Model) *group {
	_, p := m.unit.stats()
	return p.group
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: " + what)
		}
	}
}

// TestKernelEndsTheModelThatGrows has one model take at a stroke more than its cgroup may have, too fast to be watched.
func TestKernelEndsTheModelThatGrows(t *testing.T) {
	dir := ownCgroup(t)
	for _, zygote := range []bool{true, false} {
		t.Run(fmt.Sprintf("zygote=%v", zygote), func(t *testing.T) {
			h := startHostWith(t, HostOptions{UseZygote: zygote, Cgroup: dir})
			grows, beside := open(t, h, fakeLoad("grows"), Options{}), open(t, h, fakeLoad("beside"), Options{})
			echo(t, grows, 1)
			before := groupOf(grows)
			for _, m := range []*Model{grows, beside} {
				if g := groupOf(m); g == nil || !slices.Contains(strings.Fields(string(readGroup(g.dir, "cgroup.procs"))), strconv.Itoa(m.Stats().PID)) {
					t.Fatalf("the worker is not in a cgroup of its own: %+v", g)
				}
			}
			// By hand, so that watch knows of no limit and does not come first.
			if err := writeGroup(before.dir, limitFile(before.dir), strconv.Itoa(128<<20)); err != nil {
				t.Fatal(err)
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			answered := 0
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						echo(t, beside, 2)
						answered++
					}
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			_, err := grows.Run(ctx, runOf("big", floatTensor(1<<27)))
			echo(t, grows, 3)
			close(stop)
			wg.Wait()
			if !errors.Is(err, inference.ErrWorkerDied) || !strings.Contains(fmt.Sprint(err), "the kernel ended it for memory") {
				t.Errorf("the run that took too much: %v", err)
			}
			if d := grows.Stats().LastDeath; d == nil || !d.Memory || d.Signal != syscall.SIGKILL || !strings.HasPrefix(d.Reason, "the kernel ended it for memory") {
				t.Errorf("its death: %+v", d)
			}
			if st := beside.Stats(); st.Restarts != 0 || answered == 0 {
				t.Errorf("the model beside: %d answers, %+v", answered, st)
			}
			if _, err := os.Stat(before.dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the cgroup of the process that has ended: %v", err)
			}
			if got := groupsIn(t, dir); len(got) != 2 {
				t.Errorf("cgroups: %q", got)
			}
			for _, m := range []*Model{grows, beside} {
				if err := m.Close(); err != nil {
					t.Error(err)
				}
			}
			if got := groupsIn(t, dir); len(got) != 0 {
				t.Errorf("cgroups are left: %q", got)
			}
		})
	}
}

// The kernel's limit follows the model's, and never goes below what the process has: that would be a death where watch can do without.
func TestCgroupFollowsTheLimit(t *testing.T) {
	dir := ownCgroup(t)
	h := startHostWith(t, HostOptions{UseZygote: true, Cgroup: dir})
	m := open(t, h, fakeLoad("limited"), Options{MemoryLimit: 1 << 30})
	is := func(want int64) func() bool {
		return func() bool {
			g := groupOf(m)
			return strings.TrimSpace(string(readGroup(g.dir, limitFile(g.dir)))) == strconv.FormatInt(want, 10)
		}
	}
	if !is(hardLimit(1 << 30))() {
		t.Error("a new worker has not the limit that it was opened with")
	}
	for _, limit := range []int64{512 << 20, 2 << 30, 400 << 20} {
		m.SetMemoryLimit(limit)
		until(t, fmt.Sprintf("limit %d", limit), is(hardLimit(limit)))
		echo(t, m, 1)
	}
	m.SetMemoryLimit(0)
	until(t, "no limit", func() bool {
		n, err := strconv.ParseInt(strings.TrimSpace(string(readGroup(groupOf(m).dir, limitFile(dir)))), 10, 64)
		return err != nil || n > 1<<60
	})
	if err := m.Park("the test says so"); err != nil {
		t.Fatal(err)
	}
	if got := groupsIn(t, dir); len(got) != 0 {
		t.Errorf("a parked worker has a cgroup: %q", got)
	}
	m.SetMemoryLimit(512 << 20)
	echo(t, m, 1)
	if !is(hardLimit(512 << 20))() {
		t.Error("a woken worker has not the limit that was set while it was parked")
	}
	if st := m.Stats(); st.Restarts != 0 || st.LastDeath != nil {
		t.Errorf("%+v", st)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestGrowsInACgroup(t *testing.T) {
	dir := ownCgroup(t)
	h := startHostWith(t, HostOptions{UseZygote: true, Cgroup: dir})
	m := open(t, h, fakeLoad("grows"), Options{})
	echo(t, m, 1)
	_, _, rest := m.Vitals()
	m.SetMemoryLimit(rest + 64<<20)
	for range 200 {
		res, err := m.Run(t.Context(), runOf("grow", floatTensor(1)))
		if err != nil {
			t.Fatal(err) // the watch comes before the kernel, between runs
		}
		res.Release()
		time.Sleep(2 * time.Millisecond)
	}
	if st := m.Stats(); st.Restarts == 0 || !st.LastDeath.Memory || !strings.Contains(st.LastDeath.Reason, "over its memory limit") {
		t.Errorf("%+v, %+v", st, st.LastDeath)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}

func TestCgroupsOfFormerLives(t *testing.T) {
	dir := ownCgroup(t)
	gone := fmt.Sprintf("%s%d-1", groupPrefix, 1<<30) // no process has such a number
	mine := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), 1<<30)
	other := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getppid(), 1<<30)
	foreign := "worker-of-somebody"
	for _, name := range []string{gone, mine, other, foreign} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	h := startHostWith(t, HostOptions{Cgroup: dir})
	m := open(t, h, fakeLoad("new"), Options{})
	echo(t, m, 1)
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	got := groupsIn(t, dir)
	slices.Sort(got)
	want := []string{other, foreign}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
	for _, name := range want {
		_ = os.Remove(filepath.Join(dir, name))
	}
}

// A folder that is no cgroup costs the limit in the kernel, and no request.
func TestNoCgroupToBeHad(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Cgroup: filepath.Join(t.TempDir(), "missing")})
	m := open(t, h, fakeLoad("watched"), Options{MemoryLimit: 1 << 40})
	echo(t, m, 1)
	if g := groupOf(m); g != nil {
		t.Errorf("it has a cgroup: %+v", g)
	}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		set   int64
		want  string
	}{
		"v2, its own limit":   {map[string]string{"memory.events": "low 0\nhigh 0\nmax 9\noom 1\noom_kill 1\noom_group_kill 1\n"}, 96 << 20, "limit 96 MiB, and it took 160 MiB"},
		"v2, everybody's":     {map[string]string{"memory.events": "max 0\noom 0\noom_kill 1\n"}, 96 << 20, "the service or the machine"},
		"v2, not for memory":  {map[string]string{"memory.events": "max 7\noom 0\noom_kill 0\n"}, 96 << 20, ""},
		"v2, no such file":    {nil, 96 << 20, ""},
		"v2, nonsense":        {map[string]string{"memory.events": "oom_kill\noom_kill x\n\n"}, 96 << 20, ""},
		"v1, its own limit":   {map[string]string{"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "memory.failcnt": "5\n"}, 512 << 20, "limit 512 MiB, and it took 640 MiB"},
		"v1, everybody's":     {map[string]string{"memory.oom_control": "oom_kill 1\n", "memory.failcnt": "0\n"}, 1, "the service or the machine"},
		"v1, not for memory":  {map[string]string{"memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", "memory.failcnt": "5\n"}, 1, ""},
		"limited by somebody": {map[string]string{"memory.events": "oom 1\noom_kill 1\n"}, 0, "by somebody else"},
	} {
		t.Run(name, func(t *testing.T) {
			g := &group{dir: t.TempDir(), set: c.set, v1: strings.HasPrefix(name, "v1")}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(g.dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := g.judge(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestDelegatedCgroup(t *testing.T) {
	const own, service = "proc/self/cgroup", "sys/fs/cgroup/system.slice/inferd.service"
	for name, c := range map[string]struct {
		files     map[string]string
		dir, want string
	}{
		"nothing":    {nil, "", "tells of no cgroups"},
		"v2":         {map[string]string{own: "0::/system.slice/inferd.service\n", service + "/memory.max": "max\n", service + "/cgroup.controllers": "cpu memory pids\n"}, "/" + service, "cgroup v2 /system.slice/inferd.service"},
		"v2 entered": {map[string]string{own: "0::/system.slice/inferd.service/core\n", service + "/memory.max": "max\n", service + "/cgroup.controllers": "memory\n"}, "/" + service, "v2"},
		"v2 without memory": {map[string]string{own: "0::/system.slice/inferd.service\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
			service + "/cgroup.controllers": "cpu\n"}, "", "no memory controller"},
		"v2 root":         {map[string]string{own: "0::/\n", "sys/fs/cgroup/cgroup.controllers": "cpu memory\n"}, "", "is the root"},
		"v2 in container": {map[string]string{own: "0::/docker/abc\n", "sys/fs/cgroup/memory.max": "max\n", "sys/fs/cgroup/cgroup.controllers": "memory\n"}, "/sys/fs/cgroup", "v2"},
		"hybrid": {map[string]string{own: "9:name=systemd:/\n4:hugetlb,memory:/a/b\n0::/\n", "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes": "1\n"},
			"/sys/fs/cgroup/memory/a/b", "cgroup v1 /a/b"},
		"v1 in container": {map[string]string{own: "4:memory:/docker/abc\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "1\n"}, "/sys/fs/cgroup/memory", "v1"},
		"v1 not mounted":  {map[string]string{own: "4:memory:/a\n0::/\n"}, "", "has no folder"},
		"nonsense":        {map[string]string{own: "::::\nx\n0::\n\n4:memory\n"}, "", "no hierarchy"},
	} {
		t.Run(name, func(t *testing.T) {
			root := fstest.MapFS{}
			for file, text := range c.files {
				root[file] = &fstest.MapFile{Data: []byte(text)}
			}
			if dir, why := DelegatedCgroup(root); dir != c.dir || !strings.Contains(why, c.want) {
				t.Errorf("%q, %q; want %q, %q", dir, why, c.dir, c.want)
			}
		})
	}
}

func TestEnterCgroupThatIsNotOurs(t *testing.T) {
	if err := EnterCgroup(filepath.Join(t.TempDir(), "missing")); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("a folder that is not there: %v", err)
	}
	dir := t.TempDir()
	if err := EnterCgroup(dir); err == nil || !strings.Contains(err.Error(), "no memory controller") {
		t.Errorf("a folder that is no cgroup: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func FuzzDelegatedCgroup(f *testing.F) {
	f.Add("4:memory:/a/../../../etc\n0::/../../b/core\n")
	f.Add("0::/system.slice/inferd.service\n")
	f.Fuzz(func(t *testing.T, text string) {
		root := fstest.MapFS{"proc/self/cgroup": {Data: []byte(text)}, "sys/fs/cgroup/memory.max": {}, "sys/fs/cgroup/memory/memory.limit_in_bytes": {},
			"sys/fs/cgroup/cgroup.controllers": {Data: []byte("memory\n")}, "memory.max": {}, "etc/memory.limit_in_bytes": {}}
		dir, why := DelegatedCgroup(root)
		if dir != "" && dir != "/"+mount2 && !strings.HasPrefix(dir, "/"+mount2+"/") || dir != path.Clean(dir) && dir != "" || why == "" {
			t.Errorf("%q, %q", dir, why)
		}
	})
}
