// park_test.go: processes that are ended to save memory, and started again.
package worker

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

func TestParkAndWake(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		s := newStates()
		m := open(t, h, fakeLoad("parked"), Options{OnState: s.on})
		echo(t, m, 1)
		pid := m.Stats().PID
		ended := pidfd(t, pid)
		if err := m.Park("the test says so"); err != nil {
			t.Fatal(err)
		}
		waitEnd(t, ended)
		s.wait(t, "parked parked: the test says so")
		if err := m.Park("again"); err != nil || !m.Parked() {
			t.Errorf("parked twice: %v, %v", err, m.Parked())
		}
		if st := m.Stats(); st.State != Parked || st.PID != 0 || st.Restarts != 0 || st.LastDeath != nil {
			t.Errorf("stats of a parked worker: %+v", st)
		}
		if deaths, _, bytes := m.Vitals(); deaths != 0 || bytes != 0 {
			t.Errorf("%d deaths, %d bytes", deaths, bytes)
		}
		var wg sync.WaitGroup
		for range 5 { // one start for all of them
			wg.Go(func() { echo(t, m, 2, 3) })
		}
		wg.Wait()
		if st := m.Stats(); st.State != Live || st.PID == pid || st.Restarts != 0 || st.LoadTook <= 0 {
			t.Errorf("stats of a woken worker: %+v", st)
		}
		if err := m.Park("once more"); err != nil {
			t.Fatal(err)
		}
		m.Wake()
		for end := time.Now().Add(patience); m.Parked() || m.Stats().State != Live; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("it does not wake")
			}
		}
		if err := m.Park("for good"); err != nil {
			t.Fatal(err)
		}
	}) // and is closed while it is parked
}

func TestParkOnlyWhileNothingRuns(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("busy"), Options{RunTimeout: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began, done := make(chan struct{}), make(chan error, 1)
	go func() {
		run := runOf("hang", floatTensor(1))
		run.Copied = func() { close(began) }
		_, err := m.Run(ctx, run)
		done <- err
	}()
	<-began
	if err := m.Park("now"); !errors.Is(err, ErrBusy) {
		t.Errorf("parked a worker that runs: %v", err)
	}
	cancel()
	<-done
	if err := m.Park("now"); !errors.Is(err, ErrBusy) { // the run goes on without its caller
		t.Errorf("parked a worker that runs: %v", err)
	}
	shared := open(t, h, fakeLoad("shared"), Options{Group: "g"})
	if err := shared.Park("now"); !errors.Is(err, ErrShared) {
		t.Errorf("parked a shared process: %v", err)
	}
}

// Without room a parked worker stays parked, and who waits is told; a death is followed by a start as soon as there is room.
func TestRoom(t *testing.T) {
	h := startHost(t, true)
	var room, held atomic.Int64
	full := &inference.Error{Code: inference.ResourceExhausted, Reason: inference.ReasonMemory, Msg: "no memory"}
	m := open(t, h, fakeLoad("roomy"), Options{Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond, GiveUpAfter: 2, Room: func(context.Context) (func(), error) {
		if room.Load() == 0 {
			return nil, full
		}
		held.Add(1)
		return func() { held.Add(-1) }, nil
	}})
	if err := m.Park("now"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		_, err := m.Run(t.Context(), runOf("echo", floatTensor(1)))
		var e *inference.Error
		if !errors.As(err, &e) || e.Code != inference.ResourceExhausted || e.Reason != inference.ReasonMemory || e.Model != "roomy" || !m.Parked() {
			t.Fatalf("%v, parked %v", err, m.Parked())
		}
	}
	room.Store(1)
	echo(t, m, 1)
	if held.Load() != 1 {
		t.Errorf("%d held", held.Load())
	}
	room.Store(0)
	_, p := m.unit.stats()
	p.kill(ending{reason: "the test ends it"})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := m.Run(ctx, runOf("echo", floatTensor(1))); err == nil {
		t.Error("it runs without room")
	}
	if st := m.Stats(); st.State != Restarting { // and is not given up: it is no fault of its own
		t.Errorf("state %v", st.State)
	}
	room.Store(1)
	echo(t, m, 1)
	if err := m.Close(); err != nil || held.Load() != 0 {
		t.Errorf("%v, %d held after the end", err, held.Load())
	}
}

// Whatever parking meets, no run fails that could have gone through.
func TestParkWhileRunning(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("walk"), Options{})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 5))
			for {
				select {
				case <-stop:
					return
				default:
				}
				echo(t, m, float32(i))
				time.Sleep(time.Duration(rng.IntN(30)) * time.Millisecond)
			}
		})
	}
	parked := 0
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end) || parked < 5; time.Sleep(3 * time.Millisecond) {
		if m.Park("walk") == nil {
			parked++
		}
		if time.Now().After(end.Add(patience)) {
			t.Fatalf("parked %d times only", parked)
		}
	}
	close(stop)
	wg.Wait()
	if st := m.Stats(); st.Restarts != 0 || st.LastDeath != nil {
		t.Errorf("%+v", st)
	}
	t.Logf("parked %d times", parked)
}
