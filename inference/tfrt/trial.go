// trial.go: what a model as saved answers, and whether the frozen one answers the same.
package tfrt

import (
	"fmt"
	"maps"
	"slices"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/freeze"
	"github.com/inferd/inferd/inference/tensor"
)

// proof is a trial with the answer of the model as saved.
type proof struct {
	Trial
	want []*tensor.Tensor
}

// observe runs the trials, made-up ones where there are none. Given ones must run; made-up ones that the model does not take are left out.
func (m *Model) observe(opts Options) ([]proof, error) {
	trials, given := opts.Trials, len(opts.Trials) > 0
	if !given {
		for _, key := range slices.Sorted(maps.Keys(opts.Signatures)) {
			if inputs, ok := freeze.MakeUp(opts.Signatures[key]); ok {
				trials = append(trials, Trial{opts.Signatures[key], inputs})
			}
		}
	}
	var proofs []proof
	for _, t := range trials {
		want, err := m.answer(t)
		switch {
		case err == nil:
			proofs = append(proofs, proof{t, want})
		case given:
			return nil, fmt.Errorf("signature %q does not answer as saved: %w", t.Signature.Key, err)
		}
	}
	return proofs, nil
}

// compare runs the trials again and says what it compared.
func (m *Model) compare(proofs []proof) (string, error) {
	for _, p := range proofs {
		got, err := m.answer(p.Trial)
		if err != nil {
			return "", fmt.Errorf("signature %q fails when frozen: %w", p.Signature.Key, err)
		}
		for i := range got {
			if differs := freeze.Differs(p.want[i], got[i]); differs != "" {
				return "", fmt.Errorf("signature %q answers otherwise when frozen: output %q %s", p.Signature.Key, p.Signature.Outputs[i].Alias, differs)
			}
		}
	}
	if len(proofs) == 0 {
		return "compared on nothing: no made-up input runs", nil
	}
	return fmt.Sprintf("answers as saved on %d runs", len(proofs)), nil
}

// answer is every output of one run, in memory of its own.
func (m *Model) answer(t Trial) ([]*tensor.Tensor, error) {
	outputs := make([]int, len(t.Signature.Outputs))
	for i := range outputs {
		outputs[i] = i
	}
	inputs := make([]tensor.Parts, len(t.Inputs))
	for i, in := range t.Inputs {
		inputs[i] = tensor.One(in)
	}
	c, err := m.begin(&inference.Run{Signature: t.Signature, Inputs: inputs, Outputs: outputs})
	if err != nil {
		return nil, err
	}
	defer c.finish(nil)
	if err := c.run(); err != nil {
		return nil, err
	}
	got := make([]*tensor.Tensor, len(outputs))
	for i := range got {
		if err := c.output(i, &c.tensors[i]); err != nil {
			return nil, err
		}
		got[i] = c.tensors[i].Clone()
	}
	return got, nil
}
