// curve_test.go: the measured curve and what it makes of the size of runs.
package batch

import (
	"testing"
	"testing/quick"
	"time"

	"github.com/inferd/inferd/inference/fake"
)

func TestCurve(t *testing.T) {
	learn := func(took map[int64]time.Duration) *curve {
		c := new(curve)
		for range 20 {
			for rows, d := range took {
				c.add(rows, d, costMemory)
			}
		}
		return c
	}
	linear := func(fixed, row time.Duration, sizes ...int64) map[int64]time.Duration {
		m := make(map[int64]time.Duration)
		for _, n := range sizes {
			m[n] = fixed + time.Duration(n)*row
		}
		return m
	}
	falls := linear(10*ms, ms, 1, 2, 4, 8, 16, 32)
	cache := linear(10*ms, ms, 1, 2, 4, 8)
	cache[16], cache[32] = 80*ms, 200*ms // above 8 rows each costs more again
	for name, c := range map[string]struct {
		took        map[int64]time.Duration
		target      time.Duration
		stray       float64
		rows        int64
		open, known bool
	}{
		"nothing known":                     {nil, 0, 0, 0, false, false},
		"one size known":                    {linear(ms, ms, 8), 0, 0, 0, false, false},
		"rows cost the same":                {linear(0, 10*ms, 1, 2, 4, 8), 0, 0, 2, false, true},
		"larger runs give more":             {falls, 0, 0, 32, true, true},
		"up to where they leave the cache":  {cache, 0, 0, 8, false, true},
		"a short run costs nobody anything": {linear(0, 10*time.Microsecond, 1, 2, 4, 8, 16, 32, 64), 0, 0, 64, true, true},
		"a difference within the stray":     {map[int64]time.Duration{1: 10 * ms, 2: 19 * ms, 4: 37 * ms}, 0, 0.2, 2, false, true},
		"within the target":                 {falls, 40 * ms, 0, 8, false, true},
		"no size within the target":         {falls, ms, 0, 1, false, true},
		"one size, and it does not fit":     {linear(ms, ms, 1), ms, 0, 1, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			rows, open, known := learn(c.took).worth(c.target, c.stray)
			if rows != c.rows || open != c.open || known != c.known {
				t.Errorf("%d rows, open %v, known %v; want %d, %v, %v", rows, open, known, c.rows, c.open, c.known)
			}
		})
	}
}

// Whatever was measured, a run has at least one row, and with a target no more than what fits.
func TestCurveStaysInRange(t *testing.T) {
	err := quick.Check(func(sizes []uint16, took []uint32, target uint32, stray float64) bool {
		var c curve
		for i := range min(len(sizes), len(took)) {
			c.add(int64(sizes[i]), time.Duration(took[i]), ms)
		}
		if !(stray >= 0 && stray <= 1) {
			stray = 0
		}
		rows, _, known := c.worth(time.Duration(target), stray)
		return !known || rows >= 1 && rows <= 1<<17
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

// What waits leaves in runs of the size that gives most, as measured while it runs; and follows when that changes.
func TestRunsAreAsLargeAsPays(t *testing.T) {
	for name, c := range map[string]struct {
		target time.Duration
		most   int64
	}{"no target": {0, 8}, "a target": {50 * ms, 4}} {
		t.Run(name, func(t *testing.T) {
			f := &fake.Runner{Latency: func(r fake.Record) time.Duration {
				if n := r.Rows(); n > 8 {
					return time.Duration(n) * 20 * ms // the cache is too small
				}
				return 20*ms + time.Duration(r.Rows())*ms
			}}
			inBubble(t, f, Options{MaxRows: 64, Policy: Policy{LatencyTarget: c.target}}, func(b *bench) {
				for range 12 { // 32 at once, again and again
					var all []*answer
					for i := range 32 {
						all = append(all, b.send(b.Context(), rows(float32(i))))
					}
					settle(10 * time.Second)
					for i, a := range all {
						b.want(a, float32(i))
					}
				}
				records, larger := b.f.Records(), 0
				for _, r := range records[len(records)-8:] {
					if r.Rows() > c.most {
						larger++
					}
				}
				if larger > 1 { // one may be there to look again
					b.Errorf("%d of the last 8 runs had more than %d rows", larger, c.most)
				}
				key, times, most := b.Curve()
				if key == "" || len(times) < 2 || most != c.most {
					b.Errorf("signature %q, times %v, %d rows; want %d", key, times, most, c.most)
				}
				// Nobody waits while nothing runs.
				lone := b.send(b.Context(), rows(1))
				settle(22 * ms)
				b.want(lone, 1)
			})
		})
	}
}
