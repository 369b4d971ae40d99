// plan_test.go: tables for what to do next.
package updater

import (
	"slices"
	"strings"
	"testing"
)

// parseStanding reads "3:live 2:ready 1:live-gone".
func parseStanding(t *testing.T, text string) []standing {
	t.Helper()
	phases := map[string]phase{"unsettled": phaseUnsettled, "settled": phaseSettled, "ready": phaseReady, "busy": phaseBusy,
		"proving": phaseProving, "live": phaseLive, "leaving": phaseLeaving, "refused": phaseRefused}
	var all []standing
	for _, f := range strings.Fields(text) {
		dir, word, _ := strings.Cut(f, ":")
		word, stays := strings.CutSuffix(word, "-stays")
		word, gone := strings.CutSuffix(word, "-gone")
		n, ok := parseVersion(strings.TrimRight(dir, "b"))
		if !ok || phases[word] == 0 {
			t.Fatalf("bad standing %q", f)
		}
		all = append(all, standing{Number: n, Dir: dir, Present: !gone, Stays: stays, Phase: phases[word]})
	}
	return all
}

func TestPlan(t *testing.T) {
	latest, two, all := Policy{}, Policy{Latest: 2}, Policy{All: true}
	for _, test := range []struct {
		name                        string
		policy                      Policy
		versions                    string
		empty, gone                 bool
		check, load, retire, wanted string
	}{
		{name: "nothing"},
		{name: "the newest is checked first, older ones not at all", versions: "1:settled 2:settled", check: "2", wanted: "2"},
		{name: "the newest is loaded", versions: "1:settled 2:ready", load: "2", wanted: "2"},
		{name: "while the newest is loaded the old one stays", versions: "1:live 2:busy", wanted: "2"},
		{name: "when the newest is live the old one goes", versions: "1:live 2:live", retire: "1", wanted: "2"},
		{name: "a bad newest is passed over", versions: "1:settled 2:refused", check: "1", wanted: "1"},
		{name: "a bad newest changes nothing for what serves", versions: "1:live 2:refused", wanted: "1"},
		{name: "a half-copied newest holds up nothing", versions: "1:ready 2:unsettled", load: "1", wanted: "1"},
		{name: "a half-copied newest changes nothing for what serves", versions: "1:live 2:unsettled", wanted: "1"},
		{name: "rollback: the next lower is loaded before the removed one goes", versions: "1:settled 2:live-gone", check: "1", wanted: "1"},
		{name: "rollback: still loading", versions: "1:busy 2:live-gone", wanted: "1"},
		{name: "rollback: done", versions: "1:live 2:live-gone", retire: "2", wanted: "1"},
		{name: "rollback to nothing that works keeps what serves", versions: "1:refused 2:live-gone"},
		{name: "an empty base path unloads everything", versions: "2:live-gone", empty: true, retire: "2"},
		{name: "before the grace is over it unloads nothing", versions: "2:live-gone"},
		{name: "a removed model unloads everything", versions: "1:settled 2:live", gone: true, retire: "2"},
		{name: "one that still drains is waited for", versions: "1:settled 2:leaving", wanted: "2"},
		{name: "latest 2 takes two", policy: two, versions: "1:settled 2:settled 3:ready", check: "2", load: "3", wanted: "3 2"},
		{name: "latest 2 replaces the lowest at last", policy: two, versions: "1:live 2:live 3:busy", wanted: "3 2"},
		{name: "latest 2 with all live", policy: two, versions: "1:live 2:live 3:live", retire: "1", wanted: "3 2"},
		{name: "latest 2 with a bad one keeps two", policy: two, versions: "1:live 2:live 3:refused", wanted: "2 1"},
		{name: "all takes all", policy: all, versions: "1:ready 2:live 3:settled 4:refused", check: "3", load: "1", wanted: "3 2 1"},
		{name: "all lets a removed one go while others are loaded", policy: all, versions: "1:live 2:busy 3:live-gone", retire: "3", wanted: "2 1"},
		{name: "all keeps the last", policy: all, versions: "1:busy 3:live-gone", wanted: "1"},
		{name: "specific", policy: Policy{Specific: []int64{1, 7}}, versions: "1:ready 2:settled", load: "1", wanted: "1"},
		{name: "specific: another one serves until it is there", policy: Policy{Specific: []int64{7}}, versions: "2:live"},
		{name: "specific: then it goes", policy: Policy{Specific: []int64{1}}, versions: "1:live 2:live", retire: "2", wanted: "1"},
		{name: "all wins over specific", policy: Policy{All: true, Specific: []int64{9}}, versions: "1:ready", load: "1", wanted: "1"},
		{name: "negative numbers are numbers", versions: "-1:ready -2:ready", load: "-1", wanted: "-1"},
		{name: "the same number under another base path", versions: "1b:ready 1:live-gone", load: "1b", wanted: "1b"},
		{name: "the same number under another base path is live", versions: "1b:live 1:live-gone", retire: "1", wanted: "1b"},
		{name: "on trial: both stay", versions: "1:live-stays 2:proving", wanted: "2 1"},
		{name: "on trial: the one that stays is loaded again, after the rest", versions: "1:ready-stays 2:ready", load: "2 1", wanted: "2 1"},
		{name: "one that stays does so without its folder, and is enough to retire others", versions: "1:live-gone-stays 2:proving-gone", retire: "2", wanted: "1"},
		{name: "one that stays beside what was listed", policy: Policy{Specific: []int64{2}}, versions: "1:live-stays 2:refused", wanted: "1"},
		{name: "one that stays but is gone and not loaded", versions: "1:settled-gone-stays 2:live", wanted: "2"},
		{name: "one that stays but was refused", versions: "1:refused-stays 2:live", wanted: "2"},
		{name: "of a removed model nothing stays", gone: true, versions: "1:live-stays", retire: "1"},
		{name: "the default is latest 1", policy: latest, versions: "5:live 6:live", retire: "5", wanted: "6"},
	} {
		t.Run(test.name, func(t *testing.T) {
			versions := parseStanding(t, test.versions)
			for range 2 { // in any order
				a := plan(test.policy, versions, test.empty, test.gone)
				for what, pair := range map[string][2]string{
					"check": {strings.Join(a.Check, " "), test.check}, "load": {strings.Join(a.Load, " "), test.load},
					"retire": {strings.Join(a.Retire, " "), test.retire}, "wanted": {strings.Join(a.Wanted, " "), test.wanted},
				} {
					if pair[0] != pair[1] {
						t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
					}
				}
				slices.Reverse(versions)
			}
		})
	}
}

// TestPlanNeverLeavesNothing: whatever the versions are, a plan never retires the last live version while there is a folder left.
func TestPlanNeverLeavesNothing(t *testing.T) {
	phases := []phase{phaseUnsettled, phaseSettled, phaseReady, phaseBusy, phaseLive, phaseLeaving, phaseRefused}
	policies := []Policy{{}, {Latest: 2}, {All: true}, {Specific: []int64{1}}, {Specific: []int64{1, 3}}}
	kinds := 2 * len(phases)
	for _, p := range policies {
		for code := range kinds * kinds * kinds {
			var all []standing
			live := 0
			for i, c := 0, code; i < 3; i, c = i+1, c/kinds {
				k := c % kinds
				s := standing{Number: int64(i + 1), Dir: string(rune('1' + i)), Present: k%2 == 0, Phase: phases[k/2]}
				if s.Phase == phaseLive {
					live++
				}
				all = append(all, s)
			}
			a := plan(p, all, false, false)
			if live > 0 && len(a.Retire) >= live {
				t.Fatalf("%v of %+v retires all: %v", p, all, a.Retire)
			}
			for _, dir := range a.Retire {
				if slices.Contains(a.Wanted, dir) {
					t.Fatalf("%v of %+v retires %s, which it wants", p, all, dir)
				}
			}
		}
	}
}
