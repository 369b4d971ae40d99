// audit.go: what always holds of a journal, whatever ended inferd.
package updater

import (
	"encoding/json"
	"errors"
	"fmt"
)

// CheckJournal reads a journal through and returns every way in which it is not as the updater leaves it, nil when it is: each model's
// record can be read, names no version twice, has for each version that served the note of its publication, for each good one what its
// files are, for each refusal the reason, for a rollback, a pin, an unloading, a probation and what one went back to the note of its beginning, and at most
// one load under way. No inferd may be running on the journal.
func CheckJournal(j Journal) error {
	states, err := j.States()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range sortedKeys(states) {
		r := new(chronicle)
		if err := json.Unmarshal(states[name], r); err != nil {
			errs = append(errs, fmt.Errorf("model %s: its record cannot be read: %w", name, err))
			continue
		}
		lines, err := j.History(name, keptHistory+1)
		if err != nil {
			errs = append(errs, fmt.Errorf("model %s: %w", name, err))
			continue
		}
		for _, fault := range r.faults(lines) {
			errs = append(errs, fmt.Errorf("model %s: %s", name, fault))
		}
	}
	return errors.Join(errs...)
}

// keptHistory is how much of a history is looked through; of a longer one the beginning may be missing.
const keptHistory = 900

// faults are the invariants that do not hold, in words. lines is the model's history.
func (r *chronicle) faults(lines [][]byte) (out []string) {
	faultf := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	once := make(map[string]bool)
	twice := func(kind string, key any) {
		k := fmt.Sprint(kind, " ", key)
		if once[k] {
			faultf("%s is there twice", k)
		}
		once[k] = true
	}
	noted := make(map[string]bool)
	for _, line := range lines {
		var e Event
		if err := json.Unmarshal(line, &e); err != nil {
			faultf("an event cannot be read: %v", err)
			continue
		}
		noted[fmt.Sprint(e.What, e.Version)] = true
	}
	known := func(what string, number int64) bool {
		return len(lines) > keptHistory || noted[fmt.Sprint(what, number)]
	}
	for _, n := range r.Live {
		twice("live", n)
		if !known("published", n) {
			faultf("version %d counts as live and was never published", n)
		}
	}
	for _, g := range r.Good {
		twice("good", g.Number)
		if g.Dir == "" && g.Kept == "" || g.Print == "" || g.Tree.Sum == "" || g.Tree.Count == 0 {
			faultf("version %d counts as good, and it is not known what its files are", g.Number)
		}
		if (g.Kept == "") != (g.KeptPrint == "") {
			faultf("version %d has a kept copy without a print, or a print without a copy", g.Number)
		}
		if !known("good", g.Number) {
			faultf("version %d counts as good and that was never noted", g.Number)
		}
	}
	for _, b := range r.Bad {
		twice("refused", fmt.Sprint(b.Number, " ", b.Print))
		if b.Reason == "" || b.Print == "" {
			faultf("version %d is refused without a reason or without its files' print", b.Number)
		}
	}
	if len(r.Bad) > keptBad {
		faultf("%d refusals are kept, more than %d", len(r.Bad), keptBad)
	}
	if t := r.Trying; t != nil && (t.Count < 1 || t.Print == "" || !known("trying", t.Number)) {
		faultf("a load of version %d is under way that was never begun", t.Number)
	}
	if b := r.Back; b != nil && (b.To >= b.From || !known("rolled back", b.From)) {
		faultf("a rollback from version %d to version %d that nobody asked for", b.From, b.To)
	}
	if p := r.Pin; p != nil && !known("pinned", p.Number) {
		faultf("a pin to version %d that nobody asked for", p.Number)
	}
	if r.Off != nil && !known("unloaded", 0) {
		faultf("nobody asked for the model to be unloaded")
	}
	if t := r.Trial; t != nil && (t.Number == t.Against || t.Print == "" || !known("published", t.Against)) {
		faultf("version %d is on probation against version %d, which never served", t.Number, t.Against)
	}
	if h := r.Haven; h != nil && !known("published", *h) {
		faultf("version %d counts as the one that was gone back to and was never published", *h)
	}
	return out
}
