// process.go: what isolation costs: memory at rest, forking, denormals, a worker against none, and memory over swaps.
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/inferd/inferd/appliance"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/tools/measure"
)

// verdict prints a figure that is no ratio against its bound.
func verdict(name string, got, bound float64, unit string) {
	word := "holds"
	if got > bound {
		word = "DOES NOT HOLD"
	}
	fmt.Printf("%-58s %5.1f %s  (at most %.1f: %s)\n", name, got, unit, bound, word)
}

func (b *bench) atRest() error {
	s, err := b.serve(filepath.Join(b.work, "models"))
	if err != nil {
		return err
	}
	defer s.stop()
	time.Sleep(5 * time.Second)
	anon, err := measure.ProcBytes(s.cmd.Process.Pid, "status", "RssAnon")
	if err != nil {
		return err
	}
	shm, err := measure.ProcBytes(s.cmd.Process.Pid, "status", "RssShmem")
	if err != nil {
		return err
	}
	verdict("core process at rest, anonymous and shared memory", float64(anon+shm)/1e6, 40, "MB")
	return nil
}

func (b *bench) trial(zygote bool) (*appliance.Trial, error) {
	cfg := config.Default()
	cfg.Runtime.Library, cfg.Runtime.Zygote = b.runtime, zygote
	return appliance.NewTrial(context.Background(), cfg, nil)
}

func (b *bench) smallDir() string { return filepath.Join(b.work, "models", "two_layer", "1") }

// loadAndAsk is the time from the wish for a worker to its first answer, in milliseconds.
func loadAndAsk(t *appliance.Trial, dir string) (float64, error) {
	began := time.Now()
	r, info, err := t.Load(context.Background(), dir)
	if err != nil {
		return 0, err
	}
	x, want, err := smallInput()
	if err != nil {
		return 0, err
	}
	result, err := r.Run(context.Background(), &inference.Run{Signature: info.Signatures[inference.DefaultSignature], Inputs: []tensor.Parts{tensor.One(x)}, Outputs: []int{0}})
	if err != nil {
		return 0, errors.Join(err, r.Close())
	}
	took := time.Since(began)
	err = near(floats(result.Outputs[0].Data), want)
	result.Release()
	return float64(took.Microseconds()) / 1000, errors.Join(err, r.Close())
}

func (b *bench) fork() error {
	forked, err := b.trial(true)
	if err != nil {
		return err
	}
	defer forked.Close()
	fresh, err := b.trial(false)
	if err != nil {
		return err
	}
	defer fresh.Close()
	if _, err := loadAndAsk(forked, b.smallDir()); err != nil { // the zygote is up afterwards
		return err
	}
	r, err := measure.Pairs("forked worker / fresh process, load to first answer", "ms", 0.5, b.n,
		func() (float64, error) { return loadAndAsk(forked, b.smallDir()) },
		func() (float64, error) { return loadAndAsk(fresh, b.smallDir()) })
	if err != nil {
		return err
	}
	r.Below = true
	fmt.Println(r.Report())

	s, v, _, err := forked.Open(context.Background(), b.smallDir())
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	private := func(when string) error {
		dirty, err := measure.ProcBytes(forked.Workers()[0].PID, "smaps_rollup", "Private_Dirty")
		if err == nil {
			verdict("forked worker with the small model, private memory "+when, float64(dirty)/1e6, 20, "MB")
		}
		return err
	}
	one := smallCall(s, v, func(i int) float32 { return float32(i) / 32 })
	if _, err := measure.Drive(1, b.each, one); err != nil {
		return err
	}
	if err := private("after one caller"); err != nil {
		return err
	}
	// TensorFlow keeps compiled kernels and buffers for each batch size that it has met, in each thread.
	if _, err := measure.Drive(connections, b.each, one); err != nil {
		return err
	}
	return private(fmt.Sprintf("after %d callers", connections))
}

// smallInput is one row for the small model, and its right answer.
func smallInput() (*tensor.Tensor, []float32, error) {
	data := randomFloats(32)
	x, err := tensor.New(tensor.Float, tensor.Shape{1, 32}, data)
	return x, modeltest.TwoLayerAnswer(floats(data)), err
}

// smallCall asks the small model for one row, and holds the first answer against the right one.
func smallCall(s inference.Servable, v *inference.Version, value func(i int) float32) func(int) (func() error, func(), error) {
	return func(int) (func() error, func(), error) {
		data := make([]byte, 0, 128)
		for i := range 32 {
			data = binary.LittleEndian.AppendUint32(data, math.Float32bits(value(i)))
		}
		x, err := tensor.New(tensor.Float, tensor.Shape{1, 32}, data)
		if err != nil {
			return nil, nil, err
		}
		sig, checked := v.Signatures[inference.DefaultSignature], false
		return func() error {
			resp, err := s.Predict(context.Background(), &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: []int{0}})
			if err != nil {
				return err
			}
			defer resp.Release()
			if !checked {
				checked = true
				return near(floats(resp.Outputs[0].Data), modeltest.TwoLayerAnswer(floats(data)))
			}
			return nil
		}, func() {}, nil
	}
}

func (b *bench) denormals() error {
	t, err := b.trial(true)
	if err != nil {
		return err
	}
	defer t.Close()
	s, v, _, err := t.Open(context.Background(), b.smallDir())
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	rate := func(value func(int) float32) func() (float64, error) {
		return func() (float64, error) { return measure.Drive(8, b.each, smallCall(s, v, value)) }
	}
	r, err := measure.Pairs("small model, denormal inputs / ordinary ones", "calls/s", 0.9, b.n,
		rate(func(int) float32 { return 1e-39 }), rate(func(i int) float32 { return float32(i) / 32 }))
	if err != nil {
		return err
	}
	fmt.Println(r.Report())
	return nil
}

func (b *bench) isolation() error {
	models := filepath.Join(b.work, "models")
	version, err := b.serve(models, "--grpc.tensor_content", "--runtime.isolation=version")
	if err != nil {
		return err
	}
	defer version.stop()
	none, err := b.serve(models, "--grpc.tensor_content", "--runtime.isolation=none")
	if err != nil {
		return err
	}
	defer none.stop()
	body, msg, err := smallRequests()
	if err != nil {
		return err
	}
	for _, s := range []*server{version, none} {
		if _, _, err := checkSmall(s, body, msg); err != nil {
			return err
		}
	}
	if err := b.compare("isolation version / none, small model, gRPC, 64 connections", 0.95, version, none, func(s *server) measure.Caller {
		return measure.LightCaller(s.grpc, predict, msg)
	}); err != nil {
		return err
	}
	return b.compare("isolation version / none, small model, REST, 64 connections", 0.95, version, none, func(s *server) measure.Caller {
		return measure.HTTPCaller(s.http, restPath, body)
	})
}

// swaps replaces the small model again and again under load and looks at what all processes hold 5 s after each.
func (b *bench) swaps() error {
	const settle = 5 * time.Second
	count := b.swapCount
	models := filepath.Join(b.work, "swaps")
	base := filepath.Join(models, "two_layer")
	if _, err := modeltest.TwoLayer().Publish(base, 1); err != nil {
		return err
	}
	s, err := b.serve(models)
	if err != nil {
		return err
	}
	defer s.stop()
	body, msg, err := smallRequests()
	if err != nil {
		return err
	}
	if _, _, err := checkSmall(s, body, msg); err != nil {
		return err
	}
	var stop atomic.Bool
	var asked, failures atomic.Int64
	var last atomic.Pointer[error]
	var wg sync.WaitGroup
	for range 8 {
		call, done, err := measure.HTTPCaller(s.http, restPath, body)(0)
		if err != nil {
			return err
		}
		wg.Go(func() {
			defer done()
			for !stop.Load() {
				asked.Add(1)
				if err := call(); err != nil {
					failures.Add(1)
					last.Store(&err)
					return
				}
			}
		})
	}
	var memory, owned []float64
	var holds []holdings
	for i := range count {
		version := int64(i + 2)
		if _, err = modeltest.TwoLayer().Publish(base, version); err != nil {
			break
		}
		if err = waitReady(fmt.Sprintf("http://%s/v1/models/two_layer/versions/%d", s.http, version), 30*time.Second); err != nil {
			break
		}
		if err = waitLatest(s, "two_layer", version); err != nil {
			break
		}
		if err = os.RemoveAll(filepath.Join(base, strconv.FormatInt(version-1, 10))); err != nil {
			break
		}
		time.Sleep(settle)
		all, own := measure.TreePSS(s.cmd.Process.Pid)
		memory, owned = append(memory, float64(all)/1e6), append(owned, float64(own)/1e6)
		holds = append(holds, held(s.cmd.Process.Pid))
		fmt.Printf("  swap %2d: %.1f MB, %.1f MB of it no file's; %+v\n", i+1, memory[i], owned[i], holds[i])
	}
	stop.Store(true)
	wg.Wait()
	if err != nil {
		return err
	}
	if n := failures.Load(); n > 0 {
		return errors.Join(fmt.Errorf("%d of %d requests failed", n, asked.Load()), *last.Load())
	}
	third := count / 3
	for name, m := range map[string][]float64{"PSS": memory, "PSS without files": owned} {
		first, end := measure.Median(m[:third]), measure.Median(m[count-third:])
		verdict(fmt.Sprintf("%s after %d swaps, %d requests, none failed", name, count, asked.Load()), end, first*1.05+8, "MB")
	}
	judge(holds)
	return nil
}

// waitLatest waits until version is what a request without a version gets.
func waitLatest(s *server, model string, version int64) error {
	for range 3000 {
		resp, err := getJSON("http://" + s.http + "/v1/models/" + model)
		if err != nil {
			return err
		}
		for _, v := range resp.ModelVersionStatus {
			if v.State == "AVAILABLE" && v.Version == strconv.FormatInt(version, 10) {
				return nil
			}
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("version %d did not become available", version)
}

// waitGone waits until a version is no longer served.
func waitGone(s *server, model string, version int64) error {
	want := strconv.FormatInt(version, 10)
	for range 3000 {
		status, err := getJSON("http://" + s.http + "/v1/models/" + model)
		if err != nil {
			return err
		}
		gone := true
		for _, v := range status.ModelVersionStatus {
			gone = gone && (v.Version != want || v.State == "END")
		}
		if gone {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("%s version %d is still served", model, version)
}
