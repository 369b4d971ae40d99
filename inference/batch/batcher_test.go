// batcher_test.go: joining, order, bounds, deadlines and the end.
package batch

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

func TestWhatWaitsLeavesTogether(t *testing.T) {
	var mu sync.Mutex
	var seen []Observation
	opts := Options{Observe: func(o Observation) {
		o.Waits = slices.Clone(o.Waits)
		mu.Lock()
		seen = append(seen, o)
		mu.Unlock()
	}}
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, opts, func(b *bench) {
		first := b.send(b.Context(), rows(1))
		settle(4 * ms)
		rest := b.sendAll(rows(2, 3), rows(4), rows(5, 6, 7))
		settle(100 * ms)
		b.want(first, 1)
		b.want(rest[0], 2, 3)
		b.want(rest[1], 4)
		b.want(rest[2], 5, 6, 7)
		b.ran(1, 6)
		if first.took != 10*ms || rest[0].took != 16*ms {
			b.Errorf("took %v and %v, want 10ms and 16ms", first.took, rest[0].took)
		}
	})
	if len(seen) != 2 || seen[1].Requests != 3 || seen[1].Rows != 6 || seen[1].PaddedRows != 0 || seen[1].Run != 10*ms || seen[1].Signature != "serving_default" ||
		!slices.Equal(seen[1].Waits, []time.Duration{6 * ms, 6 * ms, 6 * ms}) {
		t.Errorf("observed %+v", seen)
	}
}

func TestWhatDiffersIsNotJoined(t *testing.T) {
	two := fake.Signature("two", tensor.Float, -1, -1)
	pair := &inference.Signature{Key: "pair", Batchable: true, Inputs: xy.Inputs, Outputs: []inference.TensorInfo{{Alias: "y"}, {Alias: "z"}}}
	fixed := fake.Signature("fixed", tensor.Float, 1, 1)
	one := fake.Floats(tensor.Shape{1, 1}, 1)
	ofPair := func(outputs ...int) *inference.Request {
		return &inference.Request{Signature: pair, Inputs: []*tensor.Tensor{one}, Outputs: outputs}
	}
	alone := request(xy, one)
	alone.Alone = true
	for name, reqs := range map[string][2]*inference.Request{
		"signature":       {request(xy, one), request(two, one)},
		"inner shape":     {request(xy, one), request(xy, fake.Floats(tensor.Shape{1, 2}, 1, 2))},
		"rank":            {request(xy, one), request(xy, fake.Floats(tensor.Shape{1, 1, 1}, 1))},
		"outputs":         {ofPair(0), ofPair(0, 1)},
		"unbatchable":     {request(fixed, one), request(fixed, one)},
		"alone":           {request(xy, one), alone},
		"scalar":          {request(xy, fake.Floats(nil, 1)), request(xy, fake.Floats(nil, 1))},
		"no rows":         {request(xy, fake.Floats(tensor.Shape{0, 1})), request(xy, fake.Floats(tensor.Shape{0, 1}))},
		"no inputs":       {request(&inference.Signature{Key: "none", Batchable: true}), request(&inference.Signature{Key: "none", Batchable: true})},
		"rows per input":  {request(pair, one, fake.Floats(tensor.Shape{2, 1}, 1, 2)), request(pair, one, fake.Floats(tensor.Shape{2, 1}, 1, 2))},
		"padding and six": {request(xy, fake.Floats(tensor.Shape{1, 1, 1, 1, 1, 1, 1}, 1)), request(xy, fake.Floats(tensor.Shape{1, 1, 1, 1, 1, 1, 2}, 1, 2))},
		"padding nothing": {request(xy, fake.Floats(tensor.Shape{1, 0})), request(xy, one)},
	} {
		t.Run(name, func(t *testing.T) {
			opts := Options{Policy: Policy{PadVariableLengthInputs: len(name) > 7 && name[:7] == "padding"}}
			f := &fake.Runner{Latency: always(ms), Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
				return slices.Repeat([]*tensor.Tensor{one}, len(r.Outputs)), nil
			}}
			inBubble(t, f, opts, func(b *bench) {
				as := b.sendAll(rows(0), reqs[0], reqs[1])
				settle(ms * 10)
				if n := len(f.Records()); n != 3 {
					b.Errorf("%d runs, want 3", n)
				}
				for _, a := range as {
					b.want(a, 1)
				}
			})
		})
	}
}

// Requests of several kinds wait: the oldest that may run goes first, and takes those of its kind with it.
func TestOldestFirst(t *testing.T) {
	other := fake.Signature("other", tensor.Float, -1, 1)
	fixed := fake.Signature("fixed", tensor.Float, 1, 1)
	one := fake.Floats(tensor.Shape{1, 1}, 1)
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{}, func(b *bench) {
		b.sendAll(rows(0), request(fixed, one), rows(1), request(other, one), request(fixed, one), rows(2), request(other, one))
		settle(20 * ms)
		var got []string
		for _, r := range b.f.Records() {
			got = append(got, r.Signature)
		}
		if want := []string{"serving_default", "fixed", "serving_default", "other", "fixed"}; !slices.Equal(got, want) {
			b.Errorf("ran %v, want %v", got, want)
		}
	})
}

func TestRowsBoundARun(t *testing.T) {
	for name, opts := range map[string]Options{
		"max_batch_size": {Policy: Policy{MaxBatchSize: 4}},
		"proven":         {MaxRows: 4},
		"smaller wins":   {MaxRows: 4, Policy: Policy{MaxBatchSize: 16}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &fake.Runner{Latency: always(ms)}, opts, func(b *bench) {
				as := b.sendAll(rows(0), rows(1, 2), rows(3), rows(4, 5), rows(6), rows(7))
				settle(20 * ms)
				b.ran(1, 3, 4)
				b.want(as[3], 4, 5)
			})
		})
	}
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{Policy: Policy{MaxBatchSize: 1}}, func(b *bench) {
		b.sendAll(rows(0), rows(1), rows(2))
		settle(20 * ms)
		b.ran(1, 1, 1)
	})
}

func TestSlots(t *testing.T) {
	for name, c := range map[string]struct {
		width, threads, want int
	}{"runner's": {3, 0, 3}, "num_batch_threads": {3, 2, 2}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &fake.Runner{Width: c.width, Latency: always(ms)}, Options{Policy: Policy{MaxBatchSize: 1, NumBatchThreads: c.threads}}, func(b *bench) {
				for i := range 10 {
					b.send(b.Context(), rows(float32(i)))
				}
				settle(50 * ms)
				if _, most := b.f.InFlight(); most != c.want {
					b.Errorf("%d runs at once, want %d", most, c.want)
				}
			})
		})
	}
}

// Slots that come free one after the other share the rows of a heavy model evenly; a tiny model's are left in one piece.
func TestSharing(t *testing.T) {
	for name, c := range map[string]struct {
		row, fixed time.Duration
		want       []int64
	}{"heavy": {10 * ms, 10 * ms, []int64{5, 3}}, "tiny": {time.Microsecond, ms, []int64{8}}} {
		t.Run(name, func(t *testing.T) {
			f := &fake.Runner{Width: 2, Latency: func(r fake.Record) time.Duration { return c.fixed + time.Duration(r.Rows())*c.row }}
			inBubble(t, f, Options{}, func(b *bench) {
				for i := range 20 { // it learns
					b.send(b.Context(), request(xy, fake.Floats(tensor.Shape{int64(1 + i%4), 1}, make([]float32, 1+i%4)...)))
					settle(time.Second)
				}
				release := f.Hold()
				b.sendAll(rows(0), rows(0))
				for i := range 8 {
					b.send(b.Context(), rows(float32(i)))
				}
				before := len(f.Records())
				release()
				settle(time.Second)
				var got []int64
				for _, r := range f.Records()[before:] {
					got = append(got, r.Rows())
				}
				slices.SortFunc(got, func(a, b int64) int { return cmp.Compare(b, a) }) // the slots start at one instant, in either order
				if !slices.Equal(got, c.want) {
					b.Errorf("ran %v rows, want %v", got, c.want)
				}
			})
		})
	}
}

func TestTimer(t *testing.T) {
	opts := Options{Policy: Policy{MaxBatchSize: 4, BatchTimeout: 10 * ms}}
	inBubble(t, &fake.Runner{Width: 2}, opts, func(b *bench) {
		a := b.send(b.Context(), rows(1))
		settle(3 * ms)
		c := b.send(b.Context(), rows(2))
		settle(20 * ms)
		b.ran(2)
		if a.took != 10*ms || c.took != 7*ms {
			b.Errorf("waited %v and %v, want 10ms and 7ms", a.took, c.took)
		}
		// A full batch leaves at once; what does not fit waits for a timer of its own.
		as := b.sendAll(rows(1, 2), rows(3), rows(4, 5))
		b.ran(2, 3)
		settle(20 * ms)
		b.ran(2, 3, 2)
		if as[0].took != 0 || as[2].took != 10*ms {
			b.Errorf("waited %v and %v, want 0 and 10ms", as[0].took, as[2].took)
		}
		// The timer is the first request's: when it leaves, the next one's counts.
		ctx, cancel := context.WithCancel(b.Context())
		gone := b.send(ctx, rows(1))
		settle(6 * ms)
		stays := b.send(b.Context(), rows(2))
		cancel()
		settle(20 * ms)
		b.fails(gone, inference.Canceled, inference.ReasonDeadline)
		if b.want(stays, 2); stays.took != 10*ms {
			b.Errorf("waited %v, want 10ms", stays.took)
		}
	})
}

func TestAllowedBatchSizes(t *testing.T) {
	var padded atomic.Int64
	opts := Options{Policy: Policy{AllowedBatchSizes: []int64{2, 4, 8}}, Observe: func(o Observation) { padded.Add(o.PaddedRows) }}
	inBubble(t, &fake.Runner{Latency: always(ms)}, opts, func(b *bench) {
		as := b.sendAll(rows(9), rows(1), rows(2, 3), rows(4, 5))
		settle(10 * ms)
		b.ran(2, 8)
		b.want(as[0], 9)
		b.want(as[1], 1)
		b.want(as[3], 4, 5)
		if got := fake.Values(b.f.Records()[1].Inputs[0]); !slices.Equal(got, []float32{1, 2, 3, 4, 5, 1, 1, 1}) {
			b.Errorf("ran %v, want the first row repeated", got)
		}
	})
	if n := padded.Load(); n != 4 {
		t.Errorf("observed %d padded rows, want 4", n)
	}
}

func TestPadVariableLengthInputs(t *testing.T) {
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{Policy: Policy{PadVariableLengthInputs: true, AllowedBatchSizes: []int64{1, 4}}}, func(b *bench) {
		as := b.sendAll(rows(0), request(xy, fake.Floats(tensor.Shape{1, 3}, 1, 2, 3)), request(xy, fake.Floats(tensor.Shape{2, 1}, 7, 8)))
		settle(10 * ms)
		b.ran(1, 4)
		b.want(as[1], 1, 2, 3)
		b.want(as[2], 7, 7, 7, 8, 7, 7)
	})
	// Padding that would take more than what may wait is not made.
	opts := Options{MaxQueuedBytes: 100, Policy: Policy{PadVariableLengthInputs: true}}
	inBubble(t, &fake.Runner{Latency: always(ms)}, opts, func(b *bench) {
		as := b.sendAll(rows(0), request(xy, fake.Floats(tensor.Shape{1, 10}, make([]float32, 10)...)), rows(1, 2, 3))
		settle(10 * ms)
		b.ran(1, 1, 3)
		b.want(as[2], 1, 2, 3)
	})
}

func TestLargeRequestIsSplit(t *testing.T) {
	for name, c := range map[string]struct {
		opts Options
		want []int64
	}{
		"by default, at what is proven":     {Options{MaxRows: 4}, []int64{1, 4, 3, 3}},
		"max_batch_size, nobody said":       {Options{Policy: Policy{MaxBatchSize: 4}}, []int64{1, 4, 3, 3}},
		"max_execution_batch_size":          {Options{Policy: Policy{MaxBatchSize: 8, MaxExecutionBatchSize: 4, EnableLargeBatchSplitting: ptr(true)}}, []int64{1, 4, 3, 3}},
		"allowed sizes: full parts":         {Options{Policy: Policy{AllowedBatchSizes: []int64{1, 2, 4}}}, []int64{1, 4, 4, 2}},
		"the last part is joined by others": {Options{Policy: Policy{MaxBatchSize: 9}}, []int64{1, 5, 9}},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &fake.Runner{Latency: always(ms)}, c.opts, func(b *bench) {
				as := b.sendAll(rows(0), rows(1, 2, 3, 4, 5, 6, 7, 8, 9, 10))
				if c.opts.Policy.MaxBatchSize == 9 {
					defer b.want(b.send(b.Context(), rows(11, 12, 13, 14)), 11, 12, 13, 14)
				}
				settle(10 * ms)
				b.ran(c.want...)
				b.want(as[1], 1, 2, 3, 4, 5, 6, 7, 8, 9, 10)
				if !as[1].shape.Equal(tensor.Shape{10, 1}) {
					b.Errorf("shape %v", as[1].shape)
				}
			})
		})
	}
}

func TestLargeRequestIsRefusedWhenSplittingIsOff(t *testing.T) {
	opts := Options{Policy: Policy{MaxBatchSize: 32, EnableLargeBatchSplitting: ptr(false)}}
	inBubble(t, &fake.Runner{}, opts, func(b *bench) {
		a := b.send(b.Context(), rows(make([]float32, 33)...))
		if e := b.fails(a, inference.InvalidArgument, inference.ReasonInput); e.Msg != "Task size 33 is larger than maximum input batch size 32" {
			b.Error(e.Msg)
		}
		b.want(b.send(b.Context(), rows(make([]float32, 32)...)), make([]float32, 32)...)
	})
}

func TestLargeRequestFailsWhole(t *testing.T) {
	f := &fake.Runner{Latency: always(ms), Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
		if has(r, 13) {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonRuntime, "unlucky")
		}
		return fake.Echo(r)
	}}
	inBubble(t, f, Options{MaxRows: 2}, func(b *bench) {
		as := b.sendAll(rows(0), rows(1, 2, 13, 4, 5, 6, 7, 8))
		settle(20 * ms)
		b.fails(as[1], inference.InvalidArgument, inference.ReasonRuntime)
		// The third part may have begun, at the same instant, when the second failed; the rest is not run.
		if n := len(b.f.Records()); n != 3 && n != 4 {
			b.Errorf("%d runs, want the first request and two or three of four parts", n)
		}
	})
	// A deadline takes every part out.
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, Options{MaxRows: 1}, func(b *bench) {
		ctx, cancel := context.WithTimeout(b.Context(), 25*ms)
		defer cancel()
		a := b.send(ctx, rows(1, 2, 3, 4, 5, 6))
		settle(time.Second)
		b.fails(a, inference.DeadlineExceeded, inference.ReasonDeadline)
		b.ran(1, 1) // at 20ms the third part could not be ready in time any more
	})
}

func TestQueueIsBounded(t *testing.T) {
	full := func(b *bench, a *answer) {
		b.Helper()
		if e := b.fails(a, inference.Unavailable, inference.ReasonQueueFull); e.Msg != "The batch scheduling queue to which this task was submitted is full" {
			b.Error(e.Msg)
		}
		if a.took != 0 || b.Stats().Refused != 1 {
			b.Errorf("refused after %v, counted %d", a.took, b.Stats().Refused)
		}
	}
	fixed := fake.Signature("fixed", tensor.Float, 1, 1)
	one := fake.Floats(tensor.Shape{1, 1}, 1)
	for name, c := range map[string]struct {
		opts Options
		fits []*inference.Request
		last *inference.Request
	}{
		"max_enqueued_batches, rows":   {Options{Policy: Policy{MaxBatchSize: 4, MaxEnqueuedBatches: 2}}, []*inference.Request{rows(1, 2, 3), rows(4, 5, 6, 7)}, rows(8, 9)},
		"max_enqueued_batches, singly": {Options{Policy: Policy{MaxBatchSize: 4, MaxEnqueuedBatches: 2}}, []*inference.Request{request(fixed, one), request(fixed, one)}, request(fixed, one)},
		"count":                        {Options{MaxQueued: 3}, []*inference.Request{rows(1), rows(2), rows(3)}, rows(4)},
		"bytes":                        {Options{MaxQueuedBytes: 12}, []*inference.Request{rows(1, 2), rows(3)}, rows(4)},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &fake.Runner{Latency: always(ms)}, c.opts, func(b *bench) {
				b.send(b.Context(), rows(0))
				fits := b.sendAll(c.fits...)
				full(b, b.send(b.Context(), c.last))
				settle(20 * ms)
				for _, a := range fits {
					if a.err != nil || !a.done {
						b.Error("it fitted:", a.err)
					}
				}
				again := b.send(b.Context(), c.last)
				settle(ms)
				if again.err != nil || !again.done {
					b.Error("there is room again:", again.err)
				}
			})
		})
	}
	// One request is let in however large, and max_enqueued_batches is each signature's own.
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{MaxQueuedBytes: 4}, func(b *bench) {
		as := b.sendAll(rows(0), rows(1, 2, 3, 4))
		settle(10 * ms)
		b.want(as[1], 1, 2, 3, 4)
	})
	inBubble(t, &fake.Runner{Latency: always(ms)}, Options{Policy: Policy{MaxBatchSize: 1, MaxEnqueuedBatches: 1}}, func(b *bench) {
		as := b.sendAll(rows(0), rows(1), request(fixed, one))
		settle(10 * ms)
		b.want(as[1], 1)
		b.want(as[2], 1)
	})
}

func TestWaitingRequestLeavesAtItsDeadline(t *testing.T) {
	inBubble(t, &fake.Runner{Latency: always(100 * ms)}, Options{}, func(b *bench) {
		first := b.send(b.Context(), rows(1))
		ctx, cancel := context.WithTimeout(b.Context(), 30*ms)
		defer cancel()
		late := b.send(ctx, rows(2))
		ctx, cancel = context.WithCancel(b.Context())
		cancelled := b.send(ctx, rows(3))
		cancel()
		stays := b.send(b.Context(), rows(4))
		settle(time.Second)
		b.want(first, 1)
		if e := b.fails(late, inference.DeadlineExceeded, inference.ReasonDeadline); late.took != 30*ms || !errors.Is(e, context.DeadlineExceeded) {
			b.Errorf("after %v: %v", late.took, e)
		}
		b.fails(cancelled, inference.Canceled, inference.ReasonDeadline)
		b.want(stays, 4)
		b.ran(1, 1)
		// One that has no time left on arrival costs nothing either.
		b.fails(b.send(ctx, rows(5)), inference.Canceled, inference.ReasonDeadline)
		b.ran(1, 1)
	})
}

// A run that has begun goes on when a caller leaves it: its batch-mates get their answer from it, and its slot stays taken.
func TestCallerLeavesARunThatHasBegun(t *testing.T) {
	slows := func(r fake.Record) time.Duration { // after the first run, so that the second one takes longer than was predicted
		if has(r, 0) {
			return 50 * ms
		}
		return 200 * ms
	}
	inBubble(t, &fake.Runner{Latency: slows}, Options{}, func(b *bench) {
		b.send(b.Context(), rows(0))
		ctx, cancel := context.WithTimeout(b.Context(), 220*ms)
		defer cancel()
		late, mate := b.send(ctx, rows(1)), b.send(b.Context(), rows(2))
		settle(230 * ms)
		b.fails(late, inference.DeadlineExceeded, inference.ReasonDeadline)
		if late.took != 220*ms {
			b.Errorf("answered after %v, want 220ms", late.took)
		}
		next := b.send(b.Context(), rows(3))
		settle(time.Second)
		b.want(mate, 2)
		b.want(next, 3)
		if b.ran(1, 2, 1); mate.took != 250*ms || next.took != 220*ms {
			b.Errorf("took %v and %v, want 250ms and 220ms", mate.took, next.took)
		}
		if _, most := b.f.InFlight(); most != 1 {
			b.Errorf("%d runs at once", most)
		}
	})
}

// Before a run has its own copy of the inputs a caller who leaves gets them back: the run is stopped, and the mates go on without it.
func TestCallerLeavesARunThatHasNotBegun(t *testing.T) {
	inBubble(t, &fake.Runner{}, Options{Policy: Policy{BatchTimeout: ms}}, func(b *bench) {
		up := b.f.Down()
		ctx, cancel := context.WithTimeout(b.Context(), 50*ms)
		defer cancel()
		late, mate := b.send(ctx, rows(1)), b.send(b.Context(), rows(2))
		settle(100 * ms)
		if b.fails(late, inference.DeadlineExceeded, inference.ReasonDeadline); late.took != 50*ms || mate.done {
			b.Errorf("answered after %v; mate %v", late.took, mate.err)
		}
		up()
		settle(ms)
		b.want(mate, 2)
		b.ran(1)
	})
}

func TestWritesRunInOrderOneAtATime(t *testing.T) {
	counter, other := fake.Signature("counter", tensor.Float, -1, 1), fake.Signature("other", tensor.Float, -1, 1)
	counter.Batchable, counter.Writes, other.Batchable, other.Writes = false, true, false, true
	var writing, most atomic.Int32
	f := &fake.Runner{Width: 3, Latency: func(r fake.Record) time.Duration {
		if r.Signature != "serving_default" {
			most.Store(max(most.Load(), writing.Add(1)))
		}
		return ms
	}, Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
		if r.Signature != "serving_default" {
			writing.Add(-1)
		}
		return fake.Echo(r)
	}}
	inBubble(t, f, Options{}, func(b *bench) {
		var as []*answer
		for i := range 6 {
			as = append(as, b.send(b.Context(), request([]*inference.Signature{counter, other}[i%2], fake.Floats(tensor.Shape{1, 1}, float32(i)))))
		}
		reads := b.sendAll(rows(10), rows(11))
		settle(ms)
		b.want(reads[0], 10) // beside the writes
		settle(100 * ms)
		var order []float32
		for _, r := range f.Records() {
			if r.Signature != "serving_default" {
				order = append(order, fake.Values(r.Inputs[0])...)
			}
		}
		if !slices.Equal(order, []float32{0, 1, 2, 3, 4, 5}) || most.Load() != 1 {
			b.Errorf("writes ran in order %v, %d at once", order, most.Load())
		}
		for i, a := range as {
			b.want(a, float32(i))
		}
	})
}

func TestCloseAnswersEveryone(t *testing.T) {
	inBubble(t, &fake.Runner{Latency: always(10 * ms)}, Options{}, func(b *bench) {
		running := b.send(b.Context(), rows(1))
		fixed := fake.Signature("fixed", tensor.Float, 1, 1)
		waits := b.sendAll(rows(2), request(fixed, fake.Floats(tensor.Shape{1, 1}, 1)))
		if err := b.Close(); err != nil {
			b.Error(err)
		}
		synctest.Wait()
		b.want(running, 1)
		for _, a := range append(waits, b.send(b.Context(), rows(3))) {
			if e := b.fails(a, inference.Unavailable, inference.ReasonDraining); !errors.Is(e, inference.ErrClosed) {
				b.Error(e)
			}
		}
	})
	// A run that nobody waits for does not hold Close up.
	inBubble(t, &fake.Runner{Latency: always(time.Hour)}, Options{}, func(b *bench) {
		ctx, cancel := context.WithTimeout(b.Context(), ms)
		defer cancel()
		b.send(ctx, rows(1))
		settle(ms)
		began := time.Now()
		if err := b.Close(); err != nil || time.Since(began) != 0 {
			b.Errorf("closed after %v: %v", time.Since(began), err)
		}
		settle(time.Hour)
	})
}
