// hung_test.go: paths that hang, at every place where a disk is touched: nobody else waits for them, and neither does the stop.
package updater

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel"
)

const hungModels = 20 // more than there are slots for looks, twice

// hang makes a place of the controller wait for the world's gate where a path is a hung model's.
var hang = map[string]func(w *world, o *Options, hung func(path string)){
	"look": func(w *world, _ *Options, hung func(string)) {
		w.tweak = func(c *Controller) {
			inner := c.look
			c.look = func(base string) look { hung(base); return inner(base) }
		}
	},
	"check": func(_ *world, o *Options, hung func(string)) {
		read := o.Read
		o.Read = func(m Model, dir string) (*savedmodel.Info, error) { hung(dir); return read(m, dir) }
	},
	"print": func(w *world, _ *Options, hung func(string)) {
		w.tweak = func(c *Controller) {
			print := c.print
			c.print = func(dir string) (Print, error) { hung(dir); return print(dir) }
		}
	},
	"seal": func(w *world, _ *Options, hung func(string)) {
		w.tweak = func(c *Controller) {
			c.sync = func(f *os.File) error { hung(f.Name()); return nil }
		}
	},
}

// TestHungPaths: whatever hangs of twenty models costs another one at most the patience for it, and when their paths come back they serve.
func TestHungPaths(t *testing.T) {
	for place, hang := range hang {
		t.Run(place, func(t *testing.T) {
			b := newBox(t)
			b.run(func(w *world, o *Options) {
				put(t, w.sub(1), "")
				hang(w, o, func(path string) {
					if strings.Contains(path, "/hung") {
						<-w.gate
					}
				})
				for i := range hungModels {
					name := fmt.Sprint("hung", i)
					base := filepath.Join(filepath.Dir(w.dir), name)
					put(t, filepath.Join(base, "1"), "")
					o.Models = append([]Model{{Name: name, BasePath: base}}, o.Models...)
				}
				// A load that hangs holds its loader for longer.
				o.Loaders = hungModels + 1
			}, func(w *world) {
				w.pass(10 * time.Second)
				w.wantLive(1)
				put(t, w.sub(2), "")
				w.pass(8 * time.Second)
				w.wantLive(2)
				if v, _ := w.model().Version(1); v.State == StateLive {
					t.Fatalf("version 1 was not retired: %+v", v) // its follower was sealed
				}
				close(w.gate)
				w.pass(8 * time.Second)
				for i := range hungModels {
					if !w.catalog.Available(fmt.Sprint("hung", i)) {
						t.Errorf("hung%d is not live after its path came back", i)
					}
				}
			})
		})
	}
}

// TestStopWhileHung: a look, and an fsync, that never return are not waited for at the stop.
func TestStopWhileHung(t *testing.T) {
	for _, place := range []string{"look", "check", "seal"} {
		t.Run(place, func(t *testing.T) {
			b := newBox(t)
			put(t, b.sub("1"), "")
			b.run(func(w *world, o *Options) {
				hang[place](w, o, func(path string) { <-w.gate })
			}, func(w *world) {
				w.pass(8 * time.Second)
				w.t.Cleanup(func() { close(w.gate) }) // after Run has returned
			})
		})
	}
}
