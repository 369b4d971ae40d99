// tensor_test.go: shapes that cannot be, bytes that disagree, joining and splitting.
package tensor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"
)

func TestShapeElements(t *testing.T) {
	for _, c := range []struct {
		name  string
		shape Shape
		want  int64
		err   error
	}{
		{"scalar", Shape{}, 1, nil},
		{"vector", Shape{3}, 3, nil},
		{"with zero", Shape{4, 0, 2}, 0, nil},
		{"negative", Shape{2, -1}, 0, ErrShape},
		{"negative behind zero", Shape{0, -1}, 0, ErrShape},
		{"largest", Shape{math.MaxInt64}, math.MaxInt64, nil},
		{"overflow", Shape{1 << 32, 1 << 31}, 0, ErrShape},
		{"overflow by three", Shape{1 << 21, 1 << 21, 1 << 22}, 0, ErrShape},
		{"zero hides no overflow of the rest", Shape{1 << 62, 1 << 62, 0}, 0, ErrShape},
		{"too many dimensions", make(Shape, MaxRank+1), 0, ErrShape},
	} {
		got, err := c.shape.Elements()
		if !errors.Is(err, c.err) || got != c.want {
			t.Errorf("%s: %v has %d elements, %v; want %d, %v", c.name, c.shape, got, err, c.want, c.err)
		}
	}
	if _, err := (Shape{1 << 61}).Bytes(Double); !errors.Is(err, ErrShape) {
		t.Errorf("bytes of 2^61 doubles: %v, want %v", err, ErrShape)
	}
}

func TestAccepts(t *testing.T) {
	for _, c := range []struct {
		declared, sent Shape
		want           bool
	}{
		{Shape{-1, 28}, Shape{5, 28}, true},
		{Shape{-1, 28}, Shape{5, 27}, false},
		{Shape{-1, 1}, Shape{3}, false},
		{Shape{}, Shape{}, true},
		{Shape{}, Shape{1}, false},
	} {
		if got := c.declared.Accepts(c.sent); got != c.want {
			t.Errorf("%v accepts %v: %v", c.declared, c.sent, got)
		}
	}
}

func TestNewHoldsBytesAgainstShape(t *testing.T) {
	if _, err := New(Float, Shape{2, 2}, make([]byte, 15)); !errors.Is(err, ErrSize) {
		t.Errorf("15 bytes for [2,2] floats: %v", err)
	}
	if _, err := NewStrings(Shape{2}, make([][]byte, 3)); !errors.Is(err, ErrSize) {
		t.Errorf("3 strings for [2]: %v", err)
	}
	if _, err := New(Resource, Shape{}, nil); err == nil {
		t.Error("a resource has no bytes")
	}
}

func strs(s ...string) *Tensor {
	t := &Tensor{DType: String, Shape: Shape{int64(len(s))}}
	for _, e := range s {
		t.Strings = append(t.Strings, []byte(e))
	}
	return t
}

func TestPartsRoundTrip(t *testing.T) {
	a := &Tensor{DType: Int16, Shape: Shape{1, 2}, Data: []byte{1, 0, 2, 0}}
	b := &Tensor{DType: Int16, Shape: Shape{2, 2}, Data: []byte{3, 0, 4, 0, 5, 0, 6, 0}}
	for _, c := range []struct {
		name  string
		parts Parts
		shape Shape
		data  []byte
		texts []string
	}{
		{"one", One(a), Shape{1, 2}, []byte{1, 0, 2, 0}, nil},
		{"joined", Parts{Pieces: []*Tensor{a, b}}, Shape{3, 2}, []byte{1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0}, nil},
		{"padded", Parts{Pieces: []*Tensor{b}, Pad: 2}, Shape{4, 2}, []byte{3, 0, 4, 0, 5, 0, 6, 0, 3, 0, 4, 0, 3, 0, 4, 0}, nil},
		{"scalar", One(&Tensor{DType: Int8, Shape: Shape{}, Data: []byte{7}}), Shape{}, []byte{7}, nil},
		{"strings", Parts{Pieces: []*Tensor{strs("a", ""), strs("héllo")}, Pad: 1}, Shape{4}, nil, []string{"a", "", "héllo", "a"}},
	} {
		buf := make([]byte, c.parts.EncodedLen())
		c.parts.Encode(buf)
		got, err := Decode(c.parts.DType(), c.parts.Shape(), buf)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if !got.Shape.Equal(c.shape) || !bytes.Equal(got.Data, c.data) || len(got.Strings) != len(c.texts) {
			t.Errorf("%s: got %v %v %q", c.name, got.Shape, got.Data, got.Strings)
		}
		for i, s := range c.texts {
			if string(got.Strings[i]) != s {
				t.Errorf("%s: string %d is %q, want %q", c.name, i, got.Strings[i], s)
			}
		}
	}
}

func TestSliceSharesMemory(t *testing.T) {
	whole := &Tensor{DType: Uint8, Shape: Shape{3, 2}, Data: []byte{1, 2, 3, 4, 5, 6}}
	part := whole.Slice(1, 3)
	if !part.Shape.Equal(Shape{2, 2}) || !bytes.Equal(part.Data, []byte{3, 4, 5, 6}) || &part.Data[0] != &whole.Data[2] {
		t.Fatalf("got %v %v", part.Shape, part.Data)
	}
	if cap(part.Data) != 4 {
		t.Fatal("an append to a slice could overwrite the neighbour's rows")
	}
	words := strs("a", "b", "c").Slice(1, 2)
	if len(words.Strings) != 1 || string(words.Strings[0]) != "b" {
		t.Fatalf("got %q", words.Strings)
	}
}

func TestCloneSharesNothing(t *testing.T) {
	a := strs("one", "two")
	b := a.Clone()
	a.Strings[0][0] = 'X'
	if string(b.Strings[0]) != "one" || string(b.Strings[1]) != "two" {
		t.Fatalf("got %q", b.Strings)
	}
}

// FuzzDecode feeds what a lying worker could write: nothing may panic, and what is accepted must lie within the bytes.
func FuzzDecode(f *testing.F) {
	good := Parts{Pieces: []*Tensor{strs("ab", "c")}}
	buf := make([]byte, good.EncodedLen())
	good.Encode(buf)
	f.Add(int32(String), int64(2), int64(1), buf)
	f.Add(int32(Float), int64(2), int64(3), make([]byte, 24))
	f.Add(int32(String), int64(1)<<61, int64(1), buf)
	lie := bytes.Clone(buf)
	binary.LittleEndian.PutUint64(lie[8:], math.MaxUint64)
	f.Add(int32(String), int64(2), int64(1), lie)
	f.Fuzz(func(t *testing.T, d int32, rows, cols int64, src []byte) {
		got, err := Decode(DType(d), Shape{rows, cols}, src)
		if err != nil {
			return
		}
		if got.Bytes() > int64(len(src)) {
			t.Fatalf("%d bytes out of %d", got.Bytes(), len(src))
		}
		again := make([]byte, One(got).EncodedLen())
		One(got).Encode(again)
		if !bytes.Equal(again, src) {
			t.Fatalf("accepted %x, which encodes as %x", src, again)
		}
	})
}
