// tracker_test.go: live and ready, step by step.
package health

import (
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestReady(t *testing.T) {
	need := func(verdict, live bool) Model { return Model{Name: "m", Required: true, Verdict: verdict, Live: live} }
	opt := func(verdict, live bool) Model { return Model{Name: "o", Verdict: verdict, Live: live} }
	type step struct {
		scanned bool
		models  []Model
		want    bool
	}
	for _, test := range []struct {
		name  string
		steps []step
	}{
		{"no models at all", []step{{true, nil, true}}},
		{"nothing has been looked at", []step{{false, nil, false}, {false, []Model{need(true, true)}, false}, {true, []Model{need(true, true)}, true}}},
		{"scanned stays", []step{{true, []Model{need(false, false)}, false}, {false, []Model{need(true, true)}, true}}},
		{"a required model without a verdict", []step{{true, []Model{need(false, false)}, false}}},
		{"a required model that was refused", []step{{true, []Model{need(true, false)}, false}}},
		{"a required model that answers", []step{{true, []Model{need(true, true)}, true}}},
		{"an optional model without a verdict", []step{{true, []Model{opt(false, false)}, false}}},
		{"an optional model that was refused", []step{{true, []Model{opt(true, false)}, true}}},
		{"one of two", []step{{true, []Model{need(true, true), {Name: "n", Required: true, Verdict: true}}, false}}},
		{"a later failure", []step{{true, []Model{need(true, true)}, true}, {true, []Model{need(true, false)}, true}}},
		{"a model that is added later", []step{{true, nil, true}, {true, []Model{need(false, false)}, true}}},
		{"it comes late", []step{{true, []Model{need(true, false)}, false}, {true, []Model{need(true, true)}, true}, {true, []Model{need(true, false)}, true}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			tr := New()
			if r := tr.Report(); r.Ready || !r.Live {
				t.Fatalf("at first: %+v", r)
			}
			for i, s := range test.steps {
				tr.SetModels(s.scanned, s.models)
				r := tr.Report()
				if r.Ready != s.want || !r.Live {
					t.Fatalf("step %d: %+v, want ready %v", i+1, r, s.want)
				}
				// Whoever is not ready can read why, and whoever is has nothing that says otherwise.
				why := slices.ContainsFunc(r.Conditions, func(c Condition) bool { return c.Severity >= Unready })
				if why == r.Ready {
					t.Fatalf("step %d: ready %v with %+v", i+1, r.Ready, r.Conditions)
				}
			}
		})
	}
}

func TestConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		tr.SetModels(true, []Model{{Name: "m", Required: true, Verdict: true, Live: true}})
		tr.Set(Condition{Code: CodeWatch, Severity: Warning, Message: "polling"})
		if r := tr.Report(); !r.Ready || len(r.Conditions) != 1 || r.Summary() != "ready, 1 of 1 models answer; polling" {
			t.Fatalf("a warning: %+v %s", r, r.Summary())
		}
		begun := time.Now()
		tr.Set(Condition{Code: CodeRuntime, Severity: Unready, Message: "no runtime"})
		time.Sleep(time.Minute)
		tr.Set(Condition{Code: CodeRuntime, Severity: Unready, Message: "still no runtime"})
		r := tr.Report()
		if r.Ready || !r.Live || r.Conditions[0].Message != "still no runtime" || !r.Conditions[0].Since.Equal(begun) {
			t.Fatalf("no runtime: %+v", r)
		}
		if ready, known := tr.Ready("m"); ready || !known {
			t.Fatal("a model is ready without a runtime")
		}
		tr.Clear(CodeRuntime, "")
		tr.Clear(CodeRuntime, "") // again, and what never was
		tr.Clear("x", "y")
		if r := tr.Report(); !r.Ready {
			t.Fatalf("the runtime is there: %+v", r)
		}
		tr.Set(Condition{Code: "x", Severity: Dead, Message: "stuck"})
		if r := tr.Report(); r.Live || r.Ready || !strings.HasPrefix(r.Summary(), "dead, 1 of 1 models answer; stuck (and 1 more)") {
			t.Fatalf("dead: %+v %s", r, r.Summary())
		}
		tr.Clear("x", "")
		tr.Replace([]string{CodeWatch, CodeRefused}, []Condition{{Code: CodeRefused, Model: "m", Severity: Warning, Message: "2"}})
		if r := tr.Report(); len(r.Conditions) != 1 || r.Conditions[0].Code != CodeRefused {
			t.Fatalf("replace: %+v", r)
		}
		since := tr.Report().Conditions[0].Since
		time.Sleep(time.Minute)
		tr.Set(Condition{Code: "other", Severity: Info})
		tr.Replace([]string{CodeRefused}, []Condition{{Code: CodeRefused, Model: "m", Severity: Warning, Message: "3"}})
		r = tr.Report()
		if len(r.Conditions) != 2 || r.Conditions[0].Message != "3" || !r.Conditions[0].Since.Equal(since) {
			t.Fatalf("replace again: %+v", r)
		}
	})
}

func TestModelConditions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := New()
		tr.SetModels(true, []Model{{Name: "b", Required: true, Reason: "loading"}, {Name: "a", Verdict: true, Reason: "refused"}})
		begun := time.Now()
		time.Sleep(time.Second)
		tr.SetModels(true, []Model{{Name: "b", Required: true, Reason: "loading"}, {Name: "a", Verdict: true, Reason: "refused"}})
		r := tr.Report()
		if len(r.Conditions) != 2 || r.Conditions[0].Message != "model b has had no first verdict yet: loading" || r.Conditions[0].Severity != Unready ||
			!r.Conditions[0].Since.Equal(begun) || r.Conditions[1].Message != "model a has no version that answers: refused" || r.Conditions[1].Severity != Info {
			t.Fatalf("%+v", r.Conditions)
		}
		if r.Models[0].Name != "a" || r.Models[0].Required || !r.Models[1].Required {
			t.Fatalf("%+v", r.Models)
		}
		tr.SetModels(true, []Model{{Name: "b", Required: true, Verdict: true, Live: true}})
		tr.SetModels(true, []Model{{Name: "b", Required: true, Verdict: true}})
		r = tr.Report()
		if !r.Ready || len(r.Conditions) != 1 || r.Conditions[0].Severity != Warning || r.Conditions[0].Code != CodeNoLive || !r.Conditions[0].Since.Equal(time.Now()) {
			t.Fatalf("%+v", r)
		}
		if _, known := tr.Ready("a"); known {
			t.Fatal("a model that is gone is known")
		}
		if ready, known := tr.Ready("b"); ready || !known {
			t.Fatal("?model=b says ready though nothing answers")
		}
	})
}

func TestReadyOfOneModel(t *testing.T) {
	tr := New()
	tr.SetModels(false, []Model{{Name: "m", Live: true}, {Name: "n"}})
	if ready, known := tr.Ready("m"); !ready || !known {
		t.Fatal("m answers, whatever the others do")
	}
	tr.Set(Condition{Code: "x", Model: "n", Severity: Unready})
	if ready, _ := tr.Ready("m"); !ready {
		t.Fatal("another model's condition counts")
	}
	tr.Set(Condition{Code: CodeDraining, Severity: Unready})
	if ready, _ := tr.Ready("m"); ready {
		t.Fatal("ready while the appliance stops")
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(Condition{Code: "c", Severity: Warning})
	if err != nil || !strings.Contains(string(b), `"severity":"warning"`) {
		t.Fatalf("%s %v", b, err)
	}
	for s, want := range map[Severity]string{Info: "info", Unready: "unready", Dead: "dead", 0: "unknown"} {
		if s.String() != want {
			t.Errorf("%d: %s", s, s)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	tr := New()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				tr.Set(Condition{Code: "c", Severity: Info})
				tr.SetModels(true, []Model{{Name: "m", Verdict: true}})
				tr.Report()
				tr.Ready("m")
				tr.Clear("c", "")
			}
		})
	}
	group.Wait()
	if r := tr.Report(); !r.Ready || len(r.Conditions) != 1 {
		t.Fatalf("%+v", r)
	}
}
