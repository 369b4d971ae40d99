// request.go: what is sent over a stream and what comes back, and their frames.
package inferd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Request is one input of a stream: Instances, Inputs or Media. The first two are predict's: anything that encoding/json writes, or a
// json.RawMessage as it is. Media is a file or samples as they are, for a model whose configuration says how its input arrives (models[].media).
type Request struct {
	ID        string // 1 to 128 bytes, unique in its session; empty: the stream counts
	Model     string
	Version   int64 // 0: the latest, or Label's
	Label     string
	Signature string // empty: serving_default
	Instances any
	Inputs    any
	Media     []byte
	Deadline  time.Duration // from Send on: later the answer is worth nothing; 0: as configured
	Priority  string        // interactive, normal or batch

	// Of durable requests:
	Lane        string        // those of one lane run one after another
	Expires     time.Duration // when it is not worth running any more; 0: as configured
	MaxAttempts int           // 0: as configured

	Durable    bool // to disk before it is run; sent again until it is there, its result comes whatever happens
	Ordered    bool // answered after every ordered request before it
	DropOldest bool // when there is no credit Send does not wait: what waits the longest gives way, and Recv says ErrDropped
	Retry      bool // not durable, but harmless to run twice: sent again after a lost connection and when the appliance asks to come later
}

// Result is the answer to one request, or to one of an earlier life of the session. Exactly one of Predictions, Outputs and Err is set.
type Result struct {
	ID          string
	Version     int64
	Predictions json.RawMessage // of Instances; a value that is not finite is null
	Outputs     json.RawMessage // of Inputs
	Err         error           // *Error, ErrLost, ErrDropped or ErrSession
	Seq         uint64          // of a durable result: for Ack; 0 else
	Job         string          // a durable request's job, when this stream sent it
	Took        time.Duration   // since Send; 0 when another stream sent it
}

// Errors of results that never reached the appliance, or whose answers did not come back.
var (
	ErrLost    = errors.New("the connection was lost before the answer came; the request was neither Durable nor Retry")
	ErrDropped = errors.New("dropped for a newer input")
	ErrSession = errors.New("the appliance does not know the session any more: its unacknowledged results are gone (see stream.session_retention); the job may still be asked for by its id")
)

const maxID = 128

// head is a request's frame without its values, which are written once and put behind it.
type head struct {
	ID         string `json:"id"`
	Model      string `json:"model"`
	Version    int64  `json:"version,omitempty"`
	Label      string `json:"label,omitempty"`
	Signature  string `json:"signature_name,omitempty"`
	Deadline   int64  `json:"deadline_ms,omitempty"`
	Priority   string `json:"priority,omitempty"`
	Lane       string `json:"lane,omitempty"`
	Expires    int64  `json:"expires_ms,omitempty"`
	Attempts   int    `json:"max_attempts,omitempty"`
	Durable    bool   `json:"durable,omitempty"`
	Ordered    bool   `json:"ordered,omitempty"`
	DropOldest bool   `json:"drop_oldest,omitempty"`
}

// check finds what the appliance would refuse anyhow.
func (r *Request) check() error {
	switch {
	case r.Model == "":
		return errors.New("inferd: a request needs a model")
	case r.Version != 0 && r.Label != "":
		return errors.New("inferd: Version and Label both choose a version; give one of them")
	case count(r.Instances != nil, r.Inputs != nil, r.Media != nil) != 1:
		return errors.New("inferd: a request has one of Instances, Inputs and Media")
	case r.Media != nil && r.Signature != "":
		return errors.New("inferd: Media is for the one signature that takes it; leave Signature out")
	case len(r.ID) > maxID || !utf8.ValidString(r.ID):
		return fmt.Errorf("inferd: the id %.40q is not UTF-8 of 1 to %d bytes", r.ID, maxID)
	case r.Durable && r.DropOldest:
		return errors.New("inferd: a durable request is not dropped; choose Durable or DropOldest")
	case r.Ordered && r.DropOldest:
		return errors.New("inferd: requests that may be dropped are answered in any order; choose Ordered or DropOldest")
	case r.Deadline < 0 || r.Expires < 0 || r.MaxAttempts < 0:
		return errors.New("inferd: Deadline, Expires and MaxAttempts are not below zero")
	case !r.Durable && (r.Lane != "" || r.Expires > 0 || r.MaxAttempts > 0):
		return errors.New("inferd: Lane, Expires and MaxAttempts are for durable requests")
	}
	return nil
}

func count(is ...bool) (n int) {
	for _, b := range is {
		if b {
			n++
		}
	}
	return n
}

// values writes the request's values as JSON, with the name of the form they have. Media has no name.
func (r *Request) values() (name string, text []byte, err error) {
	if r.Media != nil {
		return "", slices.Clone(r.Media), nil
	}
	name, v := "instances", r.Instances
	if v == nil {
		name, v = "inputs", r.Inputs
	}
	if text, err = json.Marshal(v); err != nil {
		return "", nil, fmt.Errorf("inferd: the request's %s: %w", name, err)
	}
	return name, text, nil
}

// mediaKind begins a binary frame that carries a file or samples.
const mediaKind = 3

// frame puts the request together; left is what its deadline still has. A text frame holds the values, a binary one has them behind it: its kind, a
// zero, the header's length and the header, padded to a multiple of eight.
func (r *Request) frame(left time.Duration, name string, values []byte) (b []byte, binary bool) {
	h := head{r.ID, r.Model, r.Version, r.Label, r.Signature, 0, r.Priority, r.Lane, r.Expires.Milliseconds(), r.MaxAttempts, r.Durable, r.Ordered, r.DropOldest}
	if r.Deadline > 0 {
		h.Deadline = max(1, left.Milliseconds())
	}
	text, err := json.Marshal(h)
	if err != nil {
		panic(err) // strings, numbers and booleans
	}
	b = make([]byte, 0, len(text)+len(values)+32)
	if name != "" {
		b = append(append(b, text[:len(text)-1]...), `,"`...)
		b = append(append(b, name...), `":`...)
		return append(append(b, values...), '}'), false
	}
	b = append(append(b, mediaKind, 0, 0, 0), text...)
	for len(b)%8 != 0 {
		b = append(b, ' ')
	}
	b[2], b[3] = byte(len(b)-4), byte((len(b)-4)>>8)
	return append(b, values...), true
}

// message is any frame of the appliance's. What it does not know of one is passed over.
type message struct {
	Hello *struct {
		Session  string  `json:"session"`
		Credits  int     `json:"credits"`
		MaxFrame int64   `json:"max_frame"`
		Idle     float64 `json:"idle_s"`
	} `json:"hello"`
	Resumed *struct {
		Session string `json:"session"`
		Last    uint64 `json:"last"`
		Pending int    `json:"pending"`
	} `json:"resumed"`
	Slow *struct {
		Waiting int64 `json:"waiting_bytes"`
		Close   int64 `json:"close_in_ms"`
	} `json:"slow"`
	Credits  int  `json:"credits"`
	Draining bool `json:"draining"`

	ID          *string         `json:"id"`
	Accepted    string          `json:"accepted"`
	Seq         uint64          `json:"seq"`
	Version     int64           `json:"version"`
	Predictions json.RawMessage `json:"predictions"`
	Outputs     json.RawMessage `json:"outputs"`
	Error       *string         `json:"error"`
	Code        string          `json:"code"`
	Reason      string          `json:"reason"`
	Retry       int64           `json:"retry_ms"`
}

// maxCredits bounds what an appliance can grant: more is a mistake, and would be memory here.
const maxCredits = 1 << 20

// readMessage reads a frame and refuses what would upset the stream.
func readMessage(text []byte) (*message, error) {
	m := new(message)
	err := json.Unmarshal(text, m)
	if err != nil && bytes.ContainsAny(text, "NI") {
		m = new(message)
		err = json.Unmarshal(finite(text), m)
	}
	if err != nil {
		return nil, fmt.Errorf("the appliance's frame %.100q: %w", text, err)
	}
	bad := func(what string) (*message, error) {
		return nil, fmt.Errorf("the appliance's frame %.100q: %s", text, what)
	}
	switch {
	case m.Credits < 0 || m.Credits > maxCredits || m.Hello != nil && (m.Hello.Credits < 0 || m.Hello.Credits > maxCredits):
		return bad("so many credits cannot be meant")
	case m.Hello != nil && m.Hello.Session == "" || m.Resumed != nil && m.Resumed.Session == "":
		return bad("the session has no name")
	case m.ID != nil && m.Accepted == "" && m.Error == nil && m.Predictions == nil && m.Outputs == nil:
		return bad("an id and no answer")
	}
	return m, nil
}

// finite puts null for NaN, Infinity and -Infinity, which TensorFlow Serving writes bare and encoding/json does not read.
func finite(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i, quoted := 0, false; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\' && i+1 < len(text):
			out = append(out, c)
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		default:
			if n := notFinite(text[i:]); n > 0 {
				out = append(out, "null"...)
				i += n - 1
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

func notFinite(text []byte) int {
	for _, word := range []string{"NaN", "Infinity", "-Infinity"} {
		if bytes.HasPrefix(text, []byte(word)) {
			return len(word)
		}
	}
	return 0
}

// result is the answer that m is.
func (m *message) result() Result {
	r := Result{ID: *m.ID, Version: m.Version, Seq: m.Seq, Predictions: m.Predictions, Outputs: m.Outputs}
	if m.Error != nil {
		r.Predictions, r.Outputs = nil, nil
		if m.Reason == "dropped" {
			r.Err = ErrDropped
			return r
		}
		r.Err = &Error{Code: m.Code, Reason: m.Reason, Message: strings.TrimSpace(*m.Error), RetryAfter: min(max(0, time.Duration(min(m.Retry, int64(maxHint/time.Millisecond)))*time.Millisecond), maxHint)}
	}
	return r
}
