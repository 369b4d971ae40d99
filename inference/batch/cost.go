// cost.go: what a run costs, learned: so that heavy work is shared between slots, light work is not cut up, and a request can be told how
// long it will take.
package batch

import (
	"maps"
	"math"
	"slices"
	"time"
)

// The rule about sharing: a slot that comes free takes at most an even share of the signature's rows, those that wait and those in flight, so that the
// other slots (free now, or free within about one run) do the rest beside it. A share is never so small that the fixed cost of a run would matter:
// its rows must take at least shareWorth times as long. A tiny model, where a run costs the same for 1 row as for 64, is never cut up.
const (
	shareWorth = 4
	// leastFixed stands in for a fixed cost that was measured too small: waking a worker and a caller costs about this much.
	leastFixed = 20 * time.Microsecond
	// The weight of the newest run: about the last 64 count, and fewer where they come slowly, but 16.
	leastWeight = 1.0 / 64
	costDecay   = 1.0 / 16
	costMemory  = 500 * time.Millisecond
)

// cost is a decaying straight line through (rows, time) of the last runs of one signature.
type cost struct {
	runs           int
	rows, took     float64 // means; took in nanoseconds
	spread, common float64 // variance of rows, covariance of both
	paid           int64   // see pays; 0 while it is not known
	stray          float64 // decaying mean of how far a run was from what was predicted, in nanoseconds
}

// add learns one successful run, which came so long after the one before. The first ones count as much as those before them together.
func (c *cost) add(rows int64, took, since time.Duration) {
	c.runs++
	w := max(leastWeight, min(costDecay, float64(since)/float64(costMemory)), 1/float64(min(c.runs, 64)))
	n, t := float64(rows), float64(took)
	if c.runs == 1 {
		c.rows, c.took = n, t
		return
	}
	c.stray += w * (math.Abs(t-c.mean(rows)) - c.stray)
	dn, dt := n-c.rows, t-c.took
	c.rows += w * dn
	c.took += w * dt
	c.spread = (1 - w) * (c.spread + w*dn*dn)
	c.common = (1 - w) * (c.common + w*dn*dt)
	c.judge()
}

// line is the fixed cost of a run and the cost of each row, in nanoseconds. Until runs of different sizes have been seen a row costs nothing.
func (c *cost) line() (fixed, row float64) {
	if c.spread > 0.01 {
		row = max(0, c.common/c.spread)
	}
	return max(c.took-row*c.rows, float64(leastFixed)), row
}

// forecast is the line that predictions go by. It counts a run's time as its rows' as far as runs of different sizes have not shown how much of it
// is fixed: who is told too long a time is told the right one soon, who is told too short a time waits in vain.
func (c *cost) forecast() (fixed, row float64) {
	if c.runs == 0 {
		return 0, 0
	}
	even := c.took / max(1, c.rows)
	row = max(0, c.common+evenSpread*even) / (c.spread + evenSpread)
	return max(c.took-row*c.rows, 0), row
}

// evenSpread is how much variance of rows weighs as much as the belief that time is in proportion to rows.
const evenSpread = 0.25

// mean is the expected time of a run of so many rows, in nanoseconds; 0 while nothing is known.
func (c *cost) mean(rows int64) float64 {
	fixed, row := c.forecast()
	return fixed + row*float64(rows)
}

// most is the time that a run of so many rows seldom passes.
func (c *cost) most(rows int64) float64 { return c.mean(rows) + 2.5*c.stray }

// strayShare is by what share of its time a run differs from what was predicted.
func (c *cost) strayShare() float64 {
	if c.took <= 0 {
		return 0
	}
	return min(1, c.stray/c.took)
}

// shares is the number of runs, 1 to slots, that so many rows are worth.
func (c *cost) shares(rows int64, slots int) int64 {
	fixed, row := c.line()
	return int64(max(1, min(float64(slots), row*float64(rows)/(shareWorth*fixed)+1e-3)))
}

// A batch that is larger than pays makes those in it wait for each other, and those after it for all of them: a run's fixed cost is to be at least
// payShare of it, unless the run is shorter than payTime anyway.
const (
	payShare = 1.0 / 24
	payTime  = float64(2 * time.Millisecond)
)

// pays is the number of rows above which a larger run is not worth its while. It is never below 2, so that runs of different sizes go on showing it.
func (c *cost) pays() int64 {
	if c.paid == 0 {
		return math.MaxInt32 // larger runs are tried until they have shown what they are worth
	}
	return c.paid
}

// judge is told that there is one run more.
func (c *cost) judge() {
	if c.spread <= 0.01 {
		return
	}
	if fixed, row := c.line(); row > 0 {
		c.paid = int64(max(2, min(math.MaxInt32, max(fixed/payShare, payTime)/row)))
	}
}

// costOf is what the runs of such a call are learned in, and the rows that one of so many counts as there. Batcher.mu is held.
func (s *signature) costOf(k kind, rows int64) (*cost, int64) {
	if k != joins || s.single.Load() {
		return &s.alone, 1
	}
	return &s.cost, rows
}

// expect is told what runs took before, by rows.
func (s *signature) expect(times map[int64]time.Duration) {
	s.cost.expect(times)
	for rows, took := range times {
		s.curve.add(rows, took, costMemory)
	}
	if one, ok := times[1]; ok {
		s.alone.add(1, one, costMemory)
	}
}

func (c *cost) expect(times map[int64]time.Duration) {
	sizes := slices.Sorted(maps.Keys(times))
	for range 2 {
		for _, n := range sizes {
			c.add(n, times[n], costMemory)
		}
	}
}

// runTimes are the predicted times of the signature that has run most, for a few numbers of rows. mu is held.
func (b *Batcher) runTimes() []RunTime {
	var best *signature
	b.sigs.Range(func(_, v any) bool {
		if s := v.(*signature); best == nil || s.cost.runs+s.alone.runs > best.cost.runs+best.alone.runs {
			best = s
		}
		return true
	})
	if best == nil {
		return nil
	}
	if best.cost.runs == 0 || best.single.Load() {
		if best.alone.runs == 0 {
			return nil
		}
		return []RunTime{{1, time.Duration(best.alone.mean(1))}}
	}
	var out []RunTime
	for n := int64(1); n <= b.limits.join && len(out) < 4; n *= 8 {
		out = append(out, RunTime{n, time.Duration(best.cost.mean(n))})
	}
	return out
}
