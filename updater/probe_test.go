// probe_test.go: the made-up run against scripted runners.
package updater

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// scripted is a runner that a test writes down.
type scripted struct {
	run    func(ctx context.Context, run *inference.Run) (*inference.Result, error)
	runs   []string // "signature[shape of the first input]"
	closed int
}

func (r *scripted) Run(ctx context.Context, run *inference.Run) (*inference.Result, error) {
	text := run.Signature.Key
	if len(run.Inputs) > 0 {
		text += run.Inputs[0].Shape().String()
	}
	r.runs = append(r.runs, text)
	if r.run != nil {
		return r.run(ctx, run)
	}
	return answer(run), nil
}
func (r *scripted) Slots() int   { return 1 }
func (r *scripted) Close() error { r.closed++; return nil }

// answer is one float per output.
func answer(run *inference.Run) *inference.Result { return answerWith(run, 1) }

func answerWith(run *inference.Run, value float32) *inference.Result {
	out := make([]*tensor.Tensor, len(run.Outputs))
	for i := range out {
		out[i] = &tensor.Tensor{DType: tensor.Float, Shape: tensor.Shape{1}, Data: binary.LittleEndian.AppendUint32(nil, math.Float32bits(value))}
	}
	return inference.NewResult(out, nil)
}

func rows(run *inference.Run) int64 { return run.Inputs[0].Shape()[0] }

func signature(key string, batchable bool, dtype tensor.DType, shape ...int64) *inference.Signature {
	s := &inference.Signature{Key: key, Inputs: []inference.TensorInfo{{Alias: "x", DType: dtype, Shape: shape}},
		Outputs: []inference.TensorInfo{{Alias: "y", DType: tensor.Float, Shape: tensor.Shape{-1}}}, Batchable: batchable}
	if !batchable {
		s.Unbatchable = "its first dimension is fixed"
	}
	return s
}

func signatures(list ...*inference.Signature) map[string]*inference.Signature {
	m := make(map[string]*inference.Signature)
	for _, s := range list {
		m[s.Key] = s
	}
	return m
}

func TestProbe(t *testing.T) {
	bad := func(code inference.Code, wrap error) error {
		return &inference.Error{Code: code, Reason: inference.ReasonRuntime, Msg: "no good", Err: wrap}
	}
	failAt := func(n int64, err error) func(context.Context, *inference.Run) (*inference.Result, error) {
		return func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			if rows(run) >= n {
				return nil, err
			}
			return answer(run), nil
		}
	}
	d := inference.DefaultSignature
	batch := signature(d, true, tensor.Float, -1, 3)
	const mixing = " D[1,3] D[1,3] D[2,3]" // two rows alone and together, where batches ran
	writes := signature("count", false, tensor.Float, 1)
	writes.Writes = true
	for _, test := range []struct {
		name     string
		sigs     map[string]*inference.Signature
		run      func(context.Context, *inference.Run) (*inference.Result, error)
		opts     ProbeOptions
		runs     string
		largest  int64 // of the default signature
		unproven string
		err      string
	}{
		{name: "doubling to the cap", sigs: signatures(batch), opts: ProbeOptions{MaxBatch: 8},
			runs: "D[1,3] D[1,3] D[2,3] D[4,3] D[8,3]" + mixing, largest: 8},
		{name: "a cap that is no power of two", sigs: signatures(batch), opts: ProbeOptions{MaxBatch: 7}, runs: "D[1,3] D[1,3] D[2,3] D[4,3]" + mixing, largest: 4},
		{name: "not batchable", sigs: signatures(signature(d, false, tensor.Float, 1, -1)), runs: "D[1,1] D[1,1]", largest: 1},
		{name: "unknown rank", sigs: signatures(&inference.Signature{Key: d, Inputs: []inference.TensorInfo{{Alias: "x", DType: tensor.Float, UnknownRank: true}}}), runs: "D[1] D[1]", largest: 1},
		{name: "scalar", sigs: signatures(signature(d, false, tensor.Int64)), runs: "D[] D[]", largest: 1},
		{name: "no inputs", sigs: signatures(&inference.Signature{Key: d}), runs: "D D", largest: 1},
		{name: "strings", sigs: signatures(signature(d, true, tensor.String, -1)), opts: ProbeOptions{MaxBatch: 2}, runs: "D[1] D[1] D[2]", largest: 2},
		{name: "the default signature first", sigs: signatures(signature("a", false, tensor.Float, 1), signature(d, false, tensor.Float, 1), signature("z", false, tensor.Float, 1)),
			runs: "D[1] D[1] a[1] a[1] z[1] z[1]", largest: 1},
		{name: "one that writes is not run", sigs: signatures(writes, signature(d, false, tensor.Float, 1)), runs: "D[1] D[1]", largest: 1},
		{name: "nothing but one that writes", sigs: signatures(writes), unproven: `signature "count": it writes variables`},
		{name: "no signature", sigs: signatures(), unproven: "no signature"},
		{name: "an input that no decoder takes", sigs: signatures(batch), run: failAt(0, bad(inference.InvalidArgument, nil)),
			runs: "D[1,3] D[1,3]", unproven: `signature "serving_default": no good`},
		{name: "out of range", sigs: signatures(batch), run: failAt(0, bad(inference.OutOfRange, nil)), runs: "D[1,3] D[1,3]", unproven: "no good"},
		{name: "an input that the graph likes better the other way round", sigs: signatures(batch), opts: ProbeOptions{MaxBatch: 1},
			run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
				if run.Inputs[0].Pieces[0].Data[3] != 0 { // the high byte of 1.0
					return nil, bad(inference.InvalidArgument, nil)
				}
				return answer(run), nil
			}, runs: "D[1,3] D[1,3] D[1,3]", largest: 1},
		{name: "one unproven beside one proven", sigs: signatures(batch, signature("parse", true, tensor.String, -1)), opts: ProbeOptions{MaxBatch: 1},
			run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
				if run.Signature.Key == "parse" {
					return nil, bad(inference.InvalidArgument, nil)
				}
				return answer(run), nil
			}, runs: "D[1,3] D[1,3] parse[1] parse[1]", largest: 1, unproven: `signature "parse": no good`},
		{name: "any other failure refuses", sigs: signatures(batch), run: failAt(0, bad(inference.FailedPrecondition, nil)), runs: "D[1,3]", err: "no good"},
		{name: "a death refuses, whatever its code", sigs: signatures(batch), run: failAt(0, bad(inference.InvalidArgument, inference.ErrWorkerDied)), runs: "D[1,3]", err: "worker died"},
		{name: "a run that never ends refuses", sigs: signatures(batch), run: failAt(0, bad(inference.DeadlineExceeded, inference.ErrRunTimeout)), runs: "D[1,3]", err: "run_timeout"},
		{name: "no memory for a batch bounds it", sigs: signatures(batch), run: failAt(4, bad(inference.ResourceExhausted, nil)),
			runs: "D[1,3] D[1,3] D[2,3] D[4,3]" + mixing, largest: 2},
		{name: "a graph that takes no larger batch", sigs: signatures(batch), run: failAt(2, bad(inference.InvalidArgument, nil)), runs: "D[1,3] D[1,3] D[2,3]", largest: 1},
		{name: "a batch that fails otherwise refuses", sigs: signatures(batch), run: failAt(2, bad(inference.Internal, nil)), runs: "D[1,3] D[1,3] D[2,3]", err: "batch 2"},
		{name: "a batch that kills the worker refuses", sigs: signatures(batch), run: failAt(2, bad(inference.ResourceExhausted, inference.ErrWorkerDied)), runs: "D[1,3] D[1,3] D[2,3]", err: "batch 2"},
		{name: "too large to make up", sigs: signatures(signature(d, false, tensor.Float, 1<<20, 1<<20)), unproven: "would take more than"},
		{name: "an impossible shape", sigs: signatures(signature(d, false, tensor.Float, math.MaxInt64, 4)), unproven: "overflows"},
		{name: "a type that no tensor carries", sigs: signatures(signature(d, false, tensor.Resource)), unproven: "DT_RESOURCE"},
		{name: "a batch too large to make up", sigs: signatures(signature(d, true, tensor.Float, -1, 100)), opts: ProbeOptions{MaxInputBytes: 900}, runs: "D[1,100] D[1,100] D[2,100] D[1,100] D[1,100] D[2,100]", largest: 2},
		{name: "outputs that are not the signature's", sigs: signatures(batch),
			run: func(context.Context, *inference.Run) (*inference.Result, error) {
				return inference.NewResult(nil, nil), nil
			}, runs: "D[1,3]", err: "gave 0 outputs"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &scripted{run: test.run}
			p, err := Probe(t.Context(), r, test.sigs, test.opts)
			if runs := strings.ReplaceAll(strings.Join(r.runs, " "), d, "D"); runs != test.runs {
				t.Errorf("runs: %s, want %s", runs, test.runs)
			}
			if r.closed != 0 {
				t.Error("closed a runner that is not its own")
			}
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) {
					t.Fatalf("error: %v, want %s", err, test.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Signatures[d].Largest; got != test.largest {
				t.Errorf("largest: %d, want %d", got, test.largest)
			}
			if (p.Unproven == "") != (test.unproven == "") || !strings.Contains(p.Unproven, test.unproven) {
				t.Errorf("unproven: %q, want %q", p.Unproven, test.unproven)
			}
			if len(p.Signatures) != len(test.sigs) {
				t.Errorf("%d of %d signatures are told about", len(p.Signatures), len(test.sigs))
			}
		})
	}
}

// TestProbeTime: doubling stops before the budget is passed, and the times are those of the runs.
func TestProbeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sig := signature(inference.DefaultSignature, true, tensor.Float, -1)
		first := true
		r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			time.Sleep(time.Duration(rows(run)) * time.Second)
			if first {
				first = false
				time.Sleep(time.Minute)
			}
			return answer(run), nil
		}}
		p, err := Probe(t.Context(), r, signatures(sig), ProbeOptions{Budget: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		// 1 s, then 2 and 4 make 6 of 10; 8 would pass it. The slow first run counts neither as a time nor against the budget.
		got := p.Signatures[sig.Key]
		want := map[int64]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 4 * time.Second}
		if got.Largest != 4 || !maps.Equal(got.Times, want) || !strings.Contains(got.Limit, "batch 8") {
			t.Fatalf("got %+v", got)
		}
	})
}

func TestProbeMemory(t *testing.T) {
	sig := signature(inference.DefaultSignature, true, tensor.Float, -1)
	used := int64(100)
	r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
		used = max(used, 100+10*rows(run))
		return answer(run), nil
	}}
	p, err := Probe(t.Context(), r, signatures(sig), ProbeOptions{
		Memory: func(inference.Runner) (int64, bool) { return used, true }, MemoryLimitBytes: 250})
	if err != nil {
		t.Fatal(err)
	}
	// After batch 8 the worker uses 180, having grown by 40: 16 would need 80 more, which is over the limit.
	if got := p.Signatures[sig.Key]; got.Largest != 8 || got.Memory != 180 || !strings.Contains(got.Limit, "180 of 250 bytes") {
		t.Fatalf("got %+v", got)
	}
}

func TestProbeOddNumbers(t *testing.T) {
	for value, want := range map[float32]string{float32(math.Inf(-1)): "infinite", 1e38: ""} {
		r := &scripted{run: func(_ context.Context, run *inference.Run) (*inference.Result, error) {
			return answerWith(run, value), nil
		}}
		p, err := Probe(t.Context(), r, signatures(signature(inference.DefaultSignature, true, tensor.Float, -1)), ProbeOptions{})
		if err != nil || p.Unproven != "" {
			t.Fatalf("odd numbers refuse: %v %s", err, p.Unproven)
		}
		if got := p.Warnings(); (want == "") != (len(got) == 0) || (want != "" && (len(got) != 1 || !strings.Contains(got[0], `output "y" is `+want))) {
			t.Errorf("%v: %q", value, got)
		}
	}
	bits := func(b ...byte) []byte { return b }
	for _, test := range []struct {
		dtype tensor.DType
		data  []byte
		want  string
	}{
		{tensor.Float, bits(0, 0, 0xc0, 0x7f), "NaN"}, {tensor.Float, bits(0, 0, 0x80, 0x7f), "infinite"}, {tensor.Float, bits(0xff, 0xff, 0x7f, 0x7f), ""},
		{tensor.Double, bits(0, 0, 0, 0, 0, 0, 0xf8, 0xff), "NaN"}, {tensor.Double, bits(0, 0, 0, 0, 0, 0, 0xf0, 0x7f), "infinite"},
		{tensor.Double, bits(0, 0, 0, 0, 0, 0, 0xe0, 0x7f), ""}, {tensor.Half, bits(0, 0x7c), "infinite"}, {tensor.Half, bits(1, 0x7c), "NaN"},
		{tensor.Half, bits(0xff, 0x7b), ""}, {tensor.BFloat16, bits(0x80, 0x7f), "infinite"}, {tensor.BFloat16, bits(0xc0, 0x7f), "NaN"},
		{tensor.BFloat16, bits(0x7f, 0x7f), ""}, {tensor.Int32, bits(0xff, 0xff, 0xff, 0x7f), ""}, {tensor.Float, nil, ""},
	} {
		if got := odd(&tensor.Tensor{DType: test.dtype, Data: test.data}); got != test.want {
			t.Errorf("%v %x: %q, want %q", test.dtype, test.data, got, test.want)
		}
	}
}

// TestMadeUpOnes: the number one of every type that can be carried, as TensorFlow would read it.
func TestMadeUpOnes(t *testing.T) {
	want := map[tensor.DType]string{tensor.Float: "0000803f", tensor.Double: "000000000000f03f", tensor.Half: "003c", tensor.BFloat16: "803f",
		tensor.Complex64: "0000803f00000000", tensor.Int32: "00000000", tensor.Bool: "00", tensor.Uint64: "0000000000000000"}
	for _, d := range slices.Sorted(maps.Keys(want)) {
		got, err := makeInputs(signature("s", false, d), 1, onesAndZeros, 100)
		if err != nil {
			t.Fatal(err)
		}
		if hex := fmt.Sprintf("%x", got[0].Data); hex != want[d] {
			t.Errorf("%v: %s, want %s", d, hex, want[d])
		}
	}
	got, err := makeInputs(signature("s", false, tensor.Int16, 2), 1, zerosAndOnes, 100)
	if err != nil || fmt.Sprintf("%x", got[0].Data) != "01000100" {
		t.Errorf("the other way round: %v %v", got, err)
	}
}

func TestProbeStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := &scripted{run: func(ctx context.Context, _ *inference.Run) (*inference.Result, error) {
		cancel()
		return nil, ctx.Err()
	}}
	if _, err := Probe(ctx, r, signatures(signature("s", true, tensor.Float, -1)), ProbeOptions{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}
