// modelconfig.go: a model's metadata in the words of Triton's configuration, for which its tools ask first.
package oip

import "github.com/inferd/inferd/inference/tensor"

// ModelConfig is the part of a configuration that inferd can tell. Dims are all dimensions: max_batch_size is 0, as of models whose first dimension is
// not taken for granted.
type ModelConfig struct {
	Name         string         `json:"name"`
	Platform     string         `json:"platform"`
	Backend      string         `json:"backend"`
	MaxBatchSize int32          `json:"max_batch_size"`
	Input        []ConfigTensor `json:"input"`
	Output       []ConfigTensor `json:"output"`
}

// ConfigTensor is an input or an output in a configuration.
type ConfigTensor struct {
	Name     string       `json:"name"`
	DataType string       `json:"data_type"` // TYPE_INVALID where the protocol has no word for it
	Dims     tensor.Shape `json:"dims"`
}

// Config is what m says, as a configuration.
func (m *ModelMetadata) Config() ModelConfig {
	return ModelConfig{Name: m.Name, Platform: m.Platform, Backend: "tensorflow", Input: configTensors(m.Inputs), Output: configTensors(m.Outputs)}
}

func configTensors(list []TensorMetadata) []ConfigTensor {
	out := make([]ConfigTensor, len(list))
	for i, t := range list {
		out[i] = ConfigTensor{Name: t.Name, DataType: configType(t.Datatype), Dims: t.Shape}
	}
	return out
}

func configType(datatype string) string {
	switch datatype {
	case "BYTES":
		return "TYPE_STRING"
	case "BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16":
		return "TYPE_" + datatype
	}
	return "TYPE_INVALID"
}
