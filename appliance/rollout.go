// rollout.go: what the updater is told of live versions and of memory, so that it can watch a new one and make room for it.
package appliance

import (
	"context"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// Predict is the batcher's, counted.
func (s *servable) Predict(ctx context.Context, req *inference.Request) (*inference.Response, error) {
	began := s.begin()
	resp, err := s.Batcher.Predict(ctx, req)
	s.end(began, err)
	s.meter.Answer(resp, err)
	return resp, err
}

// Measure implements updater.Measured. Of a process that versions share neither deaths nor memory are anyone's own, and are left out.
func (s *servable) Measure() updater.Measures {
	m := s.meter.Measures()
	if w, ok := s.runner.(*worker.Model); ok && !w.Shared() {
		m.Deaths, m.LastDeath, m.Memory = w.Vitals()
	}
	return m
}

// Watch implements updater.Measured.
func (s *servable) Watch(on bool) { s.meter.Watch(on) }

// rollout is how the model's new versions take over, as the updater has it.
func rollout(m *updater.Model, c config.Model) {
	m.Rollout = updater.Rollout{KeyHeader: c.Rollout.KeyHeader}
	if c.Rollout.Strategy == config.Canary {
		m.Rollout.Steps = c.Rollout.Steps
		if len(m.Rollout.Steps) == 0 {
			m.Rollout.Steps = []float64{c.Rollout.Share}
		}
	}
	p := c.Probation
	m.Probation = updater.Probation{
		Time: p.Time, Requests: p.Requests, Errors: p.Errors, NaN: p.NaN, Latency: p.Latency, Memory: int64(p.Memory), Deaths: p.Deaths,
	}
	m.Transition = map[config.Transition]updater.Transition{
		config.TransitionAuto: updater.Auto, config.AvailabilityPreserving: updater.AvailabilityPreserving,
		config.ResourcePreserving: updater.ResourcePreserving, config.TransitionBeside: updater.Beside,
	}[c.Transition]
}

// trialConditions say that the version that serves was found bad with nothing to go back to, or that a version waits for memory.
func trialConditions(m updater.ModelStatus) (out []health.Condition) {
	if m.Alarm != "" {
		out = append(out, health.Condition{Code: health.CodeTrial, Model: m.Name, Severity: health.Warning, Message: m.Alarm})
	}
	for _, v := range m.Versions {
		if v.Code == inference.ResourceExhausted && v.State == updater.StateSeen {
			out = append(out, health.Condition{Code: health.CodeMemory, Model: m.Name, Severity: health.Warning, Message: v.Reason})
			break
		}
	}
	return out
}

// trialOf is the model's trial for operators, nil when there is none.
func trialOf(m updater.ModelStatus) *control.Trial {
	t := m.Trial
	if t == nil {
		return nil
	}
	counts := func(c updater.TrialCounts) control.TrialCounts {
		return control.TrialCounts{
			Requests: c.Requests, Failed: c.Failed, Refused: c.Refused, Checked: c.Checked, NaN: c.NaN, Deaths: c.Deaths,
			RunMillis: float64(c.Run) / float64(time.Millisecond), MemoryBytes: c.Memory,
		}
	}
	return &control.Trial{
		Version: t.Version, Against: t.Against, Loaded: t.Beside, Begun: t.Begun, Since: t.Since, Ends: t.Since.Add(t.Limits.Time), Requests: t.Limits.Requests,
		Share: t.Share, Step: t.Step, Steps: t.Steps, New: counts(t.New), Old: counts(t.Old),
	}
}

// room is the memory that another worker may take.
func (l *loader) room() (free int64, why string, ok bool) {
	return l.memory.room(int64(l.cfg.Runtime.WorkerMemoryLimit))
}
