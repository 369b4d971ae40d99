// canary.go: made-up runs of versions that nobody asks, so that a worker that hangs is found before a request meets it.
package appliance

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

const (
	canaryLooks  = 4    // in each interval
	canaryShare  = 1000 // all versions' canaries together take one part in so many of the time
	canaryMost   = 24 * time.Hour
	canaryDouble = 10 // times at most
)

// canary is the made-up run of one version.
type canary struct {
	made updater.MadeUp
	none error // why there is none

	ended context.Context // the version's
	end   context.CancelFunc

	asking sync.Mutex // held while it runs
	closed bool       // guarded by asking
}

func newCanary(made updater.MadeUp, none error) *canary {
	c := &canary{made: made, none: none}
	c.ended, c.end = context.WithCancel(context.Background())
	return c
}

// close ends a run that is under way, and lets no other begin. It returns when none is.
func (c *canary) close() {
	c.end()
	c.asking.Lock()
	defer c.asking.Unlock()
	c.closed = true
}

// ask makes the run. It is no request: it goes by the batcher, and by whatever counts what the version is asked.
func (c *canary) ask(ctx context.Context, m *worker.Model) error {
	c.asking.Lock()
	defer c.asking.Unlock()
	if c.closed {
		return worker.ErrAway
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(c.ended, cancel)()
	run, err := c.made.Run()
	if err != nil {
		return err
	}
	if err = m.Ask(ctx, run); ctx.Err() != nil {
		return worker.ErrAway // it, or inferd, ends
	}
	return err
}

// silence is for how long a version has made no run, and what its canaries have shown.
type silence struct {
	lasts time.Duration
	took  time.Duration // the last one, or the made-up run that the version was proven with
	hung  int           // of the last ones, in a row
}

// pause is how long the silence lasts before the version is asked: at least so many times what a run takes. It doubles with each canary that hung:
// where replacing the worker did not help, it shall not be done all the time.
func (s silence) pause(every time.Duration, times int) time.Duration {
	times = max(1, times)
	if s.took > canaryMost/time.Duration(times) {
		return max(every, canaryMost)
	}
	pause := max(every, s.took*time.Duration(times))
	return max(every, min(pause<<min(s.hung, canaryDouble), canaryMost))
}

// whom is the version to ask next: the most overdue of those that may be asked; -1 when none is due.
func whom(may []silence, every time.Duration, times int) int {
	next, most := -1, time.Duration(-1)
	for i, s := range may {
		if over := s.lasts - s.pause(every, times); over > most {
			next, most = i, over
		}
	}
	return next
}

// canaries is what is known of the live versions. It is owned by runCanaries.
type canaries struct {
	*Appliance
	known map[*servable]*heard // nil: it is never asked
	share int
}

// heard is what is known of one version.
type heard struct {
	silence
	since time.Time
	runs  int64 // of requests, at the last look
}

// runCanaries asks idle versions, one at a time, until ctx ends.
func (a *Appliance) runCanaries(ctx context.Context, ready func()) error {
	ready()
	c := &canaries{a, make(map[*servable]*heard), cmp.Or(a.opts.canaryShare, canaryShare)}
	for {
		changed, every := a.reconfigured.next(), a.current.Load().Runtime.CanaryInterval
		var tick <-chan time.Time
		if every > 0 {
			tick = time.After(every / canaryLooks)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick:
			for ctx.Err() == nil && c.look(ctx, every) {
			}
		}
	}
}

// look asks the version that is due, and reports whether there was one.
func (c *canaries) look(ctx context.Context, every time.Duration) bool {
	may, silences, versions := c.hear(time.Now())
	i := whom(silences, every, c.share*versions)
	if i < 0 || c.load.busy() || c.memory.pressure() > admission.Calm {
		return false
	}
	c.ask(ctx, may[i])
	return true
}

// hear brings what is known up to date, and returns those that may be asked now, of so many versions that are asked at times.
func (c *canaries) hear(now time.Time) (may []*servable, silences []silence, versions int) {
	live := c.load.live.all()
	known := make(map[*servable]*heard, len(live))
	for _, s := range live {
		h, ok := c.known[s]
		if !ok {
			h = &heard{since: now, silence: silence{took: s.canary.made.Took}}
			if reason := s.mute(); reason != "" {
				c.log.Debug("version is not asked while it is idle", "model", s.model, "version", s.version, "reason", reason)
				h = nil
			}
		}
		if known[s] = h; h == nil {
			continue
		}
		versions++
		runs := s.runs.Load()
		if m := s.runner.(*worker.Model); runs != h.runs || m.State() != worker.Live {
			h.runs, h.since = runs, now
			continue
		}
		if s.inside.Load() > 0 {
			continue // it is asked; the run that follows is watched as well
		}
		h.lasts = now.Sub(h.since)
		may, silences = append(may, s), append(silences, h.silence)
	}
	c.known = known
	return may, silences, versions
}

// mute is why the version is never asked, empty when it is.
func (s *servable) mute() string {
	if _, process := s.runner.(*worker.Model); !process {
		return "isolation: none has no worker that could be replaced"
	}
	if s.canary.none != nil {
		return s.canary.none.Error()
	}
	return ""
}

// ask makes the version's canary run.
func (c *canaries) ask(ctx context.Context, s *servable) {
	h, began := c.known[s], time.Now()
	err := s.canary.ask(ctx, s.runner.(*worker.Model))
	h.since = time.Now()
	log := c.log.With("model", s.model, "version", s.version, "signature", s.canary.made.Signature.Key, "took", h.since.Sub(began))
	result := "ok"
	switch {
	case errors.Is(err, worker.ErrAway):
		return
	case errors.Is(err, inference.ErrRunTimeout):
		result = "hung"
		h.hung++
		log.Warn("worker hung while nobody asked it: it was ended and is replaced", "err", err)
	case err != nil:
		result = "error"
		log.Debug("idle version answered a made-up run with an error", "err", err)
	}
	if result != "hung" {
		h.took, h.hung = h.since.Sub(began), 0
	}
	c.metrics.canaries.WithLabelValues(s.model, result).Inc()
}

// busy reports whether a version is being loaded, proven or measured.
func (l *loader) busy() bool {
	if l.loading.Load() > 0 {
		return true
	}
	serves := make(map[inference.Runner]bool)
	for _, s := range l.live.all() {
		serves[s.runner] = true
	}
	busy := false
	l.accounts.Range(func(r, _ any) bool {
		busy = !serves[r.(inference.Runner)]
		return !busy
	})
	return busy
}
