// scan.go: JSON syntax as TensorFlow Serving's parser (RapidJSON 1.1) has it, with its error texts and offsets.
package rest

import (
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/inferd/inferd/inference"
)

// sentinel is the number of NUL bytes after every body.
const sentinel = 8

// maxDepth bounds lists and objects within each other. A tensor has at most 254 dimensions; the rest is for keys that are ignored.
const maxDepth = 512

// Texts of syntax errors, each followed by the offset.
const (
	errEmpty         = "The document is empty."
	errNotSingular   = "The document root must not be followed by other values."
	errValue         = "Invalid value."
	errMissName      = "Missing a name for object member."
	errMissColon     = "Missing a colon after a name of object member."
	errMissCommaObj  = "Missing a comma or '}' after an object member."
	errMissCommaList = "Missing a comma or ']' after an array element."
	errHex           = `Incorrect hex digit after \u escape in string.`
	errSurrogate     = "The surrogate pair in string is invalid."
	errEscape        = "Invalid escape character in string."
	errQuote         = "Missing a closing quotation mark in string."
	errTooBig        = "Number too big to be stored in double."
	errFraction      = "Miss fraction part in number."
	errExponent      = "Miss exponent in number."
	errDeep          = "More than 512 lists or objects within each other."
)

// syntaxError is where and why a document is not JSON.
type syntaxError struct {
	text   string
	offset int
}

func (e *syntaxError) client() *inference.Error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "JSON Parse error: %s at offset: %d", e.text, e.offset)
}

// space is the first offset from i on that holds no white space.
func space(b []byte, i int) int {
	for b[i] <= ' ' && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// begin is the offset of the first byte after a byte order mark and white space.
func begin(b []byte) int {
	if len(b) >= 3 && b[0] == 0xEF && b[1] == 0xBB && b[2] == 0xBF {
		return space(b, 3)
	}
	return space(b, 0)
}

// skip checks the value that begins at b[i] and returns the offset after it. Strict refuses NaN and the infinities.
func skip(b []byte, i int, strict bool) (int, *syntaxError) {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '[', '{', 't', 'f', 'n':
		return skipNested(b, i, strict)
	}
	end, _, err := skipNumber(b, i, strict)
	return end, err
}

// skipNested is skip for any value. It does not recurse, so that no document can exhaust the stack.
func skipNested(b []byte, i int, strict bool) (int, *syntaxError) {
	var (
		kinds [maxDepth]byte // '[' or '{' of each open list and object
		depth int
		err   *syntaxError
	)
value:
	switch b[i] {
	case '"':
		i, err = skipString(b, i)
	case '[', '{':
		if depth == maxDepth {
			return i, &syntaxError{errDeep, i}
		}
		kinds[depth] = b[i]
		depth++
		list := b[i] == '['
		i = space(b, i+1)
		switch {
		case list && b[i] != ']':
			goto value
		case !list && b[i] != '}':
			goto name
		}
		depth--
		i++
	case 't':
		i, err = skipWord(b, i, "true")
	case 'f':
		i, err = skipWord(b, i, "false")
	case 'n':
		i, err = skipWord(b, i, "null")
	default:
		i, _, err = skipNumber(b, i, strict)
	}
	if err != nil {
		return i, err
	}
after:
	if depth == 0 {
		return i, nil
	}
	i = space(b, i)
	switch list := kinds[depth-1] == '['; {
	case b[i] == ',':
		i = space(b, i+1)
		if list {
			goto value
		}
		goto name
	case list && b[i] == ']', !list && b[i] == '}':
		depth--
		i++
		goto after
	case list:
		return i, &syntaxError{errMissCommaList, i}
	default:
		return i, &syntaxError{errMissCommaObj, i}
	}
name:
	if b[i] != '"' {
		return i, &syntaxError{errMissName, i}
	}
	if i, err = skipString(b, i); err != nil {
		return i, err
	}
	if i = space(b, i); b[i] != ':' {
		return i, &syntaxError{errMissColon, i}
	}
	i = space(b, i+1)
	goto value
}

func skipWord(b []byte, i int, word string) (int, *syntaxError) {
	for k := range len(word) {
		if b[i] != word[k] {
			return i, &syntaxError{errValue, i}
		}
		i++
	}
	return i, nil
}

// plain has the bytes that stand for themselves within a string.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\'
	}
	return t
}()

// skipString checks the string that begins with the quote at b[i] and returns the offset after its closing quote.
func skipString(b []byte, i int) (int, *syntaxError) {
	i++
	for {
		for plain[b[i]] {
			i++
		}
		switch b[i] {
		case '"':
			return i + 1, nil
		case '\\':
			end, _, err := unescape(b, i)
			if err != nil {
				return end, err
			}
			i = end
		case 0:
			return i, &syntaxError{errQuote, i}
		default:
			return i, &syntaxError{errEscape, i}
		}
	}
}

// unescape reads the escape at b[i] and returns the offset after it and its code point. A low surrogate on its own is let through, as
// RapidJSON 1.1 does.
func unescape(b []byte, i int) (int, rune, *syntaxError) {
	switch c := b[i+1]; c {
	case '"', '\\', '/':
		return i + 2, rune(c), nil
	case 'b':
		return i + 2, '\b', nil
	case 'f':
		return i + 2, '\f', nil
	case 'n':
		return i + 2, '\n', nil
	case 'r':
		return i + 2, '\r', nil
	case 't':
		return i + 2, '\t', nil
	case 'u':
	default:
		return i, 0, &syntaxError{errEscape, i}
	}
	r, ok := hex4(b, i+2)
	if !ok {
		return i, 0, &syntaxError{errHex, i}
	}
	if r < 0xD800 || r > 0xDBFF {
		return i + 6, r, nil
	}
	if b[i+6] != '\\' || b[i+7] != 'u' {
		return i, 0, &syntaxError{errSurrogate, i}
	}
	low, ok := hex4(b, i+8)
	switch {
	case !ok:
		return i, 0, &syntaxError{errHex, i}
	case low < 0xDC00 || low > 0xDFFF:
		return i, 0, &syntaxError{errSurrogate, i}
	}
	return i + 12, (r-0xD800)<<10 | (low - 0xDC00) + 0x10000, nil
}

func hex4(b []byte, i int) (r rune, ok bool) {
	for range 4 {
		c := b[i]
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
		i++
	}
	return r, true
}

// appendText appends what the checked string, whose opening quote is b[i], means, and returns the offset after it.
func appendText(dst, b []byte, i int) ([]byte, int) {
	i++
	for {
		from := i
		for plain[b[i]] {
			i++
		}
		dst = append(dst, b[from:i]...)
		if b[i] != '\\' {
			return dst, i + 1
		}
		var r rune
		i, r, _ = unescape(b, i)
		if r >= 0xD800 && r <= 0xDFFF { // utf8 would write U+FFFD
			dst = append(dst, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0xBF, 0x80|byte(r)&0xBF)
		} else {
			dst = utf8.AppendRune(dst, r)
		}
	}
}

// text is what the checked string at b[i] means, and the offset after it. It shares b where nothing is escaped.
func text(b []byte, i int) ([]byte, int) {
	end := i + 1
	for plain[b[end]] {
		end++
	}
	if b[end] == '"' {
		return b[i+1 : end : end], end + 1
	}
	return appendText(nil, b, i)
}

// numberKind is how RapidJSON stores a number.
type numberKind int

const (
	kindInteger numberKind = iota // an integer within int64 or uint64
	kindDouble
	kindToken // NaN, Infinity, -Infinity
)

// skipNumber checks the number at b[i].
func skipNumber(b []byte, i int, strict bool) (int, numberKind, *syntaxError) {
	from := i
	if b[i] == '-' {
		i++
	}
	digits := i
	switch c := b[i]; {
	case c == '0':
		i++
	case c >= '1' && c <= '9':
		for b[i] >= '0' && b[i] <= '9' {
			i++
		}
	case !strict && c == 'N':
		end, err := skipWord(b, i, "NaN")
		return end, kindToken, err
	case !strict && c == 'I':
		end, err := skipWord(b, i, "Inf")
		if err == nil && b[end] == 'i' {
			end, err = skipWord(b, end, "inity")
		}
		return end, kindToken, err
	default:
		return i, 0, &syntaxError{errValue, i}
	}
	kind := kindInteger
	if n := i - digits; n >= 19 && !fits64(b[from:i]) {
		kind = kindDouble
	}
	if b[i] == '.' {
		kind = kindDouble
		i++
		if b[i] < '0' || b[i] > '9' {
			return i, 0, &syntaxError{errFraction, i}
		}
		for b[i] >= '0' && b[i] <= '9' {
			i++
		}
	}
	exponent := false
	if b[i] == 'e' || b[i] == 'E' {
		kind, exponent = kindDouble, true
		i++
		if b[i] == '+' || b[i] == '-' {
			i++
		}
		if b[i] < '0' || b[i] > '9' {
			return i, 0, &syntaxError{errExponent, i}
		}
		for b[i] >= '0' && b[i] <= '9' {
			i++
		}
	}
	if (exponent || i-from > 300) && tooBig(b[from:i]) {
		return from, 0, &syntaxError{errTooBig, from}
	}
	return i, kind, nil
}

// fits64 reports whether a literal of digits, perhaps after a minus, is within int64 or uint64.
func fits64(literal []byte) bool {
	var err error
	if literal[0] == '-' {
		_, err = strconv.ParseInt(string(literal), 10, 64)
	} else {
		_, err = strconv.ParseUint(string(literal), 10, 64)
	}
	return err == nil
}

// tooBig reports whether RapidJSON refuses the literal, which is well formed: its value overflows a double, or its exponent alone would
// (even after a mantissa of zero).
func tooBig(literal []byte) bool {
	fraction, exponent := 0, 0
	for i := 0; i < len(literal); i++ {
		switch literal[i] {
		case '.':
			for fraction = 0; i+1 < len(literal) && literal[i+1] >= '0' && literal[i+1] <= '9'; i++ {
				fraction++
			}
		case 'e', 'E':
			for i++; i < len(literal) && literal[i] != '-'; i++ {
				if literal[i] != '+' {
					exponent = min(exponent*10+int(literal[i]-'0'), math.MaxInt32)
				}
			}
			i = len(literal)
		}
	}
	if exponent > 308+fraction {
		return true
	}
	f, err := strconv.ParseFloat(string(literal), 64)
	return err != nil || math.IsInf(f, 0)
}
