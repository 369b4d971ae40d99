// service.go: the appliance as a service of systemd: what it is told, when, and what is asked before each sign of life.
package appliance

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/systemd"
	"github.com/inferd/inferd/updater"
)

const (
	scanPatience  = time.Minute      // without news of the first scan, before READY is said without it
	loadPatience  = 10 * time.Minute // the same, while something is loaded
	extendEvery   = 10 * time.Second // while it starts
	extendBy      = 60 * time.Second
	startPatience = 30 * time.Minute // of opening files of gigabytes; then systemd may think what it likes
	statusEvery   = time.Second
)

// Service is what the process has from systemd. The zero value has nothing, and nobody is told.
type Service struct {
	Notifier  *systemd.Notifier
	Interval  time.Duration // of the watchdog, 0: nobody watches
	Listeners *systemd.Listeners
}

// FromSystemd takes everything out of the environment, so that no child believes to be the service. It is called once.
func FromSystemd() (Service, error) {
	s := Service{Notifier: systemd.NewNotifier(os.Getenv("NOTIFY_SOCKET"))}
	_ = os.Unsetenv("NOTIFY_SOCKET") // the name is valid
	var err error
	if s.Interval, err = systemd.WatchdogInterval(); err != nil {
		return s, err
	}
	s.Listeners, err = systemd.Inherit()
	return s, err
}

func (a *Appliance) notify(what string, send func(*systemd.Notifier) error) {
	if n := a.opts.Service.Notifier; n != nil {
		if err := send(n); err != nil {
			a.log.Warn("systemd could not be told", "name", what, "err", err)
		}
	}
}

// starting asks systemd for more time until stop is called, as long as alive returns nil: files may be large, and disks slow.
func (a *Appliance) starting(ctx context.Context, alive func(context.Context) error) (stop func()) {
	ctx, stop = context.WithTimeout(ctx, startPatience)
	go func() {
		tick := time.NewTicker(extendEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if alive(ctx) == nil {
					a.notify("EXTEND_TIMEOUT_USEC", func(n *systemd.Notifier) error { return n.ExtendTimeout(extendBy) })
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return stop
}

// openingFiles is the start's sign of life before any loop runs: there is nobody to ask.
func openingFiles(context.Context) error { return nil }

// runService is the last stage: it says READY once the first scan is done, keeps the status line, and answers the watchdog. opened says that
// every file is open.
func (a *Appliance) runService(ctx context.Context, ready func(), opened func()) error {
	ready()
	opened()
	var holding sync.WaitGroup
	holding.Go(func() { a.watchHold(ctx) })
	defer holding.Wait()
	if !a.supervised() {
		<-ctx.Done()
		return nil
	}
	watching, stop := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		w := systemd.NewWatchdog(a.opts.Service.Notifier, a.opts.Service.Interval, func(err error) {
			a.log.Error("no sign of life is given to systemd, which ends this process if that goes on", "err", err)
		}, a.questions()...)
		_ = w.Run(watching) // always nil
	}()
	scanned := a.starting(ctx, a.updater.Ping)
	a.firstScan(ctx)
	scanned()
	if ctx.Err() == nil {
		a.tellUp(true, "READY", (*systemd.Notifier).Ready)
	}
	a.tellStatus(ctx)
	wait := a.current.Load().DrainTimeout
	a.tellUp(false, "STOPPING", (*systemd.Notifier).Stopping)
	// The doors drain for so long at most, and so does the updater; then the workers end.
	a.notify("EXTEND_TIMEOUT_USEC", func(n *systemd.Notifier) error { return n.ExtendTimeout(2*wait + 30*time.Second) })
	stop() // systemd does not watch who stops
	<-watched
	return nil
}

// firstScan waits until every model that was found serves or has its verdict: as long as news come, and while something is loaded as long as
// a load may take. A path that hangs is not cured by a restart, so the wait ends, and it is said.
func (a *Appliance) firstScan(ctx context.Context) {
	a.tellLine()
	for {
		s, changed := a.updater.Watch()
		if settled(s) {
			return
		}
		wait := scanPatience
		if _, _, loading := count(s); loading > 0 {
			wait = loadPatience
		}
		t := time.NewTimer(wait)
		select {
		case <-changed:
			t.Stop()
			a.tellLine()
		case <-t.C:
			a.log.Warn("not every model that was found has served or been refused by now; inferd says that it is ready without", "wait", wait)
			return
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// tellUp says READY or STOPPING. Between the two systemd is told of reloads too: outside of them, the READY at the end of one would be taken
// for that of the start.
func (a *Appliance) tellUp(up bool, what string, send func(*systemd.Notifier) error) {
	a.told.Lock()
	defer a.told.Unlock()
	a.told.up = up
	a.notify(what, send)
}

// told is what systemd knows.
type told struct {
	sync.Mutex
	up   bool   // READY, and not STOPPING yet
	line string // of STATUS
}

// reloading tells systemd that the configuration is read again, until done is called.
func (a *Appliance) reloading() (done func()) {
	a.told.Lock()
	defer a.told.Unlock()
	if !a.told.up {
		return func() {}
	}
	a.notify("RELOADING", (*systemd.Notifier).Reloading)
	return func() {
		a.told.Lock()
		defer a.told.Unlock()
		if a.told.up {
			a.notify("READY", (*systemd.Notifier).Ready)
		}
	}
}

// tellStatus keeps the line of systemctl status, until ctx ends.
func (a *Appliance) tellStatus(ctx context.Context) {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for {
		a.tellLine()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// tellLine says how it is, if that is news.
func (a *Appliance) tellLine() {
	line := a.statusLine()
	a.told.Lock()
	defer a.told.Unlock()
	if !a.told.up {
		line = "starting: " + line
	}
	if line != a.told.line {
		a.told.line = line
		a.notify("STATUS", func(n *systemd.Notifier) error { return n.Status(line) })
	}
}

// count is how many models there are, how many of them answer, and how many versions are on their way.
func count(s updater.Status) (models, live, loading int) {
	for _, m := range s.Models {
		if m.Removed {
			continue
		}
		models++
		if len(m.Live) > 0 {
			live++
		}
		for _, v := range m.Versions {
			if v.State == updater.StateLoading || v.State == updater.StateWarming || v.State == updater.StateValidating {
				loading++
			}
		}
	}
	return models, live, loading
}

// statusLine says in one line how it is: models, jobs, and the worst that is not as it should be.
func (a *Appliance) statusLine() string {
	s, report := a.updater.Status(), a.health.Report()
	models, live, loading := count(s)
	parts := []string{fmt.Sprintf("%d of %d models answer", live, models)}
	if loading > 0 {
		parts = append(parts, fmt.Sprintf("%d versions are being loaded", loading))
	}
	if q := a.jobs.Queue(); q != nil && q.Stalled() < time.Second { // else asking would wait for the disk
		c := q.Stats()
		parts = append(parts, fmt.Sprintf("%d jobs wait, %d run", c.Queued, c.Leased))
	}
	for _, c := range report.Conditions { // the worst is the first
		if c.Severity >= health.Warning {
			parts = append(parts, fmt.Sprintf("%s: %s", c.Severity, c.Code))
			break
		}
	}
	return strings.Join(parts, "; ")
}

// questions are for those who must turn: what a restart would cure. None of them does I/O to answer, so that no disk, no model and no client keeps
// an answer back.
func (a *Appliance) questions() []systemd.Question {
	q := []systemd.Question{
		{Name: "the updater", Ask: a.updater.Ping},
		{Name: "the batch scheduler", Ask: a.pingSchedulers},
		{Name: "the job dispatcher", Ask: a.jobs.Ping},
	}
	if queue := a.jobs.Queue(); queue != nil {
		q = append(q, systemd.Question{Name: "the queue's writer", Ask: queue.Ping})
	}
	for name, l := range map[string]net.Listener{"the http door": a.doors.http, "the grpc door": a.doors.grpc, "the operators' door": a.doors.control} {
		if d, ok := l.(*door); ok {
			q = append(q, systemd.Question{Name: name, Ask: d.ping})
		}
	}
	return q
}

// pingSchedulers asks the batcher of every live version.
func (a *Appliance) pingSchedulers(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // one that is stuck keeps this goroutine, and the process has not long to live
		defer close(done)
		for _, model := range a.catalog.Models() {
			h, err := a.catalog.Acquire(inference.Spec{Model: model, Steady: true})
			if err != nil {
				continue
			}
			if s, ok := h.Servable().(*servable); ok {
				s.Stats()
			}
			h.Release()
		}
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// door is a listener of which can be told whether somebody accepts from it.
type door struct {
	net.Listener
	since atomic.Int64 // when Accept last returned, in nanoseconds; 0 while somebody waits in it
}

func newDoor(l net.Listener) net.Listener {
	if l == nil {
		return nil
	}
	d := &door{Listener: l}
	d.since.Store(time.Now().UnixNano())
	return d
}

// Accept implements net.Listener.
func (d *door) Accept() (net.Conn, error) {
	d.since.Store(0)
	c, err := d.Listener.Accept()
	d.since.Store(time.Now().UnixNano())
	return c, err
}

// ping returns nil once somebody waits in Accept, or has come out of it since the question.
func (d *door) ping(ctx context.Context) error {
	asked := time.Now().UnixNano()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if since := d.since.Load(); since == 0 || since > asked {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// supervised reports that somebody starts inferd again when it ends.
func (a *Appliance) supervised() bool {
	n := a.opts.Service.Notifier
	return n != nil && n.Enabled()
}

// rest waits after short lives, and says what this start is. What it returns notes this life's end.
func (a *Appliance) rest(ctx context.Context) (ended func(error)) {
	if !a.supervised() {
		return func(error) {}
	}
	last, shorts := a.lives.begin(a.opts.Version)
	a.lastRun = last
	if last != "" {
		a.log.Info("the run before", "reason", last)
	}
	if wait := Pause(shorts); wait > 0 {
		a.log.Warn("inferd has ended soon after its last starts, and waits before it goes on", "attempt", shorts, "wait", wait, "reason", last)
		a.notify("STATUS", func(n *systemd.Notifier) error {
			return n.Status(fmt.Sprintf("waits %s, for its last %d lives were short", wait, shorts))
		})
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
	if a.safe {
		a.log.Error("safe start: the last lives were short, so only versions that were good before are loaded, and jobs wait until a model answers", "attempt", shorts, "reason", last)
		a.health.Set(health.Condition{Code: health.CodeSafeStart, Severity: health.Warning, Message: fmt.Sprintf(
			"this is a safe start, for the last %d lives ended within a minute (the last one: %s): versions that never were good are left alone until their files change; `systemctl restart inferd` has them tried", shorts, last)})
	}
	var mu sync.Mutex // of a.lives
	long := time.AfterFunc(shortLife, func() {
		mu.Lock()
		defer mu.Unlock()
		a.lives.change(func(l *life) { l.Long = true })
	})
	return func(err error) {
		long.Stop()
		mu.Lock()
		defer mu.Unlock()
		a.lives.change(func(l *life) {
			l.Ended, l.How = time.Now(), endStopped
			if err != nil {
				l.How, l.Text = endFailed, err.Error()
			}
		})
	}
}

// queueHeld keeps the jobs where they are until a model answers, in a safe start: one of them may be what has ended the lives before.
func (a *Appliance) queueHeld() bool {
	if !a.safe {
		return false
	}
	_, live, _ := count(a.updater.Status())
	return live == 0
}
