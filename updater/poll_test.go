// poll_test.go: the interval between looks by the number of models.
package updater

import (
	"testing"
	"time"
)

func TestPollEvery(t *testing.T) {
	for _, c := range []struct {
		configured time.Duration
		models     int
		watched    bool
		want       time.Duration
	}{
		{5 * time.Second, 1, true, 5 * time.Second},
		{5 * time.Second, 100, true, 5 * time.Second},
		{5 * time.Second, 1000, true, 50 * time.Second},
		{5 * time.Second, 1_000_000, true, pollMost},
		{time.Hour, 1_000_000, true, time.Hour},
		{5 * time.Second, 1, false, pollUnwatch},
		{100 * time.Millisecond, 1, false, 100 * time.Millisecond},
		{5 * time.Second, 1000, false, 5 * time.Second},
	} {
		if got := pollEvery(c.configured, c.models, c.watched); got != c.want {
			t.Errorf("%v, %d models, watched %v: %v, want %v", c.configured, c.models, c.watched, got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	if got := spread(5*time.Second, 5*time.Second); got != 5*time.Second {
		t.Errorf("a configured interval became %v", got)
	}
	seen := make(map[time.Duration]bool)
	for range 100 {
		got := spread(40*time.Second, 5*time.Second)
		if got < 30*time.Second || got > 40*time.Second {
			t.Fatalf("%v out of 40 s", got)
		}
		seen[got] = true
	}
	if len(seen) < 2 {
		t.Error("all looks come together")
	}
}
