// world_test.go: a fake runtime, a bubble of time and a temporary disk, for the tests of the controller.
package updater

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		fmt.Fprintln(os.Stderr, crashChild(dir, os.Getenv(crashStep)))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// In these tests a SavedModel is a folder with saved_model.pb, and whole when it has "data" too. saved_model.pb scripts the load:
// "load CODE", "run CODE" and "die" fail with that, "takes TIME" runs for so long, "slow" waits for the world's gate.

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
	again  func(context.Context) (string, error) // of the last load
	watch  func() (*watcher, error)              // in place of inotify
	tweak  func(c *Controller)                   // before Run
	open   int                                   // runners that have not been closed
	faults []string

	measures map[int64]Measures // what trials are told of each version
	watched  map[int64]bool
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
	if words, ok := strings.CutPrefix(r.script, "takes "); ok {
		d, err := time.ParseDuration(strings.Fields(words)[0])
		if err != nil {
			return nil, err
		}
		time.Sleep(d)
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

func readFake(_ Model, dir string) (*savedmodel.Info, error) {
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
	script = bytes.TrimRight(script, " ") // which makes files of one size
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
		if w.tweak != nil {
			w.tweak(w.c)
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
