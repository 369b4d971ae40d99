// cost_test.go: what a version takes, measured, kept and compared.
package updater

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

// costly makes scripts of "takes TIME MIB" run for so long and use so much.
func costly(o *Options) {
	o.Probe.MaxBatch = 2
	uses := func(r inference.Runner) int64 {
		words := strings.Fields(r.(*fakeRunner).script)
		n, err := strconv.ParseInt(words[len(words)-1], 10, 64)
		if err != nil {
			panic(err)
		}
		return n << 20
	}
	o.Probe.Memory = func(r inference.Runner) (int64, bool) { return uses(r), true }
	o.Probe.Peak = func(r inference.Runner, anew bool) (int64, bool) {
		if anew {
			return uses(r) / 2, true // while it loaded
		}
		return 2 * uses(r), true
	}
}

func TestCostIsKeptAndCompared(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "takes 10ms 100")
	b.run(func(_ *world, o *Options) { costly(o) }, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		p := mustVersion(t, w, 1).Proof
		if p.LoadPeak != 50<<20 || p.Peak != 200<<20 || p.Rest != 100<<20 || p.Signatures[inference.DefaultSignature].Times[1] != 10*time.Millisecond {
			t.Errorf("%+v", p)
		}
		states, err := w.c.opts.Journal.States()
		if err != nil {
			t.Fatal(err)
		}
		var r chronicle
		if err := json.Unmarshal(states["m"], &r); err != nil || len(r.Good) != 1 || r.Good[0].Cost == nil {
			t.Fatalf("%s %v", states["m"], err)
		}
		if c := r.Good[0].Cost; c.LoadPeak != 50<<20 || c.Peak != 200<<20 || c.Rest != 100<<20 || c.Runs[inference.DefaultSignature][1] != 10*time.Millisecond || c.Runs[inference.DefaultSignature][2] == 0 {
			t.Errorf("journal has %+v", c)
		}

		put(t, b.sub("2"), "takes 20ms 149") // twice, and not quite half as much again, is no reason
		w.pass(5 * time.Second)
		w.wantLive(2)
		if v := mustVersion(t, w, 2); v.Reason != "" {
			t.Errorf("%q", v.Reason)
		}

		put(t, b.sub("3"), "takes 60ms 300")
		w.pass(5 * time.Second)
		w.wantLive(3)
		const says = `it costs more than version 2: a run of signature "serving_default" takes 60ms, 3.0 times as long (20ms); its worker used up to 600 MiB, 2.0 times as much (298 MiB)`
		if v := mustVersion(t, w, 3); v.Reason != says {
			t.Errorf("%q", v.Reason)
		}
		if n := w.log.count("version costs more than the one that serves"); n != 1 {
			t.Errorf("%d lines in the log", n)
		}
		all, err := w.c.History("m", 100)
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, e := range all {
			found = found || e.What == "published" && e.Version == 3 && e.Reason == says
		}
		if !found {
			t.Errorf("history lacks it: %+v", all)
		}
	})
}

// TestCostIsRenewed: a start measures again what served before.
func TestCostIsRenewed(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "takes 10ms 100")
	kept := func(w *world) *cost {
		t.Helper()
		states, err := w.c.opts.Journal.States()
		if err != nil {
			t.Fatal(err)
		}
		var r chronicle
		if err := json.Unmarshal(states["m"], &r); err != nil || len(r.Good) != 1 {
			t.Fatalf("%s %v", states["m"], err)
		}
		return r.Good[0].Cost
	}
	b.run(nil, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if c := kept(w); c == nil || c.Peak != 0 {
			t.Errorf("nothing is measured, and %+v is kept", c)
		}
	})
	b.run(func(_ *world, o *Options) { costly(o) }, func(w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		if c := kept(w); c == nil || c.Peak != 200<<20 {
			t.Errorf("%+v is kept", c)
		}
	})
}

// TestDearerIsNoNoise: some times as much of next to nothing is not worth a line.
func TestDearerIsNoNoise(t *testing.T) {
	b := newBox(t)
	put(t, b.sub("1"), "takes 100us 10")
	b.run(func(_ *world, o *Options) { costly(o) }, func(w *world) {
		w.pass(5 * time.Second)
		put(t, b.sub("2"), "takes 900us 20")
		w.pass(5 * time.Second)
		w.wantLive(2)
		if v := mustVersion(t, w, 2); v.Reason != "" {
			t.Errorf("%q", v.Reason)
		}
	})
}

func mustVersion(t *testing.T, w *world, number int64) VersionStatus {
	t.Helper()
	v, ok := w.model().Version(number)
	if !ok {
		t.Fatalf("no version %d in %+v", number, w.model())
	}
	return v
}
