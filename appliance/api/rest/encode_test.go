// encode_test.go: tensors to documents, byte for byte.
package rest

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

func newRand() *rand.Rand { return rand.New(rand.NewPCG(1, 2)) }

// encoded is the response for outputs of these names.
func encoded(row, strict bool, names string, outputs ...*tensor.Tensor) (string, *inference.Error) {
	var infos []inference.TensorInfo
	var wanted []int
	for i, name := range strings.Fields(names) {
		infos = append(infos, inference.TensorInfo{Alias: name})
		wanted = append(wanted, i)
	}
	e := encoder{strict: strict}
	err := e.response(row, infos, wanted, outputs)
	return string(e.out), err
}

func TestEncode(t *testing.T) {
	data := func(d tensor.DType, shape tensor.Shape, b ...byte) *tensor.Tensor {
		return must(tensor.New(d, shape, b))
	}
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for name, c := range map[string]struct {
		row     bool
		names   string
		outputs []*tensor.Tensor
		want    string
	}{
		"row scalars": {true, "y", []*tensor.Tensor{float32s(tensor.Shape{3}, 2.5, 3, 4.5)}, "{\n    \"predictions\": [2.5, 3.0, 4.5\n    ]\n}"},
		"row lists":   {true, "y", []*tensor.Tensor{float32s(tensor.Shape{2, 2}, 1, 2, 3, 4)}, "{\n    \"predictions\": [[1.0, 2.0], [3.0, 4.0]\n    ]\n}"},
		"row deep":    {true, "y", []*tensor.Tensor{float32s(tensor.Shape{1, 2, 1}, 1, 2)}, "{\n    \"predictions\": [[[1.0], [2.0]]\n    ]\n}"},
		"row none":    {true, "y", []*tensor.Tensor{float32s(tensor.Shape{0, 3})}, "{\n    \"predictions\": []\n}"},
		"row empties": {true, "y", []*tensor.Tensor{float32s(tensor.Shape{2, 0})}, "{\n    \"predictions\": [[], []\n    ]\n}"},
		"row objects": {true, "p q_bytes", []*tensor.Tensor{float32s(tensor.Shape{2, 1}, 1, 2), texts(tensor.Shape{2}, "hello", "")},
			"{\n    \"predictions\": [\n        {\n            \"p\": [1.0],\n            \"q_bytes\": {\n                \"b64\": \"aGVsbG8=\"\n            }\n        }," +
				"\n        {\n            \"p\": [2.0],\n            \"q_bytes\": {\n                \"b64\": \"\"\n            }\n        }\n    ]\n}"},
		"row b64": {true, "y_bytes", []*tensor.Tensor{texts(tensor.Shape{1, 2}, "a", "b")},
			"{\n    \"predictions\": [[{\n                \"b64\": \"YQ==\"\n            }, {\n                \"b64\": \"Yg==\"\n            }]\n    ]\n}"},
		"row objects none": {true, "p q", []*tensor.Tensor{float32s(tensor.Shape{0}), float32s(tensor.Shape{0, 2})}, "{\n    \"predictions\": []\n}"},
		"column":           {false, "y", []*tensor.Tensor{float32s(tensor.Shape{2, 1}, 1, 2)}, "{\n    \"outputs\": [\n        [\n            1.0\n        ],\n        [\n            2.0\n        ]\n    ]\n}"},
		"column scalar":    {false, "y", []*tensor.Tensor{float32s(nil, 1)}, "{\n    \"outputs\": 1.0\n}"},
		"column none":      {false, "y", []*tensor.Tensor{float32s(tensor.Shape{0})}, "{\n    \"outputs\": []\n}"},
		"column named": {false, "p q", []*tensor.Tensor{float32s(tensor.Shape{1}, 1), texts(nil, "é\"")},
			"{\n    \"outputs\": {\n        \"p\": [\n            1.0\n        ],\n        \"q\": \"é\\\"\"\n    }\n}"},
		"non-finite": {true, "y", []*tensor.Tensor{float32s(tensor.Shape{3}, nan, inf, -inf)}, "{\n    \"predictions\": [NaN, Infinity, -Infinity\n    ]\n}"},
		"double":     {true, "y", []*tensor.Tensor{float64s(tensor.Shape{4}, 0.1, 1.0/3, math.NaN(), 1e300)}, "{\n    \"predictions\": [0.1, 0.33333333333333331, NaN, 1e+300\n    ]\n}"},
		"int32":      {true, "y", []*tensor.Tensor{data(tensor.Int32, tensor.Shape{1}, 0xFE, 0xFF, 0xFF, 0xFF)}, "{\n    \"predictions\": [-2\n    ]\n}"},
		"int16":      {true, "y", []*tensor.Tensor{data(tensor.Int16, tensor.Shape{1}, 0xFE, 0xFF)}, "{\n    \"predictions\": [-2\n    ]\n}"},
		"int8":       {true, "y", []*tensor.Tensor{data(tensor.Int8, tensor.Shape{1}, 0xFE)}, "{\n    \"predictions\": [-2\n    ]\n}"},
		"uint8":      {true, "y", []*tensor.Tensor{data(tensor.Uint8, tensor.Shape{1}, 0xFE)}, "{\n    \"predictions\": [254\n    ]\n}"},
		"uint32":     {true, "y", []*tensor.Tensor{data(tensor.Uint32, tensor.Shape{1}, 0xFE, 0xFF, 0xFF, 0xFF)}, "{\n    \"predictions\": [4294967294\n    ]\n}"},
		"int64":      {true, "y", []*tensor.Tensor{data(tensor.Int64, tensor.Shape{1}, 0, 0, 0, 0, 0, 0, 0, 0x80)}, "{\n    \"predictions\": [-9223372036854775808\n    ]\n}"},
		"uint64":     {true, "y", []*tensor.Tensor{data(tensor.Uint64, tensor.Shape{1}, 0, 0, 0, 0, 0, 0, 0, 0x80)}, "{\n    \"predictions\": [9223372036854775808\n    ]\n}"},
		"bool":       {true, "y", []*tensor.Tensor{data(tensor.Bool, tensor.Shape{2}, 1, 0)}, "{\n    \"predictions\": [true, false\n    ]\n}"},
		"strings":    {true, "y", []*tensor.Tensor{texts(tensor.Shape{2}, "a\x01/\\\n\x7f", "\xff")}, "{\n    \"predictions\": [\"a\\u0001/\\\\\\n\x7f\", \"\xff\"\n    ]\n}"},
		"half, none": {true, "y", []*tensor.Tensor{data(tensor.Half, tensor.Shape{0})}, "{\n    \"predictions\": []\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := encoded(c.row, false, c.names, c.outputs...)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestEncodeStrict(t *testing.T) {
	got, err := encoded(true, true, "a b c", float32s(tensor.Shape{1}, float32(math.NaN())), float64s(tensor.Shape{1}, math.Inf(-1)),
		texts(tensor.Shape{1}, "é\xff\xed\xb0\x80"))
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct{ Predictions []map[string]any }
	if err := json.Unmarshal([]byte(got), &parsed); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if p := parsed.Predictions[0]; p["a"] != nil || p["b"] != nil || p["c"] != "é\uFFFD\uFFFD\uFFFD\uFFFD" {
		t.Errorf("got %v", p)
	}
}

func TestEncodeErrors(t *testing.T) {
	half := must(tensor.New(tensor.Half, tensor.Shape{1}, make([]byte, 2)))
	for name, c := range map[string]struct {
		row     bool
		names   string
		outputs []*tensor.Tensor
		want    string
	}{
		"no outputs":     {true, "", nil, "Cannot convert empty tensor map to JSON"},
		"half":           {true, "y", []*tensor.Tensor{half}, "Failed to write JSON value for tensor type: half"},
		"half column":    {false, "y", []*tensor.Tensor{half}, "Failed to write JSON value for tensor type: half"},
		"scalar in rows": {true, "y", []*tensor.Tensor{float32s(nil, 1)}, "Tensor name: y has no shape information "},
		"batch sizes":    {true, "x y", []*tensor.Tensor{float32s(tensor.Shape{2}, 1, 2), float32s(tensor.Shape{3}, 1, 2, 3)}, "Tensor name: y has inconsistent batch size: 3 expecting: 2"},
		"endless":        {false, "y", []*tensor.Tensor{float32s(tensor.Shape{1 << 40, 0})}, "output y has shape [1099511627776,0], which is no number but 1099511627776 empty lists"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := encoded(c.row, false, c.names, c.outputs...); err == nil || err.Msg != c.want {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// reference prints as TensorFlow Serving does: %g with six digits, or with as many as the type needs when those do not read back.
func reference(f float64, bits, most int) string {
	s := strconv.FormatFloat(f, 'e', 5, bits)
	precision := 6
	if back, err := strconv.ParseFloat(s, bits); err != nil || back != f {
		precision = most
	}
	s = printf(f, precision)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

// printf is C's %.*g, by way of strconv's digits.
func printf(f float64, precision int) string {
	s := strconv.FormatFloat(f, 'e', precision-1, 64)
	exponent, _ := strconv.Atoi(s[strings.IndexByte(s, 'e')+1:])
	trim := func(s string) string {
		if strings.Contains(s, ".") {
			s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return s
	}
	if exponent < -4 || exponent >= precision {
		mantissa, e, _ := strings.Cut(s, "e")
		return trim(mantissa) + "e" + e
	}
	return trim(strconv.FormatFloat(f, 'f', precision-1-exponent, 64))
}

func TestFloatsAreLaidOutAsTheReferenceDoes(t *testing.T) {
	for f, want := range map[float32]string{0: "0.0", 9e6: "9e+06", 999999: "999999.0", 0.5: "0.5", .0003: "0.0003", .00003: "3e-05",
		555557.5: "555557.5", 16777216: "16777216.0", 1234567: "1234567.0", 1e6: "1e+06", 0.2: "0.2", -2: "-2.0", 1e-45: "1.4013e-45", 0.12345678: "0.123456784",
		math.MaxFloat32: "3.40282347e+38", 1e10: "1e+10", 123456789: "123456792.0", 1e9 + 64: "1.00000006e+09", 100: "100.0", -0.001: "-0.001"} {
		if got := string(appendFloat32(nil, f)); got != want {
			t.Errorf("%g: %s, want %s", f, got, want)
		}
	}
	if got := string(appendFloat64(nil, math.Copysign(0, -1))); got != "-0.0" {
		t.Errorf("minus zero is %s", got)
	}
	rnd := newRand()
	for i := range 90_000 {
		f := math.Float32frombits(rnd.Uint32())
		d := math.Float64frombits(rnd.Uint64())
		switch i % 3 {
		case 1: // few digits, which are where the two ways to print meet
			f = float32(rnd.IntN(1e7)) / float32(math.Pow10(rnd.IntN(12)))
			d = float64(rnd.IntN(1e7)) / math.Pow10(rnd.IntN(12))
		case 2:
			f, d = rnd.Float32(), rnd.Float64()
		}
		if finite(float64(f)) {
			if got, want := string(appendFloat32(nil, f)), reference(float64(f), 32, 9); got != want {
				t.Fatalf("float32 %x: %s, want %s", math.Float32bits(f), got, want)
			}
		}
		if finite(d) {
			if got, want := string(appendFloat64(nil, d)), reference(d, 64, 17); got != want {
				t.Fatalf("float64 %x: %s, want %s", math.Float64bits(d), got, want)
			}
		}
	}
}
