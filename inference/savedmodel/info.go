// Package savedmodel reads a SavedModel directory without TensorFlow: what it declares, whether it is whole, what it would cost, and
// what lies there instead when it is none.
//
// Invariants:
//  1. Nothing in a directory makes it panic, block, or use memory that is not bounded by the limits in limits.go: saved_model.pb is
//     streamed, and only names, ops, inputs and signatures of it are kept.
//  2. What [Read] returns without an error is whole: every file that the loader will open is there and as long as it must be.
//     (Whether the graph runs is for a run to prove.)
//  3. Directories are only read.
//
// All functions may be called from any goroutine. They block on the disk.
package savedmodel

import (
	"errors"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
)

// DefaultTag is the tag of the meta graph that is served when the configuration names none.
const DefaultTag = "serve"

// initOp is the key under which TensorFlow 2 saves its initialiser; it is no signature for clients.
const initOp = "__saved_model_init_op"

// What a caller branches on. Every error of [Read] that is about the directory wraps one of them.
var (
	// ErrNone: the directory has no saved_model.pb (nor .pbtxt). [Diagnose] may know what it has.
	ErrNone = errors.New("no SavedModel")
	// ErrIncomplete: a file is missing, cut short or damaged. A copy may still be under way.
	ErrIncomplete = errors.New("the SavedModel is not whole")
	// ErrTags: no meta graph has exactly the wanted tags.
	ErrTags = errors.New("no such meta graph")
	// ErrUnsupported: whole as far as one can see, but in a form that is not read here.
	ErrUnsupported = errors.New("not supported")
)

// Info is what a SavedModel directory says about itself, read without TensorFlow.
type Info struct {
	Dir        string
	Tags       []string                        // of the meta graph that was chosen
	Signatures map[string]*inference.Signature // by key; without __saved_model_init_op and without those in Refused
	Refused    map[string]string               // signatures that cannot be served, by key, with the reason
	Defs       map[string]*pb.SignatureDef     // as saved, everything
	Ops        []string                        // distinct op names used in the graph and its function library, sorted
	Outer      []OuterOp                       // ops that reach out of the model when it is loaded or run, sorted; see [DenyOps]
	Assets     []string                        // file names under assets/ that the graph reads, sorted
	Warnings   []string                        // for the operator, of whoever has looked at it beside Read
	// GraphBytes is the size of saved_model.pb, VariableBytes of all variable shards on disk.
	GraphBytes, VariableBytes int64
}

// EstimateBytes is a first guess at the private memory of a worker that holds the model, for admission until the worker has been
// measured: the graph is held as proto, as graph and with its constants as tensors; variables once; and what a worker costs by itself.
func EstimateBytes(info *Info) int64 {
	const worker = 32 << 20
	return worker + 3*info.GraphBytes + info.VariableBytes + info.VariableBytes/10
}
