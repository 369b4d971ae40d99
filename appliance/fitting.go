// fitting.go: one version being measured: what is tried beside it, and what it is then served with.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tuning"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// What measuring a version may take: so many times as long as to load and prove it took, within bounds.
const (
	tuneTimes = 3
	tuneFirst = 1 // where nothing of the model serves meanwhile
	tuneLeast = time.Second
	tuneMost  = 20 * time.Second
	// tuneEach is what of the time that is left one candidate may take to be compared, once it is loaded.
	tuneEach = 3
)

// fitting is one version being measured.
type fitting struct {
	*loader
	p      updater.Proven
	m      config.Model
	way    *way
	say    func(string)
	began  time.Time
	budget time.Duration

	space  tuning.Space
	done   []tuning.Outcome
	reason string
	short  bool // something was left out for want of time or memory, and may be had another time

	works []tuning.Work // whose answers are held against each other
	want  [][]*tensor.Tensor
	speed []tuning.Work // that are timed
}

func (s *fitting) left() time.Duration { return s.budget - time.Since(s.began) }

func (s *fitting) record(ctx context.Context) *tuned {
	r := &tuned{
		Key: s.way.key, Model: s.p.Candidate.Model.Name, Version: s.p.Candidate.Number, At: time.Now().Round(time.Second), Took: time.Since(s.began),
		CPU: s.tuner.cpu.String(), Plain: s.space.Plain, Plan: tuning.Best(s.space, s.done), Tried: s.done, Reason: s.reason,
	}
	r.Runtime = runtimeName(s.using(ctx).library)
	if s.short || slices.ContainsFunc(s.done, func(o tuning.Outcome) bool { return o.Verdict == tuning.Unclear }) {
		r.Tries = 1
	}
	return r
}

// run tries what there is to try, and returns the runner to serve with, proven.
func (s *fitting) run(ctx context.Context) (inference.Runner, updater.Proof) {
	plain := s.p.Runner
	s.space = s.whatToTry()
	if err := s.prepare(ctx); err != nil {
		s.reason = err.Error()
		return plain, s.p.Proof
	}
	best := plain
	defer func() {
		if m, ok := best.(*worker.Model); ok {
			m.StopTiming(ctx)
		}
	}()
	for ctx.Err() == nil {
		c, ok := tuning.Next(s.space, s.done)
		if !ok {
			break
		}
		o := tuning.Outcome{Axis: c.Axis, Plan: c.Plan, Against: tuning.Best(s.space, s.done), Verdict: tuning.Skipped, Reason: c.Skip}
		if o.Reason == "" && s.left() < s.budget/10 {
			o.Reason, s.short = fmt.Sprintf("the time for measuring, %v, was used up", s.budget.Round(100*time.Millisecond)), true
		}
		if o.Reason != "" {
			s.done = append(s.done, o)
			continue
		}
		s.say(fmt.Sprintf("it is measured how it is best run: %s", c.Plan.Step(o.Against)))
		r, err := s.try(ctx, best, &o)
		s.done = append(s.done, o)
		if err != nil { // the plan that it was held against is no more
			s.reason, s.short = err.Error(), true
			break
		}
		if r != nil {
			if best != plain {
				s.close(best)
			}
			best = r
		}
	}
	if best == plain {
		return plain, s.p.Proof
	}
	s.say("it is proven as it will be run")
	proof, err := updater.Prove(ctx, best, s.p.Candidate, s.probe, decodeCases())
	if err != nil {
		s.close(best)
		best = plain
		s.giveUp("what was measured to be best failed when it was proven: " + updater.Message(err))
		return plain, s.p.Proof
	}
	s.close(plain)
	return best, proof
}

// giveUp goes back to the plain plan.
func (s *fitting) giveUp(why string) {
	s.reason = why
	for i := range s.done {
		if s.done[i].Verdict == tuning.Used {
			s.done[i].Verdict, s.done[i].Reason = tuning.Failed, why
		}
	}
}

func (s *fitting) close(r inference.Runner) {
	if err := r.Close(); err != nil {
		s.tuner.log.Warn("worker did not end cleanly", "model", s.p.Candidate.Model.Name, "version", s.p.Candidate.Number, "err", err)
	}
}

// whatToTry is the space of plans for this version.
func (s *fitting) whatToTry() tuning.Space {
	cpu := s.tuner.cpu
	sp := tuning.Space{
		Plain: plainPlan(s.m), Cores: cpu.cores, FixedCallers: s.m.Callers > 0, FixedIntraOp: s.m.IntraOpThreads > 0, FixedInterOp: s.m.InterOpThreads > 0,
		OneDNNIsOn: cpu.has("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
	}
	for _, name := range s.m.Optimize.List() {
		sp.Axes = append(sp.Axes, tuning.Axis(name))
	}
	if m, ok := s.p.Runner.(*worker.Model); ok && (m.Shared() || m.Device() != "") {
		// A process that others share, and kernels that run elsewhere: threads and executors are not this version's.
		sp.Axes = slices.DeleteFunc(sp.Axes, func(a tuning.Axis) bool { return a != tuning.Freeze })
	}
	golden := 0
	for key, proof := range s.p.Proof.Signatures {
		golden += proof.Golden
		if s.p.Candidate.Info.Signatures[key].Writes {
			sp.NoFreeze = fmt.Sprintf("signature %q writes variables", key)
		}
	}
	switch set, is := os.LookupEnv(envOneDNN); {
	case is:
		sp.NoOneDNN = fmt.Sprintf("%s=%s is set in inferd's environment", envOneDNN, set)
	case runtime.GOARCH != "amd64":
		sp.NoOneDNN = "it is tried on x86-64 alone"
	}
	switch {
	case !cpu.has("avx512_bf16", "amx_bf16"):
		sp.NoBFloat16 = "this CPU has no instructions for it"
	case golden == 0:
		sp.NoBFloat16 = "there are no golden cases that say by how much the answers may differ"
	}
	return sp
}

// prepare finds requests that the version answers, the same each time, and what it answers.
func (s *fitting) prepare(ctx context.Context) error {
	r := s.p.Runner
	var timed *updater.Sample
	for _, sample := range updater.Samples(s.p.Candidate, decodeCases(), s.probe) {
		w := tuning.Work{Signature: sample.Request.Signature, Inputs: sample.Request.Inputs, Outputs: sample.Request.Outputs, Rows: sample.Rows}
		first, err := tuning.Answers(ctx, r, []tuning.Work{w})
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue // made-up inputs may be no good; what else there is has been run before
		}
		second, err := tuning.Answers(ctx, r, []tuning.Work{w})
		if err != nil {
			return err
		}
		if what := tuning.Unlike([]tuning.Work{w}, first, second); what != "" {
			return fmt.Errorf("it is run as it was saved: signature %q answers the same request with other numbers each time (%s), so that nothing can be held against it", w.Signature.Key, what)
		}
		s.works, s.want = append(s.works, w), append(s.want, first...)
		if timed == nil {
			timed = &sample
		}
	}
	if timed == nil {
		return errors.New("it is run as it was saved: no request is known that it answers and that writes nothing")
	}
	s.speed = worksOf(*timed, s.p.Proof.Signatures[timed.Request.Signature.Key], s.m.Batching)
	return nil
}

const (
	timedRows  = 8                      // of the larger run that is timed, where that was proven
	timedTakes = 100 * time.Millisecond // at most, else it is not timed
)

// worksOf are the runs that are timed: the sample alone, and joined with itself as requests are joined.
func worksOf(sample updater.Sample, proof updater.SignatureProof, b config.Batching) []tuning.Work {
	one := tuning.Work{Signature: sample.Request.Signature, Inputs: sample.Request.Inputs, Outputs: sample.Request.Outputs, Rows: max(1, sample.Rows)}
	list := []tuning.Work{one}
	if !b.Enabled || sample.Rows == 0 {
		return list
	}
	most := proof.Largest
	if b.MaxBatchSize > 0 {
		most = min(most, b.MaxBatchSize)
	}
	for _, n := range slices.Backward(slices.Sorted(maps.Keys(proof.Times))) {
		times := n / sample.Rows
		if n > min(timedRows, most) || times < 2 || proof.Times[n] > timedTakes {
			continue
		}
		more := one
		more.Times, more.Rows = int(times), times*sample.Rows
		return append(list, more)
	}
	return list
}

// try loads a candidate and measures it beside best. It returns the candidate's runner when that is used. The error says that best has failed.
func (s *fitting) try(ctx context.Context, best inference.Runner, o *tuning.Outcome) (inference.Runner, error) {
	c := s.p.Candidate
	account, err := s.memory.spare(c, s.p.Proof, o.Plan)
	if err != nil {
		o.Verdict, o.Reason, s.short = tuning.Skipped, "there is no memory for another worker: "+updater.Message(err), true
		return nil, nil
	}
	loading, cancel := context.WithTimeout(ctx, s.budget) // by itself as long as all of it: it was asked for in time
	defer cancel()
	beside, _ := s.p.Runner.(*worker.Model)
	r, err := s.loadAs(loading, c, s.m, account, &way{plan: o.Plan, key: s.way.key, beside: beside})
	switch {
	case err != nil && loading.Err() != nil:
		o.Verdict, o.Reason, s.short = tuning.Skipped, fmt.Sprintf("it was not loaded within %v", s.budget.Round(100*time.Millisecond)), true
		return nil, nil
	case err != nil:
		o.Verdict, o.Reason = tuning.Failed, updater.Message(err)
		return nil, nil
	}
	if err = s.judge(ctx, best, r, o); o.Verdict == tuning.Used && err == nil {
		return r, nil
	}
	s.close(r)
	return nil, err
}

// judge holds a loaded candidate's answers and speed against the best so far.
func (s *fitting) judge(ctx context.Context, best, r inference.Runner, o *tuning.Outcome) error {
	o.Verdict = tuning.Failed
	if m, ok := r.(*worker.Model); ok && o.Plan.Freeze {
		if frozen, why := m.Frozen(); !frozen {
			o.Reason = "it could not be frozen: " + why
			return nil
		}
	}
	got, err := tuning.Answers(ctx, r, s.works)
	if err != nil {
		o.Reason = updater.Message(err)
		return nil
	}
	if o.Plan.BFloat16 {
		if _, err := updater.HoldGolden(ctx, r, s.p.Candidate, decodeCases()); err != nil {
			o.Verdict, o.Reason = tuning.Differs, updater.Message(err)
			return nil
		}
	} else if what := tuning.Unlike(s.works, s.want, got); what != "" {
		o.Verdict, o.Reason = tuning.Differs, what
		return nil
	}
	o.Figures, err = tuning.Compare(ctx, s.timed(ctx, best, o.Against), s.timed(ctx, r, o.Plan), s.speed, tuning.Limits{
		ByClock: o.Axis == tuning.Threads, Needs: tuning.Needs(o.Plan, o.Against), Budget: max(s.left()/tuneEach, s.budget/20),
	})
	switch {
	case errors.Is(err, tuning.ErrBase):
		o.Verdict, o.Reason = tuning.Skipped, updater.Message(err)
		return err
	case err != nil:
		o.Reason = updater.Message(err)
		return nil
	}
	o.Verdict, o.Reason = tuning.Decide(o.Plan, o.Against, o.Figures)
	return nil
}

// timed is the runner with no more runs in flight than the batcher will have, and the clock that suits its plan.
func (s *fitting) timed(ctx context.Context, r inference.Runner, p tuning.Plan) inference.Runner {
	t := timed{Runner: r, slots: r.Slots(), time: func() (time.Duration, bool) { return 0, false }}
	if n := s.m.Batching.NumBatchThreads; n > 0 {
		t.slots = min(t.slots, n)
	}
	if m, ok := r.(*worker.Model); ok {
		if t.time = m.CPUTime; p.InterOpThreads == 0 && p.IntraOpThreads <= 1 { // all of a run is in the caller's thread
			t.time = func() (time.Duration, bool) { return m.RunTime(ctx), true }
		}
	}
	return t
}

type timed struct {
	inference.Runner
	slots int
	time  func() (time.Duration, bool)
}

func (t timed) Slots() int                     { return t.slots }
func (t timed) CPUTime() (time.Duration, bool) { return t.time() }
