// load.go: composes runtime, worker and batcher into what the updater loads and publishes; and the worker's side of the same.
package appliance

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
		Gently: l.Gently, GPUGrowth: l.AllowGrowth, GPUMemoryFraction: l.MemoryFraction, VisibleDevices: devices,
		Freeze: l.Freeze, Compared: l.Compared, Signatures: l.Signatures, SingleThreaded: l.SingleThreaded, BFloat16: l.BFloat16,
	})
	if err != nil {
		return nil, err
	}
	if err := findDevice(l, m.Devices); err != nil {
		_ = m.Close()
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

// findDevice checks that the runtime found the GPU that l names: one without CUDA loads the model all the same, for the CPU.
func findDevice(l worker.Load, devices func() ([]tfrt.Device, error)) error {
	if l.Device == "" {
		return nil
	}
	found, err := devices()
	if err != nil {
		return fmt.Errorf("list the model's devices: %w", err)
	}
	if slices.ContainsFunc(found, func(d tfrt.Device) bool { return d.Type == "GPU" }) {
		return nil
	}
	return inference.Errorf(inference.FailedPrecondition, inference.ReasonDevice,
		"the TensorFlow runtime does not find GPU %s: it was built without CUDA or for newer GPUs, or its CUDA libraries are missing", l.Device)
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

// loader makes servables of version folders. It is immutable but for accounts, loading and now.
type loader struct {
	cfg     *config.Config // as it was at the start
	library string         // empty: no runtime was found
	missing error          // why
	host    *worker.Host
	metrics *metrics
	log     *slog.Logger
	live    *workers
	gpus    *gpus
	memory  *keeper // nil: no account is kept
	ahead   *prefetcher
	changed func() // a worker's state is another
	alone   bool   // nothing serves beside, so every load has normal priority

	now    atomic.Pointer[engine] // in use; nil: library and host are
	chosen chan struct{}          // closed when now is known; nil: it is from the start

	confinement confinement
	settings    func() *config.Config // as they are by now

	tuner *tuner               // nil: nothing is measured
	probe updater.ProbeOptions // as the updater proves

	accounts sync.Map     // inference.Runner to *account: of what is loaded
	loading  atomic.Int32 // loads under way
}

// settings are the model's own options, as the updater carries them for us.
func settings(c updater.Candidate) config.Model {
	m, _ := c.Model.Settings.(config.Model)
	return m
}

// load starts a worker for the candidate (or, with isolation none, loads it into this process).
func (l *loader) load(ctx context.Context, c updater.Candidate) (inference.Runner, error) {
	if err := l.settled(ctx); err != nil {
		return nil, err
	}
	if l.library == "" {
		return nil, &inference.Error{Code: inference.FailedPrecondition, Reason: inference.ReasonRuntime, Model: c.Model.Name, Version: c.Number,
			Msg: "no TensorFlow runtime: " + l.missing.Error(), Err: inference.ErrNoRuntime}
	}
	if err := l.confinement.refusal(); err != nil {
		err.Model, err.Version = c.Model.Name, c.Number
		return nil, err
	}
	m := settings(c)
	if !l.gently(c) {
		go l.ahead.version(ctx, c.Dir)
	}
	way := l.planFor(ctx, c, m)
	account, err := l.memory.reserve(ctx, c)
	if err != nil {
		return nil, err
	}
	r, err := l.loadAs(ctx, c, m, account, way)
	if err != nil && !way.plain && ctx.Err() == nil && l.plainer(c, way, err) {
		if account, err = l.memory.reserve(ctx, c); err != nil {
			return nil, err
		}
		r, err = l.loadAs(ctx, c, m, account, way.plainly(m))
	}
	return r, err
}

// loadAs loads the candidate to be run in the given way. The account is the runner's, and is closed where there is none.
func (l *loader) loadAs(ctx context.Context, c updater.Candidate, m config.Model, account *account, way *way) (inference.Runner, error) {
	l.loading.Add(1)
	defer l.loading.Add(-1)
	r, err := l.place(ctx, c, m, account, way)
	if err != nil {
		account.close()
		return nil, err
	}
	account.loaded(r)
	l.accounts.Store(r, account)
	l.tuner.runs(r, way)
	return r, nil
}

// place finds a seat for the candidate and loads it there.
func (l *loader) place(ctx context.Context, c updater.Candidate, m config.Model, account *account, way *way) (inference.Runner, error) {
	load := worker.Load{
		Model: c.Model.Name, Version: c.Number, Dir: c.Dir, Tags: c.Info.Tags, Signatures: c.Info.Signatures,
		AllowGrowth: l.cfg.Runtime.GPU.AllowGrowth, Library: l.using(ctx).library,
	}
	for notGPU := ""; ; {
		s, err := l.gpus.seat(ctx, c, notGPU)
		if err != nil {
			return nil, err
		}
		load.Device, load.MemoryFraction = s.device(), s.Fraction
		opts := worker.Options{
			RunTimeout: m.RunTimeout, MemoryLimit: cmp.Or(account.loadLimit(), l.cfg.WorkerLimit(m.ModelOptions)), Again: c.Again, Gently: way.gently(l.gently(c)),
		}
		apply(way.plan, &load, &opts)
		r, err := l.open(ctx, load, s, opts, account)
		if err == nil {
			s.taken()
			l.changed()
			return r, nil
		}
		s.leave()
		again, why := s.again(err)
		if !again || ctx.Err() != nil {
			return nil, err
		}
		l.log.Debug("version did not load on the GPU: another place is tried", "model", c.Model.Name, "version", c.Number, "err", err)
		notGPU = why
	}
}

// open loads into a worker (or, with isolation none, into this process). The seat is the runner's until that is closed.
func (l *loader) open(ctx context.Context, load worker.Load, s *seat, opts worker.Options, account *account) (inference.Runner, error) {
	if s.isolation == config.IsolationNone {
		m, err := openModel(load)
		if err != nil {
			return nil, err
		}
		return &inProcess{m, s, l, account}, nil
	}
	if opts.Group = s.group(); opts.Group != "" {
		opts.Folders = modelFolders(l.settings())
	}
	if account != nil {
		opts.Room = account.room
	}
	var opened atomic.Pointer[worker.Model]
	opts.OnState = func(state worker.State, _ string) {
		switch state {
		case worker.Closed:
			s.leave()
			l.forget(account)
			l.tuner.forget(opened.Load())
		case worker.Live:
			account.answers()
		}
		l.changed()
	}
	m, err := l.using(ctx).host.Open(ctx, load, opts)
	if err != nil {
		return nil, err
	}
	opened.Store(m)
	return m, nil
}

// forget ends a worker's account.
func (l *loader) forget(a *account) {
	if a == nil {
		return
	}
	a.close()
	l.accounts.Range(func(r, v any) bool {
		if v == a {
			l.accounts.Delete(r)
		}
		return true
	})
}

// inProcess is a model in this process, with its seat and its account.
type inProcess struct {
	*tfrt.Model
	seat    *seat
	from    *loader
	account *account
}

// Close frees the model and then gives its seat and its memory back.
func (p *inProcess) Close() error {
	defer p.seat.leave()
	defer p.from.forget(p.account)
	return p.Model.Close()
}

// serve puts a batcher over a proven runner.
func (l *loader) serve(v *inference.Version, r inference.Runner, c updater.Candidate, p updater.Proof) inference.Servable {
	var proven int64
	for _, s := range p.Signatures {
		proven = max(proven, s.Largest)
	}
	account, _ := l.accounts.Load(r)
	use := newUsage(account, settings(c))
	use.account.proven(p)
	meter, observe := updater.NewMeter(v.Signatures), l.metrics.batches(v.Model, v.Number)
	ready, wake := dozer(r)
	b := batch.New(r, batch.Options{
		Model: v.Model, Version: v.Number, Policy: policy(settings(c).Batching), MaxRows: proven, Singly: p.Singly(),
		Expect: expected(p), Ready: ready, Wake: wake,
		Observe: func(o batch.Observation) {
			observe(o)
			use.ran(o)
			if o.Err == nil {
				meter.Run(o.Signature, o.Rows+o.PaddedRows, o.Run)
			}
		}, Log: l.log,
	})
	s := &servable{Batcher: b, meter: meter, usage: use, runner: r, model: v.Model, version: v.Number, from: l, canary: newCanary(p.MadeUp(v.Signatures))}
	l.live.add(s)
	return s
}

// expected are the run times that the proof has measured.
func expected(p updater.Proof) map[string]map[int64]time.Duration {
	times := make(map[string]map[int64]time.Duration, len(p.Signatures))
	for key, s := range p.Signatures {
		if len(s.Times) > 0 && !s.Mixes {
			times[key] = s.Times
		}
	}
	return times
}

// dozer says how long a parked worker takes until it is there, and wakes it. Both are nil for a runner that cannot be parked.
func dozer(r inference.Runner) (ready func() time.Duration, wake func()) {
	m, ok := r.(*worker.Model)
	if !ok || m.Shared() {
		return nil, nil
	}
	return func() time.Duration {
		if !m.Parked() {
			return 0
		}
		return max(m.LoadTook(), time.Millisecond)
	}, m.Wake
}

// servable is a live version: its batcher, and the runner behind it for the status.
type servable struct {
	*batch.Batcher
	*usage
	meter   *updater.Meter
	runner  inference.Runner
	model   string
	version int64
	from    *loader
	canary  *canary
}

// Close ends the worker and forgets the version's series.
func (s *servable) Close() error {
	s.canary.close()
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
		MaxBatchSize: b.MaxBatchSize, BatchTimeout: b.BatchTimeout, LatencyTarget: b.LatencyTarget, MaxEnqueuedBatches: b.MaxEnqueuedBatches, NumBatchThreads: b.NumBatchThreads,
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

// read is [readVersion] as the updater calls it.
func read(m updater.Model, dir string) (*savedmodel.Info, error) {
	return readVersion(settings(updater.Candidate{Model: m}), dir)
}
