// limit_test.go: a model that grows is replaced, alone and without a failed run.
package worker

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestModelThatGrows(t *testing.T) {
	h := startHost(t, true)
	grows, beside := open(t, h, fakeLoad("grows"), Options{}), open(t, h, fakeLoad("beside"), Options{})
	echo(t, grows, 1)
	_, _, rest := grows.Vitals()
	limit := rest + 64<<20
	grows.SetMemoryLimit(limit)
	beside.SetMemoryLimit(limit)
	var most atomic.Int64
	stop := make(chan struct{})
	var watching, wg sync.WaitGroup
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				if _, _, n := grows.Vitals(); n > most.Load() {
					most.Store(n)
				}
			}
		}
	})
	for range 3 {
		wg.Go(func() {
			for range 100 {
				res, err := grows.Run(t.Context(), runOf("grow", floatTensor(1)))
				if err != nil {
					t.Error(err)
					return
				}
				res.Release()
				time.Sleep(2 * time.Millisecond) // 1000 a second and more would only test how fast a process is looked at
			}
		})
		wg.Go(func() {
			for range 300 {
				echo(t, beside, 2)
			}
		})
	}
	wg.Wait()
	close(stop)
	watching.Wait()
	st := grows.Stats()
	if st.Restarts < 3 || st.LastDeath == nil || !st.LastDeath.Memory || st.LastDeath.Running != 0 {
		t.Errorf("after 300 MB: %+v, %+v", st, st.LastDeath)
	}
	if st := beside.Stats(); st.Restarts != 0 {
		t.Errorf("the model beside was restarted %d times", st.Restarts)
	}
	t.Logf("limit %d MiB, at most %d MiB seen, %d restarts", limit>>20, most.Load()>>20, st.Restarts)
	if most.Load() > limit*3/2 {
		t.Errorf("it had %d MiB of %d MiB", most.Load()>>20, limit>>20)
	}
}

func TestLimitBelowUseAndKill(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("small"), Options{})
	echo(t, m, 1)
	m.SetMemoryLimit(1 << 20)
	restarted := func(n int) {
		t.Helper()
		for end := time.Now().Add(patience); m.Stats().Restarts < n || m.Stats().State != Live; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%+v", m.Stats())
			}
		}
	}
	for end := time.Now().Add(patience); m.Stats().LastDeath == nil; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is not ended")
		}
	}
	m.SetMemoryLimit(0)
	restarted(1)
	before := m.Stats().Restarts
	m.Kill("the test says so")
	restarted(before + 1)
	if d := m.Stats().LastDeath; !d.Memory || d.Reason != "the test says so" {
		t.Errorf("%+v", d)
	}
	echo(t, m, 1)
}
