// spin.go: whether to poll for a moment before sleeping.
package worker

import (
	"bytes"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// maxSpin bounds a poll: about what two wake-ups across processes cost.
const maxSpin = 200 * time.Microsecond

// spinner decides, by what came of it lately, whether polling is worth a processor. At most one goroutine of a side polls at a time.
type spinner struct {
	busy  atomic.Bool
	score atomic.Int32 // 0 to maxScore: up by one when polling found something, down by two when not
	tries atomic.Uint32

	crowded atomic.Bool  // more threads want to run than there are processors
	looked  atomic.Int64 // when that was found out, in nanoseconds since began
}

var began = time.Now()

const (
	maxScore = 8
	// probe is how many waits pass between attempts while polling does not pay.
	probe = 32
	// preempted is a pause between two looks that shows that the thread was not running: no processor is free.
	preempted = 40 * time.Microsecond
)

// canSpin is false where polling would take the only processor from the side that is waited for.
var canSpin = runtime.NumCPU() > 1

// spin polls ready for at most budget. It reports whether ready was true.
func (s *spinner) spin(budget time.Duration, ready func() bool) bool {
	if !canSpin || budget <= 0 {
		return false
	}
	if s.score.Load() == 0 && s.tries.Add(1)%probe != 0 {
		return false
	}
	if s.isCrowded() || !s.busy.CompareAndSwap(false, true) {
		return false
	}
	defer s.busy.Store(false)
	start := time.Now()
	for last := start; ; {
		for range 32 {
			if ready() {
				s.score.Store(min(maxScore, s.score.Load()+1))
				return true
			}
		}
		now := time.Now()
		if now.Sub(last) > preempted { // somebody else needs the processor, perhaps the one that is waited for
			s.score.Store(0)
			return false
		}
		if last = now; now.Sub(start) > budget {
			s.score.Store(max(0, s.score.Load()-2))
			return false
		}
	}
}

// isCrowded reports whether polling would keep somebody else from running, by the kernel's count of runnable threads. It looks at most once
// per crowdEvery, for looking costs about ten microseconds.
func (s *spinner) isCrowded() bool {
	now := int64(time.Since(began))
	if last := s.looked.Load(); (last == 0 || now-last > int64(crowdEvery)) && s.looked.CompareAndSwap(last, max(now, 1)) {
		text, err := os.ReadFile("/proc/loadavg")
		s.crowded.Store(err == nil && runnable(text) > runtime.NumCPU())
	}
	return s.crowded.Load()
}

const crowdEvery = 10 * time.Millisecond

// runnable is the number of threads that run or want to, from /proc/loadavg ("0.20 0.18 0.12 3/80 11206": 3); 0 where it is something else.
func runnable(loadavg []byte) int {
	fields := bytes.Fields(loadavg)
	if len(fields) < 4 {
		return 0
	}
	n, _, _ := bytes.Cut(fields[3], []byte("/"))
	count, _ := strconv.Atoi(string(n))
	return count
}
