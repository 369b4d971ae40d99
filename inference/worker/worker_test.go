// worker_test.go: runs, deaths and restarts, with a fake backend in real processes.
package worker

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// bothWays runs a test with forked workers and with fresh ones.
func bothWays(t *testing.T, f func(t *testing.T, h *testHost)) {
	for _, zygote := range []bool{true, false} {
		t.Run(fmt.Sprintf("zygote=%v", zygote), func(t *testing.T) {
			h := startHost(t, zygote)
			f(t, h)
			if s := h.Stats(); zygote && (s.Forked == 0 || s.Fresh != 0) || !zygote && s.Forked != 0 {
				t.Errorf("workers were made the wrong way: %+v", s)
			}
		})
	}
}

func TestRun(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		m := open(t, h, fakeLoad("a"), Options{})
		echo(t, m, 1, 2, 3)
		echo(t, m)
		echo(t, m, make([]float32, 100_000)...)

		res, err := m.Run(t.Context(), runOf("strings", stringTensor("", "a\x00b", strings.Repeat("x", 50_000))))
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Outputs[0]; len(got.Strings) != 3 || string(got.Strings[1]) != "a\x00b" || len(got.Strings[2]) != 50_000 {
			t.Errorf("strings came back as %.40q", got.Strings)
		}
		res.Release()

		// Pieces and padding are joined on the way.
		run := runOf("echo", floatTensor(1, 2))
		run.Inputs[0] = tensor.Parts{Pieces: []*tensor.Tensor{floatTensor(1, 2), floatTensor(3)}, Pad: 2}
		copied := 0
		run.Copied = func() { copied++ }
		res, err = m.Run(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		if copied != 1 {
			t.Errorf("Copied was called %d times", copied)
		}
		if got := floats(res.Outputs[0].Data); fmt.Sprint(got) != "[1 2 3 1 1]" || !res.Outputs[0].Shape.Equal(tensor.Shape{5}) {
			t.Errorf("pieces came back as %v %v", res.Outputs[0].Shape, got)
		}
		res.Release()
	})
}

func TestRunTogether(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 100 {
				n := 1 + (i*100+j*37)%20_000
				v := make([]float32, n)
				v[0], v[n-1] = float32(i), float32(i)
				res, err := m.Run(t.Context(), runOf("echo", floatTensor(v...)))
				if err != nil {
					t.Error(err)
					return
				}
				got := floats(res.Outputs[0].Data)
				if len(got) != n || got[0] != float32(i) || got[n-1] != float32(i) {
					t.Errorf("caller %d got another's answer", i)
				}
				res.Release()
			}
		})
	}
	wg.Wait()
	if s := m.Stats(); s.Runs != 1600 || s.Restarts != 0 || s.State != Live || s.PID == 0 || s.Memory.PSS == 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestErrorOfTheGraph(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	_, err := m.Run(t.Context(), runOf("fail", floatTensor(1)))
	var e *inference.Error
	if !errors.As(err, &e) || e.Code != inference.InvalidArgument || e.Msg != "Incompatible shapes: [1]" || e.Model != "a" || e.Version != 7 || e.Reason != inference.ReasonRuntime {
		t.Errorf("got %+v", e)
	}
	echo(t, m, 1)
	if s := m.Stats(); s.Restarts != 0 {
		t.Error("an error of the graph restarted the worker")
	}
}

func TestOutputsThatDoNotFit(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{MaxRunBytes: 8 << 20})
	run := runOf("big", floatTensor(200_000))
	run.Outputs = []int{0, 0, 0} // the first ones have to move when a later one does not fit
	for range 3 {
		res, err := m.Run(t.Context(), run)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range res.Outputs {
			if len(o.Data) != 800_000 || o.Data[4*70_000] != 70_000&0xff {
				t.Fatalf("%d bytes came back, or wrong ones", len(o.Data))
			}
		}
		res.Release()
	}
	_, err := m.Run(t.Context(), runOf("big", floatTensor(3_000_000)))
	if e := inference.AsError(err); e == nil || e.Code != inference.ResourceExhausted || e.Reason != inference.ReasonRuntime && e.Reason != inference.ReasonTooLarge {
		t.Errorf("over the limit: %v", err)
	}
	_, err = m.Run(t.Context(), runOf("echo", &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{3 << 20}, Data: make([]byte, 12<<20)}))
	if e := inference.AsError(err); e == nil || e.Code != inference.ResourceExhausted || e.Reason != inference.ReasonTooLarge {
		t.Errorf("inputs over the limit: %v", err)
	}
	echo(t, m, 1)
}

func TestResultOutlivesProcess(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	res, err := m.Run(t.Context(), runOf("echo", floatTensor(5)))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if got := floats(res.Outputs[0].Data)[0]; got != 5 {
		t.Errorf("the result became %v", got)
	}
	res.Release()
	if _, err := m.Run(t.Context(), runOf("echo", floatTensor(5))); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("a run after Close: %v", err)
	}
}

func TestDeathIsNamed(t *testing.T) {
	h := startHost(t, true)
	for key, want := range map[string]string{"segv": "killed by SIGSEGV", "abort": "killed by SIGABRT", "exit": "exited with status 3"} {
		t.Run(key, func(t *testing.T) {
			m := open(t, h, fakeLoad(key), Options{})
			echo(t, m, 1)
			_, err := m.Run(t.Context(), runOf(key, floatTensor(1)))
			e := inference.AsError(err)
			if !errors.Is(err, inference.ErrWorkerDied) || e.Code != inference.Unavailable || e.Reason != inference.ReasonWorker || !strings.Contains(e.Msg, want) {
				t.Errorf("got %v, want %s", err, want)
			}
			echo(t, m, 2)
			s := m.Stats()
			if s.Restarts != 1 || s.LastDeath == nil || s.LastDeath.Reason != want || s.LastDeath.Running != 1 || s.LastDeath.Completed != 1 {
				t.Errorf("stats: %+v, %+v", s, s.LastDeath)
			}
		})
	}
}

func TestKillUnderLoad(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		m, other := open(t, h, fakeLoad("a"), Options{Backoff: time.Millisecond}), open(t, h, fakeLoad("b"), Options{})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		var answered, died atomic.Int64
		progress := make(chan struct{}, 1)
		load := func(m *Model, failed func(error)) {
			for range 4 {
				wg.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						res, err := m.Run(t.Context(), runOf("echo", floatTensor(1)))
						if err != nil {
							failed(err)
							continue
						}
						res.Release()
						if answered.Add(1)%100 == 0 {
							select {
							case progress <- struct{}{}:
							default:
							}
						}
					}
				})
			}
		}
		load(m, func(err error) {
			if died.Add(1); !errors.Is(err, inference.ErrWorkerDied) {
				t.Errorf("a run failed otherwise: %v", err)
			}
		})
		load(other, func(err error) { t.Errorf("another model noticed: %v", err) })
		for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGSEGV, syscall.SIGKILL} {
			for range 5 {
				<-progress
			}
			if pid := m.Stats().PID; pid != 0 {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Error(err)
				}
				waitEnd(t, pidfdOrGone(t, pid))
			}
		}
		for range 5 {
			<-progress
		}
		close(stop)
		wg.Wait()
		echo(t, m, 1)
		if s := m.Stats(); s.Restarts < 1 || s.State != Live {
			t.Errorf("stats: %+v", s)
		}
		if died.Load() > 3*16 {
			t.Errorf("three deaths failed %d runs; at most 4 were in flight at each, and a few more while it was noticed", died.Load())
		}
	})
}

func TestRunTimeout(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{RunTimeout: time.Second})
	echo(t, m, 1)
	_, err := m.Run(t.Context(), runOf("spin", floatTensor(1)))
	if e := inference.AsError(err); !errors.Is(err, inference.ErrRunTimeout) || e.Code != inference.DeadlineExceeded || !strings.Contains(e.Msg, "run_timeout") {
		t.Errorf("got %v", err)
	}
	echo(t, m, 1)
	if s := m.Stats(); s.Restarts != 1 || !strings.Contains(s.LastDeath.Reason, "run_timeout") {
		t.Errorf("stats: %+v", s)
	}
}

func TestCallerLeaves(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{RunTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	answer := make(chan error, 1)
	go func() {
		_, err := m.Run(ctx, runOf("hang", stringTensor("hanging")))
		answer <- err
	}()
	h.wait(t, "a/7 hanging")
	cancel()
	if err := <-answer; !errors.Is(err, context.Canceled) || inference.AsError(err).Code != inference.Canceled {
		t.Errorf("got %v", err)
	}
	echo(t, m, 1) // by the other caller
	if s := m.Stats(); s.Restarts != 0 {
		t.Error("a caller that left ended the worker")
	}
	// A run that was abandoned still counts for the timeout of the worker, and its memory comes back at the end.
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestWaitsForRestart(t *testing.T) {
	h := startHost(t, true)
	st := newStates()
	l := fakeLoad("a")
	l.Dir, l.Tags = "once", []string{filepath.Join(t.TempDir(), "loaded")}
	m := open(t, h, l, Options{Backoff: time.Hour, MaxBackoff: time.Hour, OnState: st.on})
	if err := syscall.Kill(m.Stats().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st.wait(t, "restarting killed by SIGKILL")
	st.wait(t, "killed by SIGBUS") // the second start failed; the next is an hour away
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := m.Run(ctx, runOf("echo", floatTensor(1)))
	if inference.AsError(err).Code != inference.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestGivenUp(t *testing.T) {
	h := startHost(t, true)
	st := newStates()
	m := open(t, h, fakeLoad("a"), Options{Backoff: time.Microsecond, GiveUpAfter: 3, OnState: st.on})
	st.wait(t, "live")
	for range 2 {
		if err := syscall.Kill(m.Stats().PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		st.wait(t, "restarting")
		st.wait(t, "live")
	}
	if err := syscall.Kill(m.Stats().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st.wait(t, "given up it ended 3 times in a row without a request to blame, last: killed by SIGKILL")
	_, err := m.Run(t.Context(), runOf("echo", floatTensor(1)))
	if e := inference.AsError(err); e.Code != inference.Unavailable || !strings.Contains(e.Msg, "given up") || !strings.Contains(e.Msg, "SIGKILL") {
		t.Errorf("got %v", err)
	}
	if s := m.Stats(); s.State != GivenUp || s.PID != 0 {
		t.Errorf("stats: %+v", s)
	}
}

func TestGivenUpIsTriedAgain(t *testing.T) {
	h := startHost(t, true)
	st := newStates()
	m := open(t, h, fakeLoad("a"), Options{GiveUpAfter: 1, GiveUpFor: time.Millisecond, OnState: st.on})
	if err := syscall.Kill(m.Stats().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st.wait(t, "given up")
	st.wait(t, "live")
	echo(t, m, 1)
}

func TestStreak(t *testing.T) {
	o := Options{Backoff: 100 * time.Millisecond, GiveUpAfter: 3}.withDefaults()
	idle, served, first := &Death{Completed: 9}, &Death{Running: 1, Completed: 9}, &Death{Running: 1}
	for _, c := range []struct {
		name   string
		deaths []*Death
		lived  time.Duration
		pause  time.Duration
		giveUp bool
	}{
		{"first death restarts at once", []*Death{served}, 0, 0, false},
		{"backoff doubles", []*Death{served, served, served, served}, 0, 400 * time.Millisecond, false},
		{"backoff ends", []*Death{served, served, served, served, served, served, served, served, served, served}, 0, 5 * time.Second, false},
		{"a long life begins anew", []*Death{idle, idle, idle}, time.Minute, 0, false},
		{"deaths with nothing running", []*Death{idle, idle, idle}, 0, 100 * time.Millisecond * 2, true},
		{"every request kills", []*Death{first, first, first}, 0, 200 * time.Millisecond, true},
		{"some requests kill", []*Death{first, first, served, first, first}, 0, 800 * time.Millisecond, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var s streak
			for _, d := range c.deaths {
				s.died(d, c.lived, o)
			}
			if s.pause(o) != c.pause || s.hopeless(o) != c.giveUp {
				t.Errorf("pause %v, give up %v; want %v, %v", s.pause(o), s.hopeless(o), c.pause, c.giveUp)
			}
		})
	}
}

func TestLoadFails(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		l := fakeLoad("a")
		l.Dir = "refuse"
		_, err := h.Open(t.Context(), l, Options{})
		if e := inference.AsError(err); e.Code != inference.FailedPrecondition || !strings.Contains(err.Error(), "no such op") {
			t.Errorf("refused: %v", err)
		}
		l.Dir = "nodevice"
		if _, err := h.Open(t.Context(), l, Options{}); inference.AsError(err).Reason != inference.ReasonDevice {
			t.Errorf("no device: %v", err)
		}
		l.Dir = "die"
		if _, err := h.Open(t.Context(), l, Options{}); !errors.Is(err, inference.ErrWorkerDied) || !strings.Contains(err.Error(), "SIGSEGV") {
			t.Errorf("died: %v", err)
		}
		l.Dir = "hang"
		if _, err := h.Open(t.Context(), l, Options{LoadTimeout: 50 * time.Millisecond}); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "longer than") {
			t.Errorf("hung: %v", err)
		}
	})
}

func TestWrongTypeIsABreach(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	_, err := m.Run(t.Context(), runOf("wrongtype", floatTensor(1)))
	if !errors.Is(err, inference.ErrWorkerDied) || !errors.Is(err, errLies) {
		t.Errorf("got %v", err)
	}
	echo(t, m, 1)
	if s := m.Stats(); s.Restarts != 1 || !strings.Contains(s.LastDeath.Reason, "DT_INT32") {
		t.Errorf("stats: %+v, %+v", s, s.LastDeath)
	}
}

func TestLateInput(t *testing.T) {
	h := startHost(t, true)
	l := fakeLoad("a")
	l.Callers = 1
	m := open(t, h, l, Options{})
	res, err := m.Run(t.Context(), runOf("late", floatTensor(42)))
	if err != nil {
		t.Fatal(err)
	}
	res.Release()
	for i := range 10 { // would be written over the input, were its area used again
		echo(t, m, float32(i))
	}
	// A caller asks after the late ones when it finds no work, which one that always comes late to its next run need not have done so far.
	var more sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	more.Go(func() {
		for ctx.Err() == nil {
			if res, err := m.Run(ctx, runOf("echo", floatTensor(1))); err == nil {
				res.Release()
			}
		}
	})
	h.wait(t, "late input intact")
	stop()
	more.Wait()
}

func TestMemoryLimit(t *testing.T) {
	h := startHost(t, true)
	st := newStates()
	open(t, h, fakeLoad("a"), Options{MemoryLimit: 1 << 20, OnState: st.on, GiveUpAfter: 1})
	st.wait(t, "over its memory limit: it used")
}

func TestGroup(t *testing.T) {
	h := startHost(t, true)
	a, b := open(t, h, fakeLoad("a"), Options{Group: "gpu0"}), open(t, h, fakeLoad("b"), Options{Group: "gpu0"})
	echo(t, a, 1)
	echo(t, b, 2)
	pid := a.Stats().PID
	if pid != b.Stats().PID {
		t.Fatal("the group has two processes")
	}
	_, err := a.Run(t.Context(), runOf("segv", floatTensor(1)))
	if !errors.Is(err, inference.ErrWorkerDied) {
		t.Error(err)
	}
	echo(t, b, 2) // loaded again with it
	echo(t, a, 1)
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	h.wait(t, "gpu0/0 unloaded")
	echo(t, b, 3)
	end := pidfd(t, b.Stats().PID)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, end)
}

func TestIdleMemoryGoesBack(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	echo(t, m, make([]float32, 1<<20)...)
	p := m.unit.current
	if p.arena.size() < 8<<20 {
		t.Fatalf("only %d bytes are mapped", p.arena.size())
	}
	p.arena.trim(time.Now().Add(time.Hour))
	if got := p.arena.size(); got != 0 {
		t.Errorf("%d bytes stay", got)
	}
	echo(t, m, 1) // the worker has followed
}

// A version whose files are gone for good is given up at the first death: nobody waits for what cannot come.
func TestGivenUpWhenItsFilesAreLost(t *testing.T) {
	h := startHost(t, true)
	st := newStates()
	m := open(t, h, fakeLoad("a"), Options{OnState: st.on, Again: func(context.Context) (string, error) {
		return "", inference.Errorf(inference.DataLoss, inference.ReasonModel, "the folder holds other bytes")
	}})
	st.wait(t, "live")
	if err := syscall.Kill(m.Stats().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	st.wait(t, "given up load model a version 7 again: DATA_LOSS: the folder holds other bytes")
	if _, err := m.Run(t.Context(), runOf("echo", floatTensor(1))); inference.AsError(err).Code != inference.Unavailable {
		t.Errorf("got %v", err)
	}
}
