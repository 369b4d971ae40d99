// units_test.go: the units of packaging/systemd, held to what systemd's own tools say of them.
package systemd_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
)

const unitsDir = "../packaging/systemd"

// analyze runs systemd-analyze in dir, where it finds the units before any that are installed.
func analyze(t *testing.T, dir string, args ...string) (output string, err error) {
	t.Helper()
	tool, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed (Debian: systemd), so nobody can say what systemd makes of the units")
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+":", "SYSTEMD_PAGER=")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// installUnits copies the units to a folder, with a daemon that is there. withGPU adds the drop-in.
func installUnits(t *testing.T, withGPU bool) (dir string, units []string) {
	t.Helper()
	dir = t.TempDir()
	stand, err := exec.LookPath("true")
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(unitsDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		text := read(t, e.Name())
		to := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".service", ".socket", ".slice":
			units = append(units, "./"+e.Name())
		case ".conf":
			if !withGPU {
				continue
			}
			to = filepath.Join(dir, "inferd.service.d", e.Name())
		default:
			t.Errorf("%s is no unit and no drop-in", e.Name())
		}
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(text, "/usr/bin/inferd", stand)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir, units
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(unitsDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestUnitsVerify(t *testing.T) {
	for name, gpu := range map[string]bool{"plain": false, "gpu": true} {
		t.Run(name, func(t *testing.T) {
			dir, units := installUnits(t, gpu)
			if len(units) != 4 || !slices.Contains(units, "./"+"inferd.slice") {
				t.Errorf("units %v, want the service, two sockets and the slice", units)
			}
			if out, err := analyze(t, dir, append([]string{"verify", "--man=no"}, units...)...); err != nil || out != "" {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}

// TestUnitIsConfined: at most 1.5, and whatever is not had is explained in the unit.
func TestUnitIsConfined(t *testing.T) {
	dir, _ := installUnits(t, false)
	out, err := analyze(t, dir, "security", "--offline=true", "--threshold=15", "--no-pager", "./inferd.service")
	if err != nil {
		t.Errorf("%v:\n%s", err, out)
	}
	out, err = analyze(t, dir, "security", "--offline=true", "--no-pager", "--json=short", "./inferd.service")
	if err != nil {
		t.Skipf("this systemd-analyze makes no JSON, so what is off cannot be read: %v", err)
	}
	var checks []struct {
		Name     string `json:"name"`
		Set      *bool  `json:"set"`
		Exposure string `json:"exposure"`
	}
	if err := json.Unmarshal([]byte(out), &checks); err != nil {
		t.Fatal(err)
	}
	_, explained, found := strings.Cut(read(t, "inferd.service"), "# What systemd-analyze security")
	if !found {
		t.Fatal("the unit explains nothing")
	}
	off := 0
	for _, c := range checks {
		if c.Set == nil || *c.Set {
			continue
		}
		off++
		setting, value, _ := strings.Cut(strings.TrimSuffix(c.Name, ":"), "=")
		if !strings.Contains(explained, setting+"=") {
			t.Errorf("%s (exposure %s) is off and not explained in the unit", c.Name, c.Exposure)
		}
		if strings.HasPrefix(value, "~@") && !strings.Contains(explained, setting+"="+value) {
			t.Errorf("%s is off and not explained in the unit", c.Name)
		}
	}
	if off < 5 {
		t.Errorf("only %d checks are off: the list was not understood", off)
	}
}

// TestSocketsAreTheConfiguredOnes: as installed, the sockets' addresses are those of the configuration, and loopback.
func TestSocketsAreTheConfiguredOnes(t *testing.T) {
	listen := config.Default().Listen
	for name, want := range map[string][2]string{"inferd.socket": {listen.HTTP, "http"}, "inferd-grpc.socket": {listen.GRPC, "grpc"}} {
		text := read(t, name)
		for key, value := range map[string]string{"ListenStream": want[0], "FileDescriptorName": want[1], "Service": "inferd.service"} {
			if !regexp.MustCompile(`(?m)^` + key + `=` + regexp.QuoteMeta(value) + `$`).MatchString(text) {
				t.Errorf("%s has no %s=%s", name, key, value)
			}
		}
	}
}
