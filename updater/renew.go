// renew.go: every live version loaded another way (by another runtime) beside itself, proven, and then put in its own place; all of them or none.
package updater

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/inferd/inferd/inference"
)

// Renewal says how versions are loaded from then on. None of its functions may call the controller.
type Renewal struct {
	Only  string // the model; empty: all
	Why   string // the versions are loaded again, for the log and the history: "loaded with another runtime"
	Build string // as [Options] has it, from then on; empty: as before
	// With makes the context that Options.Load is called with for a renewed version.
	With func(ctx context.Context) context.Context
	// Commit is called on the controller's loop when every live version has been loaded and proven, before they take over: from then on Load, with
	// no such context, loads the new way.
	Commit func() // may be nil
	// Drained is called once what was replaced has ended.
	Drained func()
}

// renewTries is how often a version is loaded that got no processor at low priority.
const renewTries = 3

// renewing is a Renewal under way. It is owned by the loop.
type renewing struct {
	Renewal
	ctx   context.Context
	reply chan verdict // cap 1
	begun bool
	limit int // of loads, before
}

// renewed is one live version with what is to take its place.
type renewed struct {
	m      *model
	v      *version
	old    inference.Servable
	cand   Candidate
	runner inference.Runner
	proof  Proof
	took   time.Duration
}

// Renew loads every live version again, in new workers beside those that serve, and holds each against its golden cases and recorded requests as a
// new version. When all are good they take over, and no request is lost; when one is not, nothing is changed, and the error says which and why.
// Other loads wait meanwhile. Versions on probation are an error: there is nothing to compare any more when both are renewed.
func (c *Controller) Renew(ctx context.Context, r Renewal) (string, error) {
	n := &renewing{Renewal: r, ctx: ctx, reply: make(chan verdict, 1)}
	c.mu.Lock()
	c.ask.renewals = append(c.ask.renewals, n)
	c.mu.Unlock()
	wake(c.wake)
	defer context.AfterFunc(ctx, func() { wake(c.wake) })()
	v := <-n.reply // the loop answers when ctx ends too, once nothing is left of it
	return v.text, v.err
}

// renew begins a renewal, or refuses it.
func (l *loop) renew(n *renewing) {
	if l.renewal != nil {
		n.reply <- verdict{err: unwilling("versions are being loaded again already")}
		return
	}
	l.renewal, n.limit = n, l.loads.limit
	l.loads.limit = 0 // those that run end first, later ones wait
	l.tendRenewal()
}

// tendRenewal loads once no other load runs. It is called after everything that the loop does.
func (l *loop) tendRenewal() {
	n := l.renewal
	if n == nil || n.begun || len(l.loads.running) > 0 && n.ctx.Err() == nil && !l.stopping {
		return
	}
	n.begun = true
	list, err := l.renewable(n.Only)
	switch {
	case l.stopping:
		err = unwilling("inferd stops")
	case n.ctx.Err() != nil:
		err = n.ctx.Err()
	}
	if err != nil {
		l.renewalEnds(verdict{err: err})
		return
	}
	l.jobs++
	ctx, cancel := context.WithCancel(n.ctx)
	stop := context.AfterFunc(l.ctx, cancel)
	go func() {
		defer stop()
		defer cancel()
		err := l.c.renewAll(n.With(ctx), list)
		l.post(func() {
			l.jobs--
			l.renewedAll(n, list, err)
		})
	}()
}

// renewable has every live version, or those of one model.
func (l *loop) renewable(only string) (list []*renewed, err error) {
	if m := l.models[only]; only != "" && (m == nil || m.gone) {
		return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "no model is called %q", only)
	}
	for _, name := range sortedKeys(l.models) {
		m := l.models[name]
		if m.gone || only != "" && name != only {
			continue
		}
		if m.rec.Trial != nil {
			return nil, unwilling("model %s version %d is on probation; wait for its end, or `inferd models promote %s`", m.Name, m.rec.Trial.Number, m.Name)
		}
		for _, v := range m.ordered() {
			if v.state != StateLive || v.servable == nil {
				continue
			}
			if v.doom != nil {
				return nil, unwilling("model %s version %d has been found bad and is about to give way; wait for that", m.Name, v.number)
			}
			cand := Candidate{Model: m.clone(), Number: v.number, Dir: v.dir, Need: m.need(v), Least: m.least(v)}
			if files := v.files; l.o.Journal != nil && files != nil {
				cand.Again = func(ctx context.Context) (string, error) { return l.again(ctx, m, v, files) }
			}
			list = append(list, &renewed{m: m, v: v, old: v.servable, cand: cand})
		}
	}
	return list, nil
}

// renewAll loads and proves them. On an error it has closed what it opened.
func (c *Controller) renewAll(ctx context.Context, list []*renewed) error {
	for _, r := range list {
		if err := c.renewOne(ctx, r); err != nil {
			c.dropRenewed(list)
			return fmt.Errorf("model %s version %d: %w", r.cand.Model.Name, r.cand.Number, err)
		}
	}
	return nil
}

func (c *Controller) renewOne(ctx context.Context, r *renewed) error {
	digest, known, kept := "", (*tree)(nil), ""
	if r.v.files != nil {
		digest, known, kept = r.v.files.get()
	}
	if digest == "" || !c.same(r.cand.Dir, digest) { // where its folder is another by now, the kept copy has the same bytes
		if kept == "" || known == nil {
			return errTorn
		}
		if differs, unread := c.still(ctx, kept, *known); differs != nil || unread != nil {
			return errors.Join(differs, unread)
		}
		r.cand.Dir = kept
	}
	info, err := c.opts.Read(r.cand.Model, r.cand.Dir)
	if err != nil {
		return err
	}
	r.cand.Info = info
	for r.cand.Attempt = 1; ; r.cand.Attempt++ {
		if err = c.tryRenewal(ctx, r); !errors.Is(err, inference.ErrStarved) || r.cand.Attempt == renewTries {
			return err
		}
	}
}

func (c *Controller) tryRenewal(ctx context.Context, r *renewed) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.LoadTimeout)
	defer cancel()
	begun := time.Now()
	runner, proof, err := c.ready(ctx, r.cand, func(string) {})
	if runner == nil {
		return err
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return errors.Join(err, runner.Close())
	}
	r.runner, r.proof, r.took = runner, proof, time.Since(begun)
	return nil
}

// dropRenewed closes what was loaded for nothing.
func (c *Controller) dropRenewed(list []*renewed) {
	for _, r := range list {
		if r.runner == nil {
			continue
		}
		if err := r.runner.Close(); err != nil {
			c.opts.Log.Warn("worker did not end cleanly", "model", r.cand.Model.Name, "version", r.cand.Number, "err", err)
		}
		r.runner = nil
	}
}

// renewedAll lets them take over, if the live versions are still the same.
func (l *loop) renewedAll(n *renewing, list []*renewed, err error) {
	if err == nil && l.stopping {
		err = unwilling("inferd stops")
	}
	if err == nil {
		now, e := l.renewable(n.Only)
		if err = e; err == nil && len(now) != len(list) {
			err = unwilling("versions have come or gone meanwhile; try again")
		}
		for i := range list {
			if err == nil && (now[i].v != list[i].v || now[i].old != list[i].old) {
				err = unwilling("model %s version %d is another by now; try again", list[i].m.Name, list[i].v.number)
			}
		}
	}
	if err != nil {
		l.jobs++
		go func() {
			l.c.dropRenewed(list)
			l.post(func() {
				l.jobs--
				l.renewalEnds(verdict{err: err})
			})
		}()
		return
	}
	if n.Commit != nil {
		n.Commit()
	}
	if n.Build != "" {
		l.o.Build = n.Build
	}
	left := len(list)
	ended := func() {
		if left--; left <= 0 && n.Drained != nil {
			n.Drained()
		}
	}
	for _, r := range list {
		l.takeOver(r, n.Why, ended)
	}
	if len(list) == 0 {
		ended()
	}
	l.renewalEnds(verdict{text: fmt.Sprintf("%d live versions have been loaded, proven and taken over", len(list))})
}

// takeOver puts the renewed version in its own place.
func (l *loop) takeOver(r *renewed, why string, ended func()) {
	m, v := r.m, r.v
	public := &inference.Version{
		Model: m.Name, Number: v.number, Dir: r.cand.Dir, Signatures: r.cand.Info.Signatures, Defs: r.cand.Info.Defs, Unproven: r.proof.Unproven,
		DefaultDeadline: m.DefaultDeadline, StrictShapes: m.StrictShapes,
	}
	servable := l.o.Serve(public, r.runner, r.cand, r.proof)
	was, drained := l.c.catalog.Replace(public, servable)
	v.servable, v.proof, v.took, v.past, v.aside = servable, r.proof, r.took, past{}, nil
	if g := m.rec.good(v.number); g != nil {
		g.Cost = costOf(r.proof)
	}
	l.applyRoute(m)
	l.applyLabels(m)
	l.noteLive(m, "renewed", v.number, why)
	l.log.Info("version that was loaded again has taken over", "model", m.Name, "version", v.number, "reason", why, "took", r.took.String())
	m.dirty = true
	l.publish(m)
	l.jobs++
	go func() {
		select {
		case <-drained:
		case <-l.force:
		}
		err := was.Close()
		l.post(func() {
			l.jobs--
			if err != nil {
				l.log.Warn("worker did not end cleanly", "model", m.Name, "version", v.number, "err", err)
			}
			l.roomFreed(time.Now())
			ended()
		})
	}()
}

// renewalEnds lets other loads go on.
func (l *loop) renewalEnds(v verdict) {
	n := l.renewal
	l.renewal, l.loads.limit = nil, n.limit
	n.reply <- v
}
