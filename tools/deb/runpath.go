// runpath.go: where a GPU runtime's libraries look for CUDA. TensorFlow's wheel expects the CUDA wheels beside itself, ../nvidia/*/lib; in
// the package they lie below it, so that each version has its own.
package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
)

// ownCuda is the search path that has CUDA's libraries below the library and not beside it.
func ownCuda(old string) string {
	list := []string{"$ORIGIN"}
	for entry := range strings.SplitSeq(old, ":") {
		if rest, ok := strings.CutPrefix(entry, "$ORIGIN/../nvidia/"); ok {
			if entry = "$ORIGIN/nvidia/" + rest; !slices.Contains(list, entry) {
				list = append(list, entry)
			}
		}
	}
	return strings.Join(list, ":")
}

// rewriteRunpath changes the search path (DT_RUNPATH) of the library at path in place. The new one may not be longer. A library without
// one is left as it is.
func rewriteRunpath(path string, change func(string) string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = f.Close() }() // it was only read
	old, err := f.DynString(elf.DT_RUNPATH)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	offsets, err := f.DynValue(elf.DT_RUNPATH)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if len(old) == 0 {
		return nil
	}
	next := change(old[0])
	if len(next) > len(old[0]) {
		return fmt.Errorf("%s: the search path %q does not fit into the place of %q", path, next, old[0])
	}
	names := f.SectionByType(elf.SHT_STRTAB)
	for _, s := range f.Sections {
		if s.Name == ".dynstr" {
			names = s
		}
	}
	if names == nil {
		return errors.New(path + " has no dynamic strings")
	}
	w, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = w.WriteAt(append([]byte(next), make([]byte, len(old[0])-len(next))...), int64(names.Offset+offsets[0]))
	return errors.Join(err, w.Close())
}
