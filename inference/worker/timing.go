// timing.go: what of the processors' time a worker's runs have, for who compares ways to run a version.
package worker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// timing counts, in the worker, what the callers have of the processors inside runs. It is off until somebody asks, for asking the kernel twice costs
// about what a small run does. Time by the clock would count what other processes take, and that of the whole process what callers spin between runs.
type timing struct {
	on    atomic.Bool
	nanos atomic.Int64
}

// begin is the calling thread's time, 0 while nothing is counted.
func (t *timing) begin() int64 {
	if !t.on.Load() {
		return 0
	}
	return threadTime()
}

func (t *timing) end(begun int64) {
	if begun > 0 {
		t.nanos.Add(threadTime() - begun)
	}
}

func (t *timing) read(off bool) int64 {
	t.on.Store(!off)
	return t.nanos.Load()
}

// threadTime is what the thread has had of the processors, in nanoseconds.
func threadTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return t.Nano()
}

// timed is the core's side: one question at a time.
type timed struct {
	turn   sync.Mutex
	asked  atomic.Bool
	answer atomic.Pointer[chan int64] // cap 1; of the question that waits
}

// answered takes the worker's answer in.
func (t *timed) answered(f frame) error {
	if !t.asked.CompareAndSwap(true, false) {
		return lies("the time of runs, which was not asked for")
	}
	if f.Nanos < 0 {
		return lies("runs that took %d ns", f.Nanos)
	}
	*t.answer.Load() <- f.Nanos
	return nil
}

// RunTime is how much of the processors' time the callers have had inside runs since the first such question, in their own threads: threads of
// TensorFlow's pools are not in it. Zero where the process ends.
func (m *Model) RunTime(ctx context.Context) time.Duration { return m.askTime(ctx, false) }

// StopTiming has the worker count no more, which costs each run a little.
func (m *Model) StopTiming(ctx context.Context) { m.askTime(ctx, true) }

func (m *Model) askTime(ctx context.Context, off bool) time.Duration {
	_, p := m.unit.stats()
	if p == nil {
		return 0
	}
	t := &p.timed
	t.turn.Lock()
	defer t.turn.Unlock()
	answer := make(chan int64, 1)
	t.answer.Store(&answer)
	if !t.asked.CompareAndSwap(false, true) {
		return 0 // somebody has left, and its answer is under way
	}
	_ = p.tell(frame{Op: "time", Off: off}) // otherwise it goes down
	select {
	case n := <-answer:
		return time.Duration(n)
	case <-p.down:
	case <-ctx.Done():
	}
	return 0
}

// CPUTime is how much of the processors' time the model's process has had since its start; false where there is no process.
func (m *Model) CPUTime() (time.Duration, bool) {
	_, p := m.unit.stats()
	if p == nil {
		return 0, false
	}
	// clock_getcpuclockid's number for a process (CPUCLOCK_SCHED).
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.pid<<3|2), &t); err != nil {
		return 0, false
	}
	return time.Duration(t.Nano()), true
}
