// trial_test.go: trials from their beginning to each of their ends, with scripted measures.
package updater

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// measured is a servable whose measures the test writes.
type measured struct {
	*fakeServable
	number int64
}

func (s *measured) Measure() Measures {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	return s.w.measures[s.number]
}

func (s *measured) Watch(on bool) {
	s.w.mu.Lock()
	defer s.w.mu.Unlock()
	s.w.watched[s.number] = on
}

// counts are what version n is measured to have done from now on.
func (w *world) counts(n int64, m Measures) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.measures[n] = m
}

func (w *world) isWatched(n int64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.watched[n]
}

var minute = Probation{Time: time.Minute, Requests: 1000, Errors: 0.01, NaN: 0.01, Latency: 1.5, Memory: 32 << 20, Deaths: 1}

// probing makes servables that can be measured, and puts new versions on probation.
func probing(steps ...float64) func(w *world, o *Options) {
	return func(w *world, o *Options) {
		w.measures, w.watched = make(map[int64]Measures), make(map[int64]bool)
		o.Models[0].Probation, o.Models[0].Rollout.Steps = minute, steps
		o.Serve = func(v *inference.Version, r inference.Runner, _ Candidate, _ Proof) inference.Servable {
			return &measured{&fakeServable{w: w, runner: r}, v.Number}
		}
	}
}

// answering counts which versions answer n requests that name none.
func (w *world) answering(n int) map[int64]int {
	w.t.Helper()
	got := make(map[int64]int)
	for range n {
		h, err := w.catalog.Acquire(inference.Spec{Model: "m"})
		if err != nil {
			w.t.Fatal(err)
		}
		got[h.Version().Number]++
		h.Release()
	}
	return got
}

func (w *world) wantAnswers(n int64) {
	w.t.Helper()
	if got := w.answering(20); got[n] != 20 {
		w.t.Fatalf("versions %v answer, want version %d alone", got, n)
	}
}

// why is the reason of the newest event of that kind.
func (w *world) why(what string) string {
	w.t.Helper()
	all, err := w.c.History("m", 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range all {
		if e.What == what {
			return e.Reason
		}
	}
	w.t.Fatalf("no event %q in %v", what, w.events())
	return ""
}

// on has version 1 live and version 2 on probation against it.
func (w *world) on(dir func(string) string) {
	w.t.Helper()
	put(w.t, dir("1"), "")
	w.pass(5 * time.Second)
	w.counts(1, Measures{Requests: 2000, Checked: 2000, Memory: 100 << 20})
	put(w.t, dir("2"), "")
	w.pass(4 * time.Second)
	if m := w.model(); m.Trial == nil || m.Trial.Version != 2 || m.Trial.Against != 1 || !m.Trial.Beside {
		w.t.Fatalf("no trial: %+v", m)
	}
}

func TestProbationPasses(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		w.wantLive(2, 1) // the old one stays loaded
		w.wantAnswers(2)
		if !w.isWatched(2) || w.isWatched(1) {
			t.Fatal("the new one is watched, and it alone")
		}
		w.counts(2, Measures{Requests: 300, Checked: 300})
		w.pass(30 * time.Second)
		if m := w.model(); m.Trial == nil || m.Trial.New.Requests != 300 || m.Trial.Old.Requests != 2000 {
			t.Fatalf("%+v", m.Trial)
		}
		w.wantLive(2, 1)
		w.pass(30 * time.Second)
		w.wantLive(2)
		if got := w.why("passed probation"); !strings.Contains(got, "300 requests, 0 failed, NaN in 0 of 300") || !strings.Contains(got, "version 1: 2000 requests") {
			t.Fatal(got)
		}
		if w.isWatched(2) || w.model().Trial != nil || w.loadCount("1") != 1 {
			t.Fatal("the trial is not over")
		}
	})
}

func TestProbationPassesByRequests(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		w.counts(2, Measures{Requests: 1000, Checked: 1000})
		w.pass(6 * time.Second)
		w.wantLive(2)
	})
}

// A version that is worse gives way to the old one without a load, stays refused over a restart, and retry tries it again.
func TestProbationGoesBack(t *testing.T) {
	for name, test := range map[string]struct {
		now  Measures
		text string
	}{
		"NaN":    {Measures{Requests: 50, Checked: 50, NaN: 12}, "12 of 50 answers had NaN or infinity, version 1 had 0 of 2000; gone back to version 1"},
		"errors": {Measures{Requests: 50, Failed: 30}, "30 of 50 requests failed, version 1 failed 0 of 2000"},
		"deaths": {Measures{Requests: 50, Failed: 1, Deaths: 1, LastDeath: "killed by SIGSEGV"}, "its worker died once, last: killed by SIGSEGV"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.run(probing(), func(w *world) {
				w.on(b.sub)
				w.counts(2, test.now)
				w.pass(2 * time.Second)
				w.wantLive(1)
				w.wantAnswers(1)
				if w.loadCount("1") != 1 {
					t.Error("going back loaded the old one again")
				}
				if got := w.why("condemned"); !strings.Contains(got, test.text) {
					t.Error(got)
				}
				all := w.wantPublic("2 END FAILED_PRECONDITION, 1 AVAILABLE")
				if !strings.Contains(all[0].Message, "model m version 2 refused: "+test.text) || !strings.Contains(all[0].Message, "still serving version 1; publish a better one") {
					t.Error(all[0].Message)
				}
			})
			b.run(probing(), func(w *world) {
				w.pass(8 * time.Second)
				w.wantLive(1)
				if w.loadCount("2") != 0 {
					t.Fatal("it was loaded again after a restart")
				}
				w.ask(w.c.Retry(w.t.Context(), "m", 2, "me"))
				w.pass(4 * time.Second)
				w.wantLive(2, 1)
				if w.model().Trial == nil {
					t.Fatal("a retried version is not on probation")
				}
			})
		})
	}
}

// The old one's folder may go as the new one comes (rsync --delete): it is in memory, and that is enough to go back to.
func TestProbationGoesBackWithoutFolder(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		if err := os.RemoveAll(b.sub("1")); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Second)
		w.wantLive(2, 1)
		w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 12})
		w.pass(20 * time.Second)
		w.wantLive(1)
		w.wantAnswers(1)
		put(t, b.sub("3"), "") // and the next one takes over as ever
		w.pass(4 * time.Second)
		w.wantLive(3, 1)
		w.pass(time.Minute)
		w.wantLive(3)
	})
}

// Without another version a bad one goes on serving, and says so.
func TestProbationWithNothingToGoBackTo(t *testing.T) {
	b := newBox(t)
	b.run(func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Transition = ResourcePreserving
	}, func(w *world) {
		put(t, b.sub("1"), "")
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.pass(4 * time.Second)
		w.wantLive(2)
		if err := os.RemoveAll(b.sub("1")); err != nil {
			t.Fatal(err)
		}
		w.pass(6 * time.Second)
		w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 50})
		w.pass(10 * time.Second)
		w.wantLive(2)
		if m := w.model(); m.Trial != nil || !strings.Contains(m.Alarm, "50 of 50 answers had NaN") || !strings.Contains(m.Alarm, "it goes on serving") {
			t.Fatalf("%+v", m)
		}
		put(t, b.sub("3"), "")
		w.pass(6 * time.Second)
		if m := w.model(); m.Alarm != "" {
			t.Fatalf("%+v", m)
		}
	})
}

// A newer version waits for the verdict.
func TestNewerVersionWaitsForTheVerdict(t *testing.T) {
	b := newBox(t)
	b.run(probing(), func(w *world) {
		w.on(b.sub)
		put(t, b.sub("3"), "")
		w.pass(20 * time.Second)
		w.wantLive(2, 1)
		if v, _ := w.model().Version(3); !strings.Contains(v.Reason, "waits for the verdict on version 2") {
			t.Fatalf("%+v", v)
		}
		w.pass(40 * time.Second)
		w.wantLive(3, 2)
		if m := w.model(); m.Trial.Against != 2 {
			t.Fatalf("%+v", m.Trial)
		}
	})
}

func TestPromoteAndRollbackEndATrial(t *testing.T) {
	for _, steps := range [][]float64{nil, {0.1}} {
		b := newBox(t)
		b.run(probing(steps...), func(w *world) {
			if _, err := w.c.Promote(w.t.Context(), "n", ""); inference.AsError(err).Code != inference.NotFound {
				t.Fatal(err)
			}
			put(t, b.sub("1"), "")
			w.pass(5 * time.Second)
			if _, err := w.c.Promote(w.t.Context(), "m", ""); inference.AsError(err).Code != inference.FailedPrecondition {
				t.Fatal(err)
			}
			w.on(b.sub)
			w.ask(w.c.Rollback(w.t.Context(), "m", "me"))
			w.pass(0)
			w.wantLive(1)
			w.wantAnswers(1)
			w.pass(10 * time.Second)
			w.wantLive(1)
			if w.loadCount("1") != 1 || w.model().Trial != nil {
				t.Fatalf("%+v", w.model())
			}
			w.ask(w.c.Retry(w.t.Context(), "m", 2, "me"))
			w.pass(4 * time.Second)
			w.ask(w.c.Promote(w.t.Context(), "m", "me"))
			w.pass(0)
			w.wantLive(2)
			w.wantAnswers(2)
			if got := w.why("passed probation"); !strings.HasPrefix(got, "promoted by me; ") {
				t.Fatal(got)
			}
		})
	}
}

// The canary gets its share, more at each step, and all at the end.
func TestCanary(t *testing.T) {
	b := newBox(t)
	b.run(probing(0.05, 0.25, 1), func(w *world) {
		w.on(b.sub)
		near := func(share float64) {
			t.Helper()
			if got := w.answering(400)[2]; got < int(share*400)-3 || got > int(share*400)+3 {
				t.Fatalf("%d of 400 requests went to the canary, want %v", got, share*400)
			}
		}
		near(0.05)
		if !w.isWatched(1) || !w.isWatched(2) {
			t.Fatal("both are watched")
		}
		w.counts(1, Measures{Requests: 2950, Checked: 2950, NaN: 90}) // since the trial began: as bad as the new one
		w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 5})
		w.pass(30 * time.Second)
		near(0.05)
		w.pass(30 * time.Second)
		near(0.25)
		if m := w.model(); m.Trial.Step != 2 || m.Trial.Steps != 3 || m.Trial.New.Requests != 0 {
			t.Fatalf("%+v", m.Trial)
		}
		w.pass(time.Minute)
		near(1)
		w.wantLive2(2, 1)
		w.pass(time.Minute)
		w.wantLive(2)
		if w.catalog.Route("m") != nil {
			t.Fatal("there is a route still")
		}
		if got := w.why("share raised"); !strings.HasPrefix(got, "to 100% of the requests") {
			t.Fatal(got)
		}
	})
}

// wantLive2 is wantLive without a word about which answers.
func (w *world) wantLive2(numbers ...int64) {
	w.t.Helper()
	if got := w.model().Live; fmt.Sprint(got) != fmt.Sprint(numbers) {
		w.t.Fatalf("live: %v, want %v", got, numbers)
	}
}

func TestCanaryGoesBack(t *testing.T) {
	b := newBox(t)
	b.run(probing(0.5), func(w *world) {
		w.on(b.sub)
		w.counts(2, Measures{Requests: 100, Failed: 60})
		w.pass(2 * time.Second)
		w.wantLive(1)
		w.wantAnswers(1)
		if got := w.why("condemned"); !strings.Contains(got, "60 of 100 requests failed, version 1 failed 0 of 0") {
			t.Fatal(got)
		}
	})
}

// A restart in the middle: the old one serves first, then the new one, and the trial goes on with what was known of the old one.
func TestTrialGoesOnAfterARestart(t *testing.T) {
	for _, steps := range [][]float64{nil, {0.5, 1}} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			b := newBox(t)
			b.run(probing(steps...), func(w *world) {
				w.on(b.sub)
				if len(steps) > 0 {
					w.pass(time.Minute) // to its second step
				}
				w.pass(20 * time.Second)
			})
			var order []string
			b.run(func(w *world, o *Options) {
				probing(steps...)(w, o)
				w.during = func(c Candidate) { order = append(order, itoa(c.Number)) }
			}, func(w *world) {
				w.pass(8 * time.Second)
				if fmt.Sprint(order) != "[1 2]" {
					t.Fatalf("loaded %v, want the old one first", order)
				}
				w.wantLive2(2, 1)
				w.wantAnswers(2)
				m := w.model()
				if m.Trial == nil || m.Trial.Against != 1 || m.Trial.Old.Requests != 2000 || len(steps) > 0 && m.Trial.Step != 2 {
					t.Fatalf("%+v", m.Trial)
				}
				put(t, b.sub("3"), "")
				w.pass(10 * time.Second)
				w.wantLive2(2, 1)
				w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 12})
				w.pass(2 * time.Second)
				if got := w.why("condemned"); len(steps) == 0 && !strings.Contains(got, "version 1 had 0 of 2000") {
					t.Fatal(got)
				}
				w.wantLive2(3, 1) // what waited for the verdict is compared with the old one now
				if m := w.model(); m.Trial == nil || m.Trial.Version != 3 || m.Trial.Against != 1 {
					t.Fatalf("%+v", m.Trial)
				}
			})
		})
	}
}

// Where the old one could not stay, going back loads it from disk, and the bad one serves until then.
func TestGoingBackLoadsFirst(t *testing.T) {
	b := newBox(t)
	free := int64(1 << 20)
	b.run(roomy(Auto, &free), func(w *world) {
		put(t, b.sub("1"), "")
		w.counts(1, Measures{Requests: 2000, Checked: 2000, Memory: 150 << 20})
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "")
		w.mu.Lock()
		free = 100 << 20
		w.mu.Unlock()
		w.pass(4 * time.Second)
		w.wantLive(2)
		if m := w.model(); m.Trial == nil || m.Trial.Beside || m.Trial.Against != 1 || m.Trial.Old.Requests != 2000 {
			t.Fatalf("%+v", m.Trial)
		}
		gate := make(chan struct{})
		open := sync.OnceFunc(func() { close(gate) })
		defer open()
		w.mu.Lock()
		free, w.during = 1<<40, func(Candidate) { <-gate }
		w.mu.Unlock()
		w.counts(2, Measures{Requests: 50, Checked: 50, NaN: 12})
		w.pass(20 * time.Second)
		w.wantLive(2) // the bad one serves until the old one can
		open()
		w.pass(time.Second)
		w.wantLive(1)
		if got := w.why("condemned"); !strings.Contains(got, "12 of 50 answers had NaN or infinity, version 1 had 0 of 2000; going back to version 1, which has to be loaded") {
			t.Fatal(got)
		}
	})
}

// What an operator or the disk does to the versions ends a trial without a verdict.
func TestTrialIsCalledOff(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, w *world, b *box)
		live int64
		what string
	}{
		"pinned":         {func(_ *testing.T, w *world, _ *box) { w.ask(w.c.Pin(w.t.Context(), "m", 2, "")) }, 2, "passed probation"},
		"another pinned": {func(_ *testing.T, w *world, _ *box) { w.ask(w.c.Pin(w.t.Context(), "m", 1, "")) }, 1, "probation ended"},
		"folder gone": {func(t *testing.T, w *world, b *box) {
			if err := os.RemoveAll(b.sub("2")); err != nil {
				t.Fatal(err)
			}
		}, 1, "probation ended"},
		"turned off": {func(t *testing.T, w *world, b *box) {
			if err := w.c.Reconfigure([]Model{{Name: "m", BasePath: b.dir}}); err != nil {
				t.Fatal(err)
			}
		}, 2, "passed probation"},
		"the old one is found bad": {func(_ *testing.T, w *world, _ *box) { w.condemn(1) }, 2, "passed probation"},
		"it is found bad":          {func(_ *testing.T, w *world, _ *box) { w.condemn(2) }, 1, "probation ended"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(t)
			b.run(probing(), func(w *world) {
				w.on(b.sub)
				test.do(t, w, b)
				w.pass(10 * time.Second)
				w.wantLive(test.live)
				if m := w.model(); m.Trial != nil {
					t.Fatalf("%+v", m.Trial)
				}
				w.why(test.what)
			})
		})
	}
}

// No trial where there is nothing to compare with, or nothing to take over.
func TestNoTrial(t *testing.T) {
	b := newBox(t)
	b.run(func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Policy.All = true
	}, func(w *world) {
		put(t, b.sub("5"), "")
		w.pass(4 * time.Second)
		put(t, b.sub("4"), "")
		w.pass(4 * time.Second)
		w.wantLive(5, 4)
		if m := w.model(); m.Trial != nil {
			t.Fatalf("%+v", m.Trial)
		}
		put(t, b.sub("6"), "")
		w.pass(4 * time.Second)
		if m := w.model(); m.Trial == nil || m.Trial.Against != 5 {
			t.Fatalf("%+v", m.Trial)
		}
		w.pass(time.Minute)
		w.wantLive(6, 5, 4)
	})
	b.run(func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Policy.All = true
	}, func(w *world) {
		w.pass(8 * time.Second)
		w.wantLive(6, 5, 4)
		if m := w.model(); m.Trial != nil {
			t.Fatalf("what served before a restart is on probation after it: %+v", m.Trial)
		}
	})
}

// With several versions wanted none of them is waited for for ever after a restart in the middle of a trial.
func TestTrialOfSeveralAfterARestart(t *testing.T) {
	b := newBox(t)
	two := func(w *world, o *Options) {
		probing()(w, o)
		o.Models[0].Policy.Latest = 2
	}
	b.run(two, func(w *world) {
		put(t, b.sub("3"), "")
		put(t, b.sub("4"), "")
		w.pass(6 * time.Second)
		w.counts(4, Measures{Requests: 500})
		w.pass(2 * time.Minute)
		put(t, b.sub("5"), "")
		w.pass(6 * time.Second)
		w.wantLive2(5, 4, 3)
	})
	b.run(two, func(w *world) {
		w.pass(8 * time.Second)
		if m := w.model(); m.Trial == nil || m.Trial.Version != 5 || m.Trial.Against != 4 {
			t.Fatalf("%+v", m)
		}
		w.pass(time.Minute)
		w.wantLive2(5, 4)
		put(t, b.sub("6"), "")
		w.pass(6 * time.Second)
		if m := w.model(); m.Trial == nil || m.Trial.Version != 6 {
			t.Fatalf("%+v", m)
		}
	})
}
