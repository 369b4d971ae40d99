// memory_test.go: who gives way for whom, what is booked meanwhile, and what is refused; then the same with real workers.
package appliance

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/updater"
)

const mb = 1_000_000

// sleeper is a worker that can be parked, without a process.
type sleeper struct {
	fake.Runner
	mu     sync.Mutex
	bytes  int64 // guarded by mu
	parked bool  // guarded by mu
	busy   error // guarded by mu
	killed string
	limit  int64
}

func (s *sleeper) Park(string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == nil {
		s.parked, s.bytes = true, 0
	}
	return s.busy
}

func (s *sleeper) Vitals() (int, string, int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return 0, "", s.bytes
}

func (s *sleeper) Shared() bool               { return false }
func (s *sleeper) Kill(reason string)         { s.killed = reason }
func (s *sleeper) SetMemoryLimit(bytes int64) { s.limit = bytes }
func (s *sleeper) set(bytes int64, busy error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes, s.busy = bytes, busy
}

// house is a keeper with a memory limit of 1000 MB, of which none is kept back and 100 MB are the requests'.
type house struct {
	*keeper
	t   *testing.T
	cfg *config.Config
}

func newHouse(t *testing.T) *house {
	cfg := config.Default()
	cfg.StateDir = t.TempDir()
	cfg.Memory.Limit, cfg.Memory.Reserve, cfg.Memory.Requests = 1000*mb+1, 1, 100*mb
	k := newKeeper(func() *config.Config { return cfg }, fstest.MapFS{}, newWorkers(), health.New(), slog.New(slog.DiscardHandler))
	k.anon = func(string) int64 { return 0 }
	k.bookCore()
	k.health.SetModels(true, nil)
	return &house{keeper: k, t: t, cfg: cfg}
}

// model is a live version of 200 MB that was idle for so many seconds.
func (h *house) model(name string, idle int, change func(*config.Model)) *servable {
	h.t.Helper()
	m := config.Model{Name: name, ModelOptions: h.cfg.Defaults}
	if change != nil {
		change(&m)
	}
	a, err := h.reserve(h.t.Context(), updater.Candidate{Model: updater.Model{Name: name, Settings: m}, Number: 1, Need: 250 * mb, Least: 250 * mb})
	if err != nil {
		h.t.Fatal(err)
	}
	r := &sleeper{bytes: 180 * mb}
	a.loaded(r)
	a.proven(updater.Proof{Peak: 200 * mb, Rest: 180 * mb, LoadPeak: 240 * mb})
	s := &servable{Batcher: batch.New(r, batch.Options{Model: name}), usage: newUsage(a, m), runner: r, model: name, version: 1}
	s.last.Store(time.Now().Add(-time.Duration(idle) * time.Second).UnixNano())
	h.live.add(s)
	return s
}

func (h *house) parked() (names []string) {
	for _, s := range h.live.all() {
		if s.account.parked() {
			names = append(names, s.model)
		}
	}
	slices.Sort(names)
	return names
}

func (h *house) load(need, least int64) (*account, error) {
	return h.reserve(h.t.Context(), updater.Candidate{Model: updater.Model{Name: "new"}, Number: 7, Need: need, Least: least})
}

func TestRoomIsMadeOfTheIdle(t *testing.T) {
	for _, c := range []struct {
		name        string
		need, least int64
		change      func(h *house, all map[string]*servable)
		parked      string
		booked      int64  // of the new one
		err         string // none: it fits
	}{
		// a (idle for 10 s), b (30 s), c (20 s) have 200 MB each, so 300 MB are free.
		{"it fits", 300 * mb, 300 * mb, nil, "", 300 * mb, ""},
		{"one gives way", 400 * mb, 400 * mb, nil, "b", 400 * mb, ""},
		{"two give way", 600 * mb, 600 * mb, nil, "b c", 600 * mb, ""},
		{"all together are not enough, and none gives way", 901 * mb, 901 * mb, nil, "", 0, "it needs about 901 MB beside what serves, and 300 MB are free (of 953 MiB, by memory.limit)"},
		{"a guess is lowered", 1200 * mb, 700 * mb, nil, "b c", 700 * mb, ""},
		{"a guess is lowered, and what is free is its own", 1200 * mb, 600 * mb, nil, "b c", 700 * mb, ""},
		{"pinned", 600 * mb, 600 * mb, func(_ *house, all map[string]*servable) { all["b"].pinned = true }, "a c", 600 * mb, ""},
		{"busy", 600 * mb, 600 * mb, func(_ *house, all map[string]*servable) { all["b"].begin() }, "a c", 600 * mb, ""},
		{"busy when it is parked", 500 * mb, 500 * mb, func(_ *house, all map[string]*servable) {
			all["b"].runner.(*sleeper).set(180*mb, errors.New("a run is in flight"))
		}, "c", 500 * mb, ""},
		{"nobody may", 500 * mb, 500 * mb, func(h *house, _ map[string]*servable) { h.cfg.Memory.Evict = false }, "", 0, "it needs about 500 MB"},
		{"memory is short", 10 * mb, 10 * mb, func(h *house, _ map[string]*servable) { h.level = admission.Some }, "", 0, "memory is short"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			all := map[string]*servable{"a": h.model("a", 10, nil), "b": h.model("b", 30, nil), "c": h.model("c", 20, nil)}
			if c.change != nil {
				c.change(h, all)
			}
			a, err := h.load(c.need, c.least)
			if got := strings.Join(h.parked(), " "); got != c.parked {
				t.Errorf("parked are %q, want %q", got, c.parked)
			}
			if c.err != "" {
				var no *updater.NoRoom
				if !errors.As(err, &no) || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v, want %s", err, c.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if release, err := a.room(t.Context()); err != nil { // its first worker died while it was proven
				t.Error(err)
			} else {
				release()
				_ = a.entry.Grow(c.booked) // and was started again
			}
			if got := a.entry.Bytes(); got != c.booked {
				t.Errorf("%d MB are booked, want %d", got/mb, c.booked/mb)
			}
			if limit := h.ledger.Limit(); h.ledger.Booked() > limit.Usable() {
				t.Errorf("%d are booked of %d", h.ledger.Booked(), limit.Usable())
			}
			a.close()
			for _, s := range all {
				s.account.close()
				s.account.close()
			}
			if n := h.ledger.Entries(); n != 3 { // core, zygote, storage
				t.Errorf("%d entries are left", n)
			}
		})
	}
}

// A version of a model that nobody serves yet waits for the loads beside it, which give back what they have reserved too much, before anybody is parked.
func TestFirstLoadWaitsForTheLoadsBeside(t *testing.T) {
	for _, c := range []struct {
		name   string
		peak   int64 // of the load beside, as proven; 0: it fails
		parked string
	}{
		{"it gives back enough", 200 * mb, ""}, {"it fails", 0, ""}, {"it takes all of it", 600 * mb, "idle"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHouse(t)
				h.model("idle", 60, nil)
				beside, err := h.load(600*mb, 600*mb)
				if err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() {
					_, err := h.reserve(t.Context(), updater.Candidate{Model: updater.Model{Name: "first"}, Number: 1, First: true, Need: 300 * mb, Least: 300 * mb})
					done <- err
				}()
				time.Sleep(time.Minute)
				if synctest.Wait(); len(done) > 0 || len(h.parked()) > 0 {
					t.Fatal("it did not wait")
				}
				if c.peak == 0 {
					beside.close()
				} else {
					beside.proven(updater.Proof{Peak: c.peak, Rest: c.peak, LoadPeak: c.peak})
				}
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				if got := strings.Join(h.parked(), " "); got != c.parked {
					t.Errorf("parked are %q, want %q", got, c.parked)
				}
			})
		})
	}
}

// A parked version that is asked for waits until a busy one is idle, and its request is told when none is in time.
func TestWakingWaitsForTheBusy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHouse(t)
		parked := h.model("parked", 60, nil)
		if !h.evict(parked, "test") || parked.account.entry.Bytes() != 0 {
			t.Fatal("not parked")
		}
		var busy []*servable
		for _, name := range []string{"a", "b", "c", "d"} {
			s := h.model(name, 1, nil)
			s.begin()
			busy = append(busy, s)
		} // 100 MB are free
		done := make(chan error, 1)
		var release func()
		go func() {
			var err error
			release, err = parked.account.room(t.Context())
			done <- err
		}()
		synctest.Wait()
		if len(h.parked()) != 1 || len(done) > 0 {
			t.Fatal("it did not wait")
		}
		time.Sleep(3 * time.Second)
		busy[2].end(time.Now(), nil)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(h.parked(), " "); got != "c" || parked.account.entry.Bytes() != 240*mb {
			t.Errorf("parked are %s, booked %d", got, parked.account.entry.Bytes())
		}
		h.measure()
		if got := parked.account.entry.Bytes(); got != 240*mb {
			t.Errorf("while it loads, %d are booked", got)
		}
		parked.account.answers()
		h.measure()
		if got := parked.account.entry.Bytes(); got != 200*mb {
			t.Errorf("when it has loaded, %d are booked", got)
		}

		// The other way round nobody becomes idle.
		parked.begin()
		_, err := busy[2].account.room(t.Context())
		e := inference.AsError(err)
		if e.Code != inference.ResourceExhausted || e.Reason != inference.ReasonMemory || e.RetryAfter == 0 || !strings.Contains(e.Msg, "240 MB are needed, and of 1000 MB") {
			t.Errorf("%+v", e)
		}

		// A process that has ended gives its memory back, once, and not that of the one after it.
		busy[0].end(time.Now(), nil)
		again, err := parked.account.room(t.Context()) // it died and is started again: most of its memory is booked still
		if err != nil {
			t.Fatal(err)
		}
		release()
		if parked.account.entry.Bytes() != 240*mb {
			t.Error("an old process's end was booked for the new one")
		}
		again()
		again()
		if parked.account.entry.Bytes() != 0 || !parked.account.parked() {
			t.Error("the end was not booked")
		}
		for _, s := range h.live.all() {
			if err := s.Batcher.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestKeepAlive(t *testing.T) {
	h := newHouse(t)
	h.model("long", 100, func(m *config.Model) { m.KeepAlive = 2 * time.Minute })
	h.model("short", 100, func(m *config.Model) { m.KeepAlive = time.Minute })
	busy := h.model("busy", 100, func(m *config.Model) { m.KeepAlive = time.Minute })
	busy.begin()
	h.model("forever", 1000, nil)
	h.expire(time.Now())
	if got := strings.Join(h.parked(), " "); got != "short" {
		t.Errorf("parked: %s", got)
	}
}

// What a worker has is booked, at least what it had when it was proven; its limit follows what is free; and where all together are over the
// limit it is the one that has grown the most that is ended.
func TestGrowth(t *testing.T) {
	h := newHouse(t)
	a, b := h.model("a", 1, nil), h.model("b", 1, func(m *config.Model) { m.MemoryLimit = 300 * mb })
	ra, rb := a.runner.(*sleeper), b.runner.(*sleeper)
	h.anon = func(string) int64 { return 5 * mb }
	used := h.measure()
	if own := h.core.Bytes(); own != 5*mb || used != 360*mb+own {
		t.Errorf("%d used, %d by the core", used, own)
	}
	if a.account.entry.Bytes() != 200*mb || rb.limit != 300*mb {
		t.Errorf("booked %d, the limit of b is %d", a.account.entry.Bytes(), rb.limit)
	}
	if free, _ := h.ledger.Free(); ra.limit < 180*mb+free || ra.limit > 1000*mb {
		t.Errorf("the limit of a is %d", ra.limit)
	}
	ra.set(600*mb, nil)
	rb.set(250*mb, nil)
	h.measure()
	if a.account.entry.Bytes() != 600*mb || b.account.entry.Bytes() != 250*mb {
		t.Errorf("booked %d and %d", a.account.entry.Bytes(), b.account.entry.Bytes())
	}
	a.begin()
	b.begin()
	limit := h.ledger.Limit()
	h.act(time.Now(), admission.Calm, admission.High, admission.Sample{Used: limit.Bytes, Limit: limit})
	if ra.killed+rb.killed != "" {
		t.Error("ended at the limit")
	}
	h.act(time.Now(), admission.High, admission.High, admission.Sample{Used: limit.Bytes + 1, Limit: limit})
	if !strings.Contains(ra.killed, "by 381 MiB since it was proven") || rb.killed != "" {
		t.Errorf("%q %q", ra.killed, rb.killed)
	}
	if r := h.health.Report(); len(r.Conditions) == 0 || r.Conditions[0].Code != health.CodePressure {
		t.Errorf("%+v", r.Conditions)
	}
	h.act(time.Now(), admission.High, admission.Calm, admission.Sample{Limit: limit})
	if r := h.health.Report(); len(r.Conditions) != 0 {
		t.Errorf("%+v", r.Conditions)
	}
}

// Idle versions are parked one at a look while memory is short.
func TestPressureParks(t *testing.T) {
	h := newHouse(t)
	h.model("a", 10, nil)
	h.model("b", 20, nil)
	for _, want := range []string{"b", "a b"} {
		h.act(time.Now(), admission.Some, admission.Some, admission.Sample{})
		if got := strings.Join(h.parked(), " "); got != want {
			t.Errorf("parked: %s, want %s", got, want)
		}
	}
}

// With real workers: what does not fit waits and says so, the rest is booked as measured and told at /v1/admission, and when the limit is
// raised what waited is loaded.
func TestMemoryLimit(t *testing.T) {
	plainMemory(t)
	made := filepath.Join(t.TempDir(), "large")
	if _, err := modeltest.Dense(4096).Publish(made, 1); err != nil { // 64 MiB of files
		t.Fatal(err)
	}
	debug.FreeOSMemory()
	// The test is the core, and has what it has: over that 150 MiB are kept back, 310 are the requests', who send none, and the zygote and a
	// worker take about 70. So a worker with 64 MiB of weights is too much, and what is used is far from the limit.
	limit := procAnon("self") + 600<<20
	s := serve(t, func(cfg *config.Config) {
		cfg.Defaults.Pinned = true // or the small one would give way
		cfg.Memory.Limit, cfg.Memory.Reserve, cfg.Memory.Requests = config.Bytes(limit), 150<<20, 310<<20
	})
	s.publish("small", 1, modeltest.HalfPlusTwo())
	s.live("small", 1)
	if err := os.Rename(made, filepath.Join(s.models, "large")); err != nil {
		t.Fatal(err)
	}
	s.staged("large", 1, "seen", "RESOURCE_EXHAUSTED: model large version 1 is not loaded", "memory", "memory.limit, the service's MemoryMax")
	report := s.admission()
	if report.Limit.Bytes != limit || report.Limit.Source != admission.FromConfiguration || report.Limit.Used == 0 || report.Limit.Used > report.Limit.Bytes {
		t.Errorf("%+v", report.Limit)
	}
	owners := make(map[string]admission.OwnerReport)
	for _, o := range report.Memory {
		owners[o.Owner+o.Model] = o
	}
	for _, name := range []string{"core", "workersmall", "zygote", "requests", "storage"} {
		if owners[name].Booked == 0 {
			t.Errorf("nothing is booked for %s: %+v", name, report.Memory)
		}
	}
	if _, ok := owners["loadinglarge"]; ok || len(report.Models) != 1 || report.Models[0].State != "live" {
		t.Errorf("%+v", report.Models)
	}
	if code, body := s.get("/metrics"); code != http.StatusOK || !containsAll(body, []string{
		`inferd_memory_limit_bytes{source="configuration"}`, `inferd_memory_booked_bytes{model="small",owner="worker",version="1"}`,
		`inferd_model_parked{model="small",version="1"} 0`,
	}) {
		t.Errorf("%d %s", code, body)
	}

	more := *s.current.Load()
	more.Memory.Limit = config.Bytes(limit + 1<<30)
	s.current.Store(&more)
	s.live("large", 1)
	report = s.admission()
	if report.Limit.Bytes != limit+1<<30 || len(report.Models) != 2 {
		t.Errorf("%+v", report)
	}
	for _, o := range report.Memory {
		if o.Owner == admission.OwnerWorker && o.Model == "large" && (o.Booked < 64<<20 || o.Peak < o.Measured) {
			t.Errorf("%+v", o)
		}
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	if n := s.memory.ledger.Entries(); n != 3 {
		t.Errorf("%d entries are left in the account", n)
	}
}

func (s *server) admission() *admission.Report {
	s.t.Helper()
	code, body := s.get(admissionPath)
	var r admission.Report
	if err := json.Unmarshal([]byte(body), &r); err != nil || code != http.StatusOK {
		s.t.Fatalf("%d %s: %v", code, body, err)
	}
	return &r
}
