// item.go: what the queue keeps of one job, beside its payload and its result, and how that is written down.
package storage

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// JobState is where a job stands. The numbers are stored.
type JobState uint8

// The states. Queued and Leased are live, the others final.
const (
	Queued    JobState = 1 // waits: for its turn, for its lane, or for the end of a delay
	Leased    JobState = 2 // somebody in this process runs it
	Done      JobState = 3 // its result is stored
	Failed    JobState = 4 // its own fault: it was not worth another attempt
	Dead      JobState = 5 // a dead letter: its attempts are used up, or it killed its workers
	Cancelled JobState = 6
	Expired   JobState = 7 // its time was over, or it made room for others
)

var stateNames = [...]string{"", "queued", "leased", "done", "failed", "dead", "cancelled", "expired"}

// String is the state's word on every wire.
func (s JobState) String() string {
	if s == 0 || int(s) >= len(stateNames) {
		return "state " + strconv.Itoa(int(s))
	}
	return stateNames[s]
}

// ParseState is the state with that word.
func ParseState(word string) (JobState, bool) {
	for i, name := range stateNames {
		if i > 0 && name == word {
			return JobState(i), true
		}
	}
	return 0, false
}

// Final reports whether the job has ended.
func (s JobState) Final() bool { return s >= Done }

// Bounds of an Item's texts; what is longer is refused by Append, and cut for Error.
const (
	MaxText  = 512 // model, label, lane, key, session, ref
	maxError = 2048
)

// Item is one job. Its texts are opaque to the store.
type Item struct {
	ID  string // names the job to everybody; from Seq and 64 random bits, so that it cannot be guessed
	Seq uint64 // the order of arrival

	Model, Label string
	Version      int64 // above zero: pinned to it
	Kind         uint8
	Class        uint8 // a lower one is more urgent
	Lane         string
	Key          string   // a second Append with it finds this job
	Digest       [32]byte // of what the key stands for
	Session, Ref string   // whose outbox gets the result, and the session's own name of the request
	MaxAttempts  int
	Submitted    time.Time
	Expires      time.Time // zero: never

	State         JobState
	Attempts      int // runs that failed
	Deaths        int // runs whose worker died
	Interruptions int // runs during which this process ended
	Finished      time.Time
	Code          int // of the last failure, with Reason and Error
	Reason        string
	Error         string
	AnsweredBy    int64  // the version whose result it is
	Out           uint64 // its number in the outbox of Session, from 1; 0 before

	PayloadBytes, ResultBytes int64 // as given
	StoredBytes               int64 // of both in the file, compressed

	random          uint64
	payload, result body
}

// body says how bytes lie in the file: nowhere when stored is 0.
type body struct {
	raw, stored int64
	sum         uint32
	packed      bool // zstd
}

// newRandom is an ID's unguessable half.
func newRandom() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // it never fails: crypto/rand ends the process first
	return binary.BigEndian.Uint64(b[:])
}

func makeID(seq, random uint64) string { return fmt.Sprintf("%016x-%016x", seq, random) }

// ErrNoJob: there is no job with that id, or not any more.
var ErrNoJob = errors.New("no such job")

// parseID reads what makeID wrote.
func parseID(id string) (seq, random uint64, err error) {
	if len(id) != 33 || id[16] != '-' {
		return 0, 0, ErrNoJob
	}
	seq, err = strconv.ParseUint(id[:16], 16, 64)
	if err == nil {
		random, err = strconv.ParseUint(id[17:], 16, 64)
	}
	if err != nil || makeID(seq, random) != id {
		return 0, 0, ErrNoJob
	}
	return seq, random, nil
}

const itemFormat = 1

// flags of a stored item.
const (
	flagKey = 1 << iota
	flagPayloadPacked
	flagResultPacked
)

// appendItem is the item as it is stored; the model is a number there, and the sequence is the key.
func appendItem(b []byte, it *Item, model uint32) []byte {
	var flags byte
	if it.Key != "" {
		flags |= flagKey
	}
	if it.payload.packed {
		flags |= flagPayloadPacked
	}
	if it.result.packed {
		flags |= flagResultPacked
	}
	b = append(b, itemFormat, flags, byte(it.State), it.Kind, it.Class)
	b = binary.BigEndian.AppendUint64(b, it.random)
	if it.Key != "" {
		b = append(b, it.Digest[:]...)
		b = appendText(b, it.Key)
	}
	for _, n := range []uint64{uint64(model), uint64(it.Version), uint64(it.MaxAttempts), uint64(it.Attempts), uint64(it.Deaths), uint64(it.Interruptions),
		uint64(it.Code), uint64(it.AnsweredBy), it.Out,
		uint64(it.payload.raw), uint64(it.payload.stored), uint64(it.payload.sum), uint64(it.result.raw), uint64(it.result.stored), uint64(it.result.sum)} {
		b = binary.AppendUvarint(b, n)
	}
	for _, t := range []time.Time{it.Submitted, it.Expires, it.Finished} {
		b = binary.AppendVarint(b, stamp(t))
	}
	for _, s := range []string{it.Label, it.Lane, it.Session, it.Ref, it.Reason, it.Error} {
		b = appendText(b, s)
	}
	return b
}

// stamp is a time as it is stored: nanoseconds, 0 for none.
func stamp(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

func fromStamp(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// itemReader reads a stored item; after the first byte that is missing everything is zero and bad is set.
type itemReader struct {
	b   []byte
	bad bool
}

func (r *itemReader) bytes(n uint64) []byte {
	if uint64(len(r.b)) < n {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *itemReader) uint() uint64 {
	n, size := binary.Uvarint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *itemReader) int() int64 {
	n, size := binary.Varint(r.b)
	if size <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[size:]
	return n
}

func (r *itemReader) text() string { return string(r.bytes(r.uint())) }

// parseItem reads what appendItem wrote under the sequence.
func parseItem(b []byte, seq uint64) (it Item, model uint32, err error) {
	r := itemReader{b: b}
	head := r.bytes(5)
	if r.bad || head[0] != itemFormat {
		return Item{}, 0, errRecord
	}
	flags := head[1]
	it.Seq, it.State, it.Kind, it.Class = seq, JobState(head[2]), head[3], head[4]
	if random := r.bytes(8); !r.bad {
		it.random = binary.BigEndian.Uint64(random)
	}
	if flags&flagKey != 0 {
		copy(it.Digest[:], r.bytes(32))
		if it.Key = r.text(); it.Key == "" {
			r.bad = true // the flag says that there is one
		}
	}
	model = uint32(r.uint())
	it.Version, it.MaxAttempts, it.Attempts, it.Deaths, it.Interruptions = int64(r.uint()), int(r.uint()), int(r.uint()), int(r.uint()), int(r.uint())
	it.Code, it.AnsweredBy, it.Out = int(r.uint()), int64(r.uint()), r.uint()
	it.payload = body{int64(r.uint()), int64(r.uint()), uint32(r.uint()), flags&flagPayloadPacked != 0}
	it.result = body{int64(r.uint()), int64(r.uint()), uint32(r.uint()), flags&flagResultPacked != 0}
	it.Submitted, it.Expires, it.Finished = fromStamp(r.int()), fromStamp(r.int()), fromStamp(r.int())
	it.Label, it.Lane, it.Session, it.Ref, it.Reason, it.Error = r.text(), r.text(), r.text(), r.text(), r.text(), r.text()
	if r.bad || len(r.b) > 0 || it.State < Queued || it.State > Expired || it.payload.raw < 0 || it.payload.stored < 0 || it.result.raw < 0 || it.result.stored < 0 {
		return Item{}, 0, errRecord
	}
	it.ID = makeID(seq, it.random)
	it.sizes()
	return it, model, nil
}

// sizes fills in the public figures.
func (it *Item) sizes() {
	it.PayloadBytes, it.ResultBytes = it.payload.raw, it.result.raw
	it.StoredBytes = it.payload.stored + it.result.stored
}
