// failures.go: how often an address may come with a token that is not valid before it is told to wait.
package access

import (
	"net/netip"
	"sync"
	"time"
)

const (
	// An address (of IPv6 a /64 network) may fail so often at once, and once more after each refill.
	failBurst  = 10
	failRefill = 6 * time.Second
	// maxFailing is how many addresses are told apart; those beyond it are one.
	maxFailing = 4096
	// tellAgain is after how long the log has another line about an address.
	tellAgain = time.Minute
)

// failures are the token buckets of those who failed lately. A token that is valid passes in any case: its 256 bits are not guessed however often
// somebody tries, so the limit is there to spare the log and the processor, and must be no means to lock others out who share an address.
type failures struct {
	mu   sync.Mutex
	all  map[netip.Addr]*bucket // guarded by mu
	rest bucket                 // guarded by mu

	swept time.Time // guarded by mu
}

// bucket is guarded by failures.mu.
type bucket struct {
	used float64 // of failBurst
	at   time.Time
	told time.Time
}

// add counts a failure. wait is above zero when it was one too many; tell is whether the log should have a line.
func (f *failures) add(from netip.Addr, now time.Time) (wait time.Duration, tell bool) {
	from = subscriber(from)
	f.mu.Lock()
	defer f.mu.Unlock()
	b := f.all[from]
	if b == nil {
		if len(f.all) >= maxFailing {
			f.sweep(now)
		}
		if f.all == nil {
			f.all = make(map[netip.Addr]*bucket)
		}
		if b = &f.rest; len(f.all) < maxFailing {
			b = new(bucket)
			f.all[from] = b
		}
	}
	b.drain(now)
	if tell = b.told.IsZero() || now.Sub(b.told) >= tellAgain; tell {
		b.told = now
	}
	if b.used+1 > failBurst {
		return time.Duration((b.used + 1 - failBurst) * float64(failRefill)), tell
	}
	b.used++
	return 0, tell
}

func (b *bucket) drain(now time.Time) {
	if !b.at.IsZero() {
		b.used = max(0, b.used-float64(now.Sub(b.at))/float64(failRefill))
	}
	b.at = now
}

// sweep forgets addresses that would be let fail as often as new ones, at most once a second. mu is held.
func (f *failures) sweep(now time.Time) {
	if now.Sub(f.swept) < time.Second {
		return
	}
	f.swept = now
	for at, b := range f.all {
		if now.Sub(b.at) >= failBurst*failRefill {
			delete(f.all, at)
		}
	}
}
