// room_test.go: versions for which there is no memory beside what serves.
package updater

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// roomy is a model whose loads are held against what w says is free.
func roomy(tr Transition, free *int64) func(w *world, o *Options) {
	return func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Transition = tr
		o.Room = func() (int64, string, bool) {
			w.mu.Lock()
			defer w.mu.Unlock()
			return *free, "the test says so", true
		}
	}
}

func TestTransitions(t *testing.T) {
	const mb = 1 << 20
	for name, test := range map[string]struct {
		tr     Transition
		free   int64
		script string  // of version 2
		live   []int64 // in the end
		text   string  // of version 2
		gap    bool    // version 1 was unloaded first
	}{
		"beside fits":                     {Auto, 1000 * mb, "", []int64{2, 1}, "", false},
		"does not fit beside":             {Auto, 100 * mb, "", []int64{2}, "", true},
		"does not fit at all":             {Auto, 10 * mb, "", []int64{1}, "RESOURCE_EXHAUSTED: model m version 2 is not loaded: it needs about 188 MB beside what serves, and 10 MB are free (the test says so); still serving version 1", false},
		"the old one is kept":             {AvailabilityPreserving, 100 * mb, "", []int64{1}, "RESOURCE_EXHAUSTED", false},
		"the old one is unloaded first":   {ResourcePreserving, 1000 * mb, "", []int64{2}, "", true},
		"the new one fails":               {ResourcePreserving, 1000 * mb, "run INTERNAL", []int64{1}, "could not be loaded and run", true},
		"the new one fails for a while":   {ResourcePreserving, 1000 * mb, "load UNAVAILABLE", []int64{1}, "could not be loaded and run", true},
		"nobody asks":                     {Beside, 0, "", []int64{2, 1}, "", false},
		"the new one fails, it would fit": {Auto, 100 * mb, "run INTERNAL", []int64{1}, "could not be loaded and run", true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			free := test.free
			b.run(roomy(test.tr, &free), func(w *world) {
				put(t, b.sub("1"), "some script that nobody runs")
				w.counts(1, Measures{Memory: 150 * mb})
				w.pass(5 * time.Second)
				w.wantLive(1)
				put(t, b.sub("2"), test.script+strings.Repeat(" ", 28-len(test.script)))
				var alone atomic.Bool
				w.mu.Lock()
				w.during = func(c Candidate) {
					if c.Number == 2 {
						h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
						if err == nil {
							h.Release()
						}
						alone.Store(err != nil)
					}
				}
				w.mu.Unlock()
				w.pass(20 * time.Second)
				w.wantLive(test.live...)
				if alone.Load() != test.gap {
					t.Errorf("version 1 was unloaded before the load: %v", alone.Load())
				}
				if v, _ := w.model().Version(2); !strings.Contains(v.Reason, test.text) {
					t.Errorf("reason: %s", v.Reason)
				}
			})
		})
	}
}

// A version that waits for memory is tried again as soon as there is some, and is one line of history until then.
func TestWaitsForMemory(t *testing.T) {
	b := newBox(t)
	free := int64(0)
	b.run(roomy(AvailabilityPreserving, &free), func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(5 * time.Minute)
		w.wantLive(1)
		w.wantPublic("2 END RESOURCE_EXHAUSTED, 1 AVAILABLE")
		if v, _ := w.model().Version(2); v.Code != inference.ResourceExhausted || w.loadCount("2") != 0 {
			t.Fatalf("%+v", v)
		}
		events := strings.Join(w.events(), ", ")
		if strings.Count(events, "no room 2") != 1 || strings.Count(events, "trying 2") != 1 {
			t.Fatal(events)
		}
		w.mu.Lock()
		free = 1 << 40
		w.mu.Unlock()
		w.pass(roomRetry + time.Second)
		w.wantLive(2, 1)
	})
}

// A model of which nothing serves is always tried.
func TestNothingServesNothingIsLost(t *testing.T) {
	free := int64(0)
	start(t, roomy(AvailabilityPreserving, &free), func(t *testing.T, w *world) {
		put(t, w.sub(1), "")
		w.pass(5 * time.Second)
		w.wantLive(1)
	})
}

func TestNoRoomIsAnError(t *testing.T) {
	var e *NoRoom
	if err := error(&NoRoom{Need: 5e6, Free: 1e6, Why: "x"}); !errors.As(err, &e) || err.Error() != "it needs about 5 MB beside what serves, and 1 MB are free (x)" {
		t.Fatal(err)
	}
}

// What a version needs goes by what the one that serves took, but no small file makes a giant of a larger one.
func TestScaled(t *testing.T) {
	const mb = 1 << 20
	for _, c := range []struct {
		name             string
		took, old, files int64
		atLeast, atMost  int64
	}{
		{"the same size", 232 * mb, 100 * mb, 100 * mb, 232 * mb, 300 * mb},
		{"twice the size", 232 * mb, 100 * mb, 200 * mb, 432 * mb, 600 * mb},
		{"half the size", 232 * mb, 100 * mb, 50 * mb, 132 * mb, 200 * mb},
		{"tiny before", 37 * mb, 1203, 4 * mb, 40 * mb, 80 * mb},
		{"tiny now", 500 * mb, 200 * mb, 1203, 32 * mb, 160 * mb},
		{"little memory before", 30 * mb, 1 * mb, 100 * mb, 130 * mb, 160 * mb},
	} {
		if got := scaled(c.took, c.old, c.files); got < c.atLeast || got > c.atMost {
			t.Errorf("%s: %d MB, want %d to %d", c.name, got>>20, c.atLeast>>20, c.atMost>>20)
		}
	}
}

// A load that its maker does not begin for want of memory waits, with nothing serving too, and is no fault of the version.
func TestLoadThatHadNoRoom(t *testing.T) {
	b := newBox(t)
	var full atomic.Bool
	full.Store(true)
	b.run(func(w *world, o *Options) {
		probing()(w, o)
		load := o.Load
		o.Load = func(ctx context.Context, c Candidate) (inference.Runner, error) {
			if c.Need < workerBytes || c.Least > c.Need {
				t.Errorf("needs %d, at least %d", c.Need, c.Least)
			}
			if full.Load() {
				return nil, fmt.Errorf("load: %w", &NoRoom{Need: c.Need, Free: 1e6, Why: "by memory.limit"})
			}
			return load(ctx, c)
		}
	}, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(5 * time.Minute)
		w.wantLive()
		w.wantPublic("1 END RESOURCE_EXHAUSTED")
		if !w.model().Verdict {
			t.Error("the first verdict is waited for as long as the memory")
		}
		if v, _ := w.model().Version(1); v.State == StateQuarantined || !strings.Contains(v.Reason, "memory.limit, the service's MemoryMax") {
			t.Fatalf("%+v", v)
		}
		if events := strings.Join(w.events(), ", "); strings.Count(events, "no room 1") != 1 {
			t.Fatal(events)
		}
		full.Store(false)
		w.c.RoomFreed()
		w.pass(0)
		w.wantLive(1)
	})
}
