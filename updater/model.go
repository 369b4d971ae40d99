// model.go: one model in the owner loop: what has been seen of it and what is done next.
package updater

import (
	"cmp"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

const keptEnds = 32 // public END states kept per model for versions whose folders are gone

// model is owned by the loop.
type model struct {
	Model
	configured bool // by name; else found in the models directory
	known      bool // reconfigure has been here
	gone       bool // removed: everything is retired, and then it is forgotten
	forgetAt   time.Time
	verdict    bool
	unseen     bool // the base path has not been looked at since it became the model's
	deciding   bool
	dirty      bool // the public status is behind

	turns

	looked     bool
	base       baseState
	lookedAt   time.Time // the last look's beginning
	emptySince time.Time // zero while there are versions
	on, polled string    // the base path's file system where watching does not tell of everything, and what is said about it
	leaving    time.Time // when it is removed, for its folder is gone from the models directory; else zero
	problem    string
	held       []string
	said       []string         // held labels that the log has told about
	applied    map[string]int64 // labels in the catalog

	versions map[string]*version // by folder
	ends     []int64             // dropped versions whose END is still shown, oldest first
	checking *version
	loading  *version
	cancel   func() // ends the load, begun or queued

	keeper  keeper
	tidying bool
	tidyAt  time.Time // of the next try to remove old versions
	disk    disk
	crowd   string           // old versions fill the disk
	trial   *trial           // of a live version; nil: none
	routed  *inference.Route // in the catalog
	cleared *version         // is loaded next: others have been unloaded for it
	stepped *version         // the highest of these

	rec      *chronicle
	stranger bool           // nothing was remembered of it
	first    map[int64]bool // what served when inferd ended and does not serve again yet
}

// version is owned by the loop.
type version struct {
	number  int64
	dir     string
	state   State
	reason  string
	code    inference.Code
	since   time.Time
	present bool // the last look saw the folder
	kept    bool // the folder is a kept copy, not one of the base path
	files   *loadedFiles
	// leftAlone is the digest that a safe start found and does not try; empty: it may be tried.
	leftAlone string

	sight      sight
	tried      string // the digest that was checked last
	incomplete string // why what was tried is not whole, empty when it is
	final      bool   // what was tried had been unchanged for the stall time
	info       *savedmodel.Info
	attempts   int
	retryAt    time.Time

	loaded  string // the digest that was loaded
	changed bool   // reported as changed in place
	took    time.Duration
	tree    *tree // what it was found to hold when it was checked, where that was compared
	// sealed: its files are on disk and it is journalled as good. sealing: that is under way. torn: they are no longer what was loaded.
	// unsealed: it has been said that it cannot be
	sealed, sealing, torn, unsealed bool
	sealAt                          time.Time // of the next try
	sealSaid                        string    // what its reason has about that
	proof                           Proof
	spoilt                          bool               // it was condemned for what has become of its files: what the next look finds is that, and no news
	servable                        inference.Servable // of a live version
	past                            past
	memory                          int64  // bytes of its worker, as last measured; 0: not known
	aside                           *aside // what it had done when it was retired
	alarm                           string // what its probation found against it, where there was nothing to go back to
	cramped                         bool   // it waits for memory, until retryAt at the latest
	crampedPrint                    string // of the files with which it was said so
	doom                            *doom  // why it must not serve although it did; nil while there is nothing against it
}

// ordered is every version, highest number first, the live one first where two folders have one number.
func (m *model) ordered() []*version {
	return slices.SortedFunc(maps.Values(m.versions), func(a, b *version) int {
		if live := a.state == StateLive; a.number == b.number && live != (b.state == StateLive) {
			if live {
				return -1
			}
			return 1
		}
		return cmp.Or(cmp.Compare(b.number, a.number), cmp.Compare(b.state, a.state), cmp.Compare(a.dir, b.dir))
	})
}

// serving is the live version of the number, nil when there is none.
func (m *model) serving(number int64) *version {
	for _, v := range m.versions {
		if v.number == number && v.state == StateLive {
			return v
		}
	}
	return nil
}

// live is every number that is published, highest first.
func (m *model) live() []int64 {
	var out []int64
	for _, v := range m.ordered() {
		if v.state == StateLive {
			out = append(out, v.number)
		}
	}
	return out
}

// servingText says in messages what the appliance did instead.
func (m *model) servingText() string {
	live := m.live()
	switch len(live) {
	case 0:
		return "no version of it is served"
	case 1:
		return fmt.Sprintf("still serving version %d", live[0])
	default:
		return "still serving versions " + strings.Trim(fmt.Sprint(live), "[]")
	}
}

// phase is the version as the plan sees it.
func (v *version) phase(m *model, o *Options, now time.Time) phase {
	switch v.state {
	case StateLive:
		if !v.sealed || m.onTrial(v) {
			return phaseProving
		}
		return phaseLive
	case StateDraining:
		if v.doom != nil {
			return phaseRefused
		}
		return phaseLeaving
	case StateQuarantined:
		return phaseRefused
	case StateValidating, StateLoading, StateWarming:
		return phaseBusy
	}
	digest := v.sight.Print.Digest
	settled, _ := v.sight.settled(m.lookedAt, o.SettleTime)
	settled = settled || m.trusted(v)
	switch {
	case v.retryAt.After(now), !settled:
		return phaseUnsettled
	case v.tried != digest:
		return phaseSettled
	case v.incomplete != "" && !v.final && v.sight.quiet(m.lookedAt) >= o.StallTime:
		return phaseSettled // once more, and then the verdict
	case v.incomplete != "":
		return phaseUnsettled
	default:
		return phaseReady
	}
}

// tend does what is due for the model. It is called whenever something about it has changed, and may be called at any time.
func (l *loop) tend(m *model, now time.Time) {
	if l.stopping || l.models[m.Name] != m {
		return
	}
	if m.gone {
		l.tendGone(m, now)
		return
	}
	if !m.pending && !m.due.After(now) {
		l.startLook(m)
	}
	l.tendTrial(m, now)
	if m.looked {
		l.step(m, now)
	}
	l.publish(m)
	l.wakeAt(&m.wake, m.trialWake(l.nextOf(m, now)))
}

func (l *loop) tendGone(m *model, now time.Time) {
	busy := m.loading != nil || m.checking != nil
	for _, v := range m.ordered() {
		switch v.state {
		case StateLive:
			l.retire(m, v, m.problem)
			busy = true
		case StateDraining:
			busy = true
		case StateLoading, StateWarming, StateValidating:
		default:
			l.drop(m, v)
		}
	}
	switch {
	case busy:
	case m.forgetAt.IsZero():
		m.forgetAt = now.Add(l.o.ForgetAfter)
	case !m.forgetAt.After(now):
		l.forget(m)
		return
	}
	l.publish(m)
	if !m.forgetAt.IsZero() {
		l.wakeAt(&m.wake, m.forgetAt)
	}
}

// nextOf is when the model wants attention next if nothing happens.
func (l *loop) nextOf(m *model, now time.Time) time.Time {
	next := now.Add(time.Hour)
	if !m.pending {
		next = m.due
	}
	for _, v := range m.versions {
		if v.retryAt.After(now) && v.retryAt.Before(next) {
			next = v.retryAt
		}
		if v.state == StateLive && v.sealAt.After(now) && v.sealAt.Before(next) {
			next = v.sealAt
		}
	}
	return next
}

// step plans and acts.
func (l *loop) step(m *model, now time.Time) {
	l.offer(m)
	l.resolveFirst(m)
	all := l.standings(m, now)
	for _, v := range m.ordered() {
		if v.state == StateLive && v.doom == nil && v.present && !v.sealed && !v.sealing && !v.torn && !v.sealAt.After(now) {
			l.startSeal(m, v)
		}
	}
	empty, unloaded := m.empty(&l.o), m.offText()
	if unloaded != "" {
		clear(m.first)
	}
	policy := m.policy()
	a := plan(policy, all, empty || unloaded != "", false)
	for _, s := range all {
		v := m.versions[s.Dir]
		if v.state != StateSeen && v.state != StateSettling {
			continue
		}
		switch {
		case s.Phase == phaseUnsettled && v.retryAt.After(now): // the reason has been set
		case s.Phase == phaseUnsettled && v.incomplete != "" && v.tried == v.sight.Print.Digest:
			l.set(m, v, StateSettling, "waiting for the rest: "+v.incomplete)
		case s.Phase == phaseUnsettled:
			l.set(m, v, StateSettling, "waiting until its files stop changing")
		case s.Barred:
			why, _ := m.barred(v)
			l.set(m, v, StateSeen, why)
		case unloaded != "":
			l.set(m, v, StateSeen, unloaded)
		case !slices.Contains(a.Wanted, s.Dir):
			l.set(m, v, StateSeen, "not wanted by the policy: "+policy.String())
		default:
			l.set(m, v, v.state, "waiting for its turn")
		}
	}
	reachable := func(dir string) bool { return m.base == baseThere || m.versions[dir].kept }
	if len(a.Check) > 0 && m.checking == nil && reachable(a.Check[0]) {
		l.startCheck(m, m.versions[a.Check[0]])
	}
	if len(a.Load) > 0 && m.loading == nil && reachable(a.Load[0]) && !l.clearFirst(m, m.versions[a.Load[0]], now) {
		l.startLoad(m, m.versions[a.Load[0]])
	}
	for _, dir := range a.Retire {
		v := m.versions[dir]
		why := "the policy wants others: " + policy.String()
		if reason, held := m.barred(v); held {
			why = reason
		}
		switch {
		case unloaded != "":
			why = unloaded
		case empty:
			why = "the base path holds no version any more"
		case !v.present:
			why = "its folder is gone"
		}
		l.retire(m, v, why)
	}
	l.startTidy(m, a.Wanted, now)
	if crowd := m.crowded(a.Wanted); crowd != m.crowd {
		m.crowd, m.dirty = crowd, true
	}
	l.weigh(m, a, all, now)
	if !m.verdict && m.decided(all, &l.o, now) {
		m.verdict, m.dirty = true, true
		l.applyLabels(m)
	}
}

// standings are the model's versions as the plan sees them.
func (l *loop) standings(m *model, now time.Time) (all []standing) {
	for _, v := range m.ordered() {
		_, barred := m.barred(v)
		s := standing{Number: v.number, Dir: v.dir, Present: v.present, Barred: barred, Kept: v.kept, Stays: m.stays(v), Phase: v.phase(m, &l.o, now)}
		switch {
		case v.kept && !m.called(v.number):
			s.Spare, s.Present = true, len(m.rec.Live) > 0
		case v.state == StateLive && m.intended(v.number):
			s.Present = true // it answers from memory: its kept copy need not be loaded for a folder that is gone
		}
		all = append(all, s)
	}
	return all
}

// decided reports whether every version that the policy may want has been served, refused, found incomplete or found to have no room.
func (m *model) decided(all []standing, o *Options, now time.Time) bool {
	if len(m.live()) > 0 || m.rec.Off != nil {
		return true
	}
	for _, s := range all {
		v := m.versions[s.Dir]
		if !s.Present || s.Barred || !eligible(m.policy(), s.Number) || s.Phase == phaseRefused || v.cramped {
			continue
		}
		if s.Phase != phaseUnsettled || v.incomplete == "" || v.retryAt.After(now) {
			return false
		}
	}
	return true
}

// set moves a version to a state and shows it.
func (l *loop) set(m *model, v *version, state State, reason string) {
	if v.state == state && v.reason == reason {
		return
	}
	if v.state != state {
		v.since = time.Now()
		l.log.Debug("version moved", "model", m.Name, "version", v.number, "from", v.state.String(), "to", state.String())
	}
	if state != StateQuarantined {
		v.code = inference.OK
	}
	before := v.state.public()
	v.state, v.reason, m.dirty = state, reason, true
	if before != state.public() {
		l.show(m, v)
	}
}

// show gives the public state to the catalog. Publish, Replace and Retire have done so themselves for theirs; a number that is live
// from another folder stays shown as that.
func (l *loop) show(m *model, v *version) {
	if v.state == StateLive || v.state == StateDraining || m.serving(v.number) != nil {
		return
	}
	s := inference.VersionStatus{Version: v.number, State: v.state.public(), Code: v.code}
	if v.state == StateQuarantined {
		s.Message = v.reason
	}
	l.c.catalog.SetStatus(m.Name, s)
}

// refuse ends a version's way; whatever serves keeps serving.
func (l *loop) refuse(m *model, v *version, code inference.Code, reason string) {
	if v.kept {
		l.refuseKept(m, v, code, reason)
		return
	}
	l.refuseFor(m, v, code, reason, "put right what is in "+v.dir+" and it is tried again, or publish a higher number")
}

// refuseFor is refuse with another advice than to look at the version's files.
func (l *loop) refuseFor(m *model, v *version, code inference.Code, reason, advice string) {
	v.code = code
	l.set(m, v, StateQuarantined, fmt.Sprintf("model %s version %d refused: %s; %s; %s", m.Name, v.number, reason, m.servingText(), advice))
	l.noteRefused(m, v)
	l.log.Error("version refused", "model", m.Name, "version", v.number, "err", reason, "code", code.String(), "instead", m.servingText(), "path", v.dir)
}

// drop forgets a version whose folder is gone. An END state stays public for a while.
func (l *loop) drop(m *model, v *version) {
	delete(m.versions, v.dir)
	m.dirty = true
	if slices.ContainsFunc(m.ordered(), func(o *version) bool { return o.number == v.number }) {
		return // that one's state is shown
	}
	switch v.state {
	case StateRetired, StateQuarantined:
		m.ends = append(slices.DeleteFunc(m.ends, func(n int64) bool { return n == v.number }), v.number)
		if len(m.ends) <= keptEnds {
			return
		}
		oldest := m.ends[0]
		m.ends = m.ends[1:]
		if !slices.ContainsFunc(m.ordered(), func(o *version) bool { return o.number == oldest }) {
			l.c.catalog.SetStatus(m.Name, inference.VersionStatus{Version: oldest})
		}
	default:
		if m.serving(v.number) == nil {
			l.c.catalog.SetStatus(m.Name, inference.VersionStatus{Version: v.number})
		}
	}
}

// retire stops handing a live version out, and ends its worker when the last handle is released.
func (l *loop) retire(m *model, v *version, why string) {
	servable, drained := l.c.catalog.Retire(m.Name, v.number)
	if servable == nil {
		return // cannot be: a live version is published
	}
	if m.onTrial(v) && !l.stopping {
		l.calledOff(m, why)
	}
	l.log.Info("version retired", "model", m.Name, "version", v.number, "reason", why)
	l.set(m, v, StateDraining, why)
	l.noteLive(m, "retired", v.number, why)
	l.c.hook("retired")
	l.applyLabels(m)
	l.drain(m, v, servable, drained)
}

func (l *loop) drain(m *model, v *version, servable inference.Servable, drained <-chan struct{}) {
	l.jobs++
	was := v.past
	go func() {
		select {
		case <-drained:
		case <-l.force:
		}
		last := asideOf(was, servable)
		err := servable.Close()
		l.post(func() {
			l.jobs--
			v.aside, v.past, v.memory, v.servable, v.alarm = last, past{}, 0, nil, ""
			l.roomFreed(time.Now())
			if err != nil {
				l.log.Warn("worker did not end cleanly", "model", m.Name, "version", v.number, "err", err)
			}
			v.tried, v.incomplete, v.final, v.info = "", "", false, nil
			v.loaded, v.changed, v.proof, v.attempts = "", false, Proof{}, 0
			l.log.Info("version unloaded", "model", m.Name, "version", v.number)
			if v.doom != nil {
				l.meetDoom(m, v)
			} else {
				why, _ := m.heldBack(v)
				l.set(m, v, StateRetired, why)
			}
			if !v.present {
				l.drop(m, v)
			}
			l.startKeep(m)
			l.tend(m, time.Now())
		})
	}()
}

// applyLabels gives the catalog the labels whose versions are live, and says which are held back.
func (l *loop) applyLabels(m *model) {
	ready := make(map[string]int64)
	var held []string
	labels := m.labels()
	for _, label := range sortedKeys(labels) {
		if m.serving(labels[label]) != nil {
			ready[label] = labels[label]
		} else {
			held = append(held, label)
		}
	}
	if !maps.Equal(ready, m.applied) {
		m.applied = ready
		l.c.catalog.SetLabels(m.Name, ready)
	}
	if !slices.Equal(held, m.held) {
		m.held, m.dirty = held, true
	}
	// Before the first verdict every label is held back, and that is no news.
	if !m.verdict || m.gone || l.stopping || slices.Equal(held, m.said) {
		return
	}
	m.said = held
	if len(held) > 0 {
		l.log.Warn("labels are held back: their versions are not available", "model", m.Name, "labels", strings.Join(held, " "))
	}
}

// problemOf is what is wrong with the base path, empty when nothing is.
func (m *model) problemOf(o *Options, found look) string {
	grace := m.graceText(o)
	switch {
	case found.Err != nil && grace != "":
		return found.Err.Error() + "; " + grace
	case found.Err != nil:
		return found.Err.Error()
	case len(found.Folders) == 0 && grace != "":
		return joinReasons(grace, found.Hint)
	case len(found.Folders) == 0 && found.Hint != "":
		return found.Hint
	case len(found.Folders) == 0:
		return fmt.Sprintf("no version under %s: a version is a folder named by a number, such as %s", m.BasePath, filepath.Join(m.BasePath, "1"))
	}
	problems := found.Dups
	for _, f := range found.Folders {
		if v := m.versions[f.Dir]; f.Err != nil && v != nil && v.state == StateLive {
			problems = append(problems, fmt.Sprintf("version %d serves, but its folder cannot be read: %v", f.Number, f.Err))
		}
	}
	for _, n := range m.Policy.Specific {
		if !m.Policy.All && !slices.ContainsFunc(found.Folders, func(f folder) bool { return f.Number == n }) {
			problems = append(problems, fmt.Sprintf("version %d is asked for but not under %s", n, m.BasePath))
		}
	}
	return strings.Join(problems, "; ")
}

func (l *loop) setProblem(m *model, problem string, found look) {
	if problem == m.problem {
		return
	}
	m.problem, m.dirty = problem, true
	switch {
	case problem == "":
		l.log.Info("base path is in order", "model", m.Name, "path", m.BasePath)
	case found.Err == nil && len(found.Folders) == 0 && !found.Others && len(m.live()) > 0:
		l.log.Warn("base path is empty", "model", m.Name, "reason", problem, "instead", m.servingText())
	case found.Err == nil && len(found.Folders) == 0 && !found.Others: // a copy may have just begun
		l.log.Info("base path is empty", "model", m.Name, "reason", problem, "instead", m.servingText())
	default:
		l.log.Warn("base path has a problem", "model", m.Name, "reason", problem, "instead", m.servingText())
	}
}

func joinReasons(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + "; " + b
}

// withoutReason takes b out of what joinReasons made.
func withoutReason(a, b string) string {
	return strings.TrimPrefix(strings.TrimSuffix(strings.Replace("; "+a+"; ", "; "+b+"; ", "; ", 1), "; "), "; ")
}

func joinPath(dir, name string) string { return filepath.Join(dir, name) }

func quoteAll(names []string) string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strconv.Quote(n)
	}
	return strings.Join(out, ", ")
}
