// priority.go: threads of low priority, which load and warm up a version while others serve.
package worker

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// onLow runs f on a thread of its own, which has low priority and ends with f: a thread that was lowered cannot be raised again without a
// privilege (RLIMIT_NICE), so it must never get into the hands of the Go runtime. Threads that C code makes meanwhile inherit the priority;
// those that the Go runtime makes do not, for it has another thread make them when the one that asks is locked.
func onLow(f func()) { go low(f, func() {}) }

func low(f, begun func()) {
	runtime.LockOSThread() // not unlocked again: then the thread ends with the goroutine
	if unix.Gettid() == unix.Getpid() {
		// The main thread cannot end. It is held until somebody else has found another one.
		held := make(chan struct{})
		go low(f, func() { close(held) })
		<-held
		runtime.UnlockOSThread()
		return
	}
	begun()
	lower()
	f()
}

// lower gives the calling thread what is left over by others, for as long as it lives. SCHED_IDLE and not a nice value: a processor that
// runs nothing else counts as free when the kernel looks for a place for a thread that wakes, and such a thread takes it at once.
// Where that is refused (by a filter of system calls) the lowest nice value is the next best; where that is refused too, nothing is lost.
func lower() {
	if unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 19) // of this thread
	}
	// The class for reading would be idle too, and a disk that others keep busy would never be read.
	const whoProcess, bestEffort, lowest = 1, 2, 7
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, bestEffort<<13|lowest) // only some I/O schedulers care
}

// turns are what the threads of a process have had of the processors, added up over those that live; nothing where the kernel does not count.
type turns struct {
	ran    time.Duration
	waited time.Duration // ready to run, and no processor
}

func readTurns(pid int) (sum turns) {
	tasks, _ := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat") // the pattern is well-formed
	for _, path := range tasks {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text)) // both in nanoseconds, then how often
		if len(fields) < 2 {
			continue
		}
		ran, _ := strconv.ParseInt(fields[0], 10, 64) // 0 where it is no number
		waited, _ := strconv.ParseInt(fields[1], 10, 64)
		sum.ran, sum.waited = sum.ran+time.Duration(ran), sum.waited+time.Duration(waited)
	}
	return sum
}
