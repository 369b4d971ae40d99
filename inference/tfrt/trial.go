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

// trial is a run that a frozen model must answer as the model as saved does.
type trial struct {
	signature *inference.Signature
	inputs    []*tensor.Tensor // one per input of the signature
}

// proof is a trial with the answer of the model as saved.
type proof struct {
	trial
	want []*tensor.Tensor
}

// observe runs every signature on made-up inputs. Those that the model does not take are left out.
func (m *Model) observe(signatures map[string]*inference.Signature) (proofs []proof) {
	for _, key := range slices.Sorted(maps.Keys(signatures)) {
		inputs, ok := freeze.MakeUp(signatures[key])
		if !ok {
			continue
		}
		t := trial{signatures[key], inputs}
		if want, err := m.answer(t); err == nil {
			proofs = append(proofs, proof{t, want})
		}
	}
	return proofs
}

// compare runs the trials again and says what it compared.
func (m *Model) compare(proofs []proof) (string, error) {
	for _, p := range proofs {
		got, err := m.answer(p.trial)
		if err != nil {
			return "", fmt.Errorf("signature %q fails when frozen: %w", p.signature.Key, err)
		}
		for i := range got {
			if differs := freeze.Differs(p.want[i], got[i]); differs != "" {
				return "", fmt.Errorf("signature %q answers otherwise when frozen: output %q %s", p.signature.Key, p.signature.Outputs[i].Alias, differs)
			}
		}
	}
	if len(proofs) == 0 {
		return "compared on nothing: no made-up input runs", nil
	}
	return fmt.Sprintf("answers as saved on %d runs", len(proofs)), nil
}

// answer is every output of one run, in memory of its own.
func (m *Model) answer(t trial) ([]*tensor.Tensor, error) {
	outputs := make([]int, len(t.signature.Outputs))
	for i := range outputs {
		outputs[i] = i
	}
	inputs := make([]tensor.Parts, len(t.inputs))
	for i, in := range t.inputs {
		inputs[i] = tensor.One(in)
	}
	c, err := m.begin(&inference.Run{Signature: t.signature, Inputs: inputs, Outputs: outputs})
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
