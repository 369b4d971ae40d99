// sandbox_real_test.go: SavedModels that reach for files, with and without the sandbox around them; skipped where there is no runtime.
package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// machine is a box in a folder: what a model should not get at.
type machine struct {
	dir, queue, tokens, other, models string
}

func newMachine(t *testing.T) machine {
	t.Helper()
	dir := t.TempDir()
	m := machine{dir: dir, queue: filepath.Join(dir, "state", "queue.db"), tokens: filepath.Join(dir, "etc", "tokens.yaml"), models: filepath.Join(dir, "models")}
	for path, text := range map[string]string{m.queue: "somebody's job", m.tokens: "hashes"} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m.other = filepath.Join(modeltest.WriteVersion(t, filepath.Join(m.models, "other"), 1, modeltest.HalfPlusTwo()), "saved_model.pb")
	return m
}

// confinedTo is a sandbox with less than this kernel has; it skips where the kernel has less than that.
func confinedTo(t *testing.T, landlock int) *Sandbox {
	t.Helper()
	s := NewSandbox(Places{})
	switch {
	case !s.kernel.Seccomp:
		t.Skip("this kernel has no seccomp filters")
	case s.kernel.Landlock < landlock:
		t.Skipf("this kernel confines with %v; Landlock ABI %d is tested here", s.kernel, landlock)
	}
	s.kernel.Landlock = landlock
	return s
}

// attempt is a signature of modeltest.Reaches with a path; done says from outside, or by the answer, that it reached.
type attempt struct {
	name, key, path string
	done            func(answer []*tensor.Tensor) bool
	write           bool
}

func (m machine) attempts() []attempt {
	holds := func(path string) func([]*tensor.Tensor) bool {
		return func(answer []*tensor.Tensor) bool {
			text, err := os.ReadFile(path)
			return err == nil && string(answer[0].Strings[0]) == string(text)
		}
	}
	there := func(path string) func([]*tensor.Tensor) bool {
		return func([]*tensor.Tensor) bool {
			_, err := os.Stat(path)
			return err == nil
		}
	}
	news := func(name string) string { return filepath.Join(m.dir, name) }
	return []attempt{
		{"ReadFile of the queue", "read", m.queue, holds(m.queue), false},
		{"ReadFile of the tokens", "read", m.tokens, holds(m.tokens), false},
		{"ReadFile of another model", "read", m.other, holds(m.other), false},
		{"ReadFile of the core's environment", "read", fmt.Sprintf("/proc/%d/environ", os.Getpid()), func(a []*tensor.Tensor) bool { return len(a[0].Strings[0]) > 0 }, false},
		{"MatchingFiles in the models directory", "list", filepath.Join(m.models, "*"), func(a []*tensor.Tensor) bool { return len(a[0].Strings) > 0 }, false},
		{"WriteFile into the models directory", "write", filepath.Join(m.models, "new", "2", "saved_model.pb"), there(filepath.Join(m.models, "new", "2", "saved_model.pb")), true},
		{"WriteFile beside the models", "write", news("written"), there(news("written")), true},
		{"Save", "save", news("saved"), there(news("saved.index")), true},
	}
}

func TestSandboxAroundModels(t *testing.T) {
	library := realLibrary(t)
	// What each says with less than the whole: an older Landlock refuses the same, seccomp alone refuses what writes.
	cases := []struct {
		name    string
		sandbox func(t *testing.T) *Sandbox
		zygote  bool
		reads   bool // reaches what it reads
		writes  bool
	}{
		{"off", func(*testing.T) *Sandbox { return nil }, true, true, true},
		{"whole, forked", func(t *testing.T) *Sandbox { return whole(t) }, true, false, false},
		{"whole, fresh", func(t *testing.T) *Sandbox { return whole(t) }, false, false, false},
		{"the first Landlock", func(t *testing.T) *Sandbox { return confinedTo(t, 1) }, true, false, false},
		{"seccomp alone", func(t *testing.T) *Sandbox { return confinedTo(t, 0) }, true, true, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := startHostWith(t, HostOptions{UseZygote: c.zygote, Library: library, Sandbox: c.sandbox(t)})
			m := openMade(t, h, modeltest.Reaches(), Options{})
			own := filepath.Join(m.load.Dir, "saved_model.pb")
			box := newMachine(t)
			for _, a := range box.attempts() {
				t.Run(a.name, func(t *testing.T) { try(t, m, a, a.write && c.writes || !a.write && c.reads) })
			}
			t.Run("ReadFile of its own", func(t *testing.T) {
				got, err := m.call(t.Context(), "read", modeltest.Text(own))
				if text, _ := os.ReadFile(own); err != nil || string(got[0].Strings[0]) != string(text) {
					t.Errorf("its own saved_model.pb: %v", err)
				}
			})
			if st := h.Stats(); c.zygote && st.Fresh > 0 || !c.zygote && st.Forked > 0 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func whole(t *testing.T) *Sandbox {
	t.Helper()
	return confinedTo(t, max(1, ProbeConfinement().Landlock))
}

// try runs the attempt, and checks that it reaches what it is after or that it is refused in a sentence.
func try(t *testing.T, m *Model, a attempt, reaches bool) {
	t.Helper()
	answer, err := m.call(t.Context(), a.key, modeltest.Text(a.path))
	reached := err == nil && a.done(answer)
	if reached != reaches {
		t.Fatalf("%s of %s: reached: %v, error %v", a.key, a.path, reached, err)
	}
	if reaches || a.key == "list" && err == nil {
		return // a pattern that may not be looked at matches nothing
	}
	if e := inference.AsError(err); e.Code != inference.PermissionDenied || !strings.Contains(e.Msg, "runtime.sandbox") {
		t.Errorf("refused with %v %q", e.Code, e.Msg)
	}
	t.Logf("%v", err)
}

// TestSandboxAroundPrint: PrintV2 opens its file in a way of its own.
func TestSandboxAroundPrint(t *testing.T) {
	library := realLibrary(t)
	for _, confine := range []bool{false, true} {
		t.Run(fmt.Sprint("confined ", confine), func(t *testing.T) {
			var s *Sandbox
			if confine {
				s = whole(t)
			}
			path := filepath.Join(t.TempDir(), "runs")
			m := openMade(t, startHostWith(t, HostOptions{UseZygote: true, Library: library, Sandbox: s}), modeltest.Witness(path), Options{})
			_, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, 7))
			text, _ := os.ReadFile(path)
			if !confine && (err != nil || string(text) != "7\n") {
				t.Errorf("%q, %v", text, err)
			}
			if confine && (err == nil || len(text) > 0) {
				t.Errorf("%q was written, error %v", text, err)
			}
			t.Logf("%v", err)
		})
	}
}

// TestSandboxAroundEverything: what the other tests do with models is done as well in the sandbox: death by signal, restart, promotion, peak, a
// group whose members come later, variables, memory.
func TestSandboxAroundEverything(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t), Sandbox: whole(t)})
	one, minus := modeltest.Floats(tensor.Shape{1, 1}, 1), modeltest.Floats(tensor.Shape{1, 1}, -1)

	crasher := openMade(t, h, modeltest.Crasher(), Options{})
	if _, err := crasher.call(t.Context(), inference.DefaultSignature, minus); !errors.Is(err, inference.ErrWorkerDied) || !strings.Contains(err.Error(), "SIGABRT") {
		t.Errorf("crasher: %v", err)
	}
	if _, err := crasher.call(t.Context(), inference.DefaultSignature, one); err != nil {
		t.Errorf("after the restart: %v", err)
	}

	gentle := openMade(t, h, modeltest.BigVariables(1, 3), Options{Gently: true})
	if err := gentle.Promote(t.Context()); err != nil {
		t.Error(err)
	}
	if s := gentle.Stats(); s.Memory.PSS == 0 || s.Memory.Private == 0 {
		t.Errorf("its memory cannot be read: %+v", s.Memory)
	}
	if peak, ok := gentle.Peak(true); !ok || peak == 0 {
		t.Errorf("its peak cannot be read: %d", peak)
	}
	if adj, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", gentle.Stats().PID)); err != nil || strings.TrimSpace(string(adj)) != "500" {
		t.Errorf("oom_score_adj is %q, %v", adj, err)
	}
	for _, made := range []*modeltest.Model{modeltest.TwoLayer(), modeltest.Dense(64), modeltest.Busy(64)} {
		m := openMade(t, h, made, Options{})
		sig := m.load.Signatures[inference.DefaultSignature]
		shape, n := slices.Clone(sig.Inputs[0].Shape), int64(1)
		for i, d := range shape {
			shape[i] = max(1, d)
			n *= shape[i]
		}
		if _, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(shape, make([]float32, n)...)); err != nil {
			t.Errorf("%s: %v", made.Name, err)
		}
	}
}

// TestSandboxAroundAGroup: a process that several models share may read the folders that were named when it began; whoever lies elsewhere has
// a process of its own.
func TestSandboxAroundAGroup(t *testing.T) {
	h := startHostWith(t, HostOptions{UseZygote: true, Library: realLibrary(t), Sandbox: whole(t)})
	base := t.TempDir()
	pid := func(dir string) int {
		t.Helper()
		m := openDir(t, h, dir, Options{Group: "all", Folders: []string{base}})
		if _, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1}, 1)); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
		return m.Stats().PID
	}
	first := pid(modeltest.WriteVersion(t, filepath.Join(base, "a"), 1, modeltest.HalfPlusTwo()))
	if second := pid(modeltest.WriteVersion(t, filepath.Join(base, "b"), 1, modeltest.HalfPlusTwo())); second != first {
		t.Errorf("a member that lies in the folders runs in %d, the first in %d", second, first)
	}
	if other := pid(modeltest.WriteVersion(t, t.TempDir(), 1, modeltest.HalfPlusTwo())); other == first {
		t.Error("a member that lies elsewhere runs in the process of the others")
	}
}

// TestSandboxKeepsSecrets: a version's folder that is inferd's own, or holds it, opens nothing.
func TestSandboxKeepsSecrets(t *testing.T) {
	dir := t.TempDir()
	state, models := filepath.Join(dir, "state"), filepath.Join(dir, "state", "models")
	for _, d := range []string{filepath.Join(models, "m", "1"), filepath.Join(state, "versions", "m")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(models, "m", "2")
	if err := os.Symlink(state, link); err != nil {
		t.Fatal(err)
	}
	modeltest.WriteVersion(t, filepath.Join(models, "other"), 1, modeltest.HalfPlusTwo())
	around := filepath.Join(models, "m", "3") // the base path of another model
	if err := os.Symlink(filepath.Join(models, "other"), around); err != nil {
		t.Fatal(err)
	}
	s := NewSandbox(Places{
		Secret: func() []string { return []string{state} },
		Models: func() []string { return []string{models, filepath.Join(state, "versions")} },
	})
	for path, admitted := range map[string]bool{
		filepath.Join(models, "m", "1"): true, filepath.Join(state, "versions", "m"): true, filepath.Join(dir, "elsewhere"): true,
		filepath.Join(models, "other", "1"): true, around: false,
		link: false, state: false, models: false, dir: false, "/": false,
	} {
		if err := s.admits(path); (err == nil) != admitted {
			t.Errorf("%s: %v", path, err)
		}
	}
}
