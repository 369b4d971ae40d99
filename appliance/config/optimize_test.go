// optimize_test.go: the forms of optimize.
package config

import (
	"slices"
	"strings"
	"testing"
)

func TestOptimize(t *testing.T) {
	for text, want := range map[string][]string{
		"auto":                        Optimizations,
		"off":                         nil,
		"[freeze, threads]":           {"freeze", "threads"},
		"onednn":                      {"onednn"},
		"[auto]":                      Optimizations,
		"freeze, executor,  bfloat16": {"freeze", "executor", "bfloat16"},
	} {
		c, err := Parse("x.yaml", []byte("defaults: {optimize: "+quoteUnlessList(text)+"}\nmodels: [{name: m, base_path: /m}]\n"), nil)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := c.Models[0].Optimize.List(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
		again, err := Parse("x.yaml", c.YAML(), nil)
		if err != nil || again.Defaults.Optimize != c.Defaults.Optimize {
			t.Errorf("%s: its own form is read as %v, %v", text, again, err)
		}
	}
	for text, want := range map[string]string{
		"fast":             `"fast" is none of`,
		"[freeze, freeze]": "given twice",
		"[]":               "empty list",
		"[[freeze]]":       "where a word is expected",
		"{freeze: true}":   "auto, off or a list is expected",
		`""`:               "is empty",
	} {
		_, err := Parse("x.yaml", []byte("defaults: {optimize: "+text+"}\n"), nil)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

func quoteUnlessList(s string) string {
	if strings.HasPrefix(s, "[") {
		return s
	}
	return `"` + s + `"`
}
