// cost_test.go: the learned rule about sharing.
package batch

import (
	"testing"
	"testing/quick"
	"time"
)

func TestShares(t *testing.T) {
	learn := func(fixed, row time.Duration, sizes ...int64) *cost {
		c := new(cost)
		for range 20 {
			for _, n := range sizes {
				c.add(n, fixed+time.Duration(n)*row, costMemory)
			}
		}
		return c
	}
	for name, c := range map[string]struct {
		cost *cost
		rows int64
		want int64
	}{
		"nothing known":            {new(cost), 64, 1},
		"one size known":           {learn(ms, ms, 8), 64, 1},
		"tiny model":               {learn(50*time.Microsecond, 100*time.Nanosecond, 1, 8, 64), 64, 1},
		"heavy model":              {learn(100*time.Microsecond, 4*ms, 1, 8), 8, 4},
		"heavy model, two rows":    {learn(100*time.Microsecond, 4*ms, 1, 8), 2, 4},
		"between":                  {learn(ms, ms, 1, 8), 8, 2},
		"larger runs cost less":    {learn(100*ms, -ms, 1, 8), 64, 1},
		"fixed cost below nothing": {learn(-ms, 2*ms, 1, 8), 8, 4},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.cost.shares(c.rows, 4); got != c.want {
				fixed, row := c.cost.line()
				t.Errorf("%d shares, want %d (fixed %v, row %v)", got, c.want, time.Duration(fixed), time.Duration(row))
			}
		})
	}
}

// Whatever the clock says, there is at least one share and at most one per slot.
func TestSharesStayInRange(t *testing.T) {
	err := quick.Check(func(sizes []uint16, took []int64, rows uint16, slots uint8) bool {
		var c cost
		for i := range min(len(sizes), len(took)) {
			c.add(int64(sizes[i]), time.Duration(took[i]), time.Duration(rows)*ms)
		}
		n := c.shares(int64(rows), int(slots)+1)
		return n >= 1 && n <= int64(slots)+1
	}, nil)
	if err != nil {
		t.Error(err)
	}
}
