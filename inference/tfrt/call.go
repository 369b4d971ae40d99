// call.go: one run, with the inputs lent to TensorFlow and the outputs lent by it.
package tfrt

/*
#include "call.h"
*/
import "C"

import (
	"runtime"
	"unsafe"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

const (
	// align is what TensorFlow asks of memory that it is to use in place (EIGEN_MAX_ALIGN_BYTES of an AVX-512 build).
	align = 64
	// keepArena is the largest arena in bytes that an idle call keeps for the next one.
	keepArena = 8 << 20
	// stringBytes is the size of one TF_TString.
	stringBytes = int64(unsafe.Sizeof(C.TF_TString{}))
)

// call is one run's structure in C and what Go keeps beside it. One goroutine owns it at a time.
type call struct {
	c       *C.inferd_call
	e       *entry
	arena   int64          // bytes in the arena of c.hold
	parts   []tensor.Parts // scratch of Call
	lengths []C.uint64_t   // scratch for strings
	joined  []byte         // scratch for strings
	tensors []tensor.Tensor
	asked   []int // of a frozen model, which computes all outputs: those that are wanted
}

// Late says when TensorFlow has let go of input memory that it kept beyond the call. One goroutine uses it at a time.
type Late struct {
	hold *C.inferd_hold
	keep []*tensor.Tensor
}

// Freed reports whether the input memory of the call may be reused. It is to be polled until it says true, which also gives back the few
// bytes that the account takes. It never blocks.
func (l *Late) Freed() bool {
	if l.hold == nil {
		return true
	}
	if C.inferd_hold_lent(l.hold) > 0 {
		return false
	}
	C.inferd_hold_drop(l.hold)
	l.hold, l.keep = nil, nil
	return true
}

// Call runs the signature once in the calling thread and blocks until it has ended.
//
// in has one tensor per sig.Inputs, of the declared type. Data that begins at a multiple of 64 bytes is used in place and must stay
// unchanged until Call has returned with no late, or until late.Freed; other data, and all strings, are copied. outputs are indexes into
// sig.Outputs. out is called once per element of outputs, with its position in outputs and the tensor, which with its shape is lent until
// out returns; an error from it ends the call and is returned as it is.
//
// late is nil when TensorFlow holds none of the input memory any more. Otherwise (a model that assigned its input to a variable, say) it
// tells when it has let go; late may come with an error.
//
// The error is an *inference.Error: TensorFlow's own code and text, INVALID_ARGUMENT for tensors that do not fit the signature, what
// Prepare says; or ErrClosed, or out's.
func (m *Model) Call(sig *inference.Signature, in []*tensor.Tensor, outputs []int, out func(i int, t *tensor.Tensor) error) (late *Late, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed {
		return nil, inference.ErrClosed
	}
	e, err := m.entry(sig)
	if err != nil {
		return nil, err
	}
	c, err := e.take(len(outputs))
	if err != nil {
		return nil, err
	}
	c.parts = c.parts[:0]
	for i := range in {
		if in[i] == nil {
			e.put(c)
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %d was not sent", i)
		}
		c.parts = append(c.parts, tensor.Parts{Pieces: in[i : i+1]})
	}
	err = c.set(m, c.parts, outputs, true)
	clear(c.parts)
	if err != nil {
		e.put(c)
		return nil, err
	}
	defer func() { // also where out panics: C memory waits for no collector
		late = c.finish(in)
	}()
	if err := c.run(); err != nil {
		return nil, err
	}
	for i := range outputs {
		if err := c.output(i, &c.tensors[i]); err != nil {
			return nil, err
		}
		if err := out(i, &c.tensors[i]); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// set fills the structure: it checks all inputs first, so that a refusal leaves nothing to undo. lend allows aligned data to be used in
// place.
func (c *call) set(m *Model, parts []tensor.Parts, outputs []int, lend bool) error {
	e := c.e
	if err := e.check(parts, outputs); err != nil {
		return err
	}
	var arena, dims int64
	for _, i := range e.fed {
		arena += c.copied(parts[i], lend)
		dims += int64(rank(parts[i]))
	}
	if err := c.room(arena, dims); err != nil {
		return err
	}
	p := c.c
	p.session, p.options, p.feeds = m.session, m.options, e.feeds
	p.nin, p.nout = C.int(len(e.fed)), C.int(len(outputs))
	if e.names != nil {
		c.plain(m, outputs)
	} else {
		fetches := unsafe.Slice(p.fetches, len(outputs))
		for i, o := range outputs {
			fetches[i] = e.fetches[o]
		}
	}
	inputs := unsafe.Slice(p.in, len(e.fed))
	at, dim := int64(0), 0
	for n, i := range e.fed {
		put := &inputs[n]
		bytes := c.copied(parts[i], lend)
		c.put(put, parts[i], at, bytes)
		at += bytes
		put.dims = C.size_t(dim)
		dim += c.putShape(parts[i], dim)
	}
	return nil
}

// check is everything that can be wrong with the arguments. What passes cannot make C read outside a buffer.
func (e *entry) check(parts []tensor.Parts, outputs []int) error {
	sig := e.sig
	if len(parts) != len(sig.Inputs) {
		return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "signature %q has %d inputs, %d were sent", sig.Key, len(sig.Inputs), len(parts))
	}
	for _, o := range outputs {
		if o < 0 || o >= len(sig.Outputs) {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "signature %q has %d outputs, number %d was asked for", sig.Key, len(sig.Outputs), o)
		}
		if d := sig.Outputs[o].DType.Base(); !d.Carried() {
			return inference.Errorf(inference.Unimplemented, inference.ReasonInput, "output %q is a %v, which cannot leave the runtime", sig.Outputs[o].Alias, d)
		}
	}
	for i := range parts {
		info := &sig.Inputs[i]
		if len(parts[i].Pieces) == 0 {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q was not sent", info.Alias)
		}
		if err := checkParts(info, parts[i]); err != nil {
			return err
		}
		if j := e.same[i]; j != i && !sameParts(parts[i], parts[j]) {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
				"inputs %q and %q are the same tensor %q of the graph, but different values were sent for it", sig.Inputs[j].Alias, info.Alias, info.Tensor)
		}
	}
	return nil
}

func checkParts(info *inference.TensorInfo, p tensor.Parts) error {
	d := info.DType.Base()
	for _, t := range p.Pieces {
		if t.DType != d || !d.Carried() {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q is %v, %v was sent", info.Alias, d, t.DType)
		}
		n, err := t.Shape.Bytes(d)
		have := int64(len(t.Data))
		if d == tensor.String {
			n, err = t.Shape.Elements()
			have = int64(len(t.Strings))
		}
		if err != nil || n != have {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q: a %v of shape %v does not fit what was sent for it", info.Alias, d, t.Shape)
		}
		if len(p.Pieces) == 1 && p.Pad == 0 {
			return nil
		}
		first := p.Pieces[0].Shape
		if len(t.Shape) == 0 || !t.Shape[1:].Equal(first[1:]) || p.Pad > 0 && first[0] == 0 || p.Pad < 0 {
			return inference.Errorf(inference.Internal, inference.ReasonInput, "input %q: shapes %v and %v cannot be joined", info.Alias, first, t.Shape)
		}
	}
	return nil
}

func sameParts(a, b tensor.Parts) bool {
	if !a.Shape().Equal(b.Shape()) || a.EncodedLen() != b.EncodedLen() {
		return false
	}
	x, y := make([]byte, a.EncodedLen()), make([]byte, b.EncodedLen())
	a.Encode(x)
	b.Encode(y)
	return string(x) == string(y)
}

func rank(p tensor.Parts) int { return len(p.Pieces[0].Shape) }

// lendable is the memory of p where TensorFlow can use it as it lies.
func lendable(p tensor.Parts) (data []byte, ok bool) {
	if len(p.Pieces) > 1 || p.Pad > 0 || p.Pieces[0].DType == tensor.String {
		return nil, false
	}
	data = p.Pieces[0].Data
	return data, len(data) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(data)))%align == 0
}

// copied is the room in the arena that p takes, 0 where it is lent.
func (c *call) copied(p tensor.Parts, lend bool) int64 {
	if _, ok := lendable(p); ok && lend {
		return 0
	}
	n := int64(0)
	if p.DType() == tensor.String {
		for _, t := range p.Pieces {
			n += stringBytes * int64(len(t.Strings))
		}
		if rows, ok := p.Pieces[0].Rows(); ok && p.Pad > 0 {
			n += p.Pad * (stringBytes * int64(len(p.Pieces[0].Strings)) / rows)
		}
	} else {
		n = int64(p.EncodedLen())
	}
	return (n + align - 1) &^ (align - 1)
}

// room makes the hold's arena and the dimensions' array large enough.
func (c *call) room(arena, dims int64) error {
	p := c.c
	if p.hold != nil && c.arena < arena {
		C.inferd_hold_drop(p.hold)
		p.hold = nil
	}
	if p.hold == nil {
		if p.hold = C.inferd_hold_new(C.size_t(arena)); p.hold == nil {
			return outOfMemory()
		}
		c.arena = arena
	}
	if dims > int64(p.in_dims_cap) && C.inferd_call_dims(p, C.size_t(dims)) == 0 {
		return outOfMemory()
	}
	return nil
}

// put describes p as an input, copied to the arena at that offset where it takes room there. An address is stored as a number: c.parts has
// made every tensor of the call escape to the heap, whose objects do not move, and the callers keep them alive.
func (c *call) put(in *C.inferd_input, p tensor.Parts, at, room int64) {
	d := p.DType()
	in._type = C.TF_DataType(d)
	in.rank = C.int(rank(p))
	if d != tensor.String && room == 0 {
		data, _ := lendable(p)
		in.kind, in.bytes = C.INFERD_LENT, C.size_t(len(data))
		in.data = C.uintptr_t(uintptr(unsafe.Pointer(unsafe.SliceData(data))))
		return
	}
	base := unsafe.Add(unsafe.Pointer(C.inferd_hold_arena(c.c.hold)), at)
	in.data = C.uintptr_t(uintptr(base))
	if d == tensor.String {
		in.kind = C.INFERD_STRINGS
		in.bytes = C.size_t(c.putStrings((*C.TF_TString)(base), p)) * C.size_t(stringBytes)
		return
	}
	n := p.EncodedLen()
	in.kind, in.bytes = C.INFERD_COPIED, C.size_t(n)
	p.Encode(unsafe.Slice((*byte)(base), n))
}

// putShape writes the dimensions of p from that index on and returns their number.
func (c *call) putShape(p tensor.Parts, at int) int {
	first := p.Pieces[0].Shape
	dims := unsafe.Slice((*int64)(c.c.in_dims), c.c.in_dims_cap)[at:]
	copy(dims, first)
	if len(p.Pieces) > 1 || p.Pad > 0 {
		dims[0] += p.Pad
		for _, t := range p.Pieces[1:] {
			dims[0] += t.Shape[0]
		}
	}
	return len(first)
}

// putStrings builds the elements in C and returns their number. Strings that lie end to end (as a decoder of frames leaves them) are
// copied once; others are joined first.
func (c *call) putStrings(to *C.TF_TString, p tensor.Parts) int {
	pieces := p.Pieces
	if p.Pad > 0 {
		row := p.Pieces[0].Slice(0, 1)
		pieces = append([]*tensor.Tensor(nil), pieces...)
		for range p.Pad {
			pieces = append(pieces, row)
		}
	}
	c.lengths, c.joined = c.lengths[:0], c.joined[:0]
	var base *byte
	var end uintptr // an address to compare with, never read
	contiguous := true
	for _, t := range pieces {
		for _, s := range t.Strings {
			c.lengths = append(c.lengths, C.uint64_t(len(s)))
			if len(s) == 0 {
				continue
			}
			start := unsafe.SliceData(s)
			if base == nil {
				base = start
			} else if uintptr(unsafe.Pointer(start)) != end {
				contiguous = false
			}
			end = uintptr(unsafe.Pointer(start)) + uintptr(len(s))
		}
	}
	if len(c.lengths) == 0 {
		return 0
	}
	if !contiguous {
		for _, t := range pieces {
			for _, s := range t.Strings {
				c.joined = append(c.joined, s...)
			}
		}
		base = unsafe.SliceData(c.joined)
	}
	C.inferd_strings_make(to, (*C.char)(unsafe.Pointer(base)), unsafe.SliceData(c.lengths), C.size_t(len(c.lengths)))
	runtime.KeepAlive(p)
	if cap(c.joined) > keepArena {
		c.joined = nil
	}
	return len(c.lengths)
}

// run runs the session. finish is to be called afterwards, whatever it returns.
func (c *call) run() error {
	C.inferd_call_run(c.c)
	if c.c.code != 0 {
		return &inference.Error{Code: codeOf(c.c.code), Reason: inference.ReasonRuntime, Msg: C.GoString(c.c.message)}
	}
	return nil
}

// output describes output i in t, whose shape is written over and whose bytes are TensorFlow's own until finish.
func (c *call) output(i int, t *tensor.Tensor) error {
	if c.asked != nil {
		i = c.asked[i]
	}
	o := &unsafe.Slice(c.c.out, i+1)[i]
	d := tensor.DType(o._type)
	t.DType, t.Data, t.Strings = d, nil, nil
	t.Shape = append(t.Shape[:0], unsafe.Slice((*int64)(c.c.out_dims), int(o.dims)+int(o.rank))[o.dims:]...)
	if d == tensor.String {
		n := int64(o.bytes) / stringBytes
		if n == 0 {
			return nil
		}
		views := make([]C.inferd_view, n)
		C.inferd_strings_view((*C.TF_TString)(o.data), &views[0], C.size_t(n))
		t.Strings = make([][]byte, n)
		for i, v := range views {
			t.Strings[i] = unsafe.Slice((*byte)(unsafe.Pointer(v.data)), v.bytes)
		}
		return nil
	}
	if !d.Carried() {
		return inference.Errorf(inference.Unimplemented, inference.ReasonRuntime, "an output is a %v, which cannot leave the runtime", d)
	}
	if o.bytes > 0 {
		t.Data = unsafe.Slice((*byte)(o.data), o.bytes)
	}
	return nil
}

// finish gives the outputs back to TensorFlow and the call back to its entry. The Late has in until the lent memory is free.
func (c *call) finish(in []*tensor.Tensor) *Late {
	p := c.c
	C.inferd_call_done(p)
	runtime.KeepAlive(in)
	for i := range c.tensors {
		c.tensors[i].Data, c.tensors[i].Strings = nil, nil
	}
	var late *Late
	switch {
	case p.lent > 0:
		late = &Late{hold: p.hold, keep: append([]*tensor.Tensor(nil), in...)}
		p.hold = nil
	case p.pending > 0 || c.arena > keepArena:
		C.inferd_hold_drop(p.hold) // what TensorFlow still holds goes with its last deallocator
		p.hold = nil
	}
	c.asked = nil
	c.e.put(c)
	return late
}

func (c *call) free() {
	C.inferd_call_free(c.c)
	c.c = nil
}

// fpMode is the calling thread's floating-point control register.
func fpMode() uint64 { return uint64(C.inferd_fp_get()) }

// setFPMode sets it.
func setFPMode(mode uint64) { C.inferd_fp_set(C.uint64_t(mode)) }
