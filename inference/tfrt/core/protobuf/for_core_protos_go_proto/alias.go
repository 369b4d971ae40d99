// Package for_core_protos_go_proto stands in for generated code that the binding imports and its module does not contain: aliases, so
// that there is one registry of TensorFlow's messages.
package for_core_protos_go_proto //nolint:revive,staticcheck // the binding fixes the name

import pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

// The messages that the binding names.
type (
	MetaGraphDef = pb.MetaGraphDef
	SignatureDef = pb.SignatureDef
	TensorInfo   = pb.TensorInfo
	ConfigProto  = pb.ConfigProto
)
