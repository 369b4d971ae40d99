// window_test.go: the closed loop counts what ends in its window, and does not wait for the rest.
package measure

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestObserveCountsTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, err := Observe(4, 100*time.Millisecond, time.Second, func(i int) (func() error, func(), error) {
			closed := make(chan struct{})
			took := 10 * time.Millisecond
			if i == 3 {
				took = time.Hour // a call that the window does not see the end of
			}
			return func() error {
				select {
				case <-time.After(took):
					return nil
				case <-closed:
					return errors.New("closed")
				}
			}, func() { close(closed) }, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if w.Calls < 290 || w.Calls > 310 || w.P50 != 10*time.Millisecond || w.P99 != 10*time.Millisecond || w.Rate() != float64(w.Calls) {
			t.Errorf("got %+v, want 3 connections of 100 calls each", w)
		}
	})
}

func TestObserveReportsAFailure(t *testing.T) {
	no := errors.New("no")
	calls := 0
	_, err := Observe(1, 0, time.Minute, func(int) (func() error, func(), error) {
		return func() error {
			if calls++; calls > 5 {
				return no
			}
			return nil
		}, func() {}, nil
	})
	if !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
}
