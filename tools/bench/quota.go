// quota.go: whether predictions follow when the processors become half as fast in mid-run.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/inferd/inferd/tools/measure"
	"github.com/inferd/inferd/tools/namespace"
)

// beyond is how many times the whole capacity is offered meanwhile.
const beyond = 3

// quota halves what inferd and its workers may take of their processor while more is asked than they can do, and counts from when predictions
// should have followed on.
func (b *bench) quota() error {
	s, err := b.startBusy(1<<10, false)
	if err != nil {
		return err
	}
	defer s.stop()
	half, err := newHalving(s.cmd.Process.Pid)
	if err != nil {
		return err
	}
	defer half.end()
	each := max(b.each, 6*time.Second)
	peak, err := s.peak(each)
	if err != nil {
		return err
	}
	deadline := patience(peak)
	fmt.Printf("  the peak is %.0f/s, %.0f/s are offered with %v each; capacity is halved by %s\n", peak, beyond*peak, deadline, half)
	var after fate
	var halved []float64
	r, err := measure.Pairs("goodput from 5 s after capacity was halved on / peak of the half", "/s", 0.9, b.n,
		func() (float64, error) {
			if err := half.set(false); err != nil {
				return 0, err
			}
			failed := make(chan error, 1)
			timer := time.AfterFunc(settles, func() { failed <- half.set(true) }) // the half of the warm-up
			step, err := s.load(poisson(beyond*peak, deadline, 2*settles, each))
			if err != nil {
				if !timer.Stop() {
					err = errors.Join(err, <-failed)
				}
				return 0, err
			}
			after.add(&step)
			return step.Goodput, <-failed
		},
		func() (float64, error) {
			if err := half.set(true); err != nil {
				return 0, err
			}
			rate, err := s.peak(each)
			halved = append(halved, rate)
			return rate, err
		})
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  the half's peak was %.2f of the whole's; from 5 s on %s\n", measure.Median(halved)/peak, &after)
	return nil
}

// halving takes half of the capacity away, and gives it back.
type halving interface {
	set(on bool) error
	end() // gives it back for good
	String() string
}

// newHalving is a quota of the kernel's where there is a cgroup to be had for it, else one of ours.
func newHalving(pid int) (halving, error) {
	g, err := newCPUGroup(pid)
	if err == nil {
		return g, nil
	}
	workers := descendants(pid)
	if len(workers) == 0 {
		return nil, errors.New("inferd has no worker to slow down")
	}
	return &dutyCycle{workers: workers, why: err}, nil
}

// descendants are the processes below pid.
func descendants(pid int) (all []int) {
	for _, c := range measure.Children(pid) {
		all = append(append(all, c), descendants(c)...)
	}
	return all
}

// cpuGroup is a cgroup with a quota. Its period is what the kernel gives a new one, as it is for a service's.
type cpuGroup struct {
	dir    string
	home   string // where its processes were before
	v1     bool
	period int // microseconds
}

func newCPUGroup(pid int) (*cpuGroup, error) {
	home, v1, err := namespace.Controller("cpu")
	if err != nil {
		return nil, err
	}
	g := &cpuGroup{dir: filepath.Join(home, "inferd-bench-"+strconv.Itoa(os.Getpid())), home: home, v1: v1, period: 100_000}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, err
	}
	if v1 {
		if text, err := os.ReadFile(filepath.Join(g.dir, "cpu.cfs_period_us")); err == nil {
			if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && n > 0 {
				g.period = n
			}
		}
	}
	err = g.set(false)
	for _, p := range append(descendants(pid), pid) {
		if err == nil {
			err = move(p, g.dir)
		}
	}
	if err != nil {
		g.end()
		return nil, err
	}
	return g, nil
}

func move(pid int, dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

func (g *cpuGroup) set(on bool) error {
	if g.v1 {
		quota := -1
		if on {
			quota = g.period / 2
		}
		return os.WriteFile(filepath.Join(g.dir, "cpu.cfs_quota_us"), []byte(strconv.Itoa(quota)), 0o644)
	}
	quota := "max"
	if on {
		quota = strconv.Itoa(g.period / 2)
	}
	return os.WriteFile(filepath.Join(g.dir, "cpu.max"), fmt.Appendf(nil, "%s %d", quota, g.period), 0o644)
}

// end moves who is in it back, and removes it.
func (g *cpuGroup) end() {
	_ = g.set(false)
	text, _ := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	for p := range strings.FieldsSeq(string(text)) {
		if pid, err := strconv.Atoi(p); err == nil {
			_ = move(pid, g.home) // one that has just ended needs no place
		}
	}
	if err := os.Remove(g.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench: a cgroup is left behind:", err)
	}
}

func (g *cpuGroup) String() string {
	return fmt.Sprintf("a CPU quota of %d of each %d ms for inferd and its workers", g.period/2000, g.period/1000)
}

// dutyCycle stops the workers for half of the time, a few milliseconds each time.
type dutyCycle struct {
	workers []int
	why     error // there is no cgroup

	mu   sync.Mutex
	quit chan struct{} // guarded by mu; nil: they run
	done chan struct{} // guarded by mu
}

const dutyTime = 5 * time.Millisecond

func (d *dutyCycle) signal(sig syscall.Signal) {
	for _, pid := range d.workers {
		_ = syscall.Kill(pid, sig) // one that was replaced is missed in the figure
	}
}

func (d *dutyCycle) set(on bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !on && d.quit != nil {
		close(d.quit)
		<-d.done
		d.quit = nil
	}
	if !on || d.quit != nil {
		return nil
	}
	d.quit, d.done = make(chan struct{}), make(chan struct{})
	go func(quit, done chan struct{}) {
		defer close(done)
		defer d.signal(syscall.SIGCONT)
		tick := time.NewTicker(dutyTime)
		defer tick.Stop()
		for stop := true; ; stop = !stop {
			select {
			case <-tick.C:
			case <-quit:
				return
			}
			if stop {
				d.signal(syscall.SIGSTOP)
			} else {
				d.signal(syscall.SIGCONT)
			}
		}
	}(d.quit, d.done)
	return nil
}

func (d *dutyCycle) end() { _ = d.set(false) }

func (d *dutyCycle) String() string {
	return fmt.Sprintf("stopping the workers for %v of each %v, for there is no cgroup with a CPU quota (%v)", dutyTime, 2*dutyTime, d.why)
}
