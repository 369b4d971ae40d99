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

// Decode reads what lies in a version folder to be run before it serves. A nil function leaves its file alone. Errors are *inference.Error.
type Decode struct {
	// Recorded makes requests of a recorded call for some of the signatures. What it returns may lie in the call's memory, which is valid
	// until the runs have ended.
	Recorded func(r inference.Recorded, signatures map[string]*inference.Signature) ([]*inference.Request, error)
	// Golden reads one golden case for one of the signatures.
	Golden func(text []byte, signatures map[string]*inference.Signature) (Golden, error)
}

// Prove runs the candidate's recorded requests and golden cases and then makes up runs (see [Probe]). A recorded request or a golden case
// that cannot be read or fails refuses the version; so does NaN or infinity in the answer, unless the model allows it or the case expects
// it, and an answer that is not what the case expects. A signature that answered one of these counts as proven even if made-up inputs are
// no good for it.
func Prove(ctx context.Context, r inference.Runner, cand Candidate, o ProbeOptions, decode Decode) (Proof, error) {
	o = o.withDefaults()
	loadPeak, _ := o.Peak(r, true)
	shown := make(map[string]SignatureProof)
	if err := replay(ctx, r, cand, decode, shown); err != nil {
		return Proof{}, err
	}
	if err := compareGolden(ctx, r, cand, decode, shown); err != nil {
		return Proof{}, err
	}
	p, err := Probe(ctx, r, cand.Info.Signatures, o)
	p.LoadPeak = loadPeak
	p.Peak, _ = o.Peak(r, false)
	p.Rest, _ = o.Memory(r)
	unproven := false
	for key, s := range p.Signatures {
		if was, ok := shown[key]; ok {
			s.Recorded, s.Slowest, s.Golden, s.Warnings = was.Recorded, was.Slowest, was.Golden, append(was.Warnings, s.Warnings...)
			p.Signatures[key] = s
		} else if s.Reason != "" && !cand.Info.Signatures[key].Writes {
			unproven = true
		}
	}
	if len(shown) > 0 && !unproven {
		p.Unproven = ""
	}
	return p, err
}

// Cases counts what lies in a version folder to be run before it serves.
type Cases struct{ Recorded, Golden int }

// ReadCases reads through all that [Prove] would run, and runs nothing. The error is the one that Prove would refuse the version with.
func ReadCases(cand Candidate, decode Decode) (c Cases, err error) {
	err = eachRecorded(cand, decode, func(int, []*inference.Request) error { c.Recorded++; return nil })
	if err == nil {
		err = eachGolden(cand, decode, func(string, Golden) error { c.Golden++; return nil })
	}
	return c, err
}

// eachRecorded visits the requests of each recorded call, which is nth in its file.
func eachRecorded(cand Candidate, decode Decode, visit func(n int, list []*inference.Request) error) error {
	if decode.Recorded == nil {
		return nil
	}
	return savedmodel.EachWarmup(cand.Dir, func(n int, rec inference.Recorded) error {
		list, err := decode.Recorded(rec, cand.Info.Signatures)
		for i := 0; err == nil && i < len(list); i++ {
			err = checkTypes(list[i])
		}
		if err == nil {
			err = visit(n, list)
		}
		if err != nil {
			return fmt.Errorf("recorded request %d of %s: %w", n, savedmodel.WarmupFile, err)
		}
		return nil
	})
}

// replay runs the recorded requests, one after the other, and adds to shown what they have shown of each signature.
func replay(ctx context.Context, r inference.Runner, cand Candidate, decode Decode, shown map[string]SignatureProof) error {
	return eachRecorded(cand, decode, func(n int, list []*inference.Request) error {
		for _, req := range list {
			odds, began := "", time.Now() // reading does not count
			err := runOnce(ctx, r, req, func(outputs []*tensor.Tensor) { odds = oddOutputs(req, outputs, func(int) bool { return true }) })
			took := time.Since(began)
			switch {
			case err != nil:
				return err
			case odds != "" && !cand.Model.AllowNaN:
				return inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "%s; if that is right, write nan: warn", odds)
			}
			p := shown[req.Signature.Key]
			p.Recorded++
			p.Slowest = max(p.Slowest, took)
			if odds != "" && len(p.Warnings) == 0 {
				p.Warnings = append(p.Warnings, fmt.Sprintf("%s on recorded request %d", odds, n))
			}
			shown[req.Signature.Key] = p
		}
		return nil
	})
}

// checkTypes refuses inputs of another type than the signature's, in TensorFlow's words: nobody below looks again.
func checkTypes(req *inference.Request) error {
	for i, t := range req.Inputs {
		if info := &req.Signature.Inputs[i]; t.DType != info.DType {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Expects arg[%d] to be %s but %s is provided", i, info.DType.Name(), t.DType.Name())
		}
	}
	return nil
}

// runOnce makes one run of one request and lends look its outputs.
func runOnce(ctx context.Context, r inference.Runner, req *inference.Request, look func(outputs []*tensor.Tensor)) error {
	run := &inference.Run{Signature: req.Signature, Inputs: make([]tensor.Parts, len(req.Inputs)), Outputs: req.Outputs}
	for i, t := range req.Inputs {
		run.Inputs[i] = tensor.One(t)
	}
	res, err := r.Run(ctx, run)
	if err != nil {
		return err
	}
	defer res.Release()
	if len(res.Outputs) != len(req.Outputs) {
		return inference.Errorf(inference.Internal, inference.ReasonRuntime, "the run gave %d outputs, %d were asked for", len(res.Outputs), len(req.Outputs))
	}
	look(res.Outputs)
	return nil
}

// oddOutputs names those of the outputs (by their place in req.Outputs) that are NaN or infinite.
func oddOutputs(req *inference.Request, outputs []*tensor.Tensor, counts func(i int) bool) string {
	var all []string
	for i, t := range outputs {
		if !counts(i) {
			continue
		}
		if what := odd(t); what != "" {
			all = append(all, fmt.Sprintf("output %q is %s", req.Signature.Outputs[req.Outputs[i]].Alias, what))
		}
	}
	return strings.Join(all, ", ")
}

// Message is the text of an error of [Prove] or [ReadCases] for an operator.
func Message(err error) string { return message(err) }
