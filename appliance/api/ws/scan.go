// scan.go: the members of a JSON frame, without a look into what the codec will read.
package ws

import (
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"github.com/inferd/inferd/inference"
)

func blank(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func skipBlank(b []byte, i int) int {
	for i < len(b) && blank(b[i]) {
		i++
	}
	return i
}

// stringEnd is the offset after the string that begins with the quote at b[i], or -1.
func stringEnd(b []byte, i int) int {
	for i++; i < len(b); i++ {
		switch b[i] {
		case '"':
			return i + 1
		case '\\':
			i++
		}
	}
	return -1
}

// valueEnd is the offset after the value at b[i], or -1. It only finds where the value ends: whoever reads it checks it.
func valueEnd(b []byte, i int) int {
	if i == len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return stringEnd(b, i)
	case '[', '{':
		depth := 0
		for ; i < len(b); i++ {
			switch b[i] {
			case '[', '{':
				depth++
			case ']', '}':
				if depth--; depth == 0 {
					return i + 1
				}
			case '"':
				if i = stringEnd(b, i); i < 0 {
					return -1
				}
				i--
			}
		}
		return -1
	}
	from := i
	for i < len(b) && b[i] != ',' && b[i] != '}' && b[i] != ']' && !blank(b[i]) {
		i++
	}
	if i == from {
		return -1
	}
	return i
}

var errNotObject = invalid("the frame is not one JSON object; send {\"id\":..., \"model\":..., \"instances\":...}, a cancel, an ack or a resume")

// members calls f with the raw key (without its quotes) and the raw value of each member of the object that is all of doc, until f fails.
func members(doc []byte, f func(key, value []byte) *inference.Error) *inference.Error {
	i := skipBlank(doc, 0)
	if i == len(doc) || doc[i] != '{' {
		return errNotObject
	}
	i = skipBlank(doc, i+1)
	if i < len(doc) && doc[i] == '}' {
		return nothingAfter(doc, i+1)
	}
	for {
		if i == len(doc) || doc[i] != '"' {
			return errNotObject
		}
		end := stringEnd(doc, i)
		if end < 0 {
			return errNotObject
		}
		key := doc[i+1 : end-1]
		if i = skipBlank(doc, end); i == len(doc) || doc[i] != ':' {
			return errNotObject
		}
		i = skipBlank(doc, i+1)
		if end = valueEnd(doc, i); end < 0 {
			return errNotObject
		}
		if err := f(key, doc[i:end]); err != nil {
			return err
		}
		i = skipBlank(doc, end)
		switch {
		case i < len(doc) && doc[i] == ',':
			i = skipBlank(doc, i+1)
		case i < len(doc) && doc[i] == '}':
			return nothingAfter(doc, i+1)
		default:
			return errNotObject
		}
	}
}

func nothingAfter(doc []byte, i int) *inference.Error {
	if skipBlank(doc, i) < len(doc) {
		return errNotObject
	}
	return nil
}

// text reads a string.
func text(raw []byte) (string, bool) {
	if len(raw) < 2 || raw[0] != '"' {
		return "", false
	}
	plain := true
	for _, c := range raw[1 : len(raw)-1] {
		if c < ' ' {
			return "", false
		}
		plain = plain && c != '\\'
	}
	if plain {
		return string(raw[1 : len(raw)-1]), true
	}
	var s string
	if json.Unmarshal(raw, &s) != nil || !utf8.ValidString(s) {
		return "", false
	}
	return s, true
}

// isNumber reports whether raw could be a JSON number, which is taken for its text.
func isNumber(raw []byte) bool {
	return len(raw) > 0 && (raw[0] == '-' || raw[0]-'0' < 10) && json.Valid(raw)
}

func parseInt(raw []byte) (int64, bool) {
	if !isNumber(raw) {
		return 0, false
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	return n, err == nil
}

func parseUint(raw []byte) (uint64, bool) {
	if !isNumber(raw) {
		return 0, false
	}
	n, err := strconv.ParseUint(string(raw), 10, 64)
	return n, err == nil
}

const hexDigits = "0123456789abcdef"

// appendText quotes s, which is UTF-8; what is not becomes U+FFFD.
func appendText(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
		case c < utf8.RuneSelf:
			dst = append(dst, c)
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += n
			continue
		}
		i++
	}
	return append(dst, '"')
}
