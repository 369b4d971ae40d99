// spin.go: whether to poll for a moment before sleeping.
package worker

import (
	"runtime"
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
}

const (
	maxScore = 8
	// probe is how many waits pass between attempts while polling does not pay.
	probe = 32
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
	if !s.busy.CompareAndSwap(false, true) {
		return false
	}
	defer s.busy.Store(false)
	for start := time.Now(); ; {
		for range 32 {
			if ready() {
				s.score.Store(min(maxScore, s.score.Load()+1))
				return true
			}
		}
		if time.Since(start) > budget {
			s.score.Store(max(0, s.score.Load()-2))
			return false
		}
	}
}
