// doom.go: a version that served and was found bad since: it gives way to another one, and stays refused.
package updater

import (
	"fmt"
	"slices"
	"time"

	"github.com/inferd/inferd/inference"
)

// doom is what was found against a live version.
type doom struct {
	code   inference.Code
	reason string
	advice string
}

// condemn takes a live version's good name: it is remembered as refused from now on, whatever happens to inferd, and is retired as soon
// as another version that is wanted serves. Where none can, it goes on serving. advice says what an operator may do.
func (l *loop) condemn(m *model, v *version, code inference.Code, reason, advice string) {
	if v.state != StateLive || v.doom != nil {
		return
	}
	v.doom = &doom{code: code, reason: reason, advice: advice}
	v.reason, m.dirty = joinReasons(v.reason, "found bad since, and serves until another version can: "+reason), true
	m.rec.Good = slices.DeleteFunc(m.rec.Good, func(g good) bool { return g.Number == v.number }) // and what is kept of the number
	for _, print := range slices.Compact([]string{v.loaded, v.sight.Print.Digest}) {              // as they were loaded, and as they are
		m.rec.addBad(bad{Number: v.number, Print: print, Code: code, Reason: m.doomText(v), Under: everywhere, At: time.Now()})
	}
	l.note(m, "condemned", v.number, reason)
	l.applyRoute(m) // the requests need not wait for the other one's sake
	l.log.Error("live version is found bad: it gives way as soon as another one serves", "model", m.Name, "version", v.number, "err", reason, "code", code.String())
	l.tend(m, time.Now())
}

// pardon takes back what was found against a version that still serves.
func (l *loop) pardon(m *model, v *version) {
	if v.doom != nil {
		v.doom, m.dirty = nil, true
		v.sealed = l.o.Journal == nil // it is no longer among the good ones
		l.forgive(m, v, "pardoned")
	}
}

// stillBad remembers that the files as they are now are what the version was condemned for.
func (l *loop) stillBad(m *model, v *version) {
	reason := v.reason
	if v.doom != nil {
		reason = m.doomText(v)
	}
	m.rec.addBad(bad{Number: v.number, Print: v.sight.Print.Digest, Code: inference.DataLoss, Reason: reason, Under: everywhere, At: time.Now()})
	l.scribe.write(m.Name, m.rec)
}

// meetDoom is called when the condemned version's worker has ended.
func (l *loop) meetDoom(m *model, v *version) {
	d := v.doom
	v.doom = nil
	v.code = d.code
	l.set(m, v, StateQuarantined, fmt.Sprintf("model %s version %d refused: %s; %s; %s", m.Name, v.number, d.reason, m.servingText(), d.advice))
}

func (m *model) doomText(v *version) string {
	return fmt.Sprintf("model %s version %d refused: it served, and then: %s; %s", m.Name, v.number, v.doom.reason, v.doom.advice)
}
