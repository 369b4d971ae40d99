// inline.go: a request that comes alone is run by the goroutine that brings it.
package batch

import "time"

// A request that finds nothing waiting and nothing in flight would be handed to a goroutine, that to the worker, and all the way back. On a machine
// with nothing else to do each hand-over is a processor that has to be woken. So it is begun where it is; only when it turns out to take longer than
// the runner polls does a goroutine take over, for the caller may have to leave at its deadline.

// inlineBytes bounds what is copied to the worker before the caller can look at its deadline.
const inlineBytes = 256 << 10

// alone reports whether the call may be run by its caller. mu is held; the call is not queued yet.
func (b *Batcher) alone(cs []*call) bool {
	return b.beginner != nil && len(cs) == 1 && cs[0].bytes <= inlineBytes && b.queued == 0 && b.inflight == 0 && b.suspects.size.Load() == 0
}

// inline begins r and, where it is short, ends it.
func (b *Batcher) inline(r *run) {
	if !r.build(&b.limits, b.opts.MaxQueuedBytes) {
		r.unbuild()
		go b.execute(r) // finds the same
		return
	}
	began := time.Now()
	begun := b.beginner.Begin(&r.Run)
	switch {
	case begun == nil:
		r.unbuild()
		go b.execute(r)
	case begun.Poll():
		defer b.pending.Done()
		result, err := begun.Wait(r.ctx)
		b.conclude(r, began, result, err, false)
	default:
		go func() {
			result, err := begun.Wait(r.ctx)
			next := b.conclude(r, began, result, err, true)
			b.pending.Done()
			b.execute(next)
		}()
	}
}
