// model_test.go: the Runner: joined inputs, early answers, results that outlive the model; and the options' proto.
package tfrt

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"
	"google.golang.org/protobuf/proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

func TestRunJoinsAndPads(t *testing.T) {
	m, sigs := load(t, modeltest.HalfPlusTwo(), Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for name, ctx := range map[string]context.Context{"can end": ctx, "cannot end": context.Background()} {
		copied := 0
		r, err := m.Run(ctx, &inference.Run{
			Signature: sigs["serving_default"],
			Inputs:    []tensor.Parts{{Pieces: []*tensor.Tensor{floats(tensor.Shape{2, 1}, 1, 2), floats(tensor.Shape{1, 1}, 5)}, Pad: 2}},
			Outputs:   []int{0},
			Copied:    func() { copied++ },
		})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if copied != 1 {
			t.Errorf("%s: Copied was called %d times", name, copied)
		}
		y := r.Outputs[0]
		if got := fmt.Sprint(y.Shape, modeltest.FloatValues(y)); got != "[5,1] [2.5 3 4.5 2.5 2.5]" {
			t.Errorf("%s: %s", name, got)
		}
		if n := Count().Outputs; n != 1 {
			t.Errorf("%s: %d outputs lent, want 1", name, n)
		}
		r.Release()
	}
}

func TestRunJoinsStrings(t *testing.T) {
	m, sigs := load(t, modeltest.Strings(), Options{})
	r, err := m.Run(t.Context(), &inference.Run{
		Signature: sigs["serving_default"],
		Inputs:    []tensor.Parts{{Pieces: []*tensor.Tensor{modeltest.Strings1D([]byte("a"), nil), modeltest.Strings1D([]byte("b"))}, Pad: 2}},
		Outputs:   []int{1},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	if got := fmt.Sprintf("%q", r.Outputs[0].Strings); got != `["a" "" "b" "a" "a"]` {
		t.Error(got)
	}
}

func TestRunRefusesPiecesThatDoNotJoin(t *testing.T) {
	m, sigs := load(t, modeltest.HalfPlusTwo(), Options{})
	one := floats(tensor.Shape{1, 1}, 1)
	for name, p := range map[string]tensor.Parts{
		"inner shape": {Pieces: []*tensor.Tensor{one, floats(tensor.Shape{1, 2}, 1, 2)}},
		"scalar":      {Pieces: []*tensor.Tensor{one, floats(tensor.Shape{}, 1)}},
		"first":       {Pieces: []*tensor.Tensor{floats(tensor.Shape{}, 1), one}},
		"pad of none": {Pieces: []*tensor.Tensor{floats(tensor.Shape{0, 1})}, Pad: 1},
		"type":        {Pieces: []*tensor.Tensor{one, modeltest.Int32s(tensor.Shape{1, 1}, 1)}},
		"no pieces":   {},
	} {
		if r, err := m.Run(t.Context(), &inference.Run{Signature: sigs["serving_default"], Inputs: []tensor.Parts{p}, Outputs: []int{0}}); err == nil {
			t.Errorf("%s: joined to %v", name, r.Outputs[0].Shape)
			r.Release()
		}
	}
}

// TestRunAnswersWhenTheContextEnds runs in a child process, for the run never ends.
func TestRunAnswersWhenTheContextEnds(t *testing.T) {
	dir := modeltest.Write(t, modeltest.NeverReturns())
	out, err := child(t, "hang "+runtimePath(t)+" "+dir)
	if err != nil || !strings.HasSuffix(out, "CANCELLED, 1 input held, 1 slot taken") {
		t.Errorf("%v: %s", err, out)
	}
}

// hang cancels a run that never returns once TensorFlow has its input, and prints what is left of it.
func hang(library, dir string) error {
	r, err := Open(library)
	if err != nil {
		return err
	}
	m, err := r.Load(dir, Options{Slots: 1})
	if err != nil {
		return err
	}
	sig := &inference.Signature{
		Inputs:  []inference.TensorInfo{{Alias: "x", Tensor: "x:0", DType: tensor.Float}},
		Outputs: []inference.TensorInfo{{Alias: "y", Tensor: "y:0", DType: tensor.Float}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		for Count().Inputs == 0 {
			runtime.Gosched()
		}
		cancel()
	}()
	_, err = m.Run(ctx, &inference.Run{Signature: sig, Inputs: []tensor.Parts{tensor.One(floats(tensor.Shape{1, 1}, 1))}, Outputs: []int{0}})
	if !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run: %w", err)
	}
	// The slot is taken for good, so this one must end by its context, too.
	if _, err := m.Run(ctx, &inference.Run{Signature: sig}); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("second run: %w", err)
	}
	fmt.Printf("%v, %d input held, %d slot taken", inference.AsError(err).Code, Count().Inputs, len(m.slots))
	return nil
}

func TestRunGivesTheSlotBackAfterAnEarlyAnswer(t *testing.T) {
	m, sigs := load(t, modeltest.Sleepy(), Options{Slots: 1})
	run := &inference.Run{Signature: sigs["serving_default"], Inputs: []tensor.Parts{tensor.One(floats(tensor.Shape{1, 1}, 0.02))}, Outputs: []int{0}}
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		go cancel()
		if r, err := m.Run(ctx, run); err == nil { // either is right: this is about what comes after
			r.Release()
		}
		r, err := m.Run(context.Background(), run) // waits for the slot
		if err != nil {
			t.Fatal(err)
		}
		r.Release()
	}
}

func TestCloseLeavesResultsAndSaysSoAfterwards(t *testing.T) {
	m, sigs := load(t, modeltest.HalfPlusTwo(), Options{Slots: 3})
	if m.Slots() != 3 {
		t.Errorf("%d slots", m.Slots())
	}
	run := &inference.Run{Signature: sigs["serving_default"], Inputs: []tensor.Parts{tensor.One(floats(tensor.Shape{1, 1}, 1))}, Outputs: []int{0}}
	r, err := m.Run(t.Context(), run)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if y := modeltest.FloatValues(r.Outputs[0]); y[0] != 2.5 {
		t.Errorf("after Close the result is %v", y)
	}
	r.Release()
	if _, err := m.Run(t.Context(), run); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("Run: %v", err)
	}
	if _, err := m.Call(run.Signature, nil, nil, nil); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("Call: %v", err)
	}
	if err := m.Prepare(run.Signature); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("Prepare: %v", err)
	}
	if _, err := m.Devices(); !errors.Is(err, inference.ErrClosed) {
		t.Errorf("Devices: %v", err)
	}
}

func TestOptionsBecomeProtos(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
		want *pb.ConfigProto
		pool int32 // inter_op_thread_pool
	}{
		{"zero", Options{}, &pb.ConfigProto{IntraOpParallelismThreads: 1, InterOpParallelismThreads: -1, AllowSoftPlacement: true, GpuOptions: &pb.GPUOptions{}}, -1},
		{"pools", Options{IntraOpThreads: 4, InterOpThreads: 2},
			&pb.ConfigProto{IntraOpParallelismThreads: 4, InterOpParallelismThreads: 2, AllowSoftPlacement: true, GpuOptions: &pb.GPUOptions{}}, 0},
		{"gpu", Options{GPUGrowth: true, GPUMemoryFraction: 0.25, VisibleDevices: "1,0"}, &pb.ConfigProto{IntraOpParallelismThreads: 1, InterOpParallelismThreads: -1, AllowSoftPlacement: true,
			GpuOptions: &pb.GPUOptions{AllowGrowth: true, PerProcessGpuMemoryFraction: 0.25, VisibleDeviceList: "1,0"}}, -1},
		{"no gpu", Options{VisibleDevices: NoDevices}, &pb.ConfigProto{IntraOpParallelismThreads: 1, InterOpParallelismThreads: -1, AllowSoftPlacement: true,
			DeviceCount: map[string]int32{"GPU": 0}, GpuOptions: &pb.GPUOptions{}}, -1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := c.opts.config()
			if err != nil {
				t.Fatal(err)
			}
			got := new(pb.ConfigProto)
			if err := proto.Unmarshal(b, got); err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
			b, err = c.opts.runOptions()
			if err != nil {
				t.Fatal(err)
			}
			run := new(pb.RunOptions)
			if err := proto.Unmarshal(b, run); err != nil || run.InterOpThreadPool != c.pool || run.TimeoutInMs != 0 {
				t.Errorf("run options %v %v", run, err)
			}
		})
	}
}
