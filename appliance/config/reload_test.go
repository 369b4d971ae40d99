// reload_test.go: what differs between two configurations, and what a running inferd makes of it.
package config

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/wamuir/graft/tensorflow/serving/config_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
)

func parsed(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse("/etc/x/inferd.yaml", []byte(text), nil)
	if err != nil {
		t.Fatalf("%s\n%v", text, err)
	}
	return c
}

func TestReload(t *testing.T) {
	for _, test := range []struct {
		name     string
		old, new string
		want     []string // "EFFECT KEY: FROM -> TO"
		check    func(t *testing.T, c *Config)
	}{
		{name: "nothing", old: "models: [{name: m, base_path: /m}]", new: "# other words\nmodels:\n- name: m\n  base_path: /m\n"},
		{name: "a list that is empty or left out", old: "defaults: {allow_ops: []}", new: ""},
		{name: "at once", old: "", new: "updater: {poll_interval: 9s, config_poll: 1s}\nlog: {level: debug}\ndrain_timeout: 1s",
			want: []string{"now updater.poll_interval: 5s -> 9s", "now updater.config_poll: 0s -> 1s", "now log.level: info -> debug", "now drain_timeout: 20s -> 1s"},
			check: func(t *testing.T, c *Config) {
				if c.Updater.PollInterval.Seconds() != 9 || c.Log.Level != "debug" {
					t.Errorf("%+v", c)
				}
			}},
		{name: "a restart, and the rest all the same", old: "", new: "listen: {http: '127.0.0.1:9'}\nruntime: {gpu: {memory_fraction: 0.5}}\nupdater: {settle_time: 1s, watch: false}\nmodels_dir: /other",
			want: []string{"restart listen.http: 127.0.0.1:8501 -> 127.0.0.1:9", "restart models_dir: /var/lib/inferd/models -> /other",
				"restart runtime.gpu.memory_fraction: 0 -> 0.5", "restart updater.watch: true -> false", "now updater.settle_time: 2s -> 1s"},
			check: func(t *testing.T, c *Config) {
				if d := Default(); c.Listen != d.Listen || c.ModelsDir != d.ModelsDir || c.Runtime != d.Runtime || !c.Updater.Watch || c.Updater.SettleTime.Seconds() != 1 {
					t.Errorf("%+v", c)
				}
			}},
		{name: "a model's options", old: "models: [{name: m, base_path: /m}]",
			new: "models: [{name: m, base_path: /n, batching: {max_batch_size: 4}, version_policy: {latest: 2}, version_labels: {stable: 1}, optional: true, nan: warn}]",
			want: []string{"now models[m].base_path: /m -> /n", "now models[m].optional: false -> true", "now models[m].version_labels: {} -> {stable: 1}",
				"now models[m].version_policy: {latest: 1} -> {latest: 2}", "next load models[m].nan: refuse -> warn", "next load models[m].batching.max_batch_size: 0 -> 4"}},
		{name: "defaults, said once for all who follow", old: "models: [{name: a, base_path: /a}, {name: b, base_path: /b, callers: 3}]",
			new:  "defaults: {callers: 2, version_policy: {all: {}}}\nmodels: [{name: b, base_path: /b, callers: 4}, {name: a, base_path: /a}]",
			want: []string{"now defaults.version_policy: {latest: 1} -> {all: {}}", "next load defaults.callers: 0 -> 2", "next load models[b].callers: 3 -> 4"},
			check: func(t *testing.T, c *Config) {
				if a, _ := c.Model("a"); a.Callers != 2 || !a.VersionPolicy.All {
					t.Errorf("%+v", a)
				}
			}},
		{name: "what is kept", old: "", new: "defaults: {retain: 3, keep_last_good: false}\nupdater: {keep_copy_limit: 1MiB}",
			want: []string{"now defaults.retain: 0 -> 3", "now defaults.keep_last_good: true -> false", "restart updater.keep_copy_limit: 1GiB -> 1MiB"}},
		{name: "models come and go", old: "models: [{name: a, base_path: /a}, {name: b, base_path: /b}]", new: "models: [{name: c.d, base_path: /c}, {name: b, base_path: /b}]",
			want: []string{"now models[c.d]: none -> /c", "now models[a]: /a -> none"}},
		{name: "a base path below a models_dir that stays", old: "models: [{name: a}]", new: "models_dir: /other\nmodels: [{name: a}, {name: b, base_path: /other/b}]",
			want: []string{"restart models_dir: /var/lib/inferd/models -> /other", "now models[b]: none -> /other/b"},
			check: func(t *testing.T, c *Config) {
				if a, _ := c.Model("a"); a.BasePath != filepath.Join(Default().ModelsDir, "a") {
					t.Errorf("%+v", a)
				}
			}},
		{name: "assertions", old: "models: [{name: m, base_path: /m, signatures: {s: {inputs: {x: {dtype: float}}}}}]",
			new:  "models: [{name: m, base_path: /m, signatures: {s: {inputs: {x: {dtype: int32}}}}}]",
			want: []string{"next load models[m].signatures: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			old, next := parsed(t, test.old), parsed(t, test.new)
			merged, changes := old.Reload(next)
			var got []string
			for _, c := range changes {
				got = append(got, string(c.Effect)+" "+c.String())
			}
			same := slices.EqualFunc(got, test.want, func(g, w string) bool { return g == w || strings.HasSuffix(w, ": ") && strings.HasPrefix(g, w) })
			if !same {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
			if err := merged.Validate(); err != nil {
				t.Error(err)
			}
			if test.check != nil {
				test.check(t, merged)
			}
			if _, again := merged.Reload(merged); len(again) != 0 {
				t.Errorf("against itself: %v", again)
			}
			restarts := 0
			for _, c := range changes {
				if c.Effect == Restart {
					restarts++
				}
			}
			if _, again := merged.Reload(next); len(again) != restarts {
				t.Errorf("the same again: %v", again)
			}
		})
	}
}

// Whatever is not named as reloadable needs a restart, and what is named exists.
func TestReloadableKeysExist(t *testing.T) {
	known := []string{"models"}
	for _, k := range Keys() {
		known = append(known, k.Path)
	}
	for key := range reloadable {
		if !slices.Contains(known, key) {
			t.Errorf("%s is no key", key)
		}
	}
	model := keysOf(fieldsOf(reflect.ValueOf(&Model{}).Elem()))
	for _, key := range atOnce {
		if !slices.Contains(model, key) {
			t.Errorf("%s is no key of a model", key)
		}
	}
	for key, want := range map[string]Effect{"listen.grpc": Restart, "defaults.version_policy": Now, "defaults.batching.enabled": NextLoad, "models[a.b[c].d].callers": NextLoad,
		"models[x].base_path": Now, "defaults.queue.max_jobs": Now, "models[x].queue.max_age": Now, "queue.full": Restart, "queue.backoff": Now, "state_dir": Restart, "limits.max_request_bytes": Restart} {
		if got := effectOf(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
}

func list(models ...*config_go_proto.ModelConfig) *config_go_proto.ModelConfigList {
	return &config_go_proto.ModelConfigList{Config: models}
}

func TestWithModels(t *testing.T) {
	c := parsed(t, "models: [{name: m, base_path: /m, callers: 3, version_labels: {stable: 1}, version_policy: {all: {}}}, {name: gone, base_path: /g}]")
	specific := &config_go_proto.ModelConfig{Name: "m", BasePath: "/n", ModelPlatform: "tensorflow", VersionLabels: map[string]int64{"canary": 2}}
	next, _, err := c.WithModels(list(specific, &config_go_proto.ModelConfig{Name: "new", BasePath: "/new"}))
	if err != nil {
		t.Fatal(err)
	}
	if len(next.Models) != 2 || len(c.Models) != 2 || c.Models[0].BasePath != "/m" {
		t.Fatalf("%+v, was %+v", next.Models, c.Models)
	}
	m := next.Models[0]
	if m.BasePath != "/n" || m.Callers != 3 || !reflect.DeepEqual(m.VersionLabels, map[string]int64{"canary": 2}) || m.VersionPolicy.Latest != 1 {
		t.Errorf("%+v", m)
	}
	if n := next.Models[1]; n.Name != "new" || n.RunTimeout != c.Defaults.RunTimeout || next.File() != c.File() {
		t.Errorf("%+v", n)
	}
	if empty, _, err := c.WithModels(list()); err != nil || len(empty.Models) != 0 {
		t.Errorf("an empty list: %v", err)
	}
	for text, l := range map[string]*config_go_proto.ModelConfigList{
		"Illegal to list model m multiple times in config list": list(specific, specific),
		"Illegal to change a model's platform. For model m platform was tensorflow and new platform requested is other": list(
			&config_go_proto.ModelConfig{Name: "m", BasePath: "/m", ModelPlatform: "other"}),
		"is not an absolute path": list(&config_go_proto.ModelConfig{Name: "m", BasePath: "m"}),
		"model_platform":          list(&config_go_proto.ModelConfig{Name: "n", BasePath: "/m", ModelPlatform: "other"}),
		"every model has a name":  list(&config_go_proto.ModelConfig{BasePath: "/m"}),
	} {
		var e *inference.Error
		if _, _, err := c.WithModels(l); !errors.As(err, &e) || e.Code != inference.InvalidArgument || !strings.Contains(e.Msg, text) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// FuzzWithModels: a list off the wire is refused with a code or gives a configuration that is valid, and one that it was made of is left alone.
func FuzzWithModels(f *testing.F) {
	for _, l := range []*config_go_proto.ModelConfigList{list(), list(&config_go_proto.ModelConfig{Name: "m", BasePath: "/n", VersionLabels: map[string]int64{"a": 1}},
		&config_go_proto.ModelConfig{Name: "b/", BasePath: "x", ModelPlatform: "other"})} {
		data, err := proto.Marshal(l)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l := new(config_go_proto.ModelConfigList)
		if proto.Unmarshal(data, l) != nil {
			return
		}
		c := Default()
		c.Models = []Model{{Name: "m", BasePath: "/m", ModelOptions: c.Defaults}}
		before := c.YAML()
		next, _, err := c.WithModels(l)
		if !bytes.Equal(c.YAML(), before) {
			t.Fatal("the configuration in force was changed")
		}
		var e *inference.Error
		if err != nil {
			if !errors.As(err, &e) || e.Code != inference.InvalidArgument || e.Msg == "" {
				t.Fatalf("%#v", err)
			}
			return
		}
		if err := next.Validate(); err != nil {
			t.Fatalf("accepted and not valid: %v", err)
		}
		if _, changes := next.Reload(next); len(changes) != 0 {
			t.Fatalf("differs from itself: %v", changes)
		}
	})
}

// A file with faults still says where the inferd is that is to hear of them.
func TestSocketOfAFaultyFile(t *testing.T) {
	dir, err := os.MkdirTemp("", "ctl") // a unix socket's path has room for 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file, socket := filepath.Join(dir, "inferd.yaml"), filepath.Join(dir, "s")
	if err := os.WriteFile(file, []byte("listen: {control: s}\nlimts: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var faults Faults
	if _, err := FindControlSocket(file); !errors.As(err, &faults) {
		t.Errorf("nothing answers: %v", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if got, err := FindControlSocket(file); err != nil || got != socket {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := FindControlSocket(file + "x"); err == nil || errors.As(err, &faults) {
		t.Errorf("no file: %v", err)
	}
}

func TestLookAt(t *testing.T) {
	file := filepath.Join(t.TempDir(), "inferd.yaml")
	if err := os.WriteFile(file, []byte("log: {level: debug}"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	sum, written, err := c.LookAt()
	if err != nil || sum != c.Digest() || written.IsZero() || c.File() != file {
		t.Errorf("%s is not %s, written %v, %v", sum, c.Digest(), written, err)
	}
	if err := os.Truncate(file, 0); err != nil {
		t.Fatal(err)
	}
	empty, err := Load(file, nil)
	if err != nil || empty.Emptied(c) != file || empty.Emptied(empty) != "" || c.Emptied(c) != "" || empty.Emptied(Default()) != "" {
		t.Errorf("%v, emptied %q", err, empty.Emptied(c))
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*Config{c, Default()} {
		if _, _, err := c.LookAt(); err == nil {
			t.Error("a file that is not there has a digest")
		}
	}
}
