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
	line := fmt.Sprintf("TensorFlow %s for inferd, for %s", tf, map[string]string{"cpu": "processors", "gpu": "NVIDIA GPUs"}[kind])
	text := "The libraries that inferd's workers open: libtensorflow_cc and libtensorflow_framework of TensorFlow's own Python wheel."
	copyright := apache("TensorFlow "+tf, "2015-2025 The TensorFlow Authors")
	dir := path.Join(runtimeDir, tf)
	if kind == "gpu" {
		text += " CUDA's, of NVIDIA's own wheels, lie beside them; the driver comes from elsewhere."
		copyright += nvidia
		dir += "-gpu"
	}

	p := b.newPackage("inferd-runtime-"+kind+"-"+tf, version, when)
	p.info.Section = "libs"
	p.describe(line, text)
	p.info.Provides = []string{"inferd-runtime"}
	p.info.Deb.Fields = map[string]string{"Enhances": "inferd"}
	needs, err := b.tensorflow(p, kind, dir)
	if err == nil && kind == "gpu" {
		p.info.Recommends = []string{"libcuda1 | libnvidia-compute"}
		err = b.cuda(p, needs, dir)
	}
	if err == nil {
		err = needs.runsOn(oldestGlibc)
	}
	if err != nil {
		return nil, err
	}
	p.info.Depends = needs.depends()
	p.documents(copyright)

	meta := b.newPackage("inferd-runtime-"+kind, version, when)
	meta.info.Section = "metapackages"
	meta.describe(line, text, "This package follows the newest version. The one before stays until it is removed by name: inferd goes back to it when the newer one fails.")
	meta.info.Depends = []string{p.info.Name + " (>= " + version + ")"}
	meta.info.Provides = []string{"inferd-runtime"}
	if kind == "gpu" {
		meta.file(b.path("packaging/systemd/gpu.conf"), "/lib/systemd/system/inferd.service.d/gpu.conf", 0o644)
		meta.info.Scripts.PostInstall = b.path("packaging/deb/gpu-postinst")
		meta.info.Scripts.PostRemove = b.path("packaging/deb/gpu-postrm")
		meta.info.Depends = append(meta.info.Depends, "init-system-helpers (>= 1.52)")
	}
	meta.documents(copyright)
	return []*pkg{p, meta}, nil
}

// nvidia stands in the copyright file of what has CUDA's libraries.
const nvidia = `
Files: usr/lib/inferd/runtime/*/nvidia/*
Copyright: NVIDIA Corporation
License: NVIDIA
 The licence of each of NVIDIA's wheels lies in the directory licenses beside
 this file. It names the libraries that may be distributed with an application.
`

// tensorflow puts TensorFlow's libraries into the directory dst, stripped, and says what they need.
func (b *build) tensorflow(p *pkg, kind, dst string) (*need, error) {
	if b.runtime == "" {
		return nil, errors.New("-runtime names no directory with libtensorflow")
	}
	found, err := filepath.Glob(filepath.Join(b.runtime, "*.so*"))
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(found, func(f string) bool { return strings.HasPrefix(filepath.Base(f), "libtensorflow") }) {
		return nil, fmt.Errorf("%s has no libtensorflow; `make runtime` brings it", b.runtime)
	}
	needs := newNeed(b.runtime)
	for _, src := range found {
		n, err := elfNeeds(src, b.arch)
		if err != nil {
			return nil, err
		}
		needs.join(n)
		copied, err := b.stripped(p, src)
		if err != nil {
			return nil, err
		}
		if kind == "gpu" {
			if err := rewriteRunpath(copied, ownCuda); err != nil {
				return nil, err
			}
		}
		p.file(copied, path.Join(dst, filepath.Base(src)), 0o644)
	}
	return needs, nil
}

// cuda puts NVIDIA's libraries below the directory dst as they are, for their licence lets nobody change them, and their licences.
func (b *build) cuda(p *pkg, needs *need, dst string) error {
	found, err := filepath.Glob(filepath.Join(b.runtime, "nvidia/*/lib/*.so*"))
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return fmt.Errorf("%s has no nvidia/*/lib; `tools/fetch.sh runtime-gpu` brings it", b.runtime)
	}
	for _, src := range found {
		n, err := elfNeeds(src, b.arch)
		if err != nil {
			return err
		}
		needs.join(n)
		rel, err := filepath.Rel(b.runtime, src)
		if err != nil {
			return err
		}
		p.file(src, path.Join(dst, filepath.ToSlash(rel)), 0o644)
	}
	for _, pattern := range []string{"*.dist-info/*icense*", "*.dist-info/licenses/*"} {
		licences, err := filepath.Glob(filepath.Join(b.runtime, pattern))
		if err != nil {
			return err
		}
		for _, src := range licences {
			if st, err := os.Stat(src); err != nil || st.IsDir() {
				continue
			}
			rel, err := filepath.Rel(b.runtime, src)
			if err != nil {
				return err
			}
			wheel, _, _ := strings.Cut(rel, "-")
			p.packed(src, path.Join("/usr/share/doc", p.info.Name, "licenses", wheel+".txt.gz"))
		}
	}
	return nil
}

// stripped is a copy of the library at src without local symbols and debugging information: a quarter less.
func (b *build) stripped(p *pkg, src string) (string, error) {
	if err := os.MkdirAll(p.stage, 0o755); err != nil {
		return "", err
	}
	dst := filepath.Join(p.stage, filepath.Base(src))
	cmd := exec.Command(b.strip, "--strip-unneeded", "-o", dst, src)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w", b.strip, src, err)
	}
	return dst, nil
}
