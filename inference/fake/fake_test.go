// fake_test.go: the fake keeps the contract that it stands in for.
package fake

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func run(copied func()) *inference.Run {
	return &inference.Run{Signature: Signature("s", tensor.Float, -1), Outputs: []int{0}, Copied: copied,
		Inputs: []tensor.Parts{{Pieces: []*tensor.Tensor{Floats(tensor.Shape{1}, 1), Floats(tensor.Shape{2}, 2, 3)}, Pad: 1}}}
}

func TestRunner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &Runner{Latency: func(Record) time.Duration { return time.Second }}
		copied := 0
		result, err := f.Run(t.Context(), run(func() { copied++ }))
		if err != nil || !slices.Equal(Values(result.Outputs[0]), []float32{1, 2, 3, 1}) || copied != 1 || f.Lent() != 1 {
			t.Fatalf("%v, copied %d, lent %d", err, copied, f.Lent())
		}
		result.Release()
		if f.Lent() != 0 || f.Records()[0].Rows() != 4 {
			t.Errorf("lent %d, %d rows", f.Lent(), f.Records()[0].Rows())
		}

		// The caller is answered when its context ends; the run goes on.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		began := time.Now()
		if _, err := f.Run(ctx, run(nil)); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Second/2 {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		if now, most := f.InFlight(); now != 1 || most != 1 {
			t.Errorf("%d in flight, %d at most", now, most)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if now, _ := f.InFlight(); now != 0 || f.Lent() != 0 {
			t.Errorf("%d in flight, %d lent", now, f.Lent())
		}

		// Runs wait while it is down and while they are held, and die with the worker.
		up, release := f.Down(), f.Hold()
		ended := make(chan error, 1)
		go func() {
			_, err := f.Run(t.Context(), run(nil))
			ended <- err
		}()
		synctest.Wait()
		if n := len(f.Records()); n != 2 {
			t.Errorf("%d runs began, want 2: it is down", n)
		}
		up()
		synctest.Wait()
		time.Sleep(time.Minute)
		if n := len(f.Records()); n != 3 || len(ended) != 0 {
			t.Errorf("%d runs began, %d ended", n, len(ended))
		}
		cause := errors.New("signal: killed")
		f.Kill(cause)
		if err := <-ended; !errors.Is(err, inference.ErrWorkerDied) || !errors.Is(err, cause) {
			t.Error(err)
		}
		release()
		if err := f.Close(); err != nil || !f.Closed() {
			t.Error(err)
		}
		if _, err := f.Run(t.Context(), run(nil)); !errors.Is(err, inference.ErrClosed) {
			t.Error(err)
		}
	})
}

func TestModel(t *testing.T) {
	m := &Model{Runner{Graph: func(r Record) ([]*tensor.Tensor, error) {
		if r.Rows() > 1 {
			return nil, context.DeadlineExceeded
		}
		return Echo(r)
	}}}
	var _ inference.Servable = m
	sig := Signature("s", tensor.Float, -1)
	resp, err := m.Predict(t.Context(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{Floats(tensor.Shape{1}, 7)}, Outputs: []int{0}})
	if err != nil || Values(resp.Outputs[0])[0] != 7 {
		t.Fatal(err)
	}
	resp.Release()
	var e *inference.Error
	_, err = m.Predict(t.Context(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{Floats(tensor.Shape{2}, 7, 8)}, Outputs: []int{0}})
	if !errors.As(err, &e) || e.Code != inference.DeadlineExceeded || m.Lent() != 0 {
		t.Errorf("%v, %d lent", err, m.Lent())
	}
}
