// e2e_tune_test.go: a version is measured before it serves, and how it is run best is remembered.
package appliance

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tuning"
)

func tuneable(t *testing.T, change func(*config.Config)) *config.Config {
	lib := library(t)
	return testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library, cfg.Defaults.Optimize = lib, config.OptimizeAuto
		if change != nil {
			change(cfg)
		}
	})
}

// tunedOnce is the one live version of the model, as it was measured.
func (s *server) tunedOnce(model string) control.Tuned {
	s.t.Helper()
	list, err := s.Tuned(model)
	if err != nil || len(list) != 1 {
		s.t.Fatalf("%+v, %v", list, err)
	}
	for _, o := range list[0].Tried {
		s.t.Logf("%-30s %-8s %s %+v", o.Plan.Step(o.Against), o.Verdict, o.Reason, o.Figures)
	}
	s.t.Logf("%s; %d us; %s", list[0].Text, list[0].TookMicros, list[0].Reason)
	return list[0]
}

// A version is measured before it serves: every way that may be tried has an outcome, and whatever is chosen answers as the model does. What is
// chosen depends on the machine. A restart goes on with what is remembered.
func TestTune(t *testing.T) {
	cfg := tuneable(t, func(cfg *config.Config) { cfg.Defaults.IntraOpThreads = 1 })
	first := run(t, cfg)
	first.publish("m", 1, modeltest.Affine(2, 1))
	first.live("m", 1)
	measured := first.tunedOnce("m")
	if measured.Measured.IsZero() || measured.Reason != "" {
		t.Fatalf("%+v", measured)
	}
	axes := make(map[tuning.Axis]int)
	for _, o := range measured.Tried {
		axes[o.Axis]++
		if o.Plan.IntraOpThreads != 1 {
			t.Errorf("%v was tried, though intra_op_threads is configured", o.Plan)
		}
		if o.Verdict == tuning.Failed || o.Verdict == tuning.Differs {
			t.Errorf("%v: %s", o.Plan, o.Reason)
		}
	}
	for _, axis := range tuning.Axes() {
		if axes[axis] == 0 {
			t.Errorf("nothing was tried along %s", axis)
		}
	}
	first.ask("m", []float32{1, 2}, []float32{3, 5})
	if n := len(children(os.Getpid())); n != 2 {
		t.Errorf("%d processes are left, want the zygote and one worker", n)
	}
	text, err := first.Retune(t.Context(), "m", "a test")
	if err != nil || !strings.Contains(text, "measured again") {
		t.Fatal(text, err)
	}
	again := first.tunedOnce("m")
	first.ask("m", []float32{1, 2}, []float32{3, 5})
	if _, err := first.Retune(t.Context(), "nobody", "a test"); inference.AsError(err).Code != inference.NotFound {
		t.Error(err)
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	forEachPlan(t, cfg, func(r *tuned) { r.Tries = 0 }) // as on a machine where nothing else runs
	second := run(t, cfg)
	second.live("m", 1)
	if after := second.tunedOnce("m"); !after.Measured.Equal(again.Measured) || after.Plan != again.Plan {
		t.Fatalf("after a restart %+v; before it %+v", after, again)
	}
	second.ask("m", []float32{1, 2}, []float32{3, 5})
}

// forEachPlan changes what an appliance with the configuration remembers, while none runs.
func forEachPlan(t *testing.T, cfg *config.Config, change func(*tuned)) {
	t.Helper()
	p := newPlans(cfg.StateDir, slog.New(slog.DiscardHandler))
	p.find("")
	if len(p.all) == 0 {
		t.Fatal("nothing is remembered")
	}
	for _, r := range p.all {
		change(r)
		p.put(r)
	}
}

// What is remembered is how a version is run after a restart; a plan that fails is forgotten, and the version serves as it was saved.
func TestRememberedPlan(t *testing.T) {
	cfg := tuneable(t, func(cfg *config.Config) { cfg.Defaults.Optimize = "threads" })
	first := run(t, cfg)
	first.publish("m", 1, modeltest.Affine(2, 1))
	first.live("m", 1)
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	forEachPlan(t, cfg, func(r *tuned) {
		r.Tries = 0
		r.Plan = r.Plain
		r.Plan.Callers, r.Plan.SingleThreaded, r.Plan.OneDNN = 3, true, tuning.OneDNNOff
	})
	second := run(t, cfg)
	second.live("m", 1)
	got := second.tunedOnce("m")
	st := second.Status()
	w := version(&st, "m", 1).Worker
	if got.Plan.Callers != 3 || w == nil || !strings.Contains(w.Plan, "3 callers") || !strings.Contains(w.Plan, "oneDNN off") {
		t.Fatalf("%+v, %+v", got, w)
	}
	second.ask("m", []float32{1, 2}, []float32{3, 5})
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", w.PID))
	if err != nil || !strings.Contains(string(env), "TF_ENABLE_ONEDNN_OPTS=0") {
		t.Errorf("the worker's environment is %q, %v", env, err)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}

	forEachPlan(t, cfg, func(r *tuned) { r.Plan.OneDNN = "broken" })
	third := run(t, cfg) // the file is refused as a whole
	third.live("m", 1)
	third.logs.wait(t, "measured plans are not read")
	third.ask("m", []float32{1, 2}, []float32{3, 5})
}

// Isolation none has one set of threads for all models, so nothing is measured there.
func TestTuneIsolationNone(t *testing.T) {
	s := run(t, tuneable(t, func(cfg *config.Config) { cfg.Runtime.Isolation = config.IsolationNone }))
	s.publish("m", 1, modeltest.Affine(2, 1))
	s.live("m", 1)
	if got := s.tunedOnce("m"); !got.Measured.IsZero() || got.Reason == "" {
		t.Errorf("%+v", got)
	}
	s.ask("m", []float32{1, 2}, []float32{3, 5})
}
