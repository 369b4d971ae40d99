// pairs.go: alternating pairs, their ratios, the median and its interval.
package measure

import (
	"fmt"
	"slices"
)

// Ratios is one comparison: A over B, pair by pair.
type Ratios struct {
	Name   string
	Bound  float64 // the ratio asked for; 0 when only printed
	Below  bool    // the bound is an upper one
	Values []float64
	A, B   []float64 // the rates behind them
	Unit   string

	Disturbed int // pairs during which others were busy
}

// patience is how many pairs are made at most for each that counts.
const patience = 2

// Pairs runs a and b in turn, in alternating order, until n pairs count, and keeps the ratio of each. A pair during which other processes
// took more than a little of the machine is thrown away and made again, whatever it said; when there are too many of those, they count.
func Pairs(name, unit string, bound float64, n int, a, b func() (float64, error)) (*Ratios, error) {
	r := &Ratios{Name: name, Bound: bound, Unit: unit}
	for i := 0; len(r.Values) < n; i++ {
		var va, vb float64
		var err error
		others := WatchOthers()
		if i%2 == 0 {
			if va, err = a(); err == nil {
				vb, err = b()
			}
		} else if vb, err = b(); err == nil {
			va, err = a()
		}
		if err != nil {
			return nil, fmt.Errorf("%s, pair %d: %w", name, i+1, err)
		}
		if others() > mostOthers {
			r.Disturbed++
			if n*patience-i > n-len(r.Values) {
				continue
			}
		}
		r.A, r.B, r.Values = append(r.A, va), append(r.B, vb), append(r.Values, va/vb)
	}
	return r, nil
}

// Median of at least one value.
func Median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	n := len(s)
	if n%2 == 1 {
		return s[n/2]
	}
	return (s[n/2-1] + s[n/2]) / 2
}

// Interval is the distribution-free interval of the median at about 95 %: for 10 pairs from the second smallest to the second largest
// (order statistics of the binomial with p = 1/2, 97.9 %).
func Interval(v []float64) (low, high float64) {
	s := slices.Sorted(slices.Values(v))
	// The largest k with P(Binomial(n, 1/2) < k) <= 2.5 %.
	n, k, p, tail := len(s), 0, 1.0, 0.0
	for range n {
		p /= 2
	}
	for i := range n {
		tail += p
		if tail > 0.025 {
			break
		}
		k = i + 1
		p = p * float64(n-i) / float64(i+1)
	}
	k = max(k, 1)
	return s[k-1], s[n-k]
}

// Report prints the line of a comparison. A bound holds when the interval touches it.
func (r *Ratios) Report() string {
	low, high := Interval(r.Values)
	line := fmt.Sprintf("%-58s %5.3f [%5.3f, %5.3f]  %s %.0f over %.0f", r.Name, Median(r.Values), low, high, r.Unit, Median(r.A), Median(r.B))
	if r.Disturbed > 0 {
		line += fmt.Sprintf("; %d pairs were disturbed", r.Disturbed)
	}
	if r.Bound == 0 {
		return line
	}
	holds, word := high >= r.Bound, "at least"
	if r.Below {
		holds, word = low <= r.Bound, "at most"
	}
	verdict := "holds"
	if !holds {
		verdict = "DOES NOT HOLD"
	}
	return fmt.Sprintf("%s  (%s %.2f: %s)", line, word, r.Bound, verdict)
}
