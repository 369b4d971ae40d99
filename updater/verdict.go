// verdict.go: how a trial ends, what that means for the requests, and what a trial looks like from outside.
package updater

import (
	"context"
	"fmt"
	"time"

	"github.com/inferd/inferd/inference"
)

// breached ends the trial badly: what is left to go back to answers from now on.
func (l *loop) breached(m *model, breach string) {
	r, v := m.rec.Trial, m.trial.v
	old := m.serving(r.Against)
	var to string
	switch {
	case old != nil && old.doom == nil:
		to = fmt.Sprintf("gone back to version %d", old.number)
		m.rec.Haven = &old.number
	case m.other(v) != nil:
		to = fmt.Sprintf("going back to version %d, which has to be loaded", m.other(v).number)
	default:
		l.endTrial(m)
		v.alarm = fmt.Sprintf("model %s version %d is worse than version %d on probation: %s; it goes on serving, for no other version serves or can be loaded; publish a better one",
			m.Name, r.Number, r.Against, breach)
		l.note(m, "breach", r.Number, breach+"; it goes on serving, for there is no other version")
		l.log.Error("version on probation is bad, and there is no other", "model", m.Name, "version", r.Number, "err", breach)
		return
	}
	l.endTrial(m)
	defer func() {
		if v.state == StateLive && v.doom != nil {
			l.partWith(m, v.doom.reason)
		}
	}()
	l.condemn(m, v, inference.FailedPrecondition, breach+"; "+to,
		fmt.Sprintf("publish a better one under a higher number, or `inferd models retry %s %d` tries it again, on probation", m.Name, r.Number))
}

// other is a version that can take v's place: the highest that serves, or that lies there and was not found bad.
func (m *model) other(v *version) *version {
	for _, o := range m.ordered() {
		_, held := m.heldBack(o)
		if o.number != v.number && o.doom == nil && o.state != StateQuarantined && o.incomplete == "" && !held &&
			(o.state == StateLive || o.present && eligible(m.policy(), o.number)) {
			return o
		}
	}
	return nil
}

// passed ends the trial well; why is empty when it came to its end.
func (l *loop) passed(m *model, why string) {
	r := m.rec.Trial
	text := m.trialFigures()
	if why != "" {
		text = joinReasons(why, text)
	}
	l.endTrial(m)
	m.overtaken(r.Number)
	l.note(m, "passed probation", r.Number, text)
	l.log.Info("version passed probation", "model", m.Name, "version", r.Number, "reason", text)
	l.applyRoute(m)
	l.partWith(m, fmt.Sprintf("version %d passed its probation", r.Number))
}

// partWith retires what serves and is not wanted among those that serve: a trial may have held up a newer version, which is on its way now
// and would keep all of them loaded.
func (l *loop) partWith(m *model, why string) {
	all := l.standings(m, time.Now())
	for i := range all {
		if all[i].Phase != phaseLive && all[i].Phase != phaseProving {
			all[i].Barred = true
		}
	}
	for _, dir := range plan(m.policy(), all, false, false).Retire {
		l.retire(m, m.versions[dir], why)
	}
}

// calledOff ends the trial without a verdict.
func (l *loop) calledOff(m *model, why string) {
	r := m.rec.Trial
	l.endTrial(m)
	l.note(m, "probation ended", r.Number, why)
	l.log.Info("probation ended without a verdict", "model", m.Name, "version", r.Number, "reason", why)
}

// endTrial leaves the route to the caller: a version that is to be condemned must not get all requests in between.
func (l *loop) endTrial(m *model) {
	if m.trial != nil {
		watch(m.trial.v, false)
	}
	if old := m.serving(m.rec.Trial.Against); old != nil {
		watch(old, false)
	}
	m.trial, m.rec.Trial, m.dirty = nil, nil, true
}

// Promote ends the trial of the model's new version well, at once: it gets every request that names no version, and the old one is
// retired. The error is NOT_FOUND or, where no version is on probation, FAILED_PRECONDITION.
func (c *Controller) Promote(ctx context.Context, name, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) {
		r := m.rec.Trial
		if r == nil || m.trial == nil {
			return "", unwilling("no version of model %s is on probation, so there is nothing to promote", m.Name)
		}
		l.noteBy(m, "promoted", r.Number, "", by)
		l.passed(m, "promoted by "+orInferd(by))
		return fmt.Sprintf("model %s version %d is no longer on probation; version %d is retired", m.Name, r.Number, r.Against), nil
	})
}

// trialFigures are what the trial has brought, for the history.
func (m *model) trialFigures() string {
	t, r := m.trial, m.rec.Trial
	if t == nil {
		return ""
	}
	return fmt.Sprintf("%s in %v; version %d: %s", figures(t.e.New), time.Since(t.since).Round(time.Second), r.Against, figures(t.e.Old))
}

func figures(m Measures) string {
	text := fmt.Sprintf("%d requests, %d failed, NaN in %d of %d", m.Requests, m.Failed+m.Refused, m.NaN, m.Checked)
	if d := m.median(); d > 0 {
		text += fmt.Sprintf(", runs of %v", rounded(d))
	}
	return text
}

// TrialStatus is a trial at one moment.
type TrialStatus struct {
	Version, Against int64
	Beside           bool      // the old version is loaded meanwhile
	Begun, Since     time.Time // of the trial, and of its step
	Share            float64   // of the requests that name no version: what the new one gets
	Step, Steps      int       // from 1; Steps is 0 with a version that got every request at once
	Limits           Probation
	New, Old         TrialCounts // Old are from before the trial, unless both share the requests
}

// TrialCounts are what one version has come to.
type TrialCounts struct {
	Requests, Failed, Refused, Checked, NaN int64
	Deaths                                  int
	Run                                     time.Duration // the median run; 0: none
	Memory                                  int64         // bytes of its worker; 0: not known
}

func (m *model) trialStatus() *TrialStatus {
	t, r := m.trial, m.rec.Trial
	if t == nil || r == nil {
		return nil
	}
	s := &TrialStatus{
		Version: r.Number, Against: r.Against, Beside: m.serving(r.Against) != nil, Begun: r.At, Since: t.since, Share: m.Rollout.share(r.Step),
		Steps: len(m.Rollout.Steps), Limits: m.Probation, New: countsOf(t.e.New), Old: countsOf(t.e.Old),
	}
	if s.Steps > 0 {
		s.Step = min(r.Step+1, s.Steps)
	}
	return s
}

func countsOf(m Measures) TrialCounts {
	return TrialCounts{Requests: m.Requests, Failed: m.Failed, Refused: m.Refused, Checked: m.Checked, NaN: m.NaN, Deaths: m.Deaths,
		Run: m.median(), Memory: m.Memory}
}
