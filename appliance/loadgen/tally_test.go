// tally_test.go: what counts as late, and by whose fault.
package loadgen

import (
	"testing"
	"time"
)

// TestLateBySending: an answer that is late only because its request was sent late is not good, and not the server's fault either.
func TestLateBySending(t *testing.T) {
	const ms = time.Millisecond
	tally := newTally(100 * ms)
	due := time.Now()
	for _, c := range []struct{ sent, done time.Duration }{{0, 100 * ms}, {30 * ms, 120 * ms}, {0, 101 * ms}} {
		tally.begin(due, due.Add(c.sent), true, false)
		tally.end(due, due.Add(c.sent), due.Add(c.done), true, outcome{kind: answered})
	}
	if s := tally.step(3, time.Second); s.Answered != 3 || s.Good != 1 || s.LateServed != 1 || s.LateSends != 1 {
		t.Errorf("%+v; want 3 answered, 1 good, 1 late from its sending on, 1 sent late", s)
	}
}
