// fragments_test.go: conf.d: what is read of it, what it is merged into, and where each value is said to have come from.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// lay writes an archive into a new directory and returns that.
func lay(t testing.TB, archive string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		path := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFragments(t *testing.T) {
	const main = `-- inferd.yaml --
models_dir: models
log: {level: warn}
defaults: {version_policy: {latest: 2}}
models:
- name: a
  base_path: /a
  version_labels: {stable: 1}
  version_policy: {latest: 3}
- name: b
  base_path: /b
admission:
  clients:
  - {name: line, address: 192.0.2.1}
`
	for _, c := range []struct {
		name, archive string
		want          string // of Show, without what is at its default; or of the error
	}{
		{"none", main, "log.level: warn # DIR/inferd.yaml:2"},
		{"a map key by key", main + "-- conf.d/10.yaml --\nlog:\n  format: json\n", "log.format: json # DIR/conf.d/10.yaml:2\nlog.level: warn # DIR/inferd.yaml:2"},
		{"the order of their names", main + "-- conf.d/9.yaml --\nlog: {level: error}\n-- conf.d/10.yaml --\nlog: {level: debug}\n", "log.level: error # DIR/conf.d/9.yaml:1"},
		{"models by name", main + "-- conf.d/10.yaml --\nmodels:\n- name: c\n- name: a\n  optional: true\n  version_policy: {all: {}}\n  version_labels: {canary: 4}\n", `models[0].name: a # DIR/inferd.yaml:5
models[0].base_path: /a # DIR/inferd.yaml:6
models[0].optional: true # DIR/conf.d/10.yaml:4
models[0].version_labels: {canary: 4, stable: 1} # DIR/inferd.yaml:7, DIR/conf.d/10.yaml:6
models[0].version_policy: {all: {}} # DIR/conf.d/10.yaml:5
models[1].name: b # DIR/inferd.yaml:9
models[1].base_path: /b # DIR/inferd.yaml:10
models[2].name: c # DIR/conf.d/10.yaml:2
log.level: warn # DIR/inferd.yaml:2`},
		{"other lists as a whole", main + "-- conf.d/10.yaml --\nadmission:\n  clients:\n  - {name: two, address: 192.0.2.2}\n", "admission.clients:\n  - DIR/conf.d/10.yaml:2"},
		{"a key without a value changes nothing", main + "-- conf.d/10.yaml --\nlog:\nmodels:\ndefaults:\n  version_policy:\n", "defaults.version_policy: {latest: 2} # DIR/inferd.yaml:3\nlog.level: warn # DIR/inferd.yaml:2"},
		{"relative paths are the main file's", main + "-- conf.d/10.yaml --\nstate_dir: s\n", "state_dir: DIR/s # DIR/conf.d/10.yaml:1"},
		{"a file that is all comments", main + "-- conf.d/10.yaml --\n# nothing\n", "log.level: warn # DIR/inferd.yaml:2"},
		{"other names are left alone", main + "-- conf.d/10.yaml.dpkg-old --\nlog: {level: debug}\n-- conf.d/.10.yaml --\nlog: {level: debug}\n-- conf.d/README --\nhello\n", "log.level: warn # DIR/inferd.yaml:2"},
		{"a main file of nothing", "-- inferd.yaml --\n-- conf.d/10.yaml --\nlog: {level: debug}\n", "log.level: debug # DIR/conf.d/10.yaml:1"},

		{"an unknown key", main + "-- conf.d/10.yaml --\n\nlogs: {}\n", `DIR/conf.d/10.yaml:2: unknown key "logs" at the top; did you mean log?`},
		{"a wrong value", main + "-- conf.d/10.yaml --\nlog:\n  level: loud\n", `DIR/conf.d/10.yaml:2: log.level: "loud" is none of debug, info, warn, error`},
		{"a wrong kind", main + "-- conf.d/10.yaml --\nlog: loud\n", `DIR/conf.d/10.yaml:1: log: "loud" where keys are expected`},
		{"a wrong kind at the top", main + "-- conf.d/10.yaml --\n- log\n", "DIR/conf.d/10.yaml:1: a list where keys are expected"},
		{"a key twice in a fragment", main + "-- conf.d/10.yaml --\nlog: {level: info}\nlog: {format: json}\n", "DIR/conf.d/10.yaml:2: log: given twice; it is on line 1 already"},
		{"a key of a model twice", main + "-- conf.d/10.yaml --\nmodels:\n- name: a\n  retain: 1\n  retain: 2\n", "DIR/conf.d/10.yaml:4: models[a].retain: given twice; it is on line 3 already"},
		{"a model twice in a fragment", main + "-- conf.d/10.yaml --\nmodels:\n- {name: c}\n- {name: c}\n- {name: a}\n- {name: a}\n", "DIR/conf.d/10.yaml:3: models[3].name: Illegal to list model c multiple times in config list\nDIR/conf.d/10.yaml:5: models[4].name: Illegal to list model a multiple times in config list"},
		{"a fault of the main file", strings.Replace(main, "warn", "loud", 1) + "-- conf.d/10.yaml --\nlog: {format: json}\n", `DIR/inferd.yaml:2: log.level: "loud" is none of debug, info, warn, error`},
		{"no YAML", main + "-- conf.d/10.yaml --\na: [\n", "DIR/conf.d/10.yaml:1: not YAML: did not find expected node content"},
		{"an alias", main + "-- conf.d/10.yaml --\nlog: &l {level: info}\ngrpc: *l\n", "DIR/conf.d/10.yaml:2: grpc: aliases (*l) are not read; write the value, or use the defaults section for what models share"},
		{"a folder", main + "-- conf.d/10.yaml/x --\n", "DIR/conf.d/10.yaml: is no file; everything in conf.d whose name ends in .yaml is read, so give it another name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := lay(t, c.archive)
			cfg, err := Load(filepath.Join(dir, "inferd.yaml"), nil)
			got := ""
			var faults Faults
			switch {
			case errors.As(err, &faults):
				got = err.Error()
			case err != nil:
				t.Fatal(err)
			default:
				for _, s := range cfg.Show() {
					if s.Key == "admission.clients" {
						got += s.Key + ":\n  - " + s.From + "\n"
					} else if strings.HasPrefix(s.From, dir) {
						got += fmt.Sprintf("%s: %s # %s\n", s.Key, s.Value, s.From)
					}
				}
			}
			got = strings.ReplaceAll(got, dir, "DIR")
			if faults != nil && got != c.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, c.want)
			}
			for line := range strings.SplitSeq(c.want, "\n") {
				if !strings.Contains(got, line) {
					t.Errorf("got:\n%s\nwant in it:\n%s", got, line)
				}
			}
		})
	}
}

func TestFragmentsAreBounded(t *testing.T) {
	dir := lay(t, "-- inferd.yaml --\n-- conf.d/0.yaml --\n")
	file := filepath.Join(dir, "inferd.yaml")
	put := func(i int, text string) {
		if err := os.WriteFile(filepath.Join(dir, "conf.d", fmt.Sprintf("%03d.yaml", i)), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i := range MaxFragments {
		put(i, "")
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "has 257 fragments, at most 256 are read") {
		t.Errorf("one too many: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "conf.d", "0.yaml")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file, nil); err != nil {
		t.Errorf("as many as may be: %v", err)
	}
	for i := range MaxFragmentBytes/MaxFileBytes + 1 {
		put(i, "#"+strings.Repeat("x", MaxFileBytes-1))
	}
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "004.yaml: with it the files of conf.d are larger than 4MiB together") {
		t.Errorf("too much: %v", err)
	}
	put(0, "#"+strings.Repeat("x", MaxFileBytes))
	if _, err := Load(file, nil); err == nil || !strings.Contains(err.Error(), "000.yaml: larger than 1MiB") {
		t.Errorf("a large one: %v", err)
	}
}

// What is watched changes with every fragment that comes, changes or goes.
func TestLookAtSeesFragments(t *testing.T) {
	dir := lay(t, "-- inferd.yaml --\nlog: {level: info}\n")
	load := func() *Config {
		t.Helper()
		c, err := Load(filepath.Join(dir, "inferd.yaml"), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	c := load()
	seen := map[string]bool{c.Digest(): true}
	at := time.Now().Add(time.Hour).Truncate(time.Second)
	for i, step := range []func() error{
		func() error { return os.Mkdir(filepath.Join(dir, "conf.d"), 0o700) },
		func() error {
			return os.WriteFile(filepath.Join(dir, "conf.d", "1.yaml"), []byte("log: {level: warn}"), 0o600)
		},
		func() error {
			return os.WriteFile(filepath.Join(dir, "conf.d", "1.yaml"), []byte("log: {level: error}"), 0o600)
		},
		func() error {
			return os.Rename(filepath.Join(dir, "conf.d", "1.yaml"), filepath.Join(dir, "conf.d", "2.yaml"))
		},
		func() error { return os.Chtimes(filepath.Join(dir, "conf.d", "2.yaml"), at, at) },
		func() error { return os.Remove(filepath.Join(dir, "conf.d", "2.yaml")) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
		sum, written, err := c.LookAt()
		if err != nil {
			t.Fatal(err)
		}
		if same := i == 0 || i == 4 || i == 5; seen[sum] != same {
			t.Errorf("step %d: known %v", i, seen[sum])
		}
		if i == 4 && !written.Equal(at) {
			t.Errorf("the newest was written at %v, not %v", written, at)
		}
		seen[sum] = true
		if again := load(); again.Digest() != sum {
			t.Errorf("step %d: what is read is not what was looked at", i)
		}
	}
}

func TestEmptiedFragment(t *testing.T) {
	dir := lay(t, "-- inferd.yaml --\n-- conf.d/1.yaml --\nlog: {level: warn}\n")
	before, err := Load(filepath.Join(dir, "inferd.yaml"), nil)
	if err != nil {
		t.Fatal(err)
	}
	fragment := filepath.Join(dir, "conf.d", "1.yaml")
	if err := os.Truncate(fragment, 0); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(filepath.Join(dir, "inferd.yaml"), nil); err != nil || c.Emptied(before) != fragment {
		t.Errorf("%v, emptied %q", err, c.Emptied(before))
	}
	if err := os.Remove(fragment); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(filepath.Join(dir, "inferd.yaml"), nil); err != nil || c.Emptied(before) != "" {
		t.Errorf("one that is gone: %v, emptied %q", err, c.Emptied(before))
	}
}

// What stays until a restart is shown with that.
func TestShowWhatWaits(t *testing.T) {
	parse := func(text string) *Config {
		c, err := Parse("/f.yaml", []byte(text), nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	merged, _ := parse("state_dir: /one").Reload(parse("log: {level: warn}\nstate_dir: /two"))
	for _, s := range merged.Show() {
		if s.Key == "state_dir" && (s.Value != "/one" || s.From != "as at the start; what is set now (/f.yaml:2) waits for a restart") {
			t.Errorf("%+v", s)
		}
	}
	again, changes := merged.Reload(parse("state_dir: /one"))
	if got := again.Origin("state_dir"); len(changes) != 1 || got != "/f.yaml:1" {
		t.Errorf("%v, from %s", changes, got)
	}
}

func FuzzFragments(f *testing.F) {
	f.Add([]byte("models:\n- name: a\n  base_path: /a\n"), []byte("models:\n- name: a\n  retain: 2\n- {name: b, base_path: /b}\n"), []byte("log: {level: debug}\n"))
	f.Add([]byte("defaults: {version_policy: {latest: 2}}"), []byte("defaults: {version_policy: {all: {}}}"), []byte("a: *b"))
	f.Add([]byte(""), []byte("models: x"), []byte("models: [1, {}, {name: }, {name: [a]}]\n<<: {}"))
	f.Add([]byte("- a"), []byte("? [a]\n: b"), []byte("log:\n  level: info\n  level: warn\n"))
	f.Fuzz(func(t *testing.T, main, one, two []byte) {
		c, err := ParseFiles([]File{{Name: "/m", Data: main}, {Name: "/d/1", Data: one}, {Name: "/d/2", Data: two}}, nil)
		if err != nil {
			onlyFaults(t, err)
			var faults Faults
			errors.As(err, &faults)
			for _, f := range faults {
				if f.File == "" {
					t.Fatalf("a fault of no file: %v", f)
				}
			}
			return
		}
		again, err := Parse("/m", c.Annotated(), nil)
		if err != nil {
			t.Fatalf("what is shown is refused: %v\n%s", err, c.Annotated())
		}
		if !bytes.Equal(c.YAML(), again.YAML()) {
			t.Fatalf("what is shown is read otherwise:\n%s\n%s", c.YAML(), again.YAML())
		}
		for _, s := range c.Show() {
			if s.From == "" {
				t.Fatalf("%s comes from nowhere", s.Key)
			}
		}
	})
}
