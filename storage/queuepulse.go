// queuepulse.go: whether the writer lives, and whether its disk answers. The one is cured by a restart, the other is not.
package storage

import (
	"context"
	"time"
)

// stalledAfter is how long one transaction may take before no more is taken: what waits for it may wait for ever.
const stalledAfter = 20 * time.Second

// Stalled is how long the disk has owed the writer the end of a transaction, 0 when it owes none. Writing the file anew takes as long as it takes.
func (q *Queue) Stalled() time.Duration {
	since := q.since.Load()
	if since == 0 {
		return 0
	}
	return max(0, Uptime()-time.Duration(since))
}

// Ping returns nil when the writer has answered, is at the file, or has ended as it should, and ctx's error otherwise. It does no I/O, and waits
// for none: a writer that waits for its disk is alive.
func (q *Queue) Ping(ctx context.Context) error {
	pong := make(chan struct{})
	ask := func() { close(pong) }
	tick := time.NewTicker(10 * time.Millisecond) // nothing tells when it begins to be busy
	defer tick.Stop()
	for {
		if q.busy.Load() {
			return nil
		}
		select {
		case q.tasks <- ask:
			<-pong
			return nil
		case <-q.ended:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}
