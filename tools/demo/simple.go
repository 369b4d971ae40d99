// simple.go: the models of tritonclient's example programs, so that these find what they ask for.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// simple are their names, as the programs have them.
var simple = []string{"simple", "simple_int8", "simple_string", "simple_identity", "custom_identity_int32"}

// publish puts the models beside the others in dir, which is served. What lies there under such a name already is left alone.
func publish(dir string) error {
	all := modeltest.All()
	for _, name := range simple {
		base := filepath.Join(dir, name)
		if _, err := os.Stat(base); !errors.Is(err, fs.ErrNotExist) {
			if err != nil {
				return fmt.Errorf("look for %s: %w", base, err)
			}
			continue
		}
		if _, err := all[name]().Publish(base, 1); err != nil {
			return fmt.Errorf("publish %s: %w", name, err)
		}
	}
	return nil
}
