// service_test.go: jobs through a real queue file and a real batcher, over a runner with a script.
package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// box is a queue with what stands around it, in a synctest bubble.
type box struct {
	*testing.T
	*jobs.Service
	queue   *storage.Queue
	path    string
	catalog *inference.Catalog
	gate    *admission.Gate
	opts    jobs.Options
	set     jobs.Settings
	wall    atomic.Int64 // nanoseconds that the machine's clock is off
	runs    []jobs.Run
	mu      sync.Mutex // guards runs
	stop    func()
}

// inBubble runs a test with a box that runs. change may be nil.
func inBubble(t *testing.T, change func(*box), test func(b *box)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "queue.db")
	synctest.Test(t, func(t *testing.T) {
		b := &box{T: t, path: path, catalog: inference.NewCatalog(), gate: admission.NewGate(admission.Limits{}, nil)}
		b.set = jobs.Settings{MaxAttempts: 3, MaxDeaths: 2, Backoff: time.Millisecond, MaxBackoff: 2 * time.Millisecond, MaxPayload: 1 << 20,
			Retention: storage.Retention{Finished: time.Hour, Dead: 2 * time.Hour}}
		start := time.Now()
		b.opts = jobs.Options{
			API: api.New(b.catalog, api.Options{Gate: b.gate}), Codecs: map[api.Kind]api.Codec{api.JSON: rest.NewCodec(rest.CodecOptions{})},
			Settings: func() jobs.Settings { return b.set }, Boot: "boot", Ran: func() time.Duration { return time.Since(start) + time.Hour },
			// The bubble's clock begins in 2000.
			Wall: func() time.Time { return time.Now().AddDate(30, 0, 0).Add(time.Duration(b.wall.Load())) },
			Observe: func(r jobs.Run) {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.runs = append(b.runs, r)
			},
		}
		if change != nil {
			change(b)
		}
		b.start()
		test(b)
		b.stop()
		if r, err := b.check(); err != nil || len(r.Faults) > 0 {
			t.Errorf("the file is not clean: %v %v", err, r.Faults)
		}
		if n := b.gate.Inside(); n != 0 {
			t.Errorf("%d requests are inside for ever", n)
		}
	})
}

// start opens the file and begins to run, as another process would.
func (b *box) start() {
	b.Helper()
	q, err := storage.OpenQueue(b.path, storage.QueueOptions{MaxPayload: b.set.MaxPayload})
	if err != nil {
		b.Fatal(err)
	}
	b.opts.Queue, b.queue = q, q
	b.Service = jobs.New(b.opts)
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Service.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, q.Close()); err != nil {
			b.Error(err)
		}
	})
	b.Cleanup(func() { b.stop() })
}

func (b *box) check() (storage.Report, error) {
	q, err := storage.OpenQueue(b.path, storage.QueueOptions{ReadOnly: true})
	if err != nil {
		return storage.Report{}, err
	}
	r, err := q.Check(b.Context())
	return r, errors.Join(err, q.Close())
}

// publish makes a version available whose answers are its inputs, unless f has a graph.
func (b *box) publish(model string, number int64, f *fake.Runner) {
	sig := fake.Signature(inference.DefaultSignature, tensor.Float, -1, 1)
	v := &inference.Version{Model: model, Number: number, Signatures: map[string]*inference.Signature{sig.Key: sig}}
	s := batch.New(f, batch.Options{Model: model, Version: number, MaxRows: 8})
	b.catalog.Publish(v, s)
	b.Cleanup(func() { _ = s.Close() })
}

func body(x float64) []byte { return fmt.Appendf(nil, `{"instances": [[%v]]}`, x) }

// put submits x, which must be taken.
func (b *box) put(model string, x float64, change ...func(*jobs.Submission)) storage.Item {
	b.Helper()
	sub := jobs.Submission{Spec: inference.Spec{Model: model}, Kind: api.JSON, Body: body(x)}
	for _, f := range change {
		f(&sub)
	}
	it, _, err := b.Submit(b.Context(), sub)
	if err != nil {
		b.Fatalf("submit %v: %v", x, err)
	}
	return it
}

// ends waits for the end of a job, which must be state.
func (b *box) ends(it storage.Item, state storage.JobState) storage.Item {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 24*time.Hour) // of the bubble
	defer cancel()
	got, err := b.Wait(ctx, it.ID)
	if err != nil || got.State != state {
		b.Fatalf("job %s is %v %q (attempts %d, deaths %d), %v; want %v", it.ID, got.State, got.Error, got.Attempts, got.Deaths, err, state)
	}
	return got
}

// stays lets some time pass, and the job must be queued after it with nothing counted.
func (b *box) stays(it storage.Item) {
	b.Helper()
	time.Sleep(20 * time.Second)
	if got, err := b.Job(it.ID); err != nil || got.State != storage.Queued || got.Attempts+got.Deaths+got.Interruptions != 0 {
		b.Fatalf("job %s is %+v, %v; want it queued as it came", it.ID, got, err)
	}
}

// xs are the first inputs of the runs, row by row, in order.
func xs(f *fake.Runner) (out []float32) {
	for _, r := range f.Records() {
		out = append(out, fake.Values(r.Inputs[0])...)
	}
	return out
}

func TestJobIsAnsweredOnce(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		f := &fake.Runner{Width: 2}
		b.publish("m", 3, f)
		it := b.put("m", 1.5)
		got := b.ends(it, storage.Done)
		result, _, err := b.Result(it.ID)
		if err != nil || string(result) != "{\n    \"predictions\": [[1.5]\n    ]\n}" || got.AnsweredBy != 3 {
			b.Errorf("result %q of version %d, %v", result, got.AnsweredBy, err)
		}
		if n := len(f.Records()); n != 1 {
			b.Errorf("%d runs", n)
		}
		if err := b.Forget(b.Context(), it.ID); err != nil {
			b.Error(err)
		}
		if _, err := b.Job(it.ID); err == nil || err.Code != inference.NotFound {
			b.Errorf("after it was acknowledged: %v", err)
		}
	})
}

// TestJobsShareRuns: what waits leaves together, as concurrent requests do.
func TestJobsShareRuns(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		f := &fake.Runner{Latency: func(fake.Record) time.Duration { return 10 * time.Millisecond }}
		var all []storage.Item
		b.publish("m", 1, f)
		release := f.Hold()
		for i := range 40 {
			all = append(all, b.put("m", float64(i)))
		}
		synctest.Wait()
		release()
		for _, it := range all {
			b.ends(it, storage.Done)
		}
		if runs := len(f.Records()); runs > 9 {
			b.Errorf("40 jobs took %d runs of up to 8", runs)
		}
	})
}

// TestWaitsForItsModel: a job of what does not answer yet waits, and nothing is counted against it.
func TestWaitsForItsModel(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.catalog.Add("m")
		latest := b.put("m", 1)
		b.stays(latest)
		b.publish("m", 1, &fake.Runner{})
		b.ends(latest, storage.Done)

		b.catalog.SetStatus("m", inference.VersionStatus{Version: 2, State: inference.StateLoading})
		second := func(s *jobs.Submission) { s.Spec.Version, s.Spec.HasVersion = 2, true }
		pinned := b.put("m", 2, second)
		b.stays(pinned)
		later := b.put("m", 3)
		b.ends(later, storage.Done) // it does not stand in the way
		b.publish("m", 2, &fake.Runner{})
		if got := b.ends(pinned, storage.Done); got.AnsweredBy != 2 || got.Attempts != 0 {
			b.Errorf("answered by %d after %d attempts", got.AnsweredBy, got.Attempts)
		}
	})
}

// TestHeldQueue: while the queue is held no job is leased, though its model answers; then all go on.
func TestHeldQueue(t *testing.T) {
	var held atomic.Bool
	held.Store(true)
	inBubble(t, func(b *box) { b.opts.Hold = held.Load }, func(b *box) {
		b.publish("m", 1, &fake.Runner{})
		it := b.put("m", 1)
		b.stays(it)
		held.Store(false)
		b.ends(it, storage.Done)
	})
}

// TestPing: the dispatcher answers while it turns, and nobody does for one that does not.
func TestPing(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		ask := func(s *jobs.Service) error {
			ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
			defer cancel()
			return s.Ping(ctx)
		}
		if err := ask(b.Service); err != nil {
			b.Errorf("one that runs: %v", err)
		}
		if err := ask(jobs.New(b.opts)); !errors.Is(err, context.DeadlineExceeded) {
			b.Errorf("one that does not run: %v", err)
		}
	})
}

// TestKeepsItsVersion: over an update, what is pinned stays with its version and what is not goes to the new one.
func TestKeepsItsVersion(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		f := &fake.Runner{}
		b.publish("m", 1, f)
		release := f.Hold()
		b.put("m", 0)
		synctest.Wait()
		var pinned, latest []storage.Item
		for i := range 5 {
			pinned = append(pinned, b.put("m", float64(i), func(s *jobs.Submission) { s.Spec.Version, s.Spec.HasVersion, s.Lane = 1, true, "a" }))
			latest = append(latest, b.put("m", float64(i), func(s *jobs.Submission) { s.Lane = "a" }))
		}
		b.publish("m", 2, &fake.Runner{})
		release()
		for i := range pinned {
			one, two := b.ends(pinned[i], storage.Done), b.ends(latest[i], storage.Done)
			if one.AnsweredBy != 1 || i > 0 && two.AnsweredBy != 2 {
				b.Errorf("pair %d: answered by %d and %d", i, one.AnsweredBy, two.AnsweredBy)
			}
		}
	})
}

// TestLaneKeepsOrder: whatever fails in between, jobs of one lane run in the order in which they came; others pass them by.
func TestLaneKeepsOrder(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		failed := 0
		f := &fake.Runner{Width: 4, Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
			if x := fake.Values(r.Inputs[0])[0]; x == 2 && len(fake.Values(r.Inputs[0])) == 1 && failed < 2 {
				failed++
				return nil, inference.Errorf(inference.Internal, inference.ReasonRuntime, "not yet")
			}
			return fake.Echo(r)
		}}
		b.publish("m", 1, f)
		var all []storage.Item
		for i := range 6 {
			all = append(all, b.put("m", float64(i), func(s *jobs.Submission) { s.Lane = "conveyor" }))
		}
		other := b.put("m", 100)
		b.ends(other, storage.Done)
		for _, it := range all {
			b.ends(it, storage.Done)
		}
		var order []float32
		for _, x := range xs(f) {
			if x < 100 {
				order = append(order, x)
			}
		}
		if want := []float32{0, 1, 2, 2, 2, 3, 4, 5}; !slices.Equal(order, want) {
			b.Errorf("ran as %v, want %v", order, want)
		}
	})
}

// TestPriority: what is more urgent is leased first.
func TestPriority(t *testing.T) {
	inBubble(t, func(b *box) { b.opts.Concurrency = func(string) int { return 1 } }, func(b *box) {
		f := &fake.Runner{}
		b.publish("m", 1, f)
		release := f.Hold()
		all := []storage.Item{b.put("m", 0)}
		synctest.Wait()
		for i, class := range []inference.Class{inference.Bulk, inference.Normal, inference.Interactive, inference.Normal} {
			all = append(all, b.put("m", float64(i+1), func(s *jobs.Submission) { s.Class = class }))
		}
		release()
		for _, it := range all {
			b.ends(it, storage.Done)
		}
		if got, want := xs(f), []float32{0, 3, 2, 4, 1}; !slices.Equal(got, want) {
			b.Errorf("ran as %v, want %v", got, want)
		}
	})
}

func TestFailedAttempts(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		bad := true
		f := &fake.Runner{Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
			if bad {
				return nil, inference.Errorf(inference.Internal, inference.ReasonRuntime, "the graph is broken")
			}
			return fake.Echo(r)
		}}
		b.publish("m", 1, f)
		it := b.put("m", 1)
		got := b.ends(it, storage.Dead)
		if got.Attempts != 2 || got.Error != "attempt 3 of 3 failed: the graph is broken" || len(f.Records()) != 3 {
			b.Errorf("after %d runs: %d attempts, %q", len(f.Records()), got.Attempts, got.Error)
		}
		if _, _, err := b.Result(it.ID); err == nil || err.Code != inference.Internal || !strings.Contains(err.Msg, "dead letter") {
			b.Errorf("its result: %v", err)
		}
		once := b.put("m", 2, func(s *jobs.Submission) { s.MaxAttempts = 1 })
		b.ends(once, storage.Dead)
		bad = false
		if _, err := b.Retry(b.Context(), it.ID); err != nil {
			b.Fatal(err)
		}
		b.ends(it, storage.Done)
		b.mu.Lock()
		defer b.mu.Unlock()
		counted := 0
		for _, r := range b.runs {
			if r.Attempt {
				counted++
			}
		}
		if counted != 2 {
			b.Errorf("%d attempts were told of: %+v", counted, b.runs)
		}
	})
}

// TestPoison: the job that ends its worker is a dead letter with the cause, and those that ran beside it are answered.
func TestPoison(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		f := &fake.Runner{Width: 2, Graph: func(r fake.Record) ([]*tensor.Tensor, error) {
			if slices.Contains(fake.Values(r.Inputs[0]), -1) {
				return nil, fmt.Errorf("%w: killed by SIGSEGV", inference.ErrWorkerDied)
			}
			return fake.Echo(r)
		}}
		b.publish("m", 1, f)
		release := f.Hold()
		all := []storage.Item{b.put("m", 0)}
		synctest.Wait()
		poison := b.put("m", -1)
		for i := range 10 {
			all = append(all, b.put("m", float64(i)))
		}
		release()
		if got := b.ends(poison, storage.Dead); !strings.Contains(got.Error, "SIGSEGV") {
			b.Errorf("dead because of %q", got.Error)
		}
		for _, it := range all {
			if got := b.ends(it, storage.Done); got.Attempts+got.Deaths != 0 {
				b.Errorf("a mate: %d attempts, %d deaths", got.Attempts, got.Deaths)
			}
		}
	})
}

// TestWrongInputFailsAtOnce: also where it could not be seen at the door.
func TestWrongInputFailsAtOnce(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		b.catalog.Add("m")
		sub := jobs.Submission{Spec: inference.Spec{Model: "m"}, Kind: api.JSON, Body: []byte(`{"instances": [["a"]]}`)}
		it, _, err := b.Submit(b.Context(), sub)
		if err != nil {
			b.Fatal(err)
		}
		f := &fake.Runner{}
		b.publish("m", 1, f)
		if got := b.ends(it, storage.Failed); inference.Code(got.Code) != inference.InvalidArgument || got.Attempts != 0 || len(f.Records()) != 0 {
			b.Errorf("%+v after %d runs", got, len(f.Records()))
		}
		if _, _, err := b.Submit(b.Context(), sub); err == nil || err.Code != inference.InvalidArgument {
			b.Errorf("at the door: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	inBubble(t, func(b *box) { b.opts.Concurrency = func(string) int { return 1 } }, func(b *box) {
		f := &fake.Runner{}
		b.publish("m", 1, f)
		release := f.Hold()
		running, waiting := b.put("m", 1), b.put("m", 2)
		synctest.Wait()
		if got, _ := b.Job(running.ID); got.State != storage.Leased {
			b.Fatalf("the first is %v", got.State)
		}
		for _, it := range []storage.Item{running, waiting} {
			if _, err := b.Cancel(b.Context(), it.ID); err != nil {
				b.Fatal(err)
			}
			if _, err := b.Cancel(b.Context(), it.ID); err == nil || err.Reason != inference.ReasonState {
				b.Errorf("cancelled again: %v", err)
			}
		}
		third := b.put("m", 3)
		release()
		b.ends(third, storage.Done)
		for _, it := range []storage.Item{running, waiting} {
			b.ends(it, storage.Cancelled)
			if _, _, err := b.Result(it.ID); err == nil || err.Code != inference.Canceled {
				b.Errorf("its result: %v", err)
			}
		}
		if slices.Contains(xs(f), 2) {
			b.Error("the waiting one ran")
		}
		if _, err := b.Retry(b.Context(), waiting.ID); err != nil {
			b.Fatal(err)
		}
		b.ends(waiting, storage.Done)
	})
}

// TestStopGivesBack: what does not finish in time goes back to its place, with nothing counted, and is answered by the next process.
func TestStopGivesBack(t *testing.T) {
	inBubble(t, func(b *box) { b.opts.Grace = func() time.Duration { return time.Minute } }, func(b *box) {
		slow := true
		f := &fake.Runner{Width: 2, Latency: func(r fake.Record) time.Duration {
			if x := fake.Values(r.Inputs[0])[0]; x == 2 && slow {
				return time.Hour
			}
			return time.Second
		}}
		b.publish("m", 1, f)
		b.opts.Concurrency = func(string) int { return 2 }
		quick := b.put("m", 1)
		synctest.Wait()
		long := b.put("m", 2)
		synctest.Wait()
		b.stop()
		f.Kill(errors.New("the test has seen enough of it"))
		slow = false
		b.start()
		if got, _ := b.Job(quick.ID); got.State != storage.Done {
			b.Errorf("what could finish is %v", got.State)
		}
		if got := b.ends(long, storage.Done); got.Attempts+got.Deaths+got.Interruptions != 0 {
			b.Errorf("what was given back counts %d attempts, %d deaths, %d interruptions", got.Attempts, got.Deaths, got.Interruptions)
		}
	})
}

// TestRefusedByAdmission: jobs wait where requests are refused, and nothing is counted.
func TestRefusedByAdmission(t *testing.T) {
	inBubble(t, nil, func(b *box) {
		f := &fake.Runner{}
		b.publish("m", 1, f)
		b.gate.Set(admission.Limits{MaxRequests: 1})
		pass, err := b.gate.EnterQueue(0)
		if err != nil {
			b.Fatal(err)
		}
		it := b.put("m", 1, func(s *jobs.Submission) { s.Entered = true })
		b.stays(it)
		if st := b.queue.Stats(); st.Writes > 5 {
			b.Errorf("%d writes for a job that waits", st.Writes)
		}
		pass.Leave()
		b.ends(it, storage.Done)
	})
}
