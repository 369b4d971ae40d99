// arrivals.go: when requests are due.
package loadgen

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Values of Options.Arrivals.
const (
	Fixed   = "fixed"   // evenly spaced
	Poisson = "poisson" // as from many independent clients
)

// Limits of a sweep.
const (
	MaxRate  = 1e6 // requests per second
	maxSteps = 100
)

// schedule is the due times of one step, counted from its start.
type schedule struct {
	rate   float64
	random *rand.Rand // nil: evenly spaced
	n      int64
	at     float64 // seconds, of the last Poisson arrival
}

func newSchedule(rate float64, arrivals string, seed uint64) *schedule {
	s := &schedule{rate: rate}
	if arrivals == Poisson {
		s.random = rand.New(rand.NewPCG(seed, 1))
	}
	return s
}

// next is the next due time. A fixed one comes from its number, so that no error adds up.
func (s *schedule) next() time.Duration {
	if s.random != nil {
		s.at += s.random.ExpFloat64() / s.rate
		return time.Duration(s.at * float64(time.Second))
	}
	due := time.Duration(math.Round(float64(s.n) / s.rate * float64(time.Second)))
	s.n++
	return due
}

// ParseRates reads "100", "100,200,400" and "10..1000x8": eight rates from 10 to 1000, each the same factor above the one before.
func ParseRates(text string) ([]float64, error) {
	var rates []float64
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		from, rest, sweep := strings.Cut(part, "..")
		if !sweep {
			r, err := parseRate(part)
			if err != nil {
				return nil, err
			}
			rates = append(rates, r)
			continue
		}
		to, count, ok := strings.Cut(rest, "x")
		n, err := strconv.Atoi(count)
		if !ok || err != nil || n < 2 || n > maxSteps {
			return nil, fmt.Errorf("%.40q: write a sweep as FROM..TOxSTEPS with 2 to %d steps, as in 10..1000x8", part, maxSteps)
		}
		low, err := parseRate(from)
		if err != nil {
			return nil, err
		}
		high, err := parseRate(to)
		if err != nil {
			return nil, err
		}
		for i := range n {
			r := low * math.Pow(high/low, float64(i)/float64(n-1))
			if i == n-1 {
				r = high // not by a rounding below it
			}
			rates = append(rates, fourDigits(r))
		}
	}
	if len(rates) > maxSteps {
		return nil, fmt.Errorf("%d rates are too many; write at most %d", len(rates), maxSteps)
	}
	return rates, nil
}

func parseRate(text string) (float64, error) {
	r, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || !(r >= 0.001 && r <= MaxRate) {
		return 0, fmt.Errorf("%.40q is no rate; write requests per second from 0.001 to %.0f", text, float64(MaxRate))
	}
	return r, nil
}

// fourDigits keeps the rates of a sweep readable.
func fourDigits(r float64) float64 {
	rounded, err := strconv.ParseFloat(strconv.FormatFloat(r, 'g', 4, 64), 64)
	if err != nil {
		return r
	}
	return rounded
}
