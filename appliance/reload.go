// reload.go: a configuration that is read again while everything runs: taken over as a whole, or refused as a whole.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/updater"
)

const (
	applyPatience = 30 * time.Second // the updater's loop never waits for anything; longer means that it is not there
	configSettle  = time.Second      // a file that was written later than that may still be being written
	shownFaults   = 8                // in a condition; the log has every one
)

// errOperator is why the wait of a HandleReloadConfigRequest ends early.
var errOperator = errors.New("the operator had the configuration read again meanwhile")

// settingsOf is the part of a configuration that the updater goes by.
func settingsOf(cfg *config.Config) updater.Settings {
	s := updater.Settings{PollInterval: cfg.Updater.PollInterval, SettleTime: cfg.Updater.SettleTime, EmptyGrace: cfg.Updater.EmptyGrace, DrainTimeout: cfg.DrainTimeout}
	for _, c := range cfg.Models {
		m := updater.Model{Name: c.Name, BasePath: c.BasePath}
		fill(&m, c)
		s.Models = append(s.Models, m)
	}
	return s
}

// Reload reads the configuration again, as the command line said, and takes it over as a whole or not at all; by says who asked. Settings
// that need a restart stay as they are and are named. It returns when the appliance goes by what was taken over; versions load later. What
// was refused is in the log and, until the next reload that is taken over, a condition.
func (a *Appliance) Reload(ctx context.Context, by string) control.Reloaded {
	if a.opts.Reload == nil {
		return a.refuseReload(by, errors.New("this inferd was given its configuration by the program around it, which cannot read it again"))
	}
	a.operators.Add(1)
	defer a.operators.Add(-1)
	if wait := a.listing.Load(); wait != nil {
		(*wait)(errOperator) // it may wait for models as long as its caller likes
	}
	if err := a.takeTurn(ctx); err != nil {
		return a.refuseReload(by, fmt.Errorf("another change of the configuration is under way: %w", err))
	}
	defer a.endTurn()
	defer a.reloading()()
	a.settleConfig(ctx)
	next, ignored, err := a.opts.Reload()
	if err != nil {
		return a.refuseReload(by, err)
	}
	if file := next.Emptied(a.current.Load()); file != "" {
		return a.refuseReload(by, config.Faults{{File: file, Msg: "is empty, as a file is that somebody is about to write; to serve no listed model write models: []"}})
	}
	merged, changes := a.current.Load().Reload(next)
	if err := merged.Validate(); err != nil { // what is new beside what stays
		return a.refuseReload(by, err)
	}
	if err := a.apply(ctx, merged); err != nil {
		return a.refuseReload(by, err)
	}
	for _, i := range ignored {
		if !slices.Contains(a.opts.Ignored, i) {
			a.log.Warn("setting has no meaning here and changes nothing", "name", i.Name, "reason", i.Reason)
		}
	}
	a.log.Info("configuration read again", "path", merged.File(), "reason", by, "changes", len(changes))
	a.logChanges(changes)
	a.reloaded(changes)
	return control.Reloaded{Changes: changed(changes)}
}

// settleConfig waits, not for long, while somebody writes the file: half of one may be a whole configuration that lists fewer models.
func (a *Appliance) settleConfig(ctx context.Context) {
	cfg := a.current.Load()
	if cfg.File() == "" {
		return
	}
	for before, i := "", 0; i < 20; i++ {
		sum, written, err := cfg.LookAt()
		if age := time.Since(written); err != nil || sum == before || age < 0 || age >= configSettle {
			return // what is wrong with it is found when it is read
		}
		before = sum
		select {
		case <-time.After(configSettle / 10):
		case <-ctx.Done():
			return
		}
	}
}

// takeTurn waits until nobody else changes the configuration.
func (a *Appliance) takeTurn(ctx context.Context) error {
	select {
	case a.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (a *Appliance) endTurn() { <-a.turn }

// apply makes cfg the configuration in force. With an error the one before still is.
func (a *Appliance) apply(ctx context.Context, cfg *config.Config) error {
	ctx, cancel := context.WithTimeout(ctx, applyPatience)
	defer cancel()
	before := a.current.Swap(cfg) // first: the updater asks for the settings of the models that it finds
	if err := a.updater.Apply(ctx, settingsOf(cfg)); err != nil {
		a.current.Store(before)
		return err
	}
	a.gate.Set(gateLimits(cfg.Admission))
	a.records.Reset()
	if a.opts.Level != nil {
		_ = a.opts.Level.UnmarshalText([]byte(cfg.Log.Level)) // it was validated
	}
	a.reconfigured.tell()
	return nil
}

func (a *Appliance) refuseReload(by string, err error) control.Reloaded {
	lines := config.Lines(err)
	for _, l := range lines {
		a.log.Error("configuration refused", "err", l, "reason", by, "instead", "the configuration before stays in force")
	}
	shown := lines[:min(len(lines), shownFaults)]
	text := strings.Join(shown, "; ")
	if more := len(lines) - len(shown); more > 0 {
		text += fmt.Sprintf("; and %d more, which the log has", more)
	}
	a.health.Set(health.Condition{Code: health.CodeReload, Severity: health.Warning,
		Message: "the configuration was read again and refused, the one before stays in force: " + text + "; put it right and `inferd reload`"})
	a.news.tell()
	return control.Reloaded{Faults: lines, Changes: []control.Change{}}
}

// reloaded ends the condition of a refusal, and keeps in sight what waits for a restart.
func (a *Appliance) reloaded(changes []config.Change) {
	a.health.Clear(health.CodeReload, "")
	var waits []string
	for _, c := range changes {
		if c.Effect == config.Restart {
			waits = append(waits, c.Key)
		}
	}
	var conditions []health.Condition
	if len(waits) > 0 {
		conditions = append(conditions, health.Condition{Code: health.CodeRestart, Severity: health.Info,
			Message: "settings in the configuration wait for a restart of inferd: " + strings.Join(waits, ", ")})
	}
	a.health.Replace([]string{health.CodeRestart}, conditions)
	a.news.tell()
}

func (a *Appliance) logChanges(changes []config.Change) {
	for _, c := range changes {
		switch c.Effect {
		case config.Restart:
			a.log.Warn("setting needs a restart and stays as it was", "name", c.Key, "from", c.From, "to", c.To)
		case config.NextLoad:
			a.log.Info("setting changed for versions that are loaded from now on", "name", c.Key, "from", c.From, "to", c.To)
		default:
			a.log.Info("setting changed", "name", c.Key, "from", c.From, "to", c.To)
		}
	}
}

func changed(changes []config.Change) []control.Change {
	out := make([]control.Change, 0, len(changes))
	for _, c := range changes {
		out = append(out, control.Change{Key: c.Key, From: c.From, To: c.To, Effect: string(c.Effect)})
	}
	return out
}

// watchConfig has the configuration read again when one of its files has changed, come or gone, where updater.config_poll asks for it, until ctx ends. What is
// wrong with a file is said once.
func (a *Appliance) watchConfig(ctx context.Context) error {
	tried := a.current.Load().Digest()
	for {
		again := a.reconfigured.next()
		every := a.current.Load().Updater.ConfigPoll
		var tick <-chan time.Time
		if every > 0 {
			tick = time.After(every)
		}
		for tick != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-again:
				tick = nil
				continue
			case <-tick:
			}
			if tried, every = a.pollConfig(ctx, tried), a.current.Load().Updater.ConfigPoll; every > 0 {
				tick = time.After(every)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again:
		}
	}
}

// pollConfig looks at the file once. It returns what was tried last: contents, or why they cannot be read.
func (a *Appliance) pollConfig(ctx context.Context, tried string) string {
	cfg := a.current.Load()
	found, written, err := cfg.LookAt()
	if err != nil {
		found = err.Error()
	}
	switch age := time.Since(written); {
	case cfg.File() == "", found == tried:
		return tried
	case err == nil && age >= 0 && age < configSettle:
		return tried // next time
	case found == cfg.Digest() && !a.health.Has(health.CodeReload):
		return found // somebody has had it read already
	}
	a.Reload(ctx, "its file changed")
	return found
}
