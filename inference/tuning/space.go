// space.go: what may be tried for a version, and what is tried next.
package tuning

import "slices"

// Axis is one thing that a plan may do another way, by the name that the configuration has for it.
type Axis string

// The axes, in the order in which they are tried: what has gained most goes first, for the time may not suffice for all.
const (
	Freeze   Axis = "freeze"
	Executor Axis = "executor"
	OneDNN   Axis = "onednn"
	Threads  Axis = "threads"
	BFloat16 Axis = "bfloat16"
)

// Axes are all of them.
func Axes() []Axis { return []Axis{Freeze, Executor, OneDNN, Threads, BFloat16} }

// Space is what may be tried.
type Space struct {
	Plain Plan
	Axes  []Axis
	Cores int
	// Fixed are numbers that were configured, and stay.
	FixedCallers, FixedIntraOp, FixedInterOp bool
	// NoFreeze, NoBFloat16 and NoOneDNN say why these cannot be tried; empty: they can.
	NoFreeze, NoBFloat16, NoOneDNN string
	OneDNNIsOn                     bool // by itself, on this CPU
}

// Verdict is what became of a candidate.
type Verdict string

// The verdicts.
const (
	Used    Verdict = "used"    // clearly better: what follows is held against it
	NoGain  Verdict = "no gain" // clearly not better enough
	Unclear Verdict = "unclear" // the measurements differ too much to say
	Differs Verdict = "differs" // its answers are not those of the plain plan
	Failed  Verdict = "failed"  // it could not be loaded or run
	Skipped Verdict = "skipped" // it was not tried
)

// Outcome is one candidate and what became of it.
type Outcome struct {
	Axis    Axis    `json:"axis,omitempty"`
	Plan    Plan    `json:"plan"`
	Against Plan    `json:"against"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason,omitempty"`
	Figures Figures `json:"figures,omitzero"`
}

// Best is the plan that the outcomes have come to.
func Best(s Space, done []Outcome) Plan {
	best := s.Plain
	for _, o := range done {
		if o.Verdict == Used {
			best = o.Plan
		}
	}
	return best
}

// Candidate is a plan to try. With Skip it is not, and that is why.
type Candidate struct {
	Axis Axis
	Plan Plan
	Skip string
}

// Next is what is to be tried after these outcomes, held against [Best]; false: nothing is left. Each axis's plans are tried once, on top of what
// was found good before.
func Next(s Space, done []Outcome) (Candidate, bool) {
	best := Best(s, done)
	for _, axis := range Axes() {
		if !slices.Contains(s.Axes, axis) {
			continue
		}
		tried := 0
		for _, o := range done {
			if o.Axis == axis {
				tried++
			}
		}
		if list := s.along(axis, best); tried < len(list) {
			return list[tried], true
		}
	}
	return Candidate{}, false
}

// along has the plans of one axis in their order. The numbers of an axis's plans must not change with the outcomes.
func (s Space) along(axis Axis, best Plan) []Candidate {
	with := func(skip string, change func(*Plan)) []Candidate {
		p := best
		change(&p)
		return []Candidate{{Axis: axis, Plan: p, Skip: skip}}
	}
	switch axis {
	case Freeze:
		return with(s.NoFreeze, func(p *Plan) { p.Freeze = true })
	case Executor:
		skip := ""
		if best.InterOpThreads > 0 {
			skip = "the graph runs on a pool, which was configured"
		}
		return with(skip, func(p *Plan) { p.SingleThreaded = true })
	case OneDNN:
		return with(s.NoOneDNN, func(p *Plan) {
			if p.OneDNN = OneDNNOn; s.OneDNNIsOn {
				p.OneDNN = OneDNNOff
			}
		})
	case BFloat16:
		return with(s.NoBFloat16, func(p *Plan) { p.BFloat16 = true })
	case Threads:
		return s.threads(best)
	}
	return nil
}

// threads are the ways to share the cores between callers and the threads of an operation, and TensorFlow's own pool.
func (s Space) threads(best Plan) (list []Candidate) {
	add := func(callers, intra, inter int) {
		p := best
		p.Callers, p.IntraOpThreads, p.InterOpThreads = callers, intra, inter
		if inter > 0 {
			p.SingleThreaded = false // it would not use the pool
		}
		switch {
		case s.FixedCallers && callers != s.Plain.Callers, s.FixedIntraOp && max(1, intra) != max(1, s.Plain.IntraOpThreads), s.FixedInterOp && inter != s.Plain.InterOpThreads:
			return
		case callers == s.Plain.Callers && max(1, intra) == max(1, s.Plain.IntraOpThreads) && inter == s.Plain.InterOpThreads:
			return
		}
		list = append(list, Candidate{Axis: Threads, Plan: p})
	}
	if s.Cores < 2 {
		return nil
	}
	add(1, s.Cores, 0)
	if s.Cores >= 4 {
		add(s.Cores/2, 2, 0)
	}
	add(s.Cores, 1, s.Cores)
	return list
}
