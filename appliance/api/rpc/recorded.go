// recorded.go: requests that were recorded, read as if they had just come in.
package rpc

import (
	"github.com/inferd/inferd/inference"
)

// maxRecorded bounds the tensors of a recorded request, bytes.
const maxRecorded = 1 << 30

// DecodeRecorded reads a recorded call for these signatures; its model and version do not matter. It makes one request, or, of a
// MultiInferenceRequest, one for each task. The result may share the memory of rec. Errors are *inference.Error.
func DecodeRecorded(rec inference.Recorded, signatures map[string]*inference.Signature) ([]*inference.Request, error) {
	switch rec.Kind {
	case inference.RecordedPredict:
		req, err := decodePredict(rec.Request, signatures)
		if err != nil {
			return nil, err
		}
		return []*inference.Request{req}, nil
	case inference.RecordedClassify, inference.RecordedRegress, inference.RecordedMultiInference:
		return decodeExamples(rec.Kind, rec.Request, signatures)
	default:
		return nil, inference.Errorf(inference.Unimplemented, inference.ReasonModel, "Unsupported log_type for warmup: %d", rec.Kind)
	}
}

func decodePredict(b []byte, signatures map[string]*inference.Signature) (*inference.Request, error) {
	req := &request{}
	if err := req.parse(b); err != nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
	}
	call, _, err := req.resolve(signatures, maxRecorded)
	return call, err
}

// key is that of the signature that the spec names.
func (s *wireSpec) key() string {
	if len(s.signature) > 0 {
		return string(s.signature)
	}
	return inference.DefaultSignature
}
