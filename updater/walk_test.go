// walk_test.go: a random walk through everything that can happen to a model, and what must hold wherever it leads.
package updater

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// walker is the one who walks, over several lives of inferd. Where it goes is decided by the seed alone.
type walker struct {
	*box
	r    *rand.Rand
	w    *world // of this life
	said []string

	config     Model
	configured bool
	grace      time.Duration
	free       int64
	away       map[string]string // folders that were moved away, and to where
	bases      [2]string
	condemned  map[int64]bool
	events     int       // of the history, that have been read
	emptyFrom  time.Time // since when the base path may hold no version; zero: it holds one

	mu   sync.Mutex
	open map[string]int                                         // runners by folder
	ever int                                                    // loads
	asks map[string]func(context.Context) (dir string, e error) // Candidate.Again by folder
	bad  map[int64]bool                                         // versions that answer badly
}

// TestWalk goes for some steps, and with INFERD_LONG=1 for many.
func TestWalk(t *testing.T) {
	seeds, lives := 12, 4
	if os.Getenv("INFERD_LONG") != "" {
		seeds, lives = 400, 8
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newWalker(t, uint64(seed)).walk(lives) })
	}
}

func newWalker(t *testing.T, seed uint64) *walker {
	k := &walker{box: newBox(t), r: rand.New(rand.NewPCG(seed, 0)), away: make(map[string]string), condemned: make(map[int64]bool)}
	k.bases = [2]string{k.dir, k.dir + "2"}
	k.configured, k.free = true, 1<<40
	k.config = Model{Name: "m", BasePath: k.dir, Probation: minute, KeepLastGood: true}
	k.config.Probation.Time = 20 * time.Second
	for _, dir := range k.bases {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, k.sub("1"), "")
	return k
}

func (k *walker) walk(lives int) {
	defer func() {
		if k.t.Failed() {
			k.t.Log("the way was:\n" + strings.Join(k.said, "\n"))
		}
	}()
	for life := range lives {
		k.fail = nil
		k.log("life %d", life)
		k.run(k.options, func(w *world) {
			k.w = w
			for range 12 + k.r.IntN(12) {
				k.step()
				if k.t.Failed() {
					return
				}
			}
			if life == lives-1 || k.oneIn(3) {
				k.rest()
			}
			if k.oneIn(3) {
				k.log("killed")
				k.fail = func() error { return errors.New("killed") }
				k.step()
			}
		})
		if k.t.Failed() {
			return
		}
	}
}

func (k *walker) oneIn(n int) bool { return k.r.IntN(n) == 0 }

func (k *walker) log(format string, args ...any) {
	k.said = append(k.said, fmt.Sprintf(format, args...))
}

// options are inferd's in the next life.
func (k *walker) options(w *world, o *Options) {
	w.measures, w.watched = make(map[int64]Measures), make(map[int64]bool)
	k.open, k.asks, k.bad, k.ever, k.emptyFrom = make(map[string]int), make(map[string]func(context.Context) (string, error)), make(map[int64]bool), 0, time.Time{}
	o.KeepDir, o.KeepCopyBytes = k.store(), 1<<20
	o.EmptyGrace = k.grace
	o.PollOnly, o.PollInterval = false, 5*time.Second // as it is where folders are watched: fewer looks
	n := newScriptedNotifier()
	w.watch = func() (*watcher, error) { return watcherOf(n, n.events, n.errs), nil }
	w.tweak = func(c *Controller) {
		inner := c.look
		c.look = func(base string) look {
			found := inner(base)
			found.On = ""
			return found
		}
	}
	o.Models = nil
	if k.configured {
		o.Models = []Model{k.config}
	}
	o.Room = func() (int64, string, bool) { return k.free, "the walk says so", true }
	o.Load = func(ctx context.Context, cand Candidate) (inference.Runner, error) {
		k.mu.Lock()
		k.ever++
		k.asks[cand.Dir] = cand.Again
		k.mu.Unlock()
		r, err := w.load(ctx, cand)
		if err != nil {
			return nil, err
		}
		k.opened(cand.Dir, 1)
		return &walkedRunner{r.(*fakeRunner), func() { k.opened(cand.Dir, -1) }}, nil
	}
	o.Serve = func(v *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
		return &measured{&fakeServable{w: w, runner: r}, v.Number}
	}
}

// walkedRunner tells of its end.
type walkedRunner struct {
	*fakeRunner
	closed func()
}

func (r *walkedRunner) Close() error {
	r.closed()
	return r.fakeRunner.Close()
}

func (k *walker) opened(dir string, n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.open[dir] += n
	if k.open[dir] > 1 {
		k.w.fault("two runners of " + dir)
	}
}

func (k *walker) loads() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.ever
}

// numbers are the versions that lie under the base path.
func (k *walker) numbers() (out []int64) {
	entries, _ := os.ReadDir(k.config.BasePath) // it may be away
	for _, e := range entries {
		var n int64
		if _, err := fmt.Sscan(e.Name(), &n); err == nil && itoa(n) == e.Name() {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

func (k *walker) any() int64 {
	all := append(k.numbers(), k.w.model().Live...)
	if len(all) == 0 {
		return 1
	}
	return all[k.r.IntN(len(all))]
}

func (k *walker) version(n int64) string { return filepath.Join(k.config.BasePath, itoa(n)) }

var scripts = []string{"", "", "", "", "takes 300ms", "die", "run INTERNAL", "load UNAVAILABLE"}

// arrive writes a version of the number anew.
func (k *walker) arrive(n int64) {
	script := scripts[k.r.IntN(len(scripts))]
	k.log("version %d comes: %q", n, script)
	delete(k.condemned, n)
	k.behave(n)
	must(k.t, os.RemoveAll(k.version(n)))
	if _, err := os.Stat(k.config.BasePath); err != nil {
		return
	}
	put(k.t, k.version(n), script)
}

// behave decides how the version answers.
func (k *walker) behave(n int64) {
	k.bad[n] = k.oneIn(3)
	m := Measures{Requests: 300, Checked: 300, Memory: 100 << 20}
	if k.bad[n] {
		m.NaN = 100
	}
	k.w.counts(n, m)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// step does one thing and looks at what comes of it.
func (k *walker) step() {
	numbers, w, ctx := k.numbers(), k.w, k.w.t.Context()
	if k.oneIn(2) {
		k.happens(numbers)
	} else {
		n := k.any()
		wish := func(what string, text string, err error) {
			k.log("%s %d: %s %v", what, n, text, err)
		}
		switch k.r.IntN(13) {
		case 0, 1:
			text, err := w.c.Rollback(ctx, "m", "walk")
			wish("rollback", text, err)
		case 2:
			text, err := w.c.Pin(ctx, "m", n, "walk")
			wish("pin", text, err)
		case 3, 4:
			text, err := w.c.Unpin(ctx, "m", "walk")
			wish("unpin", text, err)
		case 5:
			text, err := w.c.Retry(ctx, "m", n, "walk")
			if err == nil {
				delete(k.condemned, n)
			}
			wish("retry", text, err)
		case 6:
			text, err := w.c.Promote(ctx, "m", "walk")
			wish("promote", text, err)
		case 7:
			text, err := w.c.Label(ctx, "m", "stable", n, k.oneIn(2), "walk")
			wish("label", text, err)
		case 8, 9:
			k.reconfigure()
		case 10:
			text, err := w.c.Unload(ctx, "m", "walk")
			wish("unload", text, err)
		case 11, 12:
			short, cancel := context.WithTimeout(ctx, time.Minute)
			text, err := w.c.Load(short, "m", "walk")
			cancel()
			wish("load", text, err)
		}
	}
	w.c.Rescan() // what a watch does
	long := []time.Duration{10 * time.Millisecond, time.Second, 3 * time.Second, 3 * time.Second, 10 * time.Second, 45 * time.Second, 2 * time.Minute}
	k.pass(long[k.r.IntN(len(long))])
}

// happens does something to the disk or to a worker.
func (k *walker) happens(numbers []int64) {
	var n, next int64 = k.any(), 1
	if len(numbers) > 0 {
		next = numbers[len(numbers)-1] + 1
	}
	switch k.r.IntN(14) {
	case 0, 1, 2, 3:
		k.arrive(next)
	case 4:
		k.arrive(1 + k.r.Int64N(next))
	case 5:
		k.log("version %d is removed", n)
		must(k.t, os.RemoveAll(k.version(n)))
	case 6:
		k.log("all versions are removed")
		for _, n := range numbers {
			must(k.t, os.RemoveAll(k.version(n)))
		}
	case 7: // away, or back
		from := k.version(n)
		if k.oneIn(4) {
			from = k.config.BasePath
		}
		to := filepath.Join(filepath.Dir(k.dir), fmt.Sprint("away", len(k.away)))
		if os.Rename(from, to) == nil {
			k.log("%s is moved away", from)
			k.away[from] = to
		}
	case 8, 9:
		for _, from := range sortedKeys(k.away) {
			if _, err := os.Stat(from); err != nil && os.Rename(k.away[from], from) == nil {
				k.log("%s is back", from)
				delete(k.away, from)
			}
		}
	case 10:
		if _, err := os.Stat(k.version(n)); err == nil {
			k.log("version %d is overwritten", n)
			delete(k.condemned, n)
			overwrite(k.t, k.version(n), scripts[k.r.IntN(len(scripts))])
		}
	case 11:
		k.log("version %d changes how it answers", n)
		k.behave(n)
	case 12:
		h, err := k.w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			return
		}
		dir := h.Version().Dir
		h.Release()
		k.mu.Lock()
		again := k.asks[dir]
		k.mu.Unlock()
		got, err := again(k.w.t.Context())
		k.log("the worker of %s ends: %s %v", dir, got, err)
	case 13:
		k.free = int64(k.r.IntN(2)) << 40
		k.log("%d bytes are free", k.free)
	}
}

// reconfigure changes one thing in the configuration.
func (k *walker) reconfigure() {
	c := &k.config
	switch k.r.IntN(10) {
	case 0, 1:
		policies := []Policy{{}, {}, {Latest: 2}, {All: true}, {Specific: []int64{k.any()}}, {Specific: []int64{k.any(), k.any() + 1}}}
		c.Policy = policies[k.r.IntN(len(policies))]
	case 2:
		c.Probation.Time = []time.Duration{0, 20 * time.Second}[k.r.IntN(2)]
	case 3:
		c.Rollout.Steps = [][]float64{nil, {0.1, 0.5}}[k.r.IntN(2)]
	case 4, 5:
		c.Transition = Transition(k.r.IntN(4))
	case 6:
		c.Retain = k.r.IntN(3)
	case 7:
		c.KeepLastGood = !c.KeepLastGood
	case 8:
		c.Labels = map[string]int64{"stable": k.any()}
		if k.oneIn(2) {
			c.BasePath = k.bases[k.r.IntN(2)]
		}
	case 9:
		k.configured = !k.configured
		k.grace = []time.Duration{0, time.Minute}[k.r.IntN(2)]
	}
	if k.oneIn(2) {
		k.configured = true
	}
	k.log("configuration: %v, %v probation, steps %v, transition %d, retain %d, keep %v, %s, there %v, grace %v", c.Policy, c.Probation.Time, c.Rollout.Steps,
		c.Transition, c.Retain, c.KeepLastGood, filepath.Base(c.BasePath), k.configured, k.grace)
	clear(k.condemned) // what was refused under another configuration is tried again
	k.apply(5 * time.Second)
}

func (k *walker) apply(poll time.Duration) {
	s := Settings{EmptyGrace: k.grace, PollInterval: poll}
	if k.configured {
		s.Models = []Model{k.config}
	}
	must(k.t, k.w.c.Apply(k.w.t.Context(), s))
}

// pass lets time pass and looks often.
func (k *walker) pass(d time.Duration) {
	for left := d; left > 0 && !k.t.Failed(); left -= time.Second {
		served := len(k.w.model().Live) > 0
		k.w.pass(min(left, time.Second))
		k.check(served)
	}
	k.read()
}

// check is what holds at any time. served says that a version was live before.
func (k *walker) check(served bool) {
	k.t.Helper()
	m := k.w.model()
	all, _ := k.w.catalog.Status("m")
	var live []int64
	for _, v := range all {
		if v.State == inference.StateAvailable {
			live = append(live, v.Version)
		}
	}
	if !slices.Equal(live, m.Live) {
		k.t.Errorf("the catalog has %v live, the status %v", live, m.Live)
	}
	h, err := k.w.catalog.Acquire(inference.Spec{Model: "m"})
	if (err == nil) != (len(live) > 0) {
		k.t.Errorf("versions %v are live: %v", live, err)
	}
	if err == nil {
		h.Release()
	}
	// A gap: allowed where the model is not configured or was unloaded, its base path was emptied, or the old version is unloaded first.
	switch numbers := k.numbers(); {
	case len(numbers) > 0:
		k.emptyFrom = time.Time{}
	case k.emptyFrom.IsZero():
		k.emptyFrom = time.Now()
	}
	if served && len(live) == 0 && k.configured && !m.Unloaded && k.emptyFrom.IsZero() && k.config.Transition != ResourcePreserving && k.config.Transition != Auto {
		k.t.Errorf("nothing serves any more: %+v", m)
	}
}

// read reads what was written down.
func (k *walker) read() {
	k.t.Helper()
	if k.fail == nil {
		if err := CheckJournal(k.w.c.opts.Journal); err != nil {
			k.t.Errorf("journal: %v", err)
		}
	}
	events := k.w.events()
	for _, e := range events[min(k.events, len(events)):] {
		k.log("    %s", e)
		var n int64
		what := e[:strings.LastIndexByte(e, ' ')]
		if _, err := fmt.Sscan(e[len(what):], &n); err != nil {
			k.t.Error(err)
		}
		switch what {
		case "condemned":
			k.condemned[n] = true
		case "changed", "retry":
			delete(k.condemned, n)
		case "published":
			if k.condemned[n] {
				k.t.Errorf("version %d was condemned and serves again", n)
			}
		}
	}
	k.events = len(events)
}

// rest is what holds when nothing has happened for long enough: nothing goes on happening, and nothing waits for what never comes.
func (k *walker) rest() {
	k.log("nothing happens")
	for range 15 {
		k.pass(time.Minute)
	}
	k.apply(time.Minute)
	k.w.pass(time.Minute)
	k.read()
	loads, events := k.loads(), k.events
	for range 12 {
		k.w.pass(5 * time.Minute)
		k.check(len(k.w.model().Live) > 0)
	}
	k.read()
	if k.loads() != loads || k.events != events {
		k.t.Errorf("at rest: %d loads and %d events", k.loads()-loads, k.events-events)
	}
	m := k.w.model()
	if m.Trial != nil {
		k.t.Errorf("a trial without an end: %+v", m.Trial)
	}
	if m.Unloaded && len(m.Live) > 0 {
		k.t.Errorf("it was unloaded, and versions %v serve", m.Live)
	}
	if !k.configured || len(k.numbers()) == 0 || m.Unloaded {
		return
	}
	for _, v := range m.Versions {
		waits := (v.State == StateSeen || v.State == StateRetired || v.State == StateSettling) && !strings.Contains(v.Reason, "waiting for the rest") && !v.Kept
		if !waits || v.Code == inference.ResourceExhausted || !eligible(k.config.Policy, v.Number) || strings.HasPrefix(m.Intent, "pinned") {
			continue
		}
		if len(m.Live) == 0 || m.Intent == "" && v.Number > m.Live[0] {
			k.t.Errorf("version %d waits for ever: %s; live are %v", v.Number, v.Reason, m.Live)
		}
	}
	if k.t.Failed() {
		k.t.Logf("%+v", m)
	}
}
