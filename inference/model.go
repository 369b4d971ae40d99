// model.go: versions, their signatures and their states.
package inference

import (
	"slices"
	"strings"
	"time"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference/media"
	"github.com/inferd/inferd/inference/tensor"
)

// DefaultSignature is the key used when a request names none (TensorFlow Serving's kDefaultServingSignatureDefKey).
const DefaultSignature = "serving_default"

// TensorInfo declares one input or output of a signature.
type TensorInfo struct {
	Alias       string       // the name that clients use
	Tensor      string       // the graph's name for it, "serving_default_x:0"
	DType       tensor.DType // reference types already count as their base
	Shape       tensor.Shape // -1 for a dimension of any size; nil when UnknownRank
	UnknownRank bool
	Default     *tensor.Tensor // fed when a gRPC request leaves the input out; nil when it must be sent
	// Media makes the input of files and samples as they are, where the configuration says how they arrive: then strings may be sent in the
	// place of the tensor. nil: they may not. Workers know nothing of it.
	Media *media.Input `json:"-"`
}

// Accepts reports whether a tensor of shape s agrees with the declaration.
func (t *TensorInfo) Accepts(s tensor.Shape) bool { return t.UnknownRank || t.Shape.Accepts(s) }

// Signature is one callable entry of a version. It is immutable.
type Signature struct {
	Key     string
	Method  string       // "tensorflow/serving/predict", ...
	Inputs  []TensorInfo // sorted by Alias
	Outputs []TensorInfo // sorted by Alias
	// Writes says that running it may change the model's variables (or any other state), so it is never run twice for one request.
	Writes bool
	// Batchable says that requests may be joined along the first dimension: at least one input, every input and output has a first
	// dimension of any size (or an unknown rank), and it does not write. Unbatchable has the reason when it does not hold.
	Batchable   bool
	Unbatchable string
}

// Input is the index of the input with that alias, -1 when there is none.
func (s *Signature) Input(alias string) int { return find(s.Inputs, alias) }

// Output is the index of the output with that alias, -1 when there is none.
func (s *Signature) Output(alias string) int { return find(s.Outputs, alias) }

// MediaInput is the index of the one input that files are sent for as they are: the only input, which has media. -1 when there is no such input.
func (s *Signature) MediaInput() int {
	if len(s.Inputs) == 1 && s.Inputs[0].Media != nil {
		return 0
	}
	return -1
}

func find(list []TensorInfo, alias string) int {
	i, ok := slices.BinarySearchFunc(list, alias, func(t TensorInfo, a string) int { return strings.Compare(t.Alias, a) })
	if !ok {
		return -1
	}
	return i
}

// Version is one loaded version of a model: what it is, not how it runs. It is immutable.
type Version struct {
	Model      string
	Number     int64
	Dir        string
	Signatures map[string]*Signature
	// Defs are the SignatureDefs as saved, for the metadata endpoints only.
	Defs map[string]*pb.SignatureDef
	// Unproven is the reason why the version was published without a successful made-up run; empty when it was proven.
	Unproven string
	// DefaultDeadline applies to requests that bring none; 0 means 30 s.
	DefaultDeadline time.Duration
	// StrictShapes refuses in Go what disagrees with the signature's shape.
	StrictShapes bool
}

// State is where a version stands. The numbers are TensorFlow Serving's ModelVersionStatus.State.
type State int

// The public states of a version, in the order in which it goes through them.
const (
	StateUnknown   State = 0
	StateStart     State = 10
	StateLoading   State = 20
	StateAvailable State = 30
	StateUnloading State = 40
	StateEnd       State = 50
)

// String is the name that TensorFlow Serving prints.
func (s State) String() string {
	switch s {
	case StateStart:
		return "START"
	case StateLoading:
		return "LOADING"
	case StateAvailable:
		return "AVAILABLE"
	case StateUnloading:
		return "UNLOADING"
	case StateEnd:
		return "END"
	default:
		return "UNKNOWN"
	}
}

// VersionStatus is the public state of one version, with the reason when it failed.
type VersionStatus struct {
	Version int64
	State   State
	Code    Code   // OK unless it failed
	Message string // empty unless it failed, or a warning on an available version
	Since   time.Time
}

// Spec names a version as a client does: by number, by label, or neither (what the model's [Route] says, else the highest that is
// available).
type Spec struct {
	Model   string
	Version int64 // meaningful when HasVersion
	Label   string

	HasVersion bool
	// Keys has the request key, for a model of which two versions share the requests; nil: there is none.
	Keys Keyed
	// Steady asks for the version that most requests go to: the question is about the model and is no prediction.
	Steady bool
}
