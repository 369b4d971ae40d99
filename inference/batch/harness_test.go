// harness_test.go: a batcher over a scripted runner, and requests sent to it.
package batch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const ms = time.Millisecond

// bench is a batcher under test. When the test ends it is closed and must have given everything back.
type bench struct {
	*testing.T
	*Batcher
	f *fake.Runner
}

// inBubble runs the test with a batcher in a synctest bubble.
func inBubble(t *testing.T, f *fake.Runner, opts Options, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		opts.Model, opts.Version = "m", 3
		if err := opts.Policy.Validate(); err != nil {
			t.Fatal(err)
		}
		b := &bench{t, New(f, opts), f}
		test(b)
		b.finish()
	})
}

func (b *bench) finish() {
	b.Helper()
	if err := b.Close(); err != nil {
		b.Error("close:", err)
	}
	synctest.Wait()
	if n := b.f.Lent(); n != 0 {
		b.Errorf("%d results were not released", n)
	}
	if !b.f.Closed() {
		b.Error("the runner was not closed")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.agenda.empty() || !b.shares.idle() || b.promised != 0 {
		b.Errorf("left in the books: %v, %d shares, %d promises", b.agenda.total, len(b.shares.of), b.promised)
	}
	if b.queued != 0 || b.queuedBytes != 0 || b.inflight != 0 || len(b.groups) != 0 || len(b.ready) != 0 || len(b.runs) != 0 || b.exclusive {
		b.Errorf("left behind: %d queued (%d bytes), %d in flight, %d groups, %d ready, %d runs, exclusive %v",
			b.queued, b.queuedBytes, b.inflight, len(b.groups), len(b.ready), len(b.runs), b.exclusive)
	}
	b.sigs.Range(func(_, s any) bool {
		if w := s.(*signature).weight + s.(*signature).running; w != 0 {
			b.Errorf("weight %d left behind", w)
		}
		return true
	})
}

var xy = fake.Signature("serving_default", tensor.Float, -1, -1)

// rows is a request of rows of width 1, with these values.
func rows(values ...float32) *inference.Request {
	return request(xy, fake.Floats(tensor.Shape{int64(len(values)), 1}, values...))
}

func request(sig *inference.Signature, inputs ...*tensor.Tensor) *inference.Request {
	return &inference.Request{Signature: sig, Inputs: inputs, Outputs: []int{0}}
}

// answer is what became of a request.
type answer struct {
	done   bool
	values []float32
	shape  tensor.Shape
	err    error
	took   time.Duration
}

// send predicts in a goroutine of its own and waits until it can go no further, so that requests queue in the order of the calls.
// The answer may be read after synctest.Wait.
func (b *bench) send(ctx context.Context, req *inference.Request) *answer {
	b.Helper()
	a := new(answer)
	began := time.Now()
	go func() {
		resp, err := b.Predict(ctx, req)
		a.took, a.err = time.Since(began), err
		if err == nil {
			a.values, a.shape = fake.Values(resp.Outputs[0]), resp.Outputs[0].Shape
			resp.Release()
		}
		a.done = true
	}()
	synctest.Wait()
	return a
}

func (b *bench) sendAll(reqs ...*inference.Request) []*answer {
	b.Helper()
	var as []*answer
	for _, req := range reqs {
		as = append(as, b.send(b.Context(), req))
	}
	return as
}

// want checks that the answer has these values.
func (b *bench) want(a *answer, values ...float32) {
	b.Helper()
	if !a.done || a.err != nil || !slices.Equal(a.values, values) {
		b.Errorf("got %v, %v, done %v; want %v", a.values, a.err, a.done, values)
	}
}

// fails checks that the answer is an error with this code and reason.
func (b *bench) fails(a *answer, code inference.Code, reason string) *inference.Error {
	b.Helper()
	var e *inference.Error
	if !a.done || !errors.As(a.err, &e) {
		b.Fatalf("got %v, %v, done %v; want %v", a.values, a.err, a.done, code)
	}
	if e.Code != code || e.Reason != reason || e.Model != "m" || e.Version != 3 {
		b.Errorf("got %v %q of %s %d (%v); want %v %q of m 3", e.Code, e.Reason, e.Model, e.Version, e, code, reason)
	}
	return e
}

// ran checks the sizes of the runs so far.
func (b *bench) ran(sizes ...int64) {
	b.Helper()
	var got []int64
	for _, r := range b.f.Records() {
		got = append(got, r.Rows())
	}
	if !slices.Equal(got, sizes) {
		b.Errorf("ran %v rows, want %v", got, sizes)
	}
}

// settle lets everything that can happen within d happen.
func settle(d time.Duration) {
	time.Sleep(d) // of the bubble's clock
	synctest.Wait()
}

func always(d time.Duration) func(fake.Record) time.Duration {
	return func(fake.Record) time.Duration { return d }
}

func ptr[T any](v T) *T { return &v }

// has reports whether a run holds the value anywhere in its first input.
func has(r fake.Record, v float32) bool { return slices.Contains(fake.Values(r.Inputs[0]), v) }

var errSegv = fmt.Errorf("%w: signal: segmentation fault", inference.ErrWorkerDied)

// empty reports whether nothing is booked, but for what rounding leaves.
func (a *agenda) empty() bool {
	for _, t := range a.total {
		if t > 1 || t < -1 {
			return false
		}
	}
	return true
}

// idle reports whether nobody has anything waiting.
func (s *shares) idle() bool {
	for _, c := range s.of {
		if c.calls != 0 {
			return false
		}
	}
	return math.Abs(s.work) < 1
}
