// session.go: what must be kept for a stream to go on in another process.
package inferd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// Session is a stream's durable identity. Keep it (Save) before a result is acknowledged, and nothing is lost and nothing comes twice, however
// often either side dies. The zero value is a new session.
type Session struct {
	ID      string   `json:"session"`
	Acked   uint64   `json:"acked"`             // Ack was called for every result up to this
	Next    uint64   `json:"next"`              // the number that the next request without an id gets
	Open    []uint64 `json:"open,omitempty"`    // numbers below Next that the appliance may not have: send them again, under the same id
	Waiting []string `json:"waiting,omitempty"` // ids of accepted requests whose results were not acknowledged: they will come
	Note    string   `json:"note,omitempty"`    // its user's own
}

// maxSession bounds the file that is read.
const maxSession = 64 << 20

// LoadSession reads what Save wrote. A file that is not there is a new session.
func LoadSession(path string) (Session, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Session{}, nil
	}
	if err != nil {
		return Session{}, err
	}
	if info.Size() > maxSession {
		return Session{}, fmt.Errorf("%s is no session of a stream: %d bytes", path, info.Size())
	}
	text, err := os.ReadFile(path)
	if err != nil || len(text) == 0 {
		return Session{}, err
	}
	var s Session
	if err := json.Unmarshal(text, &s); err != nil {
		return Session{}, fmt.Errorf("%s is no session of a stream: %w; remove it to begin a new one", path, err)
	}
	return s, nil
}

// Save writes the session so that a crash leaves either the old or the new one.
func (s Session) Save(path string) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return fmt.Errorf("keep the session in %s: %w", path, err)
	}
	return nil
}

// Session is the stream's state at this moment.
func (s *Stream) Session() Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := Session{ID: s.session, Acked: s.acked, Next: s.next, Note: s.o.Session.Note, Open: slices.Sorted(maps.Keys(s.open))}
	if !s.durable && len(s.unacked) == 0 {
		kept.ID = "" // nothing there is worth coming back for
	}
	for _, u := range s.unacked {
		kept.Waiting = append(kept.Waiting, u.id)
	}
	for _, c := range s.inOrder() {
		if c.accepted {
			kept.Waiting = append(kept.Waiting, c.req.ID)
		}
	}
	return kept
}

// restore takes over from an earlier process.
func (s *Stream) restore(from Session) {
	s.session, s.acked, s.received, s.next = from.ID, from.Acked, from.Acked, from.Next
	s.durable = from.ID != ""
	for _, n := range from.Open {
		s.open[n] = struct{}{}
	}
	if from.ID == "" {
		return
	}
	for _, id := range from.Waiting {
		if _, twice := s.calls[id]; !twice {
			s.add(&call{req: Request{ID: id, Durable: true}, accepted: true})
		}
	}
}

// number is the id that the stream made, or the caller in its way.
func number(id string) (uint64, bool) {
	n, err := strconv.ParseUint(id, 10, 63)
	return n, err == nil && strconv.FormatUint(n, 10) == id
}
