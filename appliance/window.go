// window.go: how long the answers of the last seconds took.
package appliance

import (
	"math/bits"
	"sync/atomic"
	"time"
)

const (
	windowSeconds = 10
	windowSlots   = windowSeconds + 1 // one is being filled
	windowFirst   = 13                // 2^13 ns and less are one bucket
	windowBuckets = 4*24 + 1          // four for each power of two, up to 2^37 ns, over two minutes
)

// window counts answers by time taken, by second. The zero value is ready. A few counts may be lost when a second begins.
type window struct {
	slots [windowSlots]struct {
		second atomic.Int64
		counts [windowBuckets]atomic.Uint32
	}
}

// bucketOf is the bucket of a time: within an eighth of its bucket's top at the most.
func bucketOf(took time.Duration) int {
	n := uint64(max(took, 0))
	power := bits.Len64(n) // n < 2^power
	if power <= windowFirst {
		return 0
	}
	quarter := int(n>>(power-3)) & 3
	return min(1+4*(power-windowFirst-1)+quarter, windowBuckets-1)
}

// topOf is the longest time of a bucket.
func topOf(bucket int) time.Duration {
	if bucket == 0 {
		return 1 << windowFirst
	}
	power, quarter := windowFirst+(bucket-1)/4, (bucket-1)%4
	return time.Duration(1<<power + (1<<power)/4*(quarter+1))
}

func (w *window) add(now time.Time, took time.Duration) {
	second := now.Unix()
	s := &w.slots[second%windowSlots]
	if old := s.second.Load(); old != second && s.second.CompareAndSwap(old, second) {
		for i := range s.counts {
			s.counts[i].Store(0)
		}
	}
	s.counts[bucketOf(took)].Add(1)
}

// read has the answers per second, and the times that half and 99 of a hundred of them took at the most, over the last whole seconds.
func (w *window) read(now time.Time) (rate float64, p50, p99 time.Duration) {
	var all [windowBuckets]uint64
	var n uint64
	for i := range w.slots {
		s := &w.slots[i]
		if age := now.Unix() - s.second.Load(); age < 1 || age > windowSeconds {
			continue
		}
		for b := range s.counts {
			c := uint64(s.counts[b].Load())
			all[b] += c
			n += c
		}
	}
	if n == 0 {
		return 0, 0, 0
	}
	at := func(share float64) time.Duration {
		rest := uint64(float64(n) * share)
		for b, c := range all {
			if c > rest {
				return topOf(b)
			}
			rest -= c
		}
		return topOf(windowBuckets - 1)
	}
	return float64(n) / windowSeconds, at(0.5), at(0.99)
}
