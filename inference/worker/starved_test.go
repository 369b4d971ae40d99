// starved_test.go: a worker that got no processor while it was proven is not held against its version.
package worker

import (
	"testing"
	"time"
)

func TestStarvedIsNoDeath(t *testing.T) {
	h := startHost(t, true)
	m, err := h.Open(t.Context(), fakeLoad("starved"), Options{Gently: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	for i, starved := range []bool{true, false} {
		_, p := m.unit.stats()
		if p == nil {
			t.Fatal("there is no worker")
		}
		p.kill(ending{starved: starved, reason: "the test ends it"})
		for end := time.Now().Add(patience); m.Stats().Restarts != i+1 || m.Stats().State != Live; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("it is not restarted: %+v", m.Stats())
			}
		}
		if deaths, why, _ := m.Vitals(); deaths != i || why == "" {
			t.Errorf("%d deaths (%q) after an end with starved %v", deaths, why, starved)
		}
	}
}
