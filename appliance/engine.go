// engine.go: the TensorFlow runtime in use: which one is opened at the start, and how a running appliance changes it.
package appliance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/runtimes"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// engine is one runtime and the host whose workers have it open.
type engine struct {
	library string
	host    *worker.Host
	stop    context.CancelFunc // set when it is started
}

// engineKey is how a load is told to use another engine than the one in use.
type engineKey struct{}

// using is the engine that a load with the context goes by.
func (l *loader) using(ctx context.Context) *engine {
	if e, ok := ctx.Value(engineKey{}).(*engine); ok {
		return e
	}
	if e := l.now.Load(); e != nil {
		return e
	}
	return &engine{library: l.library, host: l.host}
}

// settled waits until it is known which runtime is used.
func (l *loader) settled(ctx context.Context) error {
	if l.chosen == nil {
		return nil
	}
	select {
	case <-l.chosen:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// foundRuntime is the library to open, those that could take its place, and what is wrong with the one that was chosen.
type foundRuntime struct {
	library string
	spare   []runtimes.Runtime
	note    string
}

// findRuntime looks for the runtime that the configuration calls for: the library that it (or INFERD_RUNTIME) names, else the chosen one or the
// highest of those that lie side by side, else what tfrt.Find finds.
func findRuntime(cfg *config.Config) (f foundRuntime, err error) {
	if named(cfg) == "" {
		places := runtimes.In(cfg.StateDir)
		choice, wrong := places.Choice()
		list, refused, e := places.Order()
		if wrong = errors.Join(wrong, e); wrong != nil {
			f.note = wrong.Error()
		}
		if len(list) > 0 {
			f.library, f.spare = list[0].Library, list[1:]
			if choice.Version != "" && list[0].Version != choice.Version {
				why := "it is not there any more"
				for _, r := range refused {
					if r.Version == choice.Version {
						why = r.Dir + ": " + r.Fault
					}
				}
				f.note = fmt.Sprintf("runtime %s, which was chosen, cannot be used: %s; runtime %s is used in its place; install it again, or `inferd runtime use %s`",
					choice.Version, why, list[0].Version, list[0].Version)
			}
			if choice.Version == "" && len(refused) > 0 && tfrt.CompareVersions(refused[0].Version, list[0].Version) > 0 {
				f.note = fmt.Sprintf("runtime %s, the highest, cannot be used: %s: %s; runtime %s is used in its place; install it again, or remove it",
					refused[0].Version, refused[0].Dir, refused[0].Fault, list[0].Version)
			}
			return f, nil
		}
	}
	found, err := tfrt.Find(cfg.Runtime.Library)
	f.library = found.Path
	return f, err
}

// named says what names a runtime in so many words, so that no choice counts.
func named(cfg *config.Config) string {
	switch {
	case cfg.Runtime.Library != "":
		return "runtime.library"
	case os.Getenv(tfrt.EnvRuntime) != "":
		return tfrt.EnvRuntime
	}
	return ""
}

// engines run the hosts.
type engines struct {
	mu  sync.Mutex
	ctx context.Context // guarded by mu: the stage's; nil before it
	wg  sync.WaitGroup
}

// start runs the engine's host until the stage ends or stop is called. False: the stage does not run.
func (e *engines) start(n *engine) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx == nil || e.ctx.Err() != nil {
		return false
	}
	ctx, stop := context.WithCancel(e.ctx)
	n.stop = stop
	e.wg.Go(func() {
		defer stop()
		_ = n.host.Run(ctx) // it ends with ctx and has nothing to report
	})
	return true
}

// newEngine is an engine that is not started.
func (a *Appliance) newEngine(library string) *engine {
	cfg := a.cfg
	return &engine{library: library, host: worker.NewHost(worker.HostOptions{
		Executable: a.opts.Executable, Library: library, Cgroup: a.cgroup(),
		UseZygote: cfg.Runtime.Zygote && library != "" && cfg.Runtime.Isolation != config.IsolationNone,
		Env:       gpuEnv, Sandbox: a.load.confinement.sandbox(a.current.Load), Log: a.opts.Log, Stderr: a.workerLine,
	})}
}

// runHosts is the stage of the worker hosts. Where there is another runtime to fall back on, the first is tried before anything is loaded with it.
func (a *Appliance) runHosts(ctx context.Context, ready func()) error {
	ready()
	a.engines.mu.Lock()
	a.engines.ctx = ctx
	a.engines.mu.Unlock()
	e := a.load.using(ctx)
	a.engines.start(e)
	go a.load.ahead.library(ctx, e.library)
	if a.found.note != "" {
		a.runtimeNote(health.Warning, a.found.note)
	}
	for _, spare := range a.found.spare {
		err := e.host.Try(ctx)
		if err == nil || ctx.Err() != nil {
			break
		}
		e.stop()
		next := a.newEngine(spare.Library)
		a.runtimeNote(health.Warning, fmt.Sprintf("the runtime could not be opened: %v; runtime %s in %s is used in its place; remove the other or put it right, and `inferd runtime use` the one that is wanted", err, spare.Version, spare.Dir))
		e = next
		a.engines.start(e)
	}
	a.load.now.Store(e)
	close(a.load.chosen)
	<-ctx.Done()
	a.engines.wg.Wait()
	return nil
}

func (a *Appliance) runtimeNote(severity health.Severity, text string) {
	a.log.Warn("runtime is not the one that was wanted", "reason", text)
	a.health.Set(health.Condition{Code: health.CodeRuntimeChoice, Severity: severity, Message: text})
	a.news.tell()
}

// UseRuntime changes the runtime of the running appliance: every live version is loaded with it, in new workers beside the old ones, and proven as a
// new version is; then all take over, and the choice is remembered. Where one fails nothing is changed, and the error and a condition say why.
func (a *Appliance) UseRuntime(ctx context.Context, version, by string) (string, error) {
	if key := named(a.cfg); key != "" {
		return "", refusedRuntime("%s names the runtime, and is stronger than a choice; take that away and start inferd again first", key)
	}
	if a.load.missing != nil || a.cfg.Runtime.Isolation == config.IsolationNone {
		if _, err := runtimes.In(a.cfg.StateDir).Choose(version, by); err != nil {
			return "", refusedRuntime("%v", err)
		}
		return fmt.Sprintf("runtime %s is chosen, and used from the next start of inferd on", version), nil
	}
	if err := a.load.settled(ctx); err != nil {
		return "", err
	}
	select {
	case a.changing <- struct{}{}:
		defer func() { <-a.changing }()
	default:
		return "", refusedRuntime("another change of the runtime is under way")
	}
	places := runtimes.In(a.cfg.StateDir)
	r, err := places.Find(version)
	if err != nil {
		return "", refusedRuntime("%v", err)
	}
	old := a.load.using(ctx)
	if old.library == r.Library {
		if _, err := places.Choose(version, by); err != nil {
			return "", refusedRuntime("%v", err)
		}
		a.health.Clear(health.CodeRuntimeChoice, "")
		a.news.tell()
		return fmt.Sprintf("runtime %s is in use already, and chosen", version), nil
	}
	text, err := a.changeEngine(ctx, old, r)
	if err != nil {
		said := fmt.Sprintf("runtime %s was tried and is not used: %v; %s goes on", version, err, old.library)
		a.runtimeNote(health.Info, said)
		return "", refusedRuntime("%s", said)
	}
	a.health.Clear(health.CodeRuntimeChoice, "")
	a.news.tell()
	a.log.Info("runtime changed", "version", version, "path", r.Library, "reason", by)
	if _, err := places.Choose(version, by); err != nil {
		return "", refusedRuntime("runtime %s is in use, but that is not remembered over a restart: %v", version, err)
	}
	return fmt.Sprintf("runtime %s is in use and chosen: %s", version, text), nil
}

func (a *Appliance) changeEngine(ctx context.Context, old *engine, r runtimes.Runtime) (string, error) {
	next := a.newEngine(r.Library)
	if !a.engines.start(next) {
		return "", errors.New("inferd stops")
	}
	if err := next.host.Try(ctx); err != nil {
		next.stop()
		return "", err
	}
	text, err := a.updater.Renew(ctx, updater.Renewal{
		Why:     "loaded with another runtime",
		Build:   a.opts.Version + " " + r.Library,
		With:    func(ctx context.Context) context.Context { return context.WithValue(ctx, engineKey{}, next) },
		Commit:  func() { a.load.now.Store(next) },
		Drained: old.stop,
	})
	if err != nil {
		next.stop()
	}
	return text, err
}

func refusedRuntime(format string, args ...any) error {
	return inference.Errorf(inference.FailedPrecondition, inference.ReasonRuntime, format, args...)
}

// RuntimeInUse is the version whose folder the library lies in, if it is one of those that lie side by side.
func RuntimeInUse(library string) string {
	if version := filepath.Base(filepath.Dir(library)); runtimes.ValidVersion(version) == nil {
		return version
	}
	return ""
}
