// sweep.go: what ends by time: expiry and retention; and a file without its free pages.
package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/bbolt"
)

// Retention is how long what has ended is kept. Zero keeps it.
type Retention struct {
	Finished time.Duration
	Dead     time.Duration
	Sessions time.Duration // without a client
}

// sweepBatch is how many jobs one Sweep ends or forgets, of each kind.
const sweepBatch = 500

// Sweep expires and forgets what is due at now, which the caller has reason to trust. It does a bounded part; more says that there is more.
func (q *Queue) Sweep(ctx context.Context, now time.Time, keep Retention) (expired, forgotten int, more bool, err error) {
	err = q.update(ctx, 0, func(x *tx) error {
		expired, forgotten, more = 0, 0, false
		late, full := upTo(x.expiry, now)
		more = more || full
		for _, k := range late {
			it, err := x.get(binary.BigEndian.Uint64(k[8:]))
			if err != nil || it.State.Final() {
				if err := try(x.expiry.Delete(k)); err != nil {
					return err
				}
				continue
			}
			if it.State == Leased {
				continue // it is being answered
			}
			if err := x.expire(&it, now); err != nil {
				return err
			}
			expired++
		}
		for _, old := range []struct {
			in   *bbolt.Bucket
			keep time.Duration
		}{{x.ends, keep.Finished}, {x.dead, keep.Dead}} {
			if old.keep <= 0 {
				continue
			}
			ended, full := upTo(old.in, now.Add(-old.keep))
			more = more || full
			for _, k := range ended {
				it, err := x.get(binary.BigEndian.Uint64(k[8:]))
				if err != nil || !it.State.Final() {
					if err := try(old.in.Delete(k)); err != nil {
						return err
					}
					continue
				}
				x.q.watching.later(&it)
				if err := x.forget(&it); err != nil {
					return err
				}
				forgotten++
			}
		}
		return x.sweepSessions(now, keep.Sessions)
	}, nil)
	return expired, forgotten, more, err
}

// upTo has copies of the first keys whose time is not after at. full: there are more.
func upTo(b *bbolt.Bucket, at time.Time) (keys [][]byte, full bool) {
	c := b.Cursor()
	for k, _ := c.First(); len(k) == 16 && !keyTime(k).After(at); k, _ = c.Next() {
		if len(keys) == sweepBatch {
			return keys, true
		}
		keys = append(keys, append([]byte{}, k...))
	}
	return keys, false
}

func (x *tx) sweepSessions(now time.Time, keep time.Duration) error {
	if keep <= 0 {
		return nil
	}
	var gone []string
	c := x.Bucket(bucketSessions).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		s, err := x.session(string(k))
		if err != nil || now.Sub(s.Seen) > keep {
			gone = append(gone, string(k))
		}
	}
	for _, id := range gone {
		if err := x.dropSession(id); err != nil {
			return err
		}
	}
	return nil
}

// Compact writes the file anew without its free pages, and replaces it; before and after are its sizes. Writers wait; readers go on until the
// end. progress, when not nil, is called now and then with the bytes written.
func (q *Queue) Compact(ctx context.Context, progress func(done, total int64)) (before, after int64, err error) {
	if q.opts.ReadOnly {
		return 0, 0, fmt.Errorf("queue %s: %w", q.path, ErrReadOnly)
	}
	if e := q.alone(ctx, func() { before, after, err = q.compact(progress) }); e != nil {
		return 0, 0, e
	}
	return before, after, err
}

// compact is Compact on the writer.
func (q *Queue) compact(progress func(done, total int64)) (before, after int64, err error) {
	temp := q.path + ".compacting"
	if err := os.Remove(temp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return 0, 0, err
	}
	if q.degraded.Load() {
		return 0, 0, fmt.Errorf("queue %s: %w", q.path, ErrDegraded)
	}
	before = q.Stats().FileBytes
	fresh, file, err := openBolt(temp, bbolt.Options{Timeout: q.opts.Timeout, NoFreelistSync: true, NoSync: true})
	if err != nil {
		return before, 0, err
	}
	stop := make(chan struct{})
	if progress != nil {
		go func() {
			for tick := time.NewTicker(500 * time.Millisecond); ; {
				select {
				case <-tick.C:
					if st, err := os.Stat(temp); err == nil {
						progress(st.Size(), before)
					}
				case <-stop:
					tick.Stop()
					return
				}
			}
		}()
	}
	err = guard(func() error { return bbolt.Compact(fresh, q.bolt, 8<<20) })
	close(stop)
	if err == nil {
		err = guard(fresh.Sync)
	}
	if err != nil {
		abandon(file)
		_ = os.Remove(temp)
		return before, 0, fmt.Errorf("queue %s could not be written anew, and stays as it was: %w", q.path, err)
	}
	if err := guard(fresh.Close); err != nil {
		return before, 0, err
	}
	q.mu.Lock() // until the new file is open
	defer q.mu.Unlock()
	old := q.bolt
	q.bolt, q.file = nil, nil
	_ = guard(old.Close)
	if err := os.Rename(temp, q.path); err != nil {
		return before, 0, errors.Join(err, q.open(false))
	}
	if err := errors.Join(SyncDir(filepath.Dir(q.path)), q.open(false)); err != nil {
		return before, 0, err
	}
	return before, q.Stats().FileBytes, nil
}
