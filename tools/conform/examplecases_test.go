// examplecases_test.go: the table's cases of Classify and Regress, and of deadlines.
package conform

import (
	"time"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// permit is reasons that a protocol's errors do not tell, and why.
type permit struct {
	kinds   []Kind
	code    inference.Code // 0: whatever it is
	reasons []string
	why     string
}

// untold are the reasons that may be missing. One that nobody needs is a fault as well.
var untold = []permit{
	{kinds: []Kind{GRPC, OIPGRPC, GRPCJob}, reasons: []string{inference.ReasonInput, inference.ReasonModel, inference.ReasonLogin, inference.ReasonScope, inference.ReasonTooLarge},
		why: "statuses of TensorFlow Serving have no details, and clients compare them; only a refusal has, for there a client can act on them"},
	{kinds: []Kind{GRPC, OIPGRPC}, reasons: []string{inference.ReasonRuntime}, why: "the same; a job tells it with its state"},
	{kinds: []Kind{GRPC, OIPGRPC}, code: inference.DeadlineExceeded, reasons: []string{inference.ReasonDeadline}, why: "the code says it"},
}

func of(features ...map[string]float32) (all []Example) {
	for _, f := range features {
		all = append(all, Example{Features: f})
	}
	return all
}

type features = map[string]float32

var two = of(features{"x": 1}, features{"x": 3, "bias": -2})

func ask(method, signature string, examples []Example) Request {
	return Request{Model: "examples", Method: method, Signature: signature, Examples: examples}
}

// with changes a request.
func (r Request) with(change func(r *Request)) Request {
	change(&r)
	return r
}

var exampleCases = elsewhere(noExamples, []testCase{
	{name: "classify", ask: ask(Classify, "", two), rows: `"low" 1, "high" 2.5; "high" 3, "low" 1.5`},
	{name: "classify with a signature", ask: ask(Classify, "classify", two[:1]), rows: `"low" 1, "high" 2.5`},
	{name: "classify, labels alone", ask: ask(Classify, "classes", two), rows: `"low" 0, "high" 0; "high" 0, "low" 0`},
	{name: "classify, scores alone", ask: ask(Classify, "scores", two), rows: `"" 1, "" 2.5; "" 3, "" 1.5`},
	{name: "classify, a version", ask: ask(Classify, "", two[:1]).with(func(r *Request) { r.Version = 1 }), rows: `"low" 1, "high" 2.5`},
	{name: "classify, a priority", ask: ask(Classify, "", two[:1]).with(func(r *Request) { r.Priority = "batch" }), rows: `"low" 1, "high" 2.5`},
	{name: "regress", ask: ask(Regress, "regress", two), rows: "2.5; 1.5"},
	{name: "regress, a vector", ask: ask(Regress, "flat", two), rows: "2.5; 1.5"},
	{name: "regress, a feature that nobody asks for", ask: ask(Regress, "regress", of(features{"x": 1, "other": 5})), rows: "2.5"},

	{name: "classify, no examples", ask: ask(Classify, "", nil), code: inference.InvalidArgument, reason: inference.ReasonInput, text: "empty"},
	{name: "regress, no examples", ask: ask(Regress, "regress", nil), code: inference.InvalidArgument, reason: inference.ReasonInput, text: "empty"},
	{name: "classify, no tf.Example", ask: ask(Classify, "", []Example{two[0], {Torn: true}}), code: inference.InvalidArgument, reason: inference.ReasonInput, text: "xample"},
	{name: "classify, a missing feature", ask: ask(Classify, "", of(features{"bias": 1})), code: inference.InvalidArgument, reason: inference.ReasonRuntime, text: "Feature: x (data type: float) is required but could not be found."},
	{name: "regress, a missing feature in one of many", ask: ask(Regress, "regress", of(features{"x": 1}, features{})), code: inference.InvalidArgument, reason: inference.ReasonRuntime, text: "Feature: x (data type: float) is required but could not be found."},
	{name: "classify, a signature that regresses", ask: ask(Classify, "regress", two), code: inference.InvalidArgument, reason: inference.ReasonModel, text: `at least one of "classes" or "scores"`},
	{name: "classify, a signature that predicts", ask: ask(Classify, "predict", two), code: inference.InvalidArgument, reason: inference.ReasonModel, text: "No classification inputs found in SignatureDef: "},
	{name: "regress, a signature that classifies", ask: ask(Regress, "", two), code: inference.InvalidArgument, reason: inference.ReasonModel, text: "Expected one output Tensor."},
	{name: "classify, no such signature", ask: ask(Classify, "nothing", two), code: inference.InvalidArgument, reason: inference.ReasonModel, text: "No signature was found with the name: nothing"},
	{name: "classify, no such model", ask: Request{Model: "nobody", Method: Classify, Examples: two}, code: inference.NotFound, reason: inference.ReasonModel, text: "Servable not found for request: Latest(nobody)"},
	{name: "regress, no such version", ask: ask(Regress, "regress", two).with(func(r *Request) { r.Version = 99 }), code: inference.NotFound, reason: inference.ReasonModel, text: "Servable not found for request: Specific(examples, 99)"},
	{name: "classify, a model without examples", ask: Request{Model: "half_plus_two", Method: Classify, Examples: two}, code: inference.InvalidArgument, reason: inference.ReasonModel},
	{name: "classify, cut off", ask: ask(Classify, "", two).with(func(r *Request) { r.Garbage = true }), code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{GRPC: unparsed}},
	{name: "classify, over the limit", ask: ask(Classify, "", two).with(func(r *Request) { r.Large = 5 << 20 }), code: inference.ResourceExhausted, reason: inference.ReasonTooLarge},
	{name: "classify, no token", ask: ask(Classify, "", two).with(func(r *Request) { r.Token = "none" }), code: inference.Unauthenticated, reason: inference.ReasonLogin, text: "the request has none"},
	{name: "regress, a token for another model", ask: ask(Regress, "regress", two).with(func(r *Request) { r.Token = "other" }), code: inference.PermissionDenied, reason: inference.ReasonScope, text: "is not for model examples"},
	{name: "a method that there is not", ask: ask(Guess, "", two), code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{GRPC: {why: "gRPC has a code of its own for it", code: inference.Unimplemented}, OIPREST: ownPath, OIPGRPC: ownPath, Stream: ownPath, RESTJob: ownPath, GRPCJob: ownPath}},
})

// elsewhere makes the cases ones that only TensorFlow Serving's protocols can say, but for those that say otherwise.
func elsewhere(why except, cases []testCase) []testCase {
	for i := range cases {
		all := map[Kind]except{OIPREST: why, OIPGRPC: why, Stream: why, RESTJob: why, GRPCJob: why}
		for kind, e := range cases[i].except {
			all[kind] = e
		}
		cases[i].except = all
	}
	return cases
}

// slowly is a request whose answer takes 20 ms.
var slowly = Request{Model: "slow", Inputs: x(f32(tensor.Shape{1, 1}, 4))}

var jobsWait = map[Kind]except{RESTJob: noWaiting, GRPCJob: noWaiting}

// What cannot be in time is refused at once where the model's runs are known, and else answered when its time is over: a client that counts on one of
// the two is wrong at every door.
var deadlineCases = []testCase{
	{name: "time enough", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Deadline: patience}, want: outputs{"y": f32(column, 2.5, 4.5)}, except: jobsWait},
	{name: "a deadline that is over", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Deadline: time.Nanosecond}, code: inference.DeadlineExceeded, or: inference.ResourceExhausted,
		reason: inference.ReasonDeadline, except: jobsWait},
	{name: "a deadline that comes too early", ask: slowly.with(func(r *Request) { r.Deadline = 3 * time.Millisecond }), code: inference.DeadlineExceeded, or: inference.ResourceExhausted,
		reason: inference.ReasonDeadline, except: jobsWait},
	{name: "a deadline that is none", ask: Request{Model: "half_plus_two", Inputs: x(f32(column, 1, 5)), Deadline: -time.Second}, code: inference.InvalidArgument, reason: inference.ReasonInput,
		except: map[Kind]except{GRPC: {why: "grpc-go refuses the header before inferd has seen the call", code: inference.Internal}, RESTJob: noWaiting, GRPCJob: noWaiting}},
	{name: "classify, a deadline that is over", ask: ask(Classify, "", two).with(func(r *Request) { r.Deadline = time.Nanosecond }), code: inference.DeadlineExceeded, or: inference.ResourceExhausted,
		reason: inference.ReasonDeadline, except: elsewhere(noExamples, []testCase{{}})[0].except},
}
