// machine_test.go: the machine itself, before anything is installed on it.
package systemtest

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMachine(t *testing.T) {
	t.Parallel()
	m := off(t)
	boot(t, m)
	if got := m.run(t, "cat", "/proc/1/comm"); got != "systemd" {
		t.Errorf("PID 1 is %q", got)
	}
	m.sh(t, "echo kept >/var/lib/kept; echo gone >/run/gone")
	if err := m.Kill(); err != nil {
		t.Fatal(err)
	}
	boot(t, m)
	if got := m.sh(t, "cat /var/lib/kept; ls /run/gone 2>&1 || true"); got != "kept\nls: cannot access '/run/gone': No such file or directory" {
		t.Errorf("after a power cut the disk and the memory hold %q", got)
	}
	if _, err := m.Run(t.Context(), "false"); err == nil {
		t.Error("a command that failed is no error")
	}
	if err := m.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, dir := range m.cgroups {
		if exists(dir) {
			t.Errorf("%s is left behind", dir)
		}
	}
}

func TestAptSourcesOfTheReleaseAlone(t *testing.T) {
	etc := t.TempDir()
	for name, text := range map[string]string{
		"os-release":                        "ID=debian\nVERSION_CODENAME=bookworm\n",
		"apt/sources.list.d/debian.sources": "Types: deb\nURIs: http://mirror.invalid/debian\nSuites: bookworm bookworm-updates\n",
		"apt/sources.list.d/other.list":     "deb http://other.invalid/apt cloud-bookworm main\n",
	} {
		path := filepath.Join(etc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := aptSources(etc)
	if want := []string{filepath.Join(etc, "apt/sources.list.d/debian.sources")}; err != nil || got.suite != "bookworm" || !slices.Equal(got.files, want) {
		t.Errorf("%+v, %v; want %v", got, err, want)
	}
}
