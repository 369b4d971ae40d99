// rollout.go: how a model's new versions take over, and what that means for its requests at the moment.
package updater

import (
	"fmt"
	"slices"

	"github.com/inferd/inferd/inference"
)

// Rollout says how a new version comes to answer the requests that name none.
type Rollout struct {
	// Steps are the shares of these requests, each from 0 to 1, that the version gets one after the other, with a probation at each,
	// before it gets all and the old one is retired. Empty: it gets all at once, and the old one stays loaded for its probation.
	Steps []float64
	// KeyHeader is what a request key is called; empty: inference.DefaultKeyHeader.
	KeyHeader string
}

func (r Rollout) clone() Rollout {
	r.Steps = slices.Clone(r.Steps)
	return r
}

// share is what the canary gets at a step.
func (r Rollout) share(step int) float64 {
	if len(r.Steps) == 0 {
		return 1
	}
	return r.Steps[min(step, len(r.Steps)-1)]
}

// route is what the model's requests that name no version need at the moment; nil: the highest live version.
func (m *model) route() *inference.Route {
	if t := m.rec.Trial; t != nil && len(m.Rollout.Steps) > 0 {
		return &inference.Route{Primary: t.Against, Canary: t.Number, Share: m.Rollout.share(t.Step), KeyHeader: m.Rollout.KeyHeader}
	}
	for i, v := range m.serves() {
		if _, held := m.heldBack(v); v.doom == nil && !held {
			if i == 0 {
				return nil
			}
			return &inference.Route{Primary: v.number} // what is above it was found bad, or rolled back from
		}
	}
	return nil
}

// serves is every live version, highest number first.
func (m *model) serves() (out []*version) {
	for _, v := range m.ordered() {
		if v.state == StateLive {
			out = append(out, v)
		}
	}
	return out
}

// applyRoute gives the catalog the model's route.
func (l *loop) applyRoute(m *model) {
	r := m.route()
	if r == nil && m.routed == nil || r != nil && m.routed != nil && *r == *m.routed {
		return
	}
	m.routed = r
	l.c.catalog.SetRoute(m.Name, r)
}

// shareText is a share for people.
func shareText(share float64) string { return fmt.Sprintf("%.4g%%", share*100) }
