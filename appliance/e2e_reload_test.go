// e2e_reload_test.go: the configuration read again while real workers serve and requests run.
package appliance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// filed is an appliance whose configuration is a file.
type filed struct {
	*server
	dir, file string
}

// serveFile runs an appliance with TensorFlow and that configuration. Relative paths in it are below filed.dir. With setUp, that is called
// with the directory first.
func serveFile(t *testing.T, text string, setUp func(dir string)) *filed {
	t.Helper()
	lib := library(t)
	dir, err := os.MkdirTemp("", "inferd") // not t.TempDir: a unix socket's path has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	flags := new(config.Flags)
	for key, value := range map[string]string{"listen.grpc": "127.0.0.1:0", "listen.http": "127.0.0.1:0", "listen.control": filepath.Join(dir, "ctl"),
		"state_dir": filepath.Join(dir, "state"), "runtime.library": lib, "runtime.isolation": "version"} {
		if err := flags.Set(key, value); err != nil {
			t.Fatal(err)
		}
	}
	f := &filed{dir: dir, file: filepath.Join(dir, "inferd.yaml")}
	f.write(t, text)
	if setUp != nil {
		setUp(dir)
	}
	read := func() (*config.Config, []config.Ignored, error) {
		c, err := config.Load(f.file, flags)
		return c, nil, err
	}
	cfg, _, err := read()
	if err != nil {
		t.Fatal(err)
	}
	f.server = runWith(t, cfg, func(a *Appliance) { a.opts.Reload = read })
	return f
}

// write replaces the configuration's text as an editor does; it counts as written a while ago.
func (f *filed) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(f.file+".new", old, old); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.file+".new", f.file); err != nil {
		t.Fatal(err)
	}
}

// reload has the text read and taken over.
func (f *filed) reload(text string) []control.Change {
	f.t.Helper()
	f.write(f.t.(*testing.T), text)
	done := f.Reload(f.t.Context(), "test")
	if len(done.Faults) > 0 {
		f.t.Fatalf("refused: %q", done.Faults)
	}
	return done.Changes
}

func (f *filed) put(t *testing.T, model string, number int64, m *modeltest.Model) {
	t.Helper()
	if _, err := m.Publish(filepath.Join(f.dir, model), number); err != nil {
		t.Fatal(err)
	}
}

func hasCondition(st *control.Status, code string, texts ...string) bool {
	return slices.ContainsFunc(st.Conditions, func(c control.Condition) bool { return c.Code == code && containsAll(c.Message, texts) })
}

const quick = "models_dir: ''\nupdater: {settle_time: 200ms}\n"

func TestReloadUnderLoad(t *testing.T) {
	f := serveFile(t, quick+"models: [{name: a, base_path: a}]", func(dir string) {
		for _, base := range []string{"a", "b"} {
			if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(dir, base), 1); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(dir, "elsewhere"), 5); err != nil {
			t.Fatal(err)
		}
	})
	pid := f.live("a", 1).Worker.PID
	clients := f.startLoad("a", 2, halfPlusTwo)
	clients.more(20)

	// Refused as a whole: the model that is right in it is not added.
	f.write(t, quick+"models: [{name: b, base_path: b}, {name: c, base_pat: c}]\nlog: {level: loud}\n")
	done := f.Reload(t.Context(), "test")
	if len(done.Faults) < 2 || len(done.Changes) != 0 {
		t.Fatalf("%+v", done)
	}
	f.until("the refusal in sight", func(st *control.Status) bool {
		return hasCondition(st, health.CodeReload, "base_pat", "log.level", "stays in force")
	})
	f.logs.wait(t, "msg", "configuration refused", "err", "log.level", "reason", "test")
	clients.more(20)
	if st := f.Status(); len(st.Models) != 1 || !st.Ready {
		t.Fatalf("%+v", st)
	}

	// Taken over as a whole. What serves goes on in its process, though its batching is another at the next load.
	changes := f.reload(quick + "models: [{name: b, base_path: b}, {name: a, base_path: a, batching: {enabled: false}}]\nlimits: {max_connections: 7}")
	f.live("b", 1)
	if st := f.Status(); hasCondition(&st, health.CodeReload) || !hasCondition(&st, health.CodeRestart, "limits.max_connections") || f.live("a", 1).Worker.PID != pid {
		t.Fatalf("%+v after %+v", st, changes)
	}
	clients.more(20)

	// Another base path: the new version is live before the old one goes.
	f.reload(quick + "models: [{name: b, base_path: b}, {name: a, base_path: elsewhere, batching: {enabled: false}}]")
	f.live("a", 5)
	f.until("the old one gone", func(st *control.Status) bool { return version(st, "a", 1) == nil })
	clients.more(20)
	if st := f.Status(); hasCondition(&st, health.CodeRestart) {
		t.Fatalf("%+v", st.Conditions)
	}

	// No longer listed: unloaded. Empty: refused.
	f.reload(quick + "models: [{name: a, base_path: elsewhere}]")
	f.until("b gone", func(st *control.Status) bool { return !isLive(st, "b", 1) })
	f.write(t, "")
	if done := f.Reload(t.Context(), "test"); len(done.Faults) != 1 || !strings.Contains(done.Faults[0], "is empty") {
		t.Fatalf("%+v", done)
	}
	clients.more(20)
	if good, refused := clients.end(); refused != 0 || good == 0 {
		t.Errorf("%d answers, %d refused", good, refused)
	}
	f.ask("a", []float32{4}, []float32{4})
}

// TestReloadOfTheModelsDirectory: found models take the defaults anew, and listing one, or no longer, does not unload it.
func TestReloadOfTheModelsDirectory(t *testing.T) {
	const head = "models_dir: models\nupdater: {settle_time: 200ms}\n"
	f := serveFile(t, head, func(dir string) {
		if err := os.MkdirAll(filepath.Join(dir, "models"), 0o755); err != nil {
			t.Fatal(err)
		}
	})
	f.put(t, "models/m", 1, modeltest.HalfPlusTwo())
	f.put(t, "models/m", 2, modeltest.HalfPlusTwo())
	pid := f.live("m", 2).Worker.PID
	clients := f.startLoad("m", 2, halfPlusTwo)
	f.reload(head + "defaults: {version_policy: {all: {}}}")
	f.live("m", 1)
	f.reload(head + "models: [{name: m, version_labels: {stable: 2}}]")
	f.until("version 1 unloaded", func(st *control.Status) bool { return !isLive(st, "m", 1) })
	if n, ok := f.catalog.Label("m", "stable"); !ok || n != 2 {
		t.Errorf("label %d, %v", n, ok)
	}
	f.reload(head)
	clients.more(20)
	if v := f.live("m", 2); v.Worker.PID != pid {
		t.Errorf("another process, %d instead of %d", v.Worker.PID, pid)
	}
	if _, ok := f.catalog.Label("m", "stable"); ok {
		t.Error("the label is still there")
	}
	if _, refused := clients.end(); refused != 0 {
		t.Errorf("%d refused", refused)
	}
}

// TestConfigPoll: a file that changes is read again, once for each contents, and not while it is being written.
func TestConfigPoll(t *testing.T) {
	const poll = "models_dir: ''\nupdater: {settle_time: 200ms, config_poll: 100ms}\n"
	f := serveFile(t, poll, func(dir string) {
		if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(dir, "b"), 1); err != nil {
			t.Fatal(err)
		}
	})
	f.write(t, poll+"models: [{name: b, base_path: b}]")
	f.live("b", 1)
	f.write(t, poll+"models: 7")
	f.until("the refusal in sight", func(st *control.Status) bool { return hasCondition(st, health.CodeReload, "models") })
	f.write(t, poll+"models: [{name: b, base_path: b}]\nlog: {level: debug}") // what is in force, but for a level
	f.until("no refusal any more", func(st *control.Status) bool { return !hasCondition(st, health.CodeReload) })
	f.logs.wait(t, "msg", "setting changed", "name", "log.level")
	if !isLive(ptr(f.Status()), "b", 1) {
		t.Error("b is not live any more")
	}

	// Step by step, with nobody else looking.
	f.reload("models_dir: ''\nmodels: [{name: b, base_path: b}]")
	tried := f.current.Load().Digest()
	refusals := func() int { return strings.Count(f.logs.tail(1<<20), `"msg":"configuration refused"`) }
	before := refusals()
	f.write(t, "models: 8")
	first := f.pollConfig(t.Context(), tried)
	if again := f.pollConfig(t.Context(), first); again != first || first == tried || refusals() != before+1 {
		t.Errorf("%d refusals of one text, want 1", refusals()-before)
	}
	if err := os.Rename(f.file, f.file+".away"); err != nil {
		t.Fatal(err)
	}
	gone := f.pollConfig(t.Context(), first)
	if again := f.pollConfig(t.Context(), gone); again != gone || gone == first || refusals() != before+2 {
		t.Errorf("%d refusals, want 2", refusals()-before)
	}
	if err := os.WriteFile(f.file, []byte("models: 9"), 0o600); err != nil { // this very moment
		t.Fatal(err)
	}
	if got := f.pollConfig(t.Context(), gone); got != gone || refusals() != before+2 {
		t.Errorf("a file that is being written was read")
	}
	f.write(t, "models_dir: ''\nmodels: [{name: b, base_path: b}]")
	if f.pollConfig(t.Context(), gone); f.health.Has(health.CodeReload) {
		t.Error("the condition stays though the file is as it was")
	}
}

func ptr[T any](v T) *T { return &v }

// TestReloadWithoutAFile: an appliance that was made of a Config says that it cannot read it again.
func TestReloadWithoutAFile(t *testing.T) {
	s := run(t, testConfig(t, nil))
	c := control.Dial(s.cfg.Listen.Control)
	defer c.Close()
	done, err := c.Reload(t.Context())
	if err != nil || len(done.Faults) != 1 || !strings.Contains(done.Faults[0], "cannot read it again") {
		t.Errorf("%+v, %v", done, err)
	}
}
