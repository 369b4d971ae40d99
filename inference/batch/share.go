// share.go: how a model's time is shared between clients that ask for more than there is.
package batch

import (
	"math"
	"time"

	"github.com/inferd/inferd/inference"
)

const (
	// usedHalf is how fast it is forgotten what a client has had.
	usedHalf = time.Second
	// keptShares is how many clients are remembered that have nothing waiting.
	keptShares = 64
)

// share is what one client has waiting and what it had lately, in nanoseconds of a slot.
type share struct {
	work  float64
	calls int
	used  float64 // times 2^(time/usedHalf): so that nobody has to make it less as time goes by
}

// shares are those of every client that has something waiting, and of some more. It is pure: the clock is given to it.
type shares struct {
	of     map[*inference.Client]*share
	work   float64 // of all, as the next two
	used   float64
	weight float64
	ranks  [ranks]float64 // used, by rank
	spare  []*share
	since  time.Duration // the time at which used counts once
	prune  int           // changes until the next pruning
}

func newShares() *shares { return &shares{of: make(map[*inference.Client]*share)} }

func weight(c *inference.Client) float64 {
	if c == nil || !(c.Weight > 0) {
		return 1
	}
	return c.Weight
}

// hold changes what the client has waiting.
func (s *shares) hold(client *inference.Client, work float64, calls int) {
	c := s.of[client]
	if c == nil {
		if n := len(s.spare); n > 0 {
			c, s.spare = s.spare[n-1], s.spare[:n-1]
		} else {
			c = new(share)
		}
		s.of[client] = c
		s.weight += weight(client)
	}
	c.work += work
	c.calls += calls
	s.work += work
	if c.calls == 0 { // no rounding is left behind
		s.work -= c.work
		c.work = 0
	}
	if s.prune--; s.prune <= 0 {
		s.prune = 4 * keptShares
		s.forget()
	}
}

// use counts work as had by the client.
func (s *shares) use(client *inference.Client, r rank, work float64, now time.Duration) {
	scale := s.scale(now)
	s.ranks[r] += work * scale
	if c := s.of[client]; c != nil {
		c.used += work * scale
		s.used += work * scale
	}
}

// scale is what a used nanosecond counts now.
func (s *shares) scale(now time.Duration) float64 {
	halves := float64(now-s.since) / float64(usedHalf)
	if halves > 64 { // all that was is as good as nothing, and the numbers get large
		f := math.Exp2(-halves)
		for _, c := range s.of {
			c.used *= f
		}
		s.used *= f
		for r := range s.ranks {
			s.ranks[r] *= f
		}
		s.since, halves = now, 0
	}
	return math.Exp2(halves)
}

// busy is the part of the slots' time that requests of higher ranks than this have had lately; at most 0.9.
func (s *shares) busy(r rank, slots int, now time.Duration) float64 {
	used := 0.0
	for k := range r {
		used += s.ranks[k]
	}
	if used == 0 {
		return 0
	}
	return min(0.9, used/s.scale(now)/(float64(usedHalf)/math.Ln2*float64(slots)))
}

// forget drops clients that have nothing waiting, when there are many.
func (s *shares) forget() {
	if len(s.of) <= keptShares {
		return
	}
	for client, c := range s.of {
		if c.calls > 0 {
			continue
		}
		s.used -= c.used
		s.weight -= weight(client)
		*c = share{}
		if len(s.spare) < keptShares {
			s.spare = append(s.spare, c)
		}
		delete(s.of, client)
	}
}

// over reports whether the client, with so much work more, would have more than its share beside the others.
func (s *shares) over(client *inference.Client, work float64, now time.Duration) bool {
	if len(s.of) == 0 {
		return false
	}
	own, w, all := work, weight(client), s.weight
	scale := s.scale(now)
	if c := s.of[client]; c != nil {
		own += c.work + c.used/scale
	} else {
		all += w
	}
	return own/w > (s.work+work+s.used/scale)/all*(1+1e-9)
}

// heaviest is the client that has most waiting for its weight, and how much that is.
func (s *shares) heaviest() (client *inference.Client, most float64) {
	for c, s := range s.of {
		if w := s.work / weight(c); w > most {
			most, client = w, c
		}
	}
	return client, most
}

// waiting is what the client has waiting for its weight.
func (s *shares) waiting(client *inference.Client) float64 {
	if c := s.of[client]; c != nil {
		return c.work / weight(client)
	}
	return 0
}
