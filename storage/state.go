// state.go: one state and one bounded history per name.
package storage

import (
	"encoding/binary"
	"fmt"

	"go.etcd.io/bbolt"
)

// Bounds of what is kept.
const (
	MaxHistory = 1000 // entries per name; the oldest go first
	maxDamaged = 100
	maxName    = 1 << 12
)

// State is the view of a DB that keeps states and histories by name.
type State struct{ db *DB }

// State is the view.
func (db *DB) State() *State { return &State{db: db} }

// States has the last state of every name. Damaged ones are left out.
func (s *State) States() (map[string][]byte, error) {
	out := make(map[string][]byte)
	var bad [][]byte
	err := s.db.do(false, func(tx *bbolt.Tx) error {
		clear(out)
		bad = nil
		return tx.Bucket(bucketState).ForEach(func(k, v []byte) error {
			value, err := unseal(k, v)
			if err != nil {
				bad = append(bad, append([]byte{}, k...))
				return nil
			}
			out[string(k)] = value
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	for _, k := range bad {
		s.db.log.Error("state record is damaged: it is moved aside and begun anew", "name", string(k), "path", s.db.path)
	}
	if len(bad) > 0 {
		if err := s.db.do(true, func(tx *bbolt.Tx) error { return setAside(tx, tx.Bucket(bucketState), bad) }); err != nil {
			s.db.log.Warn("damaged records could not be moved aside", "err", err, "path", s.db.path)
		}
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	for name, value := range out {
		s.db.seeds[name] = value
	}
	return out, nil
}

func setAside(tx *bbolt.Tx, from *bbolt.Bucket, keys [][]byte) error {
	to := tx.Bucket(bucketDamaged)
	for _, k := range keys {
		seq, err := to.NextSequence()
		if err != nil {
			return err
		}
		if err := to.Put(append(binary.BigEndian.AppendUint64(nil, seq), k...), append([]byte{}, from.Get(k)...)); err != nil {
			return err
		}
		if err := from.Delete(k); err != nil {
			return err
		}
		if seq > maxDamaged {
			if k, _ := to.Cursor().First(); k != nil {
				if err := to.Delete(k); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Record replaces the state of name (nil leaves it, empty removes it) and appends events to its history, all or nothing; it is on disk
// when nil is returned. It blocks for a disk write.
func (s *State) Record(name string, state []byte, events ...[]byte) error {
	if name == "" || len(name) > maxName {
		return fmt.Errorf("state of %.40q: its name must have 1 to %d bytes", name, maxName)
	}
	for _, value := range append([][]byte{state}, events...) {
		if len(value) > MaxValue {
			return fmt.Errorf("state of %s: a value of %d bytes is larger than %d", name, len(value), MaxValue)
		}
	}
	key := []byte(name)
	err := s.db.do(true, func(tx *bbolt.Tx) error {
		states := tx.Bucket(bucketState)
		switch {
		case state == nil:
		case len(state) == 0:
			if err := states.Delete(key); err != nil {
				return err
			}
		default:
			if err := states.Put(key, seal(key, state)); err != nil {
				return err
			}
		}
		if len(events) == 0 {
			return nil
		}
		h, err := tx.Bucket(bucketHistory).CreateBucketIfNotExists(key)
		if err != nil {
			return err
		}
		var last uint64
		for _, e := range events {
			if last, err = h.NextSequence(); err != nil {
				return err
			}
			k := binary.BigEndian.AppendUint64(nil, last)
			if err := h.Put(k, seal(k, e)); err != nil {
				return err
			}
		}
		c := h.Cursor()
		// First again each time: bbolt's cursor steps over an entry after a Delete.
		for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k)+MaxHistory <= last; k, _ = c.First() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil || state == nil {
		return err
	}
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	if len(state) == 0 {
		delete(s.db.seeds, name)
	} else {
		s.db.seeds[name] = append([]byte{}, state...)
	}
	return nil
}

// History has the newest limit events of name, newest first. Damaged ones are left out.
func (s *State) History(name string, limit int) ([][]byte, error) {
	var out [][]byte
	err := s.db.do(false, func(tx *bbolt.Tx) error {
		out = nil
		h := tx.Bucket(bucketHistory).Bucket([]byte(name))
		if h == nil {
			return nil
		}
		c := h.Cursor()
		for k, v := c.Last(); k != nil && len(out) < limit; k, v = c.Prev() {
			if value, err := unseal(k, v); err == nil {
				out = append(out, value)
			}
		}
		return nil
	})
	return out, err
}
