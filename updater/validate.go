// validate.go: what a whole version must fulfil beside its signatures before it is loaded.
package updater

import (
	"errors"
	"fmt"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

// vet asks Options.Vet about what has been found good so far.
func (c *checked) vet(o *Options, m Model, dir string) {
	if c.broken != nil || c.refused != nil {
		return
	}
	err := o.Vet(m, dir, c.info)
	if errors.Is(err, savedmodel.ErrIncomplete) {
		c.broken = err
	} else {
		c.refused = err
	}
}

// misfit says why the version must not take the place of the one that serves now: it would get the requests that name no version, and
// could not answer them. A version with a lower number gets none of these, and versions listed one by one are the operator's choice.
func (l *loop) misfit(m *model, number int64, info *savedmodel.Info) error {
	if !m.Compatible || len(m.Policy.Specific) > 0 {
		return nil
	}
	h, err := l.c.catalog.Acquire(inference.Spec{Model: m.Name, Steady: true})
	if err != nil {
		return nil // nothing serves
	}
	defer h.Release()
	serving := h.Version()
	if number < serving.Number {
		return nil
	}
	if err := savedmodel.Compatible(serving.Signatures, info.Signatures); err != nil {
		return fmt.Errorf("compared with version %d: %w; if clients know, write compatibility: any", serving.Number, err)
	}
	return nil
}

// compare refuses what has been found good so far where it does not fit.
func (c *checked) compare(l *loop, m *model, v *version) {
	if c.broken == nil && c.refused == nil {
		c.refused = l.misfit(m, v.number, c.info)
	}
}

// compareAgain is for another version that went live since the check.
func (out *outcome) compareAgain(l *loop, m *model, v *version, info *savedmodel.Info) {
	if out.runner == nil {
		return
	}
	if err := l.misfit(m, v.number, info); err != nil {
		l.closeRunner(m, v, out.runner)
		*out = outcome{err: &inference.Error{Code: inference.FailedPrecondition, Msg: err.Error(), Err: err}}
	}
}
