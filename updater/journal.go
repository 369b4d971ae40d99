// journal.go: what is remembered over a restart, and the goroutine that writes it down.
package updater

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/inferd/inferd/inference"
)

// Journal keeps bytes by model over restarts. storage.State is one. Its methods may be called from any goroutine.
type Journal interface {
	// States has the last state of every model.
	States() (map[string][]byte, error)
	// Record replaces a model's state (nil leaves it, empty removes it) and appends events, all or nothing and on disk when it returns nil.
	Record(model string, state []byte, events ...[]byte) error
	// History has the newest limit events of a model, newest first.
	History(model string, limit int) ([][]byte, error)
}

// Event is one line of a model's history.
type Event struct {
	At      time.Time `json:"at"`
	What    string    `json:"what"` // seen, changed, trying, interrupted, refused, published, good, retired, ...
	Version int64     `json:"version"`
	Reason  string    `json:"reason,omitempty"`
	By      string    `json:"by,omitempty"` // who asked for it; empty: inferd itself
}

const (
	keptBad        = 64  // refusals remembered per model
	keptEvents     = 100 // events of a model that wait for a disk that takes nothing
	journalRetry   = 15 * time.Second
	interruptLimit = 2 // loads of one version that the end of inferd interrupted, before it is refused ...
	provenLimit    = 5 // ... and of one that was good before: it is not thrown away for power cuts
)

// chronicle is what is remembered of a model. It is owned by the loop.
type chronicle struct {
	Live   []int64 `json:"live,omitempty"` // published when it was written
	Good   []good  `json:"good,omitempty"` // newest first: what is live, and the last one that was
	Bad    []bad   `json:"bad,omitempty"`  // oldest first
	Trying *trying `json:"trying,omitempty"`
	Proven []int64 `json:"proven,omitempty"` // numbers that were good once, oldest first
	Pin    *pin    `json:"pin,omitempty"`
	Back   *back   `json:"back,omitempty"`
	Off    *off    `json:"off,omitempty"` // an operator has unloaded the model

	Labels map[string]label `json:"labels,omitempty"` // that operators have moved
	// Trial is the probation under way, Haven the version that was gone back to at the end of the last one.
	Trial *probation `json:"trial,omitempty"`
	Haven *int64     `json:"haven,omitempty"`
}

// good is a version that went live with its files on disk.
type good struct {
	Number int64     `json:"number"`
	Dir    string    `json:"dir"` // empty: that folder was changed in plain sight since, and only the kept copy has these bytes
	Print  string    `json:"print"`
	Tree   tree      `json:"tree"`
	At     time.Time `json:"at"`
	Cost   *cost     `json:"cost,omitempty"`

	Kept      string    `json:"kept,omitempty"` // a folder with the same bytes; empty when there is none
	KeptPrint string    `json:"kept_print,omitempty"`
	How       duplicate `json:"how,omitempty"`
}

// bad is a refused version.
type bad struct {
	Number int64          `json:"number"`
	Print  string         `json:"print"`
	Code   inference.Code `json:"code"`
	Reason string         `json:"reason"`
	Under  string         `json:"under"` // the configuration, runtime and inferd that refused it: others try again; everywhere: they do not
	At     time.Time      `json:"at"`
}

// everywhere is what a version is refused under that was found bad as it served: no setting made that, so another one is no reason to let
// it serve again.
const everywhere = "everywhere"

func (b *bad) holds(under string) bool { return b.Under == everywhere || b.Under == under }

// trying is a load under way. Found at a start, it is one that the end of inferd interrupted.
type trying struct {
	Number int64     `json:"number"`
	Print  string    `json:"print"`
	Count  int       `json:"count"`
	At     time.Time `json:"at"`
}

func (r *chronicle) empty() bool {
	return len(r.Live) == 0 && len(r.Good) == 0 && len(r.Bad) == 0 && len(r.Proven) == 0 && r.Trying == nil && r.Pin == nil && r.Back == nil && r.Off == nil &&
		len(r.Labels) == 0 && r.Trial == nil && r.Haven == nil
}

func (r *chronicle) good(number int64) *good {
	for i := range r.Good {
		if r.Good[i].Number == number {
			return &r.Good[i]
		}
	}
	return nil
}

// addGood puts g first, and keeps beside what is live only the newest other one.
func (r *chronicle) addGood(g good, live []int64) {
	r.Good = slices.DeleteFunc(r.Good, func(o good) bool { return o.Number == g.Number })
	r.Good = slices.Insert(r.Good, 0, g)
	others := 0
	r.Good = slices.DeleteFunc(r.Good, func(o good) bool {
		if o.Number == g.Number || slices.Contains(live, o.Number) {
			return false
		}
		others++
		return others > 1
	})
}

// release no longer holds the folder's files against what was good: they were changed in plain sight.
func (r *chronicle) release(number int64, dir string) {
	for i := range r.Good {
		if g := &r.Good[i]; g.Number == number && g.Dir == dir {
			g.Dir = ""
		}
	}
	r.dropLost()
}

// dropLost forgets what was good and lies nowhere any more.
func (r *chronicle) dropLost() {
	r.Good = slices.DeleteFunc(r.Good, func(g good) bool { return g.Dir == "" && g.Kept == "" })
}

func (r *chronicle) bad(number int64, print string) *bad {
	for i := range r.Bad {
		if r.Bad[i].Number == number && r.Bad[i].Print == print {
			return &r.Bad[i]
		}
	}
	return nil
}

func (r *chronicle) addBad(b bad) {
	r.Bad = slices.DeleteFunc(r.Bad, func(o bad) bool { return o.Number == b.Number && o.Print == b.Print })
	r.Bad = append(r.Bad, b)
	if n := len(r.Bad) - keptBad; n > 0 {
		r.Bad = slices.Delete(r.Bad, 0, n)
	}
}

// scribe writes records down in order, on a goroutine of its own: the loop never waits for the journal's disk. What could not be written
// is written with what comes next, or after a while.
type scribe struct {
	journal Journal // nil writes nothing
	log     *slog.Logger
	problem func(text string) // says that the journal takes nothing, or with "" that it does again

	wake chan struct{} // cap 1
	end  chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	waiting map[string]*entry // guarded by mu
	order   []string          // guarded by mu: the names in waiting, in the order in which they came
}

// entry is what is to be written of one model.
type entry struct {
	state  []byte
	events [][]byte
	done   []chan struct{} // closed when it was tried
}

func newScribe(j Journal, log *slog.Logger, problem func(string)) *scribe {
	return &scribe{journal: j, log: log, problem: problem, wake: make(chan struct{}, 1), end: make(chan struct{}), waiting: make(map[string]*entry)}
}

var closedChannel = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// write queues the model's state and events. The channel is closed when they are on disk or could not be written.
func (s *scribe) write(model string, r *chronicle, events ...Event) <-chan struct{} {
	if s.journal == nil {
		return closedChannel
	}
	state := []byte{}
	if !r.empty() {
		state = encode(r)
	}
	var lines [][]byte
	for _, e := range events {
		lines = append(lines, encode(e))
	}
	done := make(chan struct{})
	s.mu.Lock()
	s.put(model, &entry{state: state, events: lines, done: []chan struct{}{done}}, false)
	s.mu.Unlock()
	wake(s.wake)
	return done
}

// put merges e with what waits for the model; older says that what waits is newer than e. s.mu is held.
func (s *scribe) put(model string, e *entry, older bool) {
	w := s.waiting[model]
	if w == nil {
		s.waiting[model] = e
		s.order = append(s.order, model)
		return
	}
	if older {
		w.events = append(e.events, w.events...)
	} else {
		w.state, w.events = e.state, append(w.events, e.events...)
		w.done = append(w.done, e.done...)
	}
	if n := len(w.events) - keptEvents; n > 0 {
		w.events = slices.Delete(w.events, 0, n)
	}
}

// run writes until end is closed and nothing is left, or what is left cannot be written.
func (s *scribe) run() {
	if s.journal == nil {
		return
	}
	failed := false
	for ending := false; !ending; {
		var again <-chan time.Time
		if failed {
			again = time.After(journalRetry)
		}
		select {
		case <-s.wake:
		case <-again:
		case <-s.end:
			ending = true
		}
		err := s.flush()
		switch {
		case err != nil && !failed:
			s.log.Error("journal cannot be written: what serves goes on, but a restart will not know of what happens now", "err", err)
			s.problem(err.Error())
		case err == nil && failed:
			s.log.Info("journal is written again")
			s.problem("")
		}
		failed = err != nil
	}
}

func (s *scribe) flush() (failed error) {
	s.mu.Lock()
	waiting, order := s.waiting, s.order
	s.waiting, s.order = make(map[string]*entry), nil
	s.mu.Unlock()
	for _, model := range order {
		e := waiting[model]
		err := s.journal.Record(model, e.state, e.events...)
		for _, c := range e.done {
			close(c)
		}
		if err != nil {
			failed = err
			e.done = nil
			s.mu.Lock()
			s.put(model, e, true)
			s.mu.Unlock()
		}
	}
	return failed
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("updater: a record that JSON cannot carry: %v", err)) // plain structs: cannot be
	}
	return b
}

// History has the newest limit events of a model, newest first. It reads the disk.
func (c *Controller) History(model string, limit int) ([]Event, error) {
	if c.opts.Journal == nil {
		return nil, inference.Errorf(inference.FailedPrecondition, "", "there is no journal")
	}
	lines, err := c.opts.Journal.History(model, limit)
	if err != nil {
		return nil, err
	}
	events := make([]Event, 0, len(lines))
	for _, line := range lines {
		var e Event
		if json.Unmarshal(line, &e) == nil { // one that cannot be read is of a newer inferd
			events = append(events, e)
		}
	}
	return events, nil
}
