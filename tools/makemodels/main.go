// makemodels writes the test models of inference/savedmodel/modeltest into a directory, each as DIR/NAME/VERSION.
//
//	go run ./tools/makemodels -o DIR            every model
//	go run ./tools/makemodels -o DIR two_layer half_plus_two=7
//	go run ./tools/makemodels -list
package main

import (
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "makemodels:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("makemodels", flag.ContinueOnError)
	dir := flags.String("o", "", "the directory to write into")
	list := flags.Bool("list", false, "print the names and write nothing")
	if err := flags.Parse(args); err != nil {
		return err
	}
	all := modeltest.All()
	if *list {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			fmt.Fprintln(out, name)
		}
		return nil
	}
	if *dir == "" {
		return fmt.Errorf("say where with -o DIR")
	}
	wanted := flags.Args()
	if len(wanted) == 0 {
		wanted = slices.Sorted(maps.Keys(all))
	}
	for _, arg := range wanted {
		name, number, numbered := strings.Cut(arg, "=")
		build, known := all[name]
		if !known {
			return fmt.Errorf("no model is called %q; -list prints the names", name)
		}
		version := int64(1)
		if numbered {
			var err error
			if version, err = strconv.ParseInt(number, 10, 64); err != nil || version < 0 {
				return fmt.Errorf("%s: the version must be a number, as in %s=7", arg, name)
			}
		}
		path, err := build().Publish(filepath.Join(*dir, name), version)
		if err != nil {
			return err
		}
		fmt.Fprintln(out, path)
	}
	return nil
}
