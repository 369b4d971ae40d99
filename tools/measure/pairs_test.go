// pairs_test.go: the statistics.
package measure

import (
	"strings"
	"testing"
)

func TestIntervalOfTenPairs(t *testing.T) {
	v := []float64{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}
	if low, high := Interval(v); low != 2 || high != 9 {
		t.Fatalf("got [%v, %v], want the second smallest and the second largest", low, high)
	}
	if m := Median(v); m != 5.5 {
		t.Fatalf("Median %v", m)
	}
}

func TestBoundHoldsWhenTheIntervalTouchesIt(t *testing.T) {
	r := &Ratios{Bound: 9, Values: []float64{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}, A: []float64{1}, B: []float64{1}}
	if !strings.HasSuffix(r.Report(), "holds)") {
		t.Error(r.Report())
	}
	r.Bound = 9.5
	if !strings.HasSuffix(r.Report(), "DOES NOT HOLD)") {
		t.Error(r.Report())
	}
}
