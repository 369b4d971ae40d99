// clients_test.go: clients that ask without a pause while a test does something to the appliance.
package appliance

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// load is a number of clients of one model, half of them over REST and half over gRPC.
type load struct {
	s    *server
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	good    int           // guarded by mu
	refused int           // guarded by mu; allowed failures
	bad     []string      // guarded by mu; what must not be, the first few
	waiting []*waiter     // guarded by mu
	seen    map[int64]int // guarded by mu; answers by version, where judge tells
}

type waiter struct {
	good int
	ch   chan struct{}
}

// judge looks at the end of one request. It returns the version that answered (0 when it cannot tell), and what is wrong with the
// answer, empty when nothing is; an err that it lets pass counts as refused.
type judge func(x float32, y []float32, err error) (version int64, wrong string)

// halfPlusTwo lets exact answers pass and no failure.
func halfPlusTwo(x float32, y []float32, err error) (int64, string) {
	if err != nil || len(y) != 1 || y[0] != 0.5*x+2 {
		return 0, fmt.Sprintf("answered %v, %v to %v", y, err, x)
	}
	return 0, ""
}

// startLoad asks the model with so many clients until end. No two requests have the same input, so that an answer that was another's
// shows. Inputs are whole numbers above 0.
func (s *server) startLoad(model string, clients int, judge judge) *load {
	s.t.Helper()
	return s.startLoadOf(1, model, clients, judge)
}

// startLoadOf is startLoad with inputs of that sign.
func (s *server) startLoadOf(sign int, model string, clients int, judge judge) *load {
	ctx, stop := context.WithCancel(context.Background())
	l := &load{s: s, stop: stop, seen: make(map[int64]int)}
	for c := range clients {
		l.wg.Go(func() {
			for i := 1; ctx.Err() == nil; i++ {
				x := float32(sign * (c<<17 + i)) // halves of it are exact
				ask := s.askGRPC
				if c%2 == 0 {
					ask = func(ctx context.Context, model string, x []float32) ([]float32, error) {
						return s.askREST(ctx, model, x)
					}
				}
				req, cancel := context.WithTimeout(context.Background(), patience)
				y, err := ask(req, model, []float32{x})
				cancel()
				v, wrong := judge(x, y, err)
				l.record(v, wrong, err)
			}
		})
	}
	s.t.Cleanup(func() { l.end() })
	return l
}

func (l *load) record(version int64, wrong string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case wrong != "":
		if len(l.bad) < 10 {
			l.bad = append(l.bad, wrong)
		}
	case err != nil:
		l.refused++
		return
	default:
		l.good++
		l.seen[version]++
	}
	rest := l.waiting[:0]
	for _, w := range l.waiting {
		if l.good >= w.good || len(l.bad) > 0 {
			close(w.ch)
		} else {
			rest = append(rest, w)
		}
	}
	l.waiting = rest
}

// more waits for n further good answers, or the first bad one.
func (l *load) more(n int) {
	l.s.t.Helper()
	l.mu.Lock()
	w := &waiter{good: l.good + n, ch: make(chan struct{})}
	l.waiting = append(l.waiting, w)
	l.mu.Unlock()
	select {
	case <-w.ch:
	case <-time.After(patience):
		l.s.t.Fatalf("no %d further answers; log:\n%s", n, l.s.logs.tail(40))
	}
}

// end stops the clients, each after its last answer, and reports what was wrong.
func (l *load) end() (good, refused int) {
	l.s.t.Helper()
	l.stop()
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.bad {
		l.s.t.Error(b)
	}
	l.bad = nil
	return l.good, l.refused
}
