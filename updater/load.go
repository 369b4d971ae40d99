// load.go: from a settled folder to a published version: check, load, made-up run, publish.
package updater

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
)

// tornDigest stands for files that nobody has looked at since they changed during a load.
const tornDigest = "torn"

// errTorn: the files were changed between the check and the end of the load.
var errTorn = errors.New("its files changed while it was being loaded")

// checked is the outcome of a check.
type checked struct {
	info    *savedmodel.Info
	broken  error  // not whole (yet)
	refused error  // whole, but not what the configuration asserts
	differs error  // not the bytes that were good
	tree    *tree  // of the folder, when it was compared and is the same
	print   string // of a kept copy, from before it was compared: a restored one has other inodes
}

// startCheck reads the SavedModel on a goroutine of its own, in a look's slot: it waits for the same disk.
func (l *loop) startCheck(m *model, v *version) {
	m.checking = v
	l.set(m, v, StateValidating, "")
	digest, want, config := v.sight.Print.Digest, m.Assert, m.clone()
	final := v.kept || v.sight.quiet(m.lookedAt) >= l.o.StallTime
	var known *tree
	paced := l.serving()
	if g := m.rec.good(v.number); g != nil && (g.Dir == v.dir || v.kept) {
		known = &g.Tree
	}
	var j *job
	j = l.looks.add(m.turn(v), func() {
		go func() {
			var c checked
			if known != nil {
				if p, err := l.c.print(v.dir); err == nil && v.kept {
					c.print = p.Digest
				}
				if t, err := readTree(l.ctx, v.dir, paced, nil); err != nil {
					c.differs = err
				} else if c.differs = known.difference(t); c.differs == nil {
					c.tree = &t
				}
			}
			c.info, c.broken = l.o.Read(config, v.dir)
			switch {
			case c.broken != nil && !errors.Is(c.broken, savedmodel.ErrIncomplete) && !hopeless(c.broken):
				// A folder without a graph may hold something that can be named, with the command that makes it right.
				if says := l.o.Diagnose(v.dir); says != "" {
					c.broken = &inference.Error{Code: codeOr(c.broken, inference.FailedPrecondition), Msg: says, Err: c.broken}
				}
			case c.broken == nil && want != nil:
				c.refused = l.o.Assert(c.info, want)
			}
			c.vet(&l.o, config, v.dir)
			l.post(func() {
				l.looks.end(j)
				m.checking = nil
				if !l.stopping {
					l.checked(m, v, c, digest, final)
				}
			})
		}()
	})
}

func (l *loop) checked(m *model, v *version, c checked, digest string, final bool) {
	now := time.Now()
	c.compare(l, m, v)
	if g := m.rec.good(v.number); v.kept && g != nil && g.Kept == v.dir && c.tree != nil && c.print != "" && v.sight.Print.Digest == digest {
		digest = c.print // its bytes are the ones that were kept, wherever they were put back from
		v.sight.Print.Digest, g.KeptPrint = digest, digest
	}
	switch {
	case !v.present || m.gone:
		l.set(m, v, StateSeen, "")
		if !v.present {
			l.drop(m, v)
		}
	case v.sight.Print.Digest != digest:
		l.reset(m, v, "its files are still changing")
	case c.differs != nil:
		l.refuse(m, v, inference.FailedPrecondition, fmt.Sprintf("its files are not those that served before: %v; restore them, or take them as they are with `inferd models retry %s %d`",
			c.differs, m.Name, v.number))
	case c.broken != nil && (final || hopeless(c.broken)):
		l.refuse(m, v, codeOr(c.broken, inference.FailedPrecondition), message(c.broken))
	case c.broken != nil:
		v.tried, v.incomplete, v.final = digest, message(c.broken), final
		l.set(m, v, StateSettling, "waiting for the rest: "+v.incomplete)
		l.log.Info("version is not whole yet", "model", m.Name, "version", v.number, "err", v.incomplete, "instead", m.servingText())
		if t := m.lookedAt.Add(l.o.StallTime - v.sight.quiet(m.lookedAt)); t.Before(m.due) {
			m.due = t
		}
	case c.refused != nil:
		l.refuse(m, v, inference.FailedPrecondition, message(c.refused))
	default:
		v.tried, v.incomplete, v.info, v.tree = digest, "", c.info, c.tree
		l.set(m, v, StateSeen, "waiting for its turn")
	}
	l.tend(m, now)
}

// hopeless reports whether a folder that reads like that is as whole as it will be.
func hopeless(err error) bool {
	return errors.Is(err, savedmodel.ErrTags) || errors.Is(err, savedmodel.ErrUnsupported)
}

// message is the text of an error for an operator.
func message(err error) string {
	var e *inference.Error
	if !errors.As(err, &e) {
		return err.Error()
	}
	text := e.Msg
	if e.Code != inference.OK && e.Code != inference.FailedPrecondition {
		text = e.Code.String() + ": " + text
	}
	if where, ok := strings.CutSuffix(err.Error(), e.Error()); ok {
		return where + text // what it happened to, in the words of those who passed it on
	}
	return text
}

// outcome is what a loader hands back. Either err or runner is set.
type outcome struct {
	runner    inference.Runner
	proof     Proof
	took      time.Duration
	err       error
	transient bool // time may cure err
}

// startLoad queues the load.
func (l *loop) startLoad(m *model, v *version) {
	v.attempts++
	cand := Candidate{Model: m.clone(), Number: v.number, Dir: v.dir, Info: v.info, Attempt: v.attempts,
		First: len(m.live()) == 0, Need: m.need(v), Least: m.least(v)}
	digest := v.sight.Print.Digest
	files := &loadedFiles{digest: digest}
	if l.o.Journal != nil {
		cand.Again = func(ctx context.Context) (string, error) { return l.again(ctx, m, v, files) }
	}
	need, ask := l.roomFor(m, v)
	ask = ask && m.cleared != v
	v.cramped = false
	ctx, cancel := context.WithCancel(l.ctx)
	m.loading = v
	begun := false
	var j *job
	j = l.loads.add(m.turn(v), func() {
		begun = true
		l.jobs++
		l.set(m, v, StateLoading, "")
		l.publish(m)
		written := l.beginTrying(m, v)
		l.log.Info("version loads", "model", m.Name, "version", v.number, "path", v.dir, "attempt", v.attempts)
		go func() {
			<-written // a load that ends inferd is known of at the next start
			l.c.hook("trying")
			var out outcome
			if free, why, ok := l.c.free(ask); ok && need > free {
				out.err = &NoRoom{need, free, why}
			} else {
				out = l.c.load(ctx, cand, digest, func(reason string) {
					l.post(func() {
						if m.loading == v {
							l.set(m, v, StateWarming, reason)
							l.publish(m)
						}
					})
				})
			}
			cancelled := ctx.Err() != nil
			cancel()
			l.post(func() {
				l.jobs--
				l.loads.end(j)
				m.loading, m.cancel = nil, nil
				v.files = files
				l.loaded(m, v, cand, digest, out, cancelled)
			})
		}()
	})
	m.cancel = func() {
		cancel()
		if !begun { // it never left the queue
			l.loads.end(j)
			m.loading, m.cancel = nil, nil
			v.attempts--
			l.set(m, v, StateSeen, "")
			if !v.present {
				l.drop(m, v)
			}
		}
	}
	l.set(m, v, StateLoading, "waiting for a free loader")
}

// load runs on a loader. On an error it has closed what it opened.
func (c *Controller) load(ctx context.Context, cand Candidate, digest string, warming func(reason string)) (out outcome) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.LoadTimeout)
	defer cancel()
	begun := time.Now()
	if !c.same(cand.Dir, digest) {
		return outcome{err: errTorn}
	}
	r, proof, err := c.ready(ctx, cand, warming)
	if r == nil {
		if !c.same(cand.Dir, digest) {
			return outcome{err: errTorn}
		}
		e := inference.AsError(err)
		return outcome{err: err, transient: !died(err) &&
			(e.Code == inference.Unavailable || e.Code == inference.ResourceExhausted || e.Code == inference.Aborted)}
	}
	// The comparison comes after the run, for tables and other assets may be read as late as that.
	if !c.same(cand.Dir, digest) {
		err = errTorn
	}
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		if e := r.Close(); e != nil {
			c.opts.Log.Warn("worker did not end cleanly", "model", cand.Model.Name, "version", cand.Number, "err", e)
		}
		return outcome{err: err, transient: errors.Is(err, inference.ErrStarved)}
	}
	return outcome{runner: r, proof: proof, took: time.Since(begun)}
}

// same reports whether the folder's files are those that were checked.
func (c *Controller) same(dir, digest string) bool {
	p, err := c.print(dir)
	return err == nil && p.Digest == digest
}

// loaded publishes, refuses, or tries again.
func (l *loop) loaded(m *model, v *version, cand Candidate, digest string, out outcome, cancelled bool) {
	now := time.Now()
	if !cancelled && !l.stopping {
		out.compareAgain(l, m, v, cand.Info)
	}
	m.rec.Trying = nil
	var short *NoRoom
	l.c.hook("loaded")
	switch {
	case cancelled || l.stopping || m.gone || !v.present:
		if out.runner != nil {
			l.closeRunner(m, v, out.runner)
		}
		l.note(m, "stopped", v.number, "the load was called off")
		v.attempts = max(0, v.attempts-1)
		l.set(m, v, StateSeen, "")
		if !v.present && !l.stopping {
			l.drop(m, v)
		}
	case errors.Is(out.err, errTorn) && v.kept:
		l.refuse(m, v, inference.DataLoss, "its files are not those that were kept")
	case errors.Is(out.err, errTorn):
		l.log.Info("version's files changed during the load: it is loaded again when they have settled", "model", m.Name, "version", v.number)
		l.reset(m, v, out.err.Error())
		v.sight = sight{Print: Print{Digest: tornDigest}, Since: now} // whatever the next look finds is new
		m.hint(l, now)
	case errors.As(out.err, &short):
		l.cramped(m, v, short, now)
	case out.transient && v.attempts <= l.o.Retries && m.cleared != v:
		wait := l.o.RetryFirst << min(v.attempts-1, 20)
		v.retryAt = now.Add(wait)
		reason := fmt.Sprintf("load %d of at most %d failed: %s; tried again in %v", v.attempts, l.o.Retries+1, message(out.err), wait)
		l.set(m, v, StateLoading, reason)
		l.note(m, "failed", v.number, reason)
		v.state = StateSeen // not by set: the public state stays LOADING, as TensorFlow Serving's does between retries
		l.log.Warn("version did not load: it is tried again", "model", m.Name, "version", v.number, "err", out.err, "wait", wait.String(), "instead", m.servingText())
	case errors.Is(out.err, inference.ErrNoRuntime):
		l.refuseFor(m, v, inference.FailedPrecondition, "it cannot be loaded: "+message(out.err), "nothing is wrong with the version: give inferd a runtime and start it again")
	case errors.Is(out.err, inference.ErrUnconfined):
		l.refuseFor(m, v, inference.FailedPrecondition, "it is not loaded: "+message(out.err), "nothing is wrong with the version: use a kernel with Landlock, or write runtime.require_sandbox: false, and start inferd again")
	case out.err != nil:
		l.refuse(m, v, inference.AsError(out.err).Code, "it could not be loaded and run: "+message(out.err))
	default:
		l.publishVersion(m, v, cand, digest, out)
	}
	if !l.stopping {
		l.tend(m, now)
	}
}

func (l *loop) closeRunner(m *model, v *version, r inference.Runner) {
	l.jobs++
	go func() {
		err := r.Close()
		l.post(func() {
			l.jobs--
			if err != nil {
				l.log.Warn("worker did not end cleanly", "model", m.Name, "version", v.number, "err", err)
			}
		})
	}()
}

// publishVersion makes the version live. Where another folder serves the same number it takes its place.
func (l *loop) publishVersion(m *model, v *version, cand Candidate, digest string, out outcome) {
	public := &inference.Version{
		Model: m.Name, Number: v.number, Dir: v.dir, Signatures: cand.Info.Signatures, Defs: cand.Info.Defs, Unproven: out.proof.Unproven,
		DefaultDeadline: cand.Model.DefaultDeadline, StrictShapes: cand.Model.StrictShapes,
	}
	servable := l.o.Serve(public, out.runner, cand, out.proof)
	dearer := m.dearer(v, out.proof)
	v.loaded, v.took, v.proof = digest, out.took, out.proof
	v.incomplete, v.info, v.changed = "", nil, false
	if g := m.rec.good(v.number); g != nil && v.tree != nil {
		v.files.set(g)
		g.Cost = costOf(out.proof) // the machine or the runtime may be another since
	}
	v.sealed, v.torn, v.unsealed, v.sealAt = l.o.Journal == nil || v.tree != nil, false, false, time.Time{}
	old := m.serving(v.number)
	v.servable, v.past, v.aside, v.alarm, v.crampedPrint = servable, past{}, nil, "", ""
	l.beginTrial(m, v, servable, old)
	m.cleared, m.stepped = nil, nil
	if h := m.rec.Haven; h != nil && *h != v.number {
		m.rec.Haven = nil // from now on it is v, or what v's trial keeps
	}
	l.applyRoute(m)
	if old == nil {
		l.c.catalog.Publish(public, servable)
	} else {
		s, drained := l.c.catalog.Replace(public, servable)
		l.set(m, old, StateDraining, "another folder serves this number now")
		l.drain(m, old, s, drained)
	}
	reason := joinReasons(joinReasons(out.proof.Unproven, dearer), strings.Join(cand.Info.Warnings, "; "))
	if v.kept {
		reason = joinReasons(reason, m.keptText(v))
	}
	l.set(m, v, StateLive, reason)
	l.noteLive(m, "published", v.number, reason)
	l.c.hook("published")
	l.log.Info("version live", "model", m.Name, "version", v.number, "took", out.took.String(), "bytes", v.sight.Print.Bytes)
	if out.proof.Unproven != "" {
		l.log.Warn("version is live without proof", "model", m.Name, "version", v.number, "err", out.proof.Unproven)
	}
	if dearer != "" {
		l.log.Warn("version costs more than the one that serves", "model", m.Name, "version", v.number, "reason", dearer)
	}
	for _, key := range sortedKeys(cand.Info.Refused) {
		l.log.Warn("signature cannot be served", "model", m.Name, "version", v.number, "signature", key, "reason", cand.Info.Refused[key])
	}
	for _, w := range cand.Info.Warnings {
		l.log.Warn("version does less than is configured", "model", m.Name, "version", v.number, "reason", w)
	}
	for _, w := range out.proof.Warnings() {
		l.log.Warn("version gave odd numbers before it served", "model", m.Name, "version", v.number, "err", w)
	}
	l.applyLabels(m)
	if v.sealed {
		l.startKeep(m)
	}
}
