// space_test.go: what is tried, in which order, and what of it is kept.
package tuning

import (
	"slices"
	"testing"
)

// walk tries everything, with the verdicts that judge gives.
func walk(t *testing.T, s Space, judge func(c Candidate, best Plan) Verdict) (tried []string, done []Outcome) {
	t.Helper()
	for range 100 {
		c, ok := Next(s, done)
		if !ok {
			return tried, done
		}
		best := Best(s, done)
		tried = append(tried, c.Plan.Step(best))
		v := judge(c, best)
		if c.Skip != "" {
			v = Skipped
		}
		done = append(done, Outcome{Axis: c.Axis, Plan: c.Plan, Against: best, Verdict: v})
	}
	t.Fatal("there is always something more to try")
	return nil, nil
}

func TestNextTriesEveryAxisOnce(t *testing.T) {
	plain := Plan{Callers: 4, IntraOpThreads: 1}
	s := Space{Plain: plain, Axes: Axes(), Cores: 4}
	for _, c := range []struct {
		name   string
		change func(*Space)
		judge  Verdict
		want   []string
		best   Plan
	}{
		{"nothing gains", func(*Space) {}, NoGain,
			[]string{"freeze", "single-threaded executor", "oneDNN on", "1 caller of 4 threads", "2 callers of 2 threads", "pool of 4", "bfloat16"}, plain},
		{"all gains", func(s *Space) { s.Axes = []Axis{Freeze, Executor, BFloat16} }, Used, []string{"freeze", "single-threaded executor", "bfloat16"},
			Plan{Callers: 4, IntraOpThreads: 1, Freeze: true, SingleThreaded: true, BFloat16: true}},
		{"unclear is no gain", func(s *Space) { s.Axes = []Axis{Freeze} }, Unclear, []string{"freeze"}, plain},
		{"other answers are never used", func(s *Space) { s.Axes = []Axis{Freeze} }, Differs, []string{"freeze"}, plain},
		{"what cannot be", func(s *Space) { s.Axes, s.NoFreeze = []Axis{Freeze, Executor}, "it writes" }, Used, []string{"freeze", "single-threaded executor"},
			Plan{Callers: 4, IntraOpThreads: 1, SingleThreaded: true}},
		{"oneDNN is on", func(s *Space) { s.Axes, s.OneDNNIsOn = []Axis{OneDNN}, true }, Used, []string{"oneDNN off"}, Plan{Callers: 4, IntraOpThreads: 1, OneDNN: OneDNNOff}},
		{"nothing may be tried", func(s *Space) { s.Axes = nil }, Used, nil, plain},
		{"one core", func(s *Space) { s.Axes, s.Cores = []Axis{Threads}, 1 }, Used, nil, plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := s
			c.change(&s)
			tried, done := walk(t, s, func(Candidate, Plan) Verdict { return c.judge })
			if !slices.Equal(tried, c.want) {
				t.Errorf("tried %q, want %q", tried, c.want)
			}
			if got := Best(s, done); got != c.best {
				t.Errorf("best is %v, want %v", got, c.best)
			}
		})
	}
}

// What is configured is the same in every plan that is tried, whatever gains.
func TestNextLeavesWhatIsConfigured(t *testing.T) {
	for _, cores := range []int{1, 2, 4, 16} {
		for fixed := range 8 {
			s := Space{Plain: Plan{Callers: 3, IntraOpThreads: 2, InterOpThreads: fixed & 4}, Axes: Axes(), Cores: cores,
				FixedCallers: fixed&1 != 0, FixedIntraOp: fixed&2 != 0, FixedInterOp: fixed&4 != 0}
			for _, v := range []Verdict{Used, NoGain} {
				_, done := walk(t, s, func(Candidate, Plan) Verdict { return v })
				for _, o := range done {
					if s.FixedCallers && o.Plan.Callers != s.Plain.Callers || s.FixedIntraOp && o.Plan.IntraOpThreads != s.Plain.IntraOpThreads ||
						s.FixedInterOp && o.Plan.InterOpThreads != s.Plain.InterOpThreads {
						t.Errorf("%d cores, %+v: %v was tried", cores, s, o.Plan)
					}
					if o.Plan.SingleThreaded && o.Plan.InterOpThreads > 0 && o.Verdict != Skipped {
						t.Errorf("%v: the executor for one thread uses no pool", o.Plan)
					}
				}
			}
		}
	}
}

func TestPlanInWords(t *testing.T) {
	for want, p := range map[string]Plan{
		"2 callers in the calling thread, 1 thread inside an operation":                                       {Callers: 2},
		"1 caller on a pool of 4, 2 threads inside an operation, frozen, bfloat16":                            {Callers: 1, IntraOpThreads: 2, InterOpThreads: 4, Freeze: true, BFloat16: true},
		"2 callers in the calling thread, 1 thread inside an operation, single-threaded executor, oneDNN off": {Callers: 2, IntraOpThreads: 1, SingleThreaded: true, OneDNN: OneDNNOff},
	} {
		if got := p.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if err := p.Check(); err != nil {
			t.Error(err)
		}
	}
	for _, p := range []Plan{{Callers: -1}, {IntraOpThreads: 1 << 20}, {InterOpThreads: -3}, {OneDNN: "maybe"}} {
		if p.Check() == nil {
			t.Errorf("%+v was let pass", p)
		}
	}
}
