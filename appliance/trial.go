// trial.go: versions outside a running appliance: for `inferd check --load` and for benches.
package appliance

import (
	"context"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// Trial loads versions as the appliance does, without doors and without a catalog.
type Trial struct {
	load *loader
	stop context.CancelFunc
	done chan struct{}
}

var trialProbe = updater.ProbeOptions{Memory: workerMemory, Peak: workerPeak}

// NewTrial starts a worker host. Close ends it.
func NewTrial(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Trial, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	found, err := findRuntime(cfg)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(ctx)
	confine, now := newConfinement(cfg), func() *config.Config { return cfg }
	t := &Trial{stop: stop, done: make(chan struct{}), load: &loader{
		alone: true, cfg: cfg, library: found.library, metrics: newMetrics(""), log: log, live: newWorkers(), changed: func() {},
		gpus: newGPUs(cfg.Runtime, log, nil), confinement: confine, settings: now,
		host: worker.NewHost(worker.HostOptions{Library: found.library, UseZygote: cfg.Runtime.Zygote, Env: gpuEnv, Sandbox: confine.sandbox(now), Log: log}),
	}}
	go func() {
		defer close(t.done)
		_ = t.load.host.Run(ctx) // it ends with ctx and has nothing to report
	}()
	return t, nil
}

// Load loads the version folder dir and proves nothing. The caller closes the runner before the Trial.
func (t *Trial) Load(ctx context.Context, dir string) (inference.Runner, *savedmodel.Info, error) {
	c, err := t.candidate(dir)
	if err != nil {
		return nil, nil, err
	}
	r, err := t.load.load(ctx, c)
	return r, c.Info, err
}

func (t *Trial) candidate(dir string) (updater.Candidate, error) {
	base := filepath.Dir(dir)
	m, _ := t.load.cfg.Model(filepath.Base(base))
	for i := range t.load.cfg.Models {
		if t.load.cfg.Models[i].BasePath == base {
			m = t.load.cfg.Models[i]
		}
	}
	info, err := readVersion(m, dir)
	if err != nil {
		return updater.Candidate{}, err
	}
	number, ok := parseVersion(filepath.Base(dir))
	if !ok {
		number = 1
	}
	return updater.Candidate{Model: updater.Model{Name: m.Name, Settings: m}, Number: number, Dir: dir, Info: info, Attempt: 1}, nil
}

// Open loads and proves the version folder dir, with the settings of the model whose base path it lies in, and returns it as the catalog
// would get it. The caller closes the servable before the Trial.
func (t *Trial) Open(ctx context.Context, dir string) (inference.Servable, *inference.Version, updater.Proof, error) {
	c, err := t.candidate(dir)
	if err != nil {
		return nil, nil, updater.Proof{}, err
	}
	info, began := c.Info, time.Now()
	r, err := t.load.load(ctx, c)
	if err != nil {
		return nil, nil, updater.Proof{}, err
	}
	c.Model.AllowNaN = settings(c).NaN == config.Warn
	proof, err := updater.Prove(ctx, r, c, trialProbe, decodeCases())
	if err != nil {
		_ = r.Close()
		return nil, nil, proof, err
	}
	r, proof = t.load.tune(ctx, updater.Proven{Runner: r, Candidate: c, Proof: proof, Took: time.Since(began)}, func(string) {})
	v := &inference.Version{Model: c.Model.Name, Number: c.Number, Dir: dir, Signatures: info.Signatures, Defs: info.Defs, Unproven: proof.Unproven}
	return t.load.serve(v, r, c, proof), v, proof, nil
}

// Tune has Open measure how a version is run best, and run it so, as the appliance does where optimize is on. Nothing is remembered.
func (t *Trial) Tune() { t.load.tuner, t.load.probe = newTuner("", t.load.log), trialProbe }

// Workers are the statistics of the open versions' workers.
func (t *Trial) Workers() (all []worker.Stats) {
	for _, s := range t.load.live.all() {
		if st, ok := s.stats(); ok {
			all = append(all, st)
		}
	}
	return all
}

// Close ends the workers' host.
func (t *Trial) Close() {
	t.stop()
	<-t.done
}
