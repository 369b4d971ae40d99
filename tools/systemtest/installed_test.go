// installed_test.go: a machine with inferd on it, as the tests after the first want one.
package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// layer is the disk of a machine on which inferd was installed, made by the first test that needs one and removed after the last.
var layer struct {
	once    sync.Once
	dir     string // empty: it could not be made
	skipped bool   // for there can be no machine here
}

func TestMain(m *testing.M) {
	code := m.Run()
	if layer.dir != "" {
		_ = os.RemoveAll(filepath.Dir(layer.dir))
	}
	os.Exit(code)
}

// packages are the files in the directory INFERD_SYSTEM/which, made by `make test-system`.
func packages(t *testing.T, which string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(os.Getenv(env), which, "*.deb"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no package in %s/%s (%v): make test-system makes them", os.Getenv(env), which, err)
	}
	return found
}

// bring puts packages on the machine's disk and returns where they are.
func (m *Machine) bring(t *testing.T, files []string) (paths []string) {
	t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, "/var/cache/"+filepath.Base(file))
		if err := os.WriteFile(filepath.Join(m.Root(), paths[len(paths)-1]), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// install is one `apt install ./*.deb`.
func (m *Machine) install(t *testing.T, paths []string) string {
	t.Helper()
	return m.run(t, "apt-get", append([]string{"install", "-y", "--no-install-recommends"}, paths...)...)
}

// installed is a machine with the packages on it and models that each answer, booted. WatchdogSec is 2. What shall be otherwise is prepared
// while it is off.
func installed(t *testing.T, models map[string]*modeltest.Model, prepare ...func(*Machine)) *Machine {
	t.Helper()
	m := installedOff(t, models)
	m.dropIn(t, "watchdog", "[Service]\nWatchdogSec=2\n")
	for _, f := range prepare {
		f(m)
	}
	boot(t, m)
	m.active(t, 0)
	for name := range models {
		m.answers(t, name, 0, half(name))
	}
	return m
}

// installedOff is that machine before its first boot.
func installedOff(t *testing.T, models map[string]*modeltest.Model) *Machine {
	t.Helper()
	needs(t)
	layer.once.Do(func() {
		defer func() { layer.skipped = t.Skipped() }()
		m := off(t)
		boot(t, m)
		m.install(t, m.bring(t, packages(t, "v1")))
		m.active(t, 0)
		m.run(t, "systemctl", "stop", "inferd.service", "inferd.socket", "inferd-grpc.socket")
		m.sh(t, "rm -f /var/cache/*.deb")
		if err := m.Halt(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		dir, err := os.MkdirTemp(os.Getenv(env), "layer-")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(m.Upper(), filepath.Join(dir, "upper")); err != nil {
			t.Fatal(err)
		}
		layer.dir = filepath.Join(dir, "upper")
	})
	if layer.skipped {
		t.Skip("no machine can be made here: see the first test")
	}
	if layer.dir == "" {
		t.Fatal("inferd could not be installed: see the first test")
	}
	m := off(t, layer.dir)
	for name, model := range models {
		m.publish(t, name, 1, model)
	}
	return m
}

// half is what a model of these tests answers to 0: HalfPlusTwo is called m, the others give back what they are given.
func half(name string) float64 {
	if name == "m" {
		return 2
	}
	return 0
}

// configure is for prepare: the configuration, as an operator edits it.
func configure(t *testing.T, text string) func(*Machine) {
	return func(m *Machine) { t.Helper(); m.write(t, "/etc/inferd/inferd.yaml", text) }
}

// modelsDir is where the packages have it.
const modelsDir = "/var/lib/inferd/models"

func (m *Machine) publish(t *testing.T, name string, version int64, model *modeltest.Model) {
	t.Helper()
	if _, err := model.Publish(filepath.Join(m.Root(), modelsDir, name), version); err != nil {
		t.Fatal(err)
	}
}

// status is what `inferd status` prints, which asks the operators' socket.
func (m *Machine) status(t *testing.T) *control.Status {
	t.Helper()
	var st control.Status
	eventually(t, 30*time.Second, func() error {
		out := m.try("inferd", "status", "-o", "json")
		st = control.Status{}
		if err := json.Unmarshal([]byte(out), &st); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	return &st
}

// condition waits until the status has one of that code, and returns what it says.
func (m *Machine) condition(t *testing.T, codes ...string) string {
	t.Helper()
	var said string
	eventually(t, time.Minute, func() error {
		st := m.status(t)
		for _, c := range st.Conditions {
			for _, code := range codes {
				if c.Code == code {
					said = c.Message
					return nil
				}
			}
		}
		return fmt.Errorf("no condition of %s: %+v", strings.Join(codes, ", "), st.Conditions)
	})
	return said
}

// queueIsSound holds the file to the store's invariants.
func (m *Machine) queueIsSound(t *testing.T) {
	t.Helper()
	t.Log("inferd queue check:", m.run(t, "inferd", "queue", "check"))
}
