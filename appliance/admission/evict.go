// evict.go: which live version gives way when memory is needed.
package admission

import "time"

// Idler is a live version, as eviction sees it.
type Idler struct {
	Idle   time.Duration // since its last request
	Bytes  int64         // that parking it gives back
	Busy   bool          // requests run or wait
	Pinned bool
	Parked bool // or cannot be parked
}

// Victim is the index of the one that gives way first: of those that may, the one that was used the longest ago. It is -1 when there is none.
func Victim(all []Idler) int {
	victim := -1
	for i, v := range all {
		if v.Busy || v.Pinned || v.Parked || v.Bytes <= 0 {
			continue
		}
		if victim < 0 || v.Idle > all[victim].Idle {
			victim = i
		}
	}
	return victim
}
