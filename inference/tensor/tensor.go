// Package tensor has typed, shaped, bounds-checked bytes in pure Go.
//
// Invariants:
//  1. A Tensor made by [New] or [NewStrings] has exactly the bytes (or strings) that its shape asks for.
//  2. Numbers are little-endian and row-major, as in TensorProto.tensor_content and in TensorFlow's memory on every
//     machine that inferd runs on.
//  3. A Tensor never owns memory that must be freed. Where its bytes are lent (from a request body, from a worker's shared
//     memory), the lender's documentation says until when.
//
// It is not for arithmetic: nothing here computes with the numbers.
package tensor

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrSize is wrapped by every error about bytes that disagree with a shape.
var ErrSize = errors.New("bytes disagree with shape")

// Tensor is a value of one type and shape. Data holds every type but String, whose elements are in Strings.
// The fields are read-only once the tensor has been handed on.
type Tensor struct {
	DType   DType
	Shape   Shape
	Data    []byte
	Strings [][]byte
}

// New wraps data, which is kept and not copied. It fails with [ErrShape] or [ErrSize] where shape and data disagree.
func New(d DType, shape Shape, data []byte) (*Tensor, error) {
	if d.Size() == 0 {
		return nil, fmt.Errorf("%v has no bytes of its own", d)
	}
	want, err := shape.Bytes(d)
	if err != nil {
		return nil, err
	}
	if want != int64(len(data)) {
		return nil, fmt.Errorf("%w: %v %v takes %d bytes, got %d", ErrSize, d, shape, want, len(data))
	}
	return &Tensor{DType: d, Shape: shape, Data: data}, nil
}

// NewStrings wraps elements, which are kept and not copied.
func NewStrings(shape Shape, elements [][]byte) (*Tensor, error) {
	want, err := shape.Elements()
	if err != nil {
		return nil, err
	}
	if want != int64(len(elements)) {
		return nil, fmt.Errorf("%w: %v %v takes %d strings, got %d", ErrSize, String, shape, want, len(elements))
	}
	return &Tensor{DType: String, Shape: shape, Strings: elements}, nil
}

// Rows is the size of the first dimension; ok is false for a scalar.
func (t *Tensor) Rows() (rows int64, ok bool) {
	if len(t.Shape) == 0 {
		return 0, false
	}
	return t.Shape[0], true
}

// Slice is rows [from, to) of the first dimension, sharing t's memory. It panics where t is a scalar or the rows are out of range:
// the caller has split what it joined.
func (t *Tensor) Slice(from, to int64) *Tensor {
	rows, ok := t.Rows()
	if !ok || from < 0 || to < from || to > rows {
		panic(fmt.Sprintf("tensor: slice [%d,%d) of %v", from, to, t.Shape))
	}
	shape := append(Shape{to - from}, t.Shape[1:]...)
	if t.DType == String {
		per := perRow(int64(len(t.Strings)), rows)
		return &Tensor{DType: String, Shape: shape, Strings: t.Strings[from*per : to*per : to*per]}
	}
	per := perRow(int64(len(t.Data)), rows)
	return &Tensor{DType: t.DType, Shape: shape, Data: t.Data[from*per : to*per : to*per]}
}

func perRow(total, rows int64) int64 {
	if rows == 0 {
		return 0
	}
	return total / rows
}

// Bytes is the memory that the elements take.
func (t *Tensor) Bytes() int64 {
	n := int64(len(t.Data))
	for _, s := range t.Strings {
		n += int64(len(s))
	}
	return n
}

// Clone copies the tensor into memory of its own.
func (t *Tensor) Clone() *Tensor {
	c := &Tensor{DType: t.DType, Shape: append(Shape(nil), t.Shape...)}
	CountCopy(int(t.Bytes()))
	if t.DType != String {
		c.Data = append([]byte(nil), t.Data...)
		return c
	}
	all := make([]byte, 0, t.Bytes())
	c.Strings = make([][]byte, len(t.Strings))
	for i, s := range t.Strings {
		at := len(all)
		all = append(all, s...)
		c.Strings[i] = all[at:len(all):len(all)]
	}
	return c
}

// Parts is one logical tensor in pieces: the pieces joined along the first dimension, then Pad more rows that repeat the first
// row of the first piece (as TensorFlow Serving pads a batch to an allowed size). A single piece with no Pad may be a scalar.
// All pieces have the same type and the same dimensions after the first.
type Parts struct {
	Pieces []*Tensor
	Pad    int64
}

// One is a tensor in one piece.
func One(t *Tensor) Parts { return Parts{Pieces: []*Tensor{t}} }

// DType is the type of the whole.
func (p Parts) DType() DType { return p.Pieces[0].DType }

// Shape is the shape of the whole.
func (p Parts) Shape() Shape {
	first := p.Pieces[0].Shape
	if len(p.Pieces) == 1 && p.Pad == 0 {
		return first
	}
	s := append(Shape(nil), first...)
	for _, t := range p.Pieces[1:] {
		s[0] += t.Shape[0]
	}
	s[0] += p.Pad
	return s
}

// EncodedLen is the number of bytes that [Parts.Encode] writes.
func (p Parts) EncodedLen() int {
	n := 0
	if p.DType() != String {
		for _, t := range p.Pieces {
			n += len(t.Data)
		}
		if p.Pad > 0 {
			n += int(p.Pad) * len(p.padRow().Data)
		}
		return n
	}
	count := 0
	add := func(t *Tensor, times int) {
		count += times * len(t.Strings)
		n += times * int(t.Bytes())
	}
	for _, t := range p.Pieces {
		add(t, 1)
	}
	if p.Pad > 0 {
		add(p.padRow(), int(p.Pad))
	}
	return n + 8*(count+1)
}

// Encode writes the whole at the start of dst, which has at least [Parts.EncodedLen] bytes. Numbers are written as they are.
// Strings are written as count+1 little-endian uint64 offsets, from the end of that table, and then their bytes.
func (p Parts) Encode(dst []byte) {
	if p.DType() != String {
		for _, t := range p.Pieces {
			CountCopy(len(t.Data))
			dst = dst[copy(dst, t.Data):]
		}
		for range p.Pad {
			dst = dst[copy(dst, p.padRow().Data):]
		}
		return
	}
	count := 0
	for _, t := range p.Pieces {
		count += len(t.Strings)
	}
	var pad *Tensor
	if p.Pad > 0 {
		pad = p.padRow()
		count += int(p.Pad) * len(pad.Strings)
	}
	table, data, at, i := dst[:8*(count+1)], dst[8*(count+1):], 0, 0
	add := func(t *Tensor) {
		for _, s := range t.Strings {
			CountCopy(len(s))
			binary.LittleEndian.PutUint64(table[8*i:], uint64(at))
			at += copy(data[at:], s)
			i++
		}
	}
	for _, t := range p.Pieces {
		add(t)
	}
	for range p.Pad {
		add(pad)
	}
	binary.LittleEndian.PutUint64(table[8*i:], uint64(at))
}

func (p Parts) padRow() *Tensor { return p.Pieces[0].Slice(0, 1) }

// Decode reads what [Parts.Encode] wrote, sharing src's memory. Every offset is checked: src may come from a process that lies.
func Decode(d DType, shape Shape, src []byte) (*Tensor, error) {
	if d != String {
		return New(d, shape, src)
	}
	n, err := shape.Elements()
	if err != nil {
		return nil, err
	}
	if n > int64(len(src))/8-1 {
		return nil, fmt.Errorf("%w: %d strings cannot lie in %d bytes", ErrSize, n, len(src))
	}
	table, data := src[:8*(n+1)], src[8*(n+1):]
	elements := make([][]byte, n)
	from := binary.LittleEndian.Uint64(table)
	if from != 0 {
		return nil, fmt.Errorf("%w: the first string begins at %d", ErrSize, from)
	}
	for i := range elements {
		to := binary.LittleEndian.Uint64(table[8*(i+1):])
		if to < from || to > uint64(len(data)) {
			return nil, fmt.Errorf("%w: string %d ends at %d of %d bytes", ErrSize, i, to, len(data))
		}
		elements[i] = data[from:to:to]
		from = to
	}
	if from != uint64(len(data)) {
		return nil, fmt.Errorf("%w: %d bytes after the last string", ErrSize, uint64(len(data))-from)
	}
	return &Tensor{DType: String, Shape: shape, Strings: elements}, nil
}
