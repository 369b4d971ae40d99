// admit_test.go: what comes in, what is refused, and what overload leaves of the useful output. All in virtual time, so the figures are exact.
package batch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
)

// seed is of the arrivals; INFERD_LONG tries a dozen.
var seed uint64 = 7

// source sends requests at a rate for as long as offer runs.
type source struct {
	client   *inference.Client
	class    inference.Class
	rate     float64 // per second, Poisson
	deadline time.Duration
	rows     int

	sent, good, late, refused int
	reasons                   map[string]int
}

// offer sends what every source has for d, as the doors do: a ticket first, then some time for the body, then Predict.
func (b *bench) offer(d, body time.Duration, sources ...*source) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, s := range sources {
		s.sent, s.good, s.late, s.refused, s.reasons = 0, 0, 0, 0, map[string]int{}
		rng := rand.New(rand.NewPCG(uint64(i), seed))
		wg.Go(func() {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(time.Duration(rng.ExpFloat64() / s.rate * float64(time.Second)))
				s.sent++
				wg.Go(func() {
					err := b.ask(s, body)
					mu.Lock()
					defer mu.Unlock()
					var e *inference.Error
					switch errors.As(err, &e); {
					case err == nil:
						s.good++
					case e.Code == inference.DeadlineExceeded:
						s.late++
					default:
						s.refused++
						s.reasons[e.Reason]++
						if e.RetryAfter <= 0 {
							b.Errorf("a refusal without a hint: %v", e)
						}
					}
				})
			}
		})
	}
	wg.Wait()
}

func (b *bench) ask(s *source, body time.Duration) error {
	ctx, cancel := context.WithTimeout(b.Context(), s.deadline)
	defer cancel()
	at, _ := ctx.Deadline()
	ticket, err := b.Admit(at, 1000, s.class, s.client)
	if err != nil {
		return err
	}
	time.Sleep(body)
	req := rows(make([]float32, max(1, s.rows))...)
	req.Class, req.Client, req.Ticket = s.class, s.client, ticket
	defer req.Ticket.Leave()
	resp, err := b.Predict(ctx, req)
	if err == nil {
		resp.Release()
	}
	return err
}

// percent is the speed of a machine, which may be changed while runs are in flight.
func percent(n int64) *atomic.Int64 {
	p := new(atomic.Int64)
	p.Store(n)
	return p
}

// heavy is a model whose rows take 10ms each, give or take a tenth.
func heavy(width int, speed *atomic.Int64) *fake.Runner {
	rng := rand.New(rand.NewPCG(1, 2))
	var mu sync.Mutex
	return &fake.Runner{Width: width, Latency: func(r fake.Record) time.Duration {
		mu.Lock()
		defer mu.Unlock()
		return time.Duration(float64(r.Rows()) * float64(10*ms) * (0.9 + 0.2*rng.Float64()) / (float64(speed.Load()) / 100))
	}}
}

// Ten times what can be done is offered: the useful output stays, and who is let in is answered.
func TestOverload(t *testing.T) {
	if os.Getenv("INFERD_LONG") != "" {
		for seed = range 12 {
			overload(t)
		}
		seed = 7
	}
	overload(t)
}

func overload(t *testing.T) {
	for _, width := range []int{1, 2, 4} {
		for _, deadline := range []time.Duration{50 * ms, 200 * ms, 2 * time.Second} {
			t.Run(fmt.Sprintf("%d slots, %v", width, deadline), func(t *testing.T) {
				speed := percent(100)
				inBubble(t, heavy(width, speed), Options{}, func(b *bench) {
					peak := 100 * float64(width)
					warm := &source{rate: peak / 4, deadline: deadline}
					b.offer(2*time.Second, 0, warm)
					s := &source{rate: 10 * peak, deadline: deadline}
					b.offer(20*time.Second, ms/2, s)
					if got := float64(s.good) / 20 / peak; got < 0.95 {
						b.Errorf("goodput %.3f of the peak; %+v, %+v", got, *s, b.Stats())
					}
					if share := float64(s.late) / float64(s.good+s.late); share > 0.001 {
						b.Errorf("%.4f of those who were let in were late; %+v", share, *s)
					}
				})
			})
		}
	}
}

// The same with a model whose runs cost nearly the same for one row as for many: batches grow as far as they must.
func TestOverloadOfAModelThatBatches(t *testing.T) {
	f := &fake.Runner{Width: 2, Latency: func(r fake.Record) time.Duration { return 5*ms + time.Duration(r.Rows())*ms/10 }}
	inBubble(t, f, Options{MaxRows: 32}, func(b *bench) {
		peak := 2 * 32 / (5*ms + 32*ms/10).Seconds()
		b.offer(2*time.Second, 0, &source{rate: 100, deadline: 100 * ms})
		s := &source{rate: 4 * peak, deadline: 100 * ms}
		b.offer(3*time.Second, ms, s)
		if got := float64(s.good) / 3 / peak; got < 0.95 {
			b.Errorf("goodput %.3f of the peak; %+v, %+v", got, *s, b.Stats())
		}
		if share := float64(s.late) / float64(s.good+s.late); share > 0.001 {
			b.Errorf("%.4f of those who were let in were late; %+v", share, *s)
		}
	})
}

// The machine gets slower while it is overloaded, as heat does to it, and fast again.
func TestSlowdown(t *testing.T) {
	speed := percent(100)
	inBubble(t, heavy(2, speed), Options{}, func(b *bench) {
		s := &source{rate: 1000, deadline: 200 * ms}
		for _, now := range []int64{100, 50, 100} {
			speed.Store(now)
			b.offer(5*time.Second, 0, s) // to follow
			b.offer(10*time.Second, 0, s)
			if got := float64(s.good) / 10 / (2 * float64(now)); got < 0.95 {
				b.Errorf("goodput %.3f of the peak at %d%%; %+v", got, now, *s)
			}
			if share := float64(s.late) / float64(s.good+s.late); share > 0.001 {
				b.Errorf("%.4f of those who were let in were late at %d%%; %+v", share, now, *s)
			}
		}
	})
}

// A client that sends a hundred times its share takes nothing from one that stays below its own.
func TestFairShares(t *testing.T) {
	speed := percent(100)
	for _, c := range []struct {
		weight, rate float64
		want         float64 // of what the other asks for
	}{{1, 20, 0.98}, {1, 45, 0.95}, {3, 70, 0.95}} {
		inBubble(t, heavy(1, speed), Options{}, func(b *bench) {
			loud := &source{client: &inference.Client{Name: "loud", Weight: 1}, rate: 5000, deadline: 300 * ms}
			quiet := &source{client: &inference.Client{Name: "quiet", Weight: c.weight}, rate: c.rate, deadline: 300 * ms}
			b.offer(20*time.Second, 0, quiet)
			alone := quiet.good
			b.offer(20*time.Second, 0, quiet, loud)
			if float64(quiet.good) < 0.9*float64(alone) || float64(quiet.good) < 0.9*c.want*float64(quiet.sent) {
				b.Errorf("weight %v at %v/s: %d of %d beside the other, %d alone; %+v", c.weight, c.rate, quiet.good, quiet.sent, alone, *quiet)
			}
			if all := float64(quiet.good+loud.good) / 20; all < 95 {
				b.Errorf("%v/s in all, want about 100; %+v %+v %+v", all, *quiet, *loud, b.Stats())
			}
		})
	}
}

// Where there is not time for all, the higher class is answered.
func TestClasses(t *testing.T) {
	speed := percent(100)
	inBubble(t, heavy(1, speed), Options{}, func(b *bench) {
		var s [3]*source
		for i := range s {
			s[i] = &source{class: inference.Interactive + inference.Class(i), rate: 60, deadline: 300 * ms}
		}
		b.offer(20*time.Second, 0, s[:]...)
		if f := float64(s[0].good) / float64(s[0].sent); f < 0.99 {
			b.Errorf("interactive: %.3f answered; %+v", f, *s[0])
		}
		if sum := float64(s[0].good+s[1].good+s[2].good) / 20; sum < 90 {
			b.Errorf("%v/s in all, want about 100; %+v %+v %+v", sum, *s[0], *s[1], *s[2])
		}
		if s[2].good > s[1].good/4 {
			b.Errorf("batch had %d answers, normal %d", s[2].good, s[1].good)
		}
	})
}

// A promise counts until it is used or left, and what it stands for is let in.
func TestTicket(t *testing.T) {
	speed := percent(100)
	inBubble(t, heavy(1, speed), Options{}, func(b *bench) {
		b.sendAll(rows(1))
		settle(time.Second)
		at := time.Now().Add(45 * ms)
		var held []inference.Ticket
		for {
			ticket, err := b.Admit(at, 10, inference.Normal, nil)
			if err != nil {
				var e *inference.Error
				if errors.As(err, &e); e.Code != inference.ResourceExhausted || e.Reason != inference.ReasonDeadline || e.RetryAfter <= 0 || e.Model != "m" {
					b.Errorf("refused with %+v", e)
				}
				break
			}
			held = append(held, ticket)
		}
		if len(held) < 3 || len(held) > 4 || b.Stats().Promised != len(held) {
			b.Fatalf("%d promises of 10ms in 45ms; %+v", len(held), b.Stats())
		}
		held[0].Leave()
		held[0].Leave()
		again, err := b.Admit(at, 10, inference.Normal, nil)
		if err != nil {
			b.Fatal(err)
		}
		held[0] = again
		ctx, cancel := context.WithDeadline(b.Context(), at)
		defer cancel()
		var as []*answer
		for _, ticket := range held {
			req := rows(2)
			req.Ticket = ticket
			as = append(as, b.send(ctx, req))
		}
		settle(100 * ms)
		for _, a := range as {
			b.want(a, 2)
		}
		if n := b.Stats().Promised; n != 0 {
			b.Errorf("%d promises left", n)
		}
	})
}

// A version that has to be loaded first is not waited for by who has not the time; it is loaded for the next.
func TestNotReady(t *testing.T) {
	wakes := 0
	opts := Options{Ready: func() time.Duration { return 500 * ms }, Wake: func() { wakes++ }, Expect: map[string]map[int64]time.Duration{"serving_default": {1: 10 * ms}}}
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, opts, func(b *bench) {
		ctx, cancel := context.WithTimeout(b.Context(), 300*ms)
		defer cancel()
		e := b.fails(b.send(ctx, rows(1)), inference.Unavailable, inference.ReasonLoading)
		if e.RetryAfter != 500*ms || wakes != 1 {
			b.Errorf("retry after %v, %d wakes", e.RetryAfter, wakes)
		}
		longer, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		a := b.send(longer, rows(1))
		settle(time.Second)
		b.want(a, 1)
	})
}

// Predictions that nothing has been held against for a while are tried again.
func TestStalePredictions(t *testing.T) {
	speed := percent(5)
	inBubble(t, heavy(1, speed), Options{}, func(b *bench) {
		s := &source{rate: 20, deadline: 100 * ms}
		b.offer(5*time.Second, 0, s)
		if s.good > 0 {
			b.Fatalf("%+v", *s)
		}
		speed.Store(100)
		b.offer(10*time.Second, 0, s)
		if float64(s.good) < 0.6*float64(s.sent) {
			b.Errorf("the machine is fast again, but %+v", *s)
		}
	})
}

// With the widest and the narrowest numbers that a client can send, nothing is let in that is not in the books, and nothing breaks.
func FuzzAdmit(f *testing.F) {
	f.Add(int64(0), int64(0), int8(0))
	f.Add(int64(-1), int64(1<<62), int8(1))
	f.Add(int64(1<<62), int64(-5), int8(-1))
	f.Fuzz(func(t *testing.T, left, bytes int64, class int8) {
		synctest.Test(t, func(t *testing.T) {
			speed := percent(100)
			b := New(heavy(1, speed), Options{Expect: map[string]map[int64]time.Duration{"serving_default": {1: ms, 8: 5 * ms}}})
			c := inference.Class(max(-1, min(1, class)))
			ticket, err := b.Admit(time.Now().Add(time.Duration(left)), max(0, bytes), c, nil)
			if (err == nil) != (b.Stats().Promised == 1) {
				t.Errorf("%v, %+v", err, b.Stats())
			}
			ticket.Leave()
			if !b.agenda.empty() || b.Stats().Promised != 0 || !b.shares.idle() {
				t.Errorf("left behind: %+v, %v", b.Stats(), b.agenda.total)
			}
			if err := b.Close(); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestAdmitAllocatesNothing(t *testing.T) {
	speed := percent(100)
	b := New(heavy(1, speed), Options{Expect: map[string]map[int64]time.Duration{"serving_default": {1: ms}}})
	defer b.Close()
	b.typical = typical{known: true, work: float64(ms), mean: float64(ms), run: float64(ms), bytes: 100}
	at := time.Now().Add(time.Minute)
	if n := testing.AllocsPerRun(1000, func() {
		ticket, err := b.Admit(at, 100, inference.Normal, nil)
		if err != nil {
			t.Fatal(err)
		}
		ticket.Leave()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkAdmit is a promise made and left, with a thousand that wait.
func BenchmarkAdmit(b *testing.B) {
	speed := percent(100)
	q := New(heavy(1, speed), Options{Expect: map[string]map[int64]time.Duration{"serving_default": {1: ms}}})
	defer q.Close()
	q.typical = typical{known: true, work: 1000, mean: 1000, run: 1000, bytes: 100}
	var held []inference.Ticket
	for i := range 1000 {
		ticket, err := q.Admit(time.Now().Add(time.Minute+time.Duration(i)*ms), 100, inference.Normal, nil)
		if err != nil {
			b.Fatal(err)
		}
		held = append(held, ticket)
	}
	defer func() {
		for _, ticket := range held {
			ticket.Leave()
		}
	}()
	client := &inference.Client{Weight: 2}
	for name, left := range map[string]time.Duration{"last": time.Hour, "first": 50 * time.Second} {
		b.Run(name, func(b *testing.B) {
			at := time.Now().Add(left)
			b.ReportAllocs()
			for b.Loop() {
				ticket, err := q.Admit(at, 100, inference.Normal, client)
				if err != nil {
					b.Fatal(err)
				}
				ticket.Leave()
			}
		})
	}
}
