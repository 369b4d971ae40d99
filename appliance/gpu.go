// gpu.go: which device each version computes on. It asks the driver and keeps the books; inference/device decides.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/device"
	"github.com/inferd/inferd/updater"
)

// gpuEnv goes to every worker: CUDA would number the devices by their speed, and nvidia-smi numbers them by their place.
var gpuEnv = []string{"CUDA_DEVICE_ORDER=PCI_BUS_ID"}

// gpus gives out the devices' memory. Its methods may be called from any goroutine; only seat waits, for the driver's answer.
type gpus struct {
	cfg    config.Runtime
	driver *device.Driver
	health *health.Tracker
	log    *slog.Logger

	mu     sync.Mutex
	uses   map[int]device.Use          // guarded by mu: by ordinal
	failed []device.GPU                // guarded by mu: on these the runtime found no GPU
	onCPU  map[string]map[int64]string // guarded by mu: versions that fell back, by model, and why
	whole  string                      // guarded by mu: why no version at all can have a GPU; empty when one can, or there is none
}

func newGPUs(cfg config.Runtime, log *slog.Logger, h *health.Tracker) *gpus {
	var o device.DriverOptions
	if list, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set { // the workers inherit it
		o.VisibleDevices = &list
	}
	return &gpus{cfg: cfg, driver: device.NewDriver(o), health: h, log: log, uses: make(map[int]device.Use), onCPU: make(map[string]map[int64]string)}
}

// isolation is what auto comes to for these devices.
func (g *gpus) isolation(found []device.GPU) config.Isolation {
	if g.cfg.Isolation != config.IsolationAuto {
		return g.cfg.Isolation
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if device.Usable(found, device.Ordinals(g.cfg.GPU.VisibleDevices), g.failed) {
		return config.IsolationDevice
	}
	return config.IsolationVersion
}

// known is what the isolation comes to as far as the driver has told. It never blocks.
func (g *gpus) known() config.Isolation {
	found, _, _ := g.driver.Known() // one that does not answer has no devices
	return g.isolation(found)
}

// seat is a version's place on a device, or on the CPU. Whoever gets one calls leave when the version is gone.
type seat struct {
	device.Placement
	isolation config.Isolation
	gpus      *gpus
	model     string
	version   int64
	left      sync.Once
}

// seat finds a place for the candidate and books it. notGPU, when not empty, says why it must be the CPU although there is a GPU. It blocks
// while the driver is asked, see [device.Driver.GPUs]; the error is the ctx's.
func (g *gpus) seat(ctx context.Context, c updater.Candidate, notGPU string) (*seat, error) {
	found, probe := g.driver.GPUs(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	s := &seat{gpus: g, model: c.Model.Name, version: c.Number, isolation: g.isolation(found)}
	r := device.Request{
		NeedBytes: device.Need(c.Info.VariableBytes, c.Info.GraphBytes), Shared: s.shared(), Growth: g.cfg.GPU.AllowGrowth,
		Fraction: g.cfg.GPU.MemoryFraction, Named: device.Ordinals(g.cfg.GPU.VisibleDevices),
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	r.Failed = g.failed
	if notGPU != "" {
		s.Placement = device.Placement{Fallback: true, Reason: notGPU}
	} else {
		s.Placement = device.Place(r, found, g.uses, probe)
	}
	if s.GPU != nil {
		g.uses[s.GPU.Ordinal] = g.uses[s.GPU.Ordinal].Take(s.Placement, s.shared())
	}
	return s, nil
}

// shared reports whether the version's process holds the others of its device too.
func (s *seat) shared() bool {
	return s.isolation == config.IsolationDevice || s.isolation == config.IsolationNone
}

// device is the place as worker.Load.Device has it.
func (s *seat) device() string {
	if s.GPU == nil {
		return ""
	}
	return strconv.Itoa(s.GPU.Ordinal)
}

// group is the process that the version shares, as worker.Options.Group has it. A version that was meant for a GPU and fell back has one of
// its own, unless the configuration itself says that everything shares one.
func (s *seat) group() string {
	switch {
	case s.isolation != config.IsolationDevice:
		return ""
	case s.GPU != nil:
		return "device " + s.device()
	case s.gpus.cfg.Isolation == config.IsolationDevice:
		return "device cpu"
	default:
		return ""
	}
}

// taken tells the log and the health where the version is, once it is loaded there.
func (s *seat) taken() {
	g := s.gpus
	g.mu.Lock()
	defer g.mu.Unlock()
	before := g.whole
	g.whole = ""
	switch {
	case s.GPU != nil:
		g.log.Info("version computes on a GPU", "model", s.model, "version", s.version, "device", s.device(), "bytes", s.LimitBytes, "reason", s.Reason)
	case s.Fallback && s.Whole:
		g.whole = s.Reason
		if before != s.Reason { // one line for all versions
			g.log.Warn("no model computes on a GPU; the CPU is used instead", "reason", s.Reason)
		}
	case s.Fallback:
		g.log.Warn("version computes on the CPU although there is a GPU", "model", s.model, "version", s.version, "reason", s.Reason)
		if g.onCPU[s.model] == nil {
			g.onCPU[s.model] = make(map[int64]string)
		}
		g.onCPU[s.model][s.version] = s.Reason
	}
	g.report(s.model)
}

// leave gives the place back. Calling it again does nothing.
func (s *seat) leave() {
	s.left.Do(func() {
		g := s.gpus
		g.mu.Lock()
		defer g.mu.Unlock()
		if s.GPU != nil {
			g.uses[s.GPU.Ordinal] = g.uses[s.GPU.Ordinal].Give(s.Placement, s.shared())
		}
		delete(g.onCPU[s.model], s.version)
		g.report(s.model)
	})
}

// report makes the health conditions those of the model and of the whole. mu is held.
func (g *gpus) report(model string) {
	if g.health == nil {
		return
	}
	if g.whole == "" {
		g.health.Clear(health.CodeGPU, "")
	} else {
		g.health.Set(health.Condition{Code: health.CodeGPU, Severity: health.Warning, Message: "models compute on the CPU although the machine has a GPU: " + g.whole})
	}
	versions := g.onCPU[model]
	if len(versions) == 0 {
		g.health.Clear(health.CodeGPU, model)
		delete(g.onCPU, model)
		return
	}
	number := slices.Max(slices.Collect(maps.Keys(versions)))
	g.health.Set(health.Condition{Code: health.CodeGPU, Model: model, Severity: health.Warning,
		Message: fmt.Sprintf("model %s version %d computes on the CPU although the machine has a GPU: %s", model, number, versions[number])})
}

// again reports whether a load that failed in the seat should be tried in another one, and if that must be on the CPU, why.
func (s *seat) again(err error) (again bool, notGPU string) {
	if s.GPU == nil {
		return false, ""
	}
	e := inference.AsError(err)
	next, why := device.After(device.Failure{
		NoDevice: e.Reason == inference.ReasonDevice, Exhausted: e.Code == inference.ResourceExhausted,
		Died: errors.Is(err, inference.ErrWorkerDied), Text: e.Msg,
	})
	switch next {
	case device.OtherGPU:
		s.gpus.mu.Lock()
		defer s.gpus.mu.Unlock()
		s.gpus.failed = append(s.gpus.failed, *s.GPU)
		return true, ""
	case device.CPU:
		return true, why
	default:
		return false, ""
	}
}
