// death_test.go: the deaths of the daemon and of its workers, and of the whole machine.
package systemtest

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// TestKilled: kill -9 of the daemon under load.
func TestKilled(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	c := newClients(t, m)
	c.submit(2)
	c.predict(1)
	c.more(20)
	pid := m.pid()
	began := time.Now()
	m.run(t, "kill", "-9", fmt.Sprint(pid))
	m.active(t, pid)
	t.Logf("killed; ready again after %v", time.Since(began).Round(10*time.Millisecond))
	c.more(20)
	c.settle()
	if c.refused > 0 {
		t.Errorf("%d connections were refused", c.refused)
	}
	if st := m.try("inferd", "status"); !strings.Contains(strings.ToLower(st), "killed") && !strings.Contains(strings.ToLower(st), "signal") {
		t.Errorf("inferd status does not say how the last run ended:\n%s", st)
	}
	m.queueIsSound(t)
}

// TestWorkerOutOfMemory: a model takes more than there is. Its worker goes, by the kernel or by inferd before that; the daemon stays and the
// other model loses no request.
func TestWorkerOutOfMemory(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo(), "hungry": modeltest.Hungry(1)}, func(m *Machine) {
		m.dropIn(t, "memory", "[Service]\nMemoryMax=700M\n")
	})
	pid := m.pid()
	c := newClients(t, m)
	c.predict(2)
	c.submit(1)
	c.more(10)
	for range 2 {
		err := m.ask(t.Context(), m.HTTP(), "hungry", 4000, 4000)
		if err == nil {
			t.Fatal("4000 MiB were to be had")
		}
		t.Log("the one that asked for 4000 MiB was told:", err)
		m.answers(t, "hungry", 0, 0)
	}
	c.more(10)
	c.moreAnswers(10)
	t.Logf("killed by the kernel in this machine: %s; result of the unit %s, OOMPolicy=%s", m.oomKills(), m.prop("Result"), m.prop("OOMPolicy"))
	if now := m.pid(); now != pid || m.prop("NRestarts") != "0" || m.prop("ActiveState") != "active" {
		t.Errorf("the daemon was %d and is %d, %s restarts, %s", pid, now, m.prop("NRestarts"), m.prop("ActiveState"))
	}
	c.settle()
	c.noneFailed()
	t.Log(grep(m.journal(t), "memory", 5))
}

// oomKills is how often the kernel has ended a process of the service for memory, as its cgroup says.
func (m *Machine) oomKills() string {
	group := m.prop("ControlGroup")
	return m.try("/bin/sh", "-c", "cat /sys/fs/cgroup"+group+"/memory.events /sys/fs/cgroup/memory"+group+"/memory.oom_control 2>/dev/null | grep oom_kill' '")
}

// grep is the last lines that have the word.
func grep(text, word string, most int) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found[max(0, len(found)-most):], "\n")
}

// TestDaemonOutOfMemory: the kernel ends the daemon itself for memory.
func TestDaemonOutOfMemory(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()}, func(m *Machine) {
		m.dropIn(t, "memory", "[Service]\nMemoryMax=500M\n")
	})
	c := newClients(t, m)
	c.submit(2)
	c.more(20)
	pid := m.pid()
	// The kernel takes the one with the highest score: another process eats the memory of the cgroup, and the daemon is made the one that goes.
	own := m.sh(t, fmt.Sprintf(`for d in /sys/fs/cgroup/memory /sys/fs/cgroup; do
		g=$(sed -n -e 's/^[0-9]*:memory://p' -e 's/^0:://p' /proc/%d/cgroup | while read -r p; do [ -e $d$p/cgroup.procs ] && echo $d$p && break; done)
		[ -z "$g" ] || { echo $g; break; }
	done`, pid))
	m.sh(t, fmt.Sprintf("echo 1000 >/proc/%d/oom_score_adj", pid))
	eater := m.Command(t.Context(), "/bin/sh", "-c", "echo $$ >"+own+"/cgroup.procs && echo 0 >/proc/self/oom_score_adj && exec tail /dev/zero")
	out, err := eater.CombinedOutput()
	t.Logf("the one that ate the memory of %s: %v %s", own, err, out)
	m.active(t, pid)
	t.Log(grep(m.journal(t), "inferd.service: ", 4))
	c.more(20)
	c.settle()
	m.queueIsSound(t)
}

// TestFullDisk: the disk with the state is full. Predictions go on; what must be durable is refused in a sentence; with room again it goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	m.run(t, "systemctl", "stop", "inferd.service", "inferd.socket", "inferd-grpc.socket")
	m.sh(t, `mount -t tmpfs -o size=96m tmpfs /mnt && cp -a /var/lib/inferd/. /mnt/ && chown --reference=/var/lib/inferd /mnt && chmod --reference=/var/lib/inferd /mnt && mount --move /mnt /var/lib/inferd 2>/dev/null || {
		umount /mnt; mkdir -p /keep; cp -a /var/lib/inferd /keep/; mount -t tmpfs -o size=96m tmpfs /var/lib/inferd; cp -a /keep/inferd/. /var/lib/inferd/
		chown --reference=/keep/inferd /var/lib/inferd; chmod --reference=/keep/inferd /var/lib/inferd; }`)
	m.run(t, "systemctl", "start", "inferd.socket", "inferd.service")
	pid := m.active(t, 0)
	m.answers(t, "m", 0, 2)
	c := newClients(t, m)
	c.predict(2)
	c.submit(2)
	c.more(20)
	m.sh(t, "dd if=/dev/zero of=/var/lib/inferd/filler bs=64k 2>/dev/null || true; df /var/lib/inferd | tail -1")
	var told string
	eventually(t, time.Minute, func() error {
		status, body, err := m.call(t.Context(), c.http, "POST", "/v1/models/m:submit", `{"instances": [[1]]}`)
		if err == nil && status != http.StatusInsufficientStorage { // 503 for a moment, until it is known what failed
			err = fmt.Errorf("a submit on the full disk is told %d %s", status, body)
		}
		told = fmt.Sprint(status, " ", strings.TrimSpace(body))
		return err
	})
	t.Log("a submit on the full disk is told:", told)
	c.moreAnswers(50)
	t.Log("an operator is told:", conditionsOf(m.try("inferd", "status")))
	m.sh(t, "rm /var/lib/inferd/filler")
	c.more(20)
	if now := m.pid(); now != pid || m.prop("NRestarts") != "0" {
		t.Errorf("the daemon was %d and is %d, %s restarts", pid, now, m.prop("NRestarts"))
	}
	c.settle()
	c.noneFailed()
	m.queueIsSound(t)
}

// TestPowerCut: everything of the machine ends at once under load, again and again. What the kernel had not written yet is not lost by
// this, which tools/faultfs is for; what is shown is that the service comes up by itself with everything that was acknowledged.
func TestPowerCut(t *testing.T) {
	t.Parallel()
	cuts := 3
	if os.Getenv("INFERD_LONG") != "" {
		cuts = 20
	}
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	c := newClients(t, m)
	c.submit(4)
	for range cuts {
		c.more(25)
		if err := m.Kill(); err != nil {
			t.Fatal(err)
		}
		if exists(filepath.Join(m.Root(), "run/inferd/control.sock")) {
			t.Error("the root has what lies in memory")
		}
		boot(t, m)
		m.active(t, 0)
	}
	c.more(10)
	c.settle()
	m.queueIsSound(t)
	m.run(t, "systemctl", "stop", "inferd.service", "inferd.socket", "inferd-grpc.socket")
	t.Log("with nobody at it:", m.run(t, "inferd", "queue", "check", "--file", "/var/lib/inferd/queue.db"))
}
