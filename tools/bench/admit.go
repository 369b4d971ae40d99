// admit.go: what is left of the useful output when more is asked than the box can do.
package main

import (
	"context"
	"fmt"
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

// onOne starts inferd on the first processor and leaves the second to the generator, which is this process.
func (b *bench) onOne(models string, args ...string) (*server, error) {
	runtime.LockOSThread() // for good: what is started inherits this thread's processors
	if err := pin(0); err != nil {
		return nil, err
	}
	s, err := b.serve(models, args...)
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

// load puts load on the model and returns its one step.
func load(address string, o loadgen.Options) (loadgen.Step, error) {
	ctx := context.Background()
	g, err := loadgen.New(ctx, loadgen.Target{Address: address, Protocol: loadgen.REST, Model: "busy"}, o)
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

// overload offers ten times what a model can do, with small and with large bodies, and holds the goodput against the peak.
func (b *bench) overload() error {
	for _, size := range []int{1 << 10, 1 << 20} {
		if err := b.overloadWith(size); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) overloadWith(size int) error {
	root, err := os.MkdirTemp(b.work, "overload-")
	if err != nil {
		return err
	}
	models := filepath.Join(root, "models")
	if _, err := modeltest.BusyVector(overloadSide).Publish(filepath.Join(models, "busy"), 1); err != nil {
		return err
	}
	const limit = 512 << 20
	s, err := b.onOne(models, "--memory.limit", fmt.Sprintf("%dMiB", limit>>20))
	if err != nil {
		return err
	}
	defer s.stop()
	body := []byte(`{"inputs":[` + strings.Repeat("0.5,", size/4-4) + `0.5]}`)
	each := max(b.each, 6*time.Second)
	closed := loadgen.Options{Callers: 3, Duration: each, Warmup: time.Second, Input: body}
	first, err := load(s.http, closed)
	if err != nil {
		return err
	}
	run := 1000 / first.AnsweredRate // ms, on one processor
	deadline := time.Duration(30*run) * time.Millisecond
	offered := 10 * first.AnsweredRate
	fmt.Printf("  bodies of %d bytes, runs of %.1f ms; %.0f/s are offered, ten times the peak, with %v each\n", len(body), run, offered, deadline)
	open := loadgen.Options{Rates: []float64{offered}, Arrivals: loadgen.Poisson, Duration: each, Warmup: 2 * time.Second, Input: body, Deadline: deadline}
	var late, admitted, failed int64
	var most int64
	r, err := measure.Pairs(fmt.Sprintf("goodput at ten times the peak, %d KB bodies / peak", size>>10), "/s", 0.95, b.n,
		func() (float64, error) {
			step, err := load(s.http, open)
			if err != nil {
				return 0, err
			}
			expired := step.RefusedBy["late"]
			late += step.Answered - step.Good + expired
			admitted += step.Answered + expired
			failed += step.Failed
			_, own := measure.TreePSS(s.cmd.Process.Pid)
			most = max(most, own)
			return step.Goodput, nil
		},
		func() (float64, error) {
			step, err := load(s.http, closed)
			return step.AnsweredRate, err
		})
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	fmt.Printf("  %d were let in, %d of them were answered late (%.2f%%, at most 0.1%%); %d requests failed otherwise; the tree had %.0f MB of %d MB\n",
		admitted, late, 100*float64(late)/float64(max(1, admitted)), failed, float64(most)/1e6, limit>>20)
	return nil
}
