// readable_test.go: on which models directories inferd starts.
package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
)

// A missing models directory is a slip of the pen, unless models were served before: then it is a disk that is not mounted.
func TestReadable(t *testing.T) {
	cfg := config.Default()
	cfg.ModelsDir, cfg.StateDir = filepath.Join(t.TempDir(), "models"), t.TempDir()
	if readable(cfg) == nil {
		t.Error("a models directory that was never there was taken")
	}
	if err := os.MkdirAll(filepath.Join(appliance.KeepDir(cfg), "m", "1-0"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := readable(cfg); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(cfg.ModelsDir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if readable(cfg) == nil {
		t.Error("a file was taken for a models directory")
	}
}
