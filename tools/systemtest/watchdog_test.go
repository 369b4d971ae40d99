// watchdog_test.go: what the watchdog is for, and what it must leave alone.
package systemtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

const watchdogLimit = 2 * time.Second // of installed's drop-in

// TestWatchdogRestartsWhatIsStopped: SIGSTOP of the daemon. A machine that does other things too may be late; of three times one must be in time.
func TestWatchdogRestartsWhatIsStopped(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	c := newClients(t, m)
	c.submit(2)
	var took, ready []time.Duration
	for len(took) < 3 {
		c.more(10)
		pid := m.pid()
		m.run(t, "kill", "-STOP", fmt.Sprint(pid))
		began := time.Now()
		eventually(t, time.Minute, func() error {
			if now := m.pid(); now == 0 || now == pid {
				return fmt.Errorf("PID %d, was %d", now, pid)
			}
			return nil
		})
		took = append(took, time.Since(began)) // another process is there; what it loads before it is ready is another matter
		m.active(t, pid)
		ready = append(ready, time.Since(began))
		if took[len(took)-1] <= watchdogLimit+2*time.Second {
			break
		}
	}
	t.Logf("SIGSTOP to a new process: %v, to ready again: %v (WatchdogSec=%v)", took, ready, watchdogLimit)
	if last := took[len(took)-1]; last > watchdogLimit+2*time.Second {
		t.Errorf("restarted after %v, want %v", took, watchdogLimit+2*time.Second)
	}
	if j := m.journal(t); !strings.Contains(j, "Watchdog timeout") {
		t.Errorf("it was not the watchdog:\n%s", tail(j, 2000))
	}
	c.more(10)
	c.settle()
	m.queueIsSound(t)
}

// TestWorkerThatHangs: a run that never ends costs its worker, and nobody else anything.
func TestWorkerThatHangs(t *testing.T) {
	t.Parallel()
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo(), "hangs": modeltest.Sleepy()},
		configure(t, "defaults: {run_timeout: 5s}\n"))
	pid := m.pid()
	c := newClients(t, m)
	c.predict(2)
	c.submit(1)
	err := m.ask(t.Context(), m.HTTP(), "hangs", 1e6, 1e6)
	if err == nil {
		t.Fatal("a run that never ends was answered")
	}
	t.Log("the one whose run hung was told:", err)
	m.answers(t, "hangs", 0, 0) // by another worker
	c.more(10)
	if now := m.pid(); now != pid || m.prop("NRestarts") != "0" {
		t.Errorf("the daemon was %d and is %d, %s restarts", pid, now, m.prop("NRestarts"))
	}
	c.settle()
	c.noneFailed()
}

// TestFrozenDisk: the file system with the state stops answering for a minute, thirty times WatchdogSec. The daemon is not restarted, for that would cure
// nothing; what is live answers on; what must be durable is refused or waits, and goes on when the disk does.
func TestFrozenDisk(t *testing.T) {
	t.Parallel()
	const frozen = time.Minute
	m := installed(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	m.run(t, "systemctl", "stop", "inferd.service", "inferd.socket", "inferd-grpc.socket")
	freeze := onLoop(t, m, "/var/lib/inferd", 512)
	m.run(t, "systemctl", "start", "inferd.socket", "inferd.service")
	pid := m.active(t, 0)
	m.answers(t, "m", 0, 2)

	c := newClients(t, m)
	c.predict(2)
	c.submit(2)
	c.more(10)
	thaw := freeze()
	began := time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), frozen)
	defer cancel()
	var said []string
	for ctx.Err() == nil {
		c.moreAnswers(10) // while it is frozen
		if now := m.pid(); now != pid {
			t.Errorf("%v after the disk froze the daemon was %d and is %d", time.Since(began), pid, now)
			break
		}
		if text := m.prop("StatusText"); len(said) == 0 || said[len(said)-1] != text {
			said = append(said, text)
		}
	}
	t.Logf("frozen for %v; the unit's status meanwhile: %q", time.Since(began).Round(time.Second), said)
	status := m.try("timeout", "5", "inferd", "status")
	t.Log("an operator is told: ", conditionsOf(status))
	if !strings.Contains(status, "warning: the disk") {
		t.Errorf("inferd status does not say that the disk does not answer:\n%s", status)
	}
	thaw()
	c.more(10)
	if now := m.pid(); now != pid || m.prop("NRestarts") != "0" {
		t.Errorf("the daemon was %d and is %d, %s restarts", pid, now, m.prop("NRestarts"))
	}
	c.settle()
	c.noneFailed()
	m.queueIsSound(t)
}

// conditionsOf is the start of a status, for a log.
func conditionsOf(status string) string {
	lines := strings.Split(status, "\n")
	return strings.Join(lines[:min(len(lines), 8)], " | ")
}

// onLoop puts a disk of its own, with so many MiB, in the place of a directory of the machine and copies what was there. The function that it
// returns freezes that disk and returns what thaws it.
func onLoop(t *testing.T, m *Machine, path string, mebibytes int64) (freeze func() (thaw func())) {
	t.Helper()
	image := filepath.Join(m.dir, "disk.img")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(mebibytes << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	host := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.Command(name, args...).CombinedOutput()
		if err != nil {
			t.Skipf("no disk of its own is to be had here: %s: %v: %s", name, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	host("mkfs.ext4", "-q", image)
	device := host("losetup", "--find", "--show", image)
	t.Cleanup(func() { _ = exec.Command("losetup", "--detach", device).Run() }) // the kernel does so when the machine is gone
	m.sh(t, fmt.Sprintf("mknod %s b %s", device, host("stat", "-c", "0x%t 0x%T", device)))
	m.sh(t, fmt.Sprintf("mount %s /mnt && cp -a %s/. /mnt/ && chown --reference=%[2]s /mnt && chmod --reference=%[2]s /mnt && umount /mnt && mount %[1]s %[2]s", device, path))
	return func() func() {
		m.run(t, "fsfreeze", "--freeze", path)
		melted := false
		thaw := func() {
			if !melted {
				melted = true
				if out := m.try("fsfreeze", "--unfreeze", path); out != "" {
					t.Errorf("fsfreeze --unfreeze: %s", out)
				}
			}
		}
		t.Cleanup(thaw) // before the machine is closed: a process that waits for a frozen disk cannot be killed
		return thaw
	}
}
