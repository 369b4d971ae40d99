// canary_test.go: which version is asked next.
package appliance

import (
	"testing"
	"time"
)

func TestWhom(t *testing.T) {
	const every = time.Minute
	old := func(lasts time.Duration) silence { return silence{lasts: lasts, took: time.Millisecond} }
	for _, c := range []struct {
		name     string
		may      []silence
		versions int
		want     int
	}{
		{"none", nil, 0, -1},
		{"none is due", []silence{old(59 * time.Second), old(0)}, 2, -1},
		{"one is due", []silence{old(59 * time.Second), old(every)}, 2, 1},
		{"the most overdue", []silence{old(2 * every), old(4 * every), old(3 * every)}, 3, 1},
		{"a long run, not yet", []silence{{lasts: 1999 * time.Second, took: 2 * time.Second}}, 1, -1},
		{"a long run", []silence{{lasts: 2000 * time.Second, took: 2 * time.Second}}, 1, 0},
		{"a long run holds up no short one", []silence{{lasts: 1999 * time.Second, took: 2 * time.Second}, old(every)}, 1, 1},
		{"many versions share the time", []silence{{lasts: 199 * time.Second, took: 2 * time.Millisecond}}, 100, -1},
		{"many versions share the time, due", []silence{{lasts: 200 * time.Second, took: 2 * time.Millisecond}}, 100, 0},
		{"one that hung, not yet", []silence{{lasts: 4*every - 1, hung: 2}}, 1, -1},
		{"one that hung", []silence{{lasts: 4 * every, hung: 2}}, 1, 0},
		{"one that always hangs", []silence{{lasts: canaryMost, hung: 1 << 20}}, 1, 0},
		{"a run that takes days", []silence{{lasts: canaryMost - 1, took: 100 * time.Hour}}, 4096, -1},
		{"a run that takes days, due", []silence{{lasts: canaryMost, took: 100 * time.Hour}}, 4096, 0},
	} {
		if got := whom(c.may, every, canaryShare*c.versions); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	if got := (silence{}).pause(48*time.Hour, 1); got != 48*time.Hour {
		t.Errorf("an interval that is longer than the longest pause: %v", got)
	}
}

// All versions' canaries together take the share of the time that they may.
func TestCanariesKeepToTheirShare(t *testing.T) {
	var share float64
	took := []time.Duration{time.Millisecond, 30 * time.Millisecond, 70 * time.Millisecond, 2 * time.Second, 10 * time.Second}
	for _, d := range took {
		share += float64(d) / float64(silence{took: d}.pause(time.Second, canaryShare*len(took)))
	}
	if share > 1.0/canaryShare+1e-9 {
		t.Errorf("a share of %v", share)
	}
}
