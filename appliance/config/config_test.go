// config_test.go: defaults, sample, reference, units and what else has no text to compare.
package config

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestDefaultIsValid(t *testing.T) {
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

func mustParse(t *testing.T, data []byte) *Config {
	t.Helper()
	c, err := Parse("", data, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.source = nil
	return c
}

// The sample says every key at its default, both as it is and with every key uncommented.
func TestSampleIsTheDefaults(t *testing.T) {
	sample, err := os.ReadFile("../../packaging/inferd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if got := mustParse(t, sample); !reflect.DeepEqual(got, Default()) {
		t.Errorf("the sample changes something:\n%s", got.YAML())
	}
	example := regexp.MustCompile(`(?m)^#- name: .*\n(?:#  .*\n)+`)
	block := example.Find(sample)
	if got := mustParse(t, append([]byte("models:\n"), regexp.MustCompile(`(?m)^#`).ReplaceAll(block, nil)...)); len(got.Models) != 1 || got.Models[0].Name == "" {
		t.Errorf("the example of a model is not one: %q", block)
	}
	commented := regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+: .*)$`)
	sample = example.ReplaceAll(sample, nil)
	if got := commented.FindAll(sample, -1); len(got) != len(leaves()) {
		t.Errorf("%d keys in the sample, want %d", len(got), len(leaves()))
	}
	want := Default()
	want.Defaults.Batching.AllowedBatchSizes = []int64{} // written out as []
	want.Defaults.AllowOps, want.Defaults.SignatureKeys = []string{}, []string{}
	want.Defaults.Rollout.Steps = []float64{}
	want.Admission.Clients = []NamedClient{}
	want.Stream.Origins, want.REST.Origins = []string{}, []string{}
	if got := mustParse(t, commented.ReplaceAll(sample, []byte("$1"))); !reflect.DeepEqual(got, want) {
		t.Errorf("a key in the sample is not at its default:\n%s", got.YAML())
	}
}

func leaves() (list []Key) {
	for _, k := range Keys() {
		if !k.Section && !k.Model {
			list = append(list, k)
		}
	}
	return list
}

func TestGeneratedFilesAreCurrent(t *testing.T) {
	for path, want := range map[string][]byte{"../../docs/configuration.md": Reference(), "../../packaging/inferd.yaml": Sample()} {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the config types say; run go run ./tools/configdoc in the repository root", path)
		}
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	list := Keys()
	if len(list) < 40 {
		t.Fatalf("only %d keys", len(list))
	}
	for _, k := range list {
		if !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: no sentence says what it is: %q", k.Path, k.Doc)
		}
		if !k.Section && k.Default == "" {
			t.Errorf("%s: no default", k.Path)
		}
	}
}

func TestYAMLGivesTheSameAgain(t *testing.T) {
	data := []byte(`
listen: {grpc: "127.0.0.1:1"}
models:
- name: "null"
  version_policy: {specific: [3, 4]}
  version_labels: {"on": 1, "2": 2}
  batching: {max_batch_size: 4, allowed_batch_sizes: [2, 4], batch_timeout: 1500us}
  signatures: {"": {inputs: {"~": {dtype: half, shape: []}, b: {shape: unknown}, c: {name: "x:0"}}}}
- name: b
  version_policy: {all: {}}
limits: {max_request_bytes: 1234B}
`)
	first := mustParse(t, data)
	again := mustParse(t, first.YAML())
	again.Defaults.Batching.AllowedBatchSizes, again.Models[1].Batching.AllowedBatchSizes = nil, nil // written out as []
	if !bytes.Equal(first.YAML(), again.YAML()) {
		t.Errorf("first:\n%s\nagain:\n%s", first.YAML(), again.YAML())
	}
	sig := again.Models[0].Signatures[""]
	if sig == nil || len(sig.Inputs) != 3 {
		t.Fatalf("signatures: %+v", again.Models[0].Signatures)
	}
	if b := sig.Inputs["b"]; !b.GetTensorShape().GetUnknownRank() {
		t.Errorf("an asserted unknown rank came back as %v", b)
	}
	if c := sig.Inputs["c"]; c.TensorShape != nil || c.GetName() != "x:0" || c.Dtype != 0 {
		t.Errorf("a shape that is not asserted came back as %v", c)
	}
	if scalar := sig.Inputs["~"]; scalar.TensorShape == nil || len(scalar.TensorShape.Dim) != 0 || scalar.TensorShape.UnknownRank || scalar.Dtype.String() != "DT_HALF" {
		t.Errorf("an asserted scalar came back as %v", scalar)
	}
}

func TestBytes(t *testing.T) {
	for text, want := range map[string]Bytes{
		"0": 0, "1B": 1, "512MiB": 512 << 20, "64 KiB": 64 << 10, "3GiB": 3 << 30, "2TiB": 2 << 40, "1500kB": 1500e3, "2MB": 2e6, "9GB": 9e9,
		"8388607TiB": 8388607 << 40,
	} {
		if got, err := ParseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "-1B", "1.5MiB", "MiB", "1mib", "8388608TiB", "99999999999999999999B", "1 0B", "+1B", "  1B"} {
		if got, err := ParseBytes(text); err == nil {
			t.Errorf("%q: %d, want an error", text, got)
		}
	}
	for b, want := range map[Bytes]string{0: "0", 1: "1B", 1 << 10: "1KiB", 1536: "1536B", 64 << 20: "64MiB", 1 << 50: "1024TiB"} {
		if got := b.String(); got != want {
			t.Errorf("%d: %s, want %s", int64(b), got, want)
		}
		if back, err := ParseBytes(b.String()); err != nil || back != b {
			t.Errorf("%v read back: %v, %v", b, back, err)
		}
	}
}

func TestDurationsAreShort(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "0s", time.Minute: "1m", time.Hour: "1h", 90 * time.Second: "1m30s", 3 * time.Millisecond: "3ms",
		61 * time.Minute: "1h1m", 10 * time.Second: "10s", 20 * time.Minute: "20m", time.Hour + time.Second: "1h0m1s"} {
		if got := formatDuration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
		if back, err := parseDuration(formatDuration(d)); err != nil || back != d {
			t.Errorf("%v read back: %v, %v", d, back, err)
		}
	}
}

func TestLoadNamesFilesThatCannotBe(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(filepath.Join(dir, "none.yaml"), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an absent file: %v", err)
	}
	if _, err := Load(dir, nil); err == nil {
		t.Error("a directory was read")
	}
	large := filepath.Join(dir, "large.yaml")
	if err := os.WriteFile(large, bytes.Repeat([]byte("#"), MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	var faults Faults
	if _, err := Load(large, nil); !errors.As(err, &faults) || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("a file too large: %v", err)
	}
	if c, err := Load("", nil); err != nil || c.ModelsDir != Default().ModelsDir {
		t.Errorf("no file: %v", err)
	}
}

func TestModelCountIsBounded(t *testing.T) {
	yaml := []byte("models:\n" + strings.Repeat("- {}\n", MaxModels+1))
	var faults Faults
	if _, err := Parse("x", yaml, nil); !errors.As(err, &faults) || len(faults) != 1 {
		t.Errorf("YAML: %d faults", len(faults))
	}
	text := []byte(strings.Repeat("model_config {}\n", MaxModels+1))
	if _, _, err := ParseModelServerConfig("x", text, ModelOptions{}); !errors.As(err, &faults) || len(faults) != 1 {
		t.Errorf("text proto: %d faults", len(faults))
	}
}

func TestModel(t *testing.T) {
	c := mustParse(t, []byte("models_dir: /m\ndefaults: {callers: 3}\nmodels: [{name: a, callers: 5}]"))
	if m, listed := c.Model("a"); !listed || m.Callers != 5 || m.BasePath != "/m/a" {
		t.Errorf("listed: %v %+v", listed, m)
	}
	if m, listed := c.Model("b"); listed || m.Callers != 3 || m.BasePath != "/m/b" || m.Name != "b" {
		t.Errorf("found: %v %+v", listed, m)
	}
}

func TestControlSocket(t *testing.T) {
	long := "/" + strings.Repeat("s", 100)
	for name, c := range map[string]struct {
		configured, xdg, state string
		writable               []string
		closed, squatted       bool // state; the folder among the temporary files
		want                   string
	}{
		"configured":          {"/x/y.sock", "/run/user/1", "/s", []string{"/run"}, false, false, "/x/y.sock"},
		"service":             {"", "", "/s", []string{"/run/inferd"}, false, false, "/run/inferd/control.sock"},
		"root":                {"", "/run/user/0", "/s", []string{"/run", "/run/user/0"}, false, false, "/run/inferd/control.sock"},
		"user":                {"", "/run/user/1", "/s", []string{"/run/user/1"}, false, false, "/run/user/1/inferd/control.sock"},
		"user without a dir":  {"", "/gone", "/s", nil, false, false, "/s/control.sock"},
		"nothing at all":      {"", "", "/s", nil, false, false, "/s/control.sock"},
		"empty is not a path": {"", "", "/s", []string{""}, false, false, "/s/control.sock"},
		"long runtime dir":    {"", long, "/s", []string{long}, false, false, "/s/control.sock"},
		"long state dir":      {"", "", long, nil, false, false, "/tmp/inferd-7/control.sock"},
		"long and squatted":   {"", "", long, nil, false, true, long + "/control.sock"},
		"long and configured": {long + "/x.sock", "", "/s", nil, false, false, long + "/x.sock"},
		"closed state dir":    {"", "", "/s", nil, true, false, "/tmp/inferd-7/control.sock"},
		"nowhere at all":      {"", "", "/s", nil, true, true, "/s/control.sock"},
	} {
		config := &Config{StateDir: c.state, Listen: Listen{Control: c.configured}}
		got := config.controlSocket(places{
			env: func(string) string { return c.xdg }, writable: func(dir string) bool { return slices.Contains(c.writable, dir) },
			makeable: func(string) bool { return !c.closed }, private: func(string) bool { return !c.squatted }, temp: "/tmp", uid: 7,
		})
		if got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestFindControlSocket(t *testing.T) {
	yes := func(string) bool { return true }
	everywhere := places{env: func(string) string { return "/xdg" }, writable: yes, makeable: yes, private: yes, temp: "/tmp", uid: 7}
	for want, there := range map[string][]string{
		"/run/inferd/control.sock":   {"/s/control.sock", "/run/inferd/control.sock"},
		"/xdg/inferd/control.sock":   {"/xdg/inferd/control.sock", "/tmp/inferd-7/control.sock"},
		"/tmp/inferd-7/control.sock": {"/tmp/inferd-7/control.sock"},
		"/else":                      nil,
	} {
		c := &Config{StateDir: "/s"}
		got := c.findControlSocket(everywhere, func(path string) bool { return slices.Contains(there, path) }, func() string { return "/else" })
		if got != want {
			t.Errorf("with sockets %v: %s, want %s", there, got, want)
		}
	}
	c := &Config{Listen: Listen{Control: "/configured"}}
	if got := c.findControlSocket(everywhere, func(string) bool { return false }, nil); got != "/configured" {
		t.Error(got)
	}
}

func TestMayMake(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{dir: true, filepath.Join(dir, "a", "b"): true, filepath.Join(dir, "file", "b"): false} {
		if got := mayMake(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestPrivate(t *testing.T) {
	dir := t.TempDir()
	if !private(filepath.Join(dir, "none")) {
		t.Error("a folder that is not there is somebody's")
	}
	for mode, want := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o775: false, 0o777: false} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if got := private(dir); got != want {
			t.Errorf("mode %o: %v", mode, got)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	if private(link) {
		t.Error("a symbolic link counts as a folder of one's own")
	}
}

func TestFaultLater(t *testing.T) {
	c, err := Parse("x.yaml", []byte("listen:\n  http: 127.0.0.1:7\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if f := c.Fault("listen.http", "is taken"); f.Error() != "x.yaml:2: listen.http: is taken" {
		t.Errorf("%+v", f)
	}
	if f := c.Fault("listen.grpc", "is taken"); f.Error() != "x.yaml:1: listen.grpc: is taken" {
		t.Errorf("%+v", f)
	}
	if f := Default().Fault("listen.grpc", "is taken"); f.Error() != "listen.grpc: is taken" {
		t.Errorf("%v", f)
	}
}

func TestOpenWarning(t *testing.T) {
	for addrs, open := range map[[2]string]bool{
		{"127.0.0.1:1", "[::1]:2"}: false, {"localhost:1", ""}: false, {"", ""}: false,
		{":1", ""}: true, {"", "0.0.0.0:2"}: true, {"[::]:1", ""}: true, {"10.0.0.1:1", ""}: true, {"box.lan:1", ""}: true,
	} {
		c := &Config{Listen: Listen{GRPC: addrs[0], HTTP: addrs[1]}}
		if got := c.OpenWarning() != ""; got != open {
			t.Errorf("%v: %q", addrs, c.OpenWarning())
		}
	}
}

func TestFlagsNameKeys(t *testing.T) {
	f := new(Flags)
	if err := f.Set("listen.grcp", "x"); err == nil {
		t.Error("a key that does not exist was set")
	}
	if err := f.Set("models", "x"); err == nil {
		t.Error("the list of models was set by a flag")
	}
	if err := f.Set("log.level", "debug"); err != nil {
		t.Error(err)
	}
	c, err := Parse("", nil, f)
	if err != nil || c.Log.Level != "debug" {
		t.Errorf("%v, %v", c.Log, err)
	}
	seen := 0
	for v := range f.All() {
		seen++
		if v.Key.Path == "log.level" && v.String() != "debug" {
			t.Errorf("log.level shows %q", v.String())
		}
		if v.Key.Path == "monitoring.paths" && v.String() != "/metrics,/monitoring/prometheus/metrics" {
			t.Errorf("monitoring.paths shows %q", v.String())
		}
		if v.Key.Path == "listen.control" && v.String() != "" {
			t.Errorf("listen.control shows %q", v.String())
		}
	}
	if want := len(leaves()) - 2; seen != want { // all but the version policy and the named clients
		t.Errorf("%d flags, want %d", seen, want)
	}
}

// Every default that a flag shows is one that it takes.
func TestFlagDefaultsCanBeSet(t *testing.T) {
	f := new(Flags)
	for v := range f.All() {
		if err := v.Set(v.String()); err != nil {
			t.Error(err)
		}
	}
	c, err := Parse("", nil, f)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.YAML(), Default().YAML()) {
		t.Errorf("setting the defaults changes them:\n%s", c.YAML())
	}
}
