// madeup.go: the made-up run that a version has survived, to be made again of its worker later.
package updater

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/inferd/inferd/inference"
)

// maxMadeUp bounds the inputs of a run that is made again: what is asked again and again must not take a share of the memory.
const maxMadeUp = 16 << 20

// MadeUp is the smallest made-up run that a version was proven with. It is immutable, and holds no inputs: each run makes them anew.
type MadeUp struct {
	Signature *inference.Signature
	Took      time.Duration // when the version was proven

	fill filling
}

// MadeUp finds the first signature, the default one before the others, that writes nothing and whose made-up run of batch 1 gave an answer.
// The error says for each why there is none.
func (p Proof) MadeUp(signatures map[string]*inference.Signature) (MadeUp, error) {
	var faults []string
	for _, key := range probeOrder(signatures) {
		sig, s := signatures[key], p.Signatures[key]
		switch {
		case sig.Writes:
			faults = append(faults, fmt.Sprintf("signature %q writes variables", key))
		case s.Largest == 0:
			faults = append(faults, fmt.Sprintf("signature %q was not shown to answer made-up inputs: %s", key, s.Reason))
		default:
			if _, err := makeInputs(sig, 1, s.fill, maxMadeUp); err != nil {
				faults = append(faults, fmt.Sprintf("signature %q: %v", key, err))
				continue
			}
			return MadeUp{Signature: sig, Took: s.Times[1], fill: s.fill}, nil
		}
	}
	if len(faults) == 0 {
		return MadeUp{}, errors.New("the model has no signature")
	}
	return MadeUp{}, errors.New(strings.Join(faults, "; "))
}

// Run makes the run.
func (m MadeUp) Run() (*inference.Run, error) {
	inputs, err := makeInputs(m.Signature, 1, m.fill, maxMadeUp)
	if err != nil {
		return nil, err
	}
	return madeUpRun(m.Signature, inputs), nil
}
