// openloop.go: load that comes at its own times, whatever the answers do.
package main

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/inferd/inferd/tools/measure"
)

// openLoop asks rate times a second for d, at times as in a Poisson process and the same ones for the same arguments, and returns how long each
// answer took in milliseconds, counted from the time at which the question was due: one that is late because others were slow counts in full.
func openLoop(rate float64, d time.Duration, open measure.Caller) ([]float64, error) {
	const most = 2000 // connections; more are never open at the loads that are measured
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		idle []func() error // guarded by mu
		took []float64      // guarded by mu
		errs []error        // guarded by mu
		ends []func()
	)
	defer func() {
		for _, end := range ends {
			end()
		}
	}()
	for i := range 16 { // so that none has to be made while the clock runs, unless there is a queue
		call, end, err := open(i)
		if err != nil {
			return nil, err
		}
		idle, ends = append(idle, call), append(ends, end)
		if err := call(); err != nil { // the server closes connections that ask nothing for long
			return nil, err
		}
	}
	gaps := rand.New(rand.NewPCG(7, uint64(rate*1000)))
	began := time.Now()
	for at := time.Duration(0); at < d; at += time.Duration(gaps.ExpFloat64() / rate * float64(time.Second)) {
		due := began.Add(at)
		time.Sleep(time.Until(due))
		mu.Lock()
		var call func() error
		if n := len(idle); n > 0 {
			call, idle = idle[n-1], idle[:n-1]
		}
		failed := len(errs) > 0
		mu.Unlock()
		if failed {
			break
		}
		if call == nil {
			if len(ends) == most {
				return nil, errors.New("the server cannot keep up with the load")
			}
			c, end, err := open(len(ends))
			if err != nil {
				return nil, err
			}
			call, ends = c, append(ends, end)
		}
		wg.Go(func() {
			err := call()
			ms := float64(time.Since(due).Microseconds()) / 1000
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			took, idle = append(took, ms), append(idle, call)
		})
	}
	wg.Wait()
	return took, errors.Join(errs...)
}

// quantile is the smallest value that at least the share q of all do not exceed.
func quantile(v []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[min(len(s)-1, int(q*float64(len(s))))]
}
