// e2e_canary_test.go: idle workers that are asked whether they answer, with real ones that do not.
package appliance

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// serveCanaries is serve with canaries that need not keep to their share of the time, which is counted in what runs take on a box that others use too.
func serveCanaries(t *testing.T, change func(*config.Config)) *server {
	t.Helper()
	lib := library(t)
	return runWith(t, testConfig(t, func(cfg *config.Config) {
		cfg.Runtime.Library, cfg.Runtime.CanaryInterval = lib, 100*time.Millisecond
		change(cfg)
	}), func(a *Appliance) { a.opts.canaryShare = 1 })
}

// asked is how many canary runs of the model ended so.
func (s *server) asked(model, result string) int {
	return int(testutil.ToFloat64(s.metrics.canaries.WithLabelValues(model, result)))
}

// askedMore waits until so many more canary runs of the model were answered.
func (s *server) askedMore(model string, n int) {
	s.t.Helper()
	want := s.asked(model, "ok") + n
	for end := time.Now().Add(patience); s.asked(model, "ok") < want; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("model %s was asked %d times, want %d; log:\n%s", model, s.asked(model, "ok"), want, s.logs.tail(40))
		}
	}
}

// A worker that stands still while nobody asks it is replaced, without any request; nobody else's is. What canaries do is no use of a version.
func TestIdleWorkerThatHangs(t *testing.T) {
	s := serveCanaries(t, func(cfg *config.Config) {
		m := listed(cfg, "stopped")
		m.RunTimeout = 2 * time.Second
		cfg.Models = append(cfg.Models, m)
	})
	s.publish("stopped", 1, modeltest.HalfPlusTwo())
	s.publish("other", 1, modeltest.HalfPlusTwo())
	counter := modeltest.Counter() // of which every other signature writes
	delete(counter.Meta.GetSignatureDef(), "get_counter")
	s.publish("counter", 1, counter)
	before := s.live("stopped", 1).Worker
	s.live("other", 1)
	s.live("counter", 1)
	s.askedMore("stopped", 2)
	ended := watch(t, before.PID)
	kill(t, before.PID, syscall.SIGSTOP)
	ended(t)
	st := s.until("the worker that stood still is replaced", func(st *control.Status) bool {
		return isLive(st, "stopped", 1) && version(st, "stopped", 1).Worker.PID != before.PID
	})
	if w := version(st, "stopped", 1).Worker; w.Restarts < 1 || !strings.Contains(w.LastDeath, "run_timeout") {
		t.Errorf("its worker: %+v", w)
	}
	if line := s.logs.wait(t, "msg", "worker hung while nobody asked it", "level", "WARN", "model", "stopped"); line["signature"] != "serving_default" {
		t.Errorf("%v", line)
	}
	if n := s.asked("stopped", "hung"); n < 1 {
		t.Errorf("%d canaries hung", n)
	}
	s.askedMore("stopped", 1)
	s.askedMore("other", 1)
	if w := s.live("other", 1).Worker; w.Restarts != 0 || s.asked("other", "hung")+s.asked("other", "error") != 0 {
		t.Errorf("the other model's worker: %+v", w)
	}
	if line := s.logs.wait(t, "msg", "version is not asked while it is idle", "model", "counter"); !strings.Contains(line["reason"].(string), "writes variables") {
		t.Errorf("%v", line)
	}
	if _, page := s.get("/metrics"); strings.Contains(page, `inferd_requests_total{`) || strings.Contains(page, `inferd_batch_rows_count{`) ||
		strings.Contains(page, `inferd_canary_runs_total{model="counter"`) || !strings.Contains(page, `inferd_canary_runs_total{model="other",result="ok"}`) {
		t.Errorf("nobody has asked for anything, and the metrics are\n%s", page)
	}
	s.ask("stopped", []float32{1, 2}, []float32{2.5, 3})
}

// Canaries keep no version from being parked, and wake none.
func TestCanariesLetSleep(t *testing.T) {
	s := serveCanaries(t, func(cfg *config.Config) {
		m := listed(cfg, "sleepy")
		m.KeepAlive = time.Second
		cfg.Models = append(cfg.Models, m)
	})
	s.publish("sleepy", 1, modeltest.HalfPlusTwo())
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("other", 1)
	s.until("the idle version is parked", func(st *control.Status) bool {
		v := version(st, "sleepy", 1)
		return v != nil && v.Worker != nil && v.Worker.State == "parked"
	})
	asked := s.asked("sleepy", "ok")
	s.askedMore("other", 5)
	st := s.Status()
	if w := version(&st, "sleepy", 1).Worker; w == nil || w.State != "parked" || s.asked("sleepy", "ok") != asked {
		t.Errorf("it was asked in its sleep: %d canaries, %d before; %+v", s.asked("sleepy", "ok"), asked, w)
	}
}

// A version that clients ask is not asked by canaries.
func TestNoCanaryBesideRequests(t *testing.T) {
	s := serveCanaries(t, func(cfg *config.Config) { cfg.Runtime.CanaryInterval = time.Second })
	s.publish("busy", 1, modeltest.HalfPlusTwo())
	s.live("busy", 1)
	load := s.startLoad("busy", 4, halfPlusTwo)
	load.more(50)
	before := s.asked("busy", "ok")
	s.publish("other", 1, modeltest.HalfPlusTwo())
	s.live("other", 1)
	s.askedMore("other", 3)
	if n := s.asked("busy", "ok") - before; n != 0 {
		t.Errorf("%d canaries beside requests", n)
	}
	if good, refused := load.end(); refused != 0 {
		t.Errorf("%d answered, %d refused", good, refused)
	}
	s.askedMore("busy", 1)
}
