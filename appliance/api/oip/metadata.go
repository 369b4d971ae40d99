// metadata.go: what the server and a model say of themselves.
package oip

import (
	"strconv"
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Platform is what every model runs on.
const Platform = "tensorflow_savedmodel"

// Extensions are those of the protocol's extensions that are spoken over both transports; over HTTP there is binary_tensor_data too.
var Extensions = []string{"model_repository", "model_repository(unload_dependents)", "statistics"}

// BinaryTensorData is the extension that gRPC needs no name for: there tensors are raw anyway.
const BinaryTensorData = "binary_tensor_data"

// ServerMetadata is what the server says of itself.
type ServerMetadata struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Extensions []string `json:"extensions"`
}

// ModelMetadata is what a model says of itself: of one signature, for the protocol knows no more.
type ModelMetadata struct {
	Name     string           `json:"name"`
	Versions []string         `json:"versions"`
	Platform string           `json:"platform"`
	Inputs   []TensorMetadata `json:"inputs"`
	Outputs  []TensorMetadata `json:"outputs"`
}

// TensorMetadata declares an input or an output.
type TensorMetadata struct {
	Name     string       `json:"name"`
	Datatype string       `json:"datatype"`
	Shape    tensor.Shape `json:"shape"` // -1 is a dimension of any size; [-1] where even the rank is open
}

// Spec is the version that a client names. Empty is none; what is no number is a label.
func Spec(model, version string) inference.Spec {
	spec := inference.Spec{Model: model}
	if version == "" {
		return spec
	}
	if n, err := strconv.ParseInt(version, 10, 64); err == nil {
		spec.Version, spec.HasVersion = n, true
	} else {
		spec.Label = version
	}
	return spec
}

// Signature is the one of that name; with no name serving_default, or the only one that there is.
func Signature(v *inference.Version, name string) (*inference.Signature, *inference.Error) {
	if name != "" {
		if sig := v.Signatures[name]; sig != nil {
			return sig, nil
		}
		return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "Serving signature key \"%s\" not found.", Cut(name))
	}
	if sig := v.Signatures[inference.DefaultSignature]; sig != nil {
		return sig, nil
	}
	if len(v.Signatures) == 1 {
		for _, sig := range v.Signatures {
			return sig, nil
		}
	}
	return nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel,
		"model %s version %d has no signature %q and %d others; name one of them in the request's parameter signature_name: %s",
		v.Model, v.Number, inference.DefaultSignature, len(v.Signatures), strings.Join(sortedKeys(v.Signatures), ", "))
}

func describe(infos []inference.TensorInfo) []TensorMetadata {
	list := make([]TensorMetadata, len(infos))
	for i := range infos {
		info := &infos[i]
		shape := info.Shape
		switch {
		case info.UnknownRank:
			shape = tensor.Shape{-1}
		case shape == nil:
			shape = tensor.Shape{} // a scalar's is a list too
		}
		list[i] = TensorMetadata{Name: info.Alias, Datatype: Datatype(info.DType), Shape: shape}
	}
	return list
}
