// fill.go: one JSON value straight into tensor memory.
package rest

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"unsafe"

	"github.com/inferd/inferd/inference/tensor"
)

// filler collects the elements of one input. The first value sets rank and dimensions, all later ones must have the same.
type filler struct {
	dtype    tensor.DType
	media    bool // files may be sent: a first value that is one makes it a tensor of strings
	files    bool // they are
	strict   bool
	maxBytes int // of data, or of strings and their headers

	rank int     // -1 until the first scalar or empty list
	dims []int64 // -1 until the first list of that level has ended

	data    []byte
	strings [][]byte
	used    int // bytes that strings take, beyond those they share with the body

	start int          // where the first value began, -1 before it
	shape tensor.Shape // set by done
}

// stringHeader is what one string costs besides its bytes.
const stringHeader = int(unsafe.Sizeof([]byte(nil)))

// reset prepares for an input of type d, keeping the memory.
func (f *filler) reset(d tensor.DType, media, strict bool, maxBytes int) {
	clear(f.strings[:cap(f.strings)])
	*f = filler{dtype: d, media: media, strict: strict, maxBytes: maxBytes, rank: -1, dims: f.dims[:0], data: f.data[:0], strings: f.strings[:0],
		start: -1, shape: f.shape[:0]}
}

// done makes the tensor of what was read, with rows as its first dimension unless rows is negative. It shares the filler's memory.
func (f *filler) done(t *tensor.Tensor, rows int) {
	if rows >= 0 {
		f.shape = append(f.shape, int64(rows))
	}
	f.shape = append(f.shape, f.dims...)
	*t = tensor.Tensor{DType: f.dtype, Shape: f.shape}
	if f.dtype == tensor.String {
		t.Strings = f.strings
	} else {
		t.Data = f.data
	}
}

// item reads the value at b[i], which is all of a tensor or one row of it. It returns -1 when anything is wrong.
func (f *filler) item(b []byte, i int) int {
	if f.start < 0 {
		f.start = i
	}
	if b[i] == '[' {
		return f.list(b, i, 0)
	}
	if f.rank > 0 {
		return -1
	}
	f.rank = 0
	i, n := f.scalars(b, i, true)
	if n != 1 {
		return -1
	}
	return i
}

// list reads the list at b[i], which lies within level others.
func (f *filler) list(b []byte, i, level int) int {
	if level >= tensor.MaxRank || f.rank >= 0 && level >= f.rank {
		return -1
	}
	if level == len(f.dims) {
		f.dims = append(f.dims, -1)
	}
	i = space(b, i+1)
	n := 0
	switch b[i] {
	case ']':
		if f.rank < 0 {
			f.rank = level + 1
		}
		i++
	case '[':
		for {
			if i = f.list(b, i, level+1); i < 0 {
				return -1
			}
			n++
			i = space(b, i)
			if b[i] == ']' {
				i++
				break
			}
			if b[i] != ',' {
				return -1
			}
			if i = space(b, i+1); b[i] != '[' {
				return -1
			}
		}
	default:
		if f.rank < 0 {
			f.rank = level + 1
		}
		if f.rank != level+1 {
			return -1
		}
		if i, n = f.scalars(b, i, false); i < 0 {
			return -1
		}
	}
	switch f.dims[level] {
	case -1:
		f.dims[level] = int64(n)
	case int64(n):
	default:
		return -1
	}
	return i
}

// room makes place for eight more bytes of data, by what the text so far has yielded, so that a long list is not copied often.
// It is false when the data would pass the limit.
func (f *filler) room(i, last int) bool {
	if len(f.data)+8 > f.maxBytes {
		return false
	}
	n := 2*cap(f.data) + 64
	if seen := i - f.start; seen > 4096 {
		// The rest of the text may be another input's, so the guess is not trusted far.
		guess := len(f.data) + int(float64(len(f.data))/float64(seen)*float64(last-i)*1.02) + 64
		n = min(max(guess, cap(f.data)+cap(f.data)/8), 4*cap(f.data))
	}
	grown := make([]byte, len(f.data), min(n, f.maxBytes+8))
	copy(grown, f.data)
	f.data = grown
	return true
}

// scalars reads scalars from b[i] on, separated by commas: one when single, else up to the closing bracket. It returns the offset
// after them (and the bracket) and their number, or -1.
func (f *filler) scalars(b []byte, i int, single bool) (end, n int) {
	if f.media && b[i] == '{' && len(f.data) == 0 && f.dtype != tensor.String {
		f.dtype, f.files = tensor.String, true
	}
	if f.dtype == tensor.Float && !single {
		return f.floats(b, i)
	}
	for {
		if cap(f.data)-len(f.data) < 8 && f.dtype != tensor.String && !f.room(i, len(b)) {
			return -1, 0
		}
		at := len(f.data)
		switch f.dtype {
		case tensor.Float:
			var v float32
			if v, i = float32At(b, i, f.strict); i < 0 {
				return -1, 0
			}
			f.data = f.data[:at+4]
			binary.LittleEndian.PutUint32(f.data[at:], math.Float32bits(v))
		case tensor.Double:
			var v float64
			if v, i = float64At(b, i, f.strict); i < 0 {
				return -1, 0
			}
			f.data = f.data[:at+8]
			binary.LittleEndian.PutUint64(f.data[at:], math.Float64bits(v))
		case tensor.Int32, tensor.Int16, tensor.Int8, tensor.Uint8:
			var v int64
			if v, i = intAt(b, i); i < 0 || v != int64(int32(v)) {
				return -1, 0
			}
			// TensorFlow Serving does not check the range of the smaller types: the low bits are kept.
			switch f.dtype {
			case tensor.Int32:
				f.data = binary.LittleEndian.AppendUint32(f.data, uint32(v))
			case tensor.Int16:
				f.data = binary.LittleEndian.AppendUint16(f.data, uint16(v))
			default:
				f.data = append(f.data, byte(v))
			}
		case tensor.Int64:
			var v int64
			if v, i = intAt(b, i); i < 0 {
				return -1, 0
			}
			f.data = binary.LittleEndian.AppendUint64(f.data, uint64(v))
		case tensor.Uint32:
			var v uint64
			if v, i = uintAt(b, i); i < 0 || v > math.MaxUint32 {
				return -1, 0
			}
			f.data = binary.LittleEndian.AppendUint32(f.data, uint32(v))
		case tensor.Uint64:
			var v uint64
			if v, i = uintAt(b, i); i < 0 {
				return -1, 0
			}
			f.data = binary.LittleEndian.AppendUint64(f.data, v)
		case tensor.Bool:
			switch {
			case b[i] == 't' && b[i+1] == 'r' && b[i+2] == 'u' && b[i+3] == 'e':
				f.data = append(f.data, 1)
				i += 4
			case b[i] == 'f' && b[i+1] == 'a' && b[i+2] == 'l' && b[i+3] == 's' && b[i+4] == 'e':
				f.data = append(f.data, 0)
				i += 5
			default:
				return -1, 0
			}
		case tensor.String:
			if i = f.string(b, i); i < 0 {
				return -1, 0
			}
		default:
			return -1, 0
		}
		n++
		if single {
			return i, n
		}
		if b[i] <= ' ' {
			i = space(b, i)
		}
		if b[i] != ',' {
			if b[i] != ']' {
				return -1, 0
			}
			return i + 1, n
		}
		if i++; b[i] <= ' ' {
			i = space(b, i)
		}
	}
}

// floats is scalars for a list of float32, which is most of what is ever read. Numbers without an exponent and of at most 18 digits
// are read here, all others by [float32At].
func (f *filler) floats(b []byte, i int) (end, n int) {
	data := f.data
	for {
		if cap(data)-len(data) < 8 {
			f.data = data
			if !f.room(i, len(b)) {
				return -1, 0
			}
			data = f.data
		}
		j := i
		negative := b[j] == '-'
		if negative {
			j++
		}
		first := j
		m := int64(0)
		for b[j]-'0' < 10 {
			m = m*10 + int64(b[j]-'0')
			j++
		}
		whole := j - first
		fraction := 0
		if b[j] == '.' {
			point := j + 1
			j = point
			if chunk := binary.LittleEndian.Uint64(b[j:]); eightDigits(chunk) {
				m = m*100_000_000 + int64(parseEight(chunk))
				j += 8
			}
			for b[j]-'0' < 10 {
				m = m*10 + int64(b[j]-'0')
				j++
			}
			if fraction = j - point; fraction == 0 {
				return -1, 0
			}
		}
		var bits uint32
		fast := whole > 0 && (b[first] != '0' || whole == 1) && whole+fraction <= 18 && b[j]|0x20 != 'e'
		if fast {
			// Three roundings, so nearer than eight units to the true value: see float32At. Zero is left to it too, for its sign.
			d := float64(m) * inverse[fraction]
			low := math.Float64bits(d) & (1<<29 - 1)
			fast = low-(1<<28-8) > 16 && m != 0
			bits = math.Float32bits(float32(d))
			if negative {
				bits |= 1 << 31
			}
		}
		if !fast {
			var v float32
			if v, j = float32At(b, i, f.strict); j < 0 {
				return -1, 0
			}
			bits = math.Float32bits(v)
		}
		at := len(data)
		data = data[:at+4]
		binary.LittleEndian.PutUint32(data[at:], bits)
		n++
		i = j
		if b[i] <= ' ' {
			i = space(b, i)
		}
		if b[i] != ',' {
			if b[i] != ']' {
				return -1, 0
			}
			f.data = data
			return i + 1, n
		}
		if i++; b[i] <= ' ' {
			i = space(b, i)
		}
	}
}

// string reads a string or a {"b64": ...} object.
func (f *filler) string(b []byte, i int) int {
	var s []byte
	var end int
	switch b[i] {
	case '"':
		if f.files {
			return -1 // a file is not text
		}
		var err *syntaxError
		if end, err = skipString(b, i); err != nil {
			return -1
		}
		s, _ = text(b, i)
	case '{':
		var at int
		var ok bool
		if at, end, ok = b64Object(b, i); !ok {
			return -1
		}
		encoded, _ := text(b, at)
		if s, ok = decodeB64(encoded); !ok {
			return -1
		}
		f.used += len(s)
	default:
		return -1
	}
	if f.used += stringHeader; f.used > f.maxBytes {
		return -1
	}
	f.strings = append(f.strings, s)
	return end
}

// b64Object reports whether the object at b[i] has the one key "b64" and a string value. It returns the offset of that value and
// the offset after the object. What it accepts is well formed; what it does not need not be.
func b64Object(b []byte, i int) (value, end int, ok bool) {
	i = space(b, i+1)
	if b[i] != '"' {
		return 0, 0, false
	}
	end, err := skipString(b, i)
	if err != nil {
		return 0, 0, false
	}
	if key, _ := text(b, i); string(key) != "b64" {
		return 0, 0, false
	}
	if i = space(b, end); b[i] != ':' {
		return 0, 0, false
	}
	value = space(b, i+1)
	if b[value] != '"' {
		return 0, 0, false
	}
	if end, err = skipString(b, value); err != nil {
		return 0, 0, false
	}
	if end = space(b, end); b[end] != '}' {
		return 0, 0, false
	}
	return value, end + 1, true
}

// decodeB64 reads standard base64 as TensorFlow Serving does: white space anywhere, padding (with '=' or '.') complete or absent.
func decodeB64(s []byte) ([]byte, bool) {
	dst := make([]byte, base64.StdEncoding.DecodedLen(len(s))+2)
	if n, err := base64.StdEncoding.Decode(dst, s); err == nil {
		return dst[:n:n], true
	}
	kept := make([]byte, 0, len(s))
	padding := 0
	for _, c := range s {
		switch {
		case c == ' ' || c >= '\t' && c <= '\r':
		case c == '=' || c == '.':
			padding++
		case padding > 0:
			return nil, false
		default:
			kept = append(kept, c)
		}
	}
	if padding > 0 && (padding > 2 || (len(kept)+padding)%4 != 0) {
		return nil, false
	}
	n, err := base64.RawStdEncoding.Decode(dst, kept)
	if err != nil {
		return nil, false
	}
	return dst[:n:n], true
}
