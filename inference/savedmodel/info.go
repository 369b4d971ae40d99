package savedmodel

import (
	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
)

// Info is what a SavedModel directory says about itself, read without TensorFlow.
type Info struct {
	Dir        string
	Tags       []string                        // of the meta graph that was chosen
	Signatures map[string]*inference.Signature // by key; without __saved_model_init_op
	Defs       map[string]*pb.SignatureDef     // as saved, everything
	Ops        []string                        // distinct op names used in the graph and its function library, sorted
	// GraphBytes is the size of saved_model.pb, VariableBytes of all variable shards on disk.
	GraphBytes, VariableBytes int64
}
