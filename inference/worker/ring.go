// ring.go: the submission and completion rings in shared memory, both sides.
package worker

import (
	"fmt"
	"sync/atomic"
	"unsafe"
)

// The ring memory: counters a cache line or more apart, then the two rings. Both sides can write all of it, so each side keeps what it
// depends on in private memory and treats the rest as a claim.
const (
	ringTail     = 0   // submissions published, written by the core
	ringHead     = 128 // submissions claimed, written by the worker's callers
	ringSleepers = 256 // callers that wait for a doorbell
	ringReserved = 384 // completions begun, written by the worker's callers
	ringAsleep   = 512 // 1 when the core waits for a doorbell
	ringEntries  = 4096

	submissionWords = 2 // slot; input area <<32 | output area
	completionWords = 1 // (position+1) <<32 | slot: the position makes an entry of an earlier lap recognisable
)

// ring is the shared memory with names.
type ring struct {
	tail, head, reserved *atomic.Uint64
	sleepers, asleep     *atomic.Int32
	submissions          []atomic.Uint64
	completions          []atomic.Uint64
	mask                 uint64
}

func ringBytes(entries int) int { return ringEntries + entries*8*(submissionWords+completionWords) }

// newRing lays a ring of entries (a power of two) over mem, which is page-aligned and has at least ringBytes(entries).
func newRing(mem []byte, entries int) (ring, error) {
	if entries <= 0 || entries&(entries-1) != 0 || len(mem) < ringBytes(entries) {
		return ring{}, fmt.Errorf("a ring of %d entries does not fit %d bytes", entries, len(mem))
	}
	word := func(at int) *atomic.Uint64 { return (*atomic.Uint64)(unsafe.Pointer(&mem[at])) }
	flag := func(at int) *atomic.Int32 { return (*atomic.Int32)(unsafe.Pointer(&mem[at])) }
	words := unsafe.Slice(word(ringEntries), entries*(submissionWords+completionWords))
	return ring{
		tail: word(ringTail), head: word(ringHead), reserved: word(ringReserved),
		sleepers: flag(ringSleepers), asleep: flag(ringAsleep),
		submissions: words[:entries*submissionWords], completions: words[entries*submissionWords:],
		mask: uint64(entries - 1),
	}, nil
}

// submission is one run handed to the worker.
type submission struct {
	slot, in, out uint32
}

// coreRing is the core's side. At most as many runs are in flight as the ring has entries, which the slots ensure, so it cannot overflow.
type coreRing struct {
	ring
	sent  uint64 // guarded by process.mu: submissions made
	taken uint64 // guarded by process.reapMu: completions read
}

// submit publishes s and reports whether a caller of the worker sleeps and must be woken: one doorbell for each true.
func (r *coreRing) submit(s submission) (wake bool) {
	at := (r.sent & r.mask) * submissionWords
	r.submissions[at].Store(uint64(s.slot))
	r.submissions[at+1].Store(uint64(s.in)<<32 | uint64(s.out))
	r.sent++
	r.tail.Store(r.sent)
	return takeSleeper(r.sleepers)
}

// next reads the next completion's slot, which is the worker's claim: any number.
func (r *coreRing) next() (slot uint32, ok bool) {
	entry := r.completions[r.taken&r.mask].Load()
	if uint32(entry>>32) != uint32(r.taken+1) {
		return 0, false
	}
	r.taken++
	return uint32(entry), true
}

// workerRing is the worker's side, used by all callers at once. It trusts the core.
type workerRing struct{ ring }

// claim takes the oldest submission that nobody has taken.
func (r *workerRing) claim() (submission, bool) {
	for {
		head := r.head.Load()
		if head >= r.tail.Load() {
			return submission{}, false
		}
		// Read before the claim: afterwards nothing but the run's own completion keeps the core from reusing the entry, and a claim
		// that fails throws the reading away.
		at := (head & r.mask) * submissionWords
		slot, areas := r.submissions[at].Load(), r.submissions[at+1].Load()
		if r.head.CompareAndSwap(head, head+1) {
			return submission{slot: uint32(slot), in: uint32(areas >> 32), out: uint32(areas)}, true
		}
	}
}

// waiting reports whether there is a submission to claim.
func (r *workerRing) waiting() bool { return r.head.Load() < r.tail.Load() }

// complete publishes the completion of slot and reports whether the core sleeps and must be woken.
func (r *workerRing) complete(slot uint32) (wake bool) {
	at := r.reserved.Add(1) - 1
	r.completions[at&r.mask].Store(uint64(uint32(at+1))<<32 | uint64(slot))
	return r.asleep.CompareAndSwap(1, 0)
}

// takeSleeper takes one sleeper off the count, if there is one. Whoever takes it rings, or is it.
func takeSleeper(sleepers *atomic.Int32) bool {
	for n := sleepers.Load(); n > 0; n = sleepers.Load() {
		if sleepers.CompareAndSwap(n, n-1) {
			return true
		}
	}
	return false
}
