// area.go: sealed shared memory, and the core's stock of it.
package worker

import (
	"fmt"
	"math/bits"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	minAreaBytes = 16 << 10
	// idleArea is how long an area lies unused before its memory goes back to the system.
	idleArea = 5 * time.Second
)

// newShared makes size bytes of zeroed shared memory whose size nobody can change any more. The caller closes fd and unmaps mem.
func newShared(name string, size int) (fd int, mem []byte, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, nil, fmt.Errorf("make %d bytes of shared memory: %w", size, err)
	}
	defer func() {
		if err != nil {
			_ = unix.Close(fd)
		}
	}()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return -1, nil, fmt.Errorf("make %d bytes of shared memory: %w", size, err)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL); err != nil {
		return -1, nil, fmt.Errorf("seal shared memory: %w", err)
	}
	mem, err = mapShared(fd, size)
	return fd, mem, err
}

func mapShared(fd, size int) ([]byte, error) {
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes of shared memory: %w", size, err)
	}
	return mem, nil
}

// area is a piece of shared memory that both sides know by its id. Ids are never reused.
type area struct {
	id  uint32
	mem []byte
}

// arena is the core's stock of areas for one process.
type arena struct {
	max      int                         // bytes of the largest area; immutable
	announce func(x *area, fd int) error // tells the worker about a new area
	forget   func(id uint32)             // tells the worker that an area is gone

	mu     sync.Mutex
	free   [64][]idle // guarded by mu: by power of two, the most recently used last
	lastID uint32     // guarded by mu
	bytes  int64      // guarded by mu: mapped by the core
	closed bool       // guarded by mu: the process has ended, whatever comes back is unmapped
}

type idle struct {
	area  *area
	since time.Time
}

// errAreaSize says that more was asked for than one run may have.
type errAreaSize struct{ want, max int }

func (e *errAreaSize) Error() string {
	return fmt.Sprintf("%d bytes for one run, at most %d are allowed", e.want, e.max)
}

func areaClass(size int) int { return bits.Len(uint(max(size, minAreaBytes) - 1)) }

// take hands out an area of at least size bytes. The worker learns of a new one here.
func (a *arena) take(size int) (*area, error) {
	if size > a.max {
		return nil, &errAreaSize{size, a.max}
	}
	class := areaClass(size)
	a.mu.Lock()
	if list := a.free[class]; len(list) > 0 {
		got := list[len(list)-1].area
		list[len(list)-1] = idle{}
		a.free[class] = list[:len(list)-1]
		a.mu.Unlock()
		return got, nil
	}
	a.mu.Unlock()

	x, fd, err := a.make(size)
	if err != nil {
		return nil, err
	}
	err = a.announce(x, fd)
	_ = unix.Close(fd)
	if err != nil {
		a.discard(x)
		return nil, err
	}
	return x, nil
}

// make is a new area, of which the worker does not know yet. The caller sends it fd, and closes that.
func (a *arena) make(size int) (x *area, fd int, err error) {
	fd, mem, err := newShared("inferd-run", 1<<areaClass(size))
	if err != nil {
		return nil, -1, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastID++
	a.bytes += int64(len(mem))
	return &area{id: a.lastID, mem: mem}, fd, nil
}

// put gives an area back for the next run.
func (a *arena) put(x *area) {
	if x == nil {
		return
	}
	a.mu.Lock()
	if !a.closed {
		class := areaClass(len(x.mem))
		a.free[class] = append(a.free[class], idle{x, time.Now()})
		a.mu.Unlock()
		return
	}
	a.mu.Unlock()
	a.discard(x)
}

// discard lets go of an area that the worker must not or need not hear of: it keeps its own mapping, or has ended.
func (a *arena) discard(x *area) {
	if x == nil {
		return
	}
	a.mu.Lock()
	a.bytes -= int64(len(x.mem))
	a.mu.Unlock()
	_ = unix.Munmap(x.mem) // fails only for memory that is not a mapping
	x.mem = nil
}

// trim lets go of the areas that have not been used since before.
func (a *arena) trim(before time.Time) {
	var gone []*area
	a.mu.Lock()
	for class, list := range a.free {
		n := 0
		for n < len(list) && list[n].since.Before(before) {
			gone = append(gone, list[n].area)
			n++
		}
		if n > 0 {
			a.free[class] = append([]idle(nil), list[n:]...)
		}
	}
	a.mu.Unlock()
	for _, x := range gone {
		a.forget(x.id)
		a.discard(x)
	}
}

// close unmaps what is free; what is out is unmapped when it comes back.
func (a *arena) close() {
	a.mu.Lock()
	a.closed = true
	free := a.free
	a.free = [64][]idle{}
	a.mu.Unlock()
	for _, list := range free {
		for _, x := range list {
			a.discard(x.area)
		}
	}
}

// size is what the core has mapped.
func (a *arena) size() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.bytes
}
