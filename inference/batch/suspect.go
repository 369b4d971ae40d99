// suspect.go: requests that were in flight when a worker died, and those that are refused for it.
package batch

import (
	"container/list"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/inference"
)

const (
	// suspectTime is how long a fingerprint is refused, and how long a single death is remembered.
	suspectTime = time.Hour
	// maxSuspects bounds the table; the one touched longest ago is forgotten first.
	maxSuspects = 1024
)

// suspects remembers fingerprints of requests that were in flight when a worker died.
type suspects struct {
	seed maphash.Seed // immutable
	size atomic.Int64 // entries, so that the good path asks without a lock

	mu      sync.Mutex
	entries map[uint64]*list.Element // guarded by mu; of *suspect
	recent  *list.List               // guarded by mu; most recently touched first
}

type suspect struct {
	print  uint64
	deaths int       // 1: it was in flight at one; 2: and then alone at another
	until  time.Time // when it is forgotten
	cause  string
}

func newSuspects() *suspects {
	return &suspects{seed: maphash.MakeSeed(), entries: make(map[uint64]*list.Element), recent: list.New()}
}

// fingerprint is a keyed hash of everything about the request that the worker sees.
func (s *suspects) fingerprint(req *inference.Request) uint64 {
	var h maphash.Hash
	h.SetSeed(s.seed)
	var buf [8]byte
	number := func(n int64) {
		binary.LittleEndian.PutUint64(buf[:], uint64(n))
		_, _ = h.Write(buf[:])
	}
	number(int64(len(req.Signature.Key)))
	_, _ = h.WriteString(req.Signature.Key)
	number(int64(len(req.Outputs)))
	for _, i := range req.Outputs {
		number(int64(i))
	}
	for _, t := range req.Inputs {
		number(int64(len(t.Shape)))
		for _, d := range t.Shape {
			number(d)
		}
		_, _ = h.Write(t.Data)
		for _, e := range t.Strings {
			number(int64(len(e)))
			_, _ = h.Write(e)
		}
	}
	return h.Sum64()
}

// find is a copy of the entry for print; ok is false when there is none (any more).
func (s *suspects) find(print uint64) (suspect, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.entries[print]
	if el == nil {
		return suspect{}, false
	}
	e := el.Value.(*suspect)
	if !time.Now().Before(e.until) {
		s.drop(el)
		return suspect{}, false
	}
	s.recent.MoveToFront(el)
	return *e, true
}

// strike notes that a request with this fingerprint was in flight at a death. Only a death at which it was alone in flight, of a request
// that was suspected before, counts as the second: many with the same bytes at one death, or a twin that was already on its way when the
// first was struck, prove nothing.
func (s *suspects) strike(print uint64, alone bool, cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	el := s.entries[print]
	if el == nil {
		el = s.recent.PushFront(&suspect{print: print})
		s.entries[print] = el
		if s.recent.Len() > maxSuspects {
			s.drop(s.recent.Back())
		}
	}
	e := el.Value.(*suspect)
	now := time.Now()
	switch {
	case e.deaths == 0 || !now.Before(e.until):
		e.deaths = 1
	case alone:
		e.deaths = 2
	}
	e.until, e.cause = now.Add(suspectTime), cause.Error()
	s.recent.MoveToFront(el)
	s.size.Store(int64(s.recent.Len()))
}

// clear forgets a fingerprint whose request came through alive.
func (s *suspects) clear(print uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if el := s.entries[print]; el != nil {
		s.drop(el)
	}
}

// drop removes an entry. mu is held.
func (s *suspects) drop(el *list.Element) {
	delete(s.entries, el.Value.(*suspect).print)
	s.recent.Remove(el)
	s.size.Store(int64(s.recent.Len()))
}

// convicted reports whether requests like this are refused.
func (e *suspect) convicted() bool { return e.deaths >= 2 }

// refusal is the answer to a request that killed twice.
func (b *Batcher) refusal(e suspect) error {
	return b.fail(&inference.Error{
		Code: inference.InvalidArgument, Reason: inference.ReasonSuspect,
		Msg: fmt.Sprintf("this request ended the worker of model %s version %d twice (%s) and is refused until %s; change its inputs, or mend the model and publish it as a new version",
			b.opts.Model, b.opts.Version, e.cause, e.until.UTC().Format(time.RFC3339)),
	})
}
