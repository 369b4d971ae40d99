// queue_account_test.go: what a queue's users were told, and whether what is on disk agrees with it.
package storage

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// account follows a child's events. Nothing that was acknowledged may be missing on disk; what was begun and not acknowledged may be there or
// not, but whole.
type account struct {
	jobs     map[string]*entry
	ops      map[string]*begun // by number, while nobody knows how they ended
	sessions map[string]bool
	faults   []string
	counts   map[string]int
	at       int            // of events
	lines    []string       // of this child
	asked    map[string]int // when each lease was asked for, by number
}

// entry is one key's job.
type entry struct {
	key, id  string
	state    JobState // as is known for sure: 0 none yet, Queued for leased too, gone
	run      string   // whose result it has
	out      uint64
	attempts int

	ended       int // when it was told to have ended
	retried     bool
	leased      bool
	leases, may int // how often it was leased, and how often it may have been
}

// gone is the state of a job that was forgotten.
const gone = JobState(100)

// about has what was said of the job.
func (a *account) about(e *entry) string {
	session := jobOf(e.key).Session
	return strings.Join(slices.DeleteFunc(slices.Clone(a.lines), func(line string) bool {
		return !strings.Contains(line+" ", " "+e.key+" ") && (session == "" || !strings.Contains(line, "ack "+session))
	}), "\n")
}

// begun is something whose end is not known.
type begun struct {
	what    string
	e       *entry
	to      JobState
	run     string
	session string
	through uint64
}

func newAccount() *account {
	return &account{jobs: make(map[string]*entry), ops: make(map[string]*begun), sessions: make(map[string]bool), counts: make(map[string]int), asked: make(map[string]int)}
}

func (a *account) fault(format string, args ...any) {
	if len(a.faults) < 20 {
		a.faults = append(a.faults, fmt.Sprintf(format, args...))
	}
}

// states by the words of events.
func stateOf(word string) JobState {
	s, _ := ParseState(word)
	return s
}

// event follows one line.
func (a *account) event(line string) {
	f := strings.Fields(line)
	if len(f) == 0 {
		return
	}
	a.at++
	a.lines = append(a.lines, line)
	if f[0] == "#" {
		a.fault("the child says: %s", line)
		return
	}
	switch {
	case len(f) < 2:
		a.fault("bad event %q", line)
	case f[0] == "+" && (f[2] == "lease" || f[2] == "outbox"):
		a.asked[f[1]] = a.at
	case f[0] == "+":
		a.counts[f[2]]++
		a.begin(f[1], f[2:])
	case f[0] == "!":
		a.counts[f[2]]++
		if f[2] == "no" {
			delete(a.ops, f[1])
		}
	case f[1] != "0":
		if b := a.ops[f[1]]; b != nil {
			a.done(b, append(f[2:], "")[0])
			delete(a.ops, f[1])
		}
	case f[2] == "session":
		a.sessions[f[3]] = true
	case f[2] == "lease":
		a.lease(f[3], f[4], f[5])
	case f[2] == "saw":
		a.saw(f[3], stateOf(f[4]), f[5], f[6], f[7])
	}
}

func (a *account) begin(n string, f []string) {
	b := &begun{what: f[0]}
	if f[0] == "ack" {
		b.session = f[1]
		b.through, _ = strconv.ParseUint(f[2], 10, 64)
	} else {
		if a.jobs[f[1]] == nil {
			a.jobs[f[1]] = &entry{key: f[1], may: 1}
		}
		b.e = a.jobs[f[1]]
	}
	switch f[0] {
	case "append", "retry", "release":
		b.to = Queued
	case "cancel":
		b.to = Cancelled
	case "finish":
		b.to, b.run = stateOf(f[2]), f[3]
	case "delete":
		b.to = gone
	}
	a.ops[n] = b
}

// covers reports whether the acknowledgement forgets the job.
func (b *begun) covers(e *entry) bool {
	return b.what == "ack" && e.out > 0 && e.out <= b.through && jobOf(e.key).Session == b.session
}

// done is the known good end of something.
func (a *account) done(b *begun, told string) {
	e := b.e
	switch b.what {
	case "append":
		if e.id != "" && e.id != told {
			a.fault("%s was submitted again and is job %s beside %s", e.key, told, e.id)
		}
		e.id = told
		if e.state == 0 {
			e.state = Queued
		}
	case "retry":
		e.state, e.attempts, e.out, e.run, e.retried = Queued, 0, 0, "", true
		e.may++
	case "release":
		e.leased = false
		e.attempts++
		e.may++
	case "ack":
		for _, e := range a.jobs {
			if b.covers(e) {
				e.state, e.ended = gone, a.at
			}
		}
	case "finish", "cancel":
		e.state, e.run, e.leased, e.ended = b.to, b.run, false, a.at
		if n, err := strconv.ParseUint(told, 10, 64); err == nil {
			e.out = n
		}
	case "delete":
		e.state, e.ended = gone, a.at
	}
}

// happened ends what must have ended well for others to have seen what they saw.
func (a *account) happened(e *entry, whats ...string) {
	for _, n := range slices.Sorted(maps.Keys(a.ops)) {
		if b := a.ops[n]; b.e == e && slices.Contains(whats, b.what) {
			told := ""
			if b.what == "append" {
				told = e.id
			}
			a.done(b, told)
			delete(a.ops, n)
		}
	}
}

func (a *account) lease(key, id, asked string) {
	e := a.jobs[key]
	if e == nil {
		a.fault("job %s was leased and never submitted", key)
		return
	}
	if e.id == "" {
		e.id = id
	}
	a.happened(e, "append", "retry", "release")
	switch {
	case e.state == Queued && e.id == id:
		e.leased = true
	case e.id != id || e.ended < a.asked[asked]: // a cancel may have overtaken the news of the lease
		a.fault("job %s is %s %s, and was leased as %s", key, e.id, e.state, id)
	}
	e.leases++
	a.counts["lease"]++
	if e.leases > e.may {
		a.fault("job %s was leased %d times, and had reason for %d", key, e.leases, e.may)
	}
	lane := jobOf(key).Lane // one that is tried again comes when the lane is free
	if lane == "" {
		return
	}
	for _, o := range a.jobs {
		if o.id != "" && o.id < id && o.state == Queued && !o.retried && jobOf(o.key).Lane == lane && !a.open(o) {
			a.fault("job %s of lane %s was leased before job %s\n%s", key, lane, o.key, a.about(o))
		}
	}
}

// open reports whether something is begun on the job.
func (a *account) open(e *entry) bool {
	for _, b := range a.ops {
		if b.e == e || b.covers(e) {
			return true
		}
	}
	return false
}

func (a *account) saw(key string, s JobState, out, run, asked string) {
	e := a.jobs[key]
	if e == nil {
		a.fault("the result of %s is in an outbox, and it was never submitted", key)
		return
	}
	for _, n := range slices.Sorted(maps.Keys(a.ops)) {
		if b := a.ops[n]; b.e == e && b.to == s && s != Queued && (b.run == run || s != Done) {
			a.done(b, out)
			delete(a.ops, n)
		}
	}
	if e.state == gone && e.ended < a.asked[asked] {
		a.fault("the result of %s is in the outbox again, after it was acknowledged\n%s", key, a.about(e))
	}
	if e.state == Done && run != e.run {
		a.fault("job %s has the result of run %s in the outbox, and %s was acknowledged", key, run, e.run)
	}
}

// killed, called after verify, is the end of the child: what it had leased may be leased again.
func (a *account) killed() {
	clear(a.asked)
	a.lines = nil
	for _, e := range a.jobs {
		if e.leased {
			e.leased = false
			e.may++
		}
	}
}

// verify holds the queue against the account, and returns what is wrong. With settle what was not known becomes what is on disk.
func (a *account) verify(t testing.TB, q *Queue, settle bool) []string {
	t.Helper()
	faults := slices.Clone(a.faults)
	fault := func(format string, args ...any) {
		if len(faults) < 20 {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	r, err := q.Check(context.Background())
	if err != nil {
		fault("check: %v", err)
	}
	for _, f := range r.Faults {
		fault("check: %s", f)
	}
	if r.SetAside > 0 || q.Damaged() != "" {
		fault("%d records set aside, file moved to %q", r.SetAside, q.Damaged())
	}
	all, err := q.List(Filter{Limit: math.MaxInt})
	if err != nil {
		fault("list: %v", err)
	}
	found := make(map[string]Item)
	for _, it := range all {
		if _, twice := found[it.Key]; twice {
			fault("job %s is there twice", it.Key)
		}
		if a.jobs[it.Key] == nil {
			fault("job %s was never submitted", it.Key)
		}
		found[it.Key] = it
	}
	for _, e := range a.jobs {
		a.verifyJob(q, e, found, fault, settle)
	}
	for session := range a.sessions {
		a.verifyOutbox(q, session, fault)
	}
	if settle {
		clear(a.ops)
	}
	return faults
}

func (a *account) verifyJob(q *Queue, e *entry, found map[string]Item, fault func(string, ...any), settle bool) {
	states, runs, attempts := []JobState{e.state}, []string{e.run}, []int{e.attempts}
	for _, b := range a.ops {
		switch {
		case b.covers(e):
			states = append(states, gone)
		case b.e == e:
			states = append(states, b.to)
			runs = append(runs, b.run)
			switch b.what {
			case "release":
				attempts = append(attempts, e.attempts+1)
			case "retry":
				attempts = append(attempts, 0)
			}
		}
	}
	it, there := found[e.key]
	is := it.State
	switch {
	case is == Leased:
		is = Queued
	case !there && (slices.Contains(states, gone) || slices.Contains(states, 0)):
		if settle {
			if e.state != 0 || slices.Contains(states, gone) {
				e.state = gone
			}
		}
		return
	case !there:
		fault("job %s %s is lost: it was %s\n%s", e.key, e.id, e.state, a.about(e))
		return
	}
	run := ""
	switch {
	case !slices.Contains(states, is):
		fault("job %s %s is %s on disk, and should be one of %d\n%s", e.key, e.id, is, states, a.about(e))
	case e.id != "" && e.id != it.ID:
		fault("job %s is %s on disk, and was acknowledged as %s", e.key, it.ID, e.id)
	case is == Done:
		result, _, err := q.Result(it.ID)
		if run = runOf(e.key, result); err != nil || !slices.Contains(runs, run) {
			fault("job %s has the result of run %q, and should have one of %q: %v", e.key, run, runs, err)
		}
	default:
		payload, _, err := q.Payload(it.ID)
		if err != nil || string(payload) != string(payloadOf(e.key)) {
			fault("job %s has not the payload that was submitted: %v", e.key, err)
		}
		if is == Queued && !slices.Contains(attempts, it.Attempts) {
			fault("job %s has %d attempts, and should have %v", e.key, it.Attempts, attempts)
		}
	}
	if e.out > 0 && it.Out != e.out && is == e.state {
		fault("job %s is result %d, and was %d", e.key, it.Out, e.out)
	}
	if !settle {
		return
	}
	if is == Queued && (e.state.Final() || it.Attempts > e.attempts) { // a retry or a release went through
		e.may++
		e.retried = e.retried || e.state.Final()
	}
	e.id, e.state, e.run, e.out, e.attempts = it.ID, is, run, it.Out, it.Attempts
}

// verifyOutbox: every result that nobody has acknowledged is there once, and in order.
func (a *account) verifyOutbox(q *Queue, session string, fault func(string, ...any)) {
	sent, err := q.Outbox(session, 0, math.MaxInt, math.MaxInt64)
	if err != nil {
		fault("outbox of %s: %v", session, err)
		return
	}
	last, seen := uint64(0), make(map[string]bool)
	for _, s := range sent {
		if s.Out <= last || seen[s.Key] {
			fault("outbox of %s has %s as %d after %d", session, s.Key, s.Out, last)
		}
		last, seen[s.Key] = s.Out, true
		if e := a.jobs[s.Key]; e != nil && e.state == gone && !a.open(e) {
			fault("result %d, %s, is in the outbox after it was acknowledged", s.Out, s.Key)
		}
	}
	for _, e := range a.jobs {
		if e.state.Final() && e.state != gone && e.out > 0 && jobOf(e.key).Session == session && !seen[e.key] && !a.open(e) {
			fault("result %d, %s, is not in the outbox", e.out, e.key)
		}
	}
}
