// controller_test.go: policies, labels, configuration, base paths, hung models and the stop, over real folders and a fake runtime.
package updater

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		policy Policy
		want   []int64
		then   []int64 // after version 3 was removed
	}{
		{Policy{Latest: 2}, []int64{3, 2}, []int64{2, 1}},
		{Policy{All: true}, []int64{3, 2, 1}, []int64{2, 1}},
		{Policy{Specific: []int64{1, 3}}, []int64{3, 1}, []int64{1}},
	} {
		t.Run(test.policy.String(), func(t *testing.T) {
			start(t, func(w *world, o *Options) {
				o.Models[0].Policy = test.policy
				for n := range 3 {
					put(t, w.sub(n+1), "")
				}
			}, func(t *testing.T, w *world) {
				w.pass(5 * time.Second)
				w.wantLive(test.want...)
				if err := os.RemoveAll(w.sub(3)); err != nil {
					t.Fatal(err)
				}
				w.pass(5 * time.Second)
				w.wantLive(test.then...)
			})
		})
	}
}

func TestLabels(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Models[0].Labels = map[string]int64{"stable": 1, "canary": 2}
		o.Models[0].Policy = Policy{All: true}
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		label := func(name string, want int64, known bool) {
			t.Helper()
			if n, ok := w.catalog.Label("m", name); n != want || ok != known {
				t.Fatalf("%s: %d %v", name, n, ok)
			}
		}
		label("stable", 1, true)
		label("canary", 0, false)
		if m := w.model(); !slices.Equal(m.Held, []string{"canary"}) || w.log.count("labels are held back") != 1 {
			t.Fatalf("held: %v", m.Held)
		}
		put(t, w.sub(2), "")
		w.pass(4 * time.Second)
		label("canary", 2, true)
		if m := w.model(); len(m.Held) != 0 {
			t.Fatalf("held: %v", m.Held)
		}
		if err := os.RemoveAll(w.sub(2)); err != nil {
			t.Fatal(err)
		}
		w.pass(4 * time.Second)
		label("canary", 0, false)
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: w.dir, Labels: map[string]int64{"new": 1}}}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		label("new", 1, true)
		label("stable", 0, false)
	})
}

func TestAssert(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		o.Models[0].Assert = map[string]*pb.SignatureDef{"serving_default": {}}
		o.Assert = func(info *savedmodel.Info, want map[string]*pb.SignatureDef) error {
			if len(want) != 1 || info.Dir != w.sub(1) {
				t.Errorf("asked about %v %v", info.Dir, want)
			}
			return errors.New("input x is int, configured float")
		}
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive()
		all := w.wantPublic("1 END FAILED_PRECONDITION")
		if !strings.Contains(all[0].Message, "input x is int, configured float; no version of it is served") || w.loadCount("1") != 0 {
			t.Fatalf("message: %s", all[0].Message)
		}
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: w.dir}}); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Second)
		w.wantLive(1)
	})
}

func TestReconfigure(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		put(t, filepath.Join(filepath.Dir(w.dir), "elsewhere", "1"), "")
		put(t, filepath.Join(filepath.Dir(w.dir), "n", "4"), "")
		o.ForgetAfter = time.Minute
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		for _, bad := range [][]Model{{{BasePath: "/x"}}, {{Name: "a"}}, {{Name: "a", BasePath: "/x"}, {Name: "a", BasePath: "/y"}}} {
			if err := w.c.Reconfigure(bad); err == nil {
				t.Fatalf("%+v is taken", bad)
			}
		}
		// The base path moves under the number that serves, and another model comes.
		held, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		parent := filepath.Dir(w.dir)
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: filepath.Join(parent, "elsewhere")}, {Name: "n", BasePath: filepath.Join(parent, "n")}}); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		w.wantLive(1)
		w.wantPublic("1 AVAILABLE")
		if v, _ := w.model().Version(1); v.Dir != filepath.Join(parent, "elsewhere", "1") {
			t.Fatalf("serves %s", v.Dir)
		}
		if n := len(w.model().Versions); n != 2 { // the old one drains
			t.Fatalf("%d versions", n)
		}
		held.Release()
		w.pass(time.Second)
		w.wantPublic("1 AVAILABLE")
		if n := len(w.model().Versions); n != 1 || !w.catalog.Available("n") {
			t.Fatalf("%d versions", n)
		}
		// m goes: it ends, is remembered, and then forgotten.
		if err := w.c.Reconfigure([]Model{{Name: "n", BasePath: filepath.Join(parent, "n")}}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.wantLive()
		w.wantPublic("1 END")
		if !w.model().Removed {
			t.Fatal("not marked as removed")
		}
		w.pass(time.Minute)
		if _, known := w.catalog.Status("m"); known {
			t.Fatal("not forgotten")
		}
		if _, ok := w.c.Status().Model("m"); ok {
			t.Fatal("still in the status")
		}
	})
}

// TestRemovedAndBack: a model that returns before it is forgotten is served again.
func TestRemovedAndBack(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		again := []Model{{Name: "m", BasePath: w.dir}}
		for range 2 {
			if err := w.c.Reconfigure(nil); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Second)
			w.wantLive()
			if err := w.c.Reconfigure(again); err != nil {
				t.Fatal(err)
			}
			w.pass(4 * time.Second)
			w.wantLive(1)
		}
		w.pass(time.Hour)
		w.wantLive(1)
	})
}

func TestBasePath(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Diagnose = func(dir string) string {
			if filepath.Base(dir) == "m" {
				return "that is a Keras file"
			}
			return ""
		}
		if err := os.Remove(w.dir); err != nil {
			t.Fatal(err)
		}
	}, func(t *testing.T, w *world) {
		w.pass(time.Second)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist") || !m.Verdict {
			t.Fatalf("%+v", m)
		}
		writeFiles(t, w.dir, "model.keras")
		w.pass(time.Minute)
		if m := w.model(); m.Problem != "that is a Keras file" || w.log.count("that is a Keras file") != 1 {
			t.Fatalf("%+v, said %d times", m, w.log.count("that is a Keras file"))
		}
		put(t, w.sub(1), "")
		put(t, filepath.Join(w.dir, "001"), "")
		w.pass(4 * time.Second)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "001 and 1 both mean version 1") || !strings.HasSuffix(m.Versions[0].Dir, "001") {
			t.Fatalf("%+v", m)
		}
		// It vanishes, as a mount does: what serves goes on.
		if err := os.Rename(w.dir, w.dir+".away"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist") {
			t.Fatalf("%+v", m)
		}
		if err := os.Rename(w.dir+".away", w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(1)
		if n := w.loadCount("001"); n != 1 {
			t.Fatalf("loaded %d times", n)
		}
	})
}

func TestModelsDir(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.ModelsDir = filepath.Dir(w.dir)
		o.ForgetAfter = time.Minute
		o.Models = []Model{{Name: "named", BasePath: filepath.Join(o.ModelsDir, "other"), Optional: true}}
		o.Discovered = func(m *Model) { m.StrictShapes = m.Name == "m" }
		put(t, w.sub(1), "")
		put(t, filepath.Join(o.ModelsDir, "other", "3"), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil || !h.Version().StrictShapes {
			t.Fatalf("settings of a found model: %v", err)
		}
		h.Release()
		if got := w.catalog.Models(); !slices.Equal(got, []string{"m", "named"}) {
			t.Fatalf("models: %v", got) // the folder of a configured model is not a model twice
		}
		if m := w.model(); m.Configured || !w.c.Status().Scanned {
			t.Fatalf("%+v", m)
		}
		put(t, filepath.Join(filepath.Dir(w.dir), "new", "00000007"), "")
		w.pass(5 * time.Second)
		if m, ok := w.c.Status().Model("new"); !ok || !slices.Equal(m.Live, []int64{7}) {
			t.Fatalf("new model: %+v", m)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		w.wantLive()
		if !w.model().Removed {
			t.Fatal("not marked as removed")
		}
		w.pass(2 * time.Minute)
		if got := w.catalog.Models(); !slices.Equal(got, []string{"named", "new"}) {
			t.Fatalf("models: %v", got)
		}
	})
}

// TestSlowLoads: workers that hang stop nobody else, at any number of them.
func TestSlowLoads(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		for i := range 12 { // more than there are loaders
			name := fmt.Sprintf("slow%d", i)
			base := filepath.Join(filepath.Dir(w.dir), name)
			put(t, filepath.Join(base, "2"), "slow")
			o.Models = append([]Model{{Name: name, BasePath: base}}, o.Models...)
		}
	}, func(t *testing.T, w *world) {
		w.pass(20 * time.Second)
		if n := w.loadCount("2"); n != 2 {
			t.Fatalf("%d loads at once, want 2", n)
		}
		w.pass(5 * time.Minute)
		w.wantLive(1)
		close(w.gate)
		w.pass(time.Minute)
		for i := range 12 {
			if !w.catalog.Available(fmt.Sprintf("slow%d", i)) {
				t.Errorf("slow%d is not live", i)
			}
		}
	})
}

// TestStop: held handles are waited for until the drain timeout, loads are cancelled, and every worker ends.
func TestStop(t *testing.T) {
	base := t.TempDir()
	put(t, filepath.Join(base, "m", "1"), "")
	put(t, filepath.Join(base, "n", "1"), "slow")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, catalog: inference.NewCatalog(), loads: make(map[string]int), gate: make(chan struct{})}
		c, err := New(w.catalog, Options{
			ModelsDir: base, PollOnly: true, Read: readFake, Load: w.load, DrainTimeout: 7 * time.Second,
			Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
				return &fakeServable{w: w, runner: r}
			}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var took time.Duration
		ended := make(chan struct{})
		go func() {
			c.Run(ctx)
			close(ended)
		}()
		if _, err := c.Wait(t.Context(), func(s Status) bool {
			m, _ := s.Model("m")
			n, _ := s.Model("n")
			return len(m.Live) == 1 && len(n.Versions) == 1 && n.Versions[0].State == StateLoading
		}); err != nil {
			t.Fatal(err)
		}
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		cancel()
		<-ended
		if took = time.Since(begun); took != 7*time.Second {
			t.Errorf("stopped after %v", took)
		}
		h.Release()
		if w.open != 0 {
			t.Errorf("%d runners are open", w.open)
		}
		if m, _ := c.Status().Model("m"); len(m.Live) != 0 {
			t.Errorf("status after the end: %+v", m)
		}
		c.Rescan() // nobody is there, and nobody waits
		if err := c.Reconfigure(nil); err != nil {
			t.Error(err)
		}
	})
}

// TestDrain: a retired version's worker lives until its last handle is released.
func TestDrain(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		put(t, w.sub(2), "")
		w.pass(time.Minute)
		w.wantLive(2)
		w.wantPublic("2 AVAILABLE, 1 UNLOADING")
		if _, err := h.Servable().Predict(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		h.Release()
		w.pass(time.Second)
		w.wantPublic("2 AVAILABLE, 1 END")
	})
}

// TestEndsAreBounded: versions that come and go for ever do not fill the memory.
func TestEndsAreBounded(t *testing.T) {
	start(t, nil, func(t *testing.T, w *world) {
		for n := range keptEnds + 10 {
			put(t, w.sub(n+1), "")
			w.pass(4 * time.Second)
			w.wantLive(int64(n + 1))
			if err := os.RemoveAll(w.sub(n)); err != nil {
				t.Fatal(err)
			}
			w.pass(2 * time.Second)
		}
		all, _ := w.catalog.Status("m")
		if len(all) != keptEnds+1 || len(w.model().Versions) != 1 {
			t.Fatalf("%d public states, %d versions", len(all), len(w.model().Versions))
		}
	})
}

// TestSwapUnderLoad: 20 swaps while requests run; none fails, none goes to a closed version, and every old worker ends.
func TestSwapUnderLoad(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		stop := make(chan struct{})
		var group sync.WaitGroup
		seen := make([]map[int64]bool, 4)
		for i := range seen {
			seen[i] = make(map[int64]bool)
			group.Go(func() {
				for last := int64(0); ; {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
					h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
					if err != nil {
						w.fault(err.Error())
						continue
					}
					n := h.Version().Number
					if n < last {
						w.fault(fmt.Sprintf("version %d answered after %d", n, last))
					}
					last, seen[i][n] = n, true
					time.Sleep(5 * time.Millisecond)
					if _, err := h.Servable().Predict(t.Context(), nil); err != nil {
						w.fault(err.Error())
					}
					h.Release()
				}
			})
		}
		for n := 2; n <= 21; n++ {
			put(t, w.sub(n), "")
			w.pass(4 * time.Second)
			w.wantLive(int64(n))
			w.mu.Lock()
			open := w.open
			w.mu.Unlock()
			if open != 1 {
				t.Errorf("%d workers after the swap to %d", open, n)
			}
		}
		close(stop)
		group.Wait()
		for i, s := range seen {
			if len(s) != 21 {
				t.Errorf("caller %d saw versions %v", i, slices.Sorted(maps.Keys(s)))
			}
		}
	})
}

func TestOptions(t *testing.T) {
	full := Options{Read: readFake, Load: (&world{}).load, Serve: func(*inference.Version, inference.Runner, Candidate, Proof) inference.Servable { return nil }}
	if _, err := New(inference.NewCatalog(), full); err != nil {
		t.Fatal(err)
	}
	if _, err := New(inference.NewCatalog(), Options{}); err == nil {
		t.Fatal("functions are missing and nothing is said")
	}
	full.Models = []Model{{Name: "", BasePath: "/x"}, {Name: "a", BasePath: ""}}
	_, err := New(inference.NewCatalog(), full)
	if err == nil || !strings.Contains(err.Error(), "model 1 has no name") || !strings.Contains(err.Error(), "model a has no base path") {
		t.Fatalf("not every fault is told: %v", err)
	}
}

// TestLoadThatOutranItsCancelling: a load that was done just before it was cancelled is not published, and its worker ends.
func TestLoadThatOutranItsCancelling(t *testing.T) {
	w := &world{t: t, catalog: inference.NewCatalog(), loads: make(map[string]int), open: 1}
	c, err := New(w.catalog, Options{Read: readFake, Load: w.load,
		Serve: func(*inference.Version, inference.Runner, Candidate, Proof) inference.Servable { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(c)
	m := l.add(Model{Name: "m", BasePath: t.TempDir()})
	v := &version{number: 1, dir: "1", state: StateWarming, present: true}
	m.versions["1"] = v
	l.loaded(m, v, Candidate{}, "", outcome{runner: &fakeRunner{w: w}}, true)
	if l.jobs != 1 {
		t.Fatalf("%d jobs: the worker's end is not waited for", l.jobs)
	}
	(<-l.events)()
	if w.open != 0 || l.jobs != 0 || w.catalog.Available("m") || v.state != StateSeen {
		t.Fatalf("open %d, jobs %d, state %v", w.open, l.jobs, v.state)
	}
	// tend began a look; let it end.
	close(l.gone)
}

// TestRemovedModelCancelsItsLoad: a model that is no longer configured does not go on loading, begun or queued, and is forgotten.
func TestRemovedModelCancelsItsLoad(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Loaders = 1
		o.ForgetAfter = time.Minute
		put(t, w.sub(1), "slow")
		other := filepath.Join(filepath.Dir(w.dir), "n")
		put(t, filepath.Join(other, "1"), "slow")
		o.Models = append(o.Models, Model{Name: "n", BasePath: other})
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		if n := w.loadCount("1"); n != 1 {
			t.Fatalf("%d loads begun, want 1: the other is queued", n)
		}
		if err := w.c.Reconfigure(nil); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Minute)
		if s := w.c.Status(); len(s.Models) != 0 || len(w.catalog.Models()) != 0 || w.loadCount("1") != 1 {
			t.Fatalf("%+v, %d loads", s.Models, w.loadCount("1"))
		}
	})
}
