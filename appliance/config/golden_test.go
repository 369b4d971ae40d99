// golden_test.go: cases in testdata/*.txtar, each an input and what comes of it. go test -update rewrites the results.
package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"go.yaml.in/yaml/v3"
)

var update = flag.Bool("update", false, "rewrite the results in testdata")

// A golden case is a run of files "NAME/FILE" in an archive. Its last file is NAME/result; the others are written to a directory.
// run gives the result with the directory's name replaced by DIR.
func golden(t *testing.T, archive string, run func(t *testing.T, dir string) string) {
	t.Helper()
	path := filepath.Join("testdata", archive)
	a, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	dir := ""
	for i := range a.Files {
		f := &a.Files[i]
		name, file, ok := strings.Cut(f.Name, "/")
		if !ok {
			t.Fatalf("%s: file %s belongs to no case", path, f.Name)
		}
		if dir == "" {
			if seen[name] {
				t.Fatalf("%s: case %s twice", path, name)
			}
			seen[name] = true
			dir = t.TempDir()
		}
		if file != "result" {
			if err := os.WriteFile(filepath.Join(dir, file), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
			continue
		}
		from := dir
		dir = ""
		t.Run(name, func(t *testing.T) {
			got := strings.ReplaceAll(run(t, from), from, "DIR")
			if *update {
				f.Data = []byte(got)
			} else if got != string(f.Data) {
				t.Errorf("got:\n%s\nwant:\n%s", got, f.Data)
			}
		})
	}
	if dir != "" {
		t.Fatalf("%s: the last case has no result", path)
	}
	if *update {
		if err := os.WriteFile(path, txtar.Format(a), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// show is what the configuration changes, one key on each line, or what is wrong.
func show(c *Config, ignored []Ignored, err error) string {
	var b strings.Builder
	if err != nil {
		var (
			faults Faults
			start  *StartError
		)
		code := 1
		if errors.As(err, &faults) && !errors.As(err, &start) {
			code = 2
		}
		fmt.Fprintf(&b, "exit %d\n%v\n", code, err)
		return b.String()
	}
	base := flatten(Default())
	own := flatten(c)
	for _, line := range own.order {
		key, value := line[0], line[1]
		reference := base.values[key]
		if i := strings.Index(key, "]."); strings.HasPrefix(key, "models[") && i > 0 {
			reference = own.values["defaults"+key[i+1:]]
		}
		ofModel := strings.HasPrefix(key, "models[") && reference == ""
		if ofModel && (value == `""` || value == "{}" || value == "false") {
			continue // a key that only models have, at its default
		}
		if value != reference {
			fmt.Fprintf(&b, "%s: %s\n", key, value)
		}
	}
	for _, i := range ignored {
		fmt.Fprintf(&b, "ignored %s: %s\n", i.Name, i.Reason)
	}
	if w := c.OpenWarning(); w != "" {
		fmt.Fprintf(&b, "warning %s\n", w)
	}
	if b.Len() == 0 {
		return "defaults\n"
	}
	return b.String()
}

type flat struct {
	order  [][2]string
	values map[string]string
}

func flatten(c *Config) flat {
	f := flat{values: make(map[string]string)}
	f.add("", encode(reflect.ValueOf(c).Elem()))
	return f
}

func (f *flat) add(path string, n *yaml.Node) {
	switch {
	case n.Kind == yaml.MappingNode && n.Style != yaml.FlowStyle:
		for i := 0; i < len(n.Content); i += 2 {
			f.add(join(path, n.Content[i].Value), n.Content[i+1])
		}
	case n.Kind == yaml.SequenceNode && n.Style != yaml.FlowStyle && path != "":
		for i, e := range n.Content {
			f.add(fmt.Sprintf("%s[%d]", path, i), e)
		}
	default:
		b, err := yaml.Marshal(n)
		if err != nil {
			panic(err)
		}
		f.order = append(f.order, [2]string{path, strings.TrimSpace(string(b))})
		f.values[path] = strings.TrimSpace(string(b))
	}
}

// words reads a file of one argument on each line, with DIR for the directory.
func words(t *testing.T, dir, file string) (list []string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, file))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.SplitSeq(string(data), "\n") {
		if line != "" {
			list = append(list, strings.ReplaceAll(line, "DIR", dir))
		}
	}
	return list
}

// loadCase is Load of inferd.yaml with the flags in the file flags.
func loadCase(t *testing.T, dir string) string {
	flags := new(Flags)
	fs := flag.NewFlagSet("inferd", flag.ContinueOnError)
	flags.Register(fs)
	if err := fs.Parse(words(t, dir, "flags")); err != nil {
		t.Fatal(err)
	}
	c, err := Load(filepath.Join(dir, "inferd.yaml"), flags)
	return show(c, nil, err)
}

func TestLoad(t *testing.T) { golden(t, "load.txtar", loadCase) }

func TestFaults(t *testing.T) { golden(t, "faults.txtar", loadCase) }

func TestServing(t *testing.T) {
	golden(t, "serving.txtar", func(t *testing.T, dir string) string {
		c, ignored, err := ParseTFServing(words(t, dir, "args"))
		return show(c, ignored, err)
	})
}

func TestModelConfig(t *testing.T) {
	golden(t, "modelconfig.txtar", func(t *testing.T, dir string) string {
		c, ignored, err := ParseTFServing([]string{"--model_config_file=" + filepath.Join(dir, "models.config"), "--enable_batching", "--listen.grpc=127.0.0.1:8500"})
		return show(c, ignored, err)
	})
}
