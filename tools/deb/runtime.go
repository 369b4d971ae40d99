// runtime.go: the packages with TensorFlow: inferd-runtime-cpu-VERSION has the libraries, under a directory of their version, so that
// several lie side by side and an upgrade takes none away; inferd-runtime-cpu follows the newest. The same for the GPU.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// runtimeDir has a directory for each version. inferd is told by a trigger when something in it changes.
const runtimeDir = "/usr/lib/inferd/runtime"

func (b *build) runtimePackages(kind string) ([]*pkg, error) {
	if kind == "gpu" && b.arch != "amd64" {
		return nil, errors.New("TensorFlow's wheels for GPUs are for amd64 alone; on a Jetson use NVIDIA's own and runtime.library")
	}
	tf := b.pins["TENSORFLOW_VERSION"]
	seconds, err := strconv.ParseInt(b.pins["RUNTIME_EPOCH"], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("packaging/pins.env: RUNTIME_EPOCH: %w", err)
	}
	version, when := tf+"-"+b.pins["RUNTIME_REVISION"], time.Unix(seconds, 0).UTC()
	p := b.newPackage("inferd-runtime-"+kind+"-"+tf, version, when)
	p.info.Section = "libs"
	p.describe(about(kind, tf))
	p.info.Provides = []string{"inferd-runtime"}
	p.info.Deb.Fields = map[string]string{"Enhances": "inferd"}
	dir := path.Join(runtimeDir, tf)
	if kind == "gpu" {
		dir += "-gpu"
	}
	needs, err := b.libraries(p, dir)
	if err != nil {
		return nil, err
	}
	p.info.Depends = needs.depends()
	p.documents(apache("TensorFlow "+tf, "2015-2025 The TensorFlow Authors"))

	meta := b.newPackage("inferd-runtime-"+kind, version, when)
	meta.info.Section = "metapackages"
	line, text := about(kind, tf)
	meta.describe(line, text, "This package follows the newest version. The one before stays until it is removed: apt's autoremove leaves it alone.")
	meta.info.Depends = []string{p.info.Name + " (>= " + version + ")"}
	meta.info.Provides = []string{"inferd-runtime"}
	meta.config(b.path("packaging/deb/apt-keep"), "/etc/apt/apt.conf.d/60inferd-runtime-"+kind)
	meta.documents(apache("TensorFlow "+tf, "2015-2025 The TensorFlow Authors"))
	return []*pkg{p, meta}, nil
}

// about is a description, in a line and in a paragraph.
func about(kind, tf string) (string, string) {
	what := map[string]string{"cpu": "processors", "gpu": "NVIDIA GPUs"}[kind]
	return fmt.Sprintf("TensorFlow %s for inferd, for %s", tf, what),
		"The libraries that inferd's workers open: libtensorflow_cc and libtensorflow_framework of TensorFlow's own Python wheel."
}

// libraries puts the libraries of the runtime into the directory dst, stripped, and says what they need.
func (b *build) libraries(p *pkg, dst string) (*need, error) {
	if b.runtime == "" {
		return nil, errors.New("-runtime names no directory with libtensorflow")
	}
	var found []string
	for _, pattern := range []string{"*.so", "*.so.*"} {
		list, err := filepath.Glob(filepath.Join(b.runtime, pattern))
		if err != nil {
			return nil, err
		}
		found = append(found, list...)
	}
	slices.Sort(found)
	var needs *need
	for _, src := range found {
		n, err := elfNeeds(src, b.arch)
		if err != nil {
			return nil, err
		}
		if needs == nil {
			needs = n
		} else {
			needs.join(n)
		}
		stripped, err := b.stripped(src)
		if err != nil {
			return nil, err
		}
		p.file(stripped, path.Join(dst, filepath.Base(src)), 0o644)
	}
	if needs == nil || !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(filepath.Base(f), "libtensorflow") }) {
		return nil, fmt.Errorf("%s has no libtensorflow; `make runtime` brings it", b.runtime)
	}
	return needs, needs.runsOn(oldestGlibc)
}

// stripped is a copy of the library at src without local symbols and debugging information: a quarter less.
func (b *build) stripped(src string) (string, error) {
	if b.strip == "" {
		return src, nil
	}
	dst := filepath.Join(b.stage, "stripped-"+filepath.Base(src))
	cmd := exec.Command(b.strip, "--strip-unneeded", "-o", dst, src)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w", b.strip, src, err)
	}
	return dst, nil
}
