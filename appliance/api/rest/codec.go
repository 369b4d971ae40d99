// codec.go: a predict request read, and its answer written, at the door or away from it.
package rest

import (
	"math"
	"net/http"
	"sync"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// CodecOptions of [NewCodec]. Zero means default.
type CodecOptions struct {
	// MaxRequestBytes bounds what the tensors of one request may take, at four times the text. 0 means [DefaultMaxRequestBytes].
	MaxRequestBytes int64
	// StrictJSON is as in [Options].
	StrictJSON bool
	// Compact leaves the white space out of answers, makes all of their text UTF-8, and null of what JSON has no number for. Without it an
	// answer is :predict's, byte for byte.
	Compact bool
}

// NewCodec reads the bodies of :predict and writes its answers, for whoever has them from elsewhere. Errors are those of :predict.
func NewCodec(opts CodecOptions) api.Codec {
	if opts.MaxRequestBytes <= 0 {
		opts.MaxRequestBytes = DefaultMaxRequestBytes
	}
	return &codec{scratches{strict: opts.StrictJSON, compact: opts.Compact, maxBytes: maxTensorBytes(opts.MaxRequestBytes)}}
}

type codec struct{ scratches }

// Decode implements api.Codec. It copies body.
func (c *codec) Decode(body []byte, v *inference.Version) (api.Call, *inference.Error) {
	s := c.take()
	if want := len(body) + sentinel; cap(s.body) < want {
		s.body = make([]byte, want)
	}
	s.body = append(s.body[:0], body...)
	s.body = append(s.body, make([]byte, sentinel)...)
	if _, err := s.read(v); err != nil {
		c.give(s)
		return nil, err
	}
	return s, nil
}

// scratches makes scratch and keeps it for later. It is immutable but for the pool.
type scratches struct {
	strict, compact bool
	maxBytes        int // of one tensor
	pool            sync.Pool
}

// scratch is the memory of one request, used again for a later one. It is an api.Call.
type scratch struct {
	home *scratches
	body []byte
	dec  decoder
	enc  encoder
	req  inference.Request

	unread bool // the request was refused before its body was read
	status int  // of a good answer
}

// maxKept bounds the memory that a scratch may keep between requests.
const maxKept = 4 << 20

func maxTensorBytes(maxRequest int64) int {
	return int(min(4*maxRequest, math.MaxInt/2)) // a double takes two bytes of text, and eight of memory
}

func (p *scratches) take() *scratch {
	s, _ := p.pool.Get().(*scratch)
	if s == nil {
		s = &scratch{home: p}
		s.dec.strict, s.enc.strict, s.enc.compact = p.strict, p.strict || p.compact, p.compact
		s.dec.maxBytes = p.maxBytes
	}
	s.enc.out, s.unread, s.status = s.enc.out[:0], false, http.StatusOK
	return s
}

func (p *scratches) give(s *scratch) {
	kept := cap(s.body) + cap(s.enc.out)
	for i := range s.dec.fills {
		f := &s.dec.fills[i]
		clear(f.strings) // they hold other memory
		kept += cap(f.data) + stringHeader*cap(f.strings)
	}
	if kept > maxKept {
		return
	}
	clear(s.dec.tensors)
	s.dec.sig, s.req = nil, inference.Request{Outputs: s.req.Outputs[:0]}
	p.pool.Put(s)
}

// explainer is for the body that is in s.
func (s *scratch) explainer() explainer {
	return explainer{b: s.body, strict: s.dec.strict, maxBytes: s.dec.maxBytes}
}

// read makes the request of s.body, which ends in NULs. The signature is nil where the document names none of the version's.
func (s *scratch) read(v *inference.Version) (*inference.Signature, *inference.Error) {
	if !s.dec.decode(s.body, v) {
		why := s.explainer()
		err := why.explain(v)
		return why.found, err
	}
	sig := s.dec.sig
	wanted := s.req.Outputs[:0]
	for i := range sig.Outputs {
		wanted = append(wanted, i)
	}
	s.req = inference.Request{Signature: sig, Inputs: s.dec.inputs, Outputs: wanted}
	return sig, nil
}

// Request implements api.Call.
func (s *scratch) Request() *inference.Request { return &s.req }

// Append implements api.Call. After an error dst is as it was.
func (s *scratch) Append(dst []byte, resp *inference.Response) ([]byte, *inference.Error) {
	s.enc.out = dst
	err := s.write(resp)
	out := s.enc.out
	s.enc.out = nil // the caller's
	if err != nil {
		return dst, err
	}
	return out, nil
}

func (s *scratch) write(resp *inference.Response) *inference.Error {
	return s.enc.response(s.dec.row, s.req.Signature.Outputs, s.req.Outputs, resp.Outputs)
}

// Free implements api.Call.
func (s *scratch) Free() { s.home.give(s) }
