// pressure.go: looks every second at what everybody has of the memory, and acts before the kernel has to.
package appliance

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/health"
)

const (
	memoryLook  = time.Second
	zygoteBytes = 28 << 20 // TensorFlow's relocated pages
	minGoLimit  = 64 << 20 // of the core's own heap
	slack       = 32 << 20 // that a worker may always grow by, beside a quarter of what it was proven with
)

// run looks until ctx ends.
func (k *keeper) run(ctx context.Context) error {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	for {
		k.look(time.Now())
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (k *keeper) look(now time.Time) {
	k.limit()
	k.lookDisk()
	used := k.measure()
	limit := k.ledger.Limit()
	if n, ok := admission.UsedOf(k.root, limit); ok {
		used = n
	}
	sample := admission.Stalls(k.root)
	sample.Used, sample.Limit = used, limit
	k.mu.Lock()
	before := k.level
	level := admission.Judge(sample, k.sample, before)
	k.sample, k.level = sample, level
	k.mu.Unlock()
	k.act(now, before, level, sample)
	k.expire(now)
	k.followGo(limit)
}

// measure books what everybody has, and is the sum of what was found.
func (k *keeper) measure() (used int64) {
	used += k.bookCore()
	var zygote int64
	if pid := k.host().ZygotePID; pid > 0 {
		zygote = k.anon(strconv.Itoa(pid)) // its workers share most of it, and have it booked too: rather too much than too little
	}
	k.zygote.Set(max(zygote, k.fork), zygote)
	used += zygote
	if st, err := os.Stat(filepath.Join(k.config().StateDir, stateFile)); err == nil {
		files := st.Size() + queueBytes(k.config())
		k.storage.Set(files, files) // their pages are the kernel's to take back, so they are no part of what is used
	}
	k.mu.Lock()
	accounts := make([]*account, 0, len(k.accounts))
	for a := range k.accounts {
		accounts = append(accounts, a)
	}
	k.mu.Unlock()
	shared := 0
	for _, a := range accounts {
		if a.shares() {
			shared++
		}
	}
	free, limited := k.ledger.Free()
	for _, a := range accounts {
		used += a.measure(shared, free, limited)
	}
	return used
}

// bookCore books what the core has. What it shares with workers is theirs.
func (k *keeper) bookCore() int64 {
	own := k.anon("self")
	k.core.Set(own, own)
	return own
}

// shares reports whether the account's process is others' too.
func (a *account) shares() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, ok := a.model.(interface{ Shared() bool })
	return ok && m.Shared()
}

// measure books what the worker has, at least what it had while it was proven, and says how far it may grow: as configured, else over what
// is free.
func (a *account) measure(shared int, free int64, limited bool) (resident int64) {
	a.mu.Lock()
	m, proven := a.model, a.floor > 0
	a.mu.Unlock()
	if m == nil || !proven { // while it loads, what was reserved counts
		if m != nil {
			_, _, resident = m.Vitals()
		}
		return resident
	}
	_, _, resident = m.Vitals()
	if a.shares() {
		resident /= int64(max(1, shared))
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.awake:
		return resident
	case a.comes:
		a.entry.Set(max(a.load, resident), resident)
	default:
		a.entry.Set(max(a.floor, resident), resident)
	}
	if limited {
		a.confine(free)
	}
	return resident
}

// growth is by how much the worker has more than it was proven with.
func (a *account) growth() int64 {
	a.mu.Lock()
	m, floor := a.model, a.floor
	a.mu.Unlock()
	if m == nil || floor == 0 {
		return 0
	}
	_, _, resident := m.Vitals()
	return resident - floor
}

// act does what the level asks for.
func (k *keeper) act(now time.Time, before, level admission.Level, s admission.Sample) {
	if level != before {
		reason := fmt.Sprintf("%d MiB of %d MiB are used, and in the last 10 s some tasks stood still for memory for %v%% of the time", s.Used>>20, s.Limit.Bytes>>20, s.Some10)
		switch {
		case level > before:
			k.tidy()
			k.log.Warn("memory is short", "name", level.String(), "reason", reason, "instead", "no version is loaded, idle ones are parked")
		case level == admission.Calm:
			k.log.Info("memory is no longer short", "reason", reason)
		}
		for _, v := range k.live.all() {
			v.Shrink(level == admission.High)
		}
	}
	var conditions []health.Condition
	if level > admission.Calm {
		conditions = append(conditions, health.Condition{Code: health.CodePressure, Severity: health.Warning,
			Message: fmt.Sprintf("memory is short (%v): %d MiB of %d MiB are used; no version is loaded and idle ones are parked; make the models smaller or give inferd more", level, s.Used>>20, s.Limit.Bytes>>20)})
		k.yieldOne(now)
	}
	if k.health != nil {
		k.health.Replace([]string{health.CodePressure}, conditions)
	}
	if s.Limit.Bytes > 0 && s.Used > s.Limit.Bytes {
		k.endLargest(s)
	}
}

// yieldOne parks the version that was idle the longest.
func (k *keeper) yieldOne(now time.Time) {
	if !k.config().Memory.Evict {
		return
	}
	live, idlers := k.idlers(now, admission.Owner{})
	if i := admission.Victim(idlers); i >= 0 {
		k.evict(live[i], "memory is short")
	}
}

// endLargest ends the worker that has grown the most since it was proven, before the kernel chooses one.
func (k *keeper) endLargest(s admission.Sample) {
	var worst *servable
	var most int64
	for _, v := range k.live.all() {
		if v.account == nil {
			continue
		}
		if g := v.account.growth(); g > most {
			worst, most = v, g
		}
	}
	if worst == nil {
		return
	}
	reason := fmt.Sprintf("inferd and its workers use %d MiB, the limit is %d MiB, and this worker has grown the most: by %d MiB since it was proven",
		s.Used>>20, s.Limit.Bytes>>20, most>>20)
	if m, ok := worst.runner.(interface{ Kill(reason string) }); ok {
		k.log.Warn("worker is ended: memory is over its limit", "model", worst.model, "version", worst.version, "reason", reason)
		m.Kill(reason)
	}
}

// expire parks what nobody has asked for longer than its keep_alive.
func (k *keeper) expire(now time.Time) {
	for _, s := range k.live.all() {
		if s.usage == nil || s.keepAlive <= 0 || s.pinned {
			continue
		}
		if i := s.idler(now); !i.Parked && !i.Busy && i.Idle >= s.keepAlive {
			k.evict(s, fmt.Sprintf("no request for %v (keep_alive)", s.keepAlive))
		}
	}
}

// followGo keeps the Go heap inside what is the core's: what it has, what is free, and the requests' share. Where the environment says
// GOMEMLIMIT that counts.
func (k *keeper) followGo(limit admission.Limit) {
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	want := int64(math.MaxInt64)
	if limit.Bytes > 0 {
		free, _ := k.ledger.Free()
		_, share := k.ledger.Requests()
		want = max(minGoLimit, k.core.Bytes()+free+share)
	}
	if diff := want - k.goLimit; k.goLimit == 0 || diff > k.goLimit/16 || -diff > k.goLimit/16 {
		debug.SetMemoryLimit(want)
		k.goLimit = want
	}
}

// lookDisk looks at the file system of the state directory.
func (k *keeper) lookDisk() {
	c := k.config()
	var d admission.Disk
	var s unix.Statfs_t
	if unix.Statfs(c.StateDir, &s) == nil {
		d = admission.NewDisk(int64(s.Bavail)*s.Bsize, int64(s.Blocks)*s.Bsize, int64(c.State.DiskFloor))
	}
	k.mu.Lock()
	k.disk = d
	k.mu.Unlock()
	if k.health == nil {
		return
	}
	var conditions []health.Condition
	if d.Refuses() {
		conditions = append(conditions, health.Condition{Code: health.CodeDiskFloor, Severity: health.Warning,
			Message: d.String() + ": nothing durable is begun; make room, or lower the floor"})
	}
	k.health.Replace([]string{health.CodeDiskFloor}, conditions)
}

// room is the memory that another worker may take: by the account and by what the kernel has left.
func (k *keeper) room(workerLimit int64) (free int64, why string, ok bool) {
	free, why = admission.Available(k.root)
	if booked, limited := k.ledger.Free(); limited && (why == "" || booked < free) {
		free, why = booked, "what is not booked of the memory limit, "+k.ledger.Limit().Why
	}
	if why != "" && workerLimit > 0 && workerLimit < free {
		free, why = workerLimit, "runtime.worker_memory_limit"
	}
	return free, why, why != ""
}

// procAnon is what /proc says about a process's pages that are no file's and not shared.
func procAnon(pid string) int64 {
	text, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")), 10, 64)
			if err == nil {
				return kb << 10
			}
		}
	}
	return 0
}
