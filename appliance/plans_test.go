// plans_test.go: what is remembered of how versions are run best.
package appliance

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference/tuning"
)

func TestPlansAreRemembered(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	p := newPlans(dir, log)
	for i := range mostPlans + 3 {
		p.put(&tuned{Key: fmt.Sprint(i), At: time.Unix(int64(i), 0), Plan: tuning.Plan{Callers: 2, Freeze: true}})
	}
	q := newPlans(dir, log)
	if r := q.find("3"); r == nil || !r.Plan.Freeze || !r.decided() {
		t.Errorf("%+v", r)
	}
	if q.find("2") != nil || len(q.all) != mostPlans {
		t.Errorf("%d are remembered, and the oldest ones still", len(q.all))
	}
	q.drop("3")
	if newPlans(dir, log).find("3") != nil {
		t.Error("what was forgotten is remembered")
	}
	var none *plans
	none.put(&tuned{Key: "x"})
	if none.find("x") != nil {
		t.Error("nobody remembers")
	}
	for tries, want := range map[int]bool{0: true, 1: false, 2: false, 3: true, 4: true} {
		if got := (&tuned{Tries: tries}).decided(); got != want {
			t.Errorf("%d tries: %v", tries, got)
		}
	}
}

// A file that cannot be read costs a measurement, no start.
func TestPlansBeginAnew(t *testing.T) {
	for name, text := range map[string]string{
		"cut":              `{"format":1,"plans":[{"key":"a"`,
		"another format":   `{"format":2,"plans":[]}`,
		"no key":           `{"format":1,"plans":[{}]}`,
		"null":             `{"format":1,"plans":[null]}`,
		"too many threads": `{"format":1,"plans":[{"key":"a","plan":{"callers":100000}}]}`,
		"too many":         `{"format":1,"plans":[` + strings.Repeat(`{"key":"a"},`, mostPlans) + `{"key":"b"}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, plansFile), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			p := newPlans(dir, slog.New(slog.DiscardHandler))
			if p.find("a") != nil {
				t.Error("it was read")
			}
			p.put(&tuned{Key: "c"})
			if newPlans(dir, slog.New(slog.DiscardHandler)).find("c") == nil {
				t.Error("nothing is remembered any more")
			}
		})
	}
}

func FuzzPlans(f *testing.F) {
	good, err := json.Marshal(plansText{Format: plansFormat, Plans: []*tuned{{Key: "a", Plan: tuning.Plan{Callers: 2, OneDNN: tuning.OneDNNOn}, Tried: []tuning.Outcome{{Verdict: tuning.Used}}}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"format":1,"plans":[{"key":"a","plan":{"callers":-1}}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parsePlans(b)
		for _, r := range list {
			if err == nil && (r.Key == "" || r.Plan.Check() != nil || r.Plain.Check() != nil) {
				t.Errorf("%+v was let pass", r)
			}
		}
	})
}

// The key is another one where anything is that was measured with, and the same for the same bytes elsewhere.
func TestPlanKey(t *testing.T) {
	dir := t.TempDir()
	make := func(name string, files map[string]string) string {
		at := filepath.Join(dir, name)
		for path, text := range files {
			path = filepath.Join(at, path)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return at
	}
	files := func(graph, index, data string) map[string]string {
		return map[string]string{"saved_model.pb": graph, "variables/variables.index": index, "variables/variables.data-00000-of-00001": data}
	}
	cpu := processor{name: "a cpu", flags: []string{"avx"}, cores: 2}
	var m config.Model
	m.Optimize = config.OptimizeAuto
	key := func(dir string, cpu processor, isolation config.Isolation, m config.Model) string {
		k, err := planKey(dir, cpu, "/nowhere/libtensorflow_cc.so.2", isolation, m)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	first := key(make("1", files("g", "i", "data")), cpu, config.IsolationVersion, m)
	if got := key(make("kept/1-abc", files("g", "i", "data")), cpu, config.IsolationVersion, m); got != first {
		t.Error("a copy has another key")
	}
	faster, threads := cpu, m
	faster.flags, threads.IntraOpThreads = []string{"avx", "avx2"}, 2
	for name, got := range map[string]string{
		"graph":         key(make("2", files("h", "i", "data")), cpu, config.IsolationVersion, m),
		"index":         key(make("3", files("g", "j", "data")), cpu, config.IsolationVersion, m),
		"size of data":  key(make("4", files("g", "i", "data2")), cpu, config.IsolationVersion, m),
		"cpu":           key(filepath.Join(dir, "1"), faster, config.IsolationVersion, m),
		"isolation":     key(filepath.Join(dir, "1"), cpu, config.IsolationDevice, m),
		"configuration": key(filepath.Join(dir, "1"), cpu, config.IsolationVersion, threads),
	} {
		if got == first {
			t.Errorf("another %s has the same key", name)
		}
	}
	if _, err := planKey(filepath.Join(dir, "nothing"), cpu, "", config.IsolationVersion, m); err == nil {
		t.Error("a folder that is not there has a key")
	}
}
