// agenda.go: the work that waits, by rank and by when it is due; and whether a request more would still be answered in time.
package batch

import (
	"time"

	"github.com/inferd/inferd/inference"
)

// The horizon is cut into slots: fine ones for about a second, coarse ones for about a minute, and one for all that is due later. Within a slot
// the order is not known, so a request counts everything in its own slot as before it.
const (
	fineWidth   = 4 * time.Millisecond
	fineSlots   = 256
	coarseWidth = 128 * time.Millisecond
	coarseSlots = 512
	ranks       = 6
)

// never is when a request is due that has no deadline.
const never = time.Duration(1<<63 - 1)

// ring is work by the slot in which it is due. Slots are numbered from the agenda's origin.
type ring struct {
	first int64   // the earliest slot that the ring holds
	last  int64   // no later slot has work
	late  float64 // due before first
	sum   float64 // late and in every slot
	work  []float64
}

// advance moves the ring on, so that it begins with the slot.
func (r *ring) advance(slot int64) {
	n := int64(len(r.work))
	for ; r.first < slot; r.first++ {
		if r.first > r.last {
			r.first = slot // the rest is empty
			return
		}
		r.late += r.work[r.first%n]
		r.work[r.first%n] = 0
	}
}

func (r *ring) holds(slot int64) bool { return slot < r.first+int64(len(r.work)) }

// add changes the work of a slot that the ring holds, or that has gone by.
func (r *ring) add(slot int64, work float64) {
	r.sum += work
	if slot < r.first {
		r.late += work
		return
	}
	r.work[slot%int64(len(r.work))] += work
	r.last = max(r.last, slot)
}

// until is the work that is due up to the end of the slot.
func (r *ring) until(slot int64) float64 {
	n := int64(len(r.work))
	sum := r.late
	if slot-r.first > r.last-slot { // from the nearer end
		sum = r.sum
		for s := max(r.first, slot+1); s <= r.last; s++ {
			sum -= r.work[s%n]
		}
		return sum
	}
	for s := r.first; s <= min(slot, r.last); s++ {
		sum += r.work[s%n]
	}
	return sum
}

// place is where an entry was put; it is found there again.
type place uint8

const (
	nowhere place = iota
	fine
	coarse
	far
)

// agenda has the predicted time of everything that waits or was promised a place, in nanoseconds of one slot's time. It is pure: the clock is
// given to it. Durations are since an origin of the owner's.
type agenda struct {
	fine, coarse [ranks]ring
	far, total   [ranks]float64
	clock        time.Duration
}

func newAgenda() *agenda {
	a := new(agenda)
	for c := range ranks {
		a.fine[c] = ring{work: make([]float64, fineSlots), last: -1}
		a.coarse[c] = ring{work: make([]float64, coarseSlots), last: -1}
	}
	return a
}

// rank is a class, and in it whether the request's client has had its share: those who have not go before those who have.
type rank uint8

func rankOf(c inference.Class, over bool) rank {
	l := rank(2 * (c - inference.Interactive))
	if over {
		l++
	}
	return l
}

// advance tells the time. It never goes backwards.
func (a *agenda) advance(now time.Duration) {
	if now <= a.clock {
		return
	}
	a.clock = now
	for c := range ranks {
		a.fine[c].advance(int64(now / fineWidth))
		a.coarse[c].advance(int64(now / coarseWidth))
	}
}

// add books work that is due then.
func (a *agenda) add(l rank, due time.Duration, work float64) place {
	i := int(l)
	a.total[i] += work
	if s := int64(due / fineWidth); a.fine[i].holds(s) {
		a.fine[i].add(s, work)
		return fine
	}
	if s := int64(due / coarseWidth); a.coarse[i].holds(s) {
		a.coarse[i].add(s, work)
		return coarse
	}
	a.far[i] += work
	return far
}

// remove takes back what add booked.
func (a *agenda) remove(l rank, due time.Duration, work float64, at place) {
	i := int(l)
	a.total[i] -= work
	switch at {
	case nowhere:
		a.total[i] += work
	case fine:
		a.fine[i].add(int64(due/fineWidth), -work)
	case coarse:
		a.coarse[i].add(int64(due/coarseWidth), -work)
	case far:
		a.far[i] -= work
	}
}

// ahead is the work that goes before a request of this rank that is due then: all of the higher ranks, and of its own what is not due later.
func (a *agenda) ahead(l rank, due time.Duration) float64 {
	i := int(l)
	sum := 0.0
	for k := range i {
		sum += a.total[k]
	}
	if a.total[i] <= 0 {
		return max(0, sum)
	}
	fineSlot, coarseSlot := int64(due/fineWidth), int64(due/coarseWidth)
	if fineSlot >= a.fine[i].last && coarseSlot >= a.coarse[i].last {
		if !a.coarse[i].holds(coarseSlot) {
			return max(0, sum+a.total[i])
		}
		return max(0, sum+a.total[i]-a.far[i])
	}
	return max(0, sum+a.fine[i].until(fineSlot)+a.coarse[i].until(coarseSlot))
}

// delays reports whether more work at that place would make something of the same rank late that is not late now: something due after it
// that the given slack, in work from now to a point in time, no longer covers. before is the work ahead of the new one.
func (a *agenda) delays(l rank, due time.Duration, work, before float64, covers func(at time.Duration) float64) bool {
	i := int(l)
	for _, r := range []struct {
		*ring
		width time.Duration
		n     int64
	}{{&a.fine[i], fineWidth, fineSlots}, {&a.coarse[i], coarseWidth, coarseSlots}} {
		sum := before
		for s := max(r.first, int64(due/r.width)+1); s <= r.last; s++ {
			w := r.work[s%r.n]
			if w <= 0 {
				continue
			}
			can := covers(time.Duration(s+1) * r.width)
			if before+a.total[i]+work <= can {
				break // there is time for all, and more for those after this one
			}
			if sum += w; sum <= can && sum+work > can {
				return true
			}
		}
	}
	return false
}
