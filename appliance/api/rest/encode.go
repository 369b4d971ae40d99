// encode.go: tensors to predict responses, byte for byte as TensorFlow Serving lays them out.
package rest

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// encoder appends a response to out.
type encoder struct {
	out     []byte
	strict  bool // null for what JSON cannot write as a number, U+FFFD for what is not UTF-8
	compact bool // no white space
}

// response writes the outputs, whose names are given in the same order. It fails where TensorFlow Serving does.
func (e *encoder) response(row bool, infos []inference.TensorInfo, wanted []int, outputs []*tensor.Tensor) *inference.Error {
	if len(outputs) == 0 {
		return invalid("Cannot convert empty tensor map to JSON")
	}
	for k, t := range outputs {
		if n := emptyLists(t.Shape); n > maxEmptyLists {
			return inference.Errorf(inference.Internal, inference.ReasonRuntime, "output %s has shape %v, which is no number but %d empty lists",
				infos[wanted[k]].Alias, t.Shape, n)
		}
	}
	if row {
		return e.rows(infos, wanted, outputs)
	}
	e.open("outputs")
	if len(outputs) == 1 {
		if err := e.value(infos[wanted[0]].Alias, outputs[0], 0, 0, 1, false); err != nil {
			return err
		}
		e.shut(0)
		return nil
	}
	e.out = append(e.out, '{')
	for k, t := range outputs {
		if k > 0 {
			e.out = append(e.out, ',')
		}
		name := infos[wanted[k]].Alias
		e.indent(2)
		e.name(name)
		if err := e.value(name, t, 0, 0, 2, false); err != nil {
			return err
		}
	}
	e.shut(1)
	e.shut(0)
	return nil
}

// open begins the document and its one member.
func (e *encoder) open(member string) {
	e.out = append(e.out, '{')
	e.indent(1)
	e.name(member)
}

// name writes a member's name and its colon.
func (e *encoder) name(name string) {
	e.out = append(appendString(e.out, []byte(name), true), ':')
	if !e.compact {
		e.out = append(e.out, ' ')
	}
}

// shut ends the object that lies within depth others.
func (e *encoder) shut(depth int) {
	e.indent(depth)
	e.out = append(e.out, '}')
}

// maxEmptyLists bounds an answer that has no element to pay for it.
const maxEmptyLists = 1 << 20

// emptyLists is the number of lists that are written for a tensor without elements, 0 for another. It stops counting past the bound.
func emptyLists(s tensor.Shape) int64 {
	zero := slices.Index(s, 0)
	n := int64(min(zero+1, 1))
	for i := 0; i < zero && n <= maxEmptyLists; i++ {
		n *= s[i]
	}
	return n
}

func (e *encoder) rows(infos []inference.TensorInfo, wanted []int, outputs []*tensor.Tensor) *inference.Error {
	rows := int64(-1)
	for k, t := range outputs {
		n, ok := t.Rows()
		switch name := infos[wanted[k]].Alias; {
		case !ok:
			return invalid("Tensor name: %s has no shape information ", name)
		case rows >= 0 && n != rows:
			return invalid("Tensor name: %s has inconsistent batch size: %d expecting: %d", name, n, rows)
		}
		rows = n
	}
	e.open("predictions")
	e.out = append(e.out, '[')
	if len(outputs) == 1 {
		t := outputs[0]
		if err := e.elements(infos[wanted[0]].Alias, t, 0, 0, 2, true); err != nil {
			return err
		}
	} else {
		for row := range int(rows) {
			if row > 0 {
				e.out = append(e.out, ',')
			}
			e.indent(2)
			e.out = append(e.out, '{')
			for k, t := range outputs {
				if k > 0 {
					e.out = append(e.out, ',')
				}
				name := infos[wanted[k]].Alias
				e.indent(3)
				e.name(name)
				per := elements(t) / int(rows)
				if err := e.value(name, t, 1, row*per, 3, true); err != nil {
					return err
				}
			}
			e.shut(2)
		}
	}
	if rows > 0 {
		e.indent(1)
	}
	e.out = append(e.out, ']')
	e.shut(0)
	return nil
}

func elements(t *tensor.Tensor) int {
	if t.DType == tensor.String {
		return len(t.Strings)
	}
	return len(t.Data) / max(t.DType.Size(), 1)
}

func (e *encoder) indent(depth int) {
	if e.compact {
		return
	}
	e.out = append(e.out, '\n')
	for range depth {
		e.out = append(e.out, "    "...)
	}
}

// value writes dimension dim and those after it, from element at on, within depth lists and objects; line is for lists in one line.
func (e *encoder) value(name string, t *tensor.Tensor, dim, at, depth int, line bool) *inference.Error {
	if dim == len(t.Shape) {
		return e.scalar(name, t, at, depth)
	}
	e.out = append(e.out, '[')
	if err := e.elements(name, t, dim, at, depth+1, line); err != nil {
		return err
	}
	if t.Shape[dim] > 0 && !line {
		e.indent(depth)
	}
	e.out = append(e.out, ']')
	return nil
}

// elements writes what is between the brackets of dimension dim.
func (e *encoder) elements(name string, t *tensor.Tensor, dim, at, depth int, line bool) *inference.Error {
	n := int(t.Shape[dim])
	per := 1
	for _, d := range t.Shape[dim+1:] {
		per *= int(d)
	}
	leaf := dim == len(t.Shape)-1
	if leaf && line && t.DType == tensor.Float {
		e.floats(t.Data[4*at : 4*(at+n)])
		return nil
	}
	for k := range n {
		if k > 0 {
			e.out = append(e.out, ',')
			if line && !e.compact {
				e.out = append(e.out, ' ')
			}
		}
		if !line {
			e.indent(depth)
		}
		var err *inference.Error
		if leaf {
			err = e.scalar(name, t, at+k, depth)
		} else {
			err = e.value(name, t, dim+1, at+k*per, depth, line)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// floats writes numbers in one line: most of all output goes through here.
func (e *encoder) floats(data []byte) {
	out := e.out
	for k := 0; k+4 <= len(data); k += 4 {
		if k > 0 {
			if out = append(out, ','); !e.compact {
				out = append(out, ' ')
			}
		}
		out = e.float(out, math.Float32frombits(binary.LittleEndian.Uint32(data[k:])))
	}
	e.out = out
}

func (e *encoder) float(out []byte, f float32) []byte {
	if math.Float32bits(f)&0x7F800000 == 0x7F800000 {
		return e.token(out, float64(f))
	}
	return appendFloat32(out, f)
}

func (e *encoder) token(out []byte, f float64) []byte {
	if e.strict {
		return append(out, "null"...)
	}
	return appendToken(out, f)
}

// scalar writes element at. It fails for a type that TensorFlow Serving cannot write.
func (e *encoder) scalar(name string, t *tensor.Tensor, at, depth int) *inference.Error {
	out, le := e.out, binary.LittleEndian
	switch t.DType {
	case tensor.Float:
		out = e.float(out, math.Float32frombits(le.Uint32(t.Data[4*at:])))
	case tensor.Double:
		if f := math.Float64frombits(le.Uint64(t.Data[8*at:])); math.IsNaN(f) || math.IsInf(f, 0) {
			out = e.token(out, f)
		} else {
			out = appendFloat64(out, f)
		}
	case tensor.Int32:
		out = strconv.AppendInt(out, int64(int32(le.Uint32(t.Data[4*at:]))), 10)
	case tensor.Int16:
		out = strconv.AppendInt(out, int64(int16(le.Uint16(t.Data[2*at:]))), 10)
	case tensor.Int8:
		out = strconv.AppendInt(out, int64(int8(t.Data[at])), 10)
	case tensor.Uint8:
		out = strconv.AppendUint(out, uint64(t.Data[at]), 10)
	case tensor.Int64:
		out = strconv.AppendInt(out, int64(le.Uint64(t.Data[8*at:])), 10)
	case tensor.Uint32:
		out = strconv.AppendUint(out, uint64(le.Uint32(t.Data[4*at:])), 10)
	case tensor.Uint64:
		out = strconv.AppendUint(out, le.Uint64(t.Data[8*at:]), 10)
	case tensor.Bool:
		out = strconv.AppendBool(out, t.Data[at] != 0)
	case tensor.String:
		if !strings.HasSuffix(name, "_bytes") {
			out = appendString(out, t.Strings[at], e.strict)
			break
		}
		e.out = append(out, '{')
		e.indent(depth + 1)
		e.name("b64")
		out = append(e.out, '"')
		out = base64.StdEncoding.AppendEncode(out, t.Strings[at])
		e.out = append(out, '"')
		e.shut(depth)
		out = e.out
	default:
		return invalid("Failed to write JSON value for tensor type: %s", t.DType.Name())
	}
	e.out = out
	return nil
}

const hexDigits = "0123456789ABCDEF"

// appendString quotes s. Bytes that are not UTF-8 go out as they are, as TensorFlow Serving sends them, or as U+FFFD with utf8Only.
func appendString(dst, s []byte, utf8Only bool) []byte {
	dst = append(dst, '"')
	for from, i := 0, 0; ; {
		for i < len(s) && plain[s[i]] && (!utf8Only || s[i] < utf8.RuneSelf) {
			i++
		}
		dst = append(dst, s[from:i]...)
		if i == len(s) {
			return append(dst, '"')
		}
		n := 1
		switch c := s[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\b':
			dst = append(dst, `\b`...)
		case '\f':
			dst = append(dst, `\f`...)
		case '\n':
			dst = append(dst, `\n`...)
		case '\r':
			dst = append(dst, `\r`...)
		case '\t':
			dst = append(dst, `\t`...)
		default:
			if c < ' ' {
				dst = append(dst, `\u00`...)
				dst = append(dst, hexDigits[c>>4], hexDigits[c&15])
				break
			}
			var r rune
			r, n = utf8.DecodeRune(s[i:])
			dst = utf8.AppendRune(dst, r)
		}
		i += n
		from = i
	}
}
