// window_test.go: percentiles of the last seconds.
package appliance

import (
	"testing"
	"time"
)

func TestWindow(t *testing.T) {
	var w window
	now := time.Unix(1_000_000, 0)
	if rate, p50, p99 := w.read(now); rate != 0 || p50 != 0 || p99 != 0 {
		t.Error("an empty window tells something")
	}
	for i := range 1000 {
		took := 2 * time.Millisecond
		if i%50 == 0 {
			took = 80 * time.Millisecond
		}
		w.add(now.Add(time.Duration(i)*5*time.Millisecond), took) // 5 s
	}
	rate, p50, p99 := w.read(now.Add(5 * time.Second))
	if rate != 100 || p50 < 2*time.Millisecond || p50 > 2500*time.Microsecond || p99 < 80*time.Millisecond || p99 > 100*time.Millisecond {
		t.Errorf("%v per second, %v, %v", rate, p50, p99)
	}
	if rate, _, _ := w.read(now.Add(13 * time.Second)); rate != 40 {
		t.Errorf("%v per second of what is left in the window", rate)
	}
	if rate, _, _ := w.read(now.Add(time.Minute)); rate != 0 {
		t.Errorf("%v per second of long ago", rate)
	}
	w.add(now.Add(55*time.Second), time.Millisecond) // the slot that had 2 ms
	if rate, p50, _ := w.read(now.Add(56 * time.Second)); rate != 0.1 || p50 > 1250*time.Microsecond {
		t.Errorf("%v per second, %v", rate, p50)
	}
}

func TestWindowBuckets(t *testing.T) {
	for took := time.Duration(1); took < time.Minute; took += took/17 + 1 {
		b := bucketOf(took)
		if top := topOf(b); took > top || took > 1<<windowFirst && took < top*4/5-1 {
			t.Fatalf("%v is in the bucket up to %v", took, top)
		}
	}
	for _, d := range []time.Duration{-1, 0, 1 << 62} {
		if b := bucketOf(d); b < 0 || b >= windowBuckets {
			t.Errorf("%v: bucket %d", d, b)
		}
	}
}
