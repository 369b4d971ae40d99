// freeze_test.go: models of modeltest and others, frozen and as saved.
package tfrt

import (
	"testing"

	"github.com/inferd/inferd/inference/freeze"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// loadFolder loads the folder, as saved or frozen.
func loadFolder(tb testing.TB, dir string, frozen bool) (*Model, *savedmodel.Info) {
	tb.Helper()
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		tb.Fatal(err)
	}
	r := openRuntime(tb)
	m, err := r.Load(dir, Options{Tags: info.Tags, Freeze: frozen, Signatures: info.Signatures})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := m.Close(); err != nil {
			tb.Error(err)
		}
	})
	return m, info
}

// TestFreezeOrSayWhy freezes the models of modeltest that answer. What it cannot freeze it leaves as saved, with the reason.
func TestFreezeOrSayWhy(t *testing.T) {
	for name, want := range map[string]string{
		"half_plus_two": "", "two_layer": "", "busy": "", "dense": "", "big_variables": "",
		"strings": "it has no variables that could be frozen", "scalar": "it has no variables that could be frozen",
		"counter":     `signature "incr_counter" changes the model's state`,
		"functions":   `signature "remember" changes the model's state`,
		"keeps_input": `signature "serving_default" changes the model's state`,
	} {
		t.Run(name, func(t *testing.T) {
			made := modeltest.All()[name]()
			if name == "big_variables" {
				made = modeltest.BigVariables(4, 1)
			}
			before := Count()
			m, info := loadFolder(t, modeltest.Write(t, made), true)
			frozen, why := m.Frozen()
			if frozen != (want == "") || !frozen && why != want || frozen && why != "answers as saved on 1 runs" {
				t.Errorf("frozen %v: %s", frozen, why)
			}
			for _, sig := range info.Signatures {
				if in, ok := freeze.MakeUp(sig); ok && !sig.Writes {
					if _, err := callAll(t, m, sig, in...); err != nil {
						t.Error(err)
					}
				}
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if after := Count(); after != before {
				t.Errorf("C objects before %+v, after %+v", before, after)
			}
		})
	}
}
