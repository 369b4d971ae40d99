// fuzz_test.go: whatever is sent in whatever order, and whatever happens to the worker, each caller gets its own rows.
package batch

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/fake"
	"github.com/inferd/inferd/inference/tensor"
)

// words and numbers as two inputs, echoed as two outputs in the other order.
var mixed = &inference.Signature{
	Key: "mixed", Batchable: true,
	Inputs:  []inference.TensorInfo{{Alias: "a", DType: tensor.String}, {Alias: "b", DType: tensor.Float}},
	Outputs: []inference.TensorInfo{{Alias: "b"}, {Alias: "a"}},
}

func FuzzEachCallerGetsItsOwnRows(f *testing.F) {
	for seed := range uint64(24) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 7))
		synctest.Test(t, func(t *testing.T) { storm(t, rng) })
	})
}

func storm(t *testing.T, rng *rand.Rand) {
	policy := Policy{NumBatchThreads: rng.IntN(3), PadVariableLengthInputs: rng.IntN(3) == 0}
	switch rng.IntN(4) {
	case 0:
		policy.AllowedBatchSizes = []int64{1, 3, 8}
	case 1:
		policy.MaxBatchSize, policy.BatchTimeout = 6, time.Duration(rng.IntN(5))*ms
	case 2:
		policy.MaxBatchSize, policy.MaxExecutionBatchSize = 16, 4
	}
	runner := &fake.Runner{Width: 1 + rng.IntN(3), Silent: rng.IntN(4) == 0}
	runner.Latency = func(r fake.Record) time.Duration { return time.Duration(r.Rows()+1) * ms / 2 }
	runner.Graph = func(r fake.Record) ([]*tensor.Tensor, error) {
		for _, s := range r.Inputs[0].Strings {
			if string(s) == "bad" {
				return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonRuntime, "bad")
			}
			if string(s) == "deadly" {
				return nil, errSegv
			}
		}
		outputs := make([]*tensor.Tensor, len(r.Outputs))
		for i, o := range r.Outputs {
			outputs[i] = r.Inputs[1-o]
		}
		return outputs, nil
	}
	b := &bench{t, New(runner, Options{Model: "m", Version: 3, Policy: policy, MaxRows: int64(rng.IntN(2) * 7)}), runner}

	type sent struct {
		req      *inference.Request
		kind     string
		patience time.Duration
		at       time.Duration
	}
	var all []sent
	for i := range 40 {
		s := sent{at: time.Duration(rng.IntN(20)) * ms, kind: "good"}
		n, width := int64(1+rng.IntN(4)), int64(1+rng.IntN(2))
		if rng.IntN(8) == 0 {
			n = int64(rng.IntN(30)) // none, or many
		}
		strs, nums := make([][]byte, n), make([]float32, n*width)
		for j := range strs {
			strs[j] = fmt.Appendf(nil, "%d/%d", i, j)
		}
		for j := range nums {
			nums[j] = float32(i*1000 + j)
		}
		if n > 0 {
			switch rng.IntN(10) {
			case 0:
				s.kind, strs[rng.IntN(len(strs))] = "bad", []byte("bad")
			case 1:
				if rng.IntN(3) == 0 && !runner.Silent { // else a run that was left may kill behind the batcher's back
					s.kind, strs[rng.IntN(len(strs))] = "deadly", []byte("deadly")
				}
			case 2:
				s.patience = time.Duration(1+rng.IntN(10)) * ms
			}
		}
		words, err := tensor.NewStrings(tensor.Shape{n}, strs)
		if err != nil {
			t.Fatal(err)
		}
		s.req = &inference.Request{Signature: mixed, Inputs: []*tensor.Tensor{words, fake.Floats(tensor.Shape{n, width}, nums...)},
			Outputs: [][]int{{0, 1}, {1}, {1, 0}}[rng.IntN(3)], Alone: rng.IntN(10) == 0}
		all = append(all, s)
	}
	kills := rng.IntN(3)
	left := len(all)
	results := make(chan struct{}, len(all))
	for _, s := range all {
		go func() {
			defer func() { results <- struct{}{} }()
			time.Sleep(s.at)
			ctx := t.Context()
			if s.patience > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, s.patience)
				defer cancel()
			}
			began := time.Now()
			resp, err := b.Predict(ctx, s.req)
			if s.patience > 0 && time.Since(began) > s.patience {
				t.Errorf("answered %v after the deadline", time.Since(began)-s.patience)
			}
			if err != nil {
				code := inference.AsError(err).Code
				ok := s.kind == "bad" && code == inference.InvalidArgument || s.kind == "deadly" && code == inference.InvalidArgument ||
					s.patience > 0 && (code == inference.DeadlineExceeded || code == inference.ResourceExhausted)
				if !ok {
					t.Errorf("%s request: %v", s.kind, err)
				}
				// The memory is the caller's again: the race detector sees who still reads it.
				clear(s.req.Inputs[1].Data)
				return
			}
			if s.kind != "good" {
				t.Errorf("%s request was answered", s.kind)
			}
			for i, o := range s.req.Outputs {
				sameRows(t, resp.Outputs[i], s.req.Inputs[1-o], policy.PadVariableLengthInputs)
			}
			clear(s.req.Inputs[1].Data)
			resp.Release()
		}()
	}
	for range kills {
		time.Sleep(time.Duration(rng.IntN(60)) * ms)
		// Killed while it runs alone for the second time an innocent request would be convicted, and rightly so for all that is known.
		b.mu.Lock()
		if !b.exclusive && !runner.Silent {
			runner.Kill(errSegv)
		}
		b.mu.Unlock()
	}
	for ; left > 0; left-- {
		<-results
	}
	settle(time.Second) // runs that a silent runner's callers left go on
	b.finish()
}

// sameRows checks that got has the rows of want; padded allows each row to be longer.
func sameRows(t *testing.T, got, want *tensor.Tensor, padded bool) {
	t.Helper()
	if got.DType == tensor.String {
		if len(got.Strings) != len(want.Strings) {
			t.Errorf("got %d strings, want %d", len(got.Strings), len(want.Strings))
			return
		}
		for i, s := range want.Strings {
			if !bytes.Equal(got.Strings[i], s) {
				t.Errorf("string %d is %q, want %q", i, got.Strings[i], s)
			}
		}
		return
	}
	n := int(want.Shape[0])
	if int(got.Shape[0]) != n || (!padded && !got.Shape.Equal(want.Shape)) {
		t.Errorf("shape %v, want %v", got.Shape, want.Shape)
		return
	}
	for i := range n {
		w := want.Data[i*len(want.Data)/n : (i+1)*len(want.Data)/n]
		if g := got.Data[i*len(got.Data)/n : (i+1)*len(got.Data)/n]; len(g) < len(w) || !bytes.Equal(g[:len(w)], w) {
			t.Errorf("row %d is %v, want %v", i, g, w)
		}
	}
}
