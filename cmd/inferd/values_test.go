// values_test.go: numbers that are no JSON, and the table.
package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

func TestQuoteNumbers(t *testing.T) {
	for in, want := range map[string]string{
		`[NaN, -Infinity, Infinity, -1]`:    `["NaN", "-Infinity", "Infinity", -1]`,
		`{"NaN": ["Infinity \" NaN", NaN]}`: `{"NaN": ["Infinity \" NaN", "NaN"]}`,
		`["\\", NaN]`:                       `["\\", "NaN"]`,
		`[1, 2]`:                            `[1, 2]`,
		`"NaN`:                              `"NaN`,
		`"NaN\`:                             `"NaN\`,
	} {
		if got := string(quoteNumbers([]byte(in))); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	table(&b, map[string]any{"scalar": json.Number("3"), "empty": []any{}, "long": []any{strings.Repeat("é", widestRow)}, "rows": []any{[]any{1, "<b>"}, nil}})
	got := b.String()
	for _, want := range []string{"scalar   3\n", "empty    []\n", "rows[0]  [1,\"<b>\"]\n", "rows[1]  null\n", "é... (-o json has all)\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

func FuzzQuoteNumbers(f *testing.F) {
	f.Add([]byte(`{"outputs": [NaN, "NaN\"", -Infinity]}`))
	f.Fuzz(func(t *testing.T, doc []byte) {
		got := quoteNumbers(doc)
		if json.Valid(doc) && !bytes.Equal(got, doc) {
			t.Errorf("%q is JSON and became %q", doc, got)
		}
	})
}
