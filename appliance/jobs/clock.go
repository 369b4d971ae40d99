// clock.go: the time by which jobs expire and results are forgotten, on boxes whose clock may wake in 1970.
package jobs

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"time"
)

// earliest is before every moment at which this program can run: a clock that is earlier was not set.
var earliest = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// tolerated is by how much the machine's clock may differ from the queue's before that counts as a jump.
const tolerated = time.Second

// timeline is how the queue's time stands to the machine's clock. Stamps in the file are in the queue's time, which runs with the time since the
// machine's start and so never jumps; over a restart of the machine it follows the clock if that is to be believed.
type timeline struct {
	At   time.Time     `json:"at"`   // the queue's time
	Ran  time.Duration `json:"ran"`  // the time since the machine's start, at At
	Boot string        `json:"boot"` // which start that was
	// Skew is what the machine's clock is ahead of the queue's time; Trusted is what it was when the clock was last known to be set.
	Skew    time.Duration `json:"skew"`
	Trusted time.Duration `json:"trusted"`
	// Set: since the machine's start the clock was once later than every stamp in the file.
	Set bool `json:"set"`
}

// begin is the timeline of a process that finds the one before in the file (nil: none), and that as the latest stamp there.
func begin(before *timeline, newest, wall time.Time, ran time.Duration, boot string) timeline {
	t := timeline{Ran: ran, Boot: boot}
	if before == nil {
		before = &timeline{Set: !newest.Before(earliest)}
	}
	t.Trusted = before.Trusted
	switch {
	case boot != "" && before.Boot == boot && ran >= before.Ran && !before.At.IsZero():
		t.At, t.Set = before.At.Add(ran-before.Ran), before.Set // the machine has run all the time
	case newest.IsZero() && before.At.IsZero():
		t.At, t.Trusted = wall, 0
	case before.Set && settable(wall, newest, before.Trusted):
		t.At = wall.Add(-before.Trusted) // the time while the machine was off counts
	default:
		t.At = newest // how long it was off nobody knows
	}
	if t.At.Before(newest) {
		t.At = newest
	}
	t.Skew = wall.Sub(t.At)
	t.judge(newest, wall)
	return t
}

// settable reports whether the clock is one that was set: later than what was stamped while it was.
func settable(wall, newest time.Time, trusted time.Duration) bool {
	return !wall.Before(earliest) && !wall.Before(newest.Add(trusted))
}

// judge notes a clock that has been set.
func (t *timeline) judge(newest, wall time.Time) {
	if !t.Set && settable(wall, newest, t.Trusted) {
		t.Set = true
	}
	if t.Set && !wall.Before(earliest) {
		t.Trusted = t.Skew
	}
}

// now is the queue's time.
func (t *timeline) now(ran time.Duration) time.Time { return t.At.Add(ran - t.Ran) }

// observe holds the timeline against the machine's clock, and reports whether something changed that is worth keeping, and by how much the
// clock has jumped.
func (t *timeline) observe(newest, wall time.Time, ran time.Duration) (jump time.Duration, changed bool) {
	was := *t
	if diff := wall.Sub(t.now(ran)) - t.Skew; diff > tolerated || diff < -tolerated {
		jump = diff
		t.Skew += diff
	}
	t.judge(newest, wall)
	return jump, *t != was
}

// notes keeps the timeline over restarts. *storage.Queue does.
type notes interface {
	Note(name string) ([]byte, error)
	SetNote(ctx context.Context, name string, value []byte) error
}

const clockNote = "clock"

// Clock is the queue's time. Its methods may be called from anywhere.
type Clock struct {
	// immutable
	notes notes
	wall  func() time.Time
	ran   func() time.Duration
	log   *slog.Logger

	mu   sync.Mutex
	line timeline // guarded by mu
}

// newClock reads what is noted. newest is the latest stamp in the file.
func newClock(n notes, newest time.Time, wall func() time.Time, ran func() time.Duration, boot string, log *slog.Logger) *Clock {
	c := &Clock{notes: n, wall: wall, ran: ran, log: log}
	var before *timeline
	if b, err := n.Note(clockNote); err == nil && b != nil {
		var t timeline
		if json.Unmarshal(b, &t) == nil {
			before = &t
		}
	}
	// Without its monotonic part: that stands still while the machine sleeps.
	c.line = begin(before, newest, wall().Round(0), ran(), boot)
	return c
}

// Now is the queue's time: for stamps, never for show.
func (c *Clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.now(c.ran())
}

// Wall is what the machine's clock would have said, or will say, at a moment of the queue's time. The zero time stays.
func (c *Clock) Wall(t time.Time) time.Time {
	if t.IsZero() {
		return t
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return t.Add(c.line.Skew)
}

// Set reports whether anything may end by time: the machine's clock was once set.
func (c *Clock) Set() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.line.Set
}

// observe looks at the machine's clock, and keeps what has changed.
func (c *Clock) observe(ctx context.Context, newest time.Time) {
	c.mu.Lock()
	was := c.line.Set
	jump, changed := c.line.observe(newest, c.wall().Round(0), c.ran())
	line := c.line
	c.mu.Unlock()
	if jump != 0 {
		c.log.Info("the machine's clock was changed; jobs and results keep their time", "took", jump)
	}
	if !was && line.Set {
		c.log.Info("the machine's clock is set; jobs expire from now on")
	}
	if changed {
		c.keep(ctx)
	}
}

// keep notes the timeline. A note that fails is made again by the next change; until then an older one counts.
func (c *Clock) keep(ctx context.Context) {
	c.mu.Lock()
	line := c.line
	c.mu.Unlock()
	b, err := json.Marshal(line)
	if err == nil {
		err = c.notes.SetNote(ctx, clockNote, b)
	}
	if err != nil && ctx.Err() == nil {
		c.log.Warn("the queue's clock could not be noted", "err", err)
	}
}
