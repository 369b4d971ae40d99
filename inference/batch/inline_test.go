// inline_test.go: a request that comes alone is begun by its own goroutine, and leaves it in time all the same.
package batch

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
)

// beginner is a runner that can begin a run; quick says that Poll sees its end.
type beginner struct {
	*fake.Runner
	quick  bool
	refuse bool
	begun  int
	run    *inference.Run
}

func (b *beginner) Begin(run *inference.Run) inference.Begun {
	if b.refuse {
		return nil
	}
	b.begun++
	b.run = run
	if run.Copied != nil {
		run.Copied()
	}
	return b
}

func (b *beginner) Poll() bool { return b.quick }

func (b *beginner) Wait(ctx context.Context) (*inference.Result, error) {
	run := *b.run
	run.Copied = nil
	return b.Runner.Run(ctx, &run)
}

func TestInline(t *testing.T) {
	for name, c := range map[string]struct {
		quick, refuse bool
		begun         int
	}{"quick": {true, false, 1}, "slow": {false, false, 1}, "not now": {false, true, 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				took := time.Duration(0)
				if !c.quick {
					took = ms
				}
				f := &fake.Runner{Latency: always(took)}
				r := &beginner{Runner: f, quick: c.quick, refuse: c.refuse}
				b := &bench{t, New(r, Options{Model: "m", Version: 3}), f}
				a := b.send(t.Context(), rows(1, 2))
				settle(10 * ms)
				b.want(a, 1, 2)
				if r.begun != c.begun {
					t.Errorf("%d runs were begun by their callers, want %d", r.begun, c.begun)
				}
				b.finish()
			})
		})
	}
}

// TestInlineDeadline: the caller of a run that turns out to be long leaves at its deadline, and who comes meanwhile is run beside it.
func TestInlineDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake.Runner{Latency: always(time.Second)}
		r := &beginner{Runner: f}
		b := &bench{t, New(r, Options{Model: "m", Version: 3}), f}
		ctx, cancel := context.WithTimeout(t.Context(), 10*ms)
		defer cancel()
		began := time.Now()
		first := b.send(ctx, rows(1))
		synctest.Wait()
		second := b.send(t.Context(), rows(2))
		settle(10*ms - time.Since(began))
		b.fails(first, inference.DeadlineExceeded, inference.ReasonDeadline)
		settle(2 * time.Second)
		b.want(second, 2)
		if r.begun != 1 {
			t.Errorf("%d runs were begun by their callers", r.begun)
		}
		b.finish()
	})
}
