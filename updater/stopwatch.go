// stopwatch.go: how long a run takes when nobody else has the processor.
package updater

import (
	"time"

	"github.com/inferd/inferd/inference"
)

// stopwatch times a run. What the worker waited for a processor is not the run's: a version is proven at low priority, beside others that
// serve, and what it takes then must not decide about its batches.
type stopwatch struct {
	o      *ProbeOptions
	r      inference.Runner
	began  time.Time
	waited time.Duration
}

func (o *ProbeOptions) stopwatch(r inference.Runner) stopwatch {
	w := stopwatch{o: o, r: r}
	if o.Waited != nil {
		w.waited = o.Waited(r)
	}
	w.began = time.Now()
	return w
}

// took is the time since the start, less what was waited. The waits of threads that wait at once count each, so a tenth is left at least: no
// run takes nothing.
func (w stopwatch) took() time.Duration {
	d := time.Since(w.began)
	least := d / 10
	if w.o.Waited != nil {
		d -= max(0, w.o.Waited(w.r)-w.waited)
	}
	return max(least, d)
}
