// catalog.go: the set of live versions, where models meet requests.
package inference

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Catalog holds the published versions and the public state of every version ever seen. A read is one map lookup and a pin; all
// writes come from the updater.
type Catalog struct {
	mu     sync.RWMutex
	models map[string]*entry // guarded by mu
}

type entry struct {
	live    map[int64]*live // published versions
	primary *live           // the one for requests that name none, nil when there is none; see resolve
	canary  *live           // the one for a share of these, nil when there is none
	route   *route          // nil: the highest
	status  map[int64]VersionStatus
	labels  map[string]int64
}

// live is one published version. The catalog holds the first pin.
type live struct {
	version  *Version
	servable Servable
	pins     atomic.Int64
	drained  chan struct{}
}

func (v *live) pin() bool {
	for n := v.pins.Load(); n > 0; n = v.pins.Load() {
		if v.pins.CompareAndSwap(n, n+1) {
			return true
		}
	}
	return false // retired; the caller looks up again
}

func (v *live) unpin() {
	if v.pins.Add(-1) == 0 {
		close(v.drained)
	}
}

// NewCatalog is an empty catalog.
func NewCatalog() *Catalog { return &Catalog{models: make(map[string]*entry)} }

// Handle pins one version until Release.
type Handle struct {
	live     *live
	released atomic.Bool
}

// Version is what the handle pins.
func (h *Handle) Version() *Version { return h.live.version }

// Servable answers requests for the version.
func (h *Handle) Servable() Servable { return h.live.servable }

// Release drops the pin. Calling it again does nothing.
func (h *Handle) Release() {
	if h.released.CompareAndSwap(false, true) {
		h.live.unpin()
	}
}

// Acquire pins the version that spec names. The errors have TensorFlow Serving's codes and texts.
func (c *Catalog) Acquire(spec Spec) (*Handle, error) {
	if spec.Model == "" {
		return nil, Errorf(InvalidArgument, ReasonModel, "ModelSpec has no name specified.")
	}
	for {
		v, err := c.lookup(spec)
		if err != nil {
			return nil, err
		}
		if v.pin() {
			return &Handle{live: v}, nil
		}
	}
}

func (c *Catalog) lookup(spec Spec) (*live, error) {
	found, canary, split, err := c.find(spec)
	if canary != nil && split.canary(spec.Model, spec.Keys) {
		return canary, nil
	}
	return found, err
}

// find is lookup but for the choice between found and canary, which is made without the lock where canary is not nil.
func (c *Catalog) find(spec Spec) (found, canary *live, split *route, err error) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.models[spec.Model]
	number, specific := spec.Version, spec.HasVersion
	if spec.Label != "" {
		var ok bool
		if e != nil {
			number, ok = e.labels[spec.Label]
		}
		if !ok {
			return nil, nil, nil, Errorf(InvalidArgument, ReasonModel, "Unrecognized servable version label: %s", spec.Label)
		}
		specific = true
	}
	if e != nil && !specific && e.primary != nil {
		if e.canary != nil && !spec.Steady {
			return e.primary, e.canary, e.route, nil
		}
		return e.primary, nil, nil, nil
	}
	if e != nil && specific && e.live[number] != nil {
		return e.live[number], nil, nil, nil
	}
	if specific {
		return nil, nil, nil, Errorf(NotFound, ReasonModel, "Servable not found for request: Specific(%s, %d)", spec.Model, number)
	}
	return nil, nil, nil, Errorf(NotFound, ReasonModel, "Servable not found for request: Latest(%s)", spec.Model)
}

// entry returns the model's entry, made when absent. mu is held.
func (c *Catalog) entry(model string) *entry {
	e := c.models[model]
	if e == nil {
		e = &entry{live: make(map[int64]*live), status: make(map[int64]VersionStatus)}
		c.models[model] = e
	}
	return e
}

// Publish makes v available and answers with s from now on. A version number is published at most once at a time: publishing it
// again is a bug of the caller and panics (see [Catalog.Replace]).
func (c *Catalog) Publish(v *Version, s Servable) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.models[v.Model]; e != nil && e.live[v.Number] != nil {
		panic(fmt.Sprintf("inference: version %d of model %q published twice", v.Number, v.Model))
	}
	c.publish(v, s)
}

// Replace publishes v in place of the published version of the same number, with no moment in between at which neither answers. It
// returns what [Catalog.Retire] would for the old one, nils when there was none.
func (c *Catalog) Replace(v *Version, s Servable) (Servable, <-chan struct{}) {
	c.mu.Lock()
	old := c.entry(v.Model).live[v.Number]
	c.publish(v, s)
	c.mu.Unlock()
	if old == nil {
		return nil, nil
	}
	old.unpin()
	return old.servable, old.drained
}

// publish makes v available. mu is held.
func (c *Catalog) publish(v *Version, s Servable) {
	l := &live{version: v, servable: s, drained: make(chan struct{})}
	l.pins.Store(1)
	e := c.entry(v.Model)
	e.live[v.Number] = l
	e.resolve()
	e.status[v.Number] = VersionStatus{Version: v.Number, State: StateAvailable, Message: v.Unproven, Since: time.Now()}
}

// Retire stops handing the version out. The channel is closed when the last handle is released; the caller then closes the servable.
// It returns nils when the version is not published.
func (c *Catalog) Retire(model string, number int64) (Servable, <-chan struct{}) {
	c.mu.Lock()
	e := c.models[model]
	if e == nil || e.live[number] == nil {
		c.mu.Unlock()
		return nil, nil
	}
	l := e.live[number]
	delete(e.live, number)
	e.resolve()
	e.status[number] = VersionStatus{Version: number, State: StateUnloading, Since: time.Now()}
	c.mu.Unlock()
	l.unpin()
	return l.servable, l.drained
}

// SetStatus records the public state of a version. A number in state StateUnknown is forgotten.
func (c *Catalog) SetStatus(model string, s VersionStatus) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(model)
	if s.State == StateUnknown {
		delete(e.status, s.Version)
		return
	}
	if s.Since.IsZero() {
		s.Since = time.Now()
	}
	e.status[s.Version] = s
}

// SetLabels replaces the model's labels.
func (c *Catalog) SetLabels(model string, labels map[string]int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entry(model).labels = maps.Clone(labels)
}

// Add makes the model known before any version of it has been seen.
func (c *Catalog) Add(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entry(model)
}

// Remove forgets the model. Its versions have been retired before.
func (c *Catalog) Remove(model string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.models, model)
}

// Status has every known version of the model, highest first; known is false when nobody has heard of the model.
func (c *Catalog) Status(model string) (versions []VersionStatus, known bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.models[model]
	if e == nil {
		return nil, false
	}
	versions = slices.Collect(maps.Values(e.status))
	slices.SortFunc(versions, func(a, b VersionStatus) int { return cmp.Compare(b.Version, a.Version) })
	return versions, true
}

// Label is the number behind a label of the model.
func (c *Catalog) Label(model, label string) (int64, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if e := c.models[model]; e != nil {
		n, ok := e.labels[label]
		return n, ok
	}
	return 0, false
}

// Models has every known model, sorted.
func (c *Catalog) Models() []string {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return slices.Sorted(maps.Keys(c.models))
}

// Available reports whether at least one version of the model is published.
func (c *Catalog) Available(model string) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	e := c.models[model]
	return e != nil && e.primary != nil
}
