// decide.go: what pairs of measurements say.
package tuning

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Figures are what was measured of a candidate beside the plan that it was held against.
type Figures struct {
	Pairs int `json:"pairs"`
	// Gain is the median of how many times as many rows it gave in the same processor's time, and Low and High what that lies between, at 95 in a
	// hundred.
	Gain float64 `json:"gain"`
	Low  float64 `json:"low"`
	High float64 `json:"high"`
	// ByClock says that Gain is one of time by the clock, in place of the processor's. Clock is that in any case, and ClockHigh what it is below.
	ByClock   bool    `json:"by_clock,omitempty"`
	Clock     float64 `json:"clock,omitempty"`
	ClockHigh float64 `json:"clock_high,omitempty"`
	// Rates are rows a second, by rows in a run; Base those of the other plan in the same pairs.
	Rates map[int64]float64 `json:"rates,omitempty"`
	Base  map[int64]float64 `json:"base_rates,omitempty"`
	// Alone is what one run of the least rows takes with nothing beside it, and BaseAlone the other plan's.
	Alone     time.Duration `json:"alone,omitempty"`
	BaseAlone time.Duration `json:"base_alone,omitempty"`
}

// leastPairs is how many pairs an interval needs: the lowest and the highest of six ratios hold the median between them in 97 of 100 cases.
const leastPairs = 6

// mostPairs is how many are made; what they do not show is not worth having.
const mostPairs = 20

// Interval is the median of the ratios and what it lies between with 95 of 100: the order statistics that leave less than 2.5 in 100 on either
// side. It asks nothing of how they are spread, so one ratio that another process spoiled does no harm. With fewer than six nothing is known.
func Interval(ratios []float64) (low, mid, high float64) {
	n := len(ratios)
	if n == 0 {
		return 0, 0, math.Inf(1)
	}
	sorted := slices.Sorted(slices.Values(ratios))
	mid = sorted[n/2]
	if n%2 == 0 {
		mid = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	if n < leastPairs {
		return 0, mid, math.Inf(1)
	}
	// k is how many on each side may be left out: the chance that at most k of n fall on one side of the median.
	k, sum, term := -1, 0.0, math.Pow(0.5, float64(n))
	for i := range n {
		if sum += term; sum > 0.025 {
			break
		}
		k = i
		term *= float64(n-i) / float64(i+1)
	}
	return sorted[k], mid, sorted[n-1-k]
}

// Least gains: a plan must be better beyond doubt, and by as much as what it costs in other ways is worth.
const (
	leastGain = 1.03 // otherwise the model stays as it was saved
	// A worker of another oneDNN cannot be forked from the zygote: it starts later and takes some 25 MB more.
	leastOneDNN = 1.08
	// Other numbers come out, if within the golden cases' tolerance.
	leastBFloat16 = 1.15
	// A lone request must not pay for the throughput of many: by so many times and by so much.
	worstAlone   = 1.25
	worstAloneBy = 200 * time.Microsecond
)

// Needs is the gain that a plan must show over another.
func Needs(p, against Plan) float64 {
	switch {
	case p.BFloat16 && !against.BFloat16:
		return leastBFloat16
	case p.OneDNN != against.OneDNN:
		return leastOneDNN
	}
	return leastGain
}

// Decide says whether a candidate that answers as it should takes the place of the plan that it was measured against, and why.
func Decide(p, against Plan, f Figures) (Verdict, string) {
	needs := Needs(p, against)
	between := fmt.Sprintf("%.2f times as fast (%.2f to %.2f)", f.Gain, f.Low, f.High)
	switch {
	case f.Pairs < leastPairs:
		return Unclear, fmt.Sprintf("%d pairs of measurements were made in the time, and %d are needed", f.Pairs, leastPairs)
	case f.High < needs:
		return NoGain, between
	case f.Low <= 1 || f.Gain < needs:
		if f.Pairs >= mostPairs || f.High-f.Low < 0.1 {
			return NoGain, between + ", which is not beyond doubt"
		}
		return Unclear, between
	case f.ClockHigh < 0.95:
		return NoGain, fmt.Sprintf("%s by the processor's time, but %.2f times by the clock", between, f.Clock)
	case f.BaseAlone > 0 && float64(f.Alone) > worstAlone*float64(f.BaseAlone) && f.Alone-f.BaseAlone > worstAloneBy:
		return NoGain, fmt.Sprintf("%s, but a lone run takes %v in place of %v", between, f.Alone.Round(10*time.Microsecond), f.BaseAlone.Round(10*time.Microsecond))
	}
	return Used, between
}

// settled reports whether more pairs would hardly change the decision.
func settled(needs float64, ratios []float64) bool {
	low, mid, high := Interval(ratios)
	return len(ratios) >= leastPairs && (high < needs || low > 1 && mid >= needs || high-low < 0.02)
}
