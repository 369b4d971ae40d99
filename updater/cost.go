// cost.go: what a version takes, as its proving runs have shown: kept for admission, and held against the version that serves.
package updater

import (
	"fmt"
	"strings"
	"time"
)

// cost is kept in the journal beside what is known to be good.
type cost struct {
	LoadPeak int64                              `json:"load_peak,omitempty"` // bytes of the worker: the most while it loaded,
	Peak     int64                              `json:"peak,omitempty"`      // the most during the runs,
	Rest     int64                              `json:"rest,omitempty"`      // and after them
	Runs     map[string]map[int64]time.Duration `json:"runs,omitempty"`      // by signature and batch size
}

func costOf(p Proof) *cost {
	c := &cost{LoadPeak: p.LoadPeak, Peak: p.Peak, Rest: p.Rest, Runs: make(map[string]map[int64]time.Duration)}
	for key, s := range p.Signatures {
		if len(s.Times) > 0 {
			c.Runs[key] = s.Times
		}
	}
	return c
}

// A version is called dearer than another one where it takes so many times as much, and so much more that it is no noise.
const (
	slowerTimes = 2.0
	slowerBy    = time.Millisecond
	largerTimes = 1.5
	largerBy    = 32 << 20 // bytes
)

// dearer says in what p costs much more than what serves now and will get no more requests by default, "" when it does not or nothing is
// known. That is no reason to refuse it.
func (m *model) dearer(v *version, p Proof) string {
	var old *version
	for _, other := range m.ordered() {
		if other.state == StateLive && other != v {
			old = other
			break
		}
	}
	if old == nil || old.number > v.number {
		return ""
	}
	var all []string
	for _, key := range sortedKeys(p.Signatures) {
		was, is := old.proof.Signatures[key].Times[1], p.Signatures[key].Times[1]
		if was > 0 && is-was >= slowerBy && float64(is) > slowerTimes*float64(was) {
			all = append(all, fmt.Sprintf("a run of signature %q takes %v, %.1f times as long (%v)", key, is.Round(10*time.Microsecond), float64(is)/float64(was), was.Round(10*time.Microsecond)))
		}
	}
	if was, is := old.proof.Peak, p.Peak; was > 0 && is-was >= largerBy && float64(is) > largerTimes*float64(was) {
		all = append(all, fmt.Sprintf("its worker used up to %d MiB, %.1f times as much (%d MiB)", is>>20, float64(is)/float64(was), was>>20))
	}
	if len(all) == 0 {
		return ""
	}
	return fmt.Sprintf("it costs more than version %d: %s", old.number, strings.Join(all, "; "))
}
