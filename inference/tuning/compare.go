// compare.go: two runners measured beside each other.
package tuning

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

// ErrBase wraps an error of the runner that the candidate is held against.
var ErrBase = errors.New("the plan that serves failed")

// pairWindow is how long each side runs in a pair, at the least, for each work.
const pairWindow = 4 * time.Millisecond

// Limits bound a comparison. Zero means default.
type Limits struct {
	Needs  float64       // the gain that decides, see [Needs]
	Budget time.Duration // 1 s; a pair that has begun is ended
	// ByClock compares what the runs take by the clock; otherwise it is the processor's time, which what else the machine does disturbs least, where
	// both runners can tell. For plans that share the processors otherwise, that says nothing.
	ByClock bool
}

// worker is a runner that can tell how much of the processors' time its runs have had, from some moment on.
type worker interface{ CPUTime() (time.Duration, bool) }

func (l Limits) withDefaults() Limits {
	if l.Needs <= 0 {
		l.Needs = leastGain
	}
	if l.Budget <= 0 {
		l.Budget = time.Second
	}
	return l
}

// side is one of the two runners.
type side struct {
	runner inference.Runner
	base   bool
	rates  []sums // by work
	alone  []time.Duration
}

type sums struct {
	rows int64
	took time.Duration
}

// cost is what some runs took.
type cost struct{ clock, cpu time.Duration }

// Compare runs the works on both, in pairs that take turns in who goes first, so that what else the machine does hits both, until the interval
// of the gain says enough or the budget is spent. All slots of each runner are kept busy. An error is the candidate's, or wraps [ErrBase]; what
// was measured until then is returned with it.
func Compare(ctx context.Context, base, candidate inference.Runner, list []Work, l Limits) (Figures, error) {
	l = l.withDefaults()
	began := time.Now()
	a, b := &side{runner: base, base: true, rates: make([]sums, len(list))}, &side{runner: candidate, rates: make([]sums, len(list))}
	runs := make([]int, len(list))
	for i := range list {
		took, err := warm(ctx, a, b, &list[i])
		if err != nil {
			return Figures{}, err
		}
		runs[i] = runsFor(pairWindow, took, max(base.Slots(), candidate.Slots()))
	}
	var by ratios
	by.cpu = !l.ByClock && tells(base) && tells(candidate)
	var err error
	longest := time.Duration(0)
	for len(by.clocks) < mostPairs && !settled(l.Needs, by.list()) {
		if left := l.Budget - time.Since(began); left < longest && len(by.clocks) > 0 {
			break
		}
		start := time.Now()
		if err = by.pair(ctx, a, b, list, runs); err != nil {
			break
		}
		longest = max(longest, time.Since(start))
	}
	return by.figures(a, b, list), err
}

func tells(r inference.Runner) bool {
	w, ok := r.(worker)
	if !ok {
		return false
	}
	_, ok = w.CPUTime()
	return ok
}

// ratios are how many times as fast the candidate was, by pair.
type ratios struct {
	clocks, cpus []float64
	cpu          bool // decides
}

func (r *ratios) list() []float64 {
	if r.cpu {
		return r.cpus
	}
	return r.clocks
}

// pair adds the geometric means over the works. The sides take turns in who goes first.
func (r *ratios) pair(ctx context.Context, a, b *side, list []Work, runs []int) error {
	clock, cpu := 0.0, 0.0
	for i := range list {
		first, second := a, b
		if (len(r.clocks)+i)%2 == 1 {
			first, second = b, a
		}
		one, err := first.measure(ctx, list, i, runs[i])
		if err != nil {
			return err
		}
		two, err := second.measure(ctx, list, i, runs[i])
		if err != nil {
			return err
		}
		if first == b {
			one, two = two, one
		}
		clock += math.Log(float64(one.clock) / float64(two.clock))
		cpu += math.Log(float64(max(one.cpu, 1)) / float64(max(two.cpu, 1)))
	}
	r.clocks = append(r.clocks, math.Exp(clock/float64(len(list))))
	r.cpus = append(r.cpus, math.Exp(cpu/float64(len(list))))
	return nil
}

// warm makes the first runs of both, which pay for what later ones find done, on every caller, and returns what one takes.
func warm(ctx context.Context, a, b *side, w *Work) (took time.Duration, err error) {
	for _, s := range []*side{a, b} {
		if _, err := s.burst(ctx, w, s.runner.Slots()); err != nil {
			return 0, err
		}
		one, err := s.burst(ctx, w, 1)
		if err != nil {
			return 0, err
		}
		took = max(took, one)
	}
	return took, nil
}

// runsFor is how many runs make a window.
func runsFor(window, took time.Duration, slots int) int {
	callers := max(1, slots/2)
	n := int(float64(window) * float64(callers) / float64(max(took, time.Microsecond)))
	if took > 4*window {
		return callers // a long run needs no company to be measured well
	}
	return min(max(n, slots), 4096)
}

func (s *side) measure(ctx context.Context, list []Work, i, runs int) (c cost, err error) {
	if i == 0 {
		one, err := s.burst(ctx, &list[0], 1)
		if err != nil {
			return c, err
		}
		s.alone = append(s.alone, one)
	}
	w, _ := s.runner.(worker)
	var before time.Duration
	if w != nil {
		before, _ = w.CPUTime()
	}
	c.clock, err = s.burst(ctx, &list[i], runs)
	if w != nil {
		after, _ := w.CPUTime()
		c.cpu = after - before
	}
	s.rates[i].rows += int64(runs) * max(1, list[i].Rows)
	s.rates[i].took += c.clock
	return c, err
}

// burst makes so many runs, as many at once as the runner has slots.
func (s *side) burst(ctx context.Context, w *Work, runs int) (time.Duration, error) {
	var left atomic.Int64
	left.Store(int64(runs))
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	began := time.Now()
	for range min(runs, s.runner.Slots()) {
		wg.Go(func() {
			run := w.run()
			for left.Add(-1) >= 0 {
				res, err := s.runner.Run(ctx, run)
				if err != nil {
					failed.CompareAndSwap(nil, &err)
					return
				}
				res.Release()
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil && s.base {
		return 0, fmt.Errorf("%w: %w", ErrBase, *err)
	} else if err != nil {
		return 0, *err
	}
	return max(time.Since(began), time.Nanosecond), nil
}

func (r *ratios) figures(a, b *side, list []Work) Figures {
	f := Figures{Pairs: len(r.clocks), ByClock: !r.cpu, Rates: make(map[int64]float64), Base: make(map[int64]float64), Alone: median(b.alone), BaseAlone: median(a.alone)}
	f.Low, f.Gain, f.High = Interval(r.list())
	_, f.Clock, f.ClockHigh = Interval(r.clocks)
	for _, x := range []*float64{&f.High, &f.ClockHigh} {
		if math.IsInf(*x, 0) {
			*x = 0 // nothing is known, and JSON has no infinity
		}
	}
	for i := range list {
		for _, s := range []struct {
			*side
			into map[int64]float64
		}{{a, f.Base}, {b, f.Rates}} {
			if sum := s.rates[i]; sum.took > 0 {
				s.into[max(1, list[i].Rows)] = float64(sum.rows) / sum.took.Seconds()
			}
		}
	}
	return f
}

func median(list []time.Duration) time.Duration {
	if len(list) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(list))[len(list)/2]
}
