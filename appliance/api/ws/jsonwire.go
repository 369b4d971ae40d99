// jsonwire.go: inferd.v1.json: text frames, and binary frames behind a small header.
package ws

import (
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

type jsonWire struct{}

func (jsonWire) name() string { return JSONProtocol }

// member is one bit for each member that a frame may have once.
type member uint32

const (
	mID member = 1 << iota
	mModel
	mVersion
	mLabel
	mDeadline
	mPriority
	mDurable
	mOrdered
	mDrop
	mLane
	mExpires
	mAttempts
	mData
	mCancel
	mAck
	mResume
)

// parse implements wire.
func (w jsonWire) parse(frame []byte, text bool, m *message, spec func([]byte) (inference.Spec, *inference.Error)) *inference.Error {
	*m = message{request: request{size: len(frame)}}
	if !text {
		return w.binary(frame, m, spec)
	}
	seen, err := w.members(frame, m)
	if err != nil {
		return err
	}
	m.kind, m.body = api.JSON, frame
	if m.durable {
		m.body = essence(nil, frame)
	}
	switch {
	case seen&mCancel != 0:
		m.act = actCancel
	case seen&mAck != 0:
		m.act = actAck
	case seen&mResume != 0:
		m.act = actResume
	case seen&(mID|mModel|mData) == 0:
		return invalid("the frame is none of those known here; send {\"id\":..., \"model\":..., \"instances\":...}, a cancel, an ack or a resume")
	default:
		m.act = actPredict
		return m.complete(seen)
	}
	if seen&(mID|mModel|mData) != 0 {
		return invalid("the frame is a request and %s at once; send one frame for each", [...]string{"", "", "a cancel", "an ack", "a resume"}[m.act])
	}
	return nil
}

// complete holds a request against what it must have.
func (m *message) complete(seen member) *inference.Error {
	switch {
	case seen&mID == 0:
		return invalid("the request has no \"id\"; give each one of its own, a string of 1 to %d bytes", maxID)
	case seen&mModel == 0:
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "the request has no \"model\"; name one")
	case seen&mVersion != 0 && seen&mLabel != 0:
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "the request has a \"version\" and a \"label\"; send one of them, or none")
	case m.drop && m.durable:
		return invalid("a durable request is never dropped; leave \"drop_oldest\" or \"durable\" out")
	case m.drop && m.ordered:
		return invalid("requests with \"drop_oldest\" are answered in any order; leave it or \"ordered\" out")
	}
	return nil
}

// members reads every member that is known here, and passes over the others.
func (w jsonWire) members(doc []byte, m *message) (seen member, err *inference.Error) {
	err = members(doc, func(key, value []byte) *inference.Error {
		bit := memberOf(key)
		if bit == 0 {
			return nil
		}
		if seen&bit != 0 {
			if bit == mData {
				return nil // the codec has a text for it
			}
			return invalid("the frame has %s twice", quote(key))
		}
		seen |= bit
		if !m.set(bit, value) {
			if bit == mID {
				return invalid("\"id\" is %s; send a string of 1 to %d bytes", quote(value), maxID)
			}
			return invalid("%s is %s; docs/streaming.md says what it takes", quote(key), quote(value))
		}
		return nil
	})
	return seen, err
}

// essence appends the object with those members of doc that a codec reads: what is kept of a durable request, and what tells whether another
// one of the same id is the same. doc has been read once.
func essence(dst, doc []byte) []byte {
	dst = append(dst, '{')
	_ = members(doc, func(key, value []byte) *inference.Error { // it went well before
		switch string(key) {
		case "instances", "inputs", "signature_name", "shape", "dtype":
			if dst[len(dst)-1] != '{' {
				dst = append(dst, ',')
			}
			dst = append(append(append(dst, '"'), key...), '"', ':')
			dst = append(dst, value...)
		}
		return nil
	})
	return append(dst, '}')
}

func memberOf(key []byte) member {
	switch string(key) {
	case "id":
		return mID
	case "model":
		return mModel
	case "version":
		return mVersion
	case "label":
		return mLabel
	case "deadline_ms":
		return mDeadline
	case "priority":
		return mPriority
	case "durable":
		return mDurable
	case "ordered":
		return mOrdered
	case "drop_oldest":
		return mDrop
	case "lane":
		return mLane
	case "expires_ms":
		return mExpires
	case "max_attempts":
		return mAttempts
	case "instances", "inputs":
		return mData
	case "cancel":
		return mCancel
	case "ack":
		return mAck
	case "resume":
		return mResume
	}
	return 0
}

// set reads the value of one member. It is false where that is no such value.
func (m *message) set(bit member, raw []byte) (ok bool) {
	switch bit {
	case mID, mCancel:
		if m.id, ok = text(raw); !ok && isNumber(raw) {
			m.id, ok = string(raw), true
		}
		if !ok || m.id == "" || len(m.id) > maxID {
			m.id, ok = "", false
		}
	case mModel:
		m.spec.Model, ok = text(raw)
		ok = ok && m.spec.Model != "" && len(m.spec.Model) <= maxName
	case mVersion:
		m.spec.Version, ok = parseInt(raw)
		m.spec.HasVersion = ok
	case mLabel:
		m.spec.Label, ok = text(raw)
		ok = ok && m.spec.Label != "" && len(m.spec.Label) <= maxName
	case mDeadline:
		m.deadline, ok = millis(raw)
	case mExpires:
		m.expires, ok = millis(raw)
	case mPriority:
		var word string
		if word, ok = text(raw); ok {
			m.class, ok = inference.ParseClass(word)
		}
	case mDurable:
		m.durable, ok = truth(raw)
	case mOrdered:
		m.ordered, ok = truth(raw)
	case mDrop:
		m.drop, ok = truth(raw)
	case mLane:
		m.lane, ok = text(raw)
		ok = ok && len(m.lane) <= maxID
	case mAttempts:
		var n int64
		n, ok = parseInt(raw)
		ok = ok && n >= 1 && n <= 1000
		m.attempts = int(n)
	case mAck:
		m.through, ok = parseUint(raw)
	case mResume:
		ok = m.resume(raw)
	case mData:
		ok = true
	}
	return ok
}

func (m *message) resume(raw []byte) bool {
	good, named := true, false
	err := members(raw, func(key, value []byte) *inference.Error {
		var ok bool
		switch string(key) {
		case "session":
			m.session, ok = text(value)
			ok = ok && m.session != "" && len(m.session) <= maxID
			named = true
		case "after":
			m.through, ok = parseUint(value)
		default:
			ok = true
		}
		good = good && ok
		return nil
	})
	return err == nil && good && named
}

func truth(raw []byte) (value, ok bool) {
	return string(raw) == "true", string(raw) == "true" || string(raw) == "false"
}

// millis reads a number of milliseconds above zero; more than the longest deadline is that.
func millis(raw []byte) (time.Duration, bool) {
	if !isNumber(raw) {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || !(f > 0) {
		return 0, false
	}
	if f >= float64(api.MaxDeadline.Milliseconds()) {
		return api.MaxDeadline, true
	}
	return max(1, time.Duration(f*float64(time.Millisecond))), true
}

// opcode implements wire: a text frame begins with a brace, a binary one with its kind.
func (jsonWire) opcode(payload []byte) byte {
	if len(payload) > 0 && payload[0] == '{' {
		return opText
	}
	return opBinary
}

func (jsonWire) appendHello(dst []byte, h hello) []byte {
	dst = append(dst, `{"hello":{"session":`...)
	dst = appendText(dst, h.session)
	dst = append(dst, `,"credits":`...)
	dst = strconv.AppendInt(dst, int64(h.credits), 10)
	dst = append(dst, `,"max_frame":`...)
	dst = strconv.AppendInt(dst, h.maxFrame, 10)
	dst = append(dst, `,"idle_s":`...)
	dst = strconv.AppendFloat(dst, h.idle.Seconds(), 'f', -1, 64)
	return append(dst, "}}"...)
}

// appendReply appends the members that an answer begins with, and the comma after them.
func appendReply(dst []byte, r reply) []byte {
	dst = append(dst, '{')
	if r.id != "" {
		dst = append(dst, `"id":`...)
		dst = append(appendText(dst, r.id), ',')
	}
	if r.seq > 0 {
		dst = append(dst, `"seq":`...)
		dst = append(strconv.AppendUint(dst, r.seq, 10), ',')
	}
	if r.version > 0 {
		dst = append(dst, `"version":`...)
		dst = append(strconv.AppendInt(dst, r.version, 10), ',')
	}
	return dst
}

func (jsonWire) appendResult(dst []byte, r reply, kind api.Kind, body []byte) []byte {
	switch kind {
	case api.JSON, api.Media: // an object: its brace is ours already
		dst = appendReply(dst, r)
		if from := len(dst); utf8.Valid(body[1:]) {
			return append(dst, body[1:]...)
		} else { // a stored answer is :predict's, which has the bytes of strings as they are
			return appendValid(dst[:from], body[1:])
		}
	default:
		return appendBinary(dst, r, kind, body)
	}
}

func (jsonWire) appendError(dst []byte, r reply, err *inference.Error) []byte {
	dst = appendReply(dst, r)
	dst = append(dst, `"error":`...)
	dst = appendText(dst, cut(err.Msg, 8<<10))
	dst = append(dst, `,"code":"`...)
	dst = append(dst, err.Code.String()...)
	dst = append(dst, '"')
	if err.Reason != "" {
		dst = append(dst, `,"reason":"`...)
		dst = append(dst, err.Reason...)
		dst = append(dst, '"')
	}
	if err.RetryAfter > 0 {
		dst = append(dst, `,"retry_ms":`...)
		dst = strconv.AppendInt(dst, max(1, err.RetryAfter.Milliseconds()), 10)
	}
	return append(dst, '}')
}

func (jsonWire) appendAccepted(dst []byte, id, job string) []byte {
	dst = append(dst, `{"id":`...)
	dst = appendText(dst, id)
	dst = append(dst, `,"accepted":`...)
	return append(appendText(dst, job), '}')
}

func (jsonWire) appendCredits(dst []byte, n int) []byte {
	dst = append(dst, `{"credits":`...)
	return append(strconv.AppendInt(dst, int64(n), 10), '}')
}

func (jsonWire) appendSlow(dst []byte, waiting int, left time.Duration) []byte {
	dst = append(dst, `{"slow":{"waiting_bytes":`...)
	dst = strconv.AppendInt(dst, int64(waiting), 10)
	dst = append(dst, `,"close_in_ms":`...)
	dst = strconv.AppendInt(dst, left.Milliseconds(), 10)
	return append(dst, "}}"...)
}

func (jsonWire) appendDraining(dst []byte) []byte { return append(dst, `{"draining":true}`...) }

func (jsonWire) appendResumed(dst []byte, session string, last uint64, pending int) []byte {
	dst = append(dst, `{"resumed":{"session":`...)
	dst = appendText(dst, session)
	dst = append(dst, `,"last":`...)
	dst = strconv.AppendUint(dst, last, 10)
	dst = append(dst, `,"pending":`...)
	dst = strconv.AppendInt(dst, int64(pending), 10)
	return append(dst, "}}"...)
}

// appendValid appends text with U+FFFD in the place of what is not UTF-8.
func appendValid(dst, text []byte) []byte {
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		dst = utf8.AppendRune(dst, r)
		text = text[n:]
	}
	return dst
}

// cut is at most n bytes of s.
func cut(s string, n int) string {
	if len(s) > n {
		return s[:n] + "..."
	}
	return s
}
