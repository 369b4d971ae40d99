// pressure_test.go: levels by sample, and the kernel's files.
package admission

import (
	"maps"
	"testing"
	"testing/fstest"
)

func TestJudge(t *testing.T) {
	used := func(n int64) Sample { return Sample{Used: n, Limit: Limit{Bytes: 1000, Reserve: 80}} } // 920 may be booked
	for _, c := range []struct {
		name   string
		now    Sample
		before Sample
		old    Level
		want   Level
	}{
		{"nothing is known", Sample{}, Sample{}, Calm, Calm},
		{"no limit", Sample{Used: 1 << 40}, Sample{}, Calm, Calm},
		{"all that may be booked", used(920), used(500), Calm, Calm},
		{"into the reserve", used(921), used(500), Calm, Some},
		{"still close", used(901), used(921), Some, Some},
		{"as close, coming from below", used(901), used(800), Calm, Calm},
		{"no longer", used(899), used(921), Some, Calm},
		{"half of the reserve", used(961), used(500), Calm, High},
		{"still", used(941), used(961), High, High},
		{"less", used(939), used(961), High, Some},
		{"empty at once", used(100), used(961), High, Calm},
		{"over", used(1200), used(961), Some, High},
		{"some stall", Sample{Known: true, Some10: 12}, Sample{}, Calm, Some},
		{"some still stall", Sample{Known: true, Some10: 6}, Sample{}, Some, Some},
		{"few stall", Sample{Known: true, Some10: 6}, Sample{}, Calm, Calm},
		{"all stall", Sample{Known: true, Some10: 40, Full10: 15}, Sample{}, Calm, High},
		{"all still stall", Sample{Known: true, Full10: 6}, Sample{}, High, High},
		{"the kernel killed", Sample{Events: map[string]int64{"oom_kill": 2}}, Sample{Events: map[string]int64{"oom_kill": 1}}, Calm, High},
		{"it had killed before", Sample{Events: map[string]int64{"oom_kill": 2}}, Sample{}, Calm, Calm},
	} {
		if got := Judge(c.now, c.before, c.old); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestStalls(t *testing.T) {
	const psi = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.25 avg60=0.00 avg300=0.00 total=0\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  Sample
	}{
		{"version 2", map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/memory.pressure": psi,
			"sys/fs/cgroup/a/b/memory.events": "low 0\nhigh 3\nmax 4\noom 1\noom_kill 1\n"},
			Sample{Known: true, Some10: 1.5, Full10: .25, Events: map[string]int64{"low": 0, "high": 3, "max": 4, "oom": 1, "oom_kill": 1}}},
		{"version 1, with the machine's stalls", map[string]string{"proc/self/cgroup": "7:memory:/a\n", "proc/pressure/memory": psi,
			"sys/fs/cgroup/memory/a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n", "sys/fs/cgroup/memory/a/memory.failcnt": "9\n"},
			Sample{Known: true, Some10: 1.5, Full10: .25, Events: map[string]int64{"oom_kill_disable": 0, "under_oom": 0, "oom_kill": 2, "max": 9}}},
		{"the machine alone", map[string]string{"proc/pressure/memory": psi}, Sample{Known: true, Some10: 1.5, Full10: .25}},
		{"nothing", nil, Sample{}},
		{"nonsense", map[string]string{"proc/pressure/memory": "some avg10=NaN x\nfull avg10=-3 \nsome avg10=1e9 avg\nlots\n"}, Sample{}},
	} {
		root := fstest.MapFS{}
		for path, text := range c.files {
			root[path] = &fstest.MapFile{Data: []byte(text)}
		}
		got := Stalls(root)
		if !maps.Equal(got.Events, c.want.Events) || got.Known != c.want.Known || got.Some10 != c.want.Some10 || got.Full10 != c.want.Full10 {
			t.Errorf("%s: %+v, want %+v", c.name, got, c.want)
		}
	}
}

func TestUsedOf(t *testing.T) {
	root := fstest.MapFS{
		"proc/self/cgroup":                 {Data: []byte("0::/a/b\n")},
		"sys/fs/cgroup/a/memory.max":       {Data: []byte("1000\n")},
		"sys/fs/cgroup/a/memory.current":   {Data: []byte("700\n")},
		"sys/fs/cgroup/a/memory.stat":      {Data: []byte("anon 400\ninactive_file 200\nactive_file 100\n")},
		"sys/fs/cgroup/a/b/memory.max":     {Data: []byte("max\n")},
		"sys/fs/cgroup/a/b/memory.current": {Data: []byte("300\n")},
	}
	if n, ok := UsedOf(root, InForce(root, 0, 0)); !ok || n != 400 {
		t.Errorf("%d %v", n, ok)
	}
	if _, ok := UsedOf(root, InForce(root, 500, 0)); ok {
		t.Error("a configured limit is no cgroup's")
	}
}
