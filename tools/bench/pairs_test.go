// pairs_test.go: the statistics.
package main

import (
	"strings"
	"testing"
)

func TestIntervalOfTenPairs(t *testing.T) {
	v := []float64{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}
	if low, high := interval(v); low != 2 || high != 9 {
		t.Fatalf("got [%v, %v], want the second smallest and the second largest", low, high)
	}
	if m := median(v); m != 5.5 {
		t.Fatalf("median %v", m)
	}
}

func TestBoundHoldsWhenTheIntervalTouchesIt(t *testing.T) {
	r := &ratios{bound: 9, values: []float64{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}, a: []float64{1}, b: []float64{1}}
	if !strings.HasSuffix(r.report(), "holds)") {
		t.Error(r.report())
	}
	r.bound = 9.5
	if !strings.HasSuffix(r.report(), "DOES NOT HOLD)") {
		t.Error(r.report())
	}
}
