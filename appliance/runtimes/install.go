// install.go: a runtime out of a wheel whose sum is known.
package runtimes

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/packaging"
	"github.com/inferd/inferd/storage"
)

// Limits on a wheel.
const (
	maxWheel    = 4 << 30
	maxEntries  = 200_000
	maxUnpacked = 8 << 30
	reserve     = 256 << 20 // stays free
)

// Pin is the runtime that this inferd is built and tested with.
type Pin struct {
	Package, Version, Platform, SHA256 string
}

// Pinned is the pin for this machine.
func Pinned() (Pin, error) {
	pins := packaging.Pins()
	arch, ok := map[string]string{"amd64": "X86_64", "arm64": "AARCH64"}[runtime.GOARCH]
	if !ok {
		return Pin{}, fmt.Errorf("no TensorFlow runtime is pinned for %s; point runtime.library at one of your own", runtime.GOARCH)
	}
	p := Pin{Package: pins["RUNTIME_"+arch+"_PACKAGE"], Version: pins["TENSORFLOW_VERSION"], Platform: pins["RUNTIME_"+arch+"_PLATFORM"], SHA256: pins["RUNTIME_"+arch+"_SHA256"]}
	return p, nil
}

// Wheel is a file and the sum that it must have.
type Wheel struct {
	Path   string
	SHA256 string // in hexadecimal
}

// Fetch downloads the pinned wheel with the machine's pip, from the package index that pip is set up for, into dir.
func Fetch(ctx context.Context, pin Pin, dir string, progress io.Writer) (Wheel, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return Wheel{}, fmt.Errorf("there is no python3 with pip to download with; install it (apt install python3-pip), or bring the wheel of %s %s (%s) here and use --wheel FILE", pin.Package, pin.Version, pin.Platform)
	}
	args := []string{"-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--require-hashes", "-d", dir,
		"--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--platform", pin.Platform, "-r", "/dev/stdin"}
	cmd := exec.CommandContext(ctx, python, args...)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("%s==%s --hash=sha256:%s\n", pin.Package, pin.Version, pin.SHA256))
	var said strings.Builder
	cmd.Stdout, cmd.Stderr = progress, io.MultiWriter(progress, &said)
	if err := cmd.Run(); err != nil {
		if strings.Contains(said.String(), "No module named pip") {
			return Wheel{}, errors.New("python3 has no pip to download with; install it (apt install python3-pip), or use --wheel FILE")
		}
		return Wheel{}, fmt.Errorf("pip could not download %s %s: %w; make the package index reachable for pip, or bring the wheel here and use --wheel FILE", pin.Package, pin.Version, err)
	}
	found, err := filepath.Glob(filepath.Join(dir, "*.whl"))
	if err != nil || len(found) != 1 {
		return Wheel{}, fmt.Errorf("pip left %d wheels in %s, and one was wanted", len(found), dir)
	}
	return Wheel{found[0], pin.SHA256}, nil
}

var (
	distInfo = regexp.MustCompile(`^[A-Za-z0-9_.]+-([0-9][0-9A-Za-z.+]*)\.dist-info/METADATA$`)
	wanted   = []string{"tensorflow/libtensorflow_cc.so.*", "tensorflow/libtensorflow_framework.so.*", "tensorflow/libtensorflow.so.*", "tensorflow.libs/*", "tensorflow_cpu.libs/*"}
)

// Install unpacks the libraries of a wheel into the state directory, under the version that the wheel has, checks them, and says which that is. check,
// when not nil, opens the library, in a process of its own. A runtime of the same version that was fetched before stays, and is the answer.
func (p Places) Install(ctx context.Context, w Wheel, check func(ctx context.Context, library string) error) (Runtime, error) {
	f, err := os.Open(w.Path)
	if err != nil {
		return Runtime{}, err
	}
	defer func() { _ = f.Close() }() // only read
	size, err := sumOf(ctx, f, w.SHA256)
	if err != nil {
		return Runtime{}, err
	}
	z, err := zip.NewReader(f, size)
	if err != nil {
		return Runtime{}, fmt.Errorf("%s is no wheel: %w", w.Path, err)
	}
	version, members, err := contents(z)
	if err != nil {
		return Runtime{}, fmt.Errorf("%s: %w", w.Path, err)
	}
	root := filepath.Join(p.State, fetchedName)
	final := filepath.Join(root, version)
	if _, err := os.Stat(final); err == nil {
		return p.Find(version)
	}
	if err := os.MkdirAll(root, 0o755); err != nil { //nolint:gosec // workers of another user may have to read it
		return Runtime{}, err
	}
	part := filepath.Join(root, ".installing-"+version)
	if err := errors.Join(os.RemoveAll(part), os.Mkdir(part, 0o755)); err != nil { //nolint:gosec // likewise
		return Runtime{}, err
	}
	defer func() { _ = os.RemoveAll(part) }() // it is not there any more when all went well
	for _, m := range members {
		if err := unpack(ctx, m, part); err != nil {
			return Runtime{}, fmt.Errorf("unpack %s: %w", m.Name, err)
		}
	}
	found, err := tfrt.Find(part)
	if err == nil && check != nil {
		err = check(ctx, found.Path)
	}
	if err != nil {
		return Runtime{}, fmt.Errorf("runtime %s of %s cannot be used here and is not installed: %w", version, w.Path, err)
	}
	if err := errors.Join(storage.SyncDir(part), os.Rename(part, final), storage.SyncDir(root)); err != nil {
		return Runtime{}, err
	}
	return p.Find(version)
}

// sumOf checks the file's sum and is its size.
func sumOf(ctx context.Context, f *os.File, want string) (int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, io.LimitReader(&cancelled{ctx, f}, maxWheel+1))
	if err != nil {
		return 0, err
	}
	if n > maxWheel {
		return 0, fmt.Errorf("%s has more than %d bytes, which no wheel has", f.Name(), int64(maxWheel))
	}
	if got := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(got, strings.TrimSpace(want)) {
		return 0, fmt.Errorf("%s has the SHA-256 %s, and %s is wanted: it is another file, or a damaged one; nothing was installed; --sha256 names the sum of a wheel of your own", f.Name(), got, want)
	}
	return n, nil
}

type cancelled struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancelled) Read(b []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// contents are the version that a wheel says it has, and what of it is unpacked.
func contents(z *zip.Reader) (version string, members []*zip.File, err error) {
	if len(z.File) > maxEntries {
		return "", nil, fmt.Errorf("it has %d members, which no wheel has", len(z.File))
	}
	var total uint64
	names := make(map[string]bool)
	for _, m := range z.File {
		if found := distInfo.FindStringSubmatch(m.Name); found != nil {
			if version != "" {
				return "", nil, errors.New("it says twice which version it is")
			}
			version = found[1]
		}
		if !slices.ContainsFunc(wanted, func(w string) bool { ok, _ := path.Match(w, m.Name); return ok }) || strings.HasSuffix(m.Name, "/") {
			continue
		}
		name := path.Base(m.Name)
		if !m.Mode().IsRegular() || names[name] || name[0] == '.' {
			return "", nil, fmt.Errorf("member %.100q is no file, or there are two of its name", m.Name)
		}
		names[name] = true
		if total += m.UncompressedSize64; m.UncompressedSize64 > maxUnpacked || total > maxUnpacked {
			return "", nil, fmt.Errorf("it unpacks to more than %d bytes, which no wheel does", int64(maxUnpacked))
		}
		members = append(members, m)
	}
	switch {
	case version == "" || ValidVersion(version) != nil:
		return "", nil, errors.New("it does not say which version it is; is it a wheel of TensorFlow?")
	case len(members) == 0:
		return "", nil, errors.New("it has no libtensorflow_cc.so; is it a wheel of TensorFlow for Linux?")
	}
	return version, members, nil
}

// unpack writes a member into dir, without its folders.
func unpack(ctx context.Context, m *zip.File, dir string) (err error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err == nil {
		if free := int64(fs.Bavail) * fs.Bsize; free < int64(m.UncompressedSize64)+reserve {
			return fmt.Errorf("it needs %d bytes, and %d are free beside the %d that stay; make room", m.UncompressedSize64, max(0, free-reserve), int64(reserve))
		}
	}
	r, err := m.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	f, err := os.OpenFile(filepath.Join(dir, path.Base(m.Name)), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755) //nolint:gosec // a library, for workers of any user
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(&cancelled{ctx, r}, int64(m.UncompressedSize64)+1))
	if err == nil && n != int64(m.UncompressedSize64) {
		err = fmt.Errorf("it has not the %d bytes that it should", m.UncompressedSize64)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}
