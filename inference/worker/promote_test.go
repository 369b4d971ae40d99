// promote_test.go: the priorities of real workers' threads, from the load to the service, as the kernel has them.
package worker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// lowThreads are the threads of a process that have not the ordinary policy or nice value, by id with their names.
func lowThreads(tb testing.TB, pid int) map[string]string {
	tb.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		tb.Fatalf("process %d has no threads: %v", pid, err)
	}
	found := make(map[string]string)
	for _, task := range tasks {
		text, err := os.ReadFile(filepath.Join(task, "stat"))
		if err != nil {
			continue // it has ended
		}
		name, rest := text[:bytes.LastIndexByte(text, ')')+1], strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		const nice, policy = 19 - 3, 41 - 3 // of proc(5), counted from the state, which is the third
		if rest[nice] != "0" || rest[policy] != strconv.Itoa(unix.SCHED_NORMAL) {
			found[filepath.Base(task)] = fmt.Sprintf("%s nice %s policy %s", name, rest[nice], rest[policy])
		}
	}
	return found
}

// untilLow polls until so many threads are low; the ends of threads are seen a moment after what they did last.
func untilLow(tb testing.TB, pid, want int) map[string]string {
	tb.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		if got := lowThreads(tb, pid); len(got) == want {
			return got
		} else if time.Now().After(end) {
			tb.Fatalf("threads of low priority: %v, want %d", got, want)
		}
	}
}

// held is a load that goes on until release is called.
func held(t *testing.T, name string) (l Load, release func()) {
	t.Helper()
	l = fakeLoad(name)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	l.Dir, l.Tags = "held", []string{pipe}
	return l, func() {
		f, err := os.OpenFile(pipe, os.O_WRONLY, 0) // waits for the worker to open it
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// begin opens a model on a goroutine and returns its process's id once there is one.
func begin(t *testing.T, h *testHost, l Load, o Options) (pid int, wait func() *Model) {
	t.Helper()
	known := children(os.Getpid())
	type opened struct {
		m   *Model
		err error
	}
	done := make(chan opened, 1)
	go func() {
		m, err := h.Open(context.Background(), l, o)
		done <- opened{m, err}
	}()
	for end := time.Now().Add(patience); pid == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no worker was started")
		}
		for child := range children(os.Getpid()) {
			if !known[child] && child != h.Host.Stats().ZygotePID {
				pid = child
			}
		}
	}
	return pid, func() *Model {
		t.Helper()
		select {
		case o := <-done:
			if o.err != nil {
				t.Fatal(o.err)
			}
			t.Cleanup(func() { o.m.Close() })
			return o.m
		case <-time.After(patience):
			t.Fatal("the version does not load")
			return nil
		}
	}
}

func children(pid int) map[int]bool {
	found := make(map[int]bool)
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if fields[1] == strconv.Itoa(pid) {
			child, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err == nil {
				found[child] = true
			}
		}
	}
	return found
}

// raising is what is to be expected where threads can be raised again, and a skip where they cannot.
func raising(t *testing.T) {
	t.Helper()
	if !raisable() {
		t.Skip("this process may not raise threads of low priority: it has neither CAP_SYS_NICE nor RLIMIT_NICE 20")
	}
}

// TestWhollyGently: where threads can be raised again, every thread of the process is low until the promotion, and none after it.
func TestWhollyGently(t *testing.T) {
	raising(t)
	bothWays(t, func(t *testing.T, h *testHost) {
		l, release := held(t, "gentle")
		pid, wait := begin(t, h, l, Options{Gently: true})
		all := func() int {
			tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid)) // none: the test fails on that
			return len(tasks)
		}
		untilAll := func() {
			t.Helper()
			for end := time.Now().Add(patience); len(lowThreads(t, pid)) != all(); time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("of %d threads these are low: %v", all(), lowThreads(t, pid))
				}
			}
		}
		untilAll()
		release()
		m := wait()
		for range 20 {
			echo(t, m, 1, 2)
		}
		untilAll()
		for range 2 { // the second does nothing
			if err := m.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
			if low := lowThreads(t, pid); len(low) > 0 || m.Low() {
				t.Errorf("low after the promotion: %v", low)
			}
		}
		for range 20 {
			echo(t, m, 3)
		}
		if low := lowThreads(t, pid); len(low) > 0 {
			t.Errorf("low while it serves: %v", low)
		}
		if s := m.Stats(); s.PID != pid || s.Restarts != 0 || s.Runs != 40 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestEndIsGentle: a process that is no longer wanted gives its memory back at low priority, and one that is replaced does not.
func TestEndIsGentle(t *testing.T) {
	raising(t)
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{})
	_, p := m.unit.stats()
	stopped := func(e ending) int {
		t.Helper()
		if err := syscall.Kill(p.pid, syscall.SIGSTOP); err != nil { // so that its threads can still be looked at
			t.Fatal(err)
		}
		lowered := len(lowThreads(t, p.pid))
		if lowered > 0 {
			t.Fatalf("%d threads are low while it serves", lowered)
		}
		p.lowerFor(e)
		return len(lowThreads(t, p.pid))
	}
	if n := stopped(ending{reason: "it does not answer"}); n > 0 {
		t.Errorf("%d threads were lowered of a process that is to be replaced", n)
	}
	if n := stopped(ending{closed: true}); n == 0 {
		t.Error("no thread was lowered")
	}
}

func TestGently(t *testing.T) {
	bothWays(t, func(t *testing.T, h *testHost) {
		h.raises = false
		l, release := held(t, "gentle")
		pid, wait := begin(t, h, l, Options{Gently: true})
		loading := untilLow(t, pid, 1+l.Callers) // the loader, and the callers that wait for the warm-up
		release()
		m := wait()
		warming := untilLow(t, pid, l.Callers)
		for range 20 {
			echo(t, m, 1, 2)
		}
		if got := lowThreads(t, pid); fmt.Sprint(got) != fmt.Sprint(warming) {
			t.Errorf("runs were made by %v, want the callers of low priority, %v", got, warming)
		}
		for range 2 { // the second does nothing
			if err := m.Promote(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		untilLow(t, pid, 0)
		for id := range loading {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/task/%s", pid, id)); err == nil {
				t.Errorf("thread %s (%s) lives on at another priority: it was raised, which not every inferd may", id, loading[id])
			}
		}
		for range 20 {
			echo(t, m, 3)
		}
		if s := m.Stats(); s.PID != pid || s.Restarts != 0 || s.Runs != 40 {
			t.Errorf("stats: %+v", s)
		}
	})
}

// TestRestartIsNotGentle: requests wait for a worker that replaces one, so it loads at normal priority. So does one that was not asked to be gentle.
func TestRestartIsNotGentle(t *testing.T) {
	h := startHost(t, true)
	l, release := held(t, "restarted")
	pid, wait := begin(t, h, l, Options{Gently: true})
	release()
	m := wait()
	if err := m.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	ended := pidfd(t, pid)
	known := children(os.Getpid())
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	waitEnd(t, ended)
	second := 0
	for end := time.Now().Add(patience); second == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
		for child := range children(os.Getpid()) {
			if !known[child] {
				second = child
			}
		}
	}
	// It is at the pipe when release returns, so what it does low it has made low.
	w, err := os.OpenFile(l.Tags[0], os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if low := lowThreads(t, second); len(low) > 0 {
		t.Errorf("the worker that replaces one loads with %v", low)
	}
	w.Close()
	echo(t, m, 1)
	if err := m.Promote(t.Context()); err != nil {
		t.Errorf("promoting what never was low: %v", err)
	}
	plain := open(t, h, fakeLoad("plain"), Options{})
	if low := lowThreads(t, plain.Stats().PID); len(low) > 0 {
		t.Errorf("a worker that was not to be gentle has %v", low)
	}
	grouped := open(t, h, fakeLoad("grouped"), Options{Gently: true, Group: "gpu"})
	if low := lowThreads(t, grouped.Stats().PID); len(low) > 0 {
		t.Errorf("a worker of a group has %v", low)
	}
}

// TestPromoteAfterDeath: what replaces a worker that died before it was promoted has normal priority already.
func TestPromoteAfterDeath(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{Gently: true})
	if _, err := m.Run(t.Context(), runOf("exit", floatTensor(1))); !errors.Is(err, inference.ErrWorkerDied) {
		t.Fatal(err)
	}
	if err := m.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	echo(t, m, 1)
	if low := lowThreads(t, m.Stats().PID); len(low) > 0 {
		t.Errorf("it runs with %v", low)
	}
	m.Close()
	if err := m.Promote(t.Context()); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("promoting a closed model: %v", err)
	}
}

func TestHunger(t *testing.T) {
	at := func(s float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(s * float64(time.Second))) }
	had := func(ran, waited float64) turns {
		return turns{time.Duration(ran * float64(time.Second)), time.Duration(waited * float64(time.Second))}
	}
	for _, c := range []struct {
		name    string
		looks   [2]turns // hungerTime, two seconds, apart
		starved bool
	}{
		{"all it wants", [2]turns{had(0, 0), had(2, 0.2)}, false},
		{"a tenth of a processor", [2]turns{had(0, 0), had(0.2, 1.8)}, false},
		{"next to nothing", [2]turns{had(2, 3), had(2.02, 4.9)}, true},
		{"it waits for a disk", [2]turns{had(2, 3), had(2.02, 3.1)}, false},
		{"threads have ended meanwhile", [2]turns{had(9, 30), had(0.1, 12)}, false},
		{"nobody counts", [2]turns{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var h hunger
			h.look(at(0), c.looks[0])
			if _, starved := h.look(at(1.9), c.looks[0]); starved {
				t.Error("starved before it could be known")
			}
			if waited, starved := h.look(at(2), c.looks[1]); starved != c.starved || waited < 0 {
				t.Errorf("waited %v, starved: %v", waited, starved)
			}
		})
	}
}

// TestStarved: the process is ended with an error that is no death of the model's, and nothing else is.
func TestStarved(t *testing.T) {
	h := startHost(t, true)
	m := open(t, h, fakeLoad("a"), Options{Gently: true})
	p, err := m.unit.await(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	hungry := hunger{since: time.Now().Add(-hungerTime), meal: turns{waited: -hungerTime}}
	if !p.hungry(&hungry, time.Now()) {
		t.Fatal("not found hungry")
	}
	<-p.down
	if err := p.died("while it loaded"); !errors.Is(err, inference.ErrStarved) || errors.Is(err, inference.ErrWorkerDied) || !strings.Contains(err.Error(), "model a version 7") {
		t.Errorf("%v", err)
	}
	echo(t, m, 1) // by another, at normal priority
}

// TestRealGently: TensorFlow's own threads are at normal priority when the model serves, whatever its pools.
func TestRealGently(t *testing.T) {
	library := realLibrary(t)
	for i, zygote := range []bool{true, false, true, false} {
		for _, pools := range []int{0, 2} {
			t.Run(fmt.Sprintf("zygote=%v/pools=%d/wholly=%v", zygote, pools, i < 2), func(t *testing.T) {
				if i < 2 {
					raising(t)
				}
				h := startHostWith(t, HostOptions{UseZygote: zygote, Library: library})
				h.raises = i < 2
				dir := modeltest.Write(t, modeltest.BigVariables(20, 5)) // large enough for TensorFlow to read it with threads of their own
				info, err := savedmodel.Read(dir, nil)
				if err != nil {
					t.Fatal(err)
				}
				l := Load{Model: "big", Version: 1, Dir: dir, Tags: info.Tags, Signatures: info.Signatures, Callers: 2, IntraOpThreads: pools, InterOpThreads: pools}
				m := open(t, h, l, Options{Gently: true})
				one := func() {
					t.Helper()
					got, err := m.call(t.Context(), inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, 1))
					if err != nil || modeltest.FloatValues(got[0])[0] != 6 {
						t.Fatalf("%v, %v", got, err)
					}
				}
				one()
				if i < 2 {
					tasks, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", m.Stats().PID)) // none: the next line fails on that
					untilLow(t, m.Stats().PID, max(1, len(tasks)))
				} else {
					untilLow(t, m.Stats().PID, l.Callers)
				}
				if err := m.Promote(t.Context()); err != nil {
					t.Fatal(err)
				}
				untilLow(t, m.Stats().PID, 0)
				one()
			})
		}
	}
}
