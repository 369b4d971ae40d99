// unload.go: a model that an operator has unloaded as a whole: none of its versions is wanted until he loads it again.
package updater

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// off says who unloaded the model.
type off struct {
	By string `json:"by,omitempty"`
}

// Unload makes no version of the model wanted, over restarts, until Load or Pin. It returns when no request is let in any more; those in flight are
// answered. A load under way is called off. by names who asked.
func (c *Controller) Unload(ctx context.Context, name, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.unload(m, by) })
}

// Load makes the model follow its policy (or its pin) again, tries once more its highest version where that was refused, and blocks until everything that is
// wanted is live or has failed. That the highest version was refused, or that none is live, is the error: FAILED_PRECONDITION, with the reason.
func (c *Controller) Load(ctx context.Context, name, by string) (string, error) {
	text, err := c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.load(m, by) })
	if err != nil {
		return "", err
	}
	s, err := c.Wait(ctx, func(s Status) bool {
		m, known := s.Model(name)
		return !known || m.Unloaded || !m.Deciding
	})
	m, known := s.Model(name)
	switch {
	case err != nil:
		e := *inference.AsError(err)
		e.Msg = fmt.Sprintf("model %s is not loaded in time; that goes on, and its status tells how far it is", name)
		return "", &e
	case !known || m.Unloaded:
		return "", unwilling("model %s was unloaded again before it was loaded", name)
	}
	if highest := len(m.Versions) > 0 && m.Versions[0].State == StateQuarantined; highest && !slices.Contains(m.Live, m.Versions[0].Number) {
		return "", unwilling("%s", m.Versions[0].Reason)
	}
	if len(m.Live) == 0 {
		why := "its base path holds no version"
		if m.Problem != "" {
			why = m.Problem
		} else if len(m.Versions) > 0 {
			why = fmt.Sprintf("version %d is %v: %s", m.Versions[0].Number, m.Versions[0].State, m.Versions[0].Reason)
		}
		return "", unwilling("model %s has nothing to load: %s", name, why)
	}
	return text, nil
}

func (l *loop) unload(m *model, by string) (string, error) {
	if m.rec.Off != nil {
		return fmt.Sprintf("model %s is unloaded already, by %s", m.Name, orInferd(m.rec.Off.By)), nil
	}
	m.rec.Off = &off{By: by}
	if m.cancel != nil {
		m.cancel()
	}
	l.noteBy(m, "unloaded", 0, "", by)
	return fmt.Sprintf("model %s is unloaded until `inferd models load %s`", m.Name, m.Name), nil
}

func (l *loop) load(m *model, by string) (string, error) {
	was := m.rec.Off
	m.rec.Off = nil
	m.unseen = true
	m.hint(l, time.Now())
	if was != nil {
		l.noteBy(m, "loaded", 0, "", by)
	}
	if all := m.ordered(); len(all) > 0 && all[0].state == StateQuarantined && all[0].present && !all[0].kept {
		return l.retry(m, all[0].number, by)
	}
	return fmt.Sprintf("model %s is loaded as its policy says: %v", m.Name, m.policy()), nil
}

// offText says why nothing of the model is wanted, "" where something is.
func (m *model) offText() string {
	if m.rec.Off == nil {
		return ""
	}
	return fmt.Sprintf("unloaded by %s", orInferd(m.rec.Off.By))
}
