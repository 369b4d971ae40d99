// watchdog.go: a sign of life that is true.
package systemd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// WatchdogInterval is how often systemd wants a sign of life from this process, 0 for never. It takes the answer out of the
// environment, so that children do not believe themselves watched.
func WatchdogInterval() (time.Duration, error) {
	d, err := daemon.SdWatchdogEnabled(true)
	if err != nil {
		return 0, fmt.Errorf("watchdog: %w", err)
	}
	return d, nil
}

// Question asks an owner loop whether it still turns. It returns nil once the loop has answered, and gives up when ctx ends.
type Question struct {
	Name string
	Ask  func(ctx context.Context) error
}

// Watchdog pings systemd as long as every question is answered.
type Watchdog struct {
	ping      func() error
	interval  time.Duration
	questions []Question
	silent    func(error)
}

// NewWatchdog sends pings through n so that never more than interval passes between two, if the questions are answered within half of
// it. silent (which may be nil) is told each time that a ping is left out or cannot be sent; it must not block.
func NewWatchdog(n *Notifier, interval time.Duration, silent func(error), questions ...Question) *Watchdog {
	if silent == nil {
		silent = func(error) {}
	}
	return &Watchdog{ping: n.Ping, interval: interval, questions: questions, silent: silent}
}

// Run watches until ctx ends, and returns nil then.
func (w *Watchdog) Run(ctx context.Context) error {
	if w.interval <= 0 {
		<-ctx.Done()
		return nil
	}
	// A quarter between rounds and half for the answers leaves a quarter of the interval to spare.
	tick := time.NewTicker(w.interval / 4)
	defer tick.Stop()
	for {
		err := w.ask(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err == nil {
			err = w.ping()
		}
		if err != nil {
			w.silent(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// ask asks everyone at once, and returns when each has answered or given up.
func (w *Watchdog) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, w.interval/2)
	defer cancel()
	errs := make(chan error, len(w.questions))
	for _, q := range w.questions {
		go func() {
			if err := q.Ask(ctx); err != nil {
				errs <- fmt.Errorf("watchdog: %s does not answer: %w", q.Name, err)
				return
			}
			errs <- nil
		}()
	}
	var err error
	for range w.questions {
		err = errors.Join(err, <-errs)
	}
	return err
}
