// install_test.go: the packages on a fresh machine, and their going.
package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestInstallToFirstPrediction: one apt install, one cp -r, one curl, as the README has them. Nothing is configured, and nothing else is done.
func TestInstallToFirstPrediction(t *testing.T) {
	t.Parallel()
	m := off(t)
	if _, err := modeltest.HalfPlusTwo().Publish(filepath.Join(m.Root(), "root/half_plus_two"), 1); err != nil {
		t.Fatal(err)
	}
	boot(t, m)
	m.bring(t, packages(t, "v1"))

	began := time.Now()
	lines := readme(t)
	m.sh(t, "cd /var/cache && "+strings.Replace(lines[0], "apt install", "apt-get install -y", 1)) // as apt is called by what is no person
	installed := time.Since(began)
	m.sh(t, "cd /root && "+lines[1])
	answer := m.outside(t, strings.Replace(lines[2], "curl ", "curl -sS --max-time 10 ", 1)) // no curl is on the machine
	t.Logf("apt install %v, to the first prediction %v: %s", installed.Round(100*time.Millisecond), time.Since(began).Round(100*time.Millisecond), strings.Join(strings.Fields(answer), " "))
	if !strings.Contains(strings.Join(strings.Fields(answer), ""), `"predictions":[[2.5]]`) {
		t.Errorf("answered %s", answer)
	}
	for unit, want := range map[string]string{"inferd.service": "enabled", "inferd.socket": "enabled"} {
		if got := m.try("systemctl", "is-enabled", unit); got != want {
			t.Errorf("%s is %s", unit, got)
		}
	}
	if got := m.run(t, "systemctl", "is-system-running"); got != "running" {
		t.Errorf("the system is %s", got)
	}
	if user := m.prop("User"); user != "inferd" {
		t.Errorf("it runs as %q", user)
	}
	m.loopbackAlone(t)
	t.Log(m.run(t, "systemctl", "status", "--no-pager", "-n", "0", "inferd.service"))
	t.Log(lastLine(m.try("systemd-analyze", "security", "--no-pager", "inferd.service")))

	// After a restart of the machine it is there by itself.
	if err := m.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	boot(t, m)
	m.answers(t, "half_plus_two", 1, 2.5)
}

// readme is the block of commands in the README's section on installing, without sudo: an install, a copy of a model, a request.
func readme(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## Install\n")
	_, block, _ := strings.Cut(section, "```sh\n")
	block, _, found := strings.Cut(block, "\n```")
	lines := strings.Split(strings.ReplaceAll(block, "sudo ", ""), "\n")
	if !found || len(lines) != 3 || !strings.HasPrefix(lines[0], "apt install ./inferd") || !strings.HasPrefix(lines[1], "cp -r half_plus_two ") || !strings.HasPrefix(lines[2], "curl ") {
		t.Fatalf("the README's commands are %q", lines)
	}
	return lines
}

// loopbackAlone: as installed, no port is open to other machines.
func (m *Machine) loopbackAlone(t *testing.T) {
	t.Helper()
	const listens = "0A"
	ports := map[string]bool{}
	for line := range strings.Lines(m.sh(t, "cat /proc/net/tcp /proc/net/tcp6")) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != listens {
			continue
		}
		address, port, _ := strings.Cut(f[1], ":")
		if ports[port] = true; address != "0100007F" {
			t.Errorf("port %s (hex) is open at %s", port, address)
		}
	}
	if !ports["2134"] || !ports["2135"] { // 8500 and 8501
		t.Errorf("the ports that are open are %v", ports)
	}
}

func lastLine(s string) string { return s[strings.LastIndexByte(s, '\n')+1:] }

// TestRemoveKeepsPurgeRemoves, and what an operator has edited in between is asked about by nobody.
func TestRemoveKeepsPurgeRemoves(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	c := newClients(t, m)
	c.submit(1)
	c.more(5)
	c.end()

	const edited = "# mine\ndefaults: {default_deadline: 20s}\n"
	m.sh(t, "printf '"+strings.ReplaceAll(edited, "\n", `\n`)+"' >/etc/inferd/inferd.yaml")
	old := m.pid()
	out := m.install(t, m.bring(t, packages(t, "v2")))
	if strings.Contains(out, "conffile prompt") {
		t.Errorf("the upgrade asked:\n%s", out)
	}
	m.active(t, old)
	if got := m.run(t, "cat", "/etc/inferd/inferd.yaml"); got != strings.TrimSpace(edited) {
		t.Errorf("after the upgrade the configuration is %q", got)
	}
	c.settle() // through a restart for the upgrade
	t.Log("upgraded with an edited configuration, DEBIAN_FRONTEND=noninteractive and no --force-conf:", lastLine(out))

	m.run(t, "apt-get", "remove", "-y", "inferd")
	if state := m.prop("ActiveState"); state != "inactive" {
		t.Errorf("after remove the service is %s", state)
	}
	m.sh(t, "test -e /var/lib/inferd/models/m/1/saved_model.pb; test -e /var/lib/inferd/queue.db; test -e /etc/inferd/inferd.yaml; ! test -e /usr/bin/inferd")

	// Installed again it has everything it had.
	m.install(t, m.bring(t, packages(t, "v2")))
	m.active(t, 0)
	m.answers(t, "m", 0, 2)
	again := newClients(t, m)
	again.jobs = c.jobs
	again.settle()

	m.run(t, "apt-get", "purge", "-y", "inferd")
	m.sh(t, "! test -e /var/lib/inferd; ! test -e /etc/inferd; ! test -e /usr/bin/inferd; ! test -e /run/inferd")
	if left := m.try("systemctl", "list-units", "--no-legend", "--all", "inferd*.service", "inferd*.socket"); left != "" {
		t.Errorf("after purge systemd knows %s", left)
	}
	// Twice is once: the scripts may be run again.
	m.run(t, "apt-get", "purge", "-y", "inferd")
}
