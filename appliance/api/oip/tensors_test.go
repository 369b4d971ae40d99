// tensors_test.go: raw tensors there and back, whatever the bytes are.
package oip

import (
	"bytes"
	"math"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func FuzzRaw(f *testing.F) {
	f.Add("FP32", int64(1), int64(1), []byte("abcd"))
	f.Add("BYTES", int64(2), int64(1), []byte("\x01\x00\x00\x00a\x00\x00\x00\x00"))
	f.Add("BYTES", int64(1), int64(math.MaxInt64), []byte("\xff\xff\xff\xffa"))
	f.Add("BOOL", int64(2), int64(1), []byte("\x00\x01"))
	f.Add("BF16", int64(-1), int64(1), []byte{})
	f.Fuzz(func(t *testing.T, word string, rows, columns int64, raw []byte) {
		d, err := ParseDType("x", []byte(word))
		if err != nil {
			return
		}
		left := int64(1 << 12)
		got, err := Raw("x", d, tensor.Shape{rows, columns}, raw, &left)
		if err != nil {
			if err.Msg == "" || err.Reason == "" {
				t.Fatalf("an error without a text or a reason: %v", err)
			}
			return
		}
		if left < 0 {
			t.Fatalf("more than there was is used: %d left", left)
		}
		if back := AppendRaw(nil, got); !bytes.Equal(back, raw) || RawLen(got) != int64(len(raw)) {
			t.Fatalf("%q became %q, of length %d", raw, back, RawLen(got))
		}
	})
}

func TestParameters(t *testing.T) {
	for _, c := range []struct {
		name  string
		value any
		want  Parameters
		fails bool
	}{
		{"timeout", int64(1500), Parameters{Timeout: 1500_000}, false},
		{"timeout", uint64(math.MaxUint64), Parameters{Timeout: 24 * 3600 * 1e9}, false},
		{"timeout", 2e3, Parameters{Timeout: 2_000_000}, false},
		{"timeout", 1.5, Parameters{}, true},
		{"timeout", math.NaN(), Parameters{}, true},
		{"timeout", "1", Parameters{}, true},
		{"timeout", true, Parameters{}, true},
		{"timeout", nil, Parameters{}, true},
		{"priority", uint64(1), Parameters{Class: inference.Interactive, HasClass: true}, false},
		{"priority", int64(2), Parameters{HasClass: true}, false},
		{"priority", int64(1000), Parameters{Class: inference.Bulk, HasClass: true}, false},
		{"priority", "interactive", Parameters{Class: inference.Interactive, HasClass: true}, false},
		{"priority", int64(-1), Parameters{}, true},
		{"priority", struct{}{}, Parameters{}, true},
		{"signature_name", "s", Parameters{Signature: "s"}, false},
		{"signature_name", int64(1), Parameters{}, true},
		{"binary_data_output", true, Parameters{BinaryOutput: true}, false},
		{"binary_data_output", "yes", Parameters{}, true},
		{"sequence_id", uint64(3), Parameters{}, true},
		{"sequence_id", struct{}{}, Parameters{}, true},
		{"something", struct{}{}, Parameters{}, false},
	} {
		var p Parameters
		if err := p.Set(c.name, c.value); (err != nil) != c.fails {
			t.Errorf("%s %v: %v", c.name, c.value, err)
		} else if !c.fails && p != c.want {
			t.Errorf("%s %v: %+v, want %+v", c.name, c.value, p, c.want)
		}
	}
}
