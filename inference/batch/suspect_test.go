// suspect_test.go: requests that end the worker.
package batch

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

// killOn is a graph whose worker ends with err where a run holds the value 13.
func killOn(err error) func(fake.Record) ([]*tensor.Tensor, error) {
	return func(r fake.Record) ([]*tensor.Tensor, error) {
		if has(r, 13) {
			return nil, err
		}
		return fake.Echo(r)
	}
}

func TestRequestThatKillsIsFoundAndRefused(t *testing.T) {
	for name, cause := range map[string]error{"death": errSegv, "run timeout": fmt.Errorf("%w of 30s", inference.ErrRunTimeout)} {
		for kind, silent := range map[string]bool{"": false, ", silent runner": true} {
			t.Run(name+kind, func(t *testing.T) {
				inBubble(t, &fake.Runner{Latency: always(ms), Graph: killOn(cause), Silent: silent}, Options{}, func(b *bench) {
					began := time.Now()
					as := b.sendAll(rows(0), rows(1), rows(13), rows(2))
					settle(100 * ms)
					b.want(as[0], 0)
					b.want(as[1], 1)
					b.want(as[3], 2)
					until := began.Add(2*ms + 2*ms + suspectTime).UTC().Format(time.RFC3339)
					if e := b.fails(as[2], inference.InvalidArgument, inference.ReasonSuspect); !strings.Contains(e.Msg, "twice ("+cause.Error()+") and is refused until "+until) {
						b.Errorf("%s; want until %s", e.Msg, until)
					}
					b.ran(1, 3, 1, 1, 1)

					// From now on it costs nothing, whoever sends it; others are served, joined.
					again := b.send(b.Context(), rows(13))
					if b.fails(again, inference.InvalidArgument, inference.ReasonSuspect); again.took != 0 {
						b.Errorf("refused after %v", again.took)
					}
					b.ran(1, 3, 1, 1, 1)
					as = b.sendAll(rows(3), rows(4), rows(5))
					settle(100 * ms)
					b.want(as[2], 5)
					b.ran(1, 3, 1, 1, 1, 1, 2)
					if n := b.Stats().Suspects; n != 1 {
						b.Errorf("%d suspects, want the one that killed", n)
					}

					// After an hour it may try again.
					settle(suspectTime)
					again = b.send(b.Context(), rows(13))
					settle(100 * ms)
					b.fails(again, inference.InvalidArgument, inference.ReasonSuspect)
					b.ran(1, 3, 1, 1, 1, 1, 2, 1, 1)
				})
			})
		}
	}
}

// A death that was nobody's fault: everyone is run again alone, gets an answer and is cleared.
func TestInnocentsAreCleared(t *testing.T) {
	inBubble(t, &fake.Runner{Width: 2, Latency: always(10 * ms)}, Options{}, func(b *bench) {
		as := b.sendAll(rows(0), rows(1), rows(2), rows(3))
		settle(15 * ms) // 2 and 3 are in flight together
		as = append(as, b.sendAll(rows(4), rows(5))...)
		b.f.Kill(errSegv)
		synctest.Wait()
		if n := b.Stats().Suspects; n != 3 {
			b.Errorf("%d suspects, want 2, 3 and 4", n)
		}
		// Sent again by somebody else it is a suspect too, until the first has come through.
		twin := b.send(b.Context(), rows(3))
		settle(time.Second)
		for i, a := range as {
			b.want(a, float32(i))
		}
		b.want(twin, 3)
		if n := b.Stats().Suspects; n != 0 {
			b.Errorf("%d suspects left", n)
		}
		for _, r := range b.f.Records()[4:] {
			if r.Rows() != 1 {
				b.Errorf("a suspect was joined: %v", fake.Values(r.Inputs[0]))
			}
		}
	})
}

// While a suspect runs nothing else is in flight, so a second death proves who did it.
func TestSuspectRunsWithNothingElse(t *testing.T) {
	var f *fake.Runner
	var beside []int
	f = &fake.Runner{Width: 4, Latency: always(10 * ms), Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
		if has(r, 13) {
			now, _ := f.InFlight()
			beside = append(beside, now)
			return nil, errSegv
		}
		return fake.Echo(r)
	}}
	inBubble(t, f, Options{Policy: Policy{MaxBatchSize: 1}}, func(b *bench) {
		as := b.sendAll(rows(0), rows(1), rows(13), rows(2), rows(3), rows(4))
		settle(time.Second)
		for i, want := range []float32{0, 1, 13, 2, 3, 4} {
			if want != 13 {
				b.want(as[i], want)
			}
		}
		b.fails(as[2], inference.InvalidArgument, inference.ReasonSuspect)
		if len(beside) != 2 || beside[1] != 1 {
			b.Errorf("in flight when it ran: %v", beside)
		}
	})
}

// Many who send the same bytes are struck once for one death, and the ones that waited are held back once it is known.
func TestSameBytesFromMany(t *testing.T) {
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, Options{}, func(b *bench) {
		as := b.sendAll(rows(7), rows(7), rows(7))
		b.f.Kill(errSegv)
		settle(time.Second)
		for _, a := range as {
			b.want(a, 7)
		}
	})
	inBubble(t, &fake.Runner{Latency: always(10 * ms), Graph: killOn(errSegv)}, Options{}, func(b *bench) {
		as := b.sendAll(rows(13), rows(13), rows(1), rows(13))
		settle(time.Second)
		b.want(as[2], 1)
		for _, i := range []int{0, 1, 3} {
			b.fails(as[i], inference.InvalidArgument, inference.ReasonSuspect)
		}
		if n := b.f.Records(); len(n) != 3 {
			b.Errorf("%d runs: it may kill twice, and the innocent runs once", len(n))
		}
	})
}

// A caller who leaves before the death cannot hide: its inputs were hashed when it left.
func TestSuspectWhoseCallerHasLeft(t *testing.T) {
	f := &fake.Runner{Latency: always(30 * time.Second), Graph: killOn(inference.ErrRunTimeout)}
	inBubble(t, f, Options{}, func(b *bench) {
		for i := range 3 {
			ctx, cancel := context.WithTimeout(b.Context(), time.Second)
			req := rows(13)
			a := b.send(ctx, req)
			settle(time.Minute)
			cancel()
			if i < 2 {
				b.fails(a, inference.DeadlineExceeded, inference.ReasonDeadline)
			} else {
				b.fails(a, inference.InvalidArgument, inference.ReasonSuspect)
			}
			clear(req.Inputs[0].Data) // the memory is the caller's again
		}
		b.ran(1, 1)
	})
}

func TestSuspectThatWritesIsNotRepeated(t *testing.T) {
	writes := fake.Signature("writes", tensor.Float, 1, 1)
	writes.Writes, writes.Batchable = true, false
	bad := func() *inference.Request { return request(writes, fake.Floats(tensor.Shape{1, 1}, 13)) }
	inBubble(t, &fake.Runner{Latency: always(ms), Graph: killOn(errSegv)}, Options{}, func(b *bench) {
		a := b.send(b.Context(), bad())
		settle(10 * ms)
		b.fails(a, inference.Unavailable, inference.ReasonWorker)
		b.ran(1)
		a = b.send(b.Context(), bad()) // its client's own second try
		settle(10 * ms)
		b.fails(a, inference.InvalidArgument, inference.ReasonSuspect)
		b.ran(1, 1)
		b.fails(b.send(b.Context(), bad()), inference.InvalidArgument, inference.ReasonSuspect)
		b.ran(1, 1)
	})
}

// A run that had not begun when the worker died is nobody's fault.
func TestDeathBeforeTheRunBegan(t *testing.T) {
	deaths := 2
	f := &fake.Runner{}
	inBubble(t, f, Options{}, func(b *bench) {
		b.Batcher.runner = beforeIt(func(ctx context.Context, run *inference.Run) (*inference.Result, error) {
			if deaths--; deaths >= 0 {
				return nil, errSegv
			}
			return f.Run(ctx, run)
		}, f)
		b.tells.Store(true)
		b.want(b.send(b.Context(), rows(1)), 1)
		if n := b.Stats().Suspects; n != 0 {
			b.Errorf("%d suspects", n)
		}
		deaths = 1 << 30
		b.fails(b.send(b.Context(), rows(1)), inference.Unavailable, inference.ReasonWorker)
	})
}

type runnerFunc struct {
	inference.Runner
	run func(context.Context, *inference.Run) (*inference.Result, error)
}

func (r runnerFunc) Run(ctx context.Context, run *inference.Run) (*inference.Result, error) {
	return r.run(ctx, run)
}

func beforeIt(run func(context.Context, *inference.Run) (*inference.Result, error), f inference.Runner) inference.Runner {
	return runnerFunc{f, run}
}

// A large request is one suspect, whichever of its parts did it.
func TestLargeSuspect(t *testing.T) {
	large := func() *inference.Request { return rows(1, 2, 3, 4, 13, 6) }
	inBubble(t, &fake.Runner{Latency: always(ms), Graph: killOn(errSegv)}, Options{MaxRows: 2}, func(b *bench) {
		a := b.send(b.Context(), large())
		settle(time.Second)
		b.fails(a, inference.InvalidArgument, inference.ReasonSuspect)
		b.ran(2, 2, 2, 2)
		b.fails(b.send(b.Context(), large()), inference.InvalidArgument, inference.ReasonSuspect)
		b.ran(2, 2, 2, 2)
	})
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, Options{MaxRows: 2}, func(b *bench) {
		a := b.send(b.Context(), large())
		b.f.Kill(errSegv)
		settle(time.Second)
		b.want(a, 1, 2, 3, 4, 13, 6)
		again := b.send(b.Context(), large())
		settle(time.Second)
		b.want(again, 1, 2, 3, 4, 13, 6)
		if n := b.Stats().Suspects; n != 0 {
			b.Errorf("%d suspects", n)
		}
	})
}

func TestFingerprint(t *testing.T) {
	s := newSuspects()
	str := func(words ...string) *tensor.Tensor {
		var e [][]byte
		for _, w := range words {
			e = append(e, []byte(w))
		}
		return &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{int64(len(e))}, Strings: e}
	}
	other := fake.Signature("other", tensor.Float, -1, -1)
	outputs := rows(1, 2)
	outputs.Outputs = nil
	different := []*inference.Request{
		rows(1, 2), rows(2, 1), rows(1), outputs, request(xy, fake.Floats(tensor.Shape{1, 2}, 1, 2)), request(other, fake.Floats(tensor.Shape{2, 1}, 1, 2)),
		request(xy, str("ab", "c")), request(xy, str("a", "bc")), request(xy, str("abc")), request(xy),
	}
	var seen []uint64
	for i, req := range different {
		print := s.fingerprint(req)
		if j := slices.Index(seen, print); j >= 0 {
			t.Errorf("requests %d and %d have the same fingerprint", i, j)
		}
		seen = append(seen, print)
	}
	if s.fingerprint(rows(1, 2)) != seen[0] {
		t.Error("equal requests have different fingerprints")
	}
	if newSuspects().fingerprint(rows(1, 2)) == seen[0] {
		t.Error("the key is the same in every process: collisions can be prepared")
	}
}

func TestSuspectsAreBounded(t *testing.T) {
	s := newSuspects()
	s.strike(1, false, errSegv)
	s.strike(1, false, errSegv)
	if e, _ := s.find(1); e.convicted() {
		t.Error("convicted although it was never alone")
	}
	s.strike(1, true, errSegv)
	for i := range uint64(maxSuspects) {
		if i%100 == 0 { // looked at, so not the oldest
			if e, ok := s.find(1); !ok || !e.convicted() {
				t.Fatal("forgotten although it was asked for")
			}
		}
		s.strike(100+i, true, errSegv)
	}
	if n := s.size.Load(); n != maxSuspects || len(s.entries) != maxSuspects || s.recent.Len() != maxSuspects {
		t.Errorf("%d, %d and %d entries, want %d", n, len(s.entries), s.recent.Len(), maxSuspects)
	}
	if _, ok := s.find(100); ok {
		t.Error("the oldest was kept")
	}
}
