// queue_powercut_test.go: the power fails: of what was written since the last fsync any sectors are on the disk, the others old or torn.
package storage

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd/inferd/tools/faultfs"
	"github.com/inferd/inferd/tools/namespace"
)

// envCuts asks for the long form: how many files that a power cut may have left.
const envCuts = "INFERD_CRASH_CUTS"

// clone is an account to be held against one possible end.
func (a *account) clone() *account {
	b := newAccount()
	b.faults, b.sessions, b.lines = slices.Clone(a.faults), a.sessions, a.lines
	for key, e := range a.jobs {
		c := *e
		b.jobs[key] = &c
	}
	for n, op := range a.ops {
		c := *op
		if op.e != nil {
			c.e = b.jobs[op.e.key]
		}
		b.ops[n] = &c
	}
	return b
}

// TestQueuePowerCut: a child uses a queue on a file system that keeps what is written and synced, and writes down there what it was told.
// Whatever subset of the sectors since the last fsync a power cut leaves, at whatever request: Check is clean, nothing that was acknowledged
// until then is lost or doubled, and the queue goes on.
func TestQueuePowerCut(t *testing.T) {
	t.Parallel()
	if !namespace.Inside(t, true) {
		return
	}
	cuts := 120
	if n, err := strconv.Atoi(os.Getenv(envCuts)); err == nil {
		cuts = n
	}
	const file = "queue.db"
	disk := faultfs.Mount(t)
	disk.Keep()
	cmd, _ := spawn(t, orders{Path: filepath.Join(disk.Dir, file), Events: filepath.Join(disk.Dir, "events"), Seed: 1, Steps: 4 + cuts/8, NoCompact: true})
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	ops := disk.Kept()

	fast := t.TempDir() // what a cut leaves need not be durable
	namespace.Mount(t, "tmpfs", fast, "tmpfs", 0, "size=256m")
	path := filepath.Join(fast, file)
	a, syncs := newAccount(), 0
	made := replay(ops, cuts, a, func(i int, left []byte) bool {
		if err := os.WriteFile(path, left, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, f := range goOn(t, path, a.clone()) {
			t.Errorf("request %d of %d: %s", i, len(ops), f)
		}
		return !t.Failed()
	})
	for _, op := range ops {
		if op.Kind == faultfs.Sync {
			syncs++
		}
	}
	t.Logf("%d cuts within %d requests, %d of them fsyncs; %d jobs; %v", made, len(ops), syncs, len(a.jobs), a.counts)
	if t.Failed() {
		return
	}
	if made < cuts/2 || syncs < 20 || a.counts["finish"] < 10 {
		t.Errorf("%d cuts, %d fsyncs, %d jobs finished: the test tests little", made, syncs, a.counts["finish"])
	}

	// A queue that left out the fsync between pages and meta page would be found out.
	var lax []faultfs.Op
	for i, op := range ops {
		meta := i+1 < len(ops) && ops[i+1].Kind == faultfs.Write && ops[i+1].Name == file && ops[i+1].Off <= 4096
		if op.Kind != faultfs.Sync || !meta {
			lax = append(lax, op)
		}
	}
	a = newAccount()
	var found []string
	replay(lax, 500, a, func(_ int, left []byte) bool {
		if err := os.WriteFile(path, left, 0o600); err != nil {
			t.Fatal(err)
		}
		found = goOn(t, path, a.clone())
		return len(found) == 0
	})
	if len(found) == 0 {
		t.Error("a missing fsync is not found out")
	}
	t.Logf("without every other fsync: %.300q", found)
}

// replay follows the requests, and calls f with up to so many files that a power cut may have left between them, while the account has what
// was told until then. f says whether to go on.
func replay(ops []faultfs.Op, cuts int, a *account, f func(i int, left []byte) bool) (made int) {
	r := rand.New(rand.NewPCG(8, 8))
	disk, text := faultfs.Files{Name: "queue.db"}, ""
	for i, op := range ops {
		disk.Do(op)
		if op.Kind == faultfs.Write && op.Name == "events" {
			text += string(op.Data) // a line over the end of a page comes in two parts
			for line, rest, ok := strings.Cut(text, "\n"); ok; line, rest, ok = strings.Cut(text, "\n") {
				a.event(line)
				text = rest
			}
		}
		// As many cuts as are left, over the requests that are left; each where something is at stake.
		for disk.Pending() > 0 && r.IntN(len(ops)-i) < cuts-made {
			made++
			if !f(i, disk.Cut(r)) {
				return made
			}
			if r.IntN(4) > 0 {
				break
			}
		}
	}
	return made
}

// goOn opens what is left, verifies it, and has the queue take and run one more job on it.
func goOn(t *testing.T, path string, a *account) []string {
	t.Helper()
	q, err := OpenQueue(path, QueueOptions{})
	if err != nil {
		return []string{err.Error()}
	}
	defer q.Close()
	if faults := a.verify(t, q, true); len(faults) > 0 {
		return faults
	}
	const key = "after-1--"
	it, _, err := q.Append(t.Context(), jobOf(key), payloadOf(key))
	if err != nil {
		return []string{fmt.Sprintf("append afterwards: %v", err)}
	}
	a.event("+ 1 append " + key)
	a.event("= 1 " + it.ID)
	for _, l := range lease(t, q, jobOf(key).Model, 1000) {
		finish(t, q, l.ID, string(resultOf(l.Key, "after")))
		if e := a.jobs[l.Key]; e == nil || e.state != Queued {
			return []string{"leased afterwards, and nobody's: " + l.Key}
		}
		a.event(fmt.Sprintf("+ 2 finish %s done after", l.Key))
		a.event("= 2")
	}
	return a.verify(t, q, true)
}
