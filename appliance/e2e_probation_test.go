// e2e_probation_test.go: versions that turn bad on real traffic, with real workers: probation sends them back.
package appliance

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// watched puts new versions on a probation that only a verdict ends.
func watched(change func(*config.Config)) func(*config.Config) {
	return func(cfg *config.Config) {
		cfg.Defaults.Probation = config.Default().Defaults.Probation
		cfg.Defaults.Probation.Time, cfg.Defaults.Probation.Requests = time.Hour, 0
		if change != nil {
			change(cfg)
		}
	}
}

// traffic asks the model with x of each number, one request after the other, until it is ended; the answers go to got.
type traffic struct {
	stop  context.CancelFunc
	wg    sync.WaitGroup
	count atomic.Int64
	bad   atomic.Int64
}

func (s *server) traffic(model string, clients int, pause time.Duration, x func(i int64) float32) *traffic {
	ctx, stop := context.WithCancel(context.Background())
	f := &traffic{stop: stop}
	for range clients {
		f.wg.Go(func() {
			pace := time.NewTicker(pause)
			defer pace.Stop()
			for ctx.Err() == nil {
				req, cancel := context.WithTimeout(context.Background(), patience)
				if y, err := s.askGRPC(req, model, []float32{x(f.count.Load())}); err != nil || len(y) != 1 {
					f.bad.Add(1)
				}
				cancel()
				f.count.Add(1)
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	s.t.Cleanup(func() { f.end() })
	return f
}

func (f *traffic) end() (count, bad int64) {
	f.stop()
	f.wg.Wait()
	return f.count.Load(), f.bad.Load()
}

// answered waits until so many more requests have been answered.
func (s *server) answered(f *traffic, n int64) {
	s.t.Helper()
	want, end := f.count.Load()+n, time.Now().Add(patience)
	for f.count.Load() < want {
		if time.Now().After(end) {
			s.t.Fatalf("%d requests were answered, want %d", f.count.Load(), want)
		}
		time.Sleep(time.Millisecond)
	}
}

// onTrial waits until the model has a trial of the version.
func (s *server) onTrial(model string, number int64) *control.Trial {
	s.t.Helper()
	st := s.until(fmt.Sprintf("version %d on probation", number), func(st *control.Status) bool {
		return trialIn(st, model) != nil && trialIn(st, model).Version == number && isLive(st, model, number)
	})
	return trialIn(st, model)
}

func trialIn(st *control.Status, model string) *control.Trial {
	for _, m := range st.Models {
		if m.Name == model {
			return m.Trial
		}
	}
	return nil
}

// sentBack waits until version 2 has given way to version 1, which was not loaded again, and checks what is said about it.
func (s *server) sentBack(pid int, texts ...string) {
	s.t.Helper()
	v := s.staged("m", 2, "quarantined", append(texts, "still serving version 1", "gone back to version 1")...)
	if !strings.HasPrefix(v.Message, "model m version 2 refused: ") {
		s.t.Errorf("message: %s", v.Message)
	}
	if now := s.live("m", 1).Worker.PID; now != pid {
		s.t.Errorf("version 1 runs in process %d, it was %d", now, pid)
	}
	events, err := s.updater.History("m", 1000)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range events {
		if e.What == "condemned" && e.Version == 2 && containsAll(e.Reason, texts) {
			s.t.Log(e.Reason)
			return
		}
	}
	s.t.Errorf("the history says nothing of it: %+v", events)
}

// One whose answers turn NaN only on what real clients send.
func TestProbationFindsNaN(t *testing.T) {
	s := serve(t, watched(nil))
	s.publish("m", 1, modeltest.Affine(0, 1))
	pid := s.live("m", 1).Worker.PID
	f := s.traffic("m", 2, time.Millisecond, func(i int64) float32 { return float32(i % 200) })
	s.answered(f, 400)
	s.publish("m", 2, modeltest.NaNAbove(100, 2))
	s.sentBack(pid, "answers had NaN or infinity, version 1 had 0 of ")
	s.answered(f, 50)
	if n, bad := f.end(); bad != 0 {
		t.Errorf("%d of %d requests failed", bad, n)
	}
	s.ask("m", []float32{500}, []float32{1})
}

// One that leaks memory with each request.
func TestProbationFindsLeak(t *testing.T) {
	s := serve(t, watched(func(cfg *config.Config) { cfg.Defaults.Probation.Memory = 32 << 20 }))
	s.publish("m", 1, modeltest.Affine(1, 0))
	pid := s.live("m", 1).Worker.PID
	f := s.traffic("m", 1, 20*time.Millisecond, func(i int64) float32 { return float32(i) })
	s.answered(f, 20)
	s.publish("m", 2, modeltest.Leaky(512))
	s.sentBack(pid, "its worker gained ", "and goes on gaining")
	if n, bad := f.end(); bad != 0 {
		t.Errorf("%d of %d requests failed", bad, n)
	}
}

// One that takes twice as long; and one that does not, which passes.
func TestProbationFindsSlow(t *testing.T) {
	s := serve(t, watched(nil))
	s.publish("m", 1, modeltest.Slow(20))
	pid := s.live("m", 1).Worker.PID
	f := s.traffic("m", 1, time.Millisecond, func(i int64) float32 { return float32(i) })
	s.answered(f, 50)
	s.publish("m", 2, modeltest.Slow(40))
	s.sentBack(pid, `runs of signature "serving_default" take `)
	s.publish("m", 3, modeltest.Slow(20))
	s.onTrial("m", 3)
	s.until("many requests on trial", func(st *control.Status) bool { return trialIn(st, "m").New.Requests > 100 })
	if text, err := s.updater.Promote(t.Context(), "m", "a test"); err != nil {
		t.Fatal(text, err)
	}
	s.until("version 1 unloaded", func(st *control.Status) bool {
		v := version(st, "m", 1)
		return v == nil || v.Worker == nil && v.Stage == "retired"
	})
	if n, bad := f.end(); bad != 0 {
		t.Errorf("%d of %d requests failed", bad, n)
	}
}

// One whose worker dies of some requests. These fail, and no others.
func TestProbationFindsDeaths(t *testing.T) {
	s := serve(t, watched(nil))
	s.publish("m", 1, modeltest.Affine(1, 0))
	pid := s.live("m", 1).Worker.PID
	s.ask("m", []float32{-1}, []float32{-1})
	s.publish("m", 2, modeltest.Crasher())
	s.onTrial("m", 2)
	s.ask("m", []float32{1}, []float32{1})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if y, err := s.askGRPC(ctx, "m", []float32{-1}); err == nil {
		t.Fatalf("the crasher answered %v", y)
	}
	s.sentBack(pid, "its worker died ", "killed by SIGABRT; that of version 1 0 times")
	s.ask("m", []float32{-1}, []float32{-1})
}

// A good version passes after as many requests as are asked for, and the one before is unloaded.
func TestProbationPasses(t *testing.T) {
	s := serve(t, watched(func(cfg *config.Config) {
		cfg.Defaults.Probation.Requests = 100
		cfg.Defaults.Probation.Latency = 0 // a machine that gets busy between the two versions makes the second one slower, which it is here not about
	}))
	s.publish("m", 1, modeltest.Affine(0, 1))
	s.live("m", 1)
	f := s.traffic("m", 1, time.Millisecond, func(i int64) float32 { return float32(i) })
	s.answered(f, 100)
	s.publish("m", 2, modeltest.Affine(0, 2))
	tr := s.onTrial("m", 2)
	if tr.Against != 1 || !tr.Loaded || tr.Share != 1 || tr.Steps != 0 {
		t.Fatalf("%+v", tr)
	}
	s.until("version 1 unloaded", func(st *control.Status) bool { v := version(st, "m", 1); return v == nil || v.Stage == "retired" })
	events, err := s.updater.History("m", 100)
	if err != nil {
		t.Fatal(err)
	}
	passed := false
	for _, e := range events {
		passed = passed || e.What == "passed probation" && e.Version == 2
	}
	if n, bad := f.end(); bad != 0 || !passed {
		t.Errorf("%d of %d requests failed; %+v", bad, n, events)
	}
}

// A canary gets its share by count, and by key for ever; a number, a label and metadata are not touched.
func TestCanaryShare(t *testing.T) {
	const share = 0.25
	s := serve(t, watched(func(cfg *config.Config) {
		cfg.Defaults.Rollout.Strategy, cfg.Defaults.Rollout.Share = config.Canary, share
		m := listed(cfg, "m")
		m.VersionLabels = map[string]int64{"old": 1}
		cfg.Models = append(cfg.Models, m)
	}))
	s.publish("m", 1, modeltest.Affine(0, 1))
	s.live("m", 1)
	s.publish("m", 2, modeltest.Affine(0, 2))
	if tr := s.onTrial("m", 2); tr.Share != share || tr.Step != 1 || tr.Steps != 1 {
		t.Fatalf("%+v", tr)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	seen := map[float32]int{}
	one := func(y []float32, err error) float32 {
		t.Helper()
		if err != nil || len(y) != 1 {
			t.Fatal(y, err)
		}
		return y[0]
	}
	const requests = 400
	for i := range requests {
		if i%2 == 0 {
			seen[one(s.askREST(ctx, "m", []float32{1}))]++
		} else {
			seen[one(s.askGRPC(ctx, "m", []float32{1}))]++
		}
	}
	if seen[2] < share*requests-5 || seen[2] > share*requests+5 || seen[1]+seen[2] != requests {
		t.Errorf("by count: %v", seen)
	}
	byKey := map[float32]float64{}
	const keys = 200
	for i := range keys {
		key := fmt.Sprintf("client %d", i)
		first := one(s.askREST(ctx, "m", []float32{1}, "Inferd-Request-Key", key))
		byKey[first]++
		if again := one(s.askGRPC(metadata.AppendToOutgoingContext(ctx, "inferd-request-key", key), "m", []float32{1})); again != first {
			t.Fatalf("%s gets version %v over REST, %v over gRPC", key, first, again)
		}
	}
	if d := byKey[2] - share*keys; d*d > 16*keys*share*(1-share) { // four standard deviations
		t.Errorf("by key: %v", byKey)
	}
	for _, path := range []string{"/v1/models/m/versions/1:predict", "/v1/models/m/labels/old:predict"} {
		for range 20 {
			code, body, err := s.rest(ctx, path, `{"instances": [[1]]}`, "Inferd-Request-Key", "client 3")
			if err != nil || code != http.StatusOK || !strings.Contains(string(body), "1.0") {
				t.Fatalf("%s: %d %s, %v", path, code, body, err)
			}
		}
	}
	for range 20 {
		if code, body := s.get("/v1/models/m/metadata"); code != http.StatusOK || !strings.Contains(body, `"version": "1"`) {
			t.Fatalf("metadata: %d %s", code, body)
		}
	}
	c := control.Dial(s.cfg.Listen.Control)
	defer c.Close()
	if text, err := c.Verb(ctx, "promote", "m", 0); err != nil || !strings.Contains(text, "version 2 is no longer on probation") {
		t.Fatal(text, err)
	}
	for range 20 {
		if y := one(s.askGRPC(ctx, "m", []float32{1})); y != 2 {
			t.Fatalf("version %v answers after the promotion", y)
		}
	}
}

// A trial goes on after a restart, with both versions loaded again, and can end badly then.
func TestProbationOverARestart(t *testing.T) {
	lib := library(t)
	cfg := testConfig(t, watched(func(cfg *config.Config) { cfg.Runtime.Library = lib }))
	first := run(t, cfg)
	first.publish("m", 1, modeltest.Affine(0, 1))
	first.live("m", 1)
	f := first.traffic("m", 1, time.Millisecond, func(int64) float32 { return 1 })
	first.answered(f, 200)
	first.publish("m", 2, modeltest.NaNAbove(100, 2))
	before := first.onTrial("m", 2)
	first.until("a look at the trial", func(st *control.Status) bool { return trialIn(st, "m").New.Requests > 0 })
	f.end()
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}

	second := run(t, cfg)
	tr := second.onTrial("m", 2)
	pid := second.live("m", 1).Worker.PID
	if tr.Against != 1 || !tr.Begun.Equal(before.Begun) {
		t.Fatalf("%+v, it was %+v", tr, before)
	}
	second.ask("m", []float32{1}, []float32{2})
	second.until("another look", func(st *control.Status) bool {
		return trialIn(st, "m").New.Requests > 0 && trialIn(st, "m").Old.Requests >= 200
	})
	f = second.traffic("m", 1, time.Millisecond, func(int64) float32 { return 200 })
	second.sentBack(pid, "answers had NaN or infinity, version 1 had 0 of ")
	if n, bad := f.end(); bad != 0 {
		t.Errorf("%d of %d requests failed", bad, n)
	}
}

// Where memory is short the old version is unloaded first, and comes back when the new one cannot be loaded.
func TestTransitionUnloadsFirst(t *testing.T) {
	s := serve(t, watched(func(cfg *config.Config) { cfg.Defaults.Transition = config.ResourcePreserving }))
	s.publish("m", 1, modeltest.Affine(0, 1))
	s.live("m", 1)
	s.publish("m", 2, modeltest.Affine(0, 2))
	tr := s.onTrial("m", 2)
	if tr.Loaded || tr.Against != 1 {
		t.Fatalf("%+v", tr)
	}
	s.ask("m", []float32{1}, []float32{2})
	if _, err := s.updater.Promote(t.Context(), "m", ""); err != nil {
		t.Fatal(err)
	}
	s.publish("m", 3, modeltest.NoRun())
	s.staged("m", 3, "quarantined", "could not be loaded and run")
	s.live("m", 2)
	s.ask("m", []float32{1}, []float32{2})
}
