// submit.go: the door of the queue: what is checked before a job is stored, and what is said to those who are refused.
package jobs

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/storage"
)

const (
	// maxKey bounds what clients name: idempotency keys and ordering keys.
	maxKey = 255
	// MostAttempts is the most that a client may ask for.
	MostAttempts = 100
	// mostExpires is the longest that a client may ask for.
	mostExpires = 10 * 365 * 24 * time.Hour
)

// Submission is a request for the queue.
type Submission struct {
	Spec  inference.Spec // Keys and Steady do not count
	Kind  api.Kind
	Body  []byte // stays the caller's; it is not kept
	Class inference.Class
	// Expires is after what time without an answer the job ends; 0: as configured, which bounds it too.
	Expires     time.Duration
	MaxAttempts int    // 0: as configured
	Lane        string // ordering key; jobs of one lane run in order
	Key         string // idempotency key
	// Session gets the result in its outbox; Ref is its own name of the request, which serves as a key too.
	Session, Ref string
	Client       netip.Addr
	// Owner is the name of the token that it comes with, "" when it comes with none. Only that token, and admins, will find the job.
	Owner string
	// Entered: the gate has been passed already, and whoever did that leaves it.
	Entered bool
}

// Submit stores a job and returns once it is on disk. existed is true where the key, or the session's ref, stands for the same request already: then
// that job is returned. What can be known to be wrong with it is refused here, and INVALID_ARGUMENT.
func (s *Service) Submit(ctx context.Context, sub Submission) (it storage.Item, existed bool, failed *inference.Error) {
	if err := s.Missing(); err != nil {
		return it, false, err
	}
	if err := sub.check(s.opts.Settings()); err != nil {
		return it, false, err
	}
	if !sub.Entered {
		entry, err := s.api.EnterDoor(api.Caller{From: sub.Client, Bytes: int64(len(sub.Body)), Class: sub.Class})
		if err != nil {
			return it, false, err
		}
		defer entry.Leave()
	}
	if err := s.opts.Room(); err != nil {
		return it, false, err
	}
	if err := s.known(sub.Spec); err != nil {
		return it, false, err
	}
	if err := s.try(&sub); err != nil {
		return it, false, err
	}
	stored, existed, err := s.queue.Append(ctx, s.item(&sub), sub.Body)
	return stored, existed, s.refusal(err, "")
}

// check refuses what no queue would take.
func (sub *Submission) check(set Settings) *inference.Error {
	switch {
	case int64(len(sub.Body)) > set.MaxPayload && set.MaxPayload > 0:
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the request has %d bytes, and a job's may have %d; send fewer instances per job, or raise queue.max_payload", len(sub.Body), set.MaxPayload)
	case sub.Expires < 0 || sub.Expires > mostExpires:
		return wrong("a job cannot expire after %v; send a time above zero, of ten years at most", sub.Expires)
	case sub.Spec.HasVersion && sub.Spec.Version < 1:
		return inference.Errorf(inference.NotFound, inference.ReasonModel, "a job cannot be for version %d; name a version above zero, or none for the latest", sub.Spec.Version)
	case sub.MaxAttempts < 0 || sub.MaxAttempts > MostAttempts:
		return wrong("a job cannot have %d attempts; send a number from 1 to %d", sub.MaxAttempts, MostAttempts)
	}
	for _, k := range []struct{ what, key string }{{"the idempotency key", sub.Key}, {"the ordering key", sub.Lane}, {"the id", sub.Ref}} {
		if len(k.key) > maxKey || !utf8.ValidString(k.key) || strings.ContainsFunc(k.key, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return wrong("%s has %d bytes, or control characters, or is not UTF-8; send at most %d bytes of text", k.what, len(k.key), maxKey)
		}
	}
	if len(sub.Spec.Model) > storage.MaxText || len(sub.Spec.Label) > storage.MaxText {
		return inference.Errorf(inference.NotFound, inference.ReasonModel, "no model or label has a name of more than %d bytes", storage.MaxText)
	}
	return nil
}

func wrong(format string, args ...any) *inference.Error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)
}

// known refuses a job for what is not there: a typing error would wait until it expires. What is there and does not answer yet may have jobs.
func (s *Service) known(spec inference.Spec) *inference.Error {
	versions, err := s.api.Status(inference.Spec{Model: spec.Model, Label: spec.Label})
	if err == nil && (!spec.HasVersion || slices.ContainsFunc(versions, func(v inference.VersionStatus) bool { return v.Version == spec.Version })) {
		return nil
	}
	if spec.Label == "" && slices.Contains(s.api.Models(), spec.Model) && !spec.HasVersion {
		return nil // nothing has been found of it yet
	}
	if !s.opts.Scanned() {
		return &inference.Error{Code: inference.Unavailable, Reason: inference.ReasonLoading, Model: spec.Model, RetryAfter: time.Second,
			Msg: "inferd has just started and does not know every model yet; send the job again in a moment"}
	}
	if err == nil {
		return inference.Errorf(inference.NotFound, inference.ReasonModel, "Could not find version %d of model %s", spec.Version, spec.Model)
	}
	return inference.AsError(err)
}

// try decodes and checks the request where a version can be asked.
func (s *Service) try(sub *Submission) *inference.Error {
	codec := s.opts.Codecs[sub.Kind]
	if codec == nil {
		return inference.Errorf(inference.Unimplemented, inference.ReasonInput, "requests of this form cannot be queued; send JSON, or a PredictRequest")
	}
	spec := sub.Spec
	spec.Steady = true // it is no prediction
	h, err := s.api.Acquire(spec)
	if err != nil {
		return nil // nothing of it answers at the moment: the job waits
	}
	defer h.Release()
	call, bad := codec.Decode(sub.Body, h.Version())
	if bad != nil {
		return bad
	}
	defer call.Free()
	return api.Check(h.Version(), call.Request())
}

// item is the job as it is stored.
func (s *Service) item(sub *Submission) storage.Item {
	it := storage.Item{
		Model: sub.Spec.Model, Label: sub.Spec.Label, Kind: uint8(sub.Kind), Class: classByte(sub.Class), Lane: sub.Lane,
		Session: sub.Session, Ref: sub.Ref, MaxAttempts: sub.MaxAttempts, Submitted: s.Now(),
	}
	if sub.Spec.HasVersion {
		it.Version = sub.Spec.Version
	}
	if it.MaxAttempts == 0 {
		it.MaxAttempts = s.opts.Settings().MaxAttempts
	}
	age := s.opts.MaxAge(it.Model)
	if sub.Expires > 0 && (age == 0 || sub.Expires < age) {
		age = sub.Expires
	}
	if age > 0 {
		it.Expires = it.Submitted.Add(age)
	}
	switch {
	case sub.Session != "" && sub.Ref != "":
		it.Key = "s:" + sub.Session + ":" + sub.Ref
	case sub.Owner != "":
		it.Key = ownedKey(sub.Owner, sub.Key)
	case sub.Key != "":
		it.Key = "k:" + sub.Key
	}
	if it.Key != "" {
		it.Digest = digest(sub)
	}
	return it
}

// digest stands for what a key stands for: the request, and not how urgent it is.
func digest(sub *Submission) (sum [32]byte) {
	h := sha256.New()
	field := func(b []byte) {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b)))) // a hash takes everything
		_, _ = h.Write(b)
	}
	number := uint64(0)
	if sub.Spec.HasVersion {
		number = uint64(sub.Spec.Version)
	}
	field([]byte{byte(sub.Kind)})
	field([]byte(sub.Spec.Model))
	field([]byte(sub.Spec.Label))
	field(binary.BigEndian.AppendUint64(nil, number))
	field(sub.Body)
	h.Sum(sum[:0])
	return sum
}
