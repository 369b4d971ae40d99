// admit.go: what is left of the useful output when more is asked than the box can do.
package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/inferd/inferd/appliance/loadgen"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/tools/measure"
)

// overloadSide makes runs of 10 ms and more.
const overloadSide = 640

// onOne starts inferd on the first processor and leaves the second to the generator, which is this process. See serveBy.
func (b *bench) onOne(client *http.Client, scheme, models string, args ...string) (*server, error) {
	runtime.LockOSThread() // for good: what is started inherits this thread's processors
	if err := pin(0); err != nil {
		return nil, err
	}
	s, err := b.serveBy(client, scheme, models, args...)
	for _, tid := range threads() {
		_ = pinThread(tid, 1) // one that has just ended needs none
	}
	return s, err
}

func pin(cpu int) error { return pinThread(0, cpu) }

func pinThread(tid, cpu int) error {
	if runtime.NumCPU() < 2 {
		return nil // then they share it
	}
	var set unix.CPUSet
	set.Set(cpu)
	return unix.SchedSetaffinity(tid, &set)
}

func threads() (ids []int) {
	entries, _ := os.ReadDir("/proc/self/task") // ours are always there
	for _, e := range entries {
		if id, err := strconv.Atoi(e.Name()); err == nil {
			ids = append(ids, id)
		}
	}
	return ids
}

// busy is an inferd that has one processor, and on it a model whose runs take 10 ms and more.
type busy struct {
	*server
	input []byte // what is asked
	ca    string // empty: without TLS
}

// startBusy starts it for bodies of about so many bytes.
func (b *bench) startBusy(size int, secured bool, args ...string) (*busy, error) {
	root, err := os.MkdirTemp(b.work, "busy-")
	if err != nil {
		return nil, err
	}
	models := filepath.Join(root, "models")
	if _, err := modeltest.BusyVector(overloadSide).Publish(filepath.Join(models, "busy"), 1); err != nil {
		return nil, err
	}
	s := &busy{input: []byte(`{"inputs":[` + strings.Repeat("0.5,", size/4-4) + `0.5]}`)}
	scheme, client := "http://", http.DefaultClient
	if secured {
		c, err := selfSigned(root)
		if err != nil {
			return nil, err
		}
		s.ca, scheme, client = c.cert, "https://", &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: c.pool}, DisableKeepAlives: true}}
		args = append(args, "--listen.tls.cert", c.cert, "--listen.tls.key", c.key)
	}
	s.server, err = b.onOne(client, scheme, models, args...)
	return s, err
}

// load puts load on the model and returns its one step.
func (s *busy) load(o loadgen.Options) (loadgen.Step, error) {
	ctx := context.Background()
	o.Input, o.CA = s.input, s.ca
	g, err := loadgen.New(ctx, loadgen.Target{Address: s.http, Protocol: loadgen.REST, Model: "busy"}, o)
	if err != nil {
		return loadgen.Step{}, err
	}
	defer g.Close()
	r, err := g.Run(ctx)
	if err != nil {
		return loadgen.Step{}, err
	}
	return r.Steps[len(r.Steps)-1], nil
}

// peak is the rate of a closed loop.
func (s *busy) peak(each time.Duration) (float64, error) {
	step, err := s.load(loadgen.Options{Callers: 3, Duration: each, Warmup: time.Second})
	return step.AnsweredRate, err
}

// patience is the deadline that the figures of overload give: thirty runs at the peak.
func patience(peak float64) time.Duration {
	return time.Duration(30*1000/peak) * time.Millisecond
}

// poisson is load that comes at its own times.
func poisson(rate float64, deadline, warm, each time.Duration) loadgen.Options {
	return loadgen.Options{Rates: []float64{rate}, Arrivals: loadgen.Poisson, Duration: each, Warmup: warm, Deadline: deadline}
}

// fate is what became of those that were let in.
type fate struct {
	in      int64 // answered, or let in and given up
	expired int64 // given up by inferd, for their time had run out
	served  int64 // answered when their time, which they were sent with, had run out
	late    int64 // expired, and answered too late as counted from when they were due: with what the generator took to send them
	failed  int64 // no answer, or no whole one

	sentLate int64 // by the generator, by more than 5 ms
	sentMost float64
}

func (f *fate) add(step *loadgen.Step) {
	expired := step.RefusedBy["late"]
	f.in += step.Answered + expired
	f.expired += expired
	f.served += step.LateServed
	f.late += step.Answered - step.Good + expired
	f.failed += step.Failed
	f.sentLate += step.LateSends
	f.sentMost = max(f.sentMost, step.LateMost)
}

func (f *fate) String() string {
	share := func(n int64) float64 { return 100 * float64(n) / float64(max(1, f.in)) }
	return fmt.Sprintf("%d were let in; late of them: %d (%.2f%%, at most 0.1%%), of which %d were given up, and by the time they were due %d (%.2f%%); %d failed; the generator sent %d more than 5 ms late, at most %.0f ms",
		f.in, f.expired+f.served, share(f.expired+f.served), f.expired, f.late, share(f.late), f.failed, f.sentLate, f.sentMost)
}

// overload offers ten times what a model can do, with small and with large bodies, plain and over TLS, and holds the goodput against the peak.
// A large body that is refused was sent in part all the same, unless its client waits for 100 Continue.
func (b *bench) overload() error {
	for _, secured := range []bool{false, true} {
		for _, c := range []struct {
			size   int
			expect bool
		}{{1 << 10, false}, {1 << 20, false}, {1 << 20, true}} {
			if err := b.overloadWith(c.size, secured, c.expect); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b *bench) overloadWith(size int, secured, expect bool) error {
	const limit = 512 << 20
	s, err := b.startBusy(size, secured, "--memory.limit", fmt.Sprintf("%dMiB", limit>>20))
	if err != nil {
		return err
	}
	defer s.stop()
	each := max(b.each, 6*time.Second)
	first, err := s.peak(each)
	if err != nil {
		return err
	}
	deadline, offered := patience(first), 10*first
	way := "plain"
	if secured {
		way = "TLS"
	}
	if expect {
		way += ", 100 Continue"
	}
	fmt.Printf("  bodies of %d bytes, %s, runs of %.1f ms; %.0f/s are offered, ten times the peak, with %v each\n", len(s.input), way, 1000/first, offered, deadline)
	var windows, whole fate
	var most int64
	overload := func(f *fate, warm, each time.Duration) (float64, error) {
		o := poisson(offered, deadline, warm, each)
		o.ExpectContinue = expect
		step, err := s.load(o)
		if err != nil {
			return 0, err
		}
		f.add(&step)
		_, own := measure.TreePSS(s.cmd.Process.Pid)
		most = max(most, own)
		return step.Goodput, nil
	}
	// A window follows a closed loop, in which runs take less of a processor's time: what counts begins when that is forgotten.
	r, err := measure.Pairs(fmt.Sprintf("goodput at ten times the peak, %d KB, %s / peak", size>>10, way), "/s", 0.95, b.n,
		func() (float64, error) { return overload(&windows, settles, each) },
		func() (float64, error) { return s.peak(each) })
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  in these windows: %s\n", &windows)
	// And in one piece, of which everything counts from the first request on.
	got, err := overload(&whole, 0, time.Duration(b.n)*each)
	if err != nil {
		return err
	}
	fmt.Printf("  %v in one piece, from its first request on: %.0f/s; %s\n", time.Duration(b.n)*each, got, &whole)
	fmt.Printf("  the tree had %.0f MB of %d MB\n", float64(most)/1e6, limit>>20)
	return nil
}

// settles is how long predictions may take to follow a change.
const settles = 5 * time.Second
