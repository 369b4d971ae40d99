// tensors.go: raw tensors, and a request's tensors in the order of a signature.
package oip

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unsafe"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// MaxParts bounds the inputs and the outputs that one request may name.
const MaxParts = 1 << 12

// StringHeader is what one element of BYTES costs besides its bytes.
const StringHeader = int64(unsafe.Sizeof([]byte(nil)))

// Input is one tensor of a request under its name.
type Input struct {
	Name   string
	Tensor *tensor.Tensor
}

// Raw is the tensor whose elements are raw: little-endian and row-major, BOOL in a byte, BYTES each behind its length in four bytes. It shares raw's memory. Of what
// elements of BYTES cost besides, *left is taken; less than that is an error.
func Raw(name string, d tensor.DType, shape tensor.Shape, raw []byte, left *int64) (*tensor.Tensor, *inference.Error) {
	if d == tensor.String {
		return rawBytes(name, shape, raw, left)
	}
	want, err := shape.Bytes(d)
	if err != nil {
		return nil, Invalid("input %q: %v", Cut(name), err)
	}
	if want != int64(len(raw)) {
		return nil, Invalid("input %q of datatype %s and shape %v takes %d bytes, got %d", Cut(name), Datatype(d), shape, want, len(raw))
	}
	if d == tensor.Bool {
		for i, b := range raw {
			if b > 1 {
				return nil, Invalid("input %q of datatype BOOL has the byte %d at element %d; send 0 or 1", Cut(name), b, i)
			}
		}
	}
	return &tensor.Tensor{DType: d, Shape: shape, Data: raw}, nil
}

func rawBytes(name string, shape tensor.Shape, raw []byte, left *int64) (*tensor.Tensor, *inference.Error) {
	n, err := shape.Elements()
	if err != nil {
		return nil, Invalid("input %q: %v", Cut(name), err)
	}
	if n > int64(len(raw))/4 {
		return nil, Invalid("input %q of datatype BYTES and shape %v takes %d elements of at least 4 bytes, got %d bytes", Cut(name), shape, n, len(raw))
	}
	if n > *left/StringHeader {
		return nil, TooLarge(name)
	}
	*left -= n * StringHeader
	elements, rest := make([][]byte, n), raw
	for i := range elements {
		if len(rest) < 4 {
			return nil, Invalid("input %q of datatype BYTES ends in the length of element %d of %d; each element is its length, in 4 bytes, and its bytes", Cut(name), i, n)
		}
		size := int64(binary.LittleEndian.Uint32(rest))
		if rest = rest[4:]; size > int64(len(rest)) {
			return nil, Invalid("input %q of datatype BYTES: element %d is said to have %d bytes, %d are left", Cut(name), i, size, len(rest))
		}
		elements[i], rest = rest[:size:size], rest[size:]
	}
	if len(rest) > 0 {
		return nil, Invalid("input %q of datatype BYTES and shape %v has %d bytes after its %d elements", Cut(name), shape, len(rest), n)
	}
	return &tensor.Tensor{DType: tensor.String, Shape: shape, Strings: elements}, nil
}

// TooLarge is the error of an input that would take more memory than a request may.
func TooLarge(name string) *inference.Error {
	return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
		"input %q takes more memory than one request may; send fewer elements per request, or raise limits.max_request_bytes", Cut(name))
}

// RawLen is the number of bytes that [AppendRaw] writes.
func RawLen(t *tensor.Tensor) int64 {
	if t.DType == tensor.String {
		return t.Bytes() + 4*int64(len(t.Strings))
	}
	return int64(len(t.Data))
}

// AppendRaw writes the tensor's elements as [Raw] reads them.
func AppendRaw(dst []byte, t *tensor.Tensor) []byte {
	if t.DType != tensor.String {
		tensor.CountCopy(len(t.Data))
		return append(dst, t.Data...)
	}
	for _, s := range t.Strings {
		dst = binary.LittleEndian.AppendUint32(dst, uint32(len(s)))
		dst = append(dst, s...)
	}
	return dst
}

// Inputs are the tensors in the signature's order, with its defaults for what was not sent. Types and shapes are not looked at here.
func Inputs(v *inference.Version, sig *inference.Signature, sent []Input) ([]*tensor.Tensor, *inference.Error) {
	list := make([]*tensor.Tensor, len(sig.Inputs))
	for i := range sent {
		k := sig.Input(sent[i].Name)
		switch {
		case k < 0:
			return nil, Invalid("input %q is none of signature %q of model %s version %d, which takes %s", Cut(sent[i].Name), sig.Key, v.Model, v.Number, declared(sig.Inputs))
		case list[k] != nil:
			return nil, Invalid("input %q was sent twice", Cut(sent[i].Name))
		}
		list[k] = sent[i].Tensor
	}
	for i, t := range list {
		if t != nil {
			continue
		}
		info := &sig.Inputs[i]
		if info.Default == nil {
			return nil, Invalid("input %q is missing; signature %q of model %s version %d takes %s", info.Alias, sig.Key, v.Model, v.Number, declared(sig.Inputs))
		}
		list[i] = info.Default
	}
	return list, nil
}

// Output is the index of the output of that name. seen has one element per output, and remembers.
func Output(v *inference.Version, sig *inference.Signature, name string, seen []bool) (int, *inference.Error) {
	k := sig.Output(name)
	switch {
	case k < 0:
		return 0, Invalid("output %q is none of signature %q of model %s version %d, which gives %s", Cut(name), sig.Key, v.Model, v.Number, declared(sig.Outputs))
	case seen[k]:
		return 0, Invalid("output %q is asked for twice", Cut(name))
	}
	seen[k] = true
	return k, nil
}

// declared are inputs or outputs in words.
func declared(infos []inference.TensorInfo) string {
	var b strings.Builder
	for i := range infos {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > 512 {
			fmt.Fprintf(&b, "and %d more", len(infos)-i)
			break
		}
		info := &infos[i]
		b.WriteString(info.Alias + " " + Datatype(info.DType))
		if info.UnknownRank {
			b.WriteString(" of any shape")
		} else {
			b.WriteString(" " + info.Shape.String())
		}
	}
	if len(infos) == 0 {
		return "none"
	}
	return b.String()
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
