// tracker.go: the current conditions, and live and ready derived from them.

// Package health holds the current conditions of the appliance and derives live, ready and status from them.
//
// Invariants:
//  1. Health is data: /healthz, /readyz, grpc.health.v1, `inferd status` and systemd's STATUS line are views of one [Report].
//  2. Live says that the process works; only a condition of severity Dead takes it away.
//  3. Ready comes when everything has been looked at, every model has had its first verdict, and every model that is configured and
//     not optional has a live version. From then on no model takes it away: not a bad new version, not a later failure, not a load
//     under way, not a model that is added. Only a condition of severity Unready or Dead does, while it lasts.
//  4. No models at all is ready.
//
// A Tracker may be used from any goroutine and never calls out. It is not for deciding anything about models: it is told.
package health

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Model is what the updater knows of a model, as far as health is concerned.
type Model struct {
	Name     string
	Required bool // configured by name and not optional: the appliance is not ready without it
	Verdict  bool // every version that was there at first has been served, refused or found incomplete
	Live     bool // a version of it answers
	Reason   string
}

// Tracker holds the conditions. The zero value is not usable; see New.
type Tracker struct {
	mu         sync.Mutex
	conditions map[key]Condition // guarded by mu: set by Set
	models     []Model           // guarded by mu: by name
	told       bool              // guarded by mu: SetModels has been called with scanned
	reached    bool              // guarded by mu: the models have been ready once
	since      time.Time         // guarded by mu: of New, for conditions that come from the models
	first      map[key]time.Time // guarded by mu: when each condition that comes from the models began
}

type key struct{ code, model string }

// New is a tracker that is live and, until it has been told of the models, not ready.
func New() *Tracker {
	return &Tracker{conditions: make(map[key]Condition), first: make(map[key]time.Time), since: time.Now()}
}

// Set records a condition or renews its message and severity; its Since stays that of the first time. A zero Since means now.
func (t *Tracker) Set(c Condition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := key{c.Code, c.Model}
	if old, ok := t.conditions[k]; ok {
		c.Since = old.Since
	} else if c.Since.IsZero() {
		c.Since = time.Now()
	}
	t.conditions[k] = c
}

// Clear ends a condition. Clearing what is not set does nothing.
func (t *Tracker) Clear(code, model string) {
	t.mu.Lock()
	delete(t.conditions, key{code, model})
	t.mu.Unlock()
}

// Has reports whether a condition about the appliance as a whole that Set or Replace recorded lasts.
func (t *Tracker) Has(code string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.conditions[key{code, ""}]
	return ok
}

// Replace makes conditions the only ones with these codes: those that are not among them end, the others are as by Set.
func (t *Tracker) Replace(codes []string, conditions []Condition) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	fresh := make(map[key]Condition, len(conditions))
	for _, c := range conditions {
		k := key{c.Code, c.Model}
		if old, ok := t.conditions[k]; ok {
			c.Since = old.Since
		} else if c.Since.IsZero() {
			c.Since = now
		}
		fresh[k] = c
	}
	for k := range t.conditions {
		if slices.Contains(codes, k.code) {
			delete(t.conditions, k)
		}
	}
	for k, c := range fresh {
		t.conditions[k] = c
	}
}

// SetModels replaces what is known of the models. scanned says that every base path and the models directory have been looked at once;
// once true it stays so.
func (t *Tracker) SetModels(scanned bool, models []Model) {
	models = slices.SortedFunc(slices.Values(models), func(a, b Model) int { return strings.Compare(a.Name, b.Name) })
	t.mu.Lock()
	defer t.mu.Unlock()
	t.models = models
	t.told = t.told || scanned
	now := time.Now()
	seen := make(map[key]bool)
	for _, c := range t.fromModels() {
		k := key{c.Code, c.Model}
		seen[k] = true
		if t.first[k].IsZero() {
			t.first[k] = now
		}
	}
	for k := range t.first {
		if !seen[k] {
			delete(t.first, k)
		}
	}
	if t.told && !slices.ContainsFunc(models, func(m Model) bool { return m.lacks() != "" }) {
		t.reached = true
	}
}

// lacks is what the model still lacks for the appliance to be ready for the first time, empty when nothing.
func (m Model) lacks() string {
	switch {
	case !m.Verdict:
		return "has had no first verdict yet"
	case m.Required && !m.Live:
		return "has no version that answers"
	default:
		return ""
	}
}

// fromModels are the conditions that follow from the models. mu is held.
func (t *Tracker) fromModels() []Condition {
	var out []Condition
	if !t.told {
		out = append(out, Condition{Code: CodeScanning, Severity: Unready, Since: t.since, Message: "the models have not all been looked at yet"})
	}
	for _, m := range t.models {
		c := Condition{Model: m.Name, Severity: Warning}
		switch {
		case m.Live:
			continue
		case !m.Verdict:
			c.Code = CodeVerdict
			c.Message = fmt.Sprintf("model %s has had no first verdict yet", m.Name)
		default:
			c.Code = CodeNoLive
			c.Message = fmt.Sprintf("model %s has no version that answers", m.Name)
		}
		if m.Reason != "" {
			c.Message += ": " + m.Reason
		}
		if !m.Required && m.Verdict {
			c.Severity = Info
		}
		if !t.reached && m.lacks() != "" {
			c.Severity = Unready
		}
		c.Since = t.first[key{c.Code, c.Model}]
		out = append(out, c)
	}
	return out
}

// Report is health at one moment. It is the caller's to keep.
type Report struct {
	Live       bool          `json:"live"`
	Ready      bool          `json:"ready"`
	Conditions []Condition   `json:"conditions"` // the worst first
	Models     []ModelReport `json:"models"`     // by name
}

// ModelReport is one model in a Report.
type ModelReport struct {
	Name     string `json:"name"`
	Required bool   `json:"required"`
	Ready    bool   `json:"ready"` // a version of it answers
}

// Report is the health at this moment.
func (t *Tracker) Report() Report {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := Report{Live: true, Ready: t.reached, Conditions: t.fromModels(), Models: make([]ModelReport, 0, len(t.models))}
	for _, c := range t.conditions {
		r.Conditions = append(r.Conditions, c)
	}
	slices.SortFunc(r.Conditions, Condition.compare)
	for _, c := range r.Conditions {
		switch c.Severity {
		case Dead:
			r.Live, r.Ready = false, false
		case Unready:
			r.Ready = false
		}
	}
	for _, m := range t.models {
		r.Models = append(r.Models, ModelReport{Name: m.Name, Required: m.Required, Ready: m.Live})
	}
	return r
}

// Ready reports whether one model can be asked now: the appliance has no condition against it, and a version of the model answers.
// known is false for a model that nobody has heard of. It does not wait for other models.
func (t *Tracker) Ready(model string) (ready, known bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := slices.IndexFunc(t.models, func(m Model) bool { return m.Name == model })
	if i < 0 {
		return false, false
	}
	for _, c := range t.conditions {
		if c.Severity >= Unready && (c.Model == "" || c.Model == model) {
			return false, true
		}
	}
	return t.models[i].Live, true
}

// Summary is one line for systemd's STATUS and for people: the worst that is to be said.
func (r Report) Summary() string {
	serving := 0
	for _, m := range r.Models {
		if m.Ready {
			serving++
		}
	}
	state := "ready"
	switch {
	case !r.Live:
		state = "dead"
	case !r.Ready:
		state = "not ready"
	}
	s := fmt.Sprintf("%s, %d of %d models answer", state, serving, len(r.Models))
	if len(r.Conditions) > 0 && r.Conditions[0].Severity > Info {
		s += "; " + r.Conditions[0].Message
		if n := len(r.Conditions) - 1; n > 0 {
			s += fmt.Sprintf(" (and %d more)", n)
		}
	}
	return s
}
