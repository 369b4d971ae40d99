// load.go: composes runtime, worker and batcher into what the updater loads and publishes; and the worker's side of the same.
package appliance

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/batch"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// Worker runs this process as a worker when inferd started it as one: the second result says so, and the first is the exit code.
// Every main that serves models calls it before anything else.
func Worker() (code int, isWorker bool) {
	if !worker.IsWorker() {
		return 0, false
	}
	return worker.Main(openBackend), true
}

func openBackend(l worker.Load) (worker.Backend, error) {
	m, err := openModel(l)
	if err != nil {
		return nil, err
	}
	return backend{m}, nil
}

// openModel loads what l names into this process.
func openModel(l worker.Load) (*tfrt.Model, error) {
	rt, err := tfrt.Open(l.Library)
	if err != nil {
		return nil, err
	}
	devices := l.Device
	if devices == "" {
		devices = tfrt.NoDevices
	}
	m, err := rt.Load(l.Dir, tfrt.Options{
		Tags: l.Tags, IntraOpThreads: l.IntraOpThreads, InterOpThreads: l.InterOpThreads, Slots: l.Callers,
		GPUGrowth: l.AllowGrowth, GPUMemoryFraction: l.MemoryFraction, VisibleDevices: devices,
	})
	if err != nil {
		return nil, err
	}
	for _, sig := range l.Signatures {
		if err := m.Prepare(sig); err != nil {
			_ = m.Close()
			return nil, err
		}
	}
	return m, nil
}

// backend is a *tfrt.Model as the worker wants it: a nil *Late must become a nil Late.
type backend struct{ *tfrt.Model }

func (b backend) Call(sig *inference.Signature, in []*tensor.Tensor, outputs []int, out func(int, *tensor.Tensor) error) (worker.Late, error) {
	late, err := b.Model.Call(sig, in, outputs, out)
	if late == nil {
		return nil, err
	}
	return late, err
}

// loader makes servables of version folders. It is immutable.
type loader struct {
	cfg     *config.Config
	library string // empty: no runtime was found
	missing error  // why
	host    *worker.Host
	metrics *metrics
	log     *slog.Logger
	live    *workers
	changed func() // a worker's state is another
}

// isolation is what auto comes to on this machine.
func (l *loader) isolation() config.Isolation {
	if l.cfg.Runtime.Isolation != config.IsolationAuto {
		return l.cfg.Runtime.Isolation
	}
	if len(gpuDevices()) > 0 {
		return config.IsolationDevice
	}
	return config.IsolationVersion
}

// settings are the model's own options, as the updater carries them for us.
func settings(c updater.Candidate) config.Model {
	m, _ := c.Model.Settings.(config.Model)
	return m
}

// load starts a worker for the candidate (or, with isolation none, loads it into this process).
func (l *loader) load(ctx context.Context, c updater.Candidate) (inference.Runner, error) {
	if l.library == "" {
		return nil, &inference.Error{Code: inference.FailedPrecondition, Reason: inference.ReasonRuntime, Model: c.Model.Name, Version: c.Number,
			Msg: "no TensorFlow runtime: " + l.missing.Error(), Err: l.missing}
	}
	m := settings(c)
	load := worker.Load{
		Model: c.Model.Name, Version: c.Number, Dir: c.Dir, Tags: c.Info.Tags, Signatures: c.Info.Signatures,
		IntraOpThreads: m.IntraOpThreads, InterOpThreads: m.InterOpThreads, Callers: m.Callers,
		Device: l.device(), MemoryFraction: l.cfg.Runtime.GPU.MemoryFraction, AllowGrowth: l.cfg.Runtime.GPU.AllowGrowth,
		Library: l.library,
	}
	if load.Callers == 0 {
		load.Callers = runtime.GOMAXPROCS(0)
	}
	if l.isolation() == config.IsolationNone {
		return openModel(load)
	}
	opts := worker.Options{RunTimeout: m.RunTimeout, MemoryLimit: int64(l.cfg.Runtime.WorkerMemoryLimit),
		OnState: func(worker.State, string) { l.changed() }}
	if l.isolation() == config.IsolationDevice {
		opts.Group = "device " + load.Device
	}
	return l.host.Open(ctx, load, opts)
}

// device is the GPU list that a worker may see; empty means the CPU.
func (l *loader) device() string {
	gpus := gpuDevices()
	if len(gpus) == 0 {
		return ""
	}
	if l.cfg.Runtime.GPU.VisibleDevices != "" {
		return l.cfg.Runtime.GPU.VisibleDevices
	}
	return gpus[0]
}

// serve puts a batcher over a proven runner.
func (l *loader) serve(v *inference.Version, r inference.Runner, c updater.Candidate, p updater.Proof) inference.Servable {
	var proven int64
	for _, s := range p.Signatures {
		proven = max(proven, s.Largest)
	}
	b := batch.New(r, batch.Options{
		Model: v.Model, Version: v.Number, Policy: policy(settings(c).Batching), MaxRows: proven, Singly: p.Singly(),
		Observe: l.metrics.batches(v.Model, v.Number), Log: l.log,
	})
	s := &servable{Batcher: b, runner: r, model: v.Model, version: v.Number, from: l}
	l.live.add(s)
	return s
}

// servable is a live version: its batcher, and the runner behind it for the status.
type servable struct {
	*batch.Batcher
	runner  inference.Runner
	model   string
	version int64
	from    *loader
}

// Close ends the worker and forgets the version's series.
func (s *servable) Close() error {
	err := s.Batcher.Close()
	s.from.live.remove(s)
	s.from.metrics.drop(s.model, s.version)
	return err
}

// policy is the batcher's form of the configuration.
func policy(b config.Batching) batch.Policy {
	if !b.Enabled {
		return batch.Policy{MaxBatchSize: 1}
	}
	return batch.Policy{
		MaxBatchSize: b.MaxBatchSize, BatchTimeout: b.BatchTimeout, MaxEnqueuedBatches: b.MaxEnqueuedBatches, NumBatchThreads: b.NumBatchThreads,
		AllowedBatchSizes: b.AllowedBatchSizes, PadVariableLengthInputs: b.PadVariableLengthInputs,
		EnableLargeBatchSplitting: b.LargeBatchSplitting.Bool(), MaxExecutionBatchSize: b.MaxExecutionBatchSize,
	}
}

// workers are the live versions, for the status and the metrics.
type workers struct {
	mu   sync.Mutex
	live map[*servable]bool // guarded by mu
}

func newWorkers() *workers { return &workers{live: make(map[*servable]bool)} }

func (w *workers) add(s *servable) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.live[s] = true
}

func (w *workers) remove(s *servable) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.live, s)
}

func (w *workers) all() []*servable {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]*servable, 0, len(w.live))
	for s := range w.live {
		out = append(out, s)
	}
	return out
}

// stats are those of the worker behind the version; ok is false with isolation none.
func (s *servable) stats() (worker.Stats, bool) {
	m, ok := s.runner.(*worker.Model)
	if !ok {
		return worker.Stats{}, false
	}
	return m.Stats(), true
}

// read is savedmodel.Read with the tags of the model that the version folder belongs to.
func (l *loader) read(dir string) (*savedmodel.Info, error) {
	base := filepath.Dir(dir)
	for i := range l.cfg.Models {
		if m := &l.cfg.Models[i]; m.BasePath == base {
			return savedmodel.Read(dir, m.Tags)
		}
	}
	return savedmodel.Read(dir, l.cfg.Defaults.Tags)
}

// gpuDevices are the NVIDIA devices that this machine shows, as TensorFlow's visible_device_list numbers them.
func gpuDevices() (devices []string) {
	nodes, _ := filepath.Glob("/dev/nvidia[0-9]*") // the pattern is well-formed
	for i := range nodes {
		devices = append(devices, strconv.Itoa(i))
	}
	return devices
}
