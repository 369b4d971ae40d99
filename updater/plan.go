// plan.go: what to do next for one model. A function of values: what is on disk and what serves in, actions out.
package updater

import (
	"cmp"
	"slices"
)

// phase is what the plan needs to know of a version's state.
type phase int

const (
	phaseUnsettled phase = iota + 1 // its files still change, or are not whole
	phaseSettled                    // may be checked
	phaseReady                      // checked; may be loaded
	phaseBusy                       // being checked or loaded, or waiting for a retry
	phaseProving                    // published, but its files are not yet known to be on disk
	phaseLive                       // published
	phaseLeaving                    // retired, still draining
	phaseRefused                    // tried and found bad
)

// standing is one version as the plan sees it. Present says that the last look saw its folder.
type standing struct {
	Number  int64
	Dir     string // identifies it: two folders may carry one number, when the base path was changed
	Present bool
	Barred  bool // not wanted for now, whatever the policy says
	Kept    bool // a kept copy, behind the folder of its number
	Spare   bool // and one that nobody asks for: only where nothing else can serve
	Stays   bool // wanted beside what the policy wants, and not counted there
	Phase   phase
}

// actions are folders to act on.
type actions struct {
	Check  []string
	Load   []string // highest number first, and last what is to be kept beside the policy
	Retire []string
	Wanted []string // in order of number, highest first: what shall serve, as far as it can
}

// plan decides. all has every version in any order; empty says that the base path holds no version and has been so for the grace
// time; gone says that the model is no longer configured.
//
// Wanted are the policy's versions, passing over those that cannot be served, so that a bad or half-copied newest version neither
// stops a start nor takes the place of one that works. What is live and not wanted is retired when all that is wanted is live; with
// policies that count nothing, when anything wanted is.
func plan(p Policy, all []standing, empty, gone bool) actions {
	var (
		a       actions
		pending bool
		live    int
	)
	wanted := make(map[string]bool)
	numbers := make(map[int64]bool) // one folder serves a number
	left := len(all)
	if !p.All && len(p.Specific) == 0 {
		left = p.latest()
	}
	want := func(s standing) {
		if left == 0 || !s.Present || s.Barred || !eligible(p, s.Number) || numbers[s.Number] {
			return
		}
		switch s.Phase {
		case phaseUnsettled, phaseRefused:
			return
		case phaseSettled:
			a.Check = append(a.Check, s.Dir)
			pending = true
		case phaseReady:
			a.Load = append(a.Load, s.Dir)
			pending = true
		case phaseBusy, phaseLeaving, phaseProving:
			pending = true
		case phaseLive:
			live++
		}
		left--
		numbers[s.Number], wanted[s.Dir] = true, true
		a.Wanted = append(a.Wanted, s.Dir)
	}
	if !empty && !gone {
		byNumber := slices.SortedFunc(slices.Values(all), rank)
		folders, serves := false, false
		for _, s := range byNumber {
			folders = folders || (s.Present && !s.Kept)
			serves = serves || (!s.Barred && (s.Phase == phaseLive || s.Phase == phaseProving)) // also one whose folder is gone
			if !s.Spare {
				want(s)
			}
		}
		if len(a.Wanted) == 0 && folders && !serves {
			left = 1
			for _, s := range byNumber {
				if s.Spare {
					want(s)
				}
			}
		}
	}
	stay := func(s standing) {
		if !s.Stays || s.Barred || numbers[s.Number] || empty || gone {
			return
		}
		switch {
		case s.Phase == phaseLive:
			live++
		case s.Phase == phaseProving:
		case !s.Present || s.Phase == phaseUnsettled || s.Phase == phaseRefused:
			return
		case s.Phase == phaseSettled:
			a.Check = append(a.Check, s.Dir)
		case s.Phase == phaseReady:
			a.Load = append(a.Load, s.Dir)
		}
		numbers[s.Number], wanted[s.Dir] = true, true
		a.Wanted = append(a.Wanted, s.Dir)
	}
	for _, serving := range []bool{true, false} { // from wherever it serves
		for _, s := range slices.SortedFunc(slices.Values(all), rank) {
			if serving == (s.Phase == phaseLive || s.Phase == phaseProving) {
				stay(s)
			}
		}
	}
	counts := !p.All && len(p.Specific) == 0
	may := empty || gone || (live > 0 && (!pending || !counts))
	for _, s := range all {
		if (s.Phase != phaseLive && s.Phase != phaseProving) || wanted[s.Dir] || !may {
			continue
		}
		if numbers[s.Number] && pending {
			continue // another folder is to serve its number, and replaces it in one step
		}
		a.Retire = append(a.Retire, s.Dir)
	}
	return a
}

// rank is the order in which versions are wanted: the highest number first, its folder before its kept copy.
func rank(x, y standing) int {
	kept := func(s standing) int {
		if s.Kept {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(y.Number, x.Number), cmp.Compare(kept(x), kept(y)))
}

// eligible reports whether the policy may ever want the number.
func eligible(p Policy, number int64) bool {
	return p.All || len(p.Specific) == 0 || slices.Contains(p.Specific, number)
}
