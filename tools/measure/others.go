// others.go: how busy everybody else is.
package measure

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// mostOthers is the share of the machine that others may take during a pair that counts.
const mostOthers = 0.05

// WatchOthers begins to watch. The function that it returns gives the share of the machine that others have taken since: other processes,
// the kernel's own threads, and whoever else the hypervisor serves.
func WatchOthers() func() float64 {
	began, busy, own := time.Now(), machineCPU(), TreeCPU(os.Getpid())
	return func() float64 {
		others := (machineCPU() - busy) - (TreeCPU(os.Getpid()) - own)
		return others / (time.Since(began).Seconds() * float64(runtime.NumCPU()))
	}
}

// machineCPU is the time in seconds that the processors have not been idle, added up.
func machineCPU() (busy float64) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) { // cpu user nice system idle iowait irq softirq steal ...
		if v, err := strconv.ParseFloat(f, 64); err == nil && i != 4 && i != 5 && i <= 8 {
			busy += v / 100
		}
	}
	return busy
}
