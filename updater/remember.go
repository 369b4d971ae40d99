// remember.go: the loop's side of the journal: what it notes, and what a start makes of the notes.
package updater

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"crypto/sha256"

	"github.com/inferd/inferd/inference"
)

const sealRetry = 30 * time.Second

// recall reads what was remembered. It is called before the loop runs; without it everything is new.
func (l *loop) recall() {
	if l.o.Journal == nil {
		return
	}
	states, err := l.o.Journal.States()
	if err != nil {
		l.log.Error("journal cannot be read: nothing is known of what served or was refused before", "err", err)
		l.o.KeepDir = "" // what is kept could not be told from what is left over
		l.c.publish(func(p *published) { p.journal = err.Error() })
		return
	}
	for name, state := range states {
		r := new(chronicle)
		if err := json.Unmarshal(state, r); err != nil {
			l.log.Error("journal's record of a model cannot be read: it is begun anew", "model", name, "err", err)
			continue
		}
		l.records[name] = r
	}
	l.sweepStore()
}

// remembered gives a new model its record.
func (l *loop) remembered(m *model) {
	if m.rec = l.records[m.Name]; m.rec == nil {
		m.rec = new(chronicle)
		l.records[m.Name] = m.rec
		m.stranger = true
	}
	m.first = make(map[int64]bool)
	for _, n := range m.rec.Live {
		m.first[n] = true
	}
}

// note appends to the model's history and writes its record down.
func (l *loop) note(m *model, what string, number int64, reason string) <-chan struct{} {
	return l.scribe.write(m.Name, m.rec, Event{At: time.Now(), What: what, Version: number, Reason: reason})
}

// judging is the part of a model's configuration that verdicts on its versions depend on.
func (m Model) judging() Model {
	m.Labels, m.Optional, m.Retain, m.KeepLastGood, m.Rollout, m.Probation, m.Transition = nil, false, 0, false, Rollout{}, Probation{}, 0
	return m
}

// under names what a verdict was made under.
func (l *loop) under(m *model) string {
	b, err := json.Marshal(m.judging())
	if err != nil {
		b = nil // settings that JSON cannot carry: every configuration is the same then
	}
	sum := sha256.Sum256(append(b, l.o.Build...))
	return hex.EncodeToString(sum[:8])
}

// arrived is called once for every folder that is new to the loop.
func (l *loop) arrived(m *model, v *version, first bool) {
	if l.judged(m, v) {
		return
	}
	if !first || m.stranger {
		l.note(m, "seen", v.number, v.dir)
	}
}

// judged refuses a folder that is new to the loop where the journal speaks against it.
func (l *loop) judged(m *model, v *version) bool {
	print := v.sight.Print.Digest
	b, t := m.rec.bad(v.number, print), m.rec.Trying
	switch {
	case b != nil && b.holds(l.under(m)):
		v.code = b.Code
		l.set(m, v, StateQuarantined, b.Reason)
		l.log.Warn("version was refused before and has not changed: not tried again", "model", m.Name, "version", v.number, "err", b.Reason)
		return true
	case t != nil && t.Number == v.number && t.Print == print:
		limit := interruptLimit
		if m.rec.good(v.number) != nil {
			limit = provenLimit
		}
		if t.Count >= limit {
			m.rec.Trying = nil
			l.refuse(m, v, inference.FailedPrecondition, fmt.Sprintf("inferd ended %d times while it was being loaded, last at %s; `inferd models retry` tries it once more",
				t.Count, t.At.Format(time.RFC3339)))
			return true
		}
		l.note(m, "interrupted", v.number, "inferd ended while it was being loaded")
	}
	return false
}

// beginTrying writes down that a load begins; the channel is closed when that is on disk.
func (l *loop) beginTrying(m *model, v *version) <-chan struct{} {
	count := 1
	if t := m.rec.Trying; t != nil && t.Number == v.number && t.Print == v.sight.Print.Digest {
		count += t.Count
	}
	m.rec.Trying = &trying{Number: v.number, Print: v.sight.Print.Digest, Count: count, At: time.Now()}
	if v.crampedPrint == v.sight.Print.Digest {
		return l.scribe.write(m.Name, m.rec) // it waits for memory, and each look at that is no line of history
	}
	return l.note(m, "trying", v.number, "")
}

// noteRefused remembers a refusal until the files change.
func (l *loop) noteRefused(m *model, v *version) {
	m.rec.addBad(bad{Number: v.number, Print: v.sight.Print.Digest, Code: v.code, Reason: v.reason, Under: l.under(m), At: time.Now()})
	l.note(m, "refused", v.number, v.reason)
	if b := m.rec.Back; b != nil && b.To == v.number && (m.serving(b.From) != nil || len(m.live()) == 0) && !m.hasAnother(v) {
		m.rec.Back = nil // after a restart nothing may serve yet: then the one that was left is the best there is
		l.log.Error("rollback failed: the version to go back to was refused", "model", m.Name, "version", b.To, "err", v.reason, "instead", m.servingText())
		l.note(m, "rollback failed", b.From, m.servingText())
	}
}

// forgive forgets the refusal of other files of the folder.
func (l *loop) forgive(m *model, v *version, why string) {
	before := len(m.rec.Bad)
	m.rec.Bad = slices.DeleteFunc(m.rec.Bad, func(b bad) bool { return b.Number == v.number })
	if len(m.rec.Bad) != before {
		l.note(m, "changed", v.number, why)
	}
}

// hasAnother reports whether another folder, or a kept copy, may serve the version's number.
func (m *model) hasAnother(v *version) bool {
	for _, o := range m.versions {
		if o != v && o.number == v.number && o.present && o.state != StateQuarantined {
			return true
		}
	}
	return false
}

// noteLive remembers what serves.
func (l *loop) noteLive(m *model, what string, number int64, reason string) {
	if l.stopping {
		return // what serves at the end is what the next start brings back
	}
	m.rec.Live = m.live()
	if t, b := m.rec.Trial, m.rec.Back; what == "published" && (t == nil || t.Number != number || b != nil && b.From == number) {
		m.overtaken(number) // a higher one on trial may yet give way: to what was good, and not to what the operator left
	}
	l.note(m, what, number, reason)
}

// trusted reports whether the version served when inferd ended: it need not settle, for its bytes are compared.
func (m *model) trusted(v *version) bool {
	g := m.rec.good(v.number)
	return m.first[v.number] && g != nil && g.Dir == v.dir && v.sight.Print.Digest != tornDigest
}

// resolveFirst takes the versions that served when inferd ended off the list once they serve again or cannot.
func (l *loop) resolveFirst(m *model) {
	if len(m.first) == 0 || m.base != baseThere || !m.emptySince.IsZero() { // its mount may still come
		return
	}
	numbers := sortedNumbers(m.first)
	policy := m.policy()
	if p := policy; !p.All && len(p.Specific) == 0 {
		for _, n := range numbers[:max(0, len(numbers)-p.latest())] {
			if t := m.rec.Trial; t == nil || !t.Beside || t.Against != n { // on trial: both serve
				delete(m.first, n)
			}
		}
		numbers = slices.DeleteFunc(numbers, func(n int64) bool { return !m.first[n] })
	}
	for _, n := range numbers {
		waits := false
		for _, v := range m.versions {
			_, held := m.heldBack(v) // inferd ended in the middle of a rollback
			if v.number == n && v.present && !held && v.state != StateLive && v.state != StateQuarantined && (eligible(policy, n) || m.stays(v)) {
				waits = true
			}
		}
		if !waits || m.serving(n) != nil {
			delete(m.first, n)
		}
	}
}

// barred reports whether the version has to wait although the policy may want it, and why.
func (m *model) barred(v *version) (string, bool) {
	if v.doom != nil {
		return v.doom.reason, true
	}
	if why, held := m.heldBack(v); held {
		return why, true
	}
	if why, held := m.trialBars(v); held {
		return why, true
	}
	if v.leftAlone != "" && v.leftAlone == v.sight.Print.Digest && v.state != StateLive {
		return "is not tried, for this is a safe start; change its files, or restart inferd, to have it tried", true
	}
	if len(m.first) > 0 && !m.first[v.number] && !m.stays(v) && v.state != StateLive {
		return "waits until what served before the restart serves again", true
	}
	return "", false
}

// startSeal puts the live version's files on disk and sums them up, so that it may be journalled as good and what it replaces may go.
func (l *loop) startSeal(m *model, v *version) {
	v.sealing = true // not a job: an fsync that hangs is not waited for at the stop
	dir, digest, files := v.dir, v.loaded, v.sight.Print.Files
	go func() {
		t, err := l.c.seal(l.ctx, dir, digest, files)
		l.post(func() {
			v.sealing = false
			if !l.stopping && v.state == StateLive && v.doom == nil && v.loaded == digest {
				l.sealed(m, v, t, err)
				l.tend(m, time.Now())
			}
		})
	}()
}

func (l *loop) sealed(m *model, v *version, t tree, err error) {
	switch {
	case errors.Is(err, errTorn):
		v.torn = true
	case err != nil:
		v.sealAt = time.Now().Add(sealRetry)
	default:
		if v.unsealed {
			v.unsealed, m.dirty = false, true
			v.reason = withoutReason(v.reason, v.sealSaid)
		}
		m.rec.addGood(good{Number: v.number, Dir: v.dir, Print: v.loaded, Tree: t, At: time.Now(), Cost: costOf(v.proof)}, m.live())
		v.files.set(&m.rec.Good[0])
		m.rec.proven(v.number)
		written, digest := l.note(m, "good", v.number, ""), v.loaded
		v.sealing = true // until it is written
		l.jobs++
		go func() {
			<-written
			l.post(func() {
				l.jobs--
				v.sealing, v.sealed = false, v.sealed || v.loaded == digest
				l.c.hook("good")
				l.startKeep(m)
				l.tend(m, time.Now())
			})
		}()
		return
	}
	reason := "its files cannot be put on disk"
	if v.torn {
		reason = "its files were changed before they were on disk"
	}
	if !v.unsealed {
		v.unsealed = true
		v.sealSaid = fmt.Sprintf("%s (%v): what it replaces stays loaded, and a restart will not count on it", reason, err)
		v.reason, m.dirty = joinReasons(v.reason, v.sealSaid), true
		l.log.Warn("live version cannot be journalled as good: what it replaces stays loaded", "model", m.Name, "version", v.number, "err", err, "reason", reason)
		l.note(m, "not good", v.number, reason)
	}
}

func sortedNumbers(m map[int64]bool) []int64 {
	var out []int64
	for n := range m {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}
