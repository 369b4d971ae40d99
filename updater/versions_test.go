// versions_test.go: the way of a version through the controller, over real folders and a fake runtime, by polling.
package updater

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
)

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
