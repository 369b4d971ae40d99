// intent.go: what an operator wants of a model beside its policy: a rollback, a pin, another try.
package updater

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// back is a rollback that holds: from is not wanted while its files are those of print, nor is what lies between.
type back struct {
	From  int64  `json:"from"`
	To    int64  `json:"to"`
	Print string `json:"print"`
	By    string `json:"by,omitempty"`
}

// pin is a version that is wanted whatever the policy says.
type pin struct {
	Number int64  `json:"number"`
	By     string `json:"by,omitempty"`
}

// verb is a wish that waits for the loop.
type verb struct {
	model string
	do    func(*loop, *model) (string, error)
	reply chan verdict // cap 1
}

type verdict struct {
	text string
	err  error
}

// Rollback goes back to the version of the model that was good before the one that serves. That one is not wanted again until its files
// change, a higher number has passed its probation (or is live without one), or Retry. by names who asked. What serves goes on serving until the other one does. The result says
// what is being done, the error why nothing is: NOT_FOUND or FAILED_PRECONDITION.
func (c *Controller) Rollback(ctx context.Context, name, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.rollback(m, by) })
}

// Pin makes the version the only one wanted, over restarts, until Unpin.
func (c *Controller) Pin(ctx context.Context, name string, number int64, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.pin(m, number, by) })
}

// Unpin gives the model back to its policy.
func (c *Controller) Unpin(ctx context.Context, name, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.unpin(m, by) })
}

// Retry tries a refused version once more, and takes its files as they are now.
func (c *Controller) Retry(ctx context.Context, name string, number int64, by string) (string, error) {
	return c.wish(ctx, name, func(l *loop, m *model) (string, error) { return l.retry(m, number, by) })
}

func (c *Controller) wish(ctx context.Context, name string, do func(*loop, *model) (string, error)) (string, error) {
	v := verb{model: name, do: do, reply: make(chan verdict, 1)}
	c.mu.Lock()
	c.ask.verbs = append(c.ask.verbs, v)
	c.mu.Unlock()
	wake(c.wake)
	select {
	case r := <-v.reply:
		return r.text, r.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (l *loop) grant(v verb) {
	m := l.models[v.model]
	if m == nil || m.gone {
		v.reply <- verdict{err: inference.Errorf(inference.NotFound, inference.ReasonModel, "no model is called %q", v.model)}
		return
	}
	text, err := v.do(l, m)
	if err == nil {
		l.log.Info("operator's wish is granted", "model", m.Name, "text", text)
		m.dirty = true
		l.tend(m, time.Now())
	}
	v.reply <- verdict{text, err}
}

func (l *loop) noteBy(m *model, what string, number int64, reason, by string) {
	l.scribe.write(m.Name, m.rec, Event{At: time.Now(), What: what, Version: number, Reason: reason, By: by})
}

func unwilling(format string, args ...any) error {
	return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, format, args...)
}

func (l *loop) rollback(m *model, by string) (string, error) {
	live := m.live()
	switch {
	case len(live) == 0:
		return "", unwilling("no version of model %s is served, so there is nothing to go back from", m.Name)
	case m.rec.Pin != nil:
		return "", unwilling("model %s is pinned to version %d; `inferd models unpin %s` first, or pin another", m.Name, m.rec.Pin.Number, m.Name)
	case m.rec.Back != nil && slices.Contains(live, m.rec.Back.From):
		return "", unwilling("model %s is going back to version %d already", m.Name, m.rec.Back.To)
	}
	from := m.serving(live[0])
	if t := m.rec.Trial; t != nil && t.Number == from.number && m.serving(t.Against) != nil {
		// The one that it is compared with is loaded: that is where to go, good in the journal or not.
		m.rec.Back, m.rec.Haven = &back{From: from.number, To: t.Against, Print: from.loaded, By: by}, &t.Against
		l.noteBy(m, "rolled back", from.number, fmt.Sprintf("to version %d, in the middle of its probation", t.Against), by)
		return fmt.Sprintf("model %s goes back from version %d, which was on probation, to version %d at once; version %d stays away until its files change, a higher number has proven itself, or `inferd models retry %s %d`",
			m.Name, from.number, t.Against, from.number, m.Name, from.number), nil
	}
	var lost string
	for _, g := range m.rec.Good {
		if g.Number >= from.number {
			continue
		}
		if !slices.ContainsFunc(m.ordered(), func(v *version) bool {
			return v.number == g.Number && v.present && v.state != StateQuarantined && (v.kept || v.dir == g.Dir || g.Kept == "")
		}) {
			lost = fmt.Sprintf("; version %d was, but its folder is gone or refused", g.Number)
			continue
		}
		m.rec.Back = &back{From: from.number, To: g.Number, Print: from.loaded, By: by}
		clear(m.first)
		l.noteBy(m, "rolled back", from.number, fmt.Sprintf("to version %d", g.Number), by)
		return fmt.Sprintf("model %s goes back from version %d to version %d; version %d stays away until its files change, a higher number has proven itself, or `inferd models retry %s %d`",
			m.Name, from.number, g.Number, from.number, m.Name, from.number), nil
	}
	return "", unwilling("no version of model %s below %d is known to be good%s; `inferd models pin %s N` serves version N", m.Name, from.number, lost, m.Name)
}

func (l *loop) pin(m *model, number int64, by string) (string, error) {
	var there, fit bool
	for _, v := range m.ordered() {
		if v.number == number && v.present {
			there, fit = true, fit || v.state != StateQuarantined && v.doom == nil
		}
	}
	switch {
	case !there:
		return "", inference.Errorf(inference.NotFound, inference.ReasonModel, "model %s has no version %d under %s", m.Name, number, m.BasePath)
	case !fit:
		return "", unwilling("model %s version %d was refused; `inferd models retry %s %d` first", m.Name, number, m.Name, number)
	}
	m.rec.Pin, m.rec.Back, m.rec.Off = &pin{Number: number, By: by}, nil, nil
	clear(m.first)
	l.noteBy(m, "pinned", number, "", by)
	return fmt.Sprintf("model %s is pinned to version %d until `inferd models unpin %s`", m.Name, number, m.Name), nil
}

func (l *loop) unpin(m *model, by string) (string, error) {
	if m.rec.Pin == nil {
		return "", unwilling("model %s is not pinned", m.Name)
	}
	number := m.rec.Pin.Number
	m.rec.Pin = nil
	l.noteBy(m, "unpinned", number, "", by)
	return fmt.Sprintf("model %s follows its policy again: %v", m.Name, m.Policy), nil
}

func (l *loop) retry(m *model, number int64, by string) (string, error) {
	var found *version
	for _, v := range m.ordered() {
		if v.number == number && v.present && !v.kept && (found == nil || v.state == StateQuarantined) {
			found = v
		}
	}
	if found == nil {
		return "", inference.Errorf(inference.NotFound, inference.ReasonModel, "model %s has no version %d under %s", m.Name, number, m.BasePath)
	}
	if m.rec.Back != nil && m.rec.Back.From == number {
		m.rec.Back = nil
	}
	l.pardon(m, found)
	switch found.state {
	case StateLive, StateDraining, StateValidating, StateLoading, StateWarming:
		l.noteBy(m, "retry", number, "", by)
		return fmt.Sprintf("model %s version %d is %v", m.Name, number, found.state), nil
	}
	m.rec.Bad = slices.DeleteFunc(m.rec.Bad, func(b bad) bool { return b.Number == number })
	m.rec.release(found.number, found.dir)
	l.reset(m, found, "tried again as "+orInferd(by)+" asked")
	l.noteBy(m, "retry", number, "", by)
	return fmt.Sprintf("model %s version %d is tried again", m.Name, number), nil
}

func orInferd(by string) string {
	if by == "" {
		return "inferd"
	}
	return by
}

// policy is the model's with what an operator wants.
func (m *model) policy() Policy {
	p := m.Policy
	switch {
	case m.rec.Pin != nil:
		return Policy{Specific: []int64{m.rec.Pin.Number}}
	case m.rec.Back != nil && !p.All && len(p.Specific) > 0:
		p.Specific = append(slices.DeleteFunc(slices.Clone(p.Specific), func(n int64) bool { return n == m.rec.Back.From }), m.rec.Back.To)
	}
	return p
}

// intent says in words what an operator wants of the model.
func (m *model) intent() string {
	switch b, p := m.rec.Back, m.rec.Pin; {
	case m.rec.Off != nil:
		return m.offText()
	case p != nil:
		return fmt.Sprintf("pinned to version %d by %s", p.Number, orInferd(p.By))
	case b != nil:
		return fmt.Sprintf("rolled back from version %d to version %d by %s", b.From, b.To, orInferd(b.By))
	}
	return ""
}

// heldBack reports whether a rollback keeps the version away, and why.
func (m *model) heldBack(v *version) (string, bool) {
	b := m.rec.Back
	switch {
	case b == nil:
	case v.number == b.To && !v.kept && m.changedSince(v):
		return "its files are not those that were good: the kept copy of them serves", true
	case v.number == b.From && (v.kept || v.loaded == b.Print || v.sight.Print.Digest == b.Print):
		return fmt.Sprintf("rolled back to version %d by %s", b.To, orInferd(b.By)), true
	case b.To < v.number && v.number < b.From:
		return fmt.Sprintf("passed over by the rollback from version %d to version %d", b.From, b.To), true
	}
	return "", false
}

// changedSince reports whether the folder's files are others than those that were good, which are kept elsewhere.
func (m *model) changedSince(v *version) bool {
	g := m.rec.good(v.number)
	return g != nil && g.Kept != "" && g.Dir != v.dir
}

// overtaken ends a rollback when a higher version, on no probation any more, or the one that it left with other files is live.
func (m *model) overtaken(number int64) {
	if b := m.rec.Back; b != nil && number >= b.From {
		m.rec.Back = nil
	}
}
