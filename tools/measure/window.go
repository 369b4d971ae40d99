// window.go: throughput and latencies of a closed loop over a window of time.
package measure

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Window is what a server did while a number of connections asked it, each one call after the other.
type Window struct {
	Calls   int
	Seconds float64
	// P50 and P99 are over the calls that ended in the window; zero when there were none.
	P50, P99 time.Duration
}

// Rate is calls per second.
func (w Window) Rate() float64 { return float64(w.Calls) / w.Seconds }

// Observe drives n connections, counts the calls that end in the window d that begins after warm, and then closes the connections, with
// calls still open on them: a slow server is not waited for. A call that fails before that is an error.
func Observe(n int, warm, d time.Duration, open Caller) (Window, error) {
	type conn struct {
		call func() error
		done func()
		took []time.Duration
	}
	conns := make([]conn, n)
	for i := range conns {
		call, done, err := open(i)
		if err != nil {
			for _, c := range conns[:i] {
				c.done()
			}
			return Window{}, err
		}
		conns[i] = conn{call: call, done: done}
	}
	var (
		over   atomic.Bool
		failed = make(chan error, n)
		wg     sync.WaitGroup
		from   = time.Now().Add(warm)
		to     = from.Add(d)
	)
	for i := range conns {
		c := &conns[i]
		wg.Go(func() {
			for {
				began := time.Now()
				err := c.call()
				ended := time.Now()
				switch {
				case over.Load() || ended.After(to):
					return
				case err != nil:
					failed <- err
					return
				case ended.After(from):
					c.took = append(c.took, ended.Sub(began))
				}
			}
		})
	}
	var err error
	select {
	case err = <-failed:
	case <-time.After(time.Until(to)):
	}
	over.Store(true)
	for i := range conns {
		conns[i].done()
	}
	wg.Wait()
	select {
	case late := <-failed:
		err = errors.Join(err, late)
	default:
	}
	if err != nil {
		return Window{}, err
	}
	w := Window{Seconds: d.Seconds()}
	var all []time.Duration
	for i := range conns {
		all = append(all, conns[i].took...)
	}
	if w.Calls = len(all); w.Calls > 0 {
		slices.Sort(all)
		w.P50, w.P99 = all[len(all)/2], all[min(len(all)-1, len(all)*99/100)]
	}
	return w, nil
}
