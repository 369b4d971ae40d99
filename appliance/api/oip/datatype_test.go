// datatype_test.go: every type that can be carried has a name, and every name its type.
package oip

import (
	"strings"
	"testing"

	"github.com/inferd/inferd/inference/tensor"
)

func TestEveryTypeHasAName(t *testing.T) {
	seen := 0
	for d := tensor.Invalid; d < 64; d++ {
		if !d.Carried() {
			continue
		}
		seen++
		back, err := ParseDType("x", []byte(Datatype(d)))
		if err != nil || back != d {
			t.Errorf("%v is called %q, which is %v (%v)", d, Datatype(d), back, err)
		}
	}
	if seen < 20 {
		t.Fatalf("%d types can be carried", seen)
	}
	for _, word := range strings.FieldsFunc(known, func(r rune) bool { return r == ' ' || r == ',' }) {
		if _, ok := DType([]byte(word)); word != "or" && !ok {
			t.Errorf("%q is named in messages and is no datatype", word)
		}
	}
	for _, bad := range []string{"", "FP8", "fp32", "FLOAT", "STRING", "TYPE_FP32", strings.Repeat("X", 1000)} {
		_, err := ParseDType("x", []byte(bad))
		if err == nil || !strings.Contains(err.Msg, "FP16") || len(err.Msg) > 600 {
			t.Errorf("datatype %.20q: %v", bad, err)
		}
	}
	for d, want := range map[tensor.DType]string{tensor.Half: "FP16", tensor.BFloat16: "BF16", tensor.String: "BYTES", tensor.Bool: "BOOL", tensor.Complex64: "COMPLEX64"} {
		if got := Datatype(d); got != want {
			t.Errorf("%v is called %q, want %q", d, got, want)
		}
	}
}
