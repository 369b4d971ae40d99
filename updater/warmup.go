// warmup.go: the runs that every version must survive before it is published: the recorded requests that lie in its folder, and made-up ones.
package updater

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel"
	"github.com/inferd/inferd/inference/tensor"
)

// Prove runs the candidate's recorded requests and then makes up runs (see [Probe]). A recorded request that cannot be read or fails
// refuses the version; so does NaN or infinity in its answer, unless the model allows it. decode reads a PredictRequest; nil leaves the
// recorded requests alone. A signature that answered a recorded request counts as proven even if made-up inputs are no good for it.
func Prove(ctx context.Context, r inference.Runner, cand Candidate, o ProbeOptions, decode Decode) (Proof, error) {
	recorded, err := replay(ctx, r, cand, decode)
	if err != nil {
		return Proof{}, err
	}
	p, err := Probe(ctx, r, cand.Info.Signatures, o)
	unproven := false
	for key, s := range p.Signatures {
		if rec, ok := recorded[key]; ok {
			s.Recorded, s.Slowest, s.Warnings = rec.Recorded, rec.Slowest, append(rec.Warnings, s.Warnings...)
			p.Signatures[key] = s
		} else if s.Reason != "" && !cand.Info.Signatures[key].Writes {
			unproven = true
		}
	}
	if len(recorded) > 0 && !unproven {
		p.Unproven = ""
	}
	return p, err
}

// Decode reads a PredictRequest for one of the signatures. What it returns may lie in request, which is valid until the run has ended. Errors are *inference.Error.
type Decode func(request []byte, signatures map[string]*inference.Signature) (*inference.Request, error)

// replay runs the recorded requests, one after the other.
func replay(ctx context.Context, r inference.Runner, cand Candidate, decode Decode) (map[string]SignatureProof, error) {
	proofs := make(map[string]SignatureProof)
	if decode == nil {
		return proofs, nil
	}
	err := savedmodel.EachWarmup(cand.Dir, func(n int, request []byte) error {
		began, odds, key := time.Now(), "", ""
		req, err := decode(request, cand.Info.Signatures)
		if err == nil {
			key = req.Signature.Key
			began = time.Now() // decoding does not count
			odds, err = runRecorded(ctx, r, req)
		}
		switch {
		case err != nil:
			return fmt.Errorf("recorded request %d of %s: %w", n, savedmodel.WarmupFile, err)
		case odds != "" && !cand.Model.AllowNaN:
			return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel,
				"recorded request %d of %s: %s; if that is right, write nan: warn", n, savedmodel.WarmupFile, odds)
		}
		p := proofs[key]
		p.Recorded++
		p.Slowest = max(p.Slowest, time.Since(began))
		if odds != "" && len(p.Warnings) == 0 {
			p.Warnings = append(p.Warnings, fmt.Sprintf("%s on recorded request %d", odds, n))
		}
		proofs[key] = p
		return nil
	})
	return proofs, err
}

// runRecorded makes one run and names what is odd in its outputs.
func runRecorded(ctx context.Context, r inference.Runner, req *inference.Request) (odds string, err error) {
	sig := req.Signature
	run := &inference.Run{Signature: sig, Inputs: make([]tensor.Parts, len(req.Inputs)), Outputs: req.Outputs}
	for i, t := range req.Inputs {
		if info := &sig.Inputs[i]; t.DType != info.DType {
			return "", inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Expects arg[%d] to be %s but %s is provided", i, info.DType.Name(), t.DType.Name())
		}
		run.Inputs[i] = tensor.One(t)
	}
	res, err := r.Run(ctx, run)
	if err != nil {
		return "", err
	}
	defer res.Release()
	if len(res.Outputs) != len(req.Outputs) {
		return "", inference.Errorf(inference.Internal, inference.ReasonRuntime, "the run gave %d outputs, %d were asked for", len(res.Outputs), len(req.Outputs))
	}
	var all []string
	for i, t := range res.Outputs {
		if what := odd(t); what != "" {
			all = append(all, fmt.Sprintf("output %q is %s", sig.Outputs[req.Outputs[i]].Alias, what))
		}
	}
	return strings.Join(all, ", "), nil
}
