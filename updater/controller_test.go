// controller_test.go: the controller over real folders and a fake runtime, with time under synctest and polling in place of watches.
package updater

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"go.uber.org/goleak"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// In these tests a SavedModel is a folder with saved_model.pb, and whole when it has "data" too. saved_model.pb scripts the load:
// "load CODE", "run CODE" and "die" fail with that, "slow" waits for the world's gate.

// world is the fake runtime, and what the tests ask about it.
type world struct {
	t       *testing.T
	dir     string // base path of the model m
	catalog *inference.Catalog
	c       *Controller
	log     *lines

	mu     sync.Mutex
	gate   chan struct{}  // what "slow" waits for
	loads  map[string]int // by folder
	during func(Candidate)
	watch  func() (*watcher, error) // in place of inotify
	open   int                      // runners that have not been closed
	faults []string
}

// lines is a log that can be read.
type lines struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), text)
}

// fakeRunner is a loaded folder.
type fakeRunner struct {
	w      *world
	script string
	once   sync.Once
}

func (r *fakeRunner) Run(_ context.Context, run *inference.Run) (*inference.Result, error) {
	if code, ok := strings.CutPrefix(r.script, "run "); ok {
		return nil, scriptError(code)
	}
	return answer(run), nil
}
func (r *fakeRunner) Slots() int { return 1 }
func (r *fakeRunner) Close() error {
	closed := false
	r.once.Do(func() {
		closed = true
		r.w.mu.Lock()
		r.w.open--
		r.w.mu.Unlock()
	})
	if !closed {
		r.w.fault("a runner was closed twice")
	}
	return nil
}

func scriptError(name string) error {
	for c := inference.OK; c <= inference.Unauthenticated; c++ {
		if c.String() == name {
			return inference.Errorf(c, inference.ReasonRuntime, "scripted")
		}
	}
	return &inference.Error{Code: inference.Unavailable, Msg: "scripted", Err: inference.ErrWorkerDied}
}

// fakeServable counts requests that come after its end.
type fakeServable struct {
	w       *world
	runner  inference.Runner
	mu      sync.RWMutex
	stopped bool
}

func (s *fakeServable) Predict(context.Context, *inference.Request) (*inference.Response, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.stopped {
		s.w.fault("a request came to a closed version")
		return nil, inference.Errorf(inference.Unavailable, inference.ReasonWorker, "closed")
	}
	return inference.NewResponse(nil, nil), nil
}

func (s *fakeServable) Close() error {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	return s.runner.Close()
}

func (w *world) fault(text string) {
	w.mu.Lock()
	w.faults = append(w.faults, text)
	w.mu.Unlock()
}

func (w *world) loadCount(dir string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.loads[filepath.Base(dir)]
}

func readFake(dir string) (*savedmodel.Info, error) {
	for _, name := range []string{"saved_model.pb", "data"} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is missing", name)
		}
	}
	return &savedmodel.Info{Dir: dir, Signatures: signatures(signature(inference.DefaultSignature, true, tensor.Float, -1))}, nil
}

func (w *world) load(ctx context.Context, cand Candidate) (inference.Runner, error) {
	w.mu.Lock()
	w.loads[filepath.Base(cand.Dir)]++
	gate, during := w.gate, w.during
	w.mu.Unlock()
	if during != nil {
		during(cand)
	}
	script, err := os.ReadFile(filepath.Join(cand.Dir, "saved_model.pb"))
	if err != nil {
		return nil, err
	}
	if string(script) == "slow" {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if code, ok := strings.CutPrefix(string(script), "load "); ok {
		return nil, scriptError(code)
	}
	if string(script) == "die" {
		return nil, scriptError("")
	}
	w.mu.Lock()
	w.open++
	w.mu.Unlock()
	return &fakeRunner{w: w, script: string(script)}, nil
}

// put writes a whole version folder.
func put(t *testing.T, dir, script string) {
	t.Helper()
	writeFiles(t, dir, "data")
	if err := os.WriteFile(filepath.Join(dir, "saved_model.pb"), []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
}

// start runs a controller for the model m and whatever change adds, in a bubble; body ends it by returning.
func start(t *testing.T, change func(w *world, o *Options), body func(t *testing.T, w *world)) {
	t.Helper()
	base := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, dir: filepath.Join(base, "m"), catalog: inference.NewCatalog(), loads: make(map[string]int), log: &lines{}}
		w.gate = make(chan struct{})
		o := Options{
			Models: []Model{{Name: "m", BasePath: w.dir}}, PollOnly: true, Read: readFake, Load: w.load,
			Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
				return &fakeServable{w: w, runner: r}
			},
			Log: slog.New(slog.NewTextHandler(w.log, nil)),
		}
		if err := os.MkdirAll(w.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(w, &o)
		}
		var err error
		if w.c, err = New(w.catalog, o); err != nil {
			t.Fatal(err)
		}
		if w.watch != nil {
			w.c.watch = w.watch
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err := w.c.Run(ctx); err != nil {
				t.Error(err)
			}
		}()
		defer func() {
			cancel()
			<-ended
			w.mu.Lock()
			defer w.mu.Unlock()
			if w.open != 0 {
				t.Errorf("%d runners are left open", w.open)
			}
			for _, f := range w.faults {
				t.Error(f)
			}
			if t.Failed() {
				t.Log(w.log.buf.String())
			}
		}()
		body(t, w)
	})
}

// pass lets time pass and everything that is due happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// model is the status of m.
func (w *world) model() ModelStatus {
	m, _ := w.c.Status().Model("m")
	return m
}

func (w *world) wantLive(numbers ...int64) {
	w.t.Helper()
	if got := w.model().Live; !slices.Equal(got, numbers) {
		w.t.Fatalf("live: %v, want %v; %+v", got, numbers, w.model())
	}
	h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
	if len(numbers) == 0 {
		if err == nil {
			w.t.Fatalf("version %d answers, want none", h.Version().Number)
		}
		return
	}
	if err != nil {
		w.t.Fatal(err)
	}
	defer h.Release()
	if h.Version().Number != numbers[0] {
		w.t.Fatalf("version %d answers, want %d", h.Version().Number, numbers[0])
	}
}

// wantPublic compares the catalog's states: "2 AVAILABLE, 1 END".
func (w *world) wantPublic(want string) []inference.VersionStatus {
	w.t.Helper()
	all, _ := w.catalog.Status("m")
	var parts []string
	for _, v := range all {
		text := fmt.Sprintf("%d %v", v.Version, v.State)
		if v.Code != inference.OK {
			text += " " + v.Code.String()
		}
		parts = append(parts, text)
	}
	if got := strings.Join(parts, ", "); got != want {
		w.t.Fatalf("public: %s, want %s", got, want)
	}
	return all
}

func (w *world) sub(n int) string { return filepath.Join(w.dir, fmt.Sprint(n)) }

func TestServeSwapRollback(t *testing.T) {
	start(t, nil, func(t *testing.T, w *world) {
		w.pass(time.Second)
		if m := w.model(); !w.c.Status().Scanned || !m.Verdict || !strings.Contains(m.Problem, "no version under") {
			t.Fatalf("with an empty base path: %+v", m)
		}
		put(t, w.sub(1), "")
		w.pass(2 * time.Second) // not yet settled: the poll that saw it first came after it
		w.wantLive()
		w.pass(3 * time.Second)
		w.wantLive(1)
		w.wantPublic("1 AVAILABLE")

		put(t, w.sub(2), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
		w.wantPublic("2 AVAILABLE, 1 END")
		if v, _ := w.model().Version(2); v.State != StateLive || v.Proof.Signatures[inference.DefaultSignature].Largest != 64 || v.Attempts != 1 {
			t.Fatalf("version 2: %+v", v)
		}
		if m := w.model(); m.Problem != "" {
			t.Fatalf("problem: %s", m.Problem)
		}

		if err := os.RemoveAll(w.sub(2)); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Second)
		w.wantLive(1)
		w.wantPublic("2 END, 1 AVAILABLE")

		if err := os.RemoveAll(w.sub(1)); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Second)
		w.wantLive()
		w.wantPublic("2 END, 1 END")

		put(t, w.sub(1), "") // back again
		w.pass(5 * time.Second)
		w.wantLive(1)
		w.wantPublic("2 END, 1 AVAILABLE")
		if n := w.loadCount("1"); n != 3 {
			t.Fatalf("version 1 was loaded %d times", n)
		}
	})
}

// TestRollbackHasNoGap: the next lower version is live before the removed one is retired, however long its load takes.
func TestRollbackHasNoGap(t *testing.T) {
	start(t, func(w *world, _ *Options) {
		put(t, w.sub(1), "slow")
		put(t, w.sub(2), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(2)
		if err := os.RemoveAll(w.sub(2)); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(2)
		if v, _ := w.model().Version(1); v.State != StateLoading {
			t.Fatalf("version 1: %+v", v)
		}
		w.wantPublic("2 AVAILABLE, 1 LOADING")
		close(w.gate)
		w.pass(time.Second)
		w.wantLive(1)
		w.wantPublic("2 END, 1 AVAILABLE")
	})
}

// TestSlowCopy: files come one after the other with pauses longer than the settle time; nothing torn is ever loaded.
func TestSlowCopy(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		writeFiles(t, w.dir, "2/")
		for _, file := range []string{"assets/words.txt", "saved_model.pb", "variables/variables.index"} {
			w.pass(5 * time.Second)
			w.wantLive(1)
			if v, _ := w.model().Version(2); v.State != StateSettling || !strings.Contains(v.Reason, "is missing") {
				t.Fatalf("before %s: %+v", file, v)
			}
			w.wantPublic("2 START, 1 AVAILABLE")
			writeFiles(t, w.sub(2), file)
		}
		// The last file grows for a while.
		for i := range 20 {
			if err := os.WriteFile(filepath.Join(w.sub(2), "data"), make([]byte, i), 0o644); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Second)
			if w.loadCount("2") != 0 {
				t.Fatalf("loaded while its file was growing, at %d bytes", i)
			}
		}
		w.pass(3 * time.Second)
		w.wantLive(2)
	})
}

// TestIncomplete: a folder that stays incomplete is refused after the stall time, with the reason, and tried when its files change.
func TestIncomplete(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		writeFiles(t, w.dir, "2/", "3/saved_model.pb")
		w.pass(5 * time.Second)
		w.wantPublic("3 START, 2 START, 1 AVAILABLE")
		w.pass(10 * time.Second)
		all := w.wantPublic("3 END FAILED_PRECONDITION, 2 END FAILED_PRECONDITION, 1 AVAILABLE")
		for i, missing := range []string{"data", "saved_model.pb"} {
			if m := all[i].Message; !strings.Contains(m, missing+" is missing") || !strings.Contains(m, "still serving version 1") || !strings.Contains(m, w.sub(3-i)) {
				t.Errorf("version %d: %s", all[i].Version, m)
			}
		}
		w.pass(time.Hour)
		if n := w.log.count("version refused"); n != 2 {
			t.Fatalf("%d lines about refusals", n)
		}
		writeFiles(t, w.sub(3), "data")
		w.pass(5 * time.Second)
		w.wantLive(3)
		w.wantPublic("3 AVAILABLE, 2 END FAILED_PRECONDITION, 1 END")
	})
}

// TestRename: a folder that came by one rename is taken at the next look.
func TestRename(t *testing.T) {
	start(t, func(w *world, o *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		tmp := filepath.Join(w.dir, ".2.tmp")
		put(t, tmp, "")
		tick(t, tmp)
		if err := os.Rename(tmp, w.sub(2)); err != nil {
			t.Fatal(err)
		}
		if !mustPrint(t, w.sub(2)).Renamed {
			t.Skip("this file system does not mark a rename")
		}
		w.pass(time.Second + 100*time.Millisecond) // one poll
		w.wantLive(2)
	})
}

// TestRefusals: whatever is wrong with a new version, the old one serves on and the reason is on record.
func TestRefusals(t *testing.T) {
	for script, want := range map[string]string{
		"load INTERNAL": "INTERNAL", "load NOT_FOUND": "NOT_FOUND", "die": "UNAVAILABLE", "run INTERNAL": "INTERNAL",
		"run FAILED_PRECONDITION": "FAILED_PRECONDITION", "run UNAVAILABLE": "UNAVAILABLE",
	} {
		t.Run(script, func(t *testing.T) {
			start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
				w.pass(4 * time.Second)
				put(t, w.sub(2), script)
				w.pass(10 * time.Minute)
				w.wantLive(1)
				all := w.wantPublic("2 END " + want + ", 1 AVAILABLE")
				if !strings.Contains(all[0].Message, "scripted") || !strings.Contains(all[0].Message, "still serving version 1") {
					t.Errorf("message: %s", all[0].Message)
				}
				if n := w.loadCount("2"); n != 1 {
					t.Errorf("loaded %d times", n)
				}
				if v, _ := w.model().Version(2); v.State != StateQuarantined || v.Code.String() != want || v.Reason != all[0].Message {
					t.Errorf("status: %+v", v)
				}
				put(t, w.sub(2), "") // put right in place
				w.pass(5 * time.Second)
				w.wantLive(2)
			})
		})
	}
}

// TestUnproven: a version whose made-up input is no good is published with a warning.
func TestUnproven(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "run INVALID_ARGUMENT") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		all := w.wantPublic("1 AVAILABLE")
		if !strings.Contains(all[0].Message, "not proven by a made-up run") || w.log.count("version is live without proof") != 1 {
			t.Fatalf("message: %s", all[0].Message)
		}
	})
}

// TestStartWithABadNewest: the start serves the next one that works.
func TestStartWithABadNewest(t *testing.T) {
	start(t, func(w *world, _ *Options) {
		put(t, w.sub(1), "")
		put(t, w.sub(2), "")
		put(t, w.sub(3), "load INTERNAL")
		writeFiles(t, w.dir, "4/saved_model.pb")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(2)
		if w.loadCount("1") != 0 {
			t.Fatal("version 1 was loaded for nothing")
		}
		if v, _ := w.model().Version(1); v.State != StateSeen || !strings.Contains(v.Reason, "latest 1") {
			t.Fatalf("version 1: %+v", v)
		}
		w.pass(time.Minute)
		w.wantPublic("4 END FAILED_PRECONDITION, 3 END INTERNAL, 2 AVAILABLE")
	})
}

// TestTransient: what time may cure is retried with growing pauses, a bounded number of times.
func TestTransient(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Retries = 3
		put(t, w.sub(1), "load UNAVAILABLE")
	}, func(t *testing.T, w *world) {
		w.pass(2500 * time.Millisecond) // settles at 2 s, is retried after 1, 2 and 4 s
		if n := w.loadCount("1"); n != 1 || w.model().Verdict {
			t.Fatalf("%d loads; verdict %v", n, w.model().Verdict)
		}
		w.wantPublic("1 LOADING")
		if v, _ := w.model().Version(1); !strings.Contains(v.Reason, "load 1 of at most 4 failed: UNAVAILABLE: scripted; tried again in 1s") {
			t.Fatalf("reason: %s", v.Reason)
		}
		for i, d := range []time.Duration{1, 2, 4} {
			w.pass(d * time.Second)
			if n := w.loadCount("1"); n != i+2 {
				t.Fatalf("after %v: %d loads, want %d", d*time.Second, n, i+2)
			}
		}
		w.pass(time.Hour)
		w.wantPublic("1 END UNAVAILABLE")
		if n := w.loadCount("1"); n != 4 || !w.model().Verdict {
			t.Fatalf("%d loads; verdict %v", n, w.model().Verdict)
		}
		put(t, w.sub(1), "")
		w.pass(4 * time.Second)
		w.wantLive(1)
	})
}

// TestTransientCured: a retry that works publishes.
func TestTransientCured(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		load := o.Load
		o.Load = func(ctx context.Context, c Candidate) (inference.Runner, error) {
			if c.Attempt < 3 {
				w.loadCount("")
				return nil, scriptError("RESOURCE_EXHAUSTED")
			}
			return load(ctx, c)
		}
	}, func(t *testing.T, w *world) {
		w.pass(6 * time.Second)
		w.wantLive(1)
		if v, _ := w.model().Version(1); v.Attempts != 3 {
			t.Fatalf("%+v", v)
		}
	})
}

// TestTornDuringLoad: files that change during the load are never served, though the load went well.
func TestTornDuringLoad(t *testing.T) {
	start(t, func(w *world, _ *Options) {
		put(t, w.sub(1), "")
		var once sync.Once
		w.during = func(c Candidate) { once.Do(func() { writeFiles(t, c.Dir, "late") }) }
	}, func(t *testing.T, w *world) {
		w.pass(3 * time.Second)
		w.wantLive()
		w.wantPublic("1 START")
		w.pass(2 * time.Second)
		w.wantLive(1)
		if n := w.loadCount("1"); n != 2 {
			t.Fatalf("%d loads", n)
		}
	})
}

// TestRemovedDuringLoad: the load is cancelled, and its outcome is not served.
func TestRemovedDuringLoad(t *testing.T) {
	start(t, func(w *world, _ *Options) {
		put(t, w.sub(1), "")
		put(t, w.sub(2), "slow")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantPublic("2 LOADING")
		if err := os.RemoveAll(w.sub(2)); err != nil {
			t.Fatal(err)
		}
		w.pass(4 * time.Second)
		w.wantLive(1)
		w.wantPublic("1 AVAILABLE")
	})
}

// TestChangedInPlace: it is reported once and not read again.
func TestChangedInPlace(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		for range 3 {
			put(t, w.sub(1), "load INTERNAL")
			w.pass(time.Minute)
		}
		w.wantLive(1)
		v, _ := w.model().Version(1)
		if !v.Changed || !strings.Contains(v.Reason, "changed after it was loaded") || w.log.count("version changed on disk") != 1 || w.loadCount("1") != 1 {
			t.Fatalf("%+v, %d lines, %d loads", v, w.log.count("version changed on disk"), w.loadCount("1"))
		}
	})
}

func TestPolicies(t *testing.T) {
	for _, test := range []struct {
		policy Policy
		want   []int64
		then   []int64 // after version 3 was removed
	}{
		{Policy{Latest: 2}, []int64{3, 2}, []int64{2, 1}},
		{Policy{All: true}, []int64{3, 2, 1}, []int64{2, 1}},
		{Policy{Specific: []int64{1, 3}}, []int64{3, 1}, []int64{1}},
	} {
		t.Run(test.policy.String(), func(t *testing.T) {
			start(t, func(w *world, o *Options) {
				o.Models[0].Policy = test.policy
				for n := range 3 {
					put(t, w.sub(n+1), "")
				}
			}, func(t *testing.T, w *world) {
				w.pass(5 * time.Second)
				w.wantLive(test.want...)
				if err := os.RemoveAll(w.sub(3)); err != nil {
					t.Fatal(err)
				}
				w.pass(5 * time.Second)
				w.wantLive(test.then...)
			})
		})
	}
}

func TestLabels(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Models[0].Labels = map[string]int64{"stable": 1, "canary": 2}
		o.Models[0].Policy = Policy{All: true}
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		label := func(name string, want int64, known bool) {
			t.Helper()
			if n, ok := w.catalog.Label("m", name); n != want || ok != known {
				t.Fatalf("%s: %d %v", name, n, ok)
			}
		}
		label("stable", 1, true)
		label("canary", 0, false)
		if m := w.model(); !slices.Equal(m.Held, []string{"canary"}) || w.log.count("labels are held back") != 1 {
			t.Fatalf("held: %v", m.Held)
		}
		put(t, w.sub(2), "")
		w.pass(4 * time.Second)
		label("canary", 2, true)
		if m := w.model(); len(m.Held) != 0 {
			t.Fatalf("held: %v", m.Held)
		}
		if err := os.RemoveAll(w.sub(2)); err != nil {
			t.Fatal(err)
		}
		w.pass(4 * time.Second)
		label("canary", 0, false)
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: w.dir, Labels: map[string]int64{"new": 1}}}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		label("new", 1, true)
		label("stable", 0, false)
	})
}

func TestAssert(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		o.Models[0].Assert = map[string]*pb.SignatureDef{"serving_default": {}}
		o.Assert = func(info *savedmodel.Info, want map[string]*pb.SignatureDef) error {
			if len(want) != 1 || info.Dir != w.sub(1) {
				t.Errorf("asked about %v %v", info.Dir, want)
			}
			return errors.New("input x is int, configured float")
		}
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive()
		all := w.wantPublic("1 END FAILED_PRECONDITION")
		if !strings.Contains(all[0].Message, "input x is int, configured float; no version of it is served") || w.loadCount("1") != 0 {
			t.Fatalf("message: %s", all[0].Message)
		}
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: w.dir}}); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Second)
		w.wantLive(1)
	})
}

func TestReconfigure(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		put(t, filepath.Join(filepath.Dir(w.dir), "elsewhere", "1"), "")
		put(t, filepath.Join(filepath.Dir(w.dir), "n", "4"), "")
		o.ForgetAfter = time.Minute
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		for _, bad := range [][]Model{{{BasePath: "/x"}}, {{Name: "a"}}, {{Name: "a", BasePath: "/x"}, {Name: "a", BasePath: "/y"}}} {
			if err := w.c.Reconfigure(bad); err == nil {
				t.Fatalf("%+v is taken", bad)
			}
		}
		// The base path moves under the number that serves, and another model comes.
		held, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		parent := filepath.Dir(w.dir)
		if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: filepath.Join(parent, "elsewhere")}, {Name: "n", BasePath: filepath.Join(parent, "n")}}); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		w.wantLive(1)
		w.wantPublic("1 AVAILABLE")
		if v, _ := w.model().Version(1); v.Dir != filepath.Join(parent, "elsewhere", "1") {
			t.Fatalf("serves %s", v.Dir)
		}
		if n := len(w.model().Versions); n != 2 { // the old one drains
			t.Fatalf("%d versions", n)
		}
		held.Release()
		w.pass(time.Second)
		w.wantPublic("1 AVAILABLE")
		if n := len(w.model().Versions); n != 1 || !w.catalog.Available("n") {
			t.Fatalf("%d versions", n)
		}
		// m goes: it ends, is remembered, and then forgotten.
		if err := w.c.Reconfigure([]Model{{Name: "n", BasePath: filepath.Join(parent, "n")}}); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		w.wantLive()
		w.wantPublic("1 END")
		if !w.model().Removed {
			t.Fatal("not marked as removed")
		}
		w.pass(time.Minute)
		if _, known := w.catalog.Status("m"); known {
			t.Fatal("not forgotten")
		}
		if _, ok := w.c.Status().Model("m"); ok {
			t.Fatal("still in the status")
		}
	})
}

// TestRemovedAndBack: a model that returns before it is forgotten is served again.
func TestRemovedAndBack(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		again := []Model{{Name: "m", BasePath: w.dir}}
		for range 2 {
			if err := w.c.Reconfigure(nil); err != nil {
				t.Fatal(err)
			}
			w.pass(time.Second)
			w.wantLive()
			if err := w.c.Reconfigure(again); err != nil {
				t.Fatal(err)
			}
			w.pass(4 * time.Second)
			w.wantLive(1)
		}
		w.pass(time.Hour)
		w.wantLive(1)
	})
}

func TestBasePath(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Diagnose = func(dir string) string {
			if filepath.Base(dir) == "m" {
				return "that is a Keras file"
			}
			return ""
		}
		if err := os.Remove(w.dir); err != nil {
			t.Fatal(err)
		}
	}, func(t *testing.T, w *world) {
		w.pass(time.Second)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist") || !m.Verdict {
			t.Fatalf("%+v", m)
		}
		writeFiles(t, w.dir, "model.keras")
		w.pass(time.Minute)
		if m := w.model(); m.Problem != "that is a Keras file" || w.log.count("that is a Keras file") != 1 {
			t.Fatalf("%+v, said %d times", m, w.log.count("that is a Keras file"))
		}
		put(t, w.sub(1), "")
		put(t, filepath.Join(w.dir, "001"), "")
		w.pass(4 * time.Second)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "001 and 1 both mean version 1") || !strings.HasSuffix(m.Versions[0].Dir, "001") {
			t.Fatalf("%+v", m)
		}
		// It vanishes, as a mount does: what serves goes on.
		if err := os.Rename(w.dir, w.dir+".away"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(1)
		if m := w.model(); !strings.Contains(m.Problem, "does not exist") {
			t.Fatalf("%+v", m)
		}
		if err := os.Rename(w.dir+".away", w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.wantLive(1)
		if n := w.loadCount("001"); n != 1 {
			t.Fatalf("loaded %d times", n)
		}
	})
}

func TestEmptyGrace(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.EmptyGrace = time.Minute
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		if err := os.Rename(w.sub(1), w.dir+"1"); err != nil {
			t.Fatal(err)
		}
		w.pass(50 * time.Second)
		w.wantLive(1)
		if err := os.Rename(w.dir+"1", w.sub(1)); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.wantLive(1)
		if err := os.RemoveAll(w.sub(1)); err != nil {
			t.Fatal(err)
		}
		w.pass(50 * time.Second)
		w.wantLive(1)
		w.pass(15 * time.Second)
		w.wantLive()
	})
}

func TestModelsDir(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.ModelsDir = filepath.Dir(w.dir)
		o.ForgetAfter = time.Minute
		o.Models = []Model{{Name: "named", BasePath: filepath.Join(o.ModelsDir, "other"), Optional: true}}
		o.Discovered = func(m *Model) { m.StrictShapes = m.Name == "m" }
		put(t, w.sub(1), "")
		put(t, filepath.Join(o.ModelsDir, "other", "3"), "")
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		w.wantLive(1)
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil || !h.Version().StrictShapes {
			t.Fatalf("settings of a found model: %v", err)
		}
		h.Release()
		if got := w.catalog.Models(); !slices.Equal(got, []string{"m", "named"}) {
			t.Fatalf("models: %v", got) // the folder of a configured model is not a model twice
		}
		if m := w.model(); m.Configured || !w.c.Status().Scanned {
			t.Fatalf("%+v", m)
		}
		put(t, filepath.Join(filepath.Dir(w.dir), "new", "00000007"), "")
		w.pass(5 * time.Second)
		if m, ok := w.c.Status().Model("new"); !ok || !slices.Equal(m.Live, []int64{7}) {
			t.Fatalf("new model: %+v", m)
		}
		if err := os.RemoveAll(w.dir); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Second)
		w.wantLive()
		if !w.model().Removed {
			t.Fatal("not marked as removed")
		}
		w.pass(2 * time.Minute)
		if got := w.catalog.Models(); !slices.Equal(got, []string{"named", "new"}) {
			t.Fatalf("models: %v", got)
		}
	})
}

// TestSlowLoads: workers that hang stop nobody else, at any number of them.
func TestSlowLoads(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		for i := range 12 { // more than there are loaders
			name := fmt.Sprintf("slow%d", i)
			base := filepath.Join(filepath.Dir(w.dir), name)
			put(t, filepath.Join(base, "2"), "slow")
			o.Models = append([]Model{{Name: name, BasePath: base}}, o.Models...)
		}
	}, func(t *testing.T, w *world) {
		w.pass(20 * time.Second)
		if n := w.loadCount("2"); n != 2 {
			t.Fatalf("%d loads at once, want 2", n)
		}
		w.pass(5 * time.Minute)
		w.wantLive(1)
		close(w.gate)
		w.pass(time.Minute)
		for i := range 12 {
			if !w.catalog.Available(fmt.Sprintf("slow%d", i)) {
				t.Errorf("slow%d is not live", i)
			}
		}
	})
}

// TestHungPaths: looks that never return cost the others at most the patience for them.
func TestHungPaths(t *testing.T) {
	start(t, func(w *world, o *Options) {
		put(t, w.sub(1), "")
		read := o.Read
		o.Read = func(dir string) (*savedmodel.Info, error) {
			if !strings.HasPrefix(dir, w.dir) {
				<-w.gate
			}
			return read(dir)
		}
		for i := range 30 {
			base := filepath.Join(filepath.Dir(w.dir), fmt.Sprintf("hung%d", i))
			put(t, filepath.Join(base, "1"), "")
			o.Models = append([]Model{{Name: fmt.Sprintf("hung%d", i), BasePath: base}}, o.Models...)
		}
	}, func(t *testing.T, w *world) {
		w.pass(10 * time.Second)
		w.wantLive(1)
		put(t, w.sub(2), "")
		w.pass(5 * time.Second)
		w.wantLive(2)
		close(w.gate)
		w.pass(5 * time.Second)
		for i := range 30 {
			if !w.catalog.Available(fmt.Sprintf("hung%d", i)) {
				t.Errorf("hung%d is not live after its path came back", i)
			}
		}
	})
}

// TestStop: held handles are waited for until the drain timeout, loads are cancelled, and every worker ends.
func TestStop(t *testing.T) {
	base := t.TempDir()
	put(t, filepath.Join(base, "m", "1"), "")
	put(t, filepath.Join(base, "n", "1"), "slow")
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, catalog: inference.NewCatalog(), loads: make(map[string]int), gate: make(chan struct{})}
		c, err := New(w.catalog, Options{
			ModelsDir: base, PollOnly: true, Read: readFake, Load: w.load, DrainTimeout: 7 * time.Second,
			Serve: func(_ *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
				return &fakeServable{w: w, runner: r}
			}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var took time.Duration
		ended := make(chan struct{})
		go func() {
			c.Run(ctx)
			close(ended)
		}()
		if _, err := c.Wait(t.Context(), func(s Status) bool {
			m, _ := s.Model("m")
			n, _ := s.Model("n")
			return len(m.Live) == 1 && len(n.Versions) == 1 && n.Versions[0].State == StateLoading
		}); err != nil {
			t.Fatal(err)
		}
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		cancel()
		<-ended
		if took = time.Since(begun); took != 7*time.Second {
			t.Errorf("stopped after %v", took)
		}
		h.Release()
		if w.open != 0 {
			t.Errorf("%d runners are open", w.open)
		}
		if m, _ := c.Status().Model("m"); len(m.Live) != 0 {
			t.Errorf("status after the end: %+v", m)
		}
		c.Rescan() // nobody is there, and nobody waits
		if err := c.Reconfigure(nil); err != nil {
			t.Error(err)
		}
	})
}

// TestDrain: a retired version's worker lives until its last handle is released.
func TestDrain(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			t.Fatal(err)
		}
		put(t, w.sub(2), "")
		w.pass(time.Minute)
		w.wantLive(2)
		w.wantPublic("2 AVAILABLE, 1 UNLOADING")
		if _, err := h.Servable().Predict(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		h.Release()
		w.pass(time.Second)
		w.wantPublic("2 AVAILABLE, 1 END")
	})
}

// TestEndsAreBounded: versions that come and go for ever do not fill the memory.
func TestEndsAreBounded(t *testing.T) {
	start(t, nil, func(t *testing.T, w *world) {
		for n := range keptEnds + 10 {
			put(t, w.sub(n+1), "")
			w.pass(4 * time.Second)
			w.wantLive(int64(n + 1))
			if err := os.RemoveAll(w.sub(n)); err != nil {
				t.Fatal(err)
			}
			w.pass(2 * time.Second)
		}
		all, _ := w.catalog.Status("m")
		if len(all) != keptEnds+1 || len(w.model().Versions) != 1 {
			t.Fatalf("%d public states, %d versions", len(all), len(w.model().Versions))
		}
	})
}

// TestSwapUnderLoad: 20 swaps while requests run; none fails, none goes to a closed version, and every old worker ends.
func TestSwapUnderLoad(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		stop := make(chan struct{})
		var group sync.WaitGroup
		seen := make([]map[int64]bool, 4)
		for i := range seen {
			seen[i] = make(map[int64]bool)
			group.Go(func() {
				for last := int64(0); ; {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
					}
					h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
					if err != nil {
						w.fault(err.Error())
						continue
					}
					n := h.Version().Number
					if n < last {
						w.fault(fmt.Sprintf("version %d answered after %d", n, last))
					}
					last, seen[i][n] = n, true
					time.Sleep(5 * time.Millisecond)
					if _, err := h.Servable().Predict(t.Context(), nil); err != nil {
						w.fault(err.Error())
					}
					h.Release()
				}
			})
		}
		for n := 2; n <= 21; n++ {
			put(t, w.sub(n), "")
			w.pass(4 * time.Second)
			w.wantLive(int64(n))
			w.mu.Lock()
			open := w.open
			w.mu.Unlock()
			if open != 1 {
				t.Errorf("%d workers after the swap to %d", open, n)
			}
		}
		close(stop)
		group.Wait()
		for i, s := range seen {
			if len(s) != 21 {
				t.Errorf("caller %d saw versions %v", i, slices.Sorted(maps.Keys(s)))
			}
		}
	})
}

func TestOptions(t *testing.T) {
	full := Options{Read: readFake, Load: (&world{}).load, Serve: func(*inference.Version, inference.Runner, Candidate, Proof) inference.Servable { return nil }}
	if _, err := New(inference.NewCatalog(), full); err != nil {
		t.Fatal(err)
	}
	if _, err := New(inference.NewCatalog(), Options{}); err == nil {
		t.Fatal("functions are missing and nothing is said")
	}
	full.Models = []Model{{Name: "", BasePath: "/x"}, {Name: "a", BasePath: ""}}
	_, err := New(inference.NewCatalog(), full)
	if err == nil || !strings.Contains(err.Error(), "model 1 has no name") || !strings.Contains(err.Error(), "model a has no base path") {
		t.Fatalf("not every fault is told: %v", err)
	}
}

// TestLoadThatOutranItsCancelling: a load that was done just before it was cancelled is not published, and its worker ends.
func TestLoadThatOutranItsCancelling(t *testing.T) {
	w := &world{t: t, catalog: inference.NewCatalog(), loads: make(map[string]int), open: 1}
	c, err := New(w.catalog, Options{Read: readFake, Load: w.load,
		Serve: func(*inference.Version, inference.Runner, Candidate, Proof) inference.Servable { return nil }})
	if err != nil {
		t.Fatal(err)
	}
	l := newLoop(c)
	m := l.add(Model{Name: "m", BasePath: t.TempDir()})
	v := &version{number: 1, dir: "1", state: StateWarming, present: true}
	m.versions["1"] = v
	l.loaded(m, v, Candidate{}, "", outcome{runner: &fakeRunner{w: w}}, true)
	if l.jobs != 1 {
		t.Fatalf("%d jobs: the worker's end is not waited for", l.jobs)
	}
	(<-l.events)()
	if w.open != 0 || l.jobs != 0 || w.catalog.Available("m") || v.state != StateSeen {
		t.Fatalf("open %d, jobs %d, state %v", w.open, l.jobs, v.state)
	}
	// tend began a look; let it end.
	close(l.gone)
}

// TestRemovedModelCancelsItsLoad: a model that is no longer configured does not go on loading, begun or queued, and is forgotten.
func TestRemovedModelCancelsItsLoad(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Loaders = 1
		o.ForgetAfter = time.Minute
		put(t, w.sub(1), "slow")
		other := filepath.Join(filepath.Dir(w.dir), "n")
		put(t, filepath.Join(other, "1"), "slow")
		o.Models = append(o.Models, Model{Name: "n", BasePath: other})
	}, func(t *testing.T, w *world) {
		w.pass(4 * time.Second)
		if n := w.loadCount("1"); n != 1 {
			t.Fatalf("%d loads begun, want 1: the other is queued", n)
		}
		if err := w.c.Reconfigure(nil); err != nil {
			t.Fatal(err)
		}
		w.pass(2 * time.Minute)
		if s := w.c.Status(); len(s.Models) != 0 || len(w.catalog.Models()) != 0 || w.loadCount("1") != 1 {
			t.Fatalf("%+v, %d loads", s.Models, w.loadCount("1"))
		}
	})
}
