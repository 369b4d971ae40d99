// tuned.go: what operators are told of how versions are run, and measuring again.
package appliance

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/updater"
)

// Tuned implements [control.Tuning].
func (a *Appliance) Tuned(model string) ([]control.Tuned, error) {
	versions, known := a.catalog.Status(model)
	if !known {
		return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "no model is called %q", model)
	}
	list := []control.Tuned{}
	for _, v := range versions {
		h, err := a.catalog.Acquire(inference.Spec{Model: model, Version: v.Version, HasVersion: true})
		if err != nil {
			continue // it does not answer
		}
		if s, ok := h.Servable().(*servable); ok {
			list = append(list, s.tuned())
		}
		h.Release()
	}
	slices.SortFunc(list, func(x, y control.Tuned) int { return cmp.Compare(y.Version, x.Version) })
	if len(list) == 0 {
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "no version of model %s is live", model)
	}
	return list, nil
}

func (s *servable) tuned() control.Tuned {
	t := control.Tuned{Model: s.model, Version: s.version}
	key, times, rows := s.Curve()
	t.Signature, t.Rows = key, rows
	for _, r := range times {
		t.Runs = append(t.Runs, control.TunedRun{Rows: r.Rows, Micros: r.Took.Microseconds()})
	}
	w := s.from.tuner.wayOf(s.runner)
	if w == nil {
		t.Text, t.Reason = "as it was saved", "isolation: none has one set of threads for all models"
		return t
	}
	t.Plan, t.Plain, t.Text = w.plan, w.plan, w.plan.String()
	switch r := w.record; {
	case w.key == "":
		t.Reason = "optimize is off"
	case r == nil:
		t.Reason = "it was not measured to the end; it is when it is loaded next"
	default:
		t.Plain, t.Measured, t.TookMicros, t.CPU, t.Runtime, t.Tried, t.Reason = r.Plain, r.At, r.Took.Microseconds(), r.CPU, r.Runtime, r.Tried, r.Reason
	}
	return t
}

// Retune implements [control.Tuning].
func (a *Appliance) Retune(ctx context.Context, model, by string) (string, error) {
	if _, err := a.Tuned(model); err != nil {
		return "", err
	}
	if err := a.load.settled(ctx); err != nil {
		return "", err
	}
	_, err := a.updater.Renew(ctx, updater.Renewal{Only: model, Why: "measured again, for " + by, With: again})
	if err != nil {
		return "", err
	}
	list, err := a.Tuned(model)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("model %s version %d was measured again: %s", model, list[0].Version, list[0].Text), nil
}
