// gpu_test.go: versions are given places on devices that a made-up driver tells of. No GPU computes here: with the real runtime, which has no
// CUDA, every way to a GPU ends on the CPU, and that is what is shown.
package appliance

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/device"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// answering is a driver that gives nvidia-smi's answer, or fails with err.
func answering(answer string, err error) *device.Driver {
	return device.NewDriver(device.DriverOptions{
		Nodes: func() []string { return []string{"/dev/nvidia0"} },
		Ask:   func(context.Context, string) (string, error) { return answer, err },
	})
}

const (
	oneGPU  = "0, GPU-1, Tesla T4, 15360, 15096, 7.5, [N/A]"
	twoGPUs = oneGPU + "\n1, GPU-2, NVIDIA L4, 23034, 22600, 8.9, [N/A]"
)

// book is a gpus with a driver's answer, and what it says to the log and to the health.
type book struct {
	*gpus
	t   *testing.T
	log *bytes.Buffer
}

func newBook(t *testing.T, answer string, change func(*config.Runtime)) *book {
	t.Helper()
	cfg := config.Default().Runtime
	if change != nil {
		change(&cfg)
	}
	b := &book{t: t, log: new(bytes.Buffer)}
	b.gpus = newGPUs(cfg, slog.New(slog.NewTextHandler(b.log, nil)), health.New())
	b.driver = answering(answer, nil)
	return b
}

// take is a seat for a version with weights of so many MiB, which was loaded there.
func (b *book) take(model string, version, weights int64, notGPU string) *seat {
	b.t.Helper()
	s, err := b.seat(b.t.Context(), updater.Candidate{Model: updater.Model{Name: model}, Number: version, Info: &savedmodel.Info{VariableBytes: weights << 20}}, notGPU)
	if err != nil {
		b.t.Fatal(err)
	}
	s.taken()
	return s
}

// where checks the place and the process of a seat.
func (b *book) where(s *seat, device, group string) {
	b.t.Helper()
	if s.device() != device || s.group() != group {
		b.t.Errorf("model %s version %d: device %q in group %q because %s; want %q in %q", s.model, s.version, s.device(), s.group(), s.Reason, device, group)
	}
}

// conditions checks the codes' messages: the whole's first, then by model.
func (b *book) conditions(want ...string) {
	b.t.Helper()
	var got []string
	for _, c := range b.health.Report().Conditions {
		if c.Code == health.CodeGPU {
			got = append(got, c.Message)
			if c.Severity != health.Warning {
				b.t.Errorf("%s: %v would take readiness away", c.Message, c.Severity)
			}
		}
	}
	if !slices.EqualFunc(got, want, strings.Contains) {
		b.t.Errorf("conditions %q, want %q", got, want)
	}
}

func (b *book) lines(text string, want int) {
	b.t.Helper()
	if n := strings.Count(b.log.String(), text); n != want {
		b.t.Errorf("%d lines with %q, want %d:\n%s", n, text, want, b.log)
	}
}

func TestSeatsOfADevice(t *testing.T) {
	b := newBook(t, twoGPUs, nil)
	if got := b.known(); got != config.IsolationVersion {
		t.Errorf("before the driver was asked: %s", got)
	}
	first := b.take("a", 1, 1000, "")
	b.where(first, "1", "device 1")
	if got := b.known(); got != config.IsolationDevice {
		t.Errorf("with a GPU: %s", got)
	}
	second := b.take("b", 1, 17000, "") // more than GPU 1 has left
	b.where(second, "", "")
	b.conditions("model b version 1 computes on the CPU although the machine has a GPU: GPU 0 (Tesla T4) has room for 14584 MiB more, 21250 MiB are needed; GPU 1 (NVIDIA L4) has room for 20832 MiB more")
	b.lines("version computes on the CPU although there is a GPU", 1)
	third := b.take("b", 2, 8000, "")
	b.where(third, "1", "device 1")
	if first.Fraction != third.Fraction || first.LimitBytes != 22088<<20 {
		t.Errorf("one process with two limits: %v of %d, %v", first.Fraction, first.LimitBytes, third.Fraction)
	}
	second.leave()
	b.conditions()
	for _, s := range []*seat{first, third, third} {
		s.leave()
	}
	for n, u := range b.uses {
		if u != (device.Use{}) {
			t.Errorf("GPU %d keeps %+v", n, u)
		}
	}
}

func TestSeatsOfTheirOwn(t *testing.T) {
	b := newBook(t, oneGPU, func(r *config.Runtime) { r.Isolation = config.IsolationVersion; r.GPU.MemoryFraction = 0.25 })
	s := b.take("a", 1, 100, "")
	b.where(s, "0", "")
	if s.Fraction != 0.25 || s.LimitBytes != 3840<<20 {
		t.Errorf("%+v", s.Placement)
	}
	b.where(b.take("b", 1, 4000, ""), "", "") // over the configured share
	b.conditions("model b version 1")
}

func TestSeatsOnTheCPU(t *testing.T) {
	b := newBook(t, "No devices were found", nil)
	b.where(b.take("a", 1, 100, ""), "", "")
	b.conditions()
	if b.log.Len() != 0 {
		t.Errorf("a machine without a GPU is told: %s", b.log)
	}
	b = newBook(t, "No devices were found", func(r *config.Runtime) { r.Isolation = config.IsolationDevice })
	b.where(b.take("a", 1, 100, ""), "", "device cpu")
}

func TestSeatsWhereTheDriverFails(t *testing.T) {
	b := newBook(t, "", nil)
	b.driver = answering("", errors.New("nvidia-smi has said nothing for 10s"))
	for version := range int64(3) {
		b.where(b.take("a", version, 100, ""), "", "")
	}
	b.conditions("models compute on the CPU although the machine has a GPU: the GPU driver does not answer: nvidia-smi has said nothing for 10s")
	b.lines("no model computes on a GPU", 1)
	b.driver = answering(oneGPU, nil)
	b.where(b.take("a", 4, 100, ""), "0", "device 0")
	b.conditions()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.seat(ctx, updater.Candidate{Info: new(savedmodel.Info)}, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("a load that was given up: %v", err)
	}
}

func TestSeatsAfterAFailedLoad(t *testing.T) {
	noGPU := findDevice(worker.Load{Device: "0"}, func() ([]tfrt.Device, error) { return []tfrt.Device{{Type: "CPU"}}, nil })
	if err := findDevice(worker.Load{Device: "0"}, func() ([]tfrt.Device, error) { return []tfrt.Device{{Type: "CPU"}, {Type: "GPU"}}, nil }); err != nil {
		t.Error(err)
	}
	if err := findDevice(worker.Load{}, nil); err != nil {
		t.Error(err)
	}
	b := newBook(t, twoGPUs, nil)
	try := func(s *seat, err error, wantAgain bool, wantWhy string) string {
		t.Helper()
		s.leave()
		again, why := s.again(err)
		if again != wantAgain || !strings.Contains(why, wantWhy) || (why == "") != (wantWhy == "") {
			t.Errorf("%v: again %v because %q", err, again, why)
		}
		return why
	}
	s := b.take("a", 1, 100, "")
	why := try(s, inference.Errorf(inference.ResourceExhausted, inference.ReasonRuntime, "OOM when allocating tensor"), true, "the GPU's memory ran out while it loaded: OOM when allocating tensor")
	s = b.take("a", 1, 100, why)
	b.where(s, "", "")
	b.conditions("model a version 1 computes on the CPU although the machine has a GPU: the GPU's memory ran out")
	try(s, inference.Errorf(inference.ResourceExhausted, inference.ReasonRuntime, "no memory here either"), false, "")
	b.conditions()
	try(b.take("a", 1, 100, ""), &inference.Error{Code: inference.Unavailable, Msg: "signal: aborted", Err: inference.ErrWorkerDied}, true, "the worker on the GPU ended while it loaded: signal: aborted")
	try(b.take("a", 1, 100, ""), inference.Errorf(inference.NotFound, inference.ReasonRuntime, "no such op"), false, "")

	// The newer of two GPUs is not found: then the older one is not either.
	try(b.take("a", 1, 100, ""), noGPU, true, "")
	b.where(b.take("a", 1, 100, ""), "", "")
	if got := b.known(); got != config.IsolationVersion {
		t.Errorf("with GPUs that cannot be used: %s", got)
	}
}

// TestRuntimeWithoutCUDA: the machine has a GPU and the runtime cannot use it. The models are served from the CPU as if there were none, and
// one line and one condition say so.
func TestRuntimeWithoutCUDA(t *testing.T) {
	lib := library(t)
	cfg := testConfig(t, func(cfg *config.Config) { cfg.Runtime.Library, cfg.Runtime.Isolation = lib, config.IsolationAuto })
	s := runWith(t, cfg, func(a *Appliance) { a.load.gpus.driver = answering(oneGPU, nil) })
	for _, model := range []string{"a", "b"} {
		s.publish(model, 1, modeltest.HalfPlusTwo())
		if w := s.live(model, 1).Worker; w == nil || w.Device != "" {
			t.Errorf("model %s: worker %+v", model, w)
		}
	}
	got, err := s.askREST(t.Context(), "a", []float32{2})
	if err != nil || !slices.Equal(got, []float32{3}) {
		t.Errorf("answers %v, %v", got, err)
	}
	st := s.until("the condition", func(st *control.Status) bool {
		return slices.ContainsFunc(st.Conditions, func(c control.Condition) bool {
			return c.Code == health.CodeGPU && c.Model == "" && strings.Contains(c.Message, "GPU 0 (Tesla T4) cannot be used by the TensorFlow runtime")
		})
	})
	if st.Runtime.Isolation != string(config.IsolationVersion) || version(st, "a", 1).Worker.PID == version(st, "b", 1).Worker.PID {
		t.Errorf("isolation %s, workers %+v and %+v", st.Runtime.Isolation, version(st, "a", 1).Worker, version(st, "b", 1).Worker)
	}
	s.ready("", 200)
	if n := strings.Count(s.logs.tail(10_000), "no model computes on a GPU"); n != 1 {
		t.Errorf("%d lines", n)
	}
}

func TestDoctorOnGPUs(t *testing.T) {
	for _, c := range []struct {
		name, answer, hidden string
		cfg                  config.GPU
		err                  error
		want                 []string
	}{
		{"none", "", "", config.GPU{}, nil, []string{"ok: none: models run on the CPU"}},
		{"hidden", "", "-1", config.GPU{}, nil, []string{"ok: none that CUDA_VISIBLE_DEVICES=-1 shows"}},
		{"two", twoGPUs, "", config.GPU{}, nil, []string{"ok: GPU 0: Tesla T4, 15.0 GiB, 14.7 GiB free, compute capability 7.5", "ok: GPU 1: NVIDIA L4"}},
		{"no driver", "", "", config.GPU{}, errors.New("nvidia-smi: exit status 9"), []string{"warning: models run on the CPU all the same: the GPU driver does not answer: nvidia-smi: exit status 9"}},
		{"full", "0, GPU-1, Tesla T4, 15360, 200, 7.5, [N/A]", "", config.GPU{}, nil, []string{"ok: GPU 0", "warning: models run on the CPU all the same: GPU 0 (Tesla T4) has room for 0 MiB"}},
		{"another is named", oneGPU, "", config.GPU{VisibleDevices: "3"}, nil, []string{"ok: GPU 0", "warning: models run on the CPU all the same: there is no GPU 3"}},
	} {
		gpus, err := device.ParseSMI(c.answer)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range gpuFindings(c.cfg, device.Visible(gpus, "", false), c.hidden, c.err) {
			got = append(got, f.Severity+": "+f.Message)
		}
		if !slices.EqualFunc(got, c.want, strings.Contains) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}
