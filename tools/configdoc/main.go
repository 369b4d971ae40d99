// main.go: writes docs/configuration.md and packaging/inferd.yaml from the config types. Run it in the repository root:
//
//	go run ./tools/configdoc
package main

import (
	"fmt"
	"os"

	"github.com/inferd/inferd/appliance/config"
)

func main() { os.Exit(run()) }

func run() int {
	for _, f := range []struct {
		path string
		data []byte
	}{
		{"docs/configuration.md", config.Reference()},
		{"packaging/inferd.yaml", config.Sample()},
	} {
		if err := os.WriteFile(f.path, f.data, 0o644); err != nil {
			fmt.Fprintf(os.Stderr, "configdoc: %v; run it in the repository root\n", err)
			return 1
		}
	}
	return 0
}
