// infer.go: an infer request, from its body to its answer.
package oiprest

import (
	"context"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// LengthHeader says how many of a body's bytes are JSON; what follows is raw tensors. 0: there is no JSON, and the whole body is the one input.
const LengthHeader = "Inference-Header-Content-Length"

// scratch is the memory of one request, used again for a later one.
type scratch struct {
	body   []byte
	out    []byte
	header int // of out's bytes that are JSON where raw outputs follow, else -1
	doc    document
	want   wanted
	sent   []oip.Input
	unread bool // the request was refused before its body was read
}

// maxKept bounds the memory that a scratch may keep between requests.
const maxKept = 1 << 20

var pool sync.Pool

func take() *scratch {
	s, _ := pool.Get().(*scratch)
	if s == nil {
		s = new(scratch)
	}
	s.out, s.header, s.unread = s.out[:0], -1, false
	return s
}

func (s *scratch) give() {
	kept := cap(s.body) + cap(s.out)
	for _, v := range s.doc.values {
		kept += v.Kept()
	}
	clear(s.doc.inputs)
	clear(s.doc.outputs)
	clear(s.sent)
	s.doc.reset(false, 0)
	s.sent = s.sent[:0]
	if kept <= maxKept && cap(s.doc.inputs)+cap(s.doc.outputs) < 256 {
		pool.Put(s)
	}
}

// infer answers a request to infer.
func (h *handler) infer(s *scratch, w http.ResponseWriter, r *http.Request, spec inference.Spec, start time.Time, o *api.Observation) *inference.Error {
	s.unread = true
	json, bad := headerLength(r)
	if bad != nil {
		return bad
	}
	caller, timeout, bad := h.door.Caller(r, start)
	if bad != nil {
		return bad
	}
	entry, bad := h.svc.Enter(spec, caller)
	if bad != nil {
		return bad
	}
	defer entry.Leave()
	var begun bool
	s.body, begun, bad = h.door.Read(s.body, w, r, entry.Grow)
	s.unread = !begun
	if bad != nil {
		return bad
	}
	if bad = s.read(json, h.opts.StrictJSON, h.maxTensor); bad != nil {
		return bad
	}
	p := &s.doc.params
	if again := p.HasClass && p.Class != caller.Class; again || p.Timeout > 0 && (timeout == 0 || p.Timeout < timeout) {
		if p.HasClass {
			caller.Class = p.Class
		}
		if p.Timeout > 0 && (timeout == 0 || p.Timeout < timeout) {
			timeout = p.Timeout
			caller.Deadline = start.Add(timeout)
		}
		if bad = h.svc.Again(&entry, spec, caller); bad != nil {
			return bad
		}
	}
	spec.Keys = rest.Keys(r.Header)
	handle, bad := h.oip.Acquire(spec)
	if bad != nil {
		return bad
	}
	defer handle.Release()
	v := handle.Version()
	o.Version = v.Number
	req, bad := s.request(v, json)
	if req != nil && req.Signature != nil {
		o.Signature = req.Signature.Key
	}
	if bad != nil {
		return bad
	}
	entry.Fill(req)
	defer req.Ticket.Leave()
	ctx := r.Context()
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, start.Add(timeout))
		defer cancel()
	}
	resp, err := h.svc.Predict(ctx, handle, req)
	if err != nil {
		return inference.AsError(err)
	}
	defer resp.Release()
	s.out, s.header, bad = s.want.encode(s.out, v, req.Signature, s.doc.id, resp.Outputs, h.opts.StrictJSON)
	return bad
}

// headerLength is what the header says, -1 where it is not there.
func headerLength(r *http.Request) (int, *inference.Error) {
	values := r.Header[LengthHeader]
	if len(values) == 0 {
		return -1, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 31)
	if err != nil || len(values) > 1 {
		return 0, oip.Invalid("%s: %q is no number of bytes; send the length of the JSON, or leave the header out", LengthHeader, oip.Cut(values[0]))
	}
	return int(n), nil
}

// read reads the document at the beginning of s.body, which ends in NULs, and the raw tensors after its first json bytes. -1: there are none; 0: there is
// no document.
func (s *scratch) read(json int, strict bool, maxBytes int) *inference.Error {
	s.doc.reset(strict, maxBytes)
	size := len(s.body) - rest.Sentinel
	switch {
	case json == 0:
		s.doc.params.BinaryOutput = true
		return nil
	case json < 0:
		if err := s.doc.read(s.body); err != nil {
			return err
		}
		for i := range s.doc.inputs {
			if in := &s.doc.inputs[i]; in.binary >= 0 {
				return oip.Invalid("input %q has the parameter binary_data_size, and the request has no header %s, which says where the binary data begins", oip.Cut(in.name), LengthHeader)
			}
		}
		return nil
	case json > size:
		return oip.Invalid("%s: %d bytes of JSON, and the body has %d", LengthHeader, json, size)
	}
	// The reader takes NULs for the end. The raw bytes that lie there are put back before they are looked at.
	var under [rest.Sentinel]byte
	end := s.body[json : json+rest.Sentinel]
	copy(under[:], end)
	clear(end)
	err := s.doc.read(s.body[:json+rest.Sentinel])
	copy(end, under[:])
	if err != nil {
		return err
	}
	return s.doc.raw(s.body[json:size:size])
}

// request is what is asked of the version. After an error it has the signature, where that is known.
func (s *scratch) request(v *inference.Version, json int) (*inference.Request, *inference.Error) {
	sig, err := oip.Signature(v, s.doc.params.Signature)
	if err != nil {
		return nil, err
	}
	req := &inference.Request{Signature: sig}
	if err := s.want.want(v, sig, s.doc.outputs, s.doc.params.BinaryOutput); err != nil {
		return req, err
	}
	req.Outputs = s.want.outputs
	if json == 0 {
		t, err := whole(v, sig, s.body[:len(s.body)-rest.Sentinel])
		if err != nil {
			return req, err
		}
		req.Inputs = []*tensor.Tensor{t}
		return req, nil
	}
	for i := range s.doc.inputs {
		s.sent = append(s.sent, oip.Input{Name: s.doc.inputs[i].name, Tensor: &s.doc.inputs[i].content})
	}
	req.Inputs, err = oip.Inputs(v, sig, s.sent)
	return req, err
}
