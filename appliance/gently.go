// gently.go: which loads have low priority, so that what serves keeps its latency.
package appliance

import (
	"context"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// gently reports whether the candidate is to be loaded and proven at low priority: when something serves that it could disturb, and at the
// first attempt only. Later ones may be there because the first one got no processor.
func (l *loader) gently(c updater.Candidate) bool {
	return !l.alone && c.Attempt <= 1 && len(l.live.all()) > 0
}

// promote gives a proven runner the priority to serve with.
func promote(ctx context.Context, r inference.Runner) error {
	if m, ok := r.(*worker.Model); ok {
		return m.Promote(ctx)
	}
	return nil
}

// waited is how long the runner's worker has waited for processors that others had.
func waited(r inference.Runner) time.Duration {
	if m, ok := r.(*worker.Model); ok {
		return m.Waited()
	}
	return 0
}
