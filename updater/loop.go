// loop.go: the owner loop. It alone knows the models, and it never waits for a disk, a worker or a client.
package updater

import (
	"container/heap"
	"context"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/inferd/inferd/inference"
)

const (
	lookers      = 8                     // looks and checks at once ...
	lookPatience = time.Second           // ... not counting those that took longer: their path is slow, and others do not wait for it
	loadPatience = 30 * time.Second      // the same for loads
	lookGap      = 50 * time.Millisecond // between two looks at one model, however many events come
	rootOwner    = "\x00root"            // no model can have this name
)

// loop is the state of one Run. Everything in it is owned by run.
type loop struct {
	c   *Controller
	o   Options
	log *slog.Logger
	ctx context.Context

	events chan func() // sent by jobs, run by the loop; received until the last load and drain has ended
	gone   chan struct{}
	force  chan struct{} // closed when draining has lasted long enough
	jobs   int           // loads and drains under way

	models   map[string]*model
	removing map[string]bool       // folders of the store that are being removed
	records  map[string]*chronicle // by model, also of those that are not there now
	scribe   *scribe
	root     *rootDir // nil without a models directory
	asleep   sleepers
	looks    slots
	loads    slots

	scanned   bool // everything has been looked at once
	started   bool // and decided
	startEnds time.Time

	watcher  *watcher  // nil when there is none
	watching error     // why not everything is watched
	rewatch  sleeper   // while there is no watcher
	renewal  *renewing // nil: none is under way
	stopping bool
}

func newLoop(c *Controller) *loop {
	return &loop{
		records: make(map[string]*chronicle),
		scribe:  newScribe(c.opts.Journal, c.opts.Log, func(text string) { c.publish(func(p *published) { p.journal = text }) }),
		c:       c, o: c.opts, log: c.opts.Log,
		events: make(chan func()), gone: make(chan struct{}), force: make(chan struct{}),
		models: make(map[string]*model), removing: make(map[string]bool),
		looks: slots{limit: lookers, patience: lookPatience}, loads: slots{limit: c.opts.StartLoaders, patience: loadPatience},
	}
}

func (l *loop) run(ctx context.Context) {
	loads, cancel := context.WithCancel(ctx)
	defer cancel()
	l.ctx = loads
	var watching sync.WaitGroup
	watchCtx, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	defer watching.Wait()
	defer stopWatch()
	l.recall()
	l.startEnds = time.Now().Add(startWait)
	watching.Go(l.scribe.run)
	defer close(l.scribe.end)
	defer close(l.gone)

	if !l.o.PollOnly {
		l.startWatching(func(w *watcher) { watching.Go(func() { w.run(watchCtx) }) })
	}
	if l.o.ModelsDir != "" {
		l.root = &rootDir{dir: l.o.ModelsDir}
		l.root.wake.do = func(now time.Time) { l.tendRoot(now) }
		l.tendRoot(time.Now())
	}
	l.configure(l.o.Models)
	l.checkScanned()

	var (
		timer = time.NewTimer(time.Hour)
		done  = ctx.Done()
		drain <-chan time.Time
	)
	defer timer.Stop()
	for !l.stopping || l.jobs > 0 {
		timer.Reset(l.nextWake(time.Now()))
		select {
		case <-done:
			done = nil
			l.stop()
			drain = time.After(l.o.DrainTimeout)
		case <-drain:
			drain = nil
			close(l.force)
		case f := <-l.events:
			f()
		case <-l.c.wake:
			l.answer(l.c.takeAsk())
		case <-l.news():
			l.hinted()
		case <-timer.C:
		}
		l.tendDue(time.Now())
		l.tendRenewal()
	}
	for _, m := range l.models {
		l.publish(m)
	}
}

// post hands a job's outcome to the loop; it is dropped when the loop has ended.
func (l *loop) post(f func()) {
	select {
	case l.events <- f:
	case <-l.gone:
	}
}

// answer does what other goroutines asked for.
func (l *loop) answer(a ask) {
	for _, pong := range a.pings {
		close(pong)
	}
	if l.stopping {
		for _, v := range a.verbs {
			v.reply <- verdict{err: unwilling("inferd stops")}
		}
		for _, p := range a.applies {
			p.reply <- unwilling("inferd stops")
		}
		for _, n := range a.renewals {
			n.reply <- verdict{err: unwilling("inferd stops")}
		}
		return
	}
	defer func() {
		for _, v := range a.verbs { // last: they are about the new configuration
			l.grant(v)
		}
	}()
	if a.config {
		l.configure(a.models)
	}
	for _, p := range a.applies {
		l.apply(p.settings)
		p.reply <- nil
	}
	for _, n := range a.renewals {
		l.renew(n)
	}
	if a.freed {
		l.roomFreed(time.Now())
	}
	if a.rescan {
		l.lookAgain()
	}
}

func (l *loop) lookAgain() {
	now := time.Now()
	for _, name := range sortedKeys(l.models) {
		l.models[name].hint(l, now)
	}
	if l.root != nil {
		l.root.hint(l, now)
	}
}

// hinted passes the watcher's news on.
func (l *loop) hinted() {
	if l.stopping {
		return
	}
	owners, all := l.watcher.take()
	err := l.watcher.broken()
	switch {
	case err != nil && l.watching == nil:
		l.unwatched(err)
	case err == nil && l.watching != nil:
		l.watchedAgain()
	}
	if all {
		l.lookAgain()
		return
	}
	now := time.Now()
	for owner := range owners {
		if owner == rootOwner && l.root != nil {
			l.root.hint(l, now)
		} else if m := l.models[owner]; m != nil {
			m.hint(l, now)
		}
	}
}

// unwatched says once that changes are found by polling from now on.
func (l *loop) unwatched(err error) {
	l.watching = err
	l.log.Warn("folders cannot all be watched: changes are found by polling instead", "err", err, "poll", l.poll("", 0).String())
	l.c.publish(func(p *published) { p.watch = err.Error() })
}

// configure makes models the configured ones.
func (l *loop) configure(models []Model) {
	now := time.Now()
	named := make(map[string]bool, len(models))
	for _, config := range models {
		named[config.Name] = true
		m := l.models[config.Name]
		if m == nil {
			m = l.add(config)
			l.log.Info("model configured", "model", config.Name, "path", config.BasePath, "policy", config.Policy.String())
		}
		m.configured, m.dirty = true, true
		l.reconfigure(m, config, now)
	}
	for _, name := range sortedKeys(l.models) {
		if m := l.models[name]; m.configured && !named[name] {
			m.configured = false
			if !l.found(m) {
				l.remove(m, "it is no longer configured", now)
			}
		}
	}
	l.refill(now)
	if l.root != nil {
		l.root.hint(l, now) // a folder may have become, or ceased to be, somebody's base path
	}
}

// reconfigure gives the model a configuration; what was refused under another one before it served is tried again.
func (l *loop) reconfigure(m *model, config Model, now time.Time) {
	before := m.Model
	m.Model = config
	if !m.known || m.gone || before.BasePath != config.BasePath {
		m.unseen, m.dirty = true, true
	}
	if m.gone {
		m.gone, m.forgetAt, m.looked = false, time.Time{}, false
		l.log.Info("model is back", "model", m.Name)
	}
	labels := before.Labels
	if !reflect.DeepEqual(before.judging(), config.judging()) {
		for _, v := range m.versions {
			if b := m.rec.bad(v.number, v.sight.Print.Digest); v.state == StateQuarantined && (b == nil || b.Under != everywhere) {
				l.forgive(m, v, "the configuration changed")
				l.reset(m, v, "tried again with the new configuration")
			}
		}
	}
	if !reflect.DeepEqual(labels, config.Labels) || !m.known {
		m.dirty = true
	}
	m.known = true
	if before.KeepLastGood != config.KeepLastGood {
		l.startKeep(m)
	}
	l.supersedeLabels(m)
	l.applyLabels(m)
	m.hint(l, now)
	l.tend(m, now)
}

// add makes a model known.
func (l *loop) add(config Model) *model {
	m := &model{Model: config, versions: make(map[string]*version), dirty: true}
	m.wake.do = func(now time.Time) { l.tend(m, now) }
	l.remembered(m)
	l.models[config.Name] = m
	l.c.catalog.Add(config.Name)
	return m
}

// remove retires all of a model; it is forgotten after a while.
func (l *loop) remove(m *model, why string, now time.Time) {
	if m.gone {
		return
	}
	m.gone, m.dirty = true, true
	m.problem = why
	if m.cancel != nil {
		m.cancel()
	}
	l.log.Info("model removed", "model", m.Name, "reason", why)
	l.tend(m, now)
}

// stop cancels loads and retires everything.
func (l *loop) stop() {
	l.stopping = true
	for _, name := range sortedKeys(l.models) {
		m := l.models[name]
		if m.cancel != nil {
			m.cancel()
		}
		for _, v := range m.ordered() {
			if v.state == StateLive {
				l.retire(m, v, "the appliance stops")
			}
		}
		l.publish(m)
	}
}

// checkScanned publishes, once, that everything has been looked at.
func (l *loop) checkScanned() {
	if l.scanned || (l.root != nil && !l.root.looked) {
		return
	}
	for _, m := range l.models {
		if !m.looked && !m.gone {
			return
		}
	}
	l.scanned = true
	l.c.publish(func(p *published) { p.scanned = true })
}

// publish shows the model's state to other goroutines when it has changed.
func (l *loop) publish(m *model) {
	if !m.dirty {
		return
	}
	m.dirty = false
	s := m.status()
	l.c.publish(func(p *published) { p.models[m.Name] = s })
}

// forget drops a model for good.
func (l *loop) forget(m *model) {
	delete(l.models, m.Name)
	*m.rec = chronicle{Bad: m.rec.Bad}
	l.scribe.write(m.Name, m.rec, Event{At: time.Now(), What: "forgotten", Reason: m.problem})
	l.c.catalog.Remove(m.Name)
	l.removeStore(m.Name)
	if l.watcher != nil {
		l.watcher.set(m.Name, nil)
	}
	l.asleep.drop(&m.wake)
	l.c.publish(func(p *published) { delete(p.models, m.Name) })
	l.log.Info("model forgotten", "model", m.Name)
}

// nextWake is how long the loop may sleep.
func (l *loop) nextWake(now time.Time) time.Duration {
	d := time.Hour
	if l.stopping {
		return d
	}
	if len(l.asleep) > 0 {
		d = l.asleep[0].at.Sub(now)
	}
	if l.loads.held {
		d = min(d, l.startEnds.Sub(now))
	}
	return max(0, min(d, l.looks.wait(now), l.loads.wait(now)))
}

// tendDue attends to what has become due, and gives free slots away.
func (l *loop) tendDue(now time.Time) {
	if l.stopping {
		return
	}
	for len(l.asleep) > 0 && !l.asleep[0].at.After(now) {
		t := heap.Pop(&l.asleep).(*sleeper)
		t.at = time.Time{}
		t.do(now)
	}
	l.looks.start(now)
	l.tendStart(now)
	l.loads.start(now)
}

// wakeAt makes sure that s is attended to at t or earlier.
func (l *loop) wakeAt(s *sleeper, t time.Time) {
	switch {
	case s.at.IsZero():
		s.at = t
		heap.Push(&l.asleep, s)
	case t.Before(s.at):
		s.at = t
		heap.Fix(&l.asleep, s.index)
	}
}

// sleeper is something that wants attention at a time. at is zero while it is not in the heap.
type sleeper struct {
	at    time.Time
	do    func(now time.Time)
	index int
}

type sleepers []*sleeper

func (s sleepers) Len() int           { return len(s) }
func (s sleepers) Less(i, j int) bool { return s[i].at.Before(s[j].at) }
func (s sleepers) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].index, s[j].index = i, j
}
func (s *sleepers) Push(x any) {
	t := x.(*sleeper)
	t.index = len(*s)
	*s = append(*s, t)
}
func (s *sleepers) Pop() any {
	t := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return t
}

func (s *sleepers) drop(t *sleeper) {
	if !t.at.IsZero() {
		heap.Remove(s, t.index)
		t.at = time.Time{}
	}
}

// slots bound how many jobs of a kind run at once. A job that takes longer than patience counts no more, so that a path or a worker
// that hangs costs nobody else. Each model has at most one job of a kind, which bounds the rest.
type slots struct {
	limit    int
	patience time.Duration
	held     bool   // those whose turn is turnOther wait
	queue    []*job // in order of their turns
	running  []*job
}

type job struct {
	turn  turn
	begun time.Time
	begin func() // starts the goroutine
}

// add queues a job, behind those of its turn; start begins it when there is room.
func (s *slots) add(at turn, begin func()) *job {
	j := &job{turn: at, begin: begin}
	i := len(s.queue)
	for i > 0 && s.queue[i-1].turn > at {
		i--
	}
	s.queue = slices.Insert(s.queue, i, j)
	return j
}

// waits reports whether a job of that turn, or a later one, is queued.
func (s *slots) waits(at turn) bool { return len(s.queue) > 0 && s.queue[len(s.queue)-1].turn >= at }

// ready reports whether a job may begin when there is room.
func (s *slots) ready() bool { return len(s.queue) > 0 && (!s.held || s.queue[0].turn < turnOther) }

// end takes a job out, begun or not.
func (s *slots) end(j *job) {
	same := func(x *job) bool { return x == j }
	s.queue = slices.DeleteFunc(s.queue, same)
	s.running = slices.DeleteFunc(s.running, same)
}

func (s *slots) counted(now time.Time) (n int, next time.Duration) {
	next = time.Hour
	for _, j := range s.running {
		if left := s.patience - now.Sub(j.begun); left > 0 {
			n++
			next = min(next, left)
		}
	}
	return n, next
}

func (s *slots) start(now time.Time) {
	n, _ := s.counted(now)
	for ; n < s.limit && s.ready(); n++ {
		j := s.queue[0]
		s.queue = s.queue[1:]
		j.begun = now
		s.running = append(s.running, j)
		j.begin()
	}
}

// wait is when a queued job may have room without any running one ending.
func (s *slots) wait(now time.Time) time.Duration {
	if !s.ready() {
		return time.Hour
	}
	n, next := s.counted(now)
	if n < s.limit {
		return 0
	}
	return next
}

// codeOr is the error's code, or other where the error has none of its own.
func codeOr(err error, other inference.Code) inference.Code {
	if c := inference.AsError(err).Code; c != inference.Internal {
		return c
	}
	return other
}
