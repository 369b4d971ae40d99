// layout.go: the image as an OCI layout: layers, configuration, manifest, index, each under its digest.
package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// settings are how a container of the image is started. packaging/oci/Containerfile says the same, and a test compares them.
type settings struct {
	User         string              `json:"User"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts"`
	Env          []string            `json:"Env"`
	Entrypoint   []string            `json:"Entrypoint"`
	WorkingDir   string              `json:"WorkingDir"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal"`
	Healthcheck  *healthcheck        `json:"Healthcheck,omitempty"` // not OCI's, but Docker and Podman read it
}

type healthcheck struct {
	Test        []string      `json:"Test"`
	Interval    time.Duration `json:"Interval"`
	Timeout     time.Duration `json:"Timeout"`
	StartPeriod time.Duration `json:"StartPeriod"`
	Retries     int           `json:"Retries"`
}

func containerSettings(version string) settings {
	s := settings{
		User: fmt.Sprintf("%d:%d", user, user), ExposedPorts: map[string]struct{}{"8500/tcp": {}, "8501/tcp": {}},
		Env:        []string{"PATH=/usr/bin", "INFERD_RUNTIME=/" + runtimeDir, "MODEL_BASE_PATH=/models", "MODEL_NAME=model"},
		Entrypoint: []string{"/usr/bin/tf_serving_entrypoint.sh"}, WorkingDir: "/", StopSignal: "SIGTERM",
		Healthcheck: &healthcheck{Test: []string{"CMD", "/usr/bin/inferd", "status"}, Interval: 10 * time.Second, Timeout: 5 * time.Second, StartPeriod: time.Minute, Retries: 3},
		Labels:      map[string]string{"org.opencontainers.image.title": "inferd", "org.opencontainers.image.licenses": "Apache-2.0"},
	}
	if version != "" {
		s.Labels["org.opencontainers.image.version"] = version
	}
	return s
}

// writeLayout writes the image into dir, which must not exist.
func (t *tree) writeLayout(dir, tag, version string) error {
	arch, ok := map[string]string{"EM_X86_64": "amd64", "EM_AARCH64": "arm64"}[t.machine]
	if !ok {
		return fmt.Errorf("no image is made for the processor %s", t.machine)
	}
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	var layers []descriptor
	var diffs []string
	for _, layer := range t.layers {
		d, diff, err := writeLayer(blobs, layer)
		if err != nil {
			return err
		}
		layers, diffs = append(layers, d), append(diffs, diff)
	}
	config, err := writeJSON(blobs, typeConfig, map[string]any{
		"architecture": arch, "os": "linux", "config": containerSettings(version), "rootfs": map[string]any{"type": "layers", "diff_ids": diffs},
	})
	if err != nil {
		return err
	}
	manifest, err := writeJSON(blobs, typeManifest, map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": layers})
	if err != nil {
		return err
	}
	manifest.Platform = &platform{arch, "linux"}
	manifest.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

func writeJSON(blobs, mediaType string, v any) (descriptor, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	d := descriptor{MediaType: mediaType, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(text)), Size: int64(len(text))}
	return d, os.WriteFile(filepath.Join(blobs, d.Digest[len("sha256:"):]), text, 0o644)
}

// counted passes on what is written and keeps its sum.
type counted struct {
	io.Writer
	sum hash.Hash
	n   int64
}

func (c *counted) Write(b []byte) (int, error) {
	c.sum.Write(b) // never fails
	c.n += int64(len(b))
	return c.Writer.Write(b)
}

// writeLayer writes one layer; diff is the digest of what is compressed in it. Times are left out, so the same files give the same layer.
func writeLayer(blobs string, layer map[string]entry) (d descriptor, diff string, err error) {
	f, err := os.CreateTemp(blobs, "layer")
	if err != nil {
		return d, "", err
	}
	defer func() { _ = os.Remove(f.Name()) }() // it is gone when all went well
	out := &counted{Writer: f, sum: sha256.New()}
	zip, err := gzip.NewWriterLevel(out, gzip.BestSpeed) // of half a gigabyte of code, a tenth smaller would take ten times as long
	if err != nil {
		return d, "", err
	}
	plain := &counted{Writer: zip, sum: sha256.New()}
	w := tar.NewWriter(plain)
	for _, p := range slices.Sorted(maps.Keys(layer)) {
		if err := appendEntry(w, p, layer[p]); err != nil {
			return d, "", fmt.Errorf("%s: %w", p, err)
		}
	}
	for _, end := range []func() error{w.Close, zip.Close, func() error { return f.Chmod(0o644) }, f.Close} {
		if err := end(); err != nil {
			return d, "", err
		}
	}
	sum := fmt.Sprintf("%x", out.sum.Sum(nil))
	d = descriptor{MediaType: typeLayer, Digest: "sha256:" + sum, Size: out.n}
	return d, fmt.Sprintf("sha256:%x", plain.sum.Sum(nil)), os.Rename(f.Name(), filepath.Join(blobs, sum))
}

func appendEntry(w *tar.Writer, name string, e entry) error {
	h := &tar.Header{Name: name, Mode: int64(e.mode.Perm()), Uid: e.owner, Gid: e.owner, Format: tar.FormatPAX}
	switch {
	case e.mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
		if e.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		return w.WriteHeader(h)
	case e.mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, e.text
		return w.WriteHeader(h)
	}
	in, size, err := e.open()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read
	h.Typeflag, h.Size = tar.TypeReg, size
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}
