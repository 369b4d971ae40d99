// wake_test.go: what can happen to a parked worker while it is being started again.
package worker

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// wakeable is a parked model that is loaded again from the folder that dir holds, with room of which it keeps count.
type wakeable struct {
	*Model
	dir   atomic.Value // string
	held  atomic.Int64 // by processes after the first
	asked chan struct{}
}

func openParked(t *testing.T, h *testHost) *wakeable {
	t.Helper()
	w := &wakeable{asked: make(chan struct{}, 100)} // more than any test wakes it
	w.dir.Store("fake")
	w.Model = open(t, h, fakeLoad("wakeable"), Options{
		Room: func(context.Context) (func(), error) {
			w.held.Add(1)
			return func() { w.held.Add(-1) }, nil
		},
		Again: func(context.Context) (string, error) {
			w.asked <- struct{}{}
			return w.dir.Load().(string), nil
		},
	})
	if err := w.Park("the test says so"); err != nil {
		t.Fatal(err)
	}
	return w
}

// One that is being started has its memory, or is about to: who parks it must not believe that it has none.
func TestParkWhileWaking(t *testing.T) {
	h := startHost(t, true)
	w := openParked(t, h)
	w.dir.Store("hang")
	w.Wake()
	<-w.asked
	if err := w.Park("now"); !errors.Is(err, ErrBusy) {
		t.Errorf("parked a worker that is being started: %v", err)
	}
	if n := w.held.Load(); n != 1 {
		t.Errorf("room is held %d times while it is started", n)
	}
}

func TestCloseWhileWaking(t *testing.T) {
	h := startHost(t, true)
	w := openParked(t, h)
	w.dir.Store("hang")
	w.Wake()
	<-w.asked
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if n := w.held.Load(); n != 0 {
		t.Errorf("room is held %d times after the end", n)
	}
}

// A process that dies while it wakes fails the runs that wait for it, and nothing else: the next run tries again.
func TestWakeWhoseProcessDies(t *testing.T) {
	h := startHost(t, true)
	w := openParked(t, h)
	w.dir.Store("die")
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_, err := w.Run(ctx, runOf("echo", floatTensor(1)))
		cancel()
		if e := inference.AsError(err); e == nil || e.Code != inference.Unavailable || e.Reason != inference.ReasonWorker || e.Model != "wakeable" {
			t.Fatalf("a run whose worker died while it woke: %v", err)
		}
		if n := w.held.Load(); n != 0 || !w.Parked() {
			t.Fatalf("room is held %d times, parked %v", n, w.Parked())
		}
		if err := w.Park("again"); err != nil {
			t.Fatalf("a worker that could not be woken: %v", err)
		}
	}
	w.dir.Store("fake")
	echo(t, w.Model, 1)
	if st := w.Stats(); st.State != Live || st.Restarts != 0 || st.LastDeath != nil || w.held.Load() != 1 {
		t.Errorf("%+v, room is held %d times", st, w.held.Load())
	}
}

// Room that comes late keeps the runs waiting no longer than their deadlines.
func TestRunLeavesWhileWaking(t *testing.T) {
	h := startHost(t, true)
	w := openParked(t, h)
	w.dir.Store("hang")
	ctx, cancel := context.WithCancel(t.Context())
	left := make(chan error, 1)
	go func() {
		_, err := w.Run(ctx, runOf("echo", floatTensor(1)))
		left <- err
	}()
	<-w.asked
	cancel()
	select {
	case err := <-left:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the run: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the run waits on without its caller")
	}
}
