// ask_test.go: runs that only ask whether the worker answers.
package worker

import (
	"errors"
	"syscall"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

func TestAsk(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		m := open(t, h, fakeLoad("asked"), Options{RunTimeout: time.Second})
		echo(t, m, 1)
		before := m.target.signatures["echo"].outBytes.Load()
		for range 3 {
			if err := m.Ask(t.Context(), runOf("echo", floatTensor(1))); err != nil {
				t.Fatal(err)
			}
		}
		if st := m.Stats(); st.Runs != 1 || m.target.signatures["echo"].outBytes.Load() != before {
			t.Errorf("asking left its mark: %d runs, outputs of %d bytes", st.Runs, m.target.signatures["echo"].outBytes.Load())
		}
		if err := m.Ask(t.Context(), runOf("fail", floatTensor(1))); err == nil || errors.Is(err, ErrAway) || m.Stats().Restarts != 0 {
			t.Errorf("an error of the graph: %v, %d restarts", err, m.Stats().Restarts)
		}

		if err := syscall.Kill(m.Stats().PID, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		if err := m.Ask(t.Context(), runOf("echo", floatTensor(1))); !errors.Is(err, inference.ErrRunTimeout) {
			t.Errorf("a worker that stands still: %v", err)
		}
		echo(t, m, 1)
		if st := m.Stats(); st.Restarts != 1 {
			t.Errorf("%d restarts, want 1", st.Restarts)
		}

		if err := m.Park("now"); err != nil {
			t.Fatal(err)
		}
		if err := m.Ask(t.Context(), runOf("echo", floatTensor(1))); !errors.Is(err, ErrAway) || !m.Parked() {
			t.Errorf("a parked worker: %v, parked %v", err, m.Parked())
		}
		echo(t, m, 1)
		_, p := m.unit.stats()
		p.kill(ending{reason: "the test ends it"})
		if err := m.Ask(t.Context(), runOf("echo", floatTensor(1))); err != nil && !errors.Is(err, ErrAway) { // the next one may be there
			t.Errorf("a worker that is being replaced: %v", err)
		}
		echo(t, m, 1)
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		if err := m.Ask(t.Context(), runOf("echo", floatTensor(1))); !errors.Is(err, ErrAway) {
			t.Errorf("a closed worker: %v", err)
		}
	})
}
