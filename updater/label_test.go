// label_test.go: labels that operators move: to what, over what, and for how long.
package updater

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// said turns a verb's answer into one text.
func said(text string, err error) string {
	if err != nil {
		return inference.AsError(err).Code.String() + " " + inference.AsError(err).Msg
	}
	return text
}

func TestLabelFaults(t *testing.T) {
	for name, ok := range map[string]bool{"stable": true, "grün 1": true, strings.Repeat("x", maxLabel): true, "": false, "a/b": false, "a:b": false, "a\nb": false,
		strings.Repeat("x", maxLabel+1): false, "\xff": false} {
		if fault := labelFault(name); (fault == "") != ok {
			t.Errorf("%q: %q", name, fault)
		}
	}
}

func TestOperatorsLabels(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "")
	put(t, b.sub("2"), "")
	both := Policy{All: true}
	label := func(w *world, name string, number int64, force bool) string {
		return said(w.c.Label(w.t.Context(), "m", name, number, force, "ann"))
	}
	want := func(w *world, labels map[string]int64, by map[string]string, held ...string) {
		t.Helper()
		m := w.model()
		if !maps.Equal(m.Labels, labels) || !maps.Equal(m.LabelsBy, by) || !slices.Equal(m.Held, held) {
			t.Fatalf("labels %v by %v, held %v; want %v by %v, held %v", m.Labels, m.LabelsBy, m.Held, labels, by, held)
		}
		for name, number := range labels {
			if got, ok := w.catalog.Label("m", name); ok == slices.Contains(held, name) || ok && got != number {
				t.Fatalf("label %s is version %d, %v; want %d", name, got, ok, number)
			}
		}
		if n, ok := w.catalog.Label("m", "nobody"); ok {
			t.Fatalf("nobody is %d", n)
		}
	}
	b.run(func(_ *world, o *Options) {
		o.Models[0].Policy, o.Models[0].Labels = both, map[string]int64{"stable": 1}
	}, func(w *world) {
		w.pass(5 * time.Second)
		want(w, map[string]int64{"stable": 1}, nil)
		for _, step := range []struct {
			got, want string
		}{
			{label(w, "stable", 3, false), "FAILED_PRECONDITION label stable of model m is not moved to version 3, which is not there: it stays on version 1; --force"},
			{label(w, "a/b", 1, true), "INVALID_ARGUMENT \"a/b\" cannot be a label"},
			{label(w, "stable", 2, false), "label stable of model m names version 2"},
			{label(w, "canary", 3, true), "label canary of model m names version 3, which is not live"},
			{said(w.c.Unlabel(w.t.Context(), "m", "other", "ann")), "NOT_FOUND model m has no label \"other\""},
			{said(w.c.Label(w.t.Context(), "n", "stable", 1, false, "ann")), "NOT_FOUND no model is called \"n\""},
		} {
			if !strings.HasPrefix(step.got, step.want) {
				t.Errorf("%s\nwant %s", step.got, step.want)
			}
		}
		want(w, map[string]int64{"stable": 2, "canary": 3}, map[string]string{"stable": "ann", "canary": "ann"}, "canary")
		put(t, b.sub("3"), "") // what it was forced to comes
		w.pass(5 * time.Second)
		want(w, map[string]int64{"stable": 2, "canary": 3}, map[string]string{"stable": "ann", "canary": "ann"})
		put(t, b.sub("4"), "load INVALID_ARGUMENT")
		w.pass(5 * time.Second)
		if got := label(w, "stable", 4, false); !strings.Contains(got, "version 4, which is not live (quarantined): it stays on version 2") {
			t.Error(got)
		}
	})
	// Over a restart, and over the configured value as long as that stays.
	b.run(func(_ *world, o *Options) {
		o.Models[0].Policy, o.Models[0].Labels = both, map[string]int64{"stable": 1}
	}, func(w *world) {
		w.pass(5 * time.Second)
		want(w, map[string]int64{"stable": 2, "canary": 3}, map[string]string{"stable": "ann", "canary": "ann"})
		if got := said(w.c.Unlabel(w.t.Context(), "m", "canary", "bob")); got != "model m has no label canary any more" {
			t.Error(got)
		}
		want(w, map[string]int64{"stable": 2}, map[string]string{"stable": "ann"})
		apply := func(labels map[string]int64) {
			t.Helper()
			if err := w.c.Apply(w.t.Context(), Settings{Models: []Model{{Name: "m", BasePath: b.dir, Policy: both, Labels: labels}}}); err != nil {
				t.Fatal(err)
			}
		}
		apply(map[string]int64{"stable": 1, "new": 2})
		want(w, map[string]int64{"stable": 2, "new": 2}, map[string]string{"stable": "ann"})
		apply(map[string]int64{"stable": 3})
		want(w, map[string]int64{"stable": 3}, nil)
		if got := said(w.c.Unlabel(w.t.Context(), "m", "stable", "bob")); !strings.HasPrefix(got, "FAILED_PRECONDITION label stable of model m is as the configuration says") {
			t.Error(got)
		}
		if got := label(w, "stable", 1, false); got != "label stable of model m names version 1" {
			t.Error(got)
		}
		if got := said(w.c.Unlabel(w.t.Context(), "m", "stable", "bob")); got != "label stable of model m names version 3 again, as configured" {
			t.Error(got)
		}
		if got := label(w, "stable", 1, false); got != "label stable of model m names version 1" {
			t.Error(got)
		}
		w.pass(time.Second)
		var got []string
		all, err := w.c.History("m", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range slices.Backward(all) {
			if strings.HasSuffix(e.What, "labelled") {
				got = append(got, e.What+" "+itoa(e.Version)+" ("+e.Reason+") "+e.By)
			}
		}
		events := []string{"labelled 2 (stable, which named version 1) ann", "labelled 3 (canary) ann", "unlabelled 3 (canary) bob",
			"unlabelled 2 (stable: the configuration names version 3 now) ", "labelled 1 (stable, which named version 3) ann", "unlabelled 1 (stable) bob",
			"labelled 1 (stable, which named version 3) ann"}
		if !slices.Equal(got, events) {
			t.Errorf("history:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(events, "\n"))
		}
	})
	// A configuration that was changed while nothing ran.
	b.run(func(_ *world, o *Options) { o.Models[0].Policy = both }, func(w *world) {
		w.pass(5 * time.Second)
		want(w, nil, nil)
	})
}

// A folder that a label names is not removed, neither the operator's version nor the configured one that unlabel goes back to.
func TestLabelledFoldersStay(t *testing.T) {
	b := newBox(t)
	b.run(func(_ *world, o *Options) { o.Models[0].Retain, o.Models[0].Labels = 1, map[string]int64{"stable": 1} }, func(w *world) {
		for n := 1; n <= 6; n++ {
			put(w.t, w.sub(n), "")
			w.pass(12 * time.Second)
			if n == 2 {
				if got := said(w.c.Label(w.t.Context(), "m", "stable", 2, false, "ann")); got != "label stable of model m names version 2" {
					w.t.Fatal(got)
				}
			}
		}
		if got := w.folders(); !strings.HasPrefix(got, "1 2 ") || !strings.HasSuffix(got, " 5 6") {
			w.t.Fatalf("folders %s", got)
		}
		if got := said(w.c.Unlabel(w.t.Context(), "m", "stable", "ann")); got != "label stable of model m names version 1 again, as configured" {
			w.t.Fatal(got)
		}
		put(w.t, w.sub(7), "")
		w.pass(12 * time.Second)
		if got := w.folders(); got != "1 6 7" {
			w.t.Fatalf("folders %s", got)
		}
	})
}

func TestLabelsAreBounded(t *testing.T) {
	start(t, func(w *world, _ *Options) { put(t, w.sub(1), "") }, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		for i := range maxLabels {
			if got := said(w.c.Label(t.Context(), "m", "l"+itoa(int64(i)), 1, false, "")); !strings.HasPrefix(got, "label l") {
				t.Fatal(got)
			}
		}
		if got := said(w.c.Label(t.Context(), "m", "more", 1, false, "")); !strings.HasPrefix(got, "FAILED_PRECONDITION model m has 64 labels") {
			t.Error(got)
		}
		if got := said(w.c.Label(t.Context(), "m", "l0", 1, false, "")); got != "label l0 of model m names version 1" {
			t.Error(got)
		}
	})
}
