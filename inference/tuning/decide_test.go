// decide_test.go: what pairs of measurements say.
package tuning

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestInterval(t *testing.T) {
	for _, c := range []struct {
		name           string
		ratios         []float64
		low, mid, high float64
	}{
		{"none", nil, 0, 0, math.Inf(1)},
		{"too few", []float64{2, 2, 2, 2, 2}, 0, 2, math.Inf(1)},
		{"six: the lowest and the highest", []float64{1.5, 1.1, 1.3, 1.2, 1.6, 1.4}, 1.1, 1.35, 1.6},
		{"nine: one on each side is left out", []float64{9, 1, 1.1, 1.1, 1.2, 1.2, 1.3, 1.3, 0.1}, 1, 1.2, 1.3},
	} {
		t.Run(c.name, func(t *testing.T) {
			low, mid, high := Interval(c.ratios)
			if low != c.low || math.Abs(mid-c.mid) > 1e-12 || high != c.high {
				t.Errorf("%v %v %v, want %v %v %v", low, mid, high, c.low, c.mid, c.high)
			}
		})
	}
}

// The interval holds the median in 95 of 100 cases, however the ratios are spread.
func TestIntervalHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{6, 9, 12, 20} {
		missed := 0
		const tries = 4000
		for range tries {
			ratios := make([]float64, n)
			for i := range ratios {
				ratios[i] = math.Exp(r.NormFloat64() * r.Float64()) // the median is 1
			}
			if low, _, high := Interval(ratios); low > 1 || high < 1 {
				missed++
			}
		}
		if missed > tries*6/100 {
			t.Errorf("of %d pairs the interval missed in %d of %d", n, missed, tries)
		}
	}
}

func TestDecide(t *testing.T) {
	plain := Plan{Callers: 2, IntraOpThreads: 1}
	frozen, other, half := plain, plain, plain
	frozen.Freeze, other.OneDNN, half.BFloat16 = true, OneDNNOff, true
	ms := time.Millisecond
	for _, c := range []struct {
		name string
		plan Plan
		f    Figures
		want Verdict
	}{
		{"clear", frozen, Figures{Pairs: 6, Gain: 1.4, Low: 1.3, High: 1.5, ClockHigh: 1.5}, Used},
		{"clear and wide", frozen, Figures{Pairs: 6, Gain: 2, Low: 1.01, High: 5, ClockHigh: 5}, Used},
		{"not above one", frozen, Figures{Pairs: 8, Gain: 1.2, Low: 0.99, High: 1.5, ClockHigh: 1.5}, Unclear},
		{"not above one after all pairs", frozen, Figures{Pairs: 20, Gain: 1.2, Low: 0.99, High: 1.5, ClockHigh: 1.5}, NoGain},
		{"not above one and narrow", frozen, Figures{Pairs: 8, Gain: 1.03, Low: 0.99, High: 1.05, ClockHigh: 1.5}, NoGain},
		{"too small", frozen, Figures{Pairs: 6, Gain: 1.01, Low: 1.005, High: 1.02, ClockHigh: 1.5}, NoGain},
		{"slower", frozen, Figures{Pairs: 6, Gain: 0.7, Low: 0.6, High: 0.9, ClockHigh: 0.9}, NoGain},
		{"too few", frozen, Figures{Pairs: 5, Gain: 3}, Unclear},
		{"less of the processor and longer by the clock", frozen, Figures{Pairs: 6, Gain: 1.4, Low: 1.3, High: 1.5, Clock: 0.8, ClockHigh: 0.9}, NoGain},
		{"a process of its own kind must be worth it", other, Figures{Pairs: 6, Gain: 1.05, Low: 1.04, High: 1.06, ClockHigh: 1.5}, NoGain},
		{"and is", other, Figures{Pairs: 6, Gain: 1.3, Low: 1.2, High: 1.4, ClockHigh: 1.5}, Used},
		{"other numbers must be worth it", half, Figures{Pairs: 6, Gain: 1.1, Low: 1.09, High: 1.12, ClockHigh: 1.5}, NoGain},
		{"a lone run is slower", frozen, Figures{Pairs: 6, Gain: 1.4, Low: 1.3, High: 1.5, ClockHigh: 1.5, Alone: 30 * ms, BaseAlone: 20 * ms}, NoGain},
		{"a lone run is slower by nothing", frozen, Figures{Pairs: 6, Gain: 1.4, Low: 1.3, High: 1.5, ClockHigh: 1.5, Alone: ms / 10, BaseAlone: ms / 20}, Used},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, why := Decide(c.plan, plain, c.f); got != c.want || why == "" {
				t.Errorf("%s (%s), want %s", got, why, c.want)
			}
		})
	}
}
