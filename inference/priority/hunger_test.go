// hunger_test.go: when a process is starved, in made-up time.
package priority

import (
	"testing"
	"time"
)

func TestHunger(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	had := func(ran, waited float64) Turns {
		return Turns{time.Duration(ran * float64(time.Second)), time.Duration(waited * float64(time.Second))}
	}
	for _, c := range []struct {
		name    string
		looks   [2]Turns // HungerTime, two seconds, apart
		starved bool
	}{
		{"all it wants", [2]Turns{had(0, 0), had(2, 0.2)}, false},
		{"a tenth of a processor", [2]Turns{had(0, 0), had(0.2, 1.8)}, false},
		{"next to nothing", [2]Turns{had(2, 3), had(2.02, 4.9)}, true},
		{"it waits for a disk", [2]Turns{had(2, 3), had(2.02, 3.1)}, false},
		{"threads have ended meanwhile", [2]Turns{had(9, 30), had(0.1, 12)}, false},
		{"nobody counts", [2]Turns{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h Hunger
			h.Look(at(0), c.looks[0])
			if _, starved := h.Look(at(1.9), c.looks[0]); starved {
				t.Error("starved before it could be known")
			}
			if waited, starved := h.Look(at(2), c.looks[1]); starved != c.starved || waited < 0 {
				t.Errorf("waited %v, starved: %v", waited, starved)
			}
		})
	}
}
