// clock_test.go: boxes whose clock wakes in 1970, jumps, or goes back.
package jobs

import (
	"context"
	"log/slog"
	"testing"
	"time"
)

func day(n int) time.Time { return time.Date(2026, 3, n, 12, 0, 0, 0, time.UTC) }

var woken = time.Date(1970, 1, 1, 0, 0, 30, 0, time.UTC)

func TestTimelineBegins(t *testing.T) {
	const h = time.Hour
	trusted := func(skew time.Duration) *timeline {
		return &timeline{At: day(1), Ran: 5 * h, Boot: "a", Skew: skew, Trusted: skew, Set: true}
	}
	for name, c := range map[string]struct {
		before  *timeline
		newest  time.Time
		wall    time.Time
		ran     time.Duration
		boot    string
		at      time.Time
		set     bool
		trusted time.Duration
	}{
		"a new file":                            {nil, time.Time{}, day(1), 0, "a", day(1), true, 0},
		"a new file, 1970":                      {nil, time.Time{}, woken, 0, "a", woken, false, 0},
		"a file without a note":                 {nil, day(1), day(3), 0, "a", day(3), true, 0},
		"a file without a note, 1970":           {nil, day(1), woken, 0, "a", day(1), false, 0},
		"a restart of the process":              {trusted(0), day(1), day(1).Add(h), 6 * h, "a", day(1).Add(h), true, 0},
		"the same, and the clock jumped":        {trusted(0), day(1), day(20), 6 * h, "a", day(1).Add(h), true, day(20).Sub(day(1).Add(h))},
		"the same, and the clock was lost":      {trusted(0), day(1), woken, 6 * h, "a", day(1).Add(h), true, 0},
		"a restart of the machine":              {trusted(0), day(1).Add(h), day(4), 0, "b", day(4), true, 0},
		"the same, with skew":                   {trusted(h), day(1), day(4), 0, "b", day(4).Add(-h), true, h},
		"a restart of the machine in 1970":      {trusted(0), day(1).Add(h), woken, 0, "b", day(1).Add(h), false, 0},
		"set back to before the newest stamp":   {trusted(0), day(9), day(4), 0, "b", day(9), false, 0},
		"unset before, and set now":             {&timeline{At: day(1), Ran: h, Boot: "a", Skew: woken.Sub(day(1)), Set: false}, day(1), day(7), 0, "b", day(1), true, day(7).Sub(day(1))},
		"unset from the first, and set now":     {&timeline{At: woken, Ran: h, Boot: "a"}, woken.Add(h), day(7), 0, "b", woken.Add(h), true, day(7).Sub(woken.Add(h))},
		"1970 again, before the newest stamp":   {&timeline{At: woken, Ran: h, Boot: "a"}, woken.Add(h), woken, 0, "b", woken.Add(h), false, 0},
		"the kernel names no start":             {&timeline{At: day(1), Ran: h, Set: true}, day(1), day(2), 2 * h, "", day(2), true, 0},
		"stamps later than the note, same boot": {trusted(0), day(2), day(2), 6 * h, "a", day(2), true, 0},
	} {
		t.Run(name, func(t *testing.T) {
			got := begin(c.before, c.newest, c.wall, c.ran, c.boot)
			if !got.At.Equal(c.at) || got.Set != c.set || got.Trusted != c.trusted {
				t.Errorf("at %v, set %v, trusted %v; want %v, %v, %v", got.At, got.Set, got.Trusted, c.at, c.set, c.trusted)
			}
			if !got.At.Add(got.Skew).Equal(c.wall) {
				t.Errorf("shows %v for %v", got.At.Add(got.Skew), c.wall)
			}
			if got.At.Before(c.newest) {
				t.Errorf("%v is before the newest stamp %v", got.At, c.newest)
			}
		})
	}
}

// TestTimelineNeverJumps: whatever the machine's clock does, a minute is a minute.
func TestTimelineNeverJumps(t *testing.T) {
	line := begin(nil, day(1), woken, 0, "a")
	ran, last := time.Duration(0), line.now(0)
	for i, step := range []struct {
		wall time.Time
		set  bool
		jump bool
	}{
		{woken.Add(time.Minute), false, false}, {day(1).Add(-time.Hour), false, true}, {day(6), true, true}, {day(6).Add(time.Minute), true, false},
		{woken, true, true}, {day(6).Add(3 * time.Minute), true, true}, {day(400), true, true},
	} {
		ran += time.Minute
		jump, changed := line.observe(last, step.wall, ran)
		if got := line.now(ran).Sub(last); got != time.Minute {
			t.Fatalf("step %d: a minute took %v", i, got)
		}
		last = line.now(ran)
		if line.Set != step.set || (jump != 0) != step.jump || (jump != 0) != changed && !line.Set {
			t.Errorf("step %d: set %v, jump %v, changed %v; want set %v, jump %v", i, line.Set, jump, changed, step.set, step.jump)
		}
		if !last.Add(line.Skew).Equal(step.wall) {
			t.Errorf("step %d: shows %v, the machine says %v", i, last.Add(line.Skew), step.wall)
		}
	}
}

// noted is a note in memory.
type noted struct{ value []byte }

func (n *noted) Note(string) ([]byte, error) { return n.value, nil }
func (n *noted) SetNote(_ context.Context, _ string, value []byte) error {
	n.value = value
	return nil
}

// TestClockOverRestarts: a box without a clock of its own, over three starts. What was submitted while the clock was not set is no older for it.
func TestClockOverRestarts(t *testing.T) {
	n, wall, ran := new(noted), day(1), time.Hour
	var newest time.Time
	start := func(boot string) *Clock {
		c := newClock(n, newest, func() time.Time { return wall }, func() time.Duration { return ran }, boot, slog.New(slog.DiscardHandler))
		c.keep(t.Context())
		return c
	}
	pass := func(c *Clock, d time.Duration) { // an hour in which something is stamped
		wall, ran = wall.Add(d), ran+d
		newest = c.Now()
		c.observe(t.Context(), newest)
	}
	c := start("first")
	pass(c, time.Hour)
	first := newest

	wall, ran = woken, 30*time.Second
	c = start("second")
	pass(c, time.Hour)
	if c.Set() || newest.Sub(first) != time.Hour {
		t.Errorf("1970: set %v, %v after the first", c.Set(), newest.Sub(first))
	}
	stamped := newest
	wall = day(5) // the network came
	pass(c, time.Minute)
	if !c.Set() || newest.Sub(stamped) != time.Minute {
		t.Errorf("the clock was set: set %v, and a stamp is %v old after a minute", c.Set(), newest.Sub(stamped))
	}
	if got := c.Wall(newest); !got.Equal(day(5).Add(time.Minute)) {
		t.Errorf("shows %v", got)
	}

	wall, ran = day(6), 10*time.Second // with its clock right from the start
	c = start("third")
	if got, want := c.Now().Sub(newest), day(6).Sub(day(5))-time.Minute; !c.Set() || got != want {
		t.Errorf("third start: set %v, %v passed, want %v", c.Set(), got, want)
	}
}

// FuzzTimeline: whatever stands in the note and whatever the machine's clock does, the queue's time goes on by what passes, and never starts before
// the newest stamp.
func FuzzTimeline(f *testing.F) {
	f.Add([]byte(`{"at":"2026-03-01T12:00:00Z","ran":18000000000000,"boot":"a","skew":0,"trusted":0,"set":true}`), int64(1), int64(2), int64(3), int64(-4))
	f.Add([]byte(`{"at":"0001-01-01T00:00:00Z","ran":-1,"boot":"b","skew":9223372036854775807,"trusted":-9223372036854775808}`), int64(0), int64(0), int64(1)<<40, int64(-1)<<40)
	f.Fuzz(func(t *testing.T, note []byte, newest, wall, first, second int64) {
		const most = int64(200 * 365 * 24 * time.Hour / time.Second) // what a duration can hold, and a clock can show
		at := func(seconds int64) time.Time { return day(1).Add(time.Duration(seconds%most/2) * time.Second) }
		n := &noted{value: note}
		ran := time.Hour
		now := at(wall)
		c := newClock(n, at(newest), func() time.Time { return now }, func() time.Duration { return ran }, "a", slog.New(slog.DiscardHandler))
		last := c.Now()
		if last.Before(at(newest)) {
			t.Fatalf("begins at %v, and has stamps of %v", last, at(newest))
		}
		for _, jump := range []int64{first, second, 0} {
			ran += time.Second
			now = at(jump)
			c.observe(t.Context(), last)
			if got := c.Now(); got.Sub(last) != time.Second {
				t.Fatalf("a second took %v", got.Sub(last))
			}
			last = c.Now()
		}
	})
}
