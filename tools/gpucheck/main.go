// gpucheck checks a built inferd on this machine's GPU: serving, swaps, memory that comes back, and memory that runs out.
//
//	gpucheck -list                              what the driver says; exit code 3 when there is no GPU
//	gpucheck -inferd BINARY -runtime DIR        the checks; DIR holds a TensorFlow built for the GPU
//	gpucheck -dry -inferd BINARY -runtime DIR   the same steps without a GPU, to try this program itself: it checks nothing about GPUs
//
// It takes the first GPU that CUDA_VISIBLE_DEVICES leaves, and wants it for itself: what others take of it meanwhile looks like a leak.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"

	"github.com/inferd/inferd/inference/device"
)

// budget bounds the whole, patience each wait inside it.
const (
	budget   = 9 * time.Minute
	patience = 2 * time.Minute
)

var errNoGPU = errors.New("no NVIDIA GPU")

func main() {
	list := flag.Bool("list", false, "say what the driver says and check nothing")
	dry := flag.Bool("dry", false, "go through the steps on the CPU; nothing about GPUs is checked")
	binary := flag.String("inferd", "build/inferd", "the binary to check")
	library := flag.String("runtime", "", "the directory of a TensorFlow runtime for the GPU")
	flag.Parse()
	os.Exit(code(*list, *binary, *library, *dry))
}

func code(list bool, binary, library string, dry bool) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(ctx, budget, fmt.Errorf("the checks took longer than %v", budget))
	defer cancel()
	var err error
	if list {
		err = describe(ctx)
	} else {
		err = run(ctx, binary, library, dry)
	}
	switch {
	case errors.Is(err, errNoGPU):
		return 3
	case err != nil:
		fmt.Println("test-gpu: FAILED:", err)
		return 1
	}
	return 0
}

// driver asks about the devices that list leaves, or CUDA_VISIBLE_DEVICES when it is empty.
func driver(list string) *device.Driver {
	if list == "" {
		env, set := os.LookupEnv("CUDA_VISIBLE_DEVICES")
		if !set {
			return device.NewDriver(device.DriverOptions{})
		}
		list = env
	}
	return device.NewDriver(device.DriverOptions{VisibleDevices: &list})
}

// describe prints the devices, and nvidia-smi's own words, which make a recording for inference/device/testdata/smi.
func describe(ctx context.Context) error {
	gpus, err := driver("").GPUs(ctx)
	if err != nil {
		return err
	}
	if len(gpus) == 0 {
		return errNoGPU
	}
	for _, g := range gpus {
		fmt.Println(g)
	}
	said, err := exec.CommandContext(ctx, "nvidia-smi", "--query-gpu="+device.Query, "--format=csv,noheader,nounits").CombinedOutput()
	fmt.Printf("nvidia-smi says%s\n%s", why(err), said)
	return nil
}

// checks counts. A failed check does not end the run, an error of a step does.
type checks struct {
	dry     bool
	gpu     device.GPU
	driver  *device.Driver
	passed  int
	failed  int
	skipped int
}

// check counts one comparison.
func (c *checks) check(ok bool, format string, args ...any) {
	word := "ok    "
	if ok {
		c.passed++
	} else {
		c.failed++
		word = "FAILED"
	}
	fmt.Printf("%s %s\n", word, fmt.Sprintf(format, args...))
}

// why is the end of a check's line: what went wrong, if anything did.
func why(err error) string {
	if err == nil {
		return ""
	}
	return ": " + err.Error()
}

// onGPU counts one that is about the GPU: a dry run leaves it out, and says so.
func (c *checks) onGPU(ok bool, format string, args ...any) {
	if c.dry {
		c.skipped++
		fmt.Printf("left out (dry run): %s\n", fmt.Sprintf(format, args...))
		return
	}
	c.check(ok, format, args...)
}

// used is the device's memory that somebody has, in MiB.
func (c *checks) used(ctx context.Context) (int64, error) {
	if c.dry {
		return 0, nil
	}
	gpus, err := c.driver.GPUs(ctx)
	if err == nil && len(gpus) != 1 {
		err = fmt.Errorf("the driver tells about %d devices, not about the one", len(gpus))
	}
	if err != nil {
		return 0, err
	}
	return (gpus[0].TotalBytes - gpus[0].FreeBytes) >> 20, nil
}

// usedAtMost waits until no more than most MiB are used, and returns what is used in the end.
func (c *checks) usedAtMost(ctx context.Context, most int64) (now int64, err error) {
	for end := time.Now().Add(30 * time.Second); ; {
		if now, err = c.used(ctx); err != nil || now <= most || time.Now().After(end) {
			return now, err
		}
		if err := pause(ctx, 500*time.Millisecond); err != nil {
			return now, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func run(ctx context.Context, binary, library string, dry bool) error {
	if library == "" {
		return errors.New("-runtime names no TensorFlow runtime")
	}
	c := &checks{dry: dry}
	if !dry {
		gpus, err := driver("").GPUs(ctx)
		if err != nil {
			return err
		}
		if !device.Usable(gpus, nil, nil) {
			return fmt.Errorf("no GPU whose memory is known, of %d: %v", len(gpus), gpus)
		}
		for _, g := range gpus {
			if device.Usable([]device.GPU{g}, nil, nil) {
				c.gpu = g
				break
			}
		}
		c.driver = driver(c.gpu.UUID)
		fmt.Println("on", c.gpu)
	}
	for _, step := range []struct {
		name string
		run  func(context.Context, *checks, options) error
	}{
		{"one worker for the device: serve, swap, memory back", shared},
		{"a worker for each version: memory back from one of them", separate},
		{"memory runs out", exhausted},
	} {
		fmt.Printf("--- %s\n", step.name)
		if err := step.run(ctx, c, options{binary: binary, library: library, uuid: c.gpu.UUID}); err != nil {
			return fmt.Errorf("%s: %w (%d checks passed, %d failed before it)", step.name, err, c.passed, c.failed)
		}
	}
	switch {
	case c.failed > 0:
		return fmt.Errorf("%d of %d checks on %v", c.failed, c.passed+c.failed, c.gpu)
	case dry:
		fmt.Printf("test-gpu: DRY RUN: %d steps worked on the CPU, %d checks were left out; nothing about GPUs was checked\n", c.passed, c.skipped)
	default:
		fmt.Printf("test-gpu: all %d checks passed on %v\n", c.passed, c.gpu)
	}
	return nil
}
