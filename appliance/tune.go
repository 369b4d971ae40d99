// tune.go: before a version serves for the first time it is measured how TensorFlow is best called for it; afterwards that is remembered.
package appliance

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tuning"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// envOneDNN decides about oneDNN for the life of a process: the library reads it when it is opened, so that a worker forked from the zygote has
// the zygote's (tried: set before the first session of a process that has the library open, it changes nothing).
const envOneDNN = "TF_ENABLE_ONEDNN_OPTS"

// tuner has what is remembered, and how the versions that are loaded are run. A nil tuner measures nothing.
type tuner struct {
	plans *plans
	log   *slog.Logger
	cpu   processor
	turn  chan struct{} // cap 1: full while a version is measured, for two at once would measure each other

	ways sync.Map // inference.Runner to *way: of what is loaded
}

func newTuner(stateDir string, log *slog.Logger) *tuner {
	t := &tuner{log: log.With("component", "tuning"), cpu: thisProcessor(), turn: make(chan struct{}, 1)}
	if stateDir != "" {
		t.plans = newPlans(stateDir, log)
	}
	return t
}

// way is how a version is loaded and run. It is immutable.
type way struct {
	plan   tuning.Plan
	plain  bool          // as saved and configured
	key    string        // "": it is not measured
	record *tuned        // what is known of it; nil before it was measured
	beside *worker.Model // that it is to be measured against, at the same priority; nil: none
}

type againKey struct{}

// again has the loads with the context measured, whatever is remembered.
func again(ctx context.Context) context.Context { return context.WithValue(ctx, againKey{}, true) }

func isAgain(ctx context.Context) bool { yes, _ := ctx.Value(againKey{}).(bool); return yes }

// plainPlan is the model as it was saved and configured.
func plainPlan(m config.Model) tuning.Plan {
	p := tuning.Plan{Callers: m.Callers, IntraOpThreads: max(1, m.IntraOpThreads), InterOpThreads: m.InterOpThreads}
	if p.Callers == 0 {
		p.Callers = runtime.GOMAXPROCS(0)
	}
	return p
}

// planFor is how the candidate is loaded: as it is remembered, else plainly.
func (l *loader) planFor(ctx context.Context, c updater.Candidate, m config.Model) *way {
	s := &way{plan: plainPlan(m), plain: true}
	t := l.tuner
	if t == nil || m.Optimize.List() == nil || l.gpus.known() == config.IsolationNone {
		return s
	}
	key, err := planKey(c.Dir, t.cpu, l.using(ctx).library, l.gpus.known(), m)
	if err != nil {
		t.log.Warn("version is not measured", "model", c.Model.Name, "version", c.Number, "err", err)
		return s
	}
	s.key = key
	if r := t.plans.find(key); r != nil && !isAgain(ctx) {
		if r.Plain == s.plan && r.decided() {
			s.record, s.plan, s.plain = r, r.Plan, r.Plan == r.Plain
		}
	}
	return s
}

// plainly is planFor for one that is not to be loaded as it is remembered.
func (s *way) plainly(m config.Model) *way { return &way{plan: plainPlan(m), plain: true, key: s.key} }

// gently is whether it is loaded at low priority, where that would be so for the candidate.
func (s *way) gently(would bool) bool {
	if s.beside != nil {
		return s.beside.Low()
	}
	return would
}

// apply has the load follow the plan.
func apply(p tuning.Plan, load *worker.Load, opts *worker.Options) {
	load.Callers, load.IntraOpThreads, load.InterOpThreads = p.Callers, p.IntraOpThreads, p.InterOpThreads
	load.Freeze, load.SingleThreaded, load.BFloat16 = p.Freeze, p.SingleThreaded, p.BFloat16
	switch p.OneDNN {
	case tuning.OneDNNOn:
		opts.Env = []string{envOneDNN + "=1"}
	case tuning.OneDNNOff:
		opts.Env = []string{envOneDNN + "=0"}
	}
}

// runs notes how the runner is run.
func (t *tuner) runs(r inference.Runner, w *way) {
	if _, process := r.(*worker.Model); t != nil && process {
		t.ways.Store(r, w)
	}
}

// wayOf is how the runner is run; nil when it is not known.
func (t *tuner) wayOf(r inference.Runner) *way {
	if t == nil {
		return nil
	}
	v, _ := t.ways.Load(r)
	w, _ := v.(*way)
	return w
}

func (t *tuner) forget(m *worker.Model) {
	if t != nil && m != nil {
		t.ways.Delete(inference.Runner(m))
	}
}

// failed is asked when the runs of a loaded version have failed.
func (l *loader) failed(c updater.Candidate, r inference.Runner, err error) bool {
	w := l.tuner.wayOf(r)
	return w != nil && l.plainer(c, w, err)
}

// plainer reports whether a version that failed was loaded by a remembered plan, which is forgotten then: it is loaded plainly next.
func (l *loader) plainer(c updater.Candidate, s *way, err error) bool {
	if s.plain || s.key == "" {
		return false
	}
	l.tuner.plans.drop(s.key)
	l.tuner.log.Warn("version failed as it was measured to run best: it is loaded as it was saved, and that is forgotten",
		"model", c.Model.Name, "version", c.Number, "reason", s.plan.String(), "err", err)
	return true
}

// tune measures a proven version and returns the runner that is to serve it.
func (l *loader) tune(ctx context.Context, p updater.Proven, say func(string)) (inference.Runner, updater.Proof) {
	w := l.tuner.wayOf(p.Runner)
	if w == nil || w.key == "" || w.record != nil {
		return p.Runner, p.Proof
	}
	select {
	case l.tuner.turn <- struct{}{}:
		defer func() { <-l.tuner.turn }()
	case <-ctx.Done():
		return p.Runner, p.Proof
	}
	s := &fitting{loader: l, p: p, m: settings(p.Candidate), way: w, say: say, began: time.Now()}
	times := tuneTimes
	if p.Candidate.First {
		times = tuneFirst
	}
	s.budget = min(max(time.Duration(times)*p.Took, tuneLeast), tuneMost)
	r, proof := s.run(ctx)
	if ctx.Err() != nil {
		return r, proof
	}
	rec := s.record(ctx)
	if before := l.tuner.plans.find(w.key); rec.Tries > 0 && before != nil {
		rec.Tries += before.Tries
	}
	l.tuner.plans.put(rec)
	l.tuner.ways.Store(r, &way{plan: rec.Plan, plain: rec.Plan == rec.Plain, key: w.key, record: rec})
	l.tuner.log.Info("version was measured", "model", rec.Model, "version", rec.Version, "took", rec.Took.Round(time.Millisecond), "reason", rec.Plan.String())
	return r, proof
}
