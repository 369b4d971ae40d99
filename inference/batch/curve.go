// curve.go: what runs took by their number of rows, as it was measured: how many rows give most in the time there is.
package batch

import (
	"maps"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// curve has a decaying mean for each doubling of the rows: 1, 2, up to 4, up to 8. A line (see cost.go) says what a run of any size will take; it
// cannot say that a model's rows cost more again above some size, where they leave the cache.
type curve struct {
	points [maxDoublings]point
	tries  uint32
}

const (
	maxDoublings = 32
	// tryEvery is how often a run may take twice the rows that are known to be best, so that what was measured in worse circumstances is seen again.
	tryEvery = 32
	plenty   = 20 // times what such a run takes
)

type point struct {
	runs       int
	rows, took float64 // means; took in nanoseconds
}

func (p *point) perRow() float64 { return p.took / p.rows }

// doubt is by how many strays the mean may be off: two with one run, and less the more there were.
func (p *point) doubt() float64 { return 2 / math.Sqrt(float64(min(p.runs, 16))) }

// doubling is the place of so many rows, at least 1; its sizes end with 1<<doubling.
func doubling(rows int64) int { return min(maxDoublings-1, bits.Len64(uint64(max(1, rows)-1))) }

// add learns one successful run, which came so long after the one before.
func (c *curve) add(rows int64, took, since time.Duration) {
	p := &c.points[doubling(rows)]
	p.runs++
	w := max(leastWeight, min(costDecay, float64(since)/float64(costMemory)), 1/float64(min(p.runs, 64)))
	p.rows += w * (float64(max(1, rows)) - p.rows)
	p.took += w * (float64(took) - p.took)
}

// worth is the number of rows above which a larger run gives no more, or takes too long for the target: those in a run have waited for the one
// before it at the worst, so two must fit. target 0 is none. false: too little is known.
// open says that the largest size that was measured is the best.
// stray is by what share of its time a run differs from another: so much, and less the more there were of a size, is no difference between sizes.
func (c *curve) worth(target time.Duration, stray float64) (rows int64, open, known bool) {
	best, last, fits, seen := -1, -1, -1, 0
	for i := range c.points {
		p := &c.points[i]
		if p.runs == 0 {
			continue
		}
		seen++
		last = i
		if target > 0 && 2*p.took > float64(target) {
			continue
		}
		fits = i
		if best < 0 || p.perRow() < c.points[best].perRow() {
			best = i
		}
	}
	switch {
	case seen < 2 && (target == 0 || fits >= 0):
		return 0, false, false
	case fits < 0:
		return 1, false, true // no size fits: the smallest is least late
	}
	pick := -1
	for i := range fits + 1 {
		p := &c.points[i]
		if p.runs == 0 {
			continue
		}
		slack := payShare + stray*(p.doubt()+c.points[best].doubt())
		if cheap := p.perRow() <= c.points[best].perRow()*(1+slack); cheap && (pick < 0 || p.took <= payTime) {
			pick = i // the smallest that gives all but a little; a larger one only where its run is short anyway
		}
	}
	if target > 0 {
		return 1 << pick, false, true
	}
	return 1 << max(pick, 1), pick == last, true // runs of different sizes go on showing it
}

// times are the points that are known.
func (c *curve) times() (list []RunTime) {
	for i := range c.points {
		if p := &c.points[i]; p.runs > 0 {
			list = append(list, RunTime{int64(math.Round(p.rows)), time.Duration(p.took)})
		}
	}
	return list
}

// most is how many rows a run of joined requests is given, of the limit that it has anyway. mu is held.
func (s *signature) most(limit int64, target time.Duration) int64 {
	worth, open, known := s.curve.worth(target, s.cost.strayShare())
	if !known || open { // beyond what was measured the line is all there is
		worth = max(worth, s.cost.pays())
	}
	return min(limit, worth)
}

// tries is most, but for a run now and then that may be larger, where so many wait and have plenty of time: left, in nanoseconds. mu is held.
func (s *signature) tries(limit, waiting int64, target time.Duration, left float64) int64 {
	most := s.most(limit, target)
	seen := s.curve.points[doubling(2*most)].runs > 0
	if most >= limit || waiting <= most || target > 0 && seen || plenty*s.cost.mean(2*most) > left {
		return most
	}
	if s.curve.tries++; s.curve.tries%tryEvery == 0 {
		return min(limit, 2*most)
	}
	return most
}

// timeLeft is the time to when something is due, in nanoseconds.
func timeLeft(due, now time.Duration) float64 {
	if due == never {
		return math.Inf(1)
	}
	return float64(due - now)
}

// Curve is what runs of the signature that has run most take by their rows, as measured lately, and how many rows a run of joined requests is given at
// most.
func (b *Batcher) Curve() (key string, times []RunTime, rows int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var best *signature
	b.sigs.Range(func(_, v any) bool {
		if s := v.(*signature); best == nil || s.cost.runs > best.cost.runs {
			best = s
		}
		return true
	})
	if best == nil { // nobody has asked yet: what is known was measured before
		for _, key := range slices.Sorted(maps.Keys(b.opts.Expect)) {
			if best == nil || key == inference.DefaultSignature {
				best = &signature{Signature: &inference.Signature{Key: key}}
				best.expect(b.opts.Expect[key])
			}
		}
	}
	if best == nil || best.single.Load() {
		return "", nil, 0
	}
	return best.Key, best.curve.times(), best.most(b.limits.join, b.limits.target)
}
