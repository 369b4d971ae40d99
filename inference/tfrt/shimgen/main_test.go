// main_test.go: the committed stubs are what the generator writes today.
package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestCommittedFilesAreCurrent(t *testing.T) {
	dir := ".."
	files, err := generate(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Fatalf("%d files, want 3", len(files))
	}
	for name, want := range files {
		got, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what shimgen writes: run go generate ./inference/tfrt", name)
		}
	}
}

func TestSymbolsSeeBothUsers(t *testing.T) {
	files, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	// One that only the binding calls, one declared there without extern, one that only tf_c_api.h has; and a type that is no function.
	for _, name := range []string{"TF_LoadSessionFromSavedModel", "TF_AddGradientsWithPrefix", "TF_StringCopy"} {
		if !bytes.Contains(files["symbols.go"], []byte(`"`+name+`"`)) {
			t.Errorf("no stub for %s", name)
		}
	}
	if bytes.Contains(files["symbols.go"], []byte(`"TF_Graph"`)) {
		t.Error("a stub for the type TF_Graph")
	}
}
