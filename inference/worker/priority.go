// priority.go: threads and processes of low priority, which load and warm up a version while others serve.
package worker

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// onLow runs f on a thread of its own, which has low priority and ends with f. It is for where a thread that was lowered cannot be raised
// again, see raisable: it must never get into the hands of the Go runtime then. Threads that C code makes meanwhile inherit the priority;
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

// lower gives the calling thread what is left over by others, for as long as it lives.
func lower() { lowerThread(0) }

// lowerThread does that to a thread of a process of ours. SCHED_IDLE and not a nice value: a processor that runs nothing else counts as free
// when the kernel looks for a place for a thread that wakes, and such a thread takes it at once.
// Where that is refused (by a filter of system calls) the lowest nice value is the next best; where that is refused too, nothing is lost.
func lowerThread(tid int) {
	if unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0) != nil {
		_ = unix.Setpriority(unix.PRIO_PROCESS, tid, 19) // of this thread
	}
	// The class for reading would be idle too, and a disk that others keep busy would never be read.
	setIOPriority(tid, ioBestEffort, ioLowest)
}

const (
	ioNone, ioBestEffort = 0, 2 // classes: as the nice value says, and by level
	ioLowest             = 7
)

func setIOPriority(tid, class, level int) {
	const whoProcess = 1
	_, _, _ = unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, uintptr(tid), uintptr(class<<13|level)) // only some I/O schedulers care
}

// raisable reports whether this process may give back to threads of low priority what they had: with RLIMIT_NICE at 20 or more (LimitNICE of the
// unit), or CAP_SYS_NICE. It is tried, on a thread that ends.
var raisable = sync.OnceValue(func() bool {
	may := make(chan bool)
	onLow(func() { may <- raiseThread(unix.Gettid()) == nil })
	return <-may
})

func raiseThread(tid int) error {
	err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err == nil {
		setIOPriority(tid, ioNone, 0)
	}
	return err
}

// lowerProcess lowers every thread that the process has; those that it makes inherit it. Where raisable.
func lowerProcess(pid int) {
	_ = eachThread(pid, func(tid int) error { lowerThread(tid); return nil }) // it has ended, then
}

// raiseProcess is the way back.
func raiseProcess(pid int) error {
	if err := eachThread(pid, raiseThread); err != nil {
		return fmt.Errorf("raise the threads of process %d: %w", pid, err)
	}
	return nil
}

// eachThread calls f for every thread of the process, also for those that others make meanwhile: they are as their makers were then.
func eachThread(pid int, f func(tid int) error) error {
	seen := make(map[int]bool)
	for quiet := 0; quiet < 2; quiet++ { // the second look is for one that was being made during the first
		tasks, err := os.ReadDir("/proc/" + strconv.Itoa(pid) + "/task")
		if err != nil {
			return nil // it has ended
		}
		for _, t := range tasks {
			tid, err := strconv.Atoi(t.Name())
			if err != nil || seen[tid] {
				continue
			}
			seen[tid] = true
			quiet = -1
			if err := f(tid); err != nil {
				return err
			}
		}
	}
	return nil
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
