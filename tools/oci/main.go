// oci makes a container image of inferd with nothing in it but inferd, a TensorFlow runtime and the libraries that they need: no shell, no
// package manager. It needs no daemon and no registry.
//
//	go run ./tools/oci -binary build/inferd -runtime build/runtime -layout build/image.oci
//	    an OCI image layout: `skopeo copy oci:build/image.oci docker://...`, `podman load`, `ctr image import`
//	go run ./tools/oci -binary build/inferd -runtime build/runtime -root build/image
//	    the same as a folder, which packaging/oci/Containerfile makes an image of: `docker build -f packaging/oci/Containerfile build/image`
//
// The C library and its kin are this machine's, so make it on one that gets its security updates, and make it again after them. The same
// files give the same image, byte for byte.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "oci:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("oci", flag.ContinueOnError)
	binary := flags.String("binary", "build/inferd", "the inferd that goes into the image")
	runtime := flags.String("runtime", "", "the directory with libtensorflow; empty: an image without TensorFlow, for one that is mounted")
	layout := flags.String("layout", "", "write an OCI image layout into this folder, which must not exist")
	root := flags.String("root", "", "write the image's files into this folder, which must not exist")
	tag := flags.String("tag", "latest", "the image's name in the layout")
	version := flags.String("version", "", "the version in the image's labels")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if (*layout == "") == (*root == "") {
		return errors.New("give either -layout or -root")
	}
	t, err := newTree(*binary, *runtime)
	if err != nil {
		return err
	}
	if *root != "" {
		return t.write(*root)
	}
	return t.writeLayout(*layout, *tag, *version)
}
