// bundle.go: `inferd doctor --bundle FILE`: the support archive, written whole or not at all.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/inferd/inferd/appliance"
)

// bundle writes the archive to a new file that only this user can read, or to standard output for "-", and says what is in it.
func (e *env) bundle(ctx context.Context, name string, o appliance.BundleOptions) error {
	if name == "-" {
		_, err := appliance.Bundle(ctx, e.out, o)
		return err
	}
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("%s is there already and was left alone; remove it or name another", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".inferd-bundle-*") // mode 0600
	if err != nil {
		return fmt.Errorf("the archive cannot be written: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone when all went well
	m, err := appliance.Bundle(ctx, f, o)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("the archive %s was not written: %w", name, err)
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("the archive was not written: %w", err)
	}
	return e.print(m, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d files\n", name, len(m.Files)+1)
		for _, gap := range m.LeftOut {
			fmt.Fprintf(w, "left out: %s: %s\n", gap.Name, indent(gap.Why, "  "))
		}
		for _, what := range m.Never {
			fmt.Fprintf(w, "not in it: %s\n", what)
		}
		fmt.Fprintln(w, "look through it before you send it: the names of models, folders and this machine's addresses are in it")
	})
}
