// outbox.go: sessions, and the results that they have not acknowledged.
package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// maxSessions bounds the sessions of a file.
const maxSessions = 100_000

// Session is a client that comes back for its results.
type Session struct {
	ID            string
	Created, Seen time.Time
	Last          uint64 // the number of its newest result
	Acked         uint64 // every result up to this one is forgotten
}

func outKey(session string, out uint64) []byte {
	return binary.BigEndian.AppendUint64([]byte(session), out)
}

func appendSession(b []byte, s *Session) []byte {
	b = binary.AppendVarint(binary.AppendVarint(b, stamp(s.Created)), stamp(s.Seen))
	return binary.AppendUvarint(binary.AppendUvarint(b, s.Last), s.Acked)
}

func parseSession(b []byte, id string) (Session, error) {
	r := itemReader{b: b}
	s := Session{ID: id, Created: fromStamp(r.int()), Seen: fromStamp(r.int()), Last: r.uint(), Acked: r.uint()}
	if r.bad || len(r.b) > 0 || s.Acked > s.Last {
		return Session{}, errRecord
	}
	return s, nil
}

func (x *tx) session(id string) (Session, error) {
	key := []byte(id)
	v := x.Bucket(bucketSessions).Get(key)
	if id == "" || v == nil {
		return Session{}, ErrNoSession
	}
	b, err := unsealed(key, v)
	if err != nil {
		return Session{}, fmt.Errorf("%w: its record is damaged", ErrNoSession)
	}
	return parseSession(b, id)
}

func (x *tx) putSession(s *Session) error {
	key := []byte(s.ID)
	return try(x.Bucket(bucketSessions).Put(key, seal(key, appendSession(nil, s))))
}

// send gives an ended job its number in the outbox of its session, if that is still there.
func (x *tx) send(it *Item) error {
	s, err := x.session(it.Session)
	if err != nil {
		return nil // dropped: the job can still be read by its id
	}
	s.Last++
	it.Out = s.Last
	if err := try(x.Bucket(bucketOutbox).Put(outKey(s.ID, s.Last), seqKey(it.Seq))); err != nil {
		return err
	}
	return x.putSession(&s)
}

// NewSession begins the session with the id, which the caller has made so that it cannot be guessed; one that is there already is left as it
// is.
func (q *Queue) NewSession(ctx context.Context, id string, at time.Time) error {
	if len(id) < 16 || len(id) > MaxText {
		return fmt.Errorf("%w: a session's id of %d bytes", ErrTooLarge, len(id))
	}
	return q.update(ctx, 0, func(x *tx) error {
		sessions := x.Bucket(bucketSessions)
		if sessions.Get([]byte(id)) != nil {
			return nil
		}
		n := sessions.Sequence() // it counts them
		if n >= maxSessions {
			return fmt.Errorf("%w: %d sessions are kept", ErrFull, n)
		}
		return try(sessions.SetSequence(n+1), x.putSession(&Session{ID: id, Created: at, Seen: at}))
	}, nil)
}

// Session is the session with the id, or ErrNoSession.
func (q *Queue) Session(id string) (Session, error) {
	var s Session
	err := q.view(func(x *tx) (err error) {
		s, err = x.session(id)
		return err
	})
	return s, err
}

// TouchSession notes that the session's client was there.
func (q *Queue) TouchSession(ctx context.Context, id string, at time.Time) error {
	return q.update(ctx, 0, func(x *tx) error {
		s, err := x.session(id)
		if err != nil {
			return err
		}
		if at.After(s.Seen) {
			s.Seen = at
		}
		return x.putSession(&s)
	}, nil)
}

// DropSession forgets the session. Its jobs can still be read by their ids, as long as any other.
func (q *Queue) DropSession(ctx context.Context, id string) error {
	return q.update(ctx, 0, func(x *tx) error {
		if _, err := x.session(id); err != nil {
			return err
		}
		return x.dropSession(id)
	}, nil)
}

func (x *tx) dropSession(id string) error {
	outbox, sessions := x.Bucket(bucketOutbox), x.Bucket(bucketSessions)
	var keys [][]byte
	c := outbox.Cursor()
	for k, _ := c.Seek(outKey(id, 0)); len(k) == len(id)+8 && string(k[:len(id)]) == id; k, _ = c.Next() {
		keys = append(keys, append([]byte{}, k...))
	}
	for _, k := range keys {
		if err := try(outbox.Delete(k)); err != nil {
			return err
		}
	}
	if n := sessions.Sequence(); n > 0 {
		if err := try(sessions.SetSequence(n - 1)); err != nil {
			return err
		}
	}
	return try(sessions.Delete([]byte(id)))
}

// Sent is one result in an outbox. Result is nil unless the job is Done.
type Sent struct {
	Item
	Result []byte
}

// Outbox has the session's results with numbers above after, in order: at most limit, and of at most maxBytes together (one may have more).
// A result that cannot be read any more has state Failed and says so.
func (q *Queue) Outbox(session string, after uint64, limit int, maxBytes int64) ([]Sent, error) {
	var out []Sent
	err := q.view(func(x *tx) error {
		out = nil
		if _, err := x.session(session); err != nil {
			return err
		}
		var bytes int64
		c := x.Bucket(bucketOutbox).Cursor()
		for k, v := c.Seek(outKey(session, after+1)); len(k) == len(session)+8 && string(k[:len(session)]) == session && len(out) < limit; k, v = c.Next() {
			if len(v) != 8 {
				continue
			}
			it, err := x.get(binary.BigEndian.Uint64(v))
			if err != nil || it.Session != session {
				continue // damaged, or forgotten by its id
			}
			it.Out = binary.BigEndian.Uint64(k[len(session):])
			if bytes += it.ResultBytes; bytes > maxBytes && len(out) > 0 {
				break
			}
			s := Sent{Item: it}
			if it.State == Done {
				if s.Result, err = x.body(&it, partResult); err != nil {
					s.State, s.Code, s.Reason, s.Error = Failed, 15, "disk", "its result in the queue's file is damaged"
				}
			}
			out = append(out, s)
		}
		return nil
	})
	return out, err
}

// ackBatch is how many jobs one transaction forgets.
const ackBatch = 256

// Ack forgets every result of the session with a number up to through, and its job. ErrNotSent where through was never given.
func (q *Queue) Ack(ctx context.Context, session string, through uint64) error {
	for more := true; more; {
		err := q.update(ctx, 0, func(x *tx) (err error) {
			more, err = x.ack(session, through)
			return err
		}, nil)
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *tx) ack(session string, through uint64) (more bool, err error) {
	s, err := x.session(session)
	if err != nil {
		return false, err
	}
	if through > s.Last {
		return false, fmt.Errorf("%w: result %d of at most %d", ErrNotSent, through, s.Last)
	}
	if through <= s.Acked {
		return false, nil
	}
	type found struct{ out, seq uint64 }
	var list []found
	outbox := x.Bucket(bucketOutbox)
	c := outbox.Cursor()
	for k, v := c.Seek(outKey(session, s.Acked+1)); len(k) == len(session)+8 && string(k[:len(session)]) == session && len(v) == 8; k, v = c.Next() {
		out := binary.BigEndian.Uint64(k[len(session):])
		if out > through {
			break
		}
		if len(list) == ackBatch {
			more = true
			break
		}
		list = append(list, found{out, binary.BigEndian.Uint64(v)})
	}
	for _, f := range list {
		it, err := x.get(f.seq)
		if err == nil && it.Out == f.out {
			x.q.watching.later(&it)
			if err := x.forget(&it); err != nil {
				return false, err
			}
			continue
		}
		if err != nil && !errors.Is(err, ErrNoJob) {
			if err := x.setAside(f.seq); err != nil {
				return false, err
			}
		}
		if err := try(outbox.Delete(outKey(session, f.out))); err != nil {
			return false, err
		}
	}
	s.Acked = through
	if more {
		s.Acked = list[len(list)-1].out
	}
	x.q.opts.Step("ack")
	return more, x.putSession(&s)
}

// ArrivedKey is what Changed takes to wait for results of a session.
func ArrivedKey(session string) string { return "session " + session }
