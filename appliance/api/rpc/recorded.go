// recorded.go: requests that were recorded, read as if they had just come in.
package rpc

import (
	"github.com/inferd/inferd/inference"
)

// maxRecorded bounds the tensors of a recorded request, bytes.
const maxRecorded = 1 << 30

// DecodeRecorded reads a PredictRequest for one of these signatures; its model and version do not matter. The result shares the memory
// of b. Errors are *inference.Error.
func DecodeRecorded(b []byte, signatures map[string]*inference.Signature) (*inference.Request, error) {
	req := &request{}
	if err := req.parse(b); err != nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
	}
	key := inference.DefaultSignature
	if len(req.spec.signature) > 0 {
		key = string(req.spec.signature)
	}
	sig := signatures[key]
	if sig == nil {
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "Serving signature key \"%s\" not found.", key)
	}
	inputs, err := req.tensors(sig, maxRecorded)
	if err != nil {
		return nil, err
	}
	outputs, err := req.outputs(sig)
	if err != nil {
		return nil, err
	}
	return &inference.Request{Signature: sig, Inputs: inputs, Outputs: outputs}, nil
}
