// peak.go: the most memory that a worker has used at once, as the kernel counts it.
package worker

import (
	"fmt"
	"os"
)

// Peak is the most memory, counted as Memory.Resident, that the model's process has used since its start or since the last Peak with
// anew, which begins the count again. Where the kernel does not allow that the count goes on. ok is false when nobody can tell: while
// there is no process, and where others of its Group share it. Pages of files (the runtime's own, above all) are left out as they are now.
func (m *Model) Peak(anew bool) (bytes int64, ok bool) {
	_, p := m.unit.stats()
	if p == nil || m.opts.Group != "" {
		return 0, false
	}
	bytes, err := readPeak(p.pid)
	if anew {
		_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", p.pid), []byte("5"), 0) // see above
	}
	return bytes, err == nil && bytes > 0
}

func readPeak(pid int) (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	resident := procField(b, "RssAnon:") + procField(b, "RssShmem:")
	return max(resident, procField(b, "VmHWM:")-procField(b, "RssFile:")), nil
}
