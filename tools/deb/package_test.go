// package_test.go: whole packages, made of the binary that `make deb` built and of libraries with nothing in them: the same bytes twice,
// what is in them, what lintian says, and what installing, upgrading, removing and purging them does (testdata/*.sh, in a root of their own).
package main

import (
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

const epoch = 1767225600

// builder makes packages of a copy of the repository's files, which a test may change.
type builder struct {
	build
	t   *testing.T
	cpu string // the stand-in runtimes
	gpu string
}

// arch is whose packages are tried: this machine's, or the other's, which are made and looked at here and not installed.
func arch() string {
	if a := os.Getenv("INFERD_DEB_ARCH"); a != "" {
		return a
	}
	return runtime.GOARCH
}

// cross is what the tools for arch have before their names.
func cross() string {
	if arch() == runtime.GOARCH {
		return ""
	}
	return map[string]string{"arm64": "aarch64", "amd64": "x86_64"}[arch()] + "-linux-gnu-"
}

// compiler is a C compiler for arch.
func compiler(t *testing.T) string {
	t.Helper()
	name := "cc"
	if cross() != "" {
		name = cross() + "gcc"
	}
	cc, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("no C compiler %s is here to make stand-ins for libtensorflow", name)
	}
	return cc
}

func newBuilder(t *testing.T) *builder {
	t.Helper()
	cc := compiler(t)
	for _, tool := range []string{"dpkg-deb", cross() + "strip", "xz"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here", tool)
		}
	}
	b := &builder{t: t}
	b.arch, b.version, b.strip, b.compress = arch(), "1.0.0", cross()+"strip", "zstd"
	b.binary, b.manual = "../../build/inferd-"+b.arch, "../../build/manual"
	if _, err := os.Stat(b.binary); err != nil {
		t.Skip("build/inferd-" + b.arch + " is not here; `make deb-binary` builds it")
	}
	b.root = filepath.Join(t.TempDir(), "root")
	for _, part := range []string{"packaging", "docs", "README.md", "CHANGELOG.md"} {
		copyTree(t, filepath.Join("../..", part), filepath.Join(b.root, part))
	}
	b.cpu, b.gpu = filepath.Join(t.TempDir(), "cpu"), standIns(t, cc, filepath.Join(t.TempDir(), "gpu"))
	copyTree(t, b.gpu, b.cpu)
	return b
}

func copyTree(t *testing.T, src, dst string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "-r", src, dst).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// change edits a file of the copy.
func (b *builder) change(path, old, with string) {
	b.t.Helper()
	path = filepath.Join(b.root, path)
	data, err := os.ReadFile(path)
	if err != nil {
		b.t.Fatal(err)
	}
	if !strings.Contains(string(data), old) {
		b.t.Fatalf("%s has no %q", path, old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(data), old, with, 1)), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// all makes every package for this machine into a new directory.
func (b *builder) all(names ...string) string {
	b.t.Helper()
	out := filepath.Join(b.t.TempDir(), "out")
	for _, name := range names {
		one := b.build
		one.runtime = b.cpu
		if strings.HasSuffix(name, "-gpu") {
			one.runtime = b.gpu
		}
		if _, err := one.make([]string{name}, out, epoch); err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

// kinds are the packages that are made for this architecture.
func kinds() []string {
	list := []string{"inferd", "inferd-runtime-cpu"}
	if arch() == "amd64" {
		list = append(list, "inferd-runtime-gpu")
	}
	return list
}

func TestPackagesAreTheSameBytesTwice(t *testing.T) {
	b := newBuilder(t)
	for compress, names := range map[string][]string{"zstd": kinds(), "xz": {"inferd-runtime-cpu"}} { // xz takes its time over the binary
		b.compress = compress
		first := b.all(names...)
		// Elsewhere, later, with other permissions.
		moved := filepath.Join(t.TempDir(), "elsewhere")
		copyTree(t, b.root, moved)
		again := &builder{build: b.build, t: t, cpu: b.cpu, gpu: b.gpu}
		again.root = moved
		if err := filepath.WalkDir(moved, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return os.Chtimes(path, time.Now(), time.Now().Add(-9000*time.Hour))
		}); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command("chmod", "-R", "go-rwx", moved).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		second := again.all(names...)
		list, err := filepath.Glob(filepath.Join(first, "*.deb"))
		if err != nil || len(list) < 2 {
			t.Fatalf("%d packages, %v", len(list), err)
		}
		for _, path := range list {
			if a, b := sum(t, path), sum(t, filepath.Join(second, filepath.Base(path))); a != b {
				t.Errorf("%s, packed by %s: %s and then %s", filepath.Base(path), compress, a, b)
			}
		}
	}
}

func sum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", sha256.Sum256(data))
}

func TestBinaryIsTheSameBytesTwice(t *testing.T) {
	again := os.Getenv("INFERD_DEB_AGAIN")
	if again == "" {
		t.Skip("INFERD_DEB_AGAIN names no second binary; `make test-deb` links one")
	}
	if a, b := sum(t, "../../build/inferd-"+arch()), sum(t, again); a != b {
		t.Errorf("the binary is %s and then %s", a, b)
	}
}

// TestLibrariesAreStripped: the stand-ins have local symbols and debugging information, as TensorFlow's wheels do; what is packed has not.
func TestLibrariesAreStripped(t *testing.T) {
	b := newBuilder(t)
	sections := func(path string) (found []string) {
		t.Helper()
		f, err := elf.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, s := range f.Sections {
			if s.Name == ".symtab" || strings.HasPrefix(s.Name, ".debug_") {
				found = append(found, s.Name)
			}
		}
		return found
	}
	const library = "libtensorflow_cc.so.2"
	if before := sections(filepath.Join(b.cpu, library)); len(before) < 2 {
		t.Fatalf("the stand-in has only %v, so this test shows nothing", before)
	}
	made, err := filepath.Glob(filepath.Join(b.all("inferd-runtime-cpu"), "inferd-runtime-cpu-*.deb"))
	if err != nil || len(made) != 1 {
		t.Fatalf("%v, %v", made, err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("dpkg-deb", "--extract", made[0], dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	libraries, err := filepath.Glob(filepath.Join(dir, runtimeDir, "*", "libtensorflow*"))
	if err != nil || len(libraries) != 2 {
		t.Fatalf("%v, %v", libraries, err)
	}
	for _, l := range libraries {
		if left := sections(l); len(left) > 0 {
			t.Errorf("%s is packed with %v", filepath.Base(l), left)
		}
	}
}

// TestConffilesStay holds the configuration that the package brings to the bytes that it had at first: dpkg asks about a file that its
// owner and the package have both changed, and an unattended upgrade that is asked fails. Settings go into the binary's defaults.
func TestConffilesStay(t *testing.T) {
	for file, want := range map[string]string{
		"packaging/deb/inferd.yaml":   "69a84750f3765fd10423fabbc511a4340f6a435237ed8812cc3b154ef219fb2a",
		"packaging/deb/conf.d-README": "6467150bfb3b7719e1334152e353134edf2b6aae7ca4ebb15b71376582037175",
	} {
		if got := sum(t, filepath.Join("../..", file)); got != want {
			t.Errorf("%s has another sum (%s): every machine whose owner has edited it would be asked at its next upgrade", file, got)
		}
	}
}

func TestContents(t *testing.T) {
	b := newBuilder(t)
	out := b.all(kinds()...)
	list := func(name string) string {
		found, err := filepath.Glob(filepath.Join(out, name+"_*.deb"))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: %d packages, %v", name, len(found), err)
		}
		data, err := exec.Command("dpkg-deb", "--contents", found[0]).Output()
		if err != nil {
			t.Fatal(err)
		}
		info, err := exec.Command("dpkg-deb", "--info", found[0]).Output()
		if err != nil {
			t.Fatal(err)
		}
		return string(data) + string(info)
	}
	wanted := map[string][]string{"inferd": {
		`-rwxr-xr-x root/root +\d+ .* \./usr/bin/inferd\n`, `lrwxrwxrwx .* \./usr/bin/tensorflow_model_server -> inferd\n`,
		`\./lib/systemd/system/inferd\.service\n`, `\./lib/systemd/system/inferd\.socket\n`, `\./lib/systemd/system/inferd\.slice\n`,
		`\./usr/lib/sysusers\.d/inferd\.conf\n`, `\./usr/lib/tmpfiles\.d/inferd\.conf\n`,
		`-rw-r--r-- .* \./etc/inferd/inferd\.yaml\n`, `\./etc/inferd/conf\.d/README\n`,
		`\./usr/share/man/man1/inferd\.1\.gz\n`, `\./usr/share/man/man1/inferd-serve\.1\.gz\n`, `\./usr/share/man/man1/tensorflow_model_server\.1\.gz\n`,
		`\./usr/share/man/man5/inferd\.yaml\.5\.gz\n`, `\./usr/share/bash-completion/completions/inferd\n`, `\./usr/share/zsh/vendor-completions/_inferd\n`,
		`\./usr/share/fish/vendor_completions\.d/inferd\.fish\n`, `\./usr/share/doc/inferd/copyright\n`, `\./usr/share/doc/inferd/changelog\.gz\n`,
		`\./usr/share/doc/inferd/examples/inferd\.yaml\n`, `2 lines +conffiles`, `Depends: libc6 \(>= 2\.\d+\), init-system-helpers`,
		`Recommends: inferd-runtime-cpu \| inferd-runtime\n`, `Conflicts: tensorflow-model-server`,
	}, "inferd-runtime-cpu": {`Depends: inferd-runtime-cpu-2\.\d+\.\d+ \(>= 2\.\d+\.\d+-\d+\)\n`},
		"inferd-runtime-cpu-*": {`\./usr/lib/inferd/runtime/2\.\d+\.\d+/libtensorflow_cc\.so\.2\n`, `\./usr/lib/inferd/runtime/2\.\d+\.\d+/libtensorflow_framework\.so\.2\n`, `Depends: libc6 `},
	}
	if arch() == "amd64" {
		wanted["inferd-runtime-gpu"] = []string{`\./lib/systemd/system/inferd\.service\.d/gpu\.conf\n`}
		wanted["inferd-runtime-gpu-*"] = []string{`\./usr/lib/inferd/runtime/2\.\d+\.\d+-gpu/nvidia/cublas/lib/libcublas\.so\.12\n`, `licenses/nvidia_cublas_cu12\.txt\.gz\n`, `Recommends: libcuda1`}
	}
	for name, patterns := range wanted {
		got := list(name)
		for _, p := range patterns {
			if !regexp.MustCompile(p).MatchString(got) {
				t.Errorf("%s has no %s", name, p)
			}
		}
	}
	// Every unit is enabled, started, stopped and purged by name.
	units, err := os.ReadDir(filepath.Join(b.root, "packaging/systemd"))
	if err != nil {
		t.Fatal(err)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		data, err := os.ReadFile(b.path("packaging/deb", script))
		if err != nil {
			t.Fatal(err)
		}
		for _, u := range units {
			if ext := filepath.Ext(u.Name()); (ext == ".service" || ext == ".socket") && !slices.Contains(regexp.MustCompile(`[\w.-]+`).FindAllString(string(data), -1), u.Name()) {
				t.Errorf("%s does not know the unit %s", script, u.Name())
			}
		}
	}
}

func TestLintian(t *testing.T) {
	if _, err := exec.LookPath("lintian"); err != nil {
		t.Skip("lintian is not here (apt install lintian)")
	}
	b := newBuilder(t)
	b.compress = "xz" // Debian 12's lintian knows no other
	list, err := filepath.Glob(filepath.Join(b.all(kinds()...), "*.deb"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("lintian", append([]string{"--no-cfg", "--allow-root", "--fail-on", "error"}, list...)...).CombinedOutput()
	if err != nil {
		t.Errorf("lintian: %v", err)
	}
	t.Logf("%s", out)
}

// inRoot runs a script of testdata in a copy of this machine's root, which nothing of what it does gets out of.
func inRoot(t *testing.T, script string, env ...string) {
	t.Helper()
	if arch() != runtime.GOARCH {
		t.Skipf("packages for %s cannot be installed on %s", arch(), runtime.GOARCH)
	}
	if os.Geteuid() != 0 {
		t.Skip("not root: packages cannot be installed, in no root at all")
	}
	for _, tool := range []string{"unshare", "chroot", "dpkg", "apt-get", "deb-systemd-helper"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here", tool)
		}
	}
	if exec.Command("dpkg-query", "--show", "inferd").Run() == nil {
		t.Skip("inferd is installed on this machine: a copy of it is no place to install it anew")
	}
	dir := t.TempDir()
	enter := `set -e
mount -t tmpfs -o mode=755 tmpfs "$DIR"
mkdir "$DIR/upper" "$DIR/work" "$DIR/root"
mount -t overlay -o "lowerdir=/,upperdir=$DIR/upper,workdir=$DIR/work" overlay "$DIR/root"
mount -t proc proc "$DIR/root/proc"
mount --bind /dev "$DIR/root/dev"
mount -t tmpfs tmpfs "$DIR/root/run"
mount -t tmpfs tmpfs "$DIR/root/tmp"
mkdir "$DIR/root/tmp/debs"
`
	unshare := func(script string, env ...string) ([]byte, error) {
		cmd := exec.Command("unshare", "--mount", "--pid", "--fork", "--propagation", "private", "sh", "-c", enter+script)
		cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "DIR=" + dir, "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"}, env...)
		return cmd.CombinedOutput() // and no standard input
	}
	if out, err := unshare("true"); err != nil {
		t.Skipf("no root of its own can be mounted here: %v: %s", err, out)
	}
	text, err := os.ReadFile(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	out, err := unshare(`for d in "$OLD" "$NEW" "$OTHER"; do [ -z "$d" ] || cp -r "$d" "$DIR/root/tmp/debs/"; done
printf %s "$SCRIPT" >"$DIR/root/tmp/script"
exec chroot "$DIR/root" sh -eu /tmp/script`, append(env, "SCRIPT="+string(text))...)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	t.Logf("%s", out)
}

// named moves the packages in dir to a directory of that name, by which a script finds them.
func named(t *testing.T, dir, name string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), name)
	if err := os.Rename(dir, to); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestInstallUpgradeRemovePurge(t *testing.T) {
	b := newBuilder(t)
	old := named(t, b.all("inferd"), "old")
	b.version = "1.1.0"
	next := named(t, b.all("inferd"), "new")
	b.version = "1.2.0"
	b.change("packaging/deb/inferd.yaml", "may stay as it is", "may be changed")
	other := named(t, b.all("inferd"), "other")
	inRoot(t, "install.sh", "OLD="+old, "NEW="+next, "OTHER="+other)
}

func TestRuntimesLieSideBySide(t *testing.T) {
	b := newBuilder(t)
	pins, err := readPins(b.path("packaging/pins.env"))
	if err != nil {
		t.Fatal(err)
	}
	now := pins["TENSORFLOW_VERSION"]
	old := named(t, b.all("inferd", "inferd-runtime-cpu"), "old")
	b.change("packaging/pins.env", "TENSORFLOW_VERSION="+now+"\n", "TENSORFLOW_VERSION=2.99.0\n")
	next := named(t, b.all("inferd-runtime-cpu"), "new")
	inRoot(t, "runtimes.sh", "OLD="+old, "NEW="+next, "OTHER=", "NOW="+now)
}
