// apply.go: what may change while the controller runs, and whether what the change asks for has come about.
package updater

import (
	"context"
	"time"
)

// Settings are what Apply replaces. Zero durations mean default, as in Options.
type Settings struct {
	Models       []Model // those configured
	PollInterval time.Duration
	SettleTime   time.Duration
	EmptyGrace   time.Duration
	DrainTimeout time.Duration
}

// applying is a call of Apply that waits for the loop.
type applying struct {
	settings Settings
	reply    chan error // cap 1
}

// Apply replaces the settings as a whole, and gives the models found in the models directory what Options.Discovered says now. A model
// that is no longer configured is unloaded, unless its folder in the models directory is its base path: then it goes on as a found one.
// It returns when the controller goes by the new settings, and does not wait for what they ask for: see Wait and ModelStatus.Deciding.
// With an error (the list has a fault, ctx ended, the controller stops) nothing has changed.
func (c *Controller) Apply(ctx context.Context, s Settings) error {
	models, err := checkModels(s.Models)
	if err != nil {
		return err
	}
	s.Models = models
	a := applying{settings: s, reply: make(chan error, 1)}
	c.mu.Lock()
	c.ask.applies = append(c.ask.applies, a)
	c.mu.Unlock()
	wake(c.wake)
	select {
	case err := <-a.reply:
		return err
	case <-ctx.Done():
	}
	// Only what the loop has not taken can be taken back.
	c.mu.Lock()
	for i, waiting := range c.ask.applies {
		if waiting.reply == a.reply {
			c.ask.applies = append(c.ask.applies[:i:i], c.ask.applies[i+1:]...)
			c.mu.Unlock()
			return ctx.Err()
		}
	}
	c.mu.Unlock()
	return <-a.reply // the loop has it and never waits
}

// apply goes by the settings.
func (l *loop) apply(s Settings) {
	o := Options{PollInterval: s.PollInterval, SettleTime: s.SettleTime, DrainTimeout: s.DrainTimeout}
	o.defaultTimes()
	l.o.PollInterval, l.o.SettleTime, l.o.StallTime, l.o.EmptyGrace = o.PollInterval, o.SettleTime, o.StallTime, s.EmptyGrace
	l.o.DrainTimeout = o.DrainTimeout
	l.configure(s.Models)
}

// found reports whether a model that is no longer configured goes on as one of the models directory.
func (l *loop) found(m *model) bool {
	return l.root != nil && !m.gone && m.BasePath == joinPath(l.root.dir, m.Name)
}

// refill gives the models of the models directory the settings that such have now.
func (l *loop) refill(now time.Time) {
	for _, name := range sortedKeys(l.models) {
		m := l.models[name]
		if m.configured || !l.found(m) {
			continue
		}
		config := Model{Name: name, BasePath: m.BasePath}
		l.o.Discovered(&config)
		m.dirty = true
		l.reconfigure(m, config, now)
	}
}

// weigh sets whether something that the policy wants is still on its way; a is what was planned of all.
func (l *loop) weigh(m *model, a actions, all []standing, now time.Time) {
	deciding := m.unseen || len(a.Check) > 0 || len(a.Load) > 0 || !m.decided(all, &l.o, now)
	for _, s := range all {
		if s.Phase == phaseBusy {
			for _, dir := range a.Wanted {
				deciding = deciding || dir == s.Dir
			}
		}
	}
	if deciding != m.deciding {
		m.deciding, m.dirty = deciding, true
	}
}
