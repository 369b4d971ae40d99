// Package appliance builds every part of inferd from a configuration and runs them in order. It alone knows everybody.
//
// Invariants:
//  1. The doors open before anything slow is done: the ports answer (live) while the runtime and the models are still loading.
//  2. Stages start bottom-up and stop top-down: doors, then updater (drains and ends workers), then the worker host.
//  3. Nothing a model does ends the appliance. Only a door that cannot be opened, or a part that breaks its own rules, does.
package appliance

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/appliance/api/rpc"
	"github.com/inferd/inferd/appliance/api/ws"
	"github.com/inferd/inferd/appliance/config"
	"github.com/inferd/inferd/appliance/control"
	"github.com/inferd/inferd/appliance/health"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/appliance/reqlog"
	"github.com/inferd/inferd/clients/browser"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tfrt"
	"github.com/inferd/inferd/inference/worker"
	"github.com/inferd/inferd/updater"
)

// Options of an Appliance. Zero means default.
type Options struct {
	Version string
	Log     *slog.Logger // nil discards
	// Ignored is what TensorFlow Serving's command line asked for and inferd does not do; each is logged once.
	Ignored []config.Ignored
	// BesideOthers lets the appliance go without the state file and the operators' socket where another one has them, or where they cannot
	// be made: TensorFlow Serving needs neither, and several may run beside each other. What was configured by name is needed all the same.
	BesideOthers bool
	// Reload reads the configuration again, from the same file and flags; what of it TensorFlow Serving would have heeded and inferd does
	// not is returned too. Nil: it cannot be read again.
	Reload func() (*config.Config, []config.Ignored, error)
	// Level, when not nil, is the level of Log, and is set by reloads.
	Level *slog.LevelVar
	// Service is what systemd has given.
	Service Service
	// Executable is the binary that workers run; empty means this one.
	Executable string
	// Ready, when not nil, is called once with the bound addresses when the doors are open.
	Ready func(grpc, http net.Addr)

	step        func(name string) // the updater's Options.Step; no main program can set it
	canaryShare int               // likewise
}

// Appliance is one inferd.
type Appliance struct {
	// immutable after New
	cfg     *config.Config // as it was at the start: what needs a restart is read from it
	opts    Options
	log     *slog.Logger
	since   time.Time
	catalog *inference.Catalog
	service *api.Service
	oip     *oip.Service
	records *reqlog.Log
	metrics *metrics
	gate    *admission.Gate
	memory  *keeper
	certs   *certificates // nil: no door has TLS
	guard   *access.Guard // nil: nobody is asked for a token
	opers   access.Operators
	load    *loader
	journal *stateJournal
	updater *updater.Controller
	health  *health.Tracker
	found   foundRuntime
	engines engines
	// changing is full while somebody changes the runtime. cap 1
	changing chan struct{}
	news     *news // of the models' and the workers' states, once health knows them

	current      atomic.Pointer[config.Config]           // in force; a value is immutable
	turn         chan struct{}                           // cap 1: full while somebody changes the configuration
	operators    atomic.Int32                            // calls of Reload that wait for the turn or have it
	listing      atomic.Pointer[context.CancelCauseFunc] // ends the wait of a HandleReloadConfigRequest, nil when there is none
	reconfigured news                                    // current is another

	jobs      *jobs.Service // set by Run before the doors open
	queueless string        // why there is no queue, likewise
	stream    *ws.Handler   // likewise; nil when it is off

	lives   *lives
	safe    bool   // this is a safe start
	lastRun string // how the run before has ended; set by Run
	told    told
	held    *hold
	again   bool     // the HTTP port is systemd's, so the next life goes on with it; set likewise
	sockets []string // where socket units differ from the configuration; set by Run before the doors are served

	draining chan struct{} // closed when the doors begin to close
	stop     sync.Once

	// set by Run before the doors open
	doors doors
}

// New builds the parts. It looks for the runtime, and opens and starts nothing.
func New(cfg *config.Config, opts Options) (*Appliance, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	a := &Appliance{cfg: cfg, opts: opts, log: opts.Log, since: time.Now(), catalog: inference.NewCatalog(), metrics: newMetrics(opts.Version),
		health: health.New(), news: new(news), held: newHold(), turn: make(chan struct{}, 1), changing: make(chan struct{}, 1), draining: make(chan struct{})}
	a.current.Store(cfg)
	if a.supervised() {
		a.lives = openLives(cfg, opts.Log)
		a.safe = a.lives.shorts() >= safeAfter
	}
	live := newWorkers()
	a.memory = newKeeper(a.current.Load, os.DirFS("/"), live, a.health, opts.Log)
	a.gate = admission.NewGate(gateLimits(cfg.Admission), a.memory.ledger)
	a.records = a.newRequestLog()
	a.service = api.New(a.catalog, api.Options{Gate: a.gate, Recorder: a.records, Draining: a.draining, Observe: a.metrics.request,
		MaxTensorBytes: 4 * int64(cfg.Limits.MaxRequestBytes), Log: opts.Log})
	if _, secure := cfg.Listen.TLS.Set(); secure {
		var err error
		if a.certs, err = newCertificates(cfg.Listen.TLS, opts.Log); err != nil {
			return nil, err
		}
	}
	if err := a.newGuard(); err != nil {
		return nil, err
	}

	a.load = &loader{cfg: cfg, metrics: a.metrics, log: opts.Log, live: live, changed: a.news.tell, memory: a.memory,
		gpus: newGPUs(cfg.Runtime, opts.Log, a.health), confinement: newConfinement(cfg), settings: a.current.Load, tuner: newTuner(cfg.StateDir, opts.Log),
		probe: updater.ProbeOptions{Budget: 3 * time.Second, Memory: workerMemory, Peak: workerPeak, Waited: waited, MemoryLimitBytes: int64(cfg.Runtime.WorkerMemoryLimit)}}
	a.load.ahead = newPrefetcher(a.load.room)
	a.load.confinement.tell(a.health)
	found, err := findRuntime(cfg)
	if err != nil {
		a.load.missing = err
	} else {
		a.load.library, a.found = found.library, found
	}
	a.load.chosen = make(chan struct{})
	first := a.newEngine(a.load.library)
	a.load.host = first.host
	a.load.now.Store(first)
	a.memory.host = func() worker.HostStats { return a.load.now.Load().host.Stats() }
	if cfg.Runtime.Zygote && a.load.library != "" {
		a.memory.fork = zygoteBytes
		a.memory.zygote.Set(zygoteBytes, 0)
	}
	a.journal = new(stateJournal)
	a.updater, err = updater.New(a.catalog, updater.Options{
		Journal: a.journal, Build: opts.Version + " " + a.load.library + " " + a.load.confinement.verdicts(),
		KeepDir: KeepDir(cfg), KeepCopyBytes: int64(cfg.Updater.KeepCopyLimit),
		DiskFloor: func() int64 { return int64(a.current.Load().State.DiskFloor) },
		ModelsDir: cfg.ModelsDir, Models: settingsOf(cfg).Models,
		Discovered: func(m *updater.Model) {
			c, _ := a.current.Load().Model(m.Name)
			fill(m, c)
		},
		PollInterval: cfg.Updater.PollInterval, SettleTime: cfg.Updater.SettleTime, EmptyGrace: cfg.Updater.EmptyGrace, PollOnly: !cfg.Updater.Watch,
		DrainTimeout: cfg.DrainTimeout, StartLoaders: runtime.GOMAXPROCS(0),
		Read: read, Diagnose: savedmodel.Diagnose, Assert: savedmodel.Assert, Vet: vet,
		Load: a.load.load, Proven: promote, Serve: a.load.serve, Decode: decodeCases(), Room: a.load.room,
		Plainer: a.load.failed, Tune: a.load.tune, Probe: a.load.probe,
		Step: opts.step, OnlyGood: a.safe,
		Log: opts.Log,
	})
	if err != nil {
		return nil, err
	}
	a.oip = a.newOIP()
	a.memory.freed = a.updater.RoomFreed
	a.metrics.registry.MustRegister(&states{a}, &accountMetrics{a}, &streamMetrics{a}, &queueStates{a}, &doorMetrics{a}, &requestLogMetrics{a.records}, a.load.confinement.metric())
	return a, nil
}

func fill(m *updater.Model, c config.Model) {
	m.Policy = updater.Policy{All: c.VersionPolicy.All, Specific: c.VersionPolicy.Specific, Latest: c.VersionPolicy.Latest}
	m.Labels, m.Optional, m.Assert = c.VersionLabels, c.Optional, c.Signatures
	m.DefaultDeadline, m.StrictShapes = c.DefaultDeadline, c.StrictShapes
	m.KeepLastGood, m.Retain = c.KeepLastGood, c.Retain
	m.Compatible, m.AllowNaN = c.Compatibility == config.Compatible, c.NaN == config.Warn
	rollout(m, c)
	// These are no reason to try a refused version again.
	c.VersionLabels, c.Optional, c.Retain, c.KeepLastGood = nil, false, 0, false
	c.Rollout, c.Transition, c.Queue = config.Rollout{}, "", config.ModelQueue{}
	c.RequestLog = config.ModelLog{}
	m.Settings = c
}

func workerMemory(r inference.Runner) (int64, bool) {
	m, ok := r.(*worker.Model)
	if !ok {
		return 0, false
	}
	bytes := m.Stats().Memory.Resident
	return bytes, bytes > 0
}

func workerPeak(r inference.Runner, anew bool) (int64, bool) {
	m, ok := r.(*worker.Model)
	if !ok {
		return 0, false
	}
	return m.Peak(anew)
}

// workerLine logs what a worker wrote: TensorFlow's own lines with their level, anything else as a warning.
func (a *Appliance) workerLine(model string, version int64, line string) {
	level, source, msg := tfrt.ParseLog(line)
	if msg == "" {
		return
	}
	if level < slog.LevelWarn {
		level = slog.LevelDebug // TensorFlow is talkative while all is well
	}
	a.log.Log(context.Background(), level, "tensorflow", "model", model, "version", version, "source", source, "text", msg)
}

// Run opens the doors and serves until ctx ends, then drains and returns nil. Any other end is an error.
func (a *Appliance) Run(ctx context.Context) (err error) {
	opened := a.starting(ctx, openingFiles)
	defer opened()
	if err := a.completeRestore(); err != nil {
		return err
	}
	if err := a.journal.open(a.cfg.StateDir, a.opts.Version, a.log); err != nil && !a.opts.BesideOthers {
		return err
	}
	defer func() {
		if err := a.journal.close(); err != nil {
			a.log.Warn("state file was not closed cleanly", "err", err)
		}
	}()
	ended := a.rest(ctx)
	defer func() { ended(err) }()
	if err := a.openQueue(); err != nil {
		return err
	}
	defer a.closeQueue()
	a.openStream()
	socketless, err := a.doors.open(a.cfg, a.opts.BesideOthers, a.listen)
	if err != nil {
		return err
	}
	a.unheard()
	for _, i := range a.opts.Ignored {
		a.log.Warn("setting has no meaning here and changes nothing", "name", i.Name, "reason", i.Reason)
	}
	if w := a.cfg.OpenWarning(); w != "" {
		a.log.Warn("ports are open", "reason", w)
	}
	if socketless != nil {
		a.log.Warn("operator verbs do not reach this inferd; --listen.control=PATH gives it a socket", "err", socketless)
	}
	if a.load.missing != nil {
		a.log.Error("no TensorFlow runtime, nothing can be served", "err", a.load.missing)
	}
	a.enterCgroup()
	err = runStages(ctx, []stage{
		{"worker host", a.runHosts},
		{"memory", func(ctx context.Context, ready func()) error { ready(); return a.memory.run(ctx) }},
		{"request log", func(ctx context.Context, ready func()) error { ready(); return a.records.Run(ctx) }},
		{"updater", func(ctx context.Context, ready func()) error { ready(); return a.updater.Run(ctx) }},
		{"configuration", func(ctx context.Context, ready func()) error { ready(); return a.watchConfig(ctx) }},
		{"access", func(ctx context.Context, ready func()) error { ready(); return a.watchAccess(ctx) }},
		{"health", func(ctx context.Context, ready func()) error { ready(); return a.watchHealth(ctx) }},
		{"queue", a.runQueue},
		{"doors", a.serve},
		{"canaries", a.runCanaries}, // stopped before the doors drain
		{"service", func(ctx context.Context, ready func()) error { return a.runService(ctx, ready, opened) }},
	})
	a.log.Info("stopped", "err", err)
	return err
}

// doors are the open listeners.
type doors struct {
	grpc, http, grpcSocket, control net.Listener
}

// open binds every configured address, or none. With besideOthers it goes without an operators' socket that was not configured and cannot
// be had, and socketless says why.
func (d *doors) open(cfg *config.Config, besideOthers bool, listen func(name, addr string) (net.Listener, error)) (socketless, err error) {
	defer func() {
		if err != nil {
			for _, l := range d.all() {
				_ = l.Close()
			}
		}
	}()
	for _, o := range []struct {
		l               *net.Listener
		key, name, addr string
	}{{&d.grpc, "listen.grpc", "grpc", cfg.Listen.GRPC}, {&d.http, "listen.http", "http", cfg.Listen.HTTP}} {
		if o.addr == "" {
			continue
		}
		if *o.l, err = listen(o.name, o.addr); err != nil {
			return nil, refusedDoor(cfg, o.key, o.addr, err)
		}
		*o.l = newDoor(limited(*o.l, &cfg.Limits))
	}
	if path := cfg.Listen.GRPCSocket; path != "" {
		if d.grpcSocket, err = control.Listen(path); err != nil {
			return nil, refusedDoor(cfg, "listen.grpc_socket", path, err)
		}
	}
	path := cfg.ControlSocket()
	if d.control, err = control.Listen(path); err != nil {
		if err = refusedDoor(cfg, "listen.control", path, err); besideOthers && cfg.Listen.Control == "" {
			socketless, err = err, nil
		}
		return socketless, err
	}
	d.control = newDoor(d.control)
	return nil, nil
}

// refusedDoor says in one sentence, with the key and where it was set, why a door cannot be opened.
func refusedDoor(cfg *config.Config, key, address string, err error) error {
	var sys syscall.Errno
	switch {
	case errors.Is(err, control.ErrAnswered):
		return cfg.Fault(key, "an inferd answers on %s already; stop that one, or give this one another %s", address, key)
	case errors.Is(err, syscall.EADDRINUSE):
		return cfg.Fault(key, "%s is in use; stop what uses it, or choose another address", address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return cfg.Fault(key, "%s is no address of this machine", address)
	case !errors.As(err, &sys):
		return cfg.Fault(key, "%v", err)
	case sys == syscall.EACCES:
		return cfg.Fault(key, "this user may not open %s; ports below 1024 need CAP_NET_BIND_SERVICE, a socket a directory that may be written", address)
	}
	return cfg.Fault(key, "%s cannot be opened: %v", address, sys)
}

func (d *doors) all() (open []net.Listener) {
	for _, l := range []net.Listener{d.grpc, d.http, d.grpcSocket, d.control} {
		if l != nil {
			open = append(open, l)
		}
	}
	return open
}

// serve runs the servers until ctx ends, then lets requests in flight finish for the drain timeout.
func (a *Appliance) serve(ctx context.Context, ready func()) error {
	front := a.front()
	servers := []*httpDoor{}
	failed := make(chan error, 4)
	var closing atomic.Bool
	serveHTTP := func(l net.Listener, h http.Handler, secure bool) {
		if l == nil {
			return
		}
		s := httpServer(h, &a.cfg.Limits)
		s.ConnContext = access.ConnContext
		s.ErrorLog = slog.NewLogLogger(a.log.Handler(), slog.LevelDebug)
		if l == a.doors.http && !secure {
			plain(s)
		}
		served := make(chan struct{})
		servers = append(servers, &httpDoor{s, l, served, watchVisitors(s)})
		go func() {
			defer close(served)
			serve := s.Serve
			if secure {
				s.TLSConfig = a.certs.server("h2", "http/1.1")
				serve = func(l net.Listener) error { return s.ServeTLS(l, "", "") }
			}
			if err := serve(l); !closing.Load() {
				failed <- err
			}
		}()
	}
	opts := a.rpcOptions()
	calls := rpc.NewHTTP(a.service, opts)
	defer calls.Stop()
	httpTLS, grpcTLS := a.cfg.Listen.TLS.Set()
	serveHTTP(a.doors.http, a.port(front, calls), httpTLS)
	serveHTTP(a.doors.control, control.Handler(control.Options{Status: a.Status, Rescan: a.updater.Rescan, Verbs: a.updater, Reload: a.Reload, Drain: a.Drain, Config: a.showConfig, Backup: a.backup, UseRuntime: a.UseRuntime, Tuning: a, Queue: a.jobs, REST: front, Operators: &a.opers}), false)

	g := grpc.NewServer(append(rpc.ServerOptions(opts), a.grpcDoor(grpcTLS)...)...)
	rpc.Register(g, a.service, opts)
	for _, l := range []net.Listener{a.doors.grpc, a.doors.grpcSocket} {
		if l == nil {
			continue
		}
		go func() {
			if err := g.Serve(l); err != nil {
				failed <- err
			}
		}()
	}
	if a.opts.Ready != nil {
		a.opts.Ready(address(a.doors.grpc), address(a.doors.http))
	}
	a.log.Info("doors are open", "grpc", str(a.doors.grpc), "http", str(a.doors.http), "control", str(a.doors.control))
	ready()

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	closing.Store(true)
	a.handOver(servers)
	a.stop.Do(func() { close(a.draining) })
	a.drain(servers, g)
	return err
}

// HTTPServer is the server that the HTTP doors use, with their limits, over h. Benches put other handlers on it.
func HTTPServer(h http.Handler) *http.Server {
	return httpServer(h, &config.Default().Limits)
}

// drain closes the doors: no new request is taken, those in flight finish, and after the deadline what is left is cut off.
func (a *Appliance) drain(servers []*httpDoor, g *grpc.Server) {
	wait := a.current.Load().DrainTimeout
	a.log.Info("draining", "wait", wait)
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var wg sync.WaitGroup
	for _, s := range servers {
		wg.Go(func() {
			s.drain(ctx)
		})
	}
	if a.stream != nil {
		wg.Go(func() { a.stream.Drain(ctx) })
	}
	wg.Go(func() {
		stopped := context.AfterFunc(ctx, g.Stop)
		g.GracefulStop()
		stopped()
	})
	wg.Wait()
}

// front is the HTTP port: REST, health and metrics.
func (a *Appliance) front() http.Handler {
	mux := http.NewServeMux()
	door := rest.Options{
		MaxRequestBytes: int64(a.cfg.Limits.MaxRequestBytes), StrictJSON: a.cfg.REST.StrictJSON, CORS: a.cfg.REST.CORS, Log: a.log,
		History: a.history, Jobs: a.jobs, Access: a.guard, SlowTimeout: a.cfg.Limits.SlowTimeout,
	}
	v1, v2 := rest.New(a.service, door), a.oipHandler(door)
	for _, path := range a.cfg.Monitoring.Paths {
		mux.Handle("GET "+path, a.forMetrics(a.metrics.handler()))
	}
	report := a.forMetrics(http.HandlerFunc(a.admissionHandler))
	mux.HandleFunc("GET /healthz", a.liveness)
	mux.HandleFunc("GET /readyz", a.readiness)
	if a.stream != nil && a.cfg.Stream.Page {
		mux.Handle("GET /stream", browser.Page())
	}
	mux.Handle("/", v1)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == admissionPath {
			report.ServeHTTP(w, r)
			return
		}
		if a.stream != nil && strings.EqualFold(r.URL.Path, streamPath) {
			a.stream.ServeHTTP(w, r)
			return
		}
		// The mux knows case and redirects unclean paths; TensorFlow Serving's surface is matched as it was sent.
		if len(r.URL.Path) >= 3 && strings.EqualFold(r.URL.Path[:3], "/v1") {
			v1.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/v2/health/ready" && r.URL.Query().Has("model") { // not of the protocol, whose own is /v2/models/M/ready
			a.readiness(w, r)
			return
		}
		if r.URL.Path == "/v2" || strings.HasPrefix(r.URL.Path, "/v2/") {
			v2.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

func (a *Appliance) rpcOptions() rpc.Options {
	return rpc.Options{
		MaxRequestBytes: int64(a.cfg.Limits.MaxRequestBytes), SerializeAsTensorContent: a.cfg.GRPC.TensorContent,
		Reload: a.reloadList, Counters: a.metrics.counters,
		Serving: a.serving, Changed: a.changed, Draining: a.draining, Logger: a.log, Jobs: a.jobs,
		OIP: a.oip, StreamRequests: a.cfg.OIP.StreamRequests,
		Access: a.guard, BodyTimeout: a.cfg.Limits.BodyTimeout, SlowTimeout: a.cfg.Limits.SlowTimeout,
	}
}

func address(l net.Listener) net.Addr {
	if l == nil {
		return nil
	}
	return l.Addr()
}

func str(l net.Listener) string {
	if l == nil {
		return ""
	}
	return l.Addr().String()
}
