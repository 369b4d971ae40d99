// samples.go: requests that a version answers, for whoever measures how it is best run.
package updater

import (
	"context"
	"encoding/binary"
	"errors"
	"math"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Sample is a request with known good inputs, or with made-up ones, which the graph may refuse.
type Sample struct {
	Request *inference.Request
	Rows    int64 // of its inputs; 0: it is not joined with others
}

const (
	mostSamples     = 8        // recorded requests and golden cases, in all
	mostSampleBytes = 64 << 20 // of their inputs
)

var errEnough = errors.New("enough samples")

// Samples are some of the candidate's recorded requests and golden cases, and made-up requests of one row, for every signature that writes
// nothing, the default one first. Their tensors are copies.
func Samples(cand Candidate, decode Decode, o ProbeOptions) (list []Sample) {
	o = o.withDefaults()
	bytes := int64(0)
	add := func(req *inference.Request) error {
		if req.Signature.Writes {
			return nil
		}
		own := *req
		own.Inputs = make([]*tensor.Tensor, len(req.Inputs))
		for i, t := range req.Inputs {
			own.Inputs[i] = t.Clone()
			bytes += int64(len(t.Data))
		}
		list = append(list, Sample{Request: &own, Rows: rowsOf(&own)})
		if len(list) >= mostSamples || bytes > mostSampleBytes {
			return errEnough
		}
		return nil
	}
	// Faults in these files have been found when the version was proven.
	_ = eachGolden(cand, decode, func(_ string, g Golden) error { return add(g.Request) })
	_ = eachRecorded(cand, decode, func(_ int, requests []*inference.Request) error {
		for _, req := range requests {
			if err := add(req); err != nil {
				return err
			}
		}
		return nil
	})
	for _, key := range probeOrder(cand.Info.Signatures) {
		sig := cand.Info.Signatures[key]
		if sig.Writes {
			continue
		}
		for _, fill := range []filling{onesAndZeros, zerosAndOnes} {
			inputs, err := makeInputs(sig, 1, fill, o.MaxInputBytes)
			if err != nil {
				break
			}
			if fill == onesAndZeros {
				for _, t := range inputs {
					vary(t)
				}
			}
			req := &inference.Request{Signature: sig, Inputs: inputs, Outputs: make([]int, len(sig.Outputs))}
			for i := range req.Outputs {
				req.Outputs[i] = i
			}
			list = append(list, Sample{Request: req, Rows: rowsOf(req)})
		}
	}
	return list
}

// rowsOf is how many rows the request has where it may be joined with others.
func rowsOf(req *inference.Request) int64 {
	if !req.Signature.Batchable || len(req.Inputs) == 0 {
		return 0
	}
	n, _ := req.Inputs[0].Rows()
	return n
}

// vary gives numbers of floating point other values than one, between 0 and 1, so that no two neighbours are alike.
func vary(t *tensor.Tensor) {
	value := func(i int) float64 { return math.Mod(float64(i)*0.6180339887498949, 1) }
	switch t.DType {
	case tensor.Float:
		for i := range len(t.Data) / 4 {
			binary.LittleEndian.PutUint32(t.Data[4*i:], math.Float32bits(float32(value(i))))
		}
	case tensor.Double:
		for i := range len(t.Data) / 8 {
			binary.LittleEndian.PutUint64(t.Data[8*i:], math.Float64bits(value(i)))
		}
	}
}

// HoldGolden runs the candidate's golden cases and reports the first that is not answered as it should, and how many there are.
func HoldGolden(ctx context.Context, r inference.Runner, cand Candidate, decode Decode) (int, error) {
	shown := make(map[string]SignatureProof)
	err := compareGolden(ctx, r, cand, decode, shown)
	n := 0
	for _, s := range shown {
		n += s.Golden
	}
	return n, err
}
