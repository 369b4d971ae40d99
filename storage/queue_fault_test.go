// queue_fault_test.go: disks that fail a write, an fsync or a read, that are full, and a kernel that says so.
package storage

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/inferd/inferd/tools/faultfs"
	"github.com/inferd/inferd/tools/namespace"
)

// puppet is a child that does as it is told.
type puppet struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func newPuppet(t *testing.T, path string, prefix ...string) *puppet {
	t.Helper()
	p := &puppet{t: t}
	cmd, out := command(t, orders{Path: path, Lines: true}, prefix...)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	p.cmd, p.in, p.out = cmd, in, bufio.NewScanner(out)
	t.Cleanup(func() { _ = cmd.Process.Kill() }) // it has ended unless the test failed
	return p
}

// ask gives one command and returns what came of it: "ok ..." or "no ...".
func (p *puppet) ask(format string, args ...any) string {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		p.t.Fatal(err)
	}
	if !p.out.Scan() {
		p.t.Fatalf("%s: the child has ended: %v", fmt.Sprintf(format, args...), p.cmd.Wait())
	}
	return p.out.Text()
}

func (p *puppet) ok(format string, args ...any) string {
	p.t.Helper()
	told, ok := strings.CutPrefix(p.ask(format, args...), "ok ")
	if !ok {
		p.t.Fatalf("%s: %s", fmt.Sprintf(format, args...), p.out.Text())
	}
	return told
}

// no wants a refusal that has the words.
func (p *puppet) no(words error, format string, args ...any) {
	p.t.Helper()
	if told := p.ask(format, args...); !strings.HasPrefix(told, "no ") || !strings.Contains(told, words.Error()) {
		p.t.Fatalf("%s: %s, want %q", fmt.Sprintf(format, args...), told, words)
	}
}

// end closes the child's queue, and has it end.
func (p *puppet) end() {
	p.t.Helper()
	_ = p.in.Close()
	for p.out.Scan() { // to its end
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Errorf("the child ended with %v", err)
	}
}

func key(i int) string { return fmt.Sprintf("9-%d--", i) }

// TestQueueFailedWrite: a write or an fsync that fails acknowledges nothing; the file is opened again and the next submit is good. When it
// fails again the queue is degraded: it answers at once, does not try the disk for each, and reads go on. Everything that was acknowledged
// is there, in the process and after it.
func TestQueueFailedWrite(t *testing.T) {
	t.Parallel()
	if !namespace.Inside(t, true) {
		return
	}
	for _, kind := range []faultfs.Kind{faultfs.Write, faultfs.Sync} {
		for nth := 1; nth <= 2; nth++ { // of a commit: the pages, and the meta page
			t.Run(fmt.Sprintf("%s %d", kind, nth), func(t *testing.T) {
				t.Parallel() // most of it is the wait for the disk to be tried again
				disk := faultfs.Mount(t)
				disk.Lose(1)
				path := filepath.Join(disk.Dir, "queue.db")
				p := newPuppet(t, path)
				for i := range 5 {
					p.ok("append %s", key(i))
				}
				var seen, failing, asked int // guarded by the file system's lock
				fail := func(times int) {
					disk.Locked(func() { seen, failing = 0, times })
					disk.Fail(func(k faultfs.Kind, name string, _ int64, _ int) syscall.Errno {
						if k == faultfs.Write || k == faultfs.Sync {
							asked++
						}
						if k != kind || name != "queue.db" || failing == 0 {
							return 0
						}
						if seen++; seen < nth {
							return 0
						}
						failing--
						return syscall.EIO
					})
				}
				fail(1)
				p.no(ErrNotStored, "append %s", key(10))
				p.ok("append %s", key(11))
				p.ok("append %s", key(10)) // tried again, as a client would
				if s := p.ok("stats"); s != `degraded=false damaged=""` {
					t.Error(s)
				}
				fail(1 << 30)
				p.no(ErrNotStored, "append %s", key(20))
				p.ask("append %s", key(21))
				if s := p.ok("stats"); s != `degraded=true damaged=""` {
					t.Error(s)
				}
				before := requests(disk, &asked)
				for i := range 50 {
					p.no(ErrDegraded, "append %s", key(30+i))
				}
				if n := requests(disk, &asked) - before; n > 20 {
					t.Errorf("%d writes and fsyncs for 50 jobs that a degraded queue refused", n)
				}
				for _, i := range []int{0, 1, 2, 3, 4, 10, 11} {
					if got := p.ok("get %s", key(i)); got != "queued" {
						t.Errorf("job %d: %s", i, got)
					}
					if got := p.ok("payload %s", key(i)); got != "true" {
						t.Errorf("job %d has another payload", i)
					}
				}
				disk.Fail(nil)
				p.ok("heal") // waits until it takes jobs again
				p.ok("append %s", key(90))
				p.ok("check")
				p.end()
				p = newPuppet(t, path)
				if s := p.ok("stats"); s != `degraded=false damaged=""` {
					t.Error(s)
				}
				p.ok("check")
				known := p.ok("keys")
				for _, i := range []int{0, 1, 2, 3, 4, 10, 11, 90} {
					if n := strings.Count(known+" ", " "+key(i)+" "); n != 1 {
						t.Errorf("job %d is there %d times: %s", i, n, known)
					}
				}
				p.end()
			})
		}
	}
}

// requests reads a count under the file system's lock.
func requests(disk *faultfs.FS, n *int) (have int) {
	disk.Locked(func() { have = *n })
	return have
}

// TestQueueFullDisk: on a disk that is really full a submit says so, nothing that was acknowledged is lost, and where there is room again the
// queue takes jobs.
func TestQueueFullDisk(t *testing.T) {
	t.Parallel()
	if !namespace.Inside(t, true) {
		return
	}
	dir := t.TempDir()
	namespace.Mount(t, "tmpfs", dir, "tmpfs", 0, "size=3m")
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	q, err := OpenQueue(filepath.Join(dir, "queue.db"), QueueOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var good []string
	var failed error
	for i := 0; failed == nil && i < 10_000; i++ {
		it, _, err := q.Append(t.Context(), job("m"), noise(4000))
		if failed = err; err == nil {
			good = append(good, it.ID)
		}
	}
	if !errors.Is(failed, ErrNotStored) && !errors.Is(failed, ErrDegraded) || !errors.Is(failed, syscall.ENOSPC) {
		t.Fatalf("after %d jobs: %v", len(good), failed)
	}
	for _, id := range good {
		if it, err := q.Get(id); err != nil || it.State != Queued {
			t.Fatalf("job %s is %s: %v", id, it.State, err)
		}
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	if err := waitHealed(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	it := add(t, q, job("m"), "more")
	for _, id := range append(good, it.ID) {
		if it, err := q.Get(id); err != nil || it.State != Queued {
			t.Fatalf("job %s is %s: %v", id, it.State, err)
		}
	}
	clean(t, q)
	if q.Damaged() != "" {
		t.Error(q.Damaged())
	}
	t.Logf("%d jobs until: %v", len(good), failed)
}

// TestQueueFailedSyncOfKernel: the same fault through the kernel's own door: strace has the n-th fdatasync of a real process fail.
func TestQueueFailedSyncOfKernel(t *testing.T) {
	t.Parallel()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace is installed here: faultfs alone has injected the faults")
	}
	if out, err := exec.CommandContext(t.Context(), strace, "-f", "-o", "/dev/null", "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %v: %s", err, out)
	}
	path := filepath.Join(t.TempDir(), "queue.db")
	p := newPuppet(t, path, strace, "-f", "-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=9")
	kept, failures := 0, 0
	for i := range 12 {
		if told := p.ask("append %s", key(i)); strings.HasPrefix(told, "ok ") {
			kept++
		} else if failures++; !strings.Contains(told, ErrNotStored.Error()) || !strings.Contains(told, syscall.EIO.Error()) {
			t.Error(told)
		}
	}
	// strace counts by thread, so that each of the process's has its own ninth.
	if s := p.ok("stats"); failures == 0 || failures == 1 && s != `degraded=false damaged=""` {
		t.Errorf("%s, %d submits failed", s, failures)
	}
	p.ok("check")
	p.end()
	q := openQueue(t, path, QueueOptions{})
	if n := clean(t, q).Jobs; n < kept || n > kept+failures {
		t.Errorf("%d jobs, and %d were acknowledged", n, kept)
	}
}

// TestQueueBadSector: a page that the disk cannot read is a fault under bbolt's mapping, not an error. When the queue needs the page, on opening
// or later, the file is moved aside and the service goes on with a new one; when it does not, nothing is lost.
func TestQueueBadSector(t *testing.T) {
	t.Parallel()
	if !namespace.Inside(t, true) {
		return
	}
	faultfs.Mount(t) // skips the whole test where there is none
	const jobs = 100
	bad := func(disk *faultfs.FS, page int64) {
		moved := false // the new file lies elsewhere on the disk
		disk.Fail(func(k faultfs.Kind, name string, off int64, size int) syscall.Errno {
			moved = moved || k == faultfs.Rename
			if !moved && k == faultfs.Read && name == "queue.db" && off <= page*4096 && page*4096 < off+int64(size) {
				return syscall.EIO
			}
			return 0
		})
	}
	fill := func(t *testing.T, disk *faultfs.FS) *puppet {
		p := newPuppet(t, filepath.Join(disk.Dir, "queue.db"))
		for i := range jobs {
			p.ok("append %s", key(i))
		}
		return p
	}
	// outcome says which of the two it was.
	outcome := func(t *testing.T, p *puppet) (aside bool) {
		if told := p.ask("append %s", key(1000)); !strings.HasPrefix(told, "ok ") {
			p.ok("append %s", key(1000)) // the first one met the page, and was told that it is not stored
		}
		aside = !strings.Contains(p.ok("stats"), `damaged=""`)
		p.ok("check")
		want := jobs + 1
		if aside {
			want = 1
		}
		if known := strings.Fields(p.ok("keys")); len(known) != want {
			t.Errorf("%d jobs are there, and should be %d", len(known), want)
		}
		return aside
	}
	// each runs a case for every page, side by side, and counts the files moved aside.
	each := func(name string, pages []int64, try func(t *testing.T, disk *faultfs.FS, page int64) *puppet) int {
		var asides atomic.Int64
		t.Run(name, func(t *testing.T) {
			for _, page := range pages {
				t.Run(fmt.Sprint(page), func(t *testing.T) {
					t.Parallel() // most of it is the wait for fsyncs
					disk := faultfs.Mount(t)
					p := try(t, disk, page)
					if outcome(t, p) {
						asides.Add(1)
					}
					disk.Fail(nil)
					p.end()
				})
			}
		})
		return int(asides.Load())
	}
	pages := []int64{0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89}
	asides := each("opening", pages, func(t *testing.T, disk *faultfs.FS, page int64) *puppet {
		fill(t, disk).end()
		bad(disk, page)
		return newPuppet(t, filepath.Join(disk.Dir, "queue.db"))
	})
	if asides < 3 || asides == len(pages) {
		t.Errorf("%d of %d bad pages had the file moved aside: the test tests half of it", asides, len(pages))
	}
	t.Logf("found on opening: %d of %d bad pages were needed", asides, len(pages))

	asides = each("in use", pages[2:], func(t *testing.T, disk *faultfs.FS, page int64) *puppet {
		p := fill(t, disk)
		bad(disk, page)
		f, err := os.Open(filepath.Join(disk.Dir, "queue.db")) // which has the kernel forget the pages that it has of it
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		for i := range jobs {
			p.ask("payload %s", key(i)) // one of them may meet the page
		}
		return p
	})
	if asides == 0 {
		t.Error("no bad page was met while the queue was in use: the test tests nothing")
	}
	t.Logf("found while in use: %d of %d", asides, len(pages)-2)
}
