// cost.go: what a run costs, learned, so that heavy work is shared between slots and light work is not cut up.
package batch

import "time"

// The rule: a slot that comes free takes at most an even share of the signature's rows, those that wait and those in flight, so that the
// other slots (free now, or free within about one run) do the rest beside it. A share is never so small that the fixed cost of a run would matter:
// its rows must take at least shareWorth times as long. A tiny model, where a run costs the same for 1 row as for 64, is never cut up.
const (
	shareWorth = 4
	// leastFixed stands in for a fixed cost that was measured too small: waking a worker and a caller costs about this much.
	leastFixed = 20 * time.Microsecond
	// costDecay is the weight of the newest run: about the last 16 count.
	costDecay = 1.0 / 16
)

// cost is a decaying straight line through (rows, time) of the last runs of one signature.
type cost struct {
	runs           int
	rows, took     float64 // means; took in nanoseconds
	spread, common float64 // variance of rows, covariance of both
}

// add learns one successful run.
func (c *cost) add(rows int64, took time.Duration) {
	c.runs++
	n, t := float64(rows), float64(took)
	if c.runs == 1 {
		c.rows, c.took = n, t
		return
	}
	dn, dt := n-c.rows, t-c.took
	c.rows += costDecay * dn
	c.took += costDecay * dt
	c.spread = (1 - costDecay) * (c.spread + costDecay*dn*dn)
	c.common = (1 - costDecay) * (c.common + costDecay*dn*dt)
}

// line is the fixed cost of a run and the cost of each row, in nanoseconds. Until runs of different sizes have been seen a row costs nothing.
func (c *cost) line() (fixed, row float64) {
	if c.spread > 0.01 {
		row = max(0, c.common/c.spread)
	}
	return max(c.took-row*c.rows, float64(leastFixed)), row
}

// shares is the number of runs, 1 to slots, that so many rows are worth.
func (c *cost) shares(rows int64, slots int) int64 {
	fixed, row := c.line()
	return int64(max(1, min(float64(slots), row*float64(rows)/(shareWorth*fixed))))
}
