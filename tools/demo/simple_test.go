// simple_test.go: the example programs' models are put where inferd finds them, and nobody else's are touched.
package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestPublish(t *testing.T) {
	dir := t.TempDir()
	theirs := filepath.Join(dir, "simple_int8")
	if err := os.Mkdir(theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second `make run` finds the first one's
		if err := publish(dir); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range simple {
		_, err := os.Stat(filepath.Join(dir, name, "1", "saved_model.pb"))
		if found := err == nil; found == (name == "simple_int8") {
			t.Errorf("%s: published: %v (%v)", name, found, err)
		}
	}
	if err := publish(filepath.Join(dir, "simple", "1", "saved_model.pb")); err == nil {
		t.Error("a file was taken for a directory")
	}
}
