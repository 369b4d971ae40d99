// controller.go: the controller as others see it. What it does is in loop.go and model.go.
package updater

import (
	"context"
	"os"
	"sync"

	"github.com/inferd/inferd/inference"
)

// Controller makes the catalog match the models. Its methods may be called from any goroutine, before, during and after Run.
type Controller struct {
	opts    Options            // immutable after New
	catalog *inference.Catalog // immutable after New; written to by Run alone
	wake    chan struct{}      // cap 1: there is something in ask

	// watch and looks at the disk are fields so that tests may replace them. immutable after New
	watch  func() (*watcher, error)
	look   func(base string) look
	lookAt func(dir string) rootLook
	print  func(dir string) (Print, error)
	sync   func(f *os.File) error
	syncFS func(dir string) error
	hook   func(step string) // tests end the process at named steps of an update

	mu    sync.Mutex
	ask   ask       // guarded by mu
	ended bool      // guarded by mu
	pub   published // guarded by mu
}

// ask is what other goroutines want of the loop.
type ask struct {
	models []Model // the new configuration, when configure
	config bool
	rescan bool
	freed  bool // memory was
	verbs  []verb

	applies  []applying
	pings    []chan struct{}
	renewals []*renewing
}

// New makes a controller of the catalog. It touches nothing until Run.
func New(catalog *inference.Catalog, opts Options) (*Controller, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Controller{opts: opts, catalog: catalog, wake: make(chan struct{}, 1), watch: newWatcher}
	c.look = func(base string) look { return lookAt(base, opts.Diagnose) }
	c.lookAt = func(dir string) rootLook { return lookAtRoot(dir, opts.Diagnose) }
	c.print = func(dir string) (Print, error) {
		p, _, err := printOf(dir)
		return p, err
	}
	c.sync, c.syncFS, c.hook = fsync, syncFS, opts.Step
	c.pub = published{models: make(map[string]ModelStatus), changed: make(chan struct{})}
	return c, nil
}

// Run serves the models until ctx ends; then it retires every version, waits for held handles (Options.DrainTimeout) and for loads,
// and closes every worker. It is called once, and returns nil. A look at a path that hangs is not waited for: nothing can cancel it, and
// its outcome is dropped.
func (c *Controller) Run(ctx context.Context) error {
	newLoop(c).run(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for _, pong := range c.ask.pings {
		close(pong)
	}
	c.ask.pings = nil
	return nil
}

// Reconfigure replaces the configured models as a whole; models found in the models directory are not touched. It returns an error
// and changes nothing when the list has a fault, and does not wait for the outcome: see Wait.
func (c *Controller) Reconfigure(models []Model) error {
	models, err := checkModels(models)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.ask.models, c.ask.config = models, true
	c.mu.Unlock()
	wake(c.wake)
	return nil
}

// Rescan looks at everything again, now.
func (c *Controller) Rescan() {
	c.mu.Lock()
	c.ask.rescan = true
	c.mu.Unlock()
	wake(c.wake)
}

// Ping returns nil once the loop has answered, or has ended, and ctx's error before that. The loop touches no file, so that no disk holds up
// the answer.
func (c *Controller) Ping(ctx context.Context) error {
	pong := make(chan struct{})
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return nil
	}
	c.ask.pings = append(c.ask.pings, pong)
	c.mu.Unlock()
	wake(c.wake)
	select {
	case <-pong:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// RoomFreed has the versions that wait for memory try again, now.
func (c *Controller) RoomFreed() {
	c.mu.Lock()
	c.ask.freed = true
	c.mu.Unlock()
	wake(c.wake)
}

// Status is everything at this moment. It never waits for a disk or a load.
func (c *Controller) Status() Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pub.status()
}

// Wait returns the first status for which ok holds, or the last one and ctx's error.
func (c *Controller) Wait(ctx context.Context, ok func(Status) bool) (Status, error) {
	for {
		s, changed := c.Watch()
		if ok(s) {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-changed:
		}
	}
}

// Watch is the status and a channel that is closed when it has changed.
func (c *Controller) Watch() (Status, <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pub.status(), c.pub.changed
}

func (c *Controller) takeAsk() ask {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.ask
	c.ask = ask{}
	return a
}

// publish changes the public status.
func (c *Controller) publish(change func(p *published)) {
	c.mu.Lock()
	change(&c.pub)
	close(c.pub.changed)
	c.pub.changed = make(chan struct{})
	c.mu.Unlock()
}
