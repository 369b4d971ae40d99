// golden_test.go: golden cases, held against what scripted runners answer.
package updater

import (
	"context"
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

func writeGolden(t *testing.T, dir string, lines ...string) {
	t.Helper()
	path := filepath.Join(dir, savedmodel.GoldenFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func floats(shape tensor.Shape, values ...float32) *tensor.Tensor {
	t := &tensor.Tensor{DType: tensor.Float, Shape: shape}
	for _, v := range values {
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(v))
	}
	return t
}

// fakeGolden takes "SIGNATURE NAME EXPECTED": three rows for the signature, one number from it, "-" for none, within a tenth.
func fakeGolden(text []byte, signatures map[string]*inference.Signature) (Golden, error) {
	words := strings.Split(string(text), " ")
	sig := signatures[words[0]]
	if sig == nil {
		return Golden{}, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "no signature %q", words[0])
	}
	g := Golden{Name: words[1], ATol: 0.1, Request: &inference.Request{Signature: sig, Outputs: []int{0},
		Inputs: []*tensor.Tensor{floats(tensor.Shape{3}, 0, 0, 0)}}, Want: []*tensor.Tensor{nil}}
	if words[2] != "-" {
		f, err := strconv.ParseFloat(words[2], 32)
		if err != nil {
			return g, err
		}
		g.Want[0] = floats(tensor.Shape{1}, float32(f))
	}
	return g, nil
}

func TestProveGolden(t *testing.T) {
	nan := float32(math.NaN())
	for _, tt := range []struct {
		name     string
		cases    []string
		answer   float32 // to a case
		allowNaN bool
		golden   int // of signature s
		warning  string
		err      string
	}{
		{name: "none"},
		{name: "as expected", cases: []string{"s a 1", "", "s b 1.05"}, answer: 1, golden: 2},
		{name: "another number", cases: []string{"s a 1", "s last 3"}, answer: 1,
			err: `golden case "last" (line 2 of assets.extra/inferd_golden.jsonl): output "y"[0] is 1, expected 3 (rtol 0, atol 0.1); if the new answer is right, write it into the case`},
		{name: "NaN that is expected", cases: []string{"s a NaN"}, answer: nan, golden: 1},
		{name: "NaN that is not", cases: []string{"s a 1"}, answer: nan, allowNaN: true, err: `output "y"[0] is NaN, expected 1`},
		{name: "a number in place of NaN", cases: []string{"s a NaN"}, answer: 1, err: `output "y"[0] is 1, expected NaN`},
		{name: "infinity that is expected", cases: []string{"s a -Inf"}, answer: float32(math.Inf(-1)), golden: 1},
		{name: "the other infinity", cases: []string{"s a -Inf"}, answer: float32(math.Inf(1)), err: `is +Inf, expected -Inf`},
		{name: "NaN where nothing is expected", cases: []string{"s a -"}, answer: nan, err: `output "y" is NaN; if that is right, write nan: warn`},
		{name: "NaN where nothing is expected and it is allowed", cases: []string{"s a -"}, answer: nan, allowNaN: true, golden: 1,
			warning: `signature "s": output "y" is NaN on golden case "a" (line 1 of`},
		{name: "a case that cannot be read", cases: []string{"gone a 1"}, err: `golden case on line 1 of assets.extra/inferd_golden.jsonl: INVALID_ARGUMENT: no signature "gone"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if tt.cases != nil {
				writeGolden(t, dir, tt.cases...)
			}
			r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
				if rows(run) == 3 {
					return answerWith(run, tt.answer), nil
				}
				return answer(run), nil
			}}
			cand := Candidate{Dir: dir, Model: Model{AllowNaN: tt.allowNaN}, Info: &savedmodel.Info{Signatures: signatures(signature("s", true, tensor.Float, -1))}}
			p, err := Prove(t.Context(), r, cand, ProbeOptions{MaxBatch: 1}, Decode{Golden: fakeGolden})
			if tt.err != "" {
				if err == nil || !strings.Contains(message(err), tt.err) {
					t.Errorf("got %v, want %s", err, tt.err)
				}
				return
			}
			if got := strings.Join(p.Warnings(), "; "); err != nil || p.Signatures["s"].Golden != tt.golden || !strings.Contains(got, tt.warning) || (got == "") != (tt.warning == "") {
				t.Errorf("%+v %v", p, err)
			}
			if c, err := ReadCases(cand, Decode{Golden: fakeGolden}); err != nil || c.Golden != tt.golden {
				t.Errorf("read %+v %v", c, err)
			}
		})
	}
}

func TestGoldenDiffers(t *testing.T) {
	ints := func(d tensor.DType, size int, values ...int64) *tensor.Tensor {
		t := &tensor.Tensor{DType: d, Shape: tensor.Shape{int64(len(values))}}
		for _, v := range values {
			t.Data = append(t.Data, binary.LittleEndian.AppendUint64(nil, uint64(v))[:size]...)
		}
		return t
	}
	text := func(values ...string) *tensor.Tensor {
		t := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{int64(len(values))}}
		for _, v := range values {
			t.Strings = append(t.Strings, []byte(v))
		}
		return t
	}
	for _, tt := range []struct {
		name      string
		got, want *tensor.Tensor
		says      string
	}{
		{"the same", floats(tensor.Shape{2, 2}, 1, 2, 3, 4), floats(tensor.Shape{2, 2}, 1, 2, 3, 4), ""},
		{"within rtol", floats(tensor.Shape{1}, 1009), floats(tensor.Shape{1}, 1000), ""},
		{"beyond", floats(tensor.Shape{2, 2}, 1, 2, 3.5, 5), floats(tensor.Shape{2, 2}, 1, 2, 3, 4),
			`output "y"[1,0] is 3.5, expected 3 (rtol 0.01, atol 0.001), the first of 2 of 4 elements that differ`},
		{"a scalar", floats(nil, 1), floats(nil, 2), `output "y" is 1, expected 2 (rtol 0.01, atol 0.001)`},
		{"another shape", floats(tensor.Shape{2}, 1, 2), floats(tensor.Shape{2, 1}, 1, 2), `output "y" has shape [2], expected [2,1]`},
		{"nothing, in two shapes", floats(tensor.Shape{0, 4}), floats(tensor.Shape{0}), ""},
		{"nothing where there should be something", floats(tensor.Shape{0}), floats(tensor.Shape{1}, 1), `has shape [0], expected [1]`},
		{"another type", ints(tensor.Int32, 4, 1), floats(tensor.Shape{1}, 1), `is of type int32, expected float`},
		{"whole numbers know no tolerance", ints(tensor.Int64, 8, 1000), ints(tensor.Int64, 8, 1001), `output "y"[0] is 1000, expected 1001`},
		{"below zero", ints(tensor.Int8, 1, -1, 0), ints(tensor.Int8, 1, -1, -2), `output "y"[1] is 0, expected -2, the first of 1 of 2`},
		{"unsigned", ints(tensor.Uint32, 4, 1<<32-1), ints(tensor.Uint32, 4, 1), `is 4294967295, expected 1`},
		{"bool", ints(tensor.Bool, 1, 1), ints(tensor.Bool, 1, 0), `is true, expected false`},
		{"strings", text("a", "b"), text("a", "b"), ""},
		{"other strings", text("a", strings.Repeat("b", 100)), text("a", "c"), `output "y"[1] is "` + strings.Repeat("b", 64) + `", expected "c"`},
	} {
		sig := &inference.Signature{Key: "s", Outputs: []inference.TensorInfo{{Alias: "y"}}}
		g := Golden{Request: &inference.Request{Signature: sig, Outputs: []int{0}}, Want: []*tensor.Tensor{tt.want}, RTol: 0.01, ATol: 0.001}
		if got := g.differs([]*tensor.Tensor{tt.got}); (got == "") != (tt.says == "") || !strings.Contains(got, tt.says) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.says)
		}
	}
}

// TestGoldenCaseRefuses: the version that serves goes on when the next one answers otherwise.
func TestGoldenCaseRefuses(t *testing.T) {
	start(t, func(w *world, o *Options) {
		o.Decode = Decode{Golden: fakeGolden}
		put(t, w.sub(1), "")
	}, func(t *testing.T, w *world) {
		w.pass(5 * time.Second)
		w.wantLive(1)
		put(t, w.sub(2), "")
		writeGolden(t, w.sub(2), inference.DefaultSignature+" a 12345")
		w.pass(time.Minute)
		w.wantLive(1)
		if v, _ := w.model().Version(2); v.State != StateQuarantined || !strings.Contains(v.Reason, `golden case "a" (line 1 of assets.extra/inferd_golden.jsonl): output "y"`) {
			t.Errorf("%v %q", v.State, v.Reason)
		}
	})
}
