// label.go: labels that an operator moves. They win over the configured ones until the configuration says something else of them.
package updater

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/inferd/inferd/inference"
)

const (
	maxLabel  = 255 // bytes in a label
	maxLabels = 64  // of one model, moved by operators
)

// label is one that an operator has moved.
type label struct {
	Version int64  `json:"version"`
	By      string `json:"by,omitempty"`
	Over    *int64 `json:"over,omitempty"` // what the configuration said then; nil: nothing
}

// Label makes a label name the version, over restarts, until Unlabel or until the configuration's value for it changes. A version that is
// not live is refused with FAILED_PRECONDITION unless force is set; the label then answers once the version is live. by names who asked.
func (c *Controller) Label(ctx context.Context, name, label string, number int64, force bool, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.label(m, label, number, force, by) })
}

// Unlabel gives a label back to the configuration.
func (c *Controller) Unlabel(ctx context.Context, name, label, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.unlabel(m, label, by) })
}

// labelFault says why s cannot be a label, empty when it can.
func labelFault(s string) string {
	switch {
	case s == "":
		return "a label is not empty"
	case len(s) > maxLabel:
		return fmt.Sprintf("a label has at most %d bytes, this one has %d", maxLabel, len(s))
	case strings.ContainsFunc(s, func(r rune) bool { return r == '/' || r == ':' || unicode.IsControl(r) || r == unicode.ReplacementChar }):
		return fmt.Sprintf("%q cannot be a label: it stands in URLs, so it has no /, no : and no control characters", s)
	}
	return ""
}

func (l *loop) label(m *model, name string, number int64, force bool, by string) (string, error) {
	before, had := m.labels()[name]
	stays := "it names no version"
	if had {
		stays = fmt.Sprintf("it stays on version %d", before)
	}
	live := m.serving(number) != nil
	_, given := m.rec.Labels[name]
	switch fault := labelFault(name); {
	case fault != "":
		return "", inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%s", fault)
	case !live && !force:
		return "", unwilling("label %s of model %s is not moved to version %d, %s: %s; --force moves it all the same, and it answers once that version is live",
			name, m.Name, number, m.standingText(number), stays)
	case !given && len(m.rec.Labels) >= maxLabels:
		return "", unwilling("model %s has %d labels by operators already, at most so many are kept; `inferd models unlabel %s LABEL` takes one away", m.Name, maxLabels, m.Name)
	}
	if m.rec.Labels == nil {
		m.rec.Labels = make(map[string]label)
	}
	m.rec.Labels[name] = label{Version: number, By: by, Over: m.configuredLabel(name)}
	l.applyLabels(m)
	reason := name
	if had && before != number {
		reason += fmt.Sprintf(", which named version %d", before)
	}
	l.noteBy(m, "labelled", number, reason, by)
	text := fmt.Sprintf("label %s of model %s names version %d", name, m.Name, number)
	if !live {
		text += ", which is not live: requests by this label are refused until it is"
	}
	return text, nil
}

// standingText says where a version that is not live stands.
func (m *model) standingText(number int64) string {
	for _, v := range m.ordered() {
		if v.number == number {
			return "which is not live (" + v.state.String() + ")"
		}
	}
	return "which is not there"
}

func (l *loop) unlabel(m *model, name, by string) (string, error) {
	given, ok := m.rec.Labels[name]
	configured := m.configuredLabel(name)
	switch {
	case !ok && configured != nil:
		return "", unwilling("label %s of model %s is as the configuration says; take it out of version_labels there", name, m.Name)
	case !ok:
		return "", inference.Errorf(inference.NotFound, inference.ReasonModel, "model %s has no label %q", m.Name, name)
	}
	delete(m.rec.Labels, name)
	l.applyLabels(m)
	l.noteBy(m, "unlabelled", given.Version, name, by)
	if configured != nil {
		return fmt.Sprintf("label %s of model %s names version %d again, as configured", name, m.Name, *configured), nil
	}
	return fmt.Sprintf("model %s has no label %s any more", m.Name, name), nil
}

// configuredLabel is the configuration's value for the label, nil when it has none.
func (m *model) configuredLabel(name string) *int64 {
	n, ok := m.Labels[name]
	if !ok {
		return nil
	}
	return &n
}

// supersedeLabels drops what operators said of labels for which the configuration says something else since.
func (l *loop) supersedeLabels(m *model) {
	for _, name := range slices.Sorted(maps.Keys(m.rec.Labels)) {
		given, now := m.rec.Labels[name], m.configuredLabel(name)
		if now == given.Over || now != nil && given.Over != nil && *now == *given.Over {
			continue
		}
		why := "the configuration has no such label any more"
		if now != nil {
			why = fmt.Sprintf("the configuration names version %d now", *now)
		}
		delete(m.rec.Labels, name)
		m.dirty = true
		l.log.Info("operator's label gives way to the configuration", "model", m.Name, "version", given.Version, "labels", name, "reason", why)
		l.note(m, "unlabelled", given.Version, name+": "+why)
	}
}

// labels are those that hold: the operators' over the configured ones.
func (m *model) labels() map[string]int64 {
	out := maps.Clone(m.Labels)
	for name, given := range m.rec.Labels {
		if out == nil {
			out = make(map[string]int64)
		}
		out[name] = given.Version
	}
	return out
}

// labelled appends the numbers that labels name, also the configured ones to which Unlabel would go back.
func (m *model) labelled(numbers []int64) []int64 {
	for _, n := range m.Labels {
		numbers = append(numbers, n)
	}
	for _, given := range m.rec.Labels {
		numbers = append(numbers, given.Version)
	}
	return numbers
}

// labelsBy is who moved each label that an operator has moved.
func (m *model) labelsBy() map[string]string {
	var out map[string]string
	for name, given := range m.rec.Labels {
		if out == nil {
			out = make(map[string]string)
		}
		out[name] = orInferd(given.By)
	}
	return out
}
