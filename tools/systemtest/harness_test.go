// harness_test.go: a machine for a test, and the questions that tests ask it.
package systemtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// env names the directory that the root is kept in. `make test-system` sets it; without it nothing here runs, for it takes minutes.
const env = "INFERD_SYSTEM"

// needs skips a test that cannot be run here, and says why.
func needs(t *testing.T) {
	t.Helper()
	if os.Getenv(env) == "" {
		t.Skip("boots systemd: run by `make test-system`")
	}
	if err := Unavailable(); err != nil {
		t.Skip(err)
	}
}

// unless ends the test for an error: as skipped, with the reason, when it is that there can be no machine here.
func unless(t *testing.T, err error) {
	t.Helper()
	switch {
	case errors.Is(err, errUnavailable):
		t.Skip(err)
	case err != nil:
		t.Fatal(err)
	}
}

var root = sync.OnceValues(func() (string, error) { return Root(os.Getenv(env)) })

// off makes a machine that is off, above the bare root or above other layers.
func off(t *testing.T, layers ...string) *Machine {
	t.Helper()
	needs(t)
	base, err := root()
	unless(t, err)
	dir, err := os.MkdirTemp(os.Getenv(env), "machine-") // on a disk of the checkout, not in a small /tmp
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	m, err := New(dir, append(layers, base)...)
	unless(t, err)
	t.Cleanup(func() {
		if t.Failed() && m.pid1.Load() != 0 {
			t.Log(tail(m.try("journalctl", "--no-pager", "-n", "60", "-o", "short-monotonic"), 12000))
			t.Log(m.try("systemctl", "status", "--no-pager", "-n", "0", "inferd.service"))
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

// boot starts a machine that is off, and says how long it took.
func boot(t *testing.T, m *Machine) {
	t.Helper()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	if err := m.Boot(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("booted in %v", time.Since(began).Round(time.Millisecond))
}

// run is a command that must succeed.
func (m *Machine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.Run(t.Context(), name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

// sh is a line of shell that must succeed.
func (m *Machine) sh(t *testing.T, line string) string {
	t.Helper()
	return m.run(t, "/bin/sh", "-euc", line)
}

// try is a command that may fail; what it prints.
func (m *Machine) try(name string, args ...string) string {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, _ := m.Run(ctx, name, args...)
	return strings.TrimSpace(out)
}

// prop is a property of inferd.service, "" while systemd does not answer.
func (m *Machine) prop(name string) string {
	return m.try("systemctl", "show", "-P", name, "inferd.service")
}

// pid is the daemon's, as its own systemd sees it; 0 when it does not run.
func (m *Machine) pid() int {
	n, _ := strconv.Atoi(m.prop("MainPID")) // 0 is what it is then
	return n
}

// active waits until the service has said that it is ready, in another process than old, and returns that one.
func (m *Machine) active(t *testing.T, old int) int {
	t.Helper()
	var pid int
	eventually(t, time.Minute, func() error {
		pid = m.pid()
		if state := m.prop("ActiveState"); pid == 0 || pid == old || state != "active" {
			return fmt.Errorf("inferd.service is %s (%s) with PID %d, was %d; %s", state, m.prop("SubState"), pid, old, m.prop("Result"))
		}
		return nil
	})
	return pid
}

// journal is what the service, and systemd about it, has written, newest last.
func (m *Machine) journal(t *testing.T) string {
	t.Helper()
	return m.run(t, "journalctl", "-u", "inferd.service", "--no-pager", "-o", "cat")
}

// dropIn adds to the unit.
func (m *Machine) dropIn(t *testing.T, name, text string) {
	t.Helper()
	m.write(t, filepath.Join("/etc/systemd/system/inferd.service.d", name+".conf"), text)
	if m.pid1.Load() != 0 {
		m.run(t, "systemctl", "daemon-reload")
	}
}

// write makes a file with that content on the machine's disk.
func (m *Machine) write(t *testing.T, path, text string) {
	t.Helper()
	at := filepath.Join(m.Root(), path)
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// eventually polls until nothing is wrong any more.
func eventually(t *testing.T, most time.Duration, wrong func() error) {
	t.Helper()
	end := time.Now().Add(most)
	for {
		err := wrong()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %v", most, err)
		}
		time.Sleep(25 * time.Millisecond)
	}
}

// outside is a line of shell with this machine's own programs in the machine's network, as a client of it would have them.
func (m *Machine) outside(t *testing.T, line string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "nsenter", "-t", strconv.FormatInt(m.pid1.Load(), 10), "-n", "/bin/sh", "-euc", line)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v: %s", line, err, out)
	}
	return strings.TrimSpace(string(out))
}
