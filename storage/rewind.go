// rewind.go: makes a queue's file of an earlier moment one to go on with, without answering anything twice.
package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
)

// Rewound is what became of the jobs in a file of an earlier moment.
type Rewound struct {
	Waiting  int `json:"waiting"`  // queued, to be answered
	Finished int `json:"finished"` // ended, with a result or an error to be fetched
	// Compared: what has happened since is known, for the queue's present file could be read; else Why says why not.
	Compared bool   `json:"compared"`
	Why      string `json:"why,omitempty"`
	Answered int    `json:"answered"` // have ended since and been taken over with their results
	Gone     int    `json:"gone"`     // have been acknowledged or forgotten since, and are not brought back
	Later    int    `json:"later"`    // of the present file that are not in the earlier one
	Sessions int    `json:"sessions"` // that are ended
}

// Rewind makes the file at path, a snapshot of an earlier moment that nobody has open, one to go on with.
//
//   - What was leased is queued again.
//   - Sessions are ended: the numbers of their results would be given a second time, and their clients take a number for what they have.
//   - Where present, the queue's file of now, can be read and is a later state of the same file, a job that has ended since does not run
//     again: it has the end, and the result, that it has there; one that was acknowledged since is not brought back.
//   - It becomes a file of its own: a snapshot of before is no earlier state of it.
//
// It may be done again when it was not done to its end. A file that is damaged, or newer, is an error.
func Rewind(ctx context.Context, path, present string, o QueueOptions) (r Rewound, err error) {
	o.ReadOnly = false
	q, err := OpenQueue(path, o)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, q.Close()) }()
	if aside := q.Damaged(); aside != "" {
		return r, fmt.Errorf("queue %s: %w", path, errDamaged)
	}
	if r.Sessions, err = q.endSessions(ctx); err != nil {
		return r, err
	}
	ro := o
	ro.ReadOnly = true
	now, why := OpenQueue(present, ro)
	if why == nil {
		defer func() { _ = now.Close() }() // only read
		r.Compared, why = q.sameLineage(now)
	}
	if why != nil {
		r.Why = why.Error()
	} else if r.Compared {
		if err := q.catchUp(ctx, now, &r); err != nil {
			return r, err
		}
	} else {
		r.Why = "it is not a later state of the same file"
	}
	if err := q.update(ctx, 0, func(x *tx) error { return try(newLineage(x.Tx)) }, nil); err != nil {
		return r, err
	}
	report, err := q.Check(ctx)
	if err != nil {
		return r, err
	}
	if len(report.Faults) > 0 {
		return r, fmt.Errorf("queue %s: %w: %s", path, errDamaged, report.Faults[0])
	}
	r.Waiting, r.Finished = report.Queued+report.Leased, report.Finished+report.Dead
	return r, nil
}

// CheckState reads all of a state file, brings it to the schema of now, and refuses one that is damaged or newer. Nobody has it open.
func CheckState(path, version string) error {
	db, err := Open(path, Options{Version: version})
	if err != nil {
		return err
	}
	damaged := db.Damaged() != ""
	if err := db.Close(); err != nil {
		return err
	}
	if damaged {
		return fmt.Errorf("state file %s: %w", path, errDamaged)
	}
	return nil
}

func (q *Queue) endSessions(ctx context.Context) (n int, err error) {
	for more := true; more; {
		var ids []string
		if err := q.update(ctx, 0, func(x *tx) error {
			ids = ids[:0]
			c := x.Bucket(bucketSessions).Cursor()
			for k, _ := c.First(); k != nil && len(ids) < sweepBatch; k, _ = c.Next() {
				ids = append(ids, string(k))
			}
			for _, id := range ids {
				if err := x.dropSession(id); err != nil {
					return err
				}
			}
			return nil
		}, nil); err != nil {
			return n, err
		}
		n, more = n+len(ids), len(ids) == sweepBatch
	}
	return n, nil
}

// sameLineage reports whether now is another state of q's file.
func (q *Queue) sameLineage(now *Queue) (bool, error) {
	read := func(q *Queue) (id []byte, err error) {
		err = q.view(func(x *tx) error {
			id = bytes.Clone(x.Bucket(bucketMeta).Get(keyLineage))
			return nil
		})
		return id, err
	}
	own, err := read(q)
	if err != nil {
		return false, err
	}
	other, err := read(now)
	return err == nil && len(own) > 0 && bytes.Equal(own, other), err
}

// catchUp lets every job that has ended in now end in q too.
func (q *Queue) catchUp(ctx context.Context, now *Queue, r *Rewound) error {
	var last, newest uint64
	sequence := func(q *Queue, seq *uint64) error {
		return q.view(func(x *tx) error {
			*seq = x.jobs.Sequence()
			return nil
		})
	}
	if err := errors.Join(sequence(q, &last), sequence(now, &newest)); err != nil {
		return err
	}
	for after, batch := uint64(0), 1000; ; {
		jobs, err := q.List(Filter{After: after, Limit: batch})
		if err != nil {
			return err
		}
		for i := range jobs {
			if err := q.follow(ctx, now, &jobs[i], r); err != nil {
				return err
			}
		}
		if len(jobs) < batch {
			break
		}
		after = jobs[len(jobs)-1].Seq
	}
	for after := last; ; {
		later, err := now.List(Filter{After: after, Limit: 1000})
		if err != nil {
			return err
		}
		if r.Later += len(later); len(later) < 1000 {
			break
		}
		after = later[len(later)-1].Seq
	}
	if newest <= last {
		return nil
	}
	return q.update(ctx, 0, func(x *tx) error { return try(x.jobs.SetSequence(newest)) }, nil) // a number names one job only
}

// follow gives q's job the end that it has in now.
func (q *Queue) follow(ctx context.Context, now *Queue, it *Item, r *Rewound) error {
	result, p, err := now.Result(it.ID)
	switch {
	case errors.Is(err, ErrNoJob):
		r.Gone++
		return q.update(ctx, 0, func(x *tx) error {
			it, err := x.find(it.ID)
			if err == nil && !it.State.Final() {
				err = x.end(&it, Cancelled, it.Submitted, true)
			}
			if err != nil {
				return err
			}
			return x.forget(&it)
		}, nil)
	case err != nil && p.ID == "":
		return nil //nolint:nilerr // its record there cannot be read: it is as it was in the earlier file
	case !p.State.Final() || it.State.Final():
		return nil
	case err != nil:
		p.State, p.Code, p.Reason, p.Error = Failed, 15, "disk", "it was answered, and its result in the queue's file is damaged" // it does not run again
	}
	stored, packed := q.pack.pack(result)
	r.Answered++
	return q.update(ctx, packed.stored, func(x *tx) error {
		it, err := x.find(it.ID)
		if err != nil {
			return err
		}
		it.AnsweredBy, it.Code, it.Reason, it.Error = p.AnsweredBy, p.Code, p.Reason, p.Error
		it.Attempts, it.Deaths, it.Interruptions = p.Attempts, p.Deaths, p.Interruptions
		if p.State == Done {
			it.result = packed
			x.mem.bytes += packed.stored
			if err := try(putBody(x.bodies, it.Seq, partResult, stored)); err != nil {
				return err
			}
		}
		return x.end(&it, p.State, p.Finished, p.State != Done && p.payload.stored > 0)
	}, nil)
}
