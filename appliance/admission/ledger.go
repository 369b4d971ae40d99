// ledger.go: the Ledger, the one account of memory in bytes.
package admission

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// Kinds of owners.
const (
	OwnerCore     = "core"
	OwnerWorker   = "worker"
	OwnerZygote   = "zygote"
	OwnerRequests = "requests"
	OwnerStorage  = "storage"
	OwnerLoading  = "loading" // a worker that is not proven yet
)

// Owner is who has memory.
type Owner struct {
	Kind    string
	Model   string
	Version int64
}

// Short is a reservation that does not fit.
type Short struct {
	Needed, Free, Limit int64 // Limit is what may be booked: the limit in force less its reserve
	Why                 string
}

func (s *Short) Error() string {
	return fmt.Sprintf("%s are needed, and of %s (%s) %s are free", megabytes(s.Needed), megabytes(s.Limit), s.Why, megabytes(s.Free))
}

// Ledger books what everybody has of the memory limit. What does not exist yet is reserved, and refused where it does not fit; what exists
// is booked as it is measured, even over the limit. Every method may be called from anywhere.
//
// The requests in flight have a share of their own that is booked as a whole, so that taking from it needs no lock.
type Ledger struct {
	inFlight atomic.Int64
	share    atomic.Int64 // written under mu

	mu      sync.Mutex
	limit   Limit               // guarded by mu
	entries map[*Entry]struct{} // guarded by mu
	booked  int64               // guarded by mu: the sum of the entries
	shrunk  chan struct{}       // guarded by mu; closed when there is more room than before; nil while nobody waits
}

// NewLedger is a Ledger without a limit.
func NewLedger() *Ledger {
	l := &Ledger{entries: make(map[*Entry]struct{})}
	l.share.Store(unlimitedShare)
	return l
}

// Entry is what one owner has. Release takes it out of the account.
type Entry struct {
	ledger *Ledger

	// guarded by ledger.mu
	owner                  Owner
	booked, measured, peak int64
	most                   int64 // the owner's own limit
	released               bool
}

// SetLimit puts another limit and another share of requests in force. What is booked stays.
func (l *Ledger) SetLimit(limit Limit, share int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if limit.Usable() > l.limit.Usable() || limit.Bytes == 0 || share < l.share.Load() {
		l.tell()
	}
	l.limit = limit
	l.share.Store(share)
}

// Limit is the one in force.
func (l *Ledger) Limit() Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.limit
}

// free is what may still be reserved; it is negative where more is booked than there may be. mu is held; ok is false without a limit.
func (l *Ledger) free() (bytes int64, ok bool) {
	return l.limit.Usable() - l.share.Load() - l.booked, l.limit.Bytes > 0
}

// Free is what may still be reserved; ok is false where no limit is known.
func (l *Ledger) Free() (bytes int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	bytes, ok = l.free()
	return max(0, bytes), ok
}

// Reserve books bytes that will be taken, or returns a *Short.
func (l *Ledger) Reserve(owner Owner, bytes int64) (*Entry, error) {
	bytes = max(0, bytes)
	l.mu.Lock()
	defer l.mu.Unlock()
	if free, limited := l.free(); limited && bytes > free {
		return nil, &Short{Needed: bytes, Free: max(0, free), Limit: l.limit.Usable(), Why: l.limit.Why}
	}
	return l.add(owner, bytes), nil
}

// Book makes an entry, of nothing yet, for what is there already.
func (l *Ledger) Book(owner Owner) *Entry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.add(owner, 0)
}

func (l *Ledger) add(owner Owner, bytes int64) *Entry {
	e := &Entry{ledger: l, owner: owner, booked: bytes}
	l.entries[e] = struct{}{}
	l.booked += bytes
	return e
}

// tell wakes those who wait for room. mu is held.
func (l *Ledger) tell() {
	if l.shrunk != nil {
		close(l.shrunk)
		l.shrunk = nil
	}
}

// Room is closed when there is more room than now.
func (l *Ledger) Room() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.shrunk == nil {
		l.shrunk = make(chan struct{})
	}
	return l.shrunk
}

// Entries is how many there are: what was reserved or booked and not released.
func (l *Ledger) Entries() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

// Booked is the sum of all that is booked, the requests' share included.
func (l *Ledger) Booked() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.booked + l.share.Load()
}

// Set books bytes, and measured as what was found, from now on.
func (e *Entry) Set(booked, measured int64) {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.released {
		return
	}
	booked = max(0, booked)
	if booked < e.booked {
		l.tell()
	}
	l.booked += booked - e.booked
	e.booked, e.measured, e.peak = booked, measured, max(e.peak, measured)
}

// SetPeak notes the most that the owner has had at once.
func (e *Entry) SetPeak(bytes int64) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.peak = max(e.peak, bytes)
}

// SetLimit notes the owner's own limit.
func (e *Entry) SetLimit(bytes int64) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.most = bytes
}

// Own gives the entry to another owner.
func (e *Entry) Own(owner Owner) {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	e.owner = owner
}

// Grow books so many bytes more where they fit, else it returns a *Short. No bytes always fit.
func (e *Entry) Grow(bytes int64) error {
	if bytes <= 0 {
		return nil
	}
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if free, limited := l.free(); limited && bytes > free {
		return &Short{Needed: bytes, Free: max(0, free), Limit: l.limit.Usable(), Why: l.limit.Why}
	}
	if !e.released {
		e.booked += bytes
		l.booked += bytes
	}
	return nil
}

// Bytes is what is booked, 0 after Release.
func (e *Entry) Bytes() int64 {
	e.ledger.mu.Lock()
	defer e.ledger.mu.Unlock()
	return e.booked
}

// Release takes the entry out of the account. Calling it again does nothing.
func (e *Entry) Release() {
	l := e.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if e.released {
		return
	}
	e.released = true
	l.booked -= e.booked
	e.booked = 0
	delete(l.entries, e)
	l.tell()
}

// TakeRequest takes bytes of the requests' share, or reports that they do not fit. They are given back with GiveRequest.
func (l *Ledger) TakeRequest(bytes int64) bool {
	if bytes < 0 {
		return false
	}
	share := l.share.Load()
	for {
		old := l.inFlight.Load()
		if bytes > share-old {
			return false
		}
		if l.inFlight.CompareAndSwap(old, old+bytes) {
			return true
		}
	}
}

// GiveRequest gives back what TakeRequest took.
func (l *Ledger) GiveRequest(bytes int64) { l.inFlight.Add(-bytes) }

// Requests are the bytes of the requests in flight and their share.
func (l *Ledger) Requests() (inFlight, share int64) { return l.inFlight.Load(), l.share.Load() }

// Snapshot is the account by owner, the largest first, and what is free.
func (l *Ledger) Snapshot() (owners []OwnerReport, free int64) {
	inFlight, share := l.Requests()
	l.mu.Lock()
	free, _ = l.free()
	owners = make([]OwnerReport, 0, len(l.entries)+1)
	for e := range l.entries {
		owners = append(owners, OwnerReport{
			Owner: e.owner.Kind, Model: e.owner.Model, Version: e.owner.Version, Booked: e.booked, Measured: e.measured, Peak: e.peak, Limit: e.most,
		})
	}
	l.mu.Unlock()
	owners = append(owners, OwnerReport{Owner: OwnerRequests, Booked: share, Measured: inFlight})
	slices.SortFunc(owners, func(a, b OwnerReport) int {
		return cmp.Or(cmp.Compare(b.Booked, a.Booked), strings.Compare(a.Owner, b.Owner), strings.Compare(a.Model, b.Model), cmp.Compare(a.Version, b.Version))
	})
	return owners, max(0, free)
}
