// driver.go: asking the driver, through nvidia-smi, without waiting for it for long.
package device

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// DriverOptions say how to ask. Zero means default.
type DriverOptions struct {
	// VisibleDevices is CUDA_VISIBLE_DEVICES as the workers will have it; nil when it is not set.
	VisibleDevices *string
	// Timeout of one answer: 10 s, for a driver that was asleep takes seconds. Rest is how long a failure stands for the next answers: 30 s.
	Timeout, Rest time.Duration
	// Nodes are the device files that an NVIDIA driver makes; nil looks for them. While there are none, nobody is asked.
	Nodes func() []string
	// Ask returns nvidia-smi's output for a list of fields, with its error; nil runs nvidia-smi.
	Ask func(ctx context.Context, fields string) (string, error)
}

// Driver asks for the GPUs. Its methods may be called from any goroutine.
type Driver struct {
	opts DriverOptions

	mu     sync.Mutex
	gpus   []GPU         // of the last answer
	err    error         // of the last answer
	told   time.Time     // when it came; zero before the first
	asking chan struct{} // closed when the answer that is being waited for is there; nil when none is
	since  time.Time     // of asking
}

// NewDriver asks nothing yet.
func NewDriver(o DriverOptions) *Driver {
	if o.Timeout <= 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Rest <= 0 {
		o.Rest = 30 * time.Second
	}
	if o.Nodes == nil {
		o.Nodes = nodes
	}
	if o.Ask == nil {
		o.Ask = askSMI
	}
	return &Driver{opts: o}
}

// GPUs asks the driver and returns the GPUs that a worker may see. It blocks until there is an answer, ctx ends or Timeout has passed, and
// not at all while an earlier question has been open for longer than that, or where there is no device file. Callers at the same time share
// one question. The result is the caller's.
func (d *Driver) GPUs(ctx context.Context) ([]GPU, error) {
	if len(d.opts.Nodes()) == 0 {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gpus, d.err, d.told = nil, nil, time.Now()
		return nil, nil
	}
	d.mu.Lock()
	if d.err != nil && d.asking == nil && time.Since(d.told) < d.opts.Rest {
		defer d.mu.Unlock()
		return nil, d.err
	}
	if d.asking == nil {
		d.asking, d.since = make(chan struct{}), time.Now()
		go d.ask(d.asking)
	}
	asking, left := d.asking, d.opts.Timeout-time.Since(d.since)
	d.mu.Unlock()

	timer := time.NewTimer(max(0, left))
	defer timer.Stop()
	select {
	case <-asking:
		return d.last()
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, d.late(asking)
	}
}

// late records that there was no answer in time. The question stays open: a process that hangs in the driver cannot even be killed, and a
// second one would hang beside it.
func (d *Driver) late(asking chan struct{}) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.asking != asking { // it has come after all
		return d.err
	}
	d.gpus, d.err, d.told = nil, fmt.Errorf("nvidia-smi has said nothing for %v", d.opts.Timeout), time.Now()
	return d.err
}

func (d *Driver) last() ([]GPU, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]GPU(nil), d.gpus...), d.err
}

// ask is the goroutine of one question.
func (d *Driver) ask(done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), d.opts.Timeout)
	defer cancel()
	out, err := d.opts.Ask(ctx, Query)
	if err != nil && TooOld(out) {
		out, err = d.opts.Ask(ctx, QueryOld)
	}
	gpus, err := Answer(out, err)
	if v := d.opts.VisibleDevices; v != nil {
		gpus = Visible(gpus, *v, true)
	} else {
		gpus = Visible(gpus, "", false)
	}
	d.mu.Lock()
	d.gpus, d.err, d.told, d.asking = gpus, err, time.Now(), nil
	d.mu.Unlock()
	close(done)
}

// Known is the last answer, without asking: at is when it came, zero when nobody has asked yet. It never blocks.
func (d *Driver) Known() (gpus []GPU, at time.Time, err error) {
	gpus, err = d.last()
	d.mu.Lock()
	defer d.mu.Unlock()
	return gpus, d.told, err
}

// Answer reads nvidia-smi's output and the error with which it ended. It says on its output what is wrong, and ends with a code that says
// less; that there are no devices is an answer.
func Answer(out string, err error) ([]GPU, error) {
	gpus, parseErr := ParseSMI(out)
	said := strings.TrimSpace(out)
	var exit *exec.ExitError
	switch {
	case err == nil:
		return gpus, parseErr
	case !errors.As(err, &exit):
		return nil, err // it did not run to its end, so it said nothing
	case len(gpus) > 0:
		return gpus, nil // it ends with a code also where it only warns, of a damaged infoROM for one
	case said == "":
		return nil, fmt.Errorf("nvidia-smi: %w", err)
	case parseErr == nil:
		return nil, nil
	default:
		said, _, _ = strings.Cut(said, "\n")
		return nil, fmt.Errorf("nvidia-smi (%w): %s", err, short(said))
	}
}

// nodes are the files by which a machine shows that an NVIDIA driver has found devices: of Linux, of WSL, and of a Tegra.
func nodes() (found []string) {
	for _, pattern := range []string{"/dev/nvidia[0-9]*", "/dev/dxg", "/dev/nvgpu/*"} {
		names, _ := filepath.Glob(pattern) // the patterns are well-formed
		found = append(found, names...)
	}
	return found
}

// askSMI runs nvidia-smi.
func askSMI(ctx context.Context, fields string) (string, error) {
	path, err := smi(exec.LookPath, os.Stat)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, path, "--query-gpu="+fields, "--format=csv,noheader,nounits")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if ctx.Err() != nil {
		err = fmt.Errorf("nvidia-smi: %w", context.Cause(ctx))
	}
	return string(out), err
}

// smi finds the program: containers mount it, and WSL keeps it, where PATH may not lead.
func smi(look func(string) (string, error), stat func(string) (os.FileInfo, error)) (string, error) {
	if path, err := look("nvidia-smi"); err == nil {
		return path, nil
	}
	for _, path := range []string{"/usr/bin/nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi", "/usr/local/nvidia/bin/nvidia-smi"} {
		if _, err := stat(path); err == nil {
			return path, nil
		}
	}
	return "", errors.New("the machine has an NVIDIA device, and nvidia-smi is not there to tell about it; install the driver's utilities" +
		" (in a container, with the capability \"utility\")")
}
