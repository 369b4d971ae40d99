// cases_test.go: the table.
package conform

import (
	"math"
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/savedmodel/modeltest"
	"github.com/inferd/inferd/inference/tensor"
)

// testCase is a request and what must come of it at every door.
type testCase struct {
	name   string
	ask    Request
	want   map[string]*tensor.Tensor // the outputs; nil: an error
	rows   string                    // what Classify and Regress answer; "": an error
	code   inference.Code
	or     inference.Code // as good, for which of the two it is hangs on what came before
	reason string         // that every door tells which untold does not excuse; "": none may
	text   string         // a part of the error that every door tells, "" where each protocol has words of its own

	except map[Kind]except
}

// except is how a protocol differs, and why it must.
type except struct {
	why    string
	skip   bool // the protocol cannot say this
	code   inference.Code
	reason string
	closed int
	wants  string // the one output's shape and elements
}

// Why protocols differ.
var (
	noFilter   = except{why: "its body names no outputs: all are answered", skip: true}
	noNaN      = except{why: "a frame is JSON that every parser reads, and JSON has no such numbers", wants: "[3 1] null null null"}
	passed     = except{why: "TensorFlow Serving's REST passes over columns that the signature does not have", wants: "[2 1] 2.5 4.5"}
	noDefault  = except{why: "TensorFlow Serving's REST asks for every column", code: inference.InvalidArgument, reason: inference.ReasonInput}
	unparsed   = except{why: "grpc-go answers INTERNAL to a message that cannot be parsed", code: inference.Internal}
	noDouble   = except{why: "a signature's type decides how JSON is read: there is no wrong one", skip: true}
	noExamples = except{why: "it has no such method: a model of tf.Examples is asked for a prediction with strings", skip: true}
	noWaiting  = except{why: "a job waits as long as it takes", skip: true}
	ownPath    = except{why: "its methods are not a word in a request", skip: true}
	restFirst  = except{why: "TensorFlow Serving's REST has INVALID_ARGUMENT for it, its gRPC FAILED_PRECONDITION", code: inference.InvalidArgument}
)

type outputs map[string]*tensor.Tensor

func f32(shape tensor.Shape, v ...float32) *tensor.Tensor { return modeltest.Floats(shape, v...) }

func x(t *tensor.Tensor) []Input { return []Input{{"x", t}} }

func some(n int, f func(i int) float32) *tensor.Tensor {
	v := make([]float32, n)
	for i := range v {
		v[i] = f(i)
	}
	return f32(tensor.Shape{int64(n), 1}, v...)
}

var column, square = tensor.Shape{2, 1}, tensor.Shape{2, 2}

var cases = []testCase{
	{name: "an answer", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5))}, want: outputs{"y": f32(column, 2.5, 4.5)}},
	{name: "a version", ask: Request{Model: "half_plus_two", Version: 1, Inputs: x(f32(column, 1, 5))}, want: outputs{"y": f32(column, 2.5, 4.5)}},
	{name: "a label", ask: Request{Model: "half_plus_two", Label: "stable", Inputs: x(f32(column, 1, 5))}, want: outputs{"y": f32(column, 2.5, 4.5)}},
	{name: "a signature", ask: Request{Model: "half_plus_two", Signature: "serving_default", Inputs: x(f32(column, 1, 5))}, want: outputs{"y": f32(column, 2.5, 4.5)}},
	{name: "not finite", ask: Request{Model: "half_plus_two", Inputs: x(f32(tensor.Shape{3, 1}, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))))},
		want: outputs{"y": f32(tensor.Shape{3, 1}, float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1)))}, except: map[Kind]except{Stream: noNaN}},
	{name: "the smallest and the largest", ask: Request{Model: "identity_float", Inputs: x(f32(tensor.Shape{4}, math.MaxFloat32, -math.MaxFloat32, 0x1p-126, 0.1))},
		want: outputs{"y": f32(tensor.Shape{4}, math.MaxFloat32, -math.MaxFloat32, 0x1p-126, 0.1)}},
	{name: "160 KB", ask: Request{Model: "half_plus_two", Inputs: x(some(40000, func(i int) float32 { return float32(i) }))}, want: outputs{"y": some(40000, func(i int) float32 { return float32(i)/2 + 2 })}},
	{name: "a scalar", ask: Request{Model: "scalar", Inputs: x(f32(tensor.Shape{}, 3))}, want: outputs{"y": f32(tensor.Shape{}, 3.5)}},
	{name: "INT64", ask: Request{Model: "identity_int64", Inputs: x(modeltest.Int64s(tensor.Shape{3}, math.MinInt64, math.MaxInt64, 1<<53+1))},
		want: outputs{"y": modeltest.Int64s(tensor.Shape{3}, math.MinInt64, math.MaxInt64, 1<<53+1)}},
	{name: "INT32", ask: Request{Model: "identity_int32", Inputs: x(modeltest.Int32s(tensor.Shape{2}, math.MinInt32, math.MaxInt32))}, want: outputs{"y": modeltest.Int32s(tensor.Shape{2}, math.MinInt32, math.MaxInt32)}},
	{name: "BOOL", ask: Request{Model: "identity_bool", Inputs: x(&tensor.Tensor{DType: tensor.Bool, Shape: tensor.Shape{2}, Data: []byte{1, 0}})},
		want: outputs{"y": {DType: tensor.Bool, Shape: tensor.Shape{2}, Data: []byte{1, 0}}}},
	{name: "strings", ask: Request{Model: "identity_string", Inputs: x(modeltest.Strings1D([]byte("caf\u00e9 \"\\\n"), nil, []byte(strings.Repeat("long ", 1000))))},
		want: outputs{"y": modeltest.Strings1D([]byte("caf\u00e9 \"\\\n"), nil, []byte(strings.Repeat("long ", 1000)))}},
	{name: "an output that there is not", ask: Request{Model: "two_layer", Inputs: x(f32(column, 1, 5)), Outputs: []string{"nothing"}}, code: inference.InvalidArgument, reason: inference.ReasonInput, text: "nothing",
		except: map[Kind]except{REST: noFilter, Stream: noFilter, RESTJob: noFilter}},

	{name: "two inputs", ask: Request{Model: "two_inputs", Inputs: []Input{{"a", f32(square, 1, 2, 3, 4)}, {"b", f32(square, 10, 20, 30, 40)}}}, want: outputs{"sum": f32(square, 11, 22, 33, 44), "diff": f32(square, -9, -18, -27, -36)}},
	{name: "two inputs, one output", ask: Request{Model: "two_inputs", Inputs: []Input{{"b", f32(square, 10, 20, 30, 40)}, {"a", f32(square, 1, 2, 3, 4)}}, Outputs: []string{"diff"}}, want: outputs{"diff": f32(square, -9, -18, -27, -36)},
		except: map[Kind]except{REST: noFilter, Stream: noFilter, RESTJob: noFilter}},
	{name: "two inputs of different sizes", ask: Request{Model: "two_inputs", Inputs: []Input{{"a", f32(square, 1, 2, 3, 4)}, {"b", f32(tensor.Shape{3, 2}, 1, 2, 3, 4, 5, 6)}}}, code: inference.InvalidArgument, reason: inference.ReasonRuntime},
	{name: "a default", ask: Request{Model: "defaults", Inputs: x(f32(column, 1, 5))}, want: outputs{"y": f32(column, 10, 50)},
		except: map[Kind]except{REST: noDefault, Stream: noDefault, RESTJob: noDefault}},
	{name: "in place of a default", ask: Request{Model: "defaults", Inputs: []Input{{"x", f32(column, 1, 5)}, {"scale", f32(tensor.Shape{}, 2)}}}, want: outputs{"y": f32(column, 2, 10)}},
	{name: "no such model", ask: Request{Model: "nobody", Inputs: x(f32(column, 1, 5))}, code: inference.NotFound, reason: inference.ReasonModel, text: "nobody"},
	{name: "no such version", ask: Request{Model: "half_plus_two", Version: 99, Inputs: x(f32(column, 1, 5))}, code: inference.NotFound, reason: inference.ReasonModel, text: "99"},
	{name: "no such label", ask: Request{Model: "half_plus_two", Label: "nothing", Inputs: x(f32(column, 1, 5))}, code: inference.InvalidArgument, reason: inference.ReasonModel, text: "Unrecognized servable version label: nothing"},
	{name: "no such signature", ask: Request{Model: "half_plus_two", Signature: "nothing", Inputs: x(f32(column, 1, 5))}, code: inference.FailedPrecondition, reason: inference.ReasonModel, text: "nothing",
		except: map[Kind]except{REST: restFirst, Stream: restFirst, RESTJob: restFirst}},
	{name: "another input", ask: Request{Model: "half_plus_two", Inputs: []Input{{"z", f32(column, 1, 5)}}}, code: inference.InvalidArgument, reason: inference.ReasonInput},
	{name: "an input too many", ask: Request{Model: "half_plus_two", Inputs: []Input{{"x", f32(column, 1, 5)}, {"z", f32(column, 1, 5)}}}, code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{REST: passed, Stream: passed, RESTJob: passed}},
	{name: "no input", ask: Request{Model: "half_plus_two"}, code: inference.InvalidArgument, reason: inference.ReasonInput},
	{name: "another type", ask: Request{Model: "half_plus_two", Inputs: x(modeltest.Int64s(column, 1, 5))}, code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{REST: noDouble, Stream: noDouble, RESTJob: noDouble}},
	{name: "strings for numbers", ask: Request{Model: "half_plus_two", Inputs: x(&tensor.Tensor{DType: tensor.String, Shape: column, Strings: [][]byte{[]byte("a"), []byte("b")}})}, code: inference.InvalidArgument, reason: inference.ReasonInput},
	{name: "a shape that the graph refuses", ask: Request{Model: "fixed_batch", Inputs: x(f32(tensor.Shape{2, 3}, 1, 2, 3, 4, 5, 6))}, code: inference.InvalidArgument, reason: inference.ReasonRuntime},
	{name: "cut off", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Garbage: true}, code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{GRPC: unparsed}},
	{name: "over the limit", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Large: 5 << 20}, code: inference.ResourceExhausted, reason: inference.ReasonTooLarge,
		except: map[Kind]except{Stream: {why: "RFC 6455 has a close code for it", closed: 1009}}},
	{name: "a priority that is none", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Priority: "urgent"}, code: inference.InvalidArgument, reason: inference.ReasonInput, text: "urgent"},
	{name: "a priority", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Priority: "batch"}, want: outputs{"y": f32(column, 2.5, 4.5)}},
	{name: "no token", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Token: "none"}, code: inference.Unauthenticated, reason: inference.ReasonLogin, text: "the request has none"},
	{name: "a token for another model", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Token: "other"}, code: inference.PermissionDenied, reason: inference.ReasonScope, text: "is not for model half_plus_two"},
	{name: "a token for something else", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Token: "graph"}, code: inference.PermissionDenied, reason: inference.ReasonScope, text: "has the scope metrics"},
}
