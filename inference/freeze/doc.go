// Package freeze rewrites the graph of a SavedModel so that its variables are constants, which TensorFlow can then fold, pack and fuse.
//
// Invariants:
//  1. It is pure Go over protos: it reads no variable and runs nothing. Who has a session reads what [Plan.Variables] lists and hands the
//     values to [Plan.Encode].
//  2. What it does not understand it refuses, with a [Refusal] that says why; it never guesses. A handle of a variable may go only where the
//     table in ops.go knows what becomes of it.
//  3. Node names of the graph stay, so a signature's tensors are found in the frozen graph by the names that they had. What no signature and
//     no initialiser needs is left out.
//  4. The graph that it was given is not changed, but for sharing: protos that nobody changes lie in both.
//  5. A model with a signature that writes is refused whole: what one signature writes another may read.
//
// Whether the answers stay what they were is for a comparison to prove: see [Differs].
package freeze

import "fmt"

// Refusal is why a model is not frozen. The text is for an operator.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return r.Reason }

func refuse(format string, args ...any) error { return &Refusal{fmt.Sprintf(format, args...)} }

const (
	// maxGraphFile bounds saved_model.pb, which is held whole while the model is frozen.
	maxGraphFile = 512 << 20
	// maxEncoded is what a protobuf may have; TensorFlow reads no larger graph.
	maxEncoded = 2<<30 - 1
	// maxWork bounds the nodes that are visited, over all copies of functions: a small graph can name a large one many times.
	maxWork = 4 << 20
	// maxDepth bounds calls within calls.
	maxDepth = 200
)
