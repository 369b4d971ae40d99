// modeltest_test.go: the folders that are written, and TensorFlow's own opinion about the models in them.
package modeltest_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
	"github.com/inferd/inferd/inference/tfrt"
)

func TestSameBytesEveryTime(t *testing.T) {
	for name, build := range modeltest.All() {
		a, b := modeltest.Write(t, build()), modeltest.Write(t, build())
		for _, file := range []string{"saved_model.pb", "variables/variables.index", "variables/variables.data-00000-of-00001"} {
			x, errX := os.ReadFile(filepath.Join(a, file))
			y, errY := os.ReadFile(filepath.Join(b, file))
			if !bytes.Equal(x, y) || os.IsNotExist(errX) != os.IsNotExist(errY) {
				t.Errorf("%s: %s differs between two writes", name, file)
			}
		}
	}
}

func TestPublishLeavesNothingElse(t *testing.T) {
	base := t.TempDir()
	if _, err := modeltest.HalfPlusTwo().Publish(base, 3); err != nil {
		t.Fatal(err)
	}
	if _, err := modeltest.HalfPlusTwo().Publish(base, 3); err == nil {
		t.Error("the same version was published twice")
	}
	entries, err := os.ReadDir(base)
	if err != nil || len(entries) != 1 || entries[0].Name() != "3" {
		t.Errorf("base holds %v, %v", entries, err)
	}
}

func TestExampleIsATFExample(t *testing.T) {
	// From tf.train.Example(features=tf.train.Features(feature={"x": tf.train.Feature(float_list=tf.train.FloatList(value=[3.0]))})).
	const want = "0a0f0a0d0a0178120812060a0400004040"
	if got := hex.EncodeToString(modeltest.Example(3)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// openRuntime opens TensorFlow, or skips the test.
func openRuntime(t *testing.T) *tfrt.Runtime {
	t.Helper()
	dir := os.Getenv("LIBTENSORFLOW")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "build", "runtime")
	}
	found, _ := filepath.Glob(filepath.Join(dir, "libtensorflow*.so*"))
	slices.Sort(found) // libtensorflow_cc before libtensorflow_framework
	if len(found) == 0 {
		t.Skipf("no TensorFlow runtime in %s: run `make runtime` or set LIBTENSORFLOW", dir)
	}
	path, err := filepath.Abs(found[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := tfrt.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type loaded struct {
	model *tfrt.Model
	info  *savedmodel.Info
}

func load(t *testing.T, r *tfrt.Runtime, m *modeltest.Model) *loaded {
	t.Helper()
	dir := modeltest.Write(t, m)
	info, err := savedmodel.Read(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	model, err := r.Load(dir, tfrt.Options{})
	if err != nil {
		t.Fatalf("%s: TensorFlow does not load it: %v", m.Name, err)
	}
	t.Cleanup(func() { _ = model.Close() })
	for _, s := range info.Signatures {
		if err := model.Prepare(s); err != nil {
			t.Fatal(err)
		}
	}
	return &loaded{model, info}
}

// run returns all outputs in the order of their aliases.
func (l *loaded) run(t *testing.T, key string, in ...*tensor.Tensor) ([]*tensor.Tensor, error) {
	t.Helper()
	s := l.info.Signatures[key]
	if s == nil {
		t.Fatalf("no signature %q", key)
	}
	r := &inference.Run{Signature: s}
	for _, x := range in {
		r.Inputs = append(r.Inputs, tensor.One(x))
	}
	for i := range s.Outputs {
		r.Outputs = append(r.Outputs, i)
	}
	result, err := l.model.Run(context.WithoutCancel(t.Context()), r)
	if err != nil {
		return nil, err
	}
	defer result.Release()
	var out []*tensor.Tensor
	for _, o := range result.Outputs {
		out = append(out, o.Clone())
	}
	return out, nil
}

// text prints outputs for comparison.
func text(list []*tensor.Tensor) string {
	s := ""
	for _, o := range list {
		if o.DType == tensor.String {
			s += fmt.Sprintf("%v%q ", o.Shape, o.Strings)
		} else {
			s += fmt.Sprintf("%v%v ", o.Shape, modeltest.FloatValues(o))
		}
	}
	return s
}

func TestTensorFlowRunsThem(t *testing.T) {
	r := openRuntime(t)
	f := modeltest.Floats
	col := func(v ...float32) *tensor.Tensor { return f(tensor.Shape{int64(len(v)), 1}, v...) }
	num := func(v float32) *tensor.Tensor { return f(tensor.Shape{}, v) }
	const serve = inference.DefaultSignature
	type call struct {
		key  string
		in   []*tensor.Tensor
		want string // outputs in the order of their aliases, or the error's code
	}
	one := func(want string, in ...*tensor.Tensor) []call { return []call{{serve, in, want}} }
	tests := []struct {
		model *modeltest.Model
		calls []call
	}{
		{modeltest.HalfPlusTwo(), one("[2,1][2.5 4.5] ", col(1, 5))},
		{modeltest.Affine(3, -1), one("[2,1][2 14] ", col(1, 5))},
		{modeltest.MatrixHalfPlusTwo(), one("[1,3,3][2 2.5 3 3.5 4 4.5 5 5.5 6] ", f(tensor.Shape{1, 3, 3}, 0, 1, 2, 3, 4, 5, 6, 7, 8))},
		{modeltest.Strings(), one(`[2]["hello, ann" "hello, "] [2]["ann" ""] `, modeltest.Strings1D([]byte("ann"), nil))},
		{modeltest.TwoInputs(), one("[1,2][-2 -3] [1,2][4 7] ", f(tensor.Shape{1, 2}, 1, 2), f(tensor.Shape{1, 2}, 3, 5))},
		{modeltest.Counter(), []call{
			{"get_counter", nil, "[][0] "}, {"incr_counter", nil, "[][1] "}, {"incr_counter_by", []*tensor.Tensor{num(4)}, "[][5] "},
			{"get_counter", nil, "[][5] "}, {"reset_counter", nil, "[][0] "}, {"get_counter", nil, "[][0] "},
		}},
		{modeltest.Scalar(), one("[][3.5] ", num(3))},
		{modeltest.FixedBatch(), []call{
			{serve, []*tensor.Tensor{f(tensor.Shape{1, 3}, 1, 2, 3)}, "[1,3][2.5 3 3.5] "},
			{serve, []*tensor.Tensor{f(tensor.Shape{2, 3}, 1, 2, 3, 4, 5, 6)}, "INVALID_ARGUMENT"},
		}},
		{modeltest.Defaults(), one("[1,1][6] ", num(2), col(3))},
		{modeltest.KeepsInput(), []call{
			{"kept", nil, "[1,1][-1] "}, {serve, []*tensor.Tensor{col(3, 4)}, "[2,1][3 4] "}, {"kept", nil, "[2,1][3 4] "},
		}},
		{modeltest.Functions(), []call{
			{serve, []*tensor.Tensor{col(1, 2)}, "[2,1][2.5 3] "}, {"recall", nil, "[][-1] "},
			{"remember", []*tensor.Tensor{num(7)}, "[][7] "}, {"recall", nil, "[][7] "},
		}},
		{modeltest.VariableLength(), one("[2][3 7] ", f(tensor.Shape{2, 2}, 1, 2, 3, 4))},
		{modeltest.NaN(), one("[3,1][NaN +Inf -Inf] ", col(0, 1, -1))},
		{modeltest.TFExample(), []call{
			{serve, []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(3))}, "[1,1][3.5] "},
			{serve, []*tensor.Tensor{modeltest.Strings1D(nil)}, "INVALID_ARGUMENT"},
			{serve, []*tensor.Tensor{modeltest.Strings1D([]byte("made up"))}, "INVALID_ARGUMENT"},
		}},
		{modeltest.Examples(), []call{
			{serve, []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(1), modeltest.Features(map[string]float32{"x": 3, "bias": -2}))}, `[2,2]["low" "high" "high" "low"] [2,2][1 2.5 3 1.5] `},
			{"classes", []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(4))}, `[1,2]["high" "high"] `},
			{"scores", []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(4))}, "[1,2][4 4] "},
			{"regress", []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(3), modeltest.Example(5))}, "[2,1][3.5 4.5] "},
			{"flat", []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(3), modeltest.Example(5))}, "[2][3.5 4.5] "},
			{"predict", []*tensor.Tensor{modeltest.Strings1D(modeltest.Example(3))}, "[1,1][3.5] "},
			{serve, []*tensor.Tensor{modeltest.Strings1D(modeltest.Features(map[string]float32{"bias": 1}))}, "INVALID_ARGUMENT"},
		}},
		{modeltest.BigVariables(1, 40), one("[1,1][42] ", col(2))},
		{modeltest.Busy(2), one("[][3.5] ", num(3))},
		{modeltest.Dense(4), one("[2][2.5 1] ", f(tensor.Shape{2, 4}, 1, 2, 3, 4, 1, 1, 1, 1))},
		{modeltest.Sleepy(), one("[2,1][0 -1] ", col(0, -1))},
		{modeltest.NeverReturns(), one("[1,1][0] ", col(0))},
		{modeltest.Dequeues(), one("[1,1][-2] ", col(-2))},
		{modeltest.Hungry(1), one("[2,1][-1 2] ", col(-1, 2))},
		{modeltest.Crasher(), one("[1,1][2] ", col(2))},
		{modeltest.NoRun(), one("FAILED_PRECONDITION", col(2))},
	}
	for _, tt := range tests {
		t.Run(tt.model.Name, func(t *testing.T) {
			l := load(t, r, tt.model)
			for _, c := range tt.calls {
				got, err := l.run(t, c.key, c.in...)
				is := text(got)
				var e *inference.Error
				if errors.As(err, &e) {
					is = e.Code.String()
				} else if err != nil {
					is = err.Error()
				}
				if is != c.want {
					t.Errorf("%s: got %s (%v), want %s", c.key, is, err, c.want)
				}
			}
		})
	}
}

func TestTensorFlowRunsTwoLayer(t *testing.T) {
	l := load(t, openRuntime(t), modeltest.TwoLayer())
	x := make([]float32, 32)
	for i := range x {
		x[i] = float32(i)/16 - 1
	}
	got, err := l.run(t, inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 32}, x...))
	if err != nil {
		t.Fatal(err)
	}
	want := modeltest.TwoLayerAnswer(x)
	for i, y := range modeltest.FloatValues(got[0]) {
		if math.Abs(float64(y-want[i])) > 1e-4 {
			t.Errorf("output %d is %v, want %v", i, y, want[i])
		}
	}
}

func TestTensorFlowCarriesEveryType(t *testing.T) {
	r := openRuntime(t)
	for d := tensor.Float; d <= tensor.Uint4; d++ {
		if !d.Carried() || d == tensor.String {
			continue
		}
		x, err := tensor.New(d, tensor.Shape{2}, make([]byte, 2*d.Size()))
		if err != nil {
			t.Fatal(err)
		}
		x.Data[0] = 1
		l := load(t, r, modeltest.AllTypes(d))
		if y, err := l.run(t, inference.DefaultSignature, x); err != nil || y[0].DType != d || !bytes.Equal(y[0].Data, x.Data) {
			t.Errorf("%v: got %v, %v", d, y, err)
		}
	}
}

func TestTensorFlowRefusesUnknownOp(t *testing.T) {
	r := openRuntime(t)
	if m, err := r.Load(modeltest.Write(t, modeltest.UnknownOp()), tfrt.Options{}); err == nil {
		_ = m.Close()
		t.Error("a graph with an op that nobody has was loaded")
	}
}

func TestCrasherKillsTheProcess(t *testing.T) {
	const child = "INFERD_MODELTEST_CRASH"
	r := openRuntime(t)
	if os.Getenv(child) != "" {
		l := load(t, r, modeltest.Crasher())
		_, err := l.run(t, inference.DefaultSignature, modeltest.Floats(tensor.Shape{1, 1}, -1))
		t.Fatalf("the run came back: %v", err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrasherKillsTheProcess$")
	cmd.Env = append(os.Environ(), child+"=1", "GOTRACEBACK=none")
	out, err := cmd.CombinedOutput()
	if err == nil || bytes.Contains(out, []byte("came back")) {
		t.Fatalf("the process lives: %s", out)
	}
	if !bytes.Contains(out, []byte("asked to die")) {
		t.Errorf("it died of something else: %v: %s", err, out)
	}
}
