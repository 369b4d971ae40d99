// queueread.go: what can be asked of the queue, and waiting for a change.
package storage

import (
	"encoding/binary"
	"errors"
	"hash/fnv"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// body is a copy of a payload or a result as it was given.
func (x *tx) body(it *Item, part byte) ([]byte, error) {
	b := it.payload
	if part == partResult {
		b = it.result
	}
	stored, err := getBody(x.bodies, it.Seq, part, b)
	if err != nil {
		return nil, err
	}
	return x.q.pack.unpack(stored, b)
}

func (q *Queue) body(it *Item, part byte) (data []byte, err error) {
	viewErr := q.view(func(x *tx) error {
		data, err = x.body(it, part)
		return nil
	})
	return data, errors.Join(viewErr, err)
}

// Get is the job with the id, or ErrNoJob.
func (q *Queue) Get(id string) (Item, error) {
	var it Item
	err := q.view(func(x *tx) (err error) {
		it, err = x.find(id)
		return err
	})
	return it, err
}

// Result is a done job's result; of any other job it is nil.
func (q *Queue) Result(id string) ([]byte, Item, error) { return q.bytesOf(id, partResult) }

// Payload is what Append was given, or nil where it is not kept any more.
func (q *Queue) Payload(id string) ([]byte, Item, error) { return q.bytesOf(id, partPayload) }

func (q *Queue) bytesOf(id string, part byte) (data []byte, it Item, err error) {
	err = q.view(func(x *tx) (err error) {
		if it, err = x.find(id); err != nil {
			return err
		}
		if part == partPayload && it.payload.stored == 0 || part == partResult && it.State != Done {
			return nil
		}
		data, err = x.body(&it, part)
		return err
	})
	return data, it, err
}

// Filter chooses what List returns. Zero fields choose everything.
type Filter struct {
	Model string
	State JobState
	After uint64 // sequences above it
	Limit int    // 100
}

// List has jobs in order of arrival. Damaged records are left out.
func (q *Queue) List(f Filter) ([]Item, error) {
	if f.Limit <= 0 {
		f.Limit = 100
	}
	var out []Item
	err := q.view(func(x *tx) error {
		out = nil
		c := x.jobs.Cursor()
		for k, _ := c.Seek(seqKey(f.After + 1)); k != nil && len(out) < f.Limit; k, _ = c.Next() {
			it, err := x.get(binary.BigEndian.Uint64(k))
			if err == nil && (f.Model == "" || f.Model == it.Model) && (f.State == 0 || f.State == it.State) {
				out = append(out, it)
			}
		}
		return nil
	})
	return out, err
}

// ModelDepth is what waits and runs of one model.
type ModelDepth struct {
	Model                   string
	Queued, Leased, Delayed int // Delayed ones are among the queued
	Bytes                   int64
}

// Models has every model with live jobs, sorted.
func (q *Queue) Models() []ModelDepth {
	q.memMu.Lock()
	defer q.memMu.Unlock()
	var out []ModelDepth
	for _, d := range q.mem.models {
		if d.jobs > 0 {
			out = append(out, ModelDepth{d.name, d.jobs - d.leased, d.leased, d.delayed, d.bytes})
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Model < out[j].Model })
	return out
}

// Oldest is when the oldest ready job of the model was submitted; zero when none is ready.
func (q *Queue) Oldest(model string) (time.Time, error) {
	var at time.Time
	err := q.view(func(x *tx) error {
		q.memMu.Lock()
		d := q.mem.models[model]
		q.memMu.Unlock()
		if d == nil {
			return nil
		}
		c := x.ready.Cursor()
		for class := 0; class < 256; { // the first of each class
			k, _ := c.Seek(readyKey(d.id, uint8(class), 0))
			if len(k) != 13 || binary.BigEndian.Uint32(k) != d.id {
				return nil
			}
			class = int(k[4]) + 1
			if it, err := x.get(binary.BigEndian.Uint64(k[5:])); err == nil && (at.IsZero() || it.Submitted.Before(at)) {
				at = it.Submitted
			}
		}
		return nil
	})
	return at, err
}

// QueueStats are counts of the whole file.
type QueueStats struct {
	Queued, Leased, Finished, Dead int
	Bytes                          int64 // of payloads and results, as stored
	FileBytes                      int64
	Damaged                        int64 // records set aside since OpenQueue
	Commits, Writes                int64 // since OpenQueue; Writes shared Commits
	Degraded                       bool
	Newest                         time.Time // the latest time in the file
}

// Stats are the counts now.
func (q *Queue) Stats() QueueStats {
	s := QueueStats{Damaged: q.damaged.Load(), Commits: q.commits.Load(), Writes: q.writes.Load(), Degraded: q.degraded.Load()}
	q.memMu.Lock()
	for _, d := range q.mem.models {
		s.Queued += d.jobs - d.leased
		s.Leased += d.leased
	}
	s.Finished, s.Dead, s.Bytes, s.Newest = q.mem.finished, q.mem.dead, q.mem.bytes, q.mem.newest
	q.memMu.Unlock()
	if st, err := os.Stat(q.path); err == nil {
		s.FileBytes = st.Size()
	}
	return s
}

// Changed is closed when the job with the id, or the session with the [ArrivedKey], has changed on disk after this call, and when the queue
// closes. stop ends the watch; it must be called.
func (q *Queue) Changed(key string) (changed <-chan struct{}, stop func()) {
	return q.watching.add(key)
}

// watchers wake those who wait for a job.
type watchers struct {
	mu      sync.Mutex
	by      map[string]*watch
	pending []string // the writer's: to be told once it is on disk
	closed  bool
}

type watch struct {
	ch chan struct{}
	n  int
}

func (w *watchers) add(key string) (<-chan struct{}, func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		ch := make(chan struct{})
		close(ch)
		return ch, func() {}
	}
	one := w.by[key]
	if one == nil {
		if w.by == nil {
			w.by = make(map[string]*watch)
		}
		one = &watch{ch: make(chan struct{})}
		w.by[key] = one
	}
	one.n++
	return one.ch, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if one.n--; one.n == 0 && w.by[key] == one {
			delete(w.by, key)
		}
	})
}

// later has those told who wait for the job. Only the writer calls it.
func (w *watchers) later(it *Item) {
	w.pending = append(w.pending, it.ID)
	if it.Session != "" {
		w.pending = append(w.pending, ArrivedKey(it.Session))
	}
}

// tell wakes whom later has named.
func (w *watchers) tell() {
	if len(w.pending) == 0 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, key := range w.pending {
		if one := w.by[key]; one != nil {
			close(one.ch)
			delete(w.by, key)
		}
	}
	w.pending = w.pending[:0]
}

// all wakes everybody, and ends watching where the queue is closed.
func (w *watchers) all() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, one := range w.by {
		close(one.ch)
		delete(w.by, key)
	}
}

// settle is what the writer does after every commit, good or bad.
func (q *Queue) settle() { q.watching.tell() }

// untilDue is how long the writer may sleep.
func (q *Queue) untilDue() time.Duration {
	if q.degraded.Load() {
		return probeEvery // a delay that is over waits for the disk too
	}
	wait := time.Hour
	if len(q.mem.delays) > 0 {
		wait = min(wait, max(q.mem.delays[0].due-Uptime(), 0))
	}
	return wait
}

// Uptime is the time since the machine's start, suspended time included.
func Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// bootNumber stands for a start of the machine in the file.
func bootNumber(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // a hash takes everything
	return h.Sum64()
}

// BootID names this start of the machine; empty where the kernel does not say.
func BootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
