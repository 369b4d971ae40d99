// image_test.go: the container image: made twice, read by other people's tools, and made of the Containerfile.
package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// imageConfig is what an image says about how it is started.
type imageConfig struct {
	User         string
	ExposedPorts map[string]struct{}
	Env          []string
	Entrypoint   []string
	WorkingDir   string
	StopSignal   string
	Labels       map[string]string
	Healthcheck  struct {
		Test                           []string
		Interval, Timeout, StartPeriod int64
		Retries                        int
	}
}

// oci runs tools/oci on the binary that is tried, with a stand-in for the half gigabyte that TensorFlow is.
func oci(t testing.TB, args ...string) {
	t.Helper()
	lib := t.TempDir()
	write(t, filepath.Join(lib, "libtensorflow_cc.so.2"), "a stand-in")
	out, err := exec.Command("go", append([]string{"run", "../oci", "-binary", binary, "-runtime", lib}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("tools/oci: %v\n%s", err, out)
	}
}

// blob reads JSON out of a layout.
func blob(t testing.TB, layout, digest string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(read(t, filepath.Join(layout, "blobs", strings.Replace(digest, ":", "/", 1)))), into); err != nil {
		t.Fatal(err)
	}
}

// configOf is the configuration of the one image in a layout.
func configOf(t testing.TB, layout string) (c imageConfig) {
	t.Helper()
	var index struct{ Manifests []struct{ Digest string } }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(layout, "index.json"))), &index); err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%v: %+v", err, index)
	}
	var manifest struct{ Config struct{ Digest string } }
	blob(t, layout, index.Manifests[0].Digest, &manifest)
	var config struct{ Config imageConfig }
	blob(t, layout, manifest.Config.Digest, &config)
	return config.Config
}

// unpacked is the image's root, by umoci, which checks every digest.
func unpacked(t testing.TB) (root string, c imageConfig) {
	t.Helper()
	umoci := tool(t, "umoci", "umoci")
	if os.Getuid() != 0 {
		t.Skip("only root can unpack an image with the owners that it has")
	}
	dir := short(t)
	oci(t, "-layout", filepath.Join(dir, "image"))
	if out, err := exec.Command(umoci, "unpack", "--image", filepath.Join(dir, "image")+":latest", filepath.Join(dir, "bundle")).CombinedOutput(); err != nil {
		t.Fatalf("umoci: %v\n%s", err, out)
	}
	return filepath.Join(dir, "bundle", "rootfs"), configOf(t, filepath.Join(dir, "image"))
}

func TestImageIsTheSameEveryTime(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b"} {
		oci(t, "-layout", filepath.Join(dir, name), "-tag", "v1")
	}
	if a, b := read(t, filepath.Join(dir, "a", "index.json")), read(t, filepath.Join(dir, "b", "index.json")); a != b {
		t.Errorf("made twice:\n%s\n%s", a, b)
	}
	if out, err := exec.Command("go", "run", "../oci", "-binary", binary, "-layout", filepath.Join(dir, "a")).CombinedOutput(); err == nil {
		t.Errorf("an image was written over another: %s", out)
	}
	skopeo := tool(t, "skopeo", "skopeo")
	if out, err := exec.Command(skopeo, "copy", "--insecure-policy", "oci:"+filepath.Join(dir, "a")+":v1", "dir:"+filepath.Join(dir, "copy")).CombinedOutput(); err != nil {
		t.Errorf("skopeo: %v\n%s", err, out)
	}
}

// TestContainerfile: what a builder makes of the Containerfile is started as what tools/oci makes, and has the same files.
func TestContainerfile(t *testing.T) {
	buildah := tool(t, "buildah", "buildah")
	if os.Getuid() != 0 {
		t.Skip("buildah is run as root here")
	}
	dir := short(t)
	oci(t, "-root", filepath.Join(dir, "root"))
	oci(t, "-layout", filepath.Join(dir, "ours"))
	storage := []string{"--storage-driver", "vfs", "--root", filepath.Join(dir, "storage"), "--runroot", filepath.Join(dir, "run")}
	for _, args := range [][]string{
		{"bud", "--isolation", "chroot", "--format", "docker", "-f", packaging + "/oci/Containerfile", "-t", "inferd", filepath.Join(dir, "root")}, // OCI's has no healthcheck
		{"push", "inferd", "dir:" + filepath.Join(dir, "theirs")},
	} {
		if out, err := exec.Command(buildah, append(append([]string{}, storage...), args...)...).CombinedOutput(); err != nil {
			t.Fatalf("buildah %v: %v\n%s", args, err, out)
		}
	}
	var manifest struct{ Config struct{ Digest string } }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "theirs", "manifest.json"))), &manifest); err != nil {
		t.Fatal(err)
	}
	var theirs struct{ Config imageConfig }
	if err := json.Unmarshal([]byte(read(t, filepath.Join(dir, "theirs", strings.TrimPrefix(manifest.Config.Digest, "sha256:")))), &theirs); err != nil {
		t.Fatal(err)
	}
	for name := range theirs.Config.Labels {
		if strings.HasPrefix(name, "io.buildah") {
			delete(theirs.Config.Labels, name)
		}
	}
	if ours := configOf(t, filepath.Join(dir, "ours")); !reflect.DeepEqual(ours, theirs.Config) {
		t.Errorf("tools/oci:    %+v\nContainerfile: %+v", ours, theirs.Config)
	}
}
