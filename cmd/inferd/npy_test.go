// npy_test.go: .npy files as NumPy writes them, and as nobody should.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

// npy is a file of format version 1.
func npy(header string, body []byte) []byte {
	header += "\n"
	out := append([]byte(npyMagic), 1, 0)
	out = binary.LittleEndian.AppendUint16(out, uint16(len(header)))
	return append(append(out, header...), body...)
}

func TestReadNPY(t *testing.T) {
	floats := binary.LittleEndian.AppendUint32(nil, math.Float32bits(1.5))
	floats = binary.LittleEndian.AppendUint32(floats, math.Float32bits(-2))
	for _, c := range []struct {
		name, header string
		body         []byte
		dtype        tensor.DType
		shape        tensor.Shape
		wrong        bool
	}{
		{"floats", "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }", floats, tensor.Float, tensor.Shape{1, 2}, false},
		{"scalar", "{'descr': '|u1', 'fortran_order': False, 'shape': (), }", []byte{7}, tensor.Uint8, tensor.Shape{}, false},
		{"vector", "{'descr': '|b1', 'fortran_order': False, 'shape': (2,), }", []byte{1, 0}, tensor.Bool, tensor.Shape{2}, false},
		{"strings", "{'descr': '|S3', 'fortran_order': False, 'shape': (2,), }", []byte("abcd\x00\x00"), tensor.String, tensor.Shape{2}, false},
		{"text", "{'descr': '<U2', 'fortran_order': False, 'shape': (1,), }", []byte("\xe9\x00\x00\x00\x00\x00\x00\x00"), tensor.String, tensor.Shape{1}, false},
		{"no width", "{'descr': '<U0', 'fortran_order': False, 'shape': (1,), }", nil, 0, nil, true},
		{"too wide", "{'descr': '|S9000000000000000000', 'fortran_order': False, 'shape': (1,), }", []byte("x"), 0, nil, true},
		{"wide and big endian", "{'descr': '>U2', 'fortran_order': False, 'shape': (1,), }", make([]byte, 8), 0, nil, true},
		{"fortran order", "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2), }", floats, 0, nil, true},
		{"cut off", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }", floats, 0, nil, true},
		{"big endian", "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", floats, 0, nil, true},
		{"objects", "{'descr': '|O', 'fortran_order': False, 'shape': (2,), }", floats, 0, nil, true},
		{"structured", "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", floats, 0, nil, true},
	} {
		got, err := readNPY(npy(c.header, c.body))
		if (err != nil) != c.wrong {
			t.Errorf("%s: %v", c.name, err)
		} else if err == nil && (got.DType != c.dtype || !got.Shape.Equal(c.shape)) {
			t.Errorf("%s: %v %v", c.name, got.DType, got.Shape)
		} else if c.name == "text" && string(got.Strings[0]) != "é" || c.name == "strings" && string(got.Strings[1]) != "d" {
			t.Errorf("%s: %q", c.name, got.Strings)
		}
	}
}

func TestHalf(t *testing.T) {
	for bits, want := range map[uint16]float64{0x3c00: 1, 0xc000: -2, 0x0001: math.Ldexp(1, -24), 0x7c00: math.Inf(1), 0x7bff: 65504} {
		if got := half(tensor.Half, bits); got != want {
			t.Errorf("half %#x is %v, want %v", bits, got, want)
		}
	}
	if got := half(tensor.BFloat16, 0x3fc0); got != 1.5 {
		t.Errorf("bfloat16 0x3fc0 is %v", got)
	}
}

func TestFold(t *testing.T) {
	if got := fmt.Sprint(fold([]any{1, 2, 3, 4}, []int{2, 2})); got != "[[1 2] [3 4]]" {
		t.Error(got)
	}
	if got := fmt.Sprint(fold(nil, []int{2, 0})); got != "[[] []]" {
		t.Error(got)
	}
}

func FuzzReadNPY(f *testing.F) {
	f.Add(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", []byte{0, 0, 0, 0}))
	f.Add(npy("{'descr': '|S2', 'fortran_order': False, 'shape': (9223372036854775807,), }", []byte("ab")))
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := readNPY(data)
		if err == nil && got.DType != tensor.String && !bytes.HasSuffix(data, got.Data) {
			t.Fatal("the numbers are not the file's")
		}
	})
}
