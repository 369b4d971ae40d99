// vm_test.go: what cannot be tried in namespaces, in a virtual machine without KVM: the clock jumps, which everybody would notice, and a worker
// is out of memory under a kernel with cgroup v2 alone.
package systemtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference/savedmodel/modeltest"
)

// begin is run first in the virtual machine. Everything there is ten to a thousand times slower than here, so nothing is asked of times.
const begin = `
say() { echo "SAID $*"; }
fail() { say "FAILED $*"; systemctl status --no-pager -n 40 inferd.service; inferd status; poweroff -f; }
say "kernel $(uname -r), $(stat -fc %T /sys/fs/cgroup)"
for i in $(seq 600); do inferd predict m /root/row.json >/dev/null 2>&1 && break; [ $i -lt 600 ] || fail "no prediction"; sleep 1; done
pid=$(systemctl show -P MainPID inferd.service)
say "ready with PID $pid; $(systemctl show -P StatusText inferd.service)"
say "cgroups $(ls -d /sys/fs/cgroup/inferd.slice/inferd.service/*/ 2>/dev/null | xargs -n1 basename | tr '\n' ' ')"
`

const jump = `
inferd predict m /root/row.json --submit --wait --key=before >/dev/null || fail "a job before the jump"
for to in "+400 days" "-800 days" "+400 days"; do
	date -s "$(date -d "$to")" >/dev/null || fail "date -s"
	say "the clock is at $(date -u +%F)"
	inferd predict m /root/row.json >/dev/null || fail "a prediction after $to"
	inferd predict m /root/row.json --submit --wait --key="after $to $RANDOM" >/dev/null || fail "a job after $to"
	sleep 20
	[ "$(systemctl show -P MainPID inferd.service)" = "$pid" ] || fail "after $to it was restarted"
	say "$(inferd queue ls -o json | tr -d ' \n' | grep -o '"state":"[a-z]*"' | sort | uniq -c | tr -s ' \n' ' ')"
	[ "$(inferd queue ls -o json | tr -d ' \n' | grep -o '"state":"done"' | wc -l)" -ge 2 ] || fail "results have expired by $to"
done
inferd queue check || fail "queue check"
`

const hunger = `
for i in $(seq 600); do inferd predict hungry /root/row.json >/dev/null 2>&1 && break; [ $i -lt 600 ] || fail "no prediction by hungry"; sleep 1; done
(while inferd predict m /root/row.json >/dev/null 2>/root/lost; do echo . >>/root/answered; done; echo lost >>/root/lost) &
sleep 5
for i in 1 2; do
	inferd predict hungry /root/much.json >/root/told 2>&1 && fail "1100 MiB were to be had"
	say "the one that asked for 1100 MiB was told: $(cat /root/told)"
	for i in $(seq 600); do inferd predict hungry /root/row.json >/dev/null 2>&1 && break; [ $i -lt 600 ] || fail "hungry is gone"; sleep 1; done
done
sleep 5
[ -s /root/lost ] && fail "the other model lost a request: $(cat /root/lost)"
say "$(wc -l </root/answered) predictions by the other model, none lost"
say "$(cat /sys/fs/cgroup/inferd.slice/inferd.service/memory.events | tr '\n' ' ')"
say "$(inferd status -o json | tr -d '\n' | grep -o '"last_death": *"[^"]*"' | head -3)"
journalctl -k --no-pager -o cat | grep -i 'killed process' | while read -r line; do say "$line"; done
[ "$(systemctl show -P MainPID inferd.service)" = "$pid" ] || fail "the daemon was restarted"
[ "$(systemctl show -P NRestarts inferd.service)" = 0 ] || fail "the daemon was restarted"
`

const end = `
say PASSED
poweroff -f
`

func TestClockJump(t *testing.T) {
	m := virtual(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo()})
	emulate(t, m, begin+jump+end)
}

func TestWorkerOutOfMemoryInItsCgroup(t *testing.T) {
	m := virtual(t, map[string]*modeltest.Model{"m": modeltest.HalfPlusTwo(), "hungry": modeltest.Hungry(1)})
	m.dropIn(t, "memory", "[Service]\nMemoryMax=700M\n")
	m.write(t, "/root/much.json", `{"instances": [[1100]]}`)
	emulate(t, m, begin+hunger+end)
}

// virtual is a machine with inferd on it that is to be emulated. It needs qemu-system-x86_64, mke2fs, and INFERD_VM_KERNEL and INFERD_VM_INITRD,
// a kernel and an initrd with which a root on virtio is mounted: tools/systemtest/vm.sh makes them and sets these.
func virtual(t *testing.T, models map[string]*modeltest.Model) *Machine {
	t.Helper()
	if os.Getenv("INFERD_VM_KERNEL") == "" {
		t.Skip("boots a virtual machine without KVM, which takes minutes: run by tools/systemtest/vm.sh")
	}
	return installedOff(t, models)
}

// emulate boots the machine's disk in qemu, runs the script in it, which ends by saying PASSED, and logs what it says.
func emulate(t *testing.T, m *Machine, script string) {
	t.Helper()
	m.write(t, "/root/row.json", `{"instances": [[1.0]]}`)
	m.write(t, "/root/script.sh", script)
	m.write(t, "/etc/systemd/system/script.service", "[Unit]\nAfter=multi-user.target\n[Service]\nType=idle\nStandardOutput=file:/dev/ttyS0\nStandardError=inherit\nExecStart=/bin/bash /root/script.sh\n[Install]\nWantedBy=multi-user.target\n")
	for _, unit := range append(masked, "serial-getty@.service") { // there is no udev in it, for which the last would wait
		at := filepath.Join(m.Root(), "etc/systemd/system", unit)
		_ = os.Remove(at)
		if err := os.Symlink("/dev/null", at); err != nil {
			t.Fatal(err)
		}
	}
	wants := filepath.Join(m.Root(), "etc/systemd/system/multi-user.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../script.service", filepath.Join(wants, "script.service")); err != nil {
		t.Fatal(err)
	}
	disk := filepath.Join(m.dir, "disk.ext4")
	if out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-d", m.Root(), disk, "3G").CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v: %s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-m", "2560", "-smp", "2", "-kernel", os.Getenv("INFERD_VM_KERNEL"), "-initrd", os.Getenv("INFERD_VM_INITRD"),
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off systemd.show_status=0", "-nographic", "-nodefaults", "-serial", "stdio", "-no-reboot",
		"-drive", "file="+disk+",if=none,id=d0,format=raw,cache=unsafe", "-device", "virtio-blk-pci,drive=d0").CombinedOutput()
	for line := range bytes.Lines(out) {
		if s, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "SAID "); ok {
			t.Log(s)
		}
	}
	if !bytes.Contains(out, []byte("SAID PASSED")) {
		t.Fatalf("%v\n%s", err, tail(string(out), 6000))
	}
}
