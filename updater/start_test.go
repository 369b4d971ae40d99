// start_test.go: what a start loads first, and how many loads it runs at once.
package updater

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel"
)

// neighbour adds a model of one version that lies beside m.
func neighbour(w *world, o *Options, name, script string) {
	base := filepath.Join(filepath.Dir(w.dir), name)
	put(w.t, filepath.Join(base, "1"), script)
	o.Models = append(o.Models, Model{Name: name, BasePath: base})
}

// order is the models in the order in which their loads were begun.
type order struct {
	mu    sync.Mutex
	names []string
}

func (r *order) add(c Candidate) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.names = append(r.names, c.Model.Name)
}

func (r *order) want(t *testing.T, names string) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if got := strings.Join(r.names, " "); got != names {
		t.Fatalf("loaded %q, want %q", got, names)
	}
}

// delayed has the models' versions read only after so long, or when the gate is opened.
func delayed(w *world, o *Options, by map[string]time.Duration) {
	read := o.Read
	o.Read = func(m Model, dir string) (*savedmodel.Info, error) {
		select {
		case <-time.After(by[m.Name]):
		case <-w.gate:
		}
		return read(m, dir)
	}
}

// TestServedLoadsFirst: after a restart what served is loaded before what is new, also where it takes longer to be looked at; what hangs there holds the
// others up for a while only.
func TestServedLoadsFirst(t *testing.T) {
	for _, c := range []struct {
		name  string
		slow  time.Duration // until what served has been read
		at    time.Duration
		loads string
	}{
		{"at once", 0, 5 * time.Second, "m new"},
		{"slow", 6 * time.Second, 20 * time.Second, "m new"},
		{"hung", time.Hour, startWait - time.Second, ""},
		{"hung for longer", time.Hour, startWait + time.Second, "new"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBox(t)
			put(t, b.sub("1"), "")
			b.run(nil, func(w *world) { w.pass(5 * time.Second) })
			var got order
			b.run(func(w *world, o *Options) {
				neighbour(w, o, "new", "")
				slices.Reverse(o.Models)
				o.Loaders, w.during = 1, got.add
				delayed(w, o, map[string]time.Duration{"m": c.slow})
			}, func(w *world) {
				w.pass(c.at)
				got.want(t, c.loads)
				close(w.gate)
				w.pass(5 * time.Second)
			})
		})
	}
}

// TestAskedLoadsFirst: of what served and waits for a loader, what an operator had asked for goes first.
func TestAskedLoadsFirst(t *testing.T) {
	for _, by := range []string{"pin", "label"} {
		t.Run(by, func(t *testing.T) {
			b := newBox(t)
			put(t, b.sub("1"), "slow")
			models := func(w *world, o *Options) {
				neighbour(w, o, "plain", "")
				neighbour(w, o, "asked", "")
				if by == "label" {
					o.Models[2].Labels = map[string]int64{"stable": 1}
				}
			}
			b.run(models, func(w *world) {
				close(w.gate)
				w.pass(5 * time.Second)
				if by == "pin" {
					w.ask(w.c.Pin(w.t.Context(), "asked", 1, "ann"))
				}
			})
			var got order
			b.run(func(w *world, o *Options) {
				models(w, o)
				o.Loaders, w.during = 1, got.add
				delayed(w, o, map[string]time.Duration{"plain": time.Second, "asked": 2 * time.Second})
			}, func(w *world) {
				w.pass(5 * time.Second) // m has the loader until the gate opens
				got.want(t, "m")
				close(w.gate)
				w.pass(5 * time.Second)
				got.want(t, "m asked plain")
			})
		})
	}
}

// TestLoadsAtTheStart: until all that was there is decided more loads run at once than after that.
func TestLoadsAtTheStart(t *testing.T) {
	const models, atStart, later = 7, 5, 2
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "slow")
		for i := range models - 1 {
			neighbour(w, o, fmt.Sprint("m", i), "slow")
		}
		o.StartLoaders = atStart
	}, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		if n := w.loadCount("1"); n != atStart {
			t.Fatalf("%d loads at once at the start, want %d", n, atStart)
		}
		again := make(chan struct{})
		close(w.gate)
		w.pass(5 * time.Second)
		w.mu.Lock()
		w.gate = again
		w.mu.Unlock()
		for i := range models - 1 {
			put(t, filepath.Join(filepath.Dir(w.dir), fmt.Sprint("m", i), "2"), "slow")
		}
		w.pass(10 * time.Second)
		if n := w.loadCount("2"); n != later {
			t.Fatalf("%d loads at once later, want %d", n, later)
		}
		close(again)
		w.pass(10 * time.Second)
	})
}
