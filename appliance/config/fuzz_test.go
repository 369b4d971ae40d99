// fuzz_test.go: what others write never brings a panic, and what is accepted is valid.
package config

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// seed adds every file of that name in an archive of golden cases.
func seed(f *testing.F, archive, file string) {
	a, err := txtar.ParseFile("testdata/" + archive)
	if err != nil {
		f.Fatal(err)
	}
	n := 0
	for _, x := range a.Files {
		if strings.HasSuffix(x.Name, "/"+file) {
			f.Add(x.Data)
			n++
		}
	}
	if n == 0 {
		f.Fatalf("no %s in %s", file, archive)
	}
}

func onlyFaults(t *testing.T, err error) {
	t.Helper()
	var faults Faults
	if !errors.As(err, &faults) || len(faults) == 0 {
		t.Fatalf("not a list of faults: %v", err)
	}
	for _, f := range faults {
		if f.Msg == "" {
			t.Fatalf("a fault without words: %+v", f)
		}
	}
}

func FuzzParse(f *testing.F) {
	seed(f, "load.txtar", "inferd.yaml")
	seed(f, "faults.txtar", "inferd.yaml")
	sample, err := os.ReadFile("../../packaging/inferd.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sample)
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("", data, nil)
		if err != nil {
			onlyFaults(t, err)
			return
		}
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted and not valid: %v", err)
		}
		again, err := Parse("", c.YAML(), nil)
		if err != nil {
			t.Fatalf("its own form is refused: %v\n%s", err, c.YAML())
		}
		if !bytes.Equal(c.YAML(), again.YAML()) {
			t.Fatalf("its own form is read otherwise:\n%s\n%s", c.YAML(), again.YAML())
		}
	})
}

func FuzzModelServerConfig(f *testing.F) {
	seed(f, "modelconfig.txtar", "models.config")
	f.Fuzz(func(t *testing.T, data []byte) {
		models, _, err := ParseModelServerConfig("f", data, defaultOptions())
		if err != nil {
			onlyFaults(t, err)
			return
		}
		for _, m := range models {
			for key, s := range m.Signatures {
				if key == "" || s == nil {
					t.Fatalf("signature %q: %v", key, s)
				}
			}
		}
	})
}

func FuzzBatchingParameters(f *testing.F) {
	seed(f, "serving.txtar", "batching.config")
	f.Fuzz(func(t *testing.T, data []byte) {
		b, _, err := ParseBatchingParameters("f", data)
		if err != nil {
			onlyFaults(t, err)
			return
		}
		c := Default()
		c.Defaults.Batching = b
		if err := c.Validate(); err != nil {
			t.Fatalf("accepted and not valid: %v", err)
		}
	})
}

func FuzzServingFlags(f *testing.F) {
	seed(f, "serving.txtar", "args")
	f.Fuzz(func(t *testing.T, data []byte) {
		_, faults := parseServingFlags(strings.Split(string(data), "\n"), new(Flags))
		if err := faults.err(); err != nil {
			onlyFaults(t, err)
		}
	})
}
