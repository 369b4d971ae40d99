// npy.go: NumPy's .npy files in, nested values out.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	framework "github.com/wamuir/graft/tensorflow/core/framework/tensor_go_proto"

	"github.com/inferd/inferd/inference/tensor"
)

const npyMagic = "\x93NUMPY"

var (
	npyDescr   = regexp.MustCompile(`'descr':\s*'([^']*)'`)
	npyFortran = regexp.MustCompile(`'fortran_order':\s*True`)
	npyShape   = regexp.MustCompile(`'shape':\s*\(([^)]*)\)`)
)

var npyTypes = map[string]tensor.DType{
	"<f4": tensor.Float, "<f8": tensor.Double, "<f2": tensor.Half, "<i4": tensor.Int32, "<i8": tensor.Int64, "<i2": tensor.Int16, "|i1": tensor.Int8,
	"|u1": tensor.Uint8, "<u2": tensor.Uint16, "<u4": tensor.Uint32, "<u8": tensor.Uint64, "|b1": tensor.Bool, "<c8": tensor.Complex64, "<c16": tensor.Complex128,
}

// readNPY reads format versions 1 to 3 (numpy.lib.format): magic, version, header length, a Python dict, then the numbers.
// Strings of a fixed width lose their trailing zeros.
func readNPY(data []byte) (*tensor.Tensor, error) {
	if len(data) < 10 || string(data[:6]) != npyMagic {
		return nil, errors.New("not an .npy file")
	}
	var header, body []byte
	switch major := data[6]; major {
	case 1:
		n := int(binary.LittleEndian.Uint16(data[8:]))
		if len(data) < 10+n {
			return nil, errors.New("the .npy header is cut off")
		}
		header, body = data[10:10+n], data[10+n:]
	case 2, 3:
		if len(data) < 12 || uint64(len(data)-12) < uint64(binary.LittleEndian.Uint32(data[8:])) {
			return nil, errors.New("the .npy header is cut off")
		}
		n := int(binary.LittleEndian.Uint32(data[8:]))
		header, body = data[12:12+n], data[12+n:]
	default:
		return nil, fmt.Errorf("format version %d of .npy is not known here (1 to 3 are)", major)
	}
	descr, dims := npyDescr.FindSubmatch(header), npyShape.FindSubmatch(header)
	if descr == nil || dims == nil {
		return nil, errors.New("the .npy header names no type and shape of its own (a structured array?)")
	}
	if npyFortran.Match(header) {
		return nil, errors.New("the array is in Fortran order; save it with numpy.ascontiguousarray")
	}
	shape := tensor.Shape{}
	for part := range strings.SplitSeq(string(dims[1]), ",") {
		if part = strings.TrimSpace(part); part == "" {
			continue
		}
		n, err := strconv.ParseInt(part, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("shape (%s) is not numbers", dims[1])
		}
		shape = append(shape, n)
	}
	if d, ok := npyTypes[string(descr[1])]; ok {
		return tensor.New(d, shape, body)
	}
	return readNPYStrings(string(descr[1]), shape, body)
}

// readNPYStrings reads strings of a fixed width, filled up with zeros: |S5 of five bytes, <U5 of five code points of four bytes each.
func readNPYStrings(descr string, shape tensor.Shape, body []byte) (*tensor.Tensor, error) {
	width, ok := strings.CutPrefix(descr, "|S")
	wide := false
	if !ok {
		width, wide = strings.CutPrefix(descr, "<U")
	}
	size, err := strconv.Atoi(width)
	if !ok && !wide || err != nil || size <= 0 || size > math.MaxInt32/4 {
		return nil, fmt.Errorf("type %q has no counterpart here; convert it with numpy.astype", descr)
	}
	if wide {
		size *= 4
	}
	count, err := shape.Elements()
	if err != nil {
		return nil, err
	}
	if count > int64(len(body)/size) || count*int64(size) != int64(len(body)) {
		return nil, fmt.Errorf("%d strings of %d bytes do not make %d bytes", count, size, len(body))
	}
	elements := make([][]byte, count)
	for i := range elements {
		b := body[i*size : (i+1)*size]
		if !wide {
			elements[i] = bytes.TrimRight(b, "\x00")
			continue
		}
		for ; len(b) >= 4; b = b[4:] {
			elements[i] = utf8.AppendRune(elements[i], rune(binary.LittleEndian.Uint32(b))) // no code point: U+FFFD
		}
		elements[i] = bytes.TrimRight(elements[i], "\x00")
	}
	return tensor.NewStrings(shape, elements)
}

// nested is a TensorProto's numbers as lists in lists. inferd answers in the typed fields or in tensor_content.
func nested(p *framework.TensorProto) any {
	var flat []any
	add := func(v any) { flat = append(flat, v) }
	d := tensor.DType(p.GetDtype())
	switch content := p.GetTensorContent(); {
	case len(content) > 0 && d.Size() > 0:
		for ; len(content) >= d.Size(); content = content[d.Size():] {
			add(element(d, content))
		}
	default:
		for _, v := range p.GetFloatVal() {
			add(short(v))
		}
		for _, v := range p.GetDoubleVal() {
			add(number(v))
		}
		for _, v := range p.GetIntVal() {
			add(v)
		}
		for _, v := range p.GetInt64Val() {
			add(v)
		}
		for _, v := range p.GetUint32Val() {
			add(v)
		}
		for _, v := range p.GetUint64Val() {
			add(v)
		}
		for _, v := range p.GetBoolVal() {
			add(v)
		}
		for _, v := range p.GetStringVal() {
			if utf8.Valid(v) {
				add(string(v))
			} else {
				add(map[string]any{"b64": v}) // as REST has bytes
			}
		}
		for _, v := range p.GetHalfVal() {
			add(number(half(d, uint16(v))))
		}
		for _, v := range p.GetScomplexVal() {
			add(short(v))
		}
		for _, v := range p.GetDcomplexVal() {
			add(number(v))
		}
	}
	var shape []int
	for _, dim := range p.GetTensorShape().GetDim() {
		shape = append(shape, int(dim.GetSize()))
	}
	return fold(flat, shape)
}

func fold(flat []any, shape []int) any {
	if len(shape) == 0 {
		if len(flat) == 1 {
			return flat[0]
		}
		return flat
	}
	if len(shape) == 1 {
		if flat == nil {
			return []any{}
		}
		return flat
	}
	rows := make([]any, shape[0])
	for i := range rows {
		per := len(flat) / max(1, shape[0])
		rows[i] = fold(flat[i*per:(i+1)*per], shape[1:])
	}
	return rows
}

// element is the first number in b.
func element(d tensor.DType, b []byte) any {
	le := binary.LittleEndian
	switch d {
	case tensor.Float:
		return short(math.Float32frombits(le.Uint32(b)))
	case tensor.Double:
		return number(math.Float64frombits(le.Uint64(b)))
	case tensor.Half, tensor.BFloat16:
		return number(half(d, le.Uint16(b)))
	case tensor.Bool:
		return b[0] != 0
	case tensor.Int8, tensor.QInt8:
		return int8(b[0])
	case tensor.Uint8, tensor.QUint8:
		return b[0]
	case tensor.Int16, tensor.QInt16:
		return int16(le.Uint16(b))
	case tensor.Uint16, tensor.QUint16:
		return le.Uint16(b)
	case tensor.Int32, tensor.QInt32:
		return int32(le.Uint32(b))
	case tensor.Uint32:
		return le.Uint32(b)
	case tensor.Int64:
		return int64(le.Uint64(b))
	case tensor.Uint64:
		return le.Uint64(b)
	default:
		return fmt.Sprintf("%x", b[:d.Size()])
	}
}

// number is v, or its name where JSON has none for it.
func number(v float64) any {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	return v
}

// short is v with as many digits as a float has, not those that a double makes of it.
func short(v float32) any {
	if f := float64(v); math.IsNaN(f) || math.IsInf(f, 0) {
		return number(f)
	}
	return json.Number(strconv.FormatFloat(float64(v), 'g', -1, 32))
}

// half widens a half or a bfloat16.
func half(d tensor.DType, bits uint16) float64 {
	if d == tensor.BFloat16 {
		return float64(math.Float32frombits(uint32(bits) << 16))
	}
	sign, exponent, fraction := 1.0, int(bits>>10&31), float64(bits&1023)
	if bits>>15 == 1 {
		sign = -1
	}
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		if fraction != 0 {
			return math.NaN()
		}
		return math.Inf(int(sign))
	default:
		return sign * math.Ldexp(1+fraction/1024, exponent-15)
	}
}
