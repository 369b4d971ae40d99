// route_test.go: shares by count and by key.
package inference

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"testing"
)

type oneKey string

func (k oneKey) RequestKey(string) string { return string(k) }

// namedKey is a key under one header only.
type namedKey struct{ header, key string }

func (k namedKey) RequestKey(header string) string {
	if header == k.header {
		return k.key
	}
	return ""
}

func routed(numbers ...int64) *Catalog {
	c := NewCatalog()
	for _, n := range numbers {
		c.Publish(&Version{Model: "m", Number: n}, &servable{})
	}
	return c
}

func answers(t testing.TB, c *Catalog, spec Spec) int64 {
	t.Helper()
	spec.Model = "m"
	h, err := c.Acquire(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()
	return h.Version().Number
}

// Of every stretch of requests the canary gets its share, but for a few.
func TestRouteByCount(t *testing.T) {
	for _, share := range []float64{0, 0.001, 0.05, 0.25, 0.5, 0.9, 1} {
		c := routed(1, 2)
		c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: share})
		got, every3 := 0, 0
		for i := 1; i <= 3000; i++ {
			if answers(t, c, Spec{}) == 2 {
				got++
				if i%3 == 0 {
					every3++
				}
			}
			if d := math.Abs(float64(got) - share*float64(i)); d > 5 {
				t.Fatalf("share %v: %d of %d went to the canary", share, got, i)
			}
		}
		if d := math.Abs(float64(every3) - share*1000); d > 5 { // of each kind of traffic that repeats itself too
			t.Errorf("share %v: %d of every third 1000 went to the canary", share, every3)
		}
	}
}

func TestRouteByCountRaces(t *testing.T) {
	c := routed(1, 2)
	c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: 0.25})
	var wg sync.WaitGroup
	var got atomic.Int64
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if answers(t, c, Spec{}) == 2 {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := got.Load(); n < 1995 || n > 2005 {
		t.Fatalf("%d of 8000 went to the canary, want 2000", n)
	}
}

// One key goes one way; those on the canary stay there when the share grows; the share of the keys is the share, within what chance does.
func TestRouteByKey(t *testing.T) {
	const keys = 4000
	c := routed(1, 2)
	var before map[string]bool
	for _, share := range []float64{0.05, 0.25, 0.6, 1} {
		c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: share})
		on := make(map[string]bool)
		for i := range keys {
			key := fmt.Sprintf("user-%d", i)
			on[key] = answers(t, c, Spec{Keys: oneKey(key)}) == 2
			for range 2 {
				if again := answers(t, c, Spec{Keys: oneKey(key)}) == 2; again != on[key] {
					t.Fatalf("key %s went both ways", key)
				}
			}
			if before[key] && !on[key] {
				t.Fatalf("key %s left the canary when the share grew to %v", key, share)
			}
		}
		n := 0.0
		for _, canary := range on {
			if canary {
				n++
			}
		}
		if d := math.Abs(n - share*keys); d > 4*math.Sqrt(keys*share*(1-share)) {
			t.Errorf("share %v: %v of %d keys are on the canary", share, n, keys)
		}
		before = on
	}
	c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: 0.5, KeyHeader: "x-user"})
	first := answers(t, c, Spec{Keys: namedKey{"x-user", "a"}})
	for range 10 {
		if answers(t, c, Spec{Keys: namedKey{"x-user", "a"}}) != first {
			t.Fatal("the configured header is not the key's")
		}
	}
}

func TestRouteFallsBack(t *testing.T) {
	for _, test := range []struct {
		name  string
		live  []int64
		route *Route
		spec  Spec
		want  int64
	}{
		{"no route", []int64{1, 2}, nil, Spec{}, 2},
		{"primary", []int64{1, 2}, &Route{Primary: 1}, Spec{}, 1},
		{"primary is not there", []int64{1, 2}, &Route{Primary: 3}, Spec{}, 2},
		{"canary is not there", []int64{1, 2}, &Route{Primary: 1, Canary: 3, Share: 1}, Spec{}, 1},
		{"everything to the canary", []int64{1, 2}, &Route{Primary: 1, Canary: 2, Share: 1}, Spec{}, 2},
		{"a question about the model", []int64{1, 2}, &Route{Primary: 1, Canary: 2, Share: 1}, Spec{Steady: true}, 1},
		{"a number", []int64{1, 2}, &Route{Primary: 1, Canary: 2, Share: 1}, Spec{Version: 1, HasVersion: true}, 1},
		{"a label", []int64{1, 2}, &Route{Primary: 1, Canary: 2, Share: 1}, Spec{Label: "one"}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := NewCatalog()
			c.SetRoute("m", test.route) // a route comes before its versions, and after
			c.SetLabels("m", map[string]int64{"one": 1})
			for _, n := range test.live {
				c.Publish(&Version{Model: "m", Number: n}, &servable{})
			}
			for range 20 {
				if got := answers(t, c, test.spec); got != test.want {
					t.Fatalf("version %d answers, want %d", got, test.want)
				}
			}
		})
	}
	c := routed(1, 2)
	c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: 1})
	c.Retire("m", 2)
	if got := answers(t, c, Spec{}); got != 1 {
		t.Fatalf("version %d answers after the canary was retired", got)
	}
	if r := c.Route("m"); r == nil || r.Canary != 2 || c.Route("n") != nil {
		t.Fatalf("route: %+v", r)
	}
}

func TestRouteAllocatesNothing(t *testing.T) {
	c := routed(1, 2)
	count := func(spec Spec) float64 {
		return testing.AllocsPerRun(200, func() { answers(t, c, spec) })
	}
	plain := count(Spec{})
	c.SetRoute("m", &Route{Primary: 1, Canary: 2, Share: 0.5})
	var keys Keyed = oneKey("somebody")
	if a, b := count(Spec{}), count(Spec{Keys: keys}); a > plain || b > plain {
		t.Fatalf("allocations: %v without a route, %v with one, %v with a key", plain, a, b)
	}
}
