// queuepulse_test.go: a writer that is busy lives; only a transaction that does not end is a disk that does not answer.
package storage

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// What the writer does outside of transactions, Compact above all, may take minutes: it is alive, its disk is not stalled, and submits wait for it.
func TestCompactingIsNotStalled(t *testing.T) {
	q := openQueue(t, filepath.Join(t.TempDir(), "queue.db"), QueueOptions{})
	began, release := make(chan struct{}), make(chan struct{})
	go func() { _ = q.alone(context.Background(), func() { close(began); <-release }) }()
	<-began
	if d := q.Stalled(); d != 0 {
		t.Errorf("stalled for %s", d)
	}
	if err := q.Ping(t.Context()); err != nil {
		t.Errorf("the writer does not answer: %v", err)
	}
	added := make(chan error, 1)
	go func() {
		_, _, err := q.Append(context.Background(), job("m"), []byte("x"))
		added <- err
	}()
	close(release)
	if err := <-added; err != nil {
		t.Errorf("a submit meanwhile: %v", err)
	}
}

// A transaction that does not end is a disk that does not answer: the writer lives, and no more is taken.
func TestStalledDisk(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	q := openQueue(t, filepath.Join(t.TempDir(), "queue.db"), QueueOptions{Step: func(point string) {
		if point == "commit" {
			select {
			case <-began:
			default:
				close(began)
				<-release
			}
		}
	}})
	first := make(chan error, 1)
	go func() {
		_, _, err := q.Append(context.Background(), job("m"), []byte("x"))
		first <- err
	}()
	<-began
	for q.Stalled() == 0 { // the clock has to move
		time.Sleep(time.Millisecond)
	}
	if err := q.Ping(t.Context()); err != nil {
		t.Errorf("the writer does not answer: %v", err)
	}
	q.since.Store(int64(Uptime() - 2*stalledAfter))
	if _, _, err := q.Append(context.Background(), job("m"), []byte("y")); err == nil {
		t.Error("a job is taken by a disk that does not answer")
	}
	close(release)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

// A writer that is not there answers nobody.
func TestPingOfNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &Queue{tasks: make(chan func()), ended: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if q.Ping(ctx) == nil {
			t.Error("it answers")
		}
	})
}
