// compatible_test.go: what a new version may change.
package savedmodel

import (
	"errors"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func TestCompatible(t *testing.T) {
	info := func(alias string, d tensor.DType, shape ...int64) inference.TensorInfo {
		return inference.TensorInfo{Alias: alias, DType: d, Shape: shape}
	}
	def := func(t inference.TensorInfo) inference.TensorInfo {
		t.Default = &tensor.Tensor{}
		return t
	}
	unknown := inference.TensorInfo{Alias: "x", DType: tensor.Float, UnknownRank: true}
	type infos []inference.TensorInfo
	x, y := info("x", tensor.Float, -1, 3), info("y", tensor.Float, -1, 10)
	sigs := func(in, out infos) map[string]*inference.Signature {
		return map[string]*inference.Signature{"s": {Key: "s", Inputs: in, Outputs: out}}
	}
	both := sigs(infos{x}, infos{y})
	both["more"] = &inference.Signature{Key: "more"}
	for _, tt := range []struct {
		name           string
		serving, after map[string]*inference.Signature
		want           string
	}{
		{"the same", sigs(infos{x}, infos{y}), sigs(infos{x}, infos{y}), ""},
		{"nothing served before", nil, sigs(infos{x}, infos{y}), ""},
		{"a signature more", sigs(infos{x}, infos{y}), both, ""},
		{"a signature less", both, sigs(infos{x}, infos{y}), `signature "more" is gone`},
		{"an output more", sigs(infos{x}, infos{y}), sigs(infos{x}, infos{y, info("z", tensor.Int32)}), ""},
		{"an output less", sigs(infos{x}, infos{y, info("z", tensor.Int32)}), sigs(infos{x}, infos{y}), `output "z" is gone`},
		{"an input more", sigs(infos{x}, infos{y}), sigs(infos{info("mask", tensor.Bool, -1), x}, infos{y}), `input "mask" is new and has no default`},
		{"an input with a default more", sigs(infos{x}, infos{y}), sigs(infos{def(info("mask", tensor.Bool, -1)), x}, infos{y}), ""},
		{"an input less", sigs(infos{info("mask", tensor.Bool, -1), x}, infos{y}), sigs(infos{x}, infos{y}), `input "mask" is gone`},
		{"a default less", sigs(infos{def(x)}, infos{y}), sigs(infos{x}, infos{y}), `input "x" has no default any more`},
		{"another type of input", sigs(infos{x}, infos{y}), sigs(infos{info("x", tensor.Double, -1, 3)}, infos{y}), `input "x" is DT_DOUBLE, it was DT_FLOAT`},
		{"another type of output", sigs(infos{x}, infos{y}), sigs(infos{x}, infos{info("y", tensor.Half, -1, 10)}), `output "y" is DT_HALF, it was DT_FLOAT`},
		{"an input that takes more", sigs(infos{info("x", tensor.Float, 1, 3)}, infos{y}), sigs(infos{x}, infos{y}), ""},
		{"an input that takes anything", sigs(infos{x}, infos{y}), sigs(infos{unknown}, infos{y}), ""},
		{"an input that takes less", sigs(infos{x}, infos{y}), sigs(infos{info("x", tensor.Float, 1, 3)}, infos{y}), `input "x" is [1,3], it was [-1,3]`},
		{"an input that took anything", sigs(infos{unknown}, infos{y}), sigs(infos{x}, infos{y}), `it was of unknown rank`},
		{"another number of features", sigs(infos{x}, infos{y}), sigs(infos{info("x", tensor.Float, -1, 4)}, infos{y}), `input "x" is [-1,4]`},
		{"another rank", sigs(infos{x}, infos{y}), sigs(infos{info("x", tensor.Float, -1, 3, 1)}, infos{y}), `input "x" is`},
		{"an output that says more", sigs(infos{x}, infos{info("y", tensor.Float, -1, -1)}), sigs(infos{x}, infos{y}), ""},
		{"an output that says less", sigs(infos{x}, infos{y}), sigs(infos{x}, infos{info("y", tensor.Float, -1, -1)}), `output "y" is [-1,-1]`},
		{"everything at once", sigs(infos{x}, infos{y}), sigs(infos{info("a", tensor.Float)}, nil), `input "x" is gone; signature "s": input "a" is new and has no default; signature "s": output "y" is gone`},
	} {
		err := Compatible(tt.serving, tt.after)
		if (err == nil) != (tt.want == "") || err != nil && (!errors.Is(err, ErrIncompatible) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
