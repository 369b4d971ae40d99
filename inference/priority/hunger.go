// hunger.go: whether a process of low priority gets any processor at all.
package priority

import "time"

// HungerTime is how long a process is looked at. It is starved when it had less than a twentieth of one processor for so long, and would have
// taken more: others keep them all busy, and what it does would take for ever.
const HungerTime = 2 * time.Second

// Hunger watches what a process of low priority gets of the processors. Its zero value is ready; one goroutine uses it.
type Hunger struct {
	last  Turns
	meal  Turns     // what it had had when the time began that is looked at
	since time.Time // when that was
}

// Look takes in what the process has had by now: for how long it has waited since the last look, and whether it is starved.
func (h *Hunger) Look(now time.Time, had Turns) (waited time.Duration, starved bool) {
	if h.since.IsZero() {
		h.last, h.meal, h.since = had, had, now
	}
	waited = max(0, had.Waited-h.last.Waited) // less than before when threads have ended
	h.last = had
	span := now.Sub(h.since)
	if span < HungerTime {
		return waited, false
	}
	ran, wanted := had.Ran-h.meal.Ran, had.Waited-h.meal.Waited
	h.meal, h.since = had, now
	return waited, ran >= 0 && ran < span/20 && wanted > span/2
}
