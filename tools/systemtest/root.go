// root.go: the root file system that every machine stands on, made once.
package systemtest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// included is what the root has beside Debian's smallest: what a Debian server has anyway and the packages lean on.
var included = []string{"systemd", "systemd-sysv", "dbus", "libstdc++6", "procps", "init-system-helpers", "adduser"}

// masked are units that wait for terminals or fetch from the network: neither is there.
var masked = []string{
	"console-getty.service", "getty.target", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer", "dpkg-db-backup.timer",
	"systemd-networkd-wait-online.service",
}

// errUnavailable is the kind of every error of Unavailable.
var errUnavailable = errors.New("a systemd of its own is not to be had here")

// Unavailable says why no Machine can be booted here, or nil.
func Unavailable() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: it needs root, for namespaces with a cgroup hierarchy of their own", errUnavailable)
	}
	for _, tool := range []string{"mmdebstrap", "unshare", "nsenter", "dpkg-deb", "setsid"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: there is no %s (apt install mmdebstrap util-linux dpkg)", errUnavailable, tool)
		}
	}
	if out, err := exec.Command("unshare", "--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net", "--fork", "mount", "-t", "proc", "proc", "/proc").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: namespaces are not permitted: %s", errUnavailable, bytes.TrimSpace(out))
	}
	for _, dir := range cgroupDirs("") {
		probe, err := os.MkdirTemp(dir, "inferd-probe-") // several tests ask at once
		if err != nil {
			return fmt.Errorf("%w: no cgroup can be made: %w", errUnavailable, err)
		}
		if err := os.Remove(probe); err != nil {
			return fmt.Errorf("%w: %w", errUnavailable, err)
		}
	}
	return nil
}

// Root makes the root below cache, unless it is there, and returns it. It takes a minute or two and the machine's own package sources.
func Root(cache string) (string, error) {
	sources, err := aptSources("/etc")
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(included, " ") + "1"))
	root := filepath.Join(cache, "root-"+hex.EncodeToString(sum[:4]))
	if _, err := os.Stat(filepath.Join(root, "lib/systemd/systemd")); err == nil {
		return root, nil
	}
	made := root + ".new" // so that a root is whole or not there
	if err := os.RemoveAll(made); err != nil {
		return "", err
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	args := append([]string{"--quiet", "--variant=minbase", "--include=" + strings.Join(included, ","),
		"--aptopt=Apt::Install-Recommends \"false\"", "--dpkgopt=path-exclude=/usr/share/locale/*", sources.suite, made}, sources.files...)
	if out, err := exec.Command("mmdebstrap", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: mmdebstrap, which makes the root of this machine's package sources: %w\n%s", errUnavailable, err, tail(string(out), 2000))
	}
	for _, unit := range masked {
		if err := os.Symlink("/dev/null", filepath.Join(made, "etc/systemd/system", unit)); err != nil {
			return "", err
		}
	}
	if err := os.Mkdir(filepath.Join(made, "oldroot"), 0o755); err != nil {
		return "", err
	}
	_ = os.Remove(filepath.Join(made, "usr/sbin/policy-rc.d")) // it would keep packages from starting what they bring
	for name, text := range map[string]string{"etc/machine-id": "", "etc/hostname": "inferd-test\n"} {
		if err := os.WriteFile(filepath.Join(made, name), []byte(text), 0o644); err != nil {
			return "", err
		}
	}
	return root, os.Rename(made, root)
}

type aptConfig struct {
	suite string
	files []string // which name that suite
}

// aptSources finds the files with which this machine gets its own release, and leaves alone those that it gets other things with.
func aptSources(etc string) (aptConfig, error) {
	text, err := os.ReadFile(filepath.Join(etc, "os-release"))
	if err != nil {
		return aptConfig{}, err
	}
	var a aptConfig
	for line := range strings.Lines(string(text)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			a.suite = strings.Trim(v, `"`)
		}
	}
	candidates := []string{filepath.Join(etc, "apt/sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, _ := filepath.Glob(filepath.Join(etc, "apt/sources.list.d", pattern)) // the pattern is well-formed
		candidates = append(candidates, found...)
	}
	for _, file := range candidates {
		if text, err := os.ReadFile(file); err == nil && slices.Contains(strings.Fields(string(text)), a.suite) {
			a.files = append(a.files, file)
		}
	}
	if a.suite == "" || len(a.files) == 0 {
		return a, fmt.Errorf("%w: no package source of this machine's own release %q was found", errUnavailable, a.suite)
	}
	return a, nil
}

// cgroupDirs are the directories for a cgroup of that name in every hierarchy, below the one that this process is in; with an empty name,
// that one itself.
func cgroupDirs(name string) (dirs []string) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil
	}
	const mount = "/sys/fs/cgroup"
	pure := false
	var fs unix.Statfs_t
	if err := unix.Statfs(mount, &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		pure = true
	}
	for line := range strings.Lines(string(text)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		at := filepath.Join(mount, strings.TrimPrefix(parts[1], "name="))
		switch {
		case pure && parts[0] == "0":
			at = mount
		case pure:
			continue
		case parts[1] == "":
			at = filepath.Join(mount, "unified")
		}
		if info, err := os.Stat(at); err == nil && info.IsDir() {
			dirs = append(dirs, filepath.Join(at, parts[2], name))
		}
	}
	return dirs
}
