// examples.go: requests of tf.Examples (Classify, Regress, MultiInference) as requests of one tensor of strings.
package rpc

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Method names of the signatures that take tf.Examples.
const (
	methodClassify = "tensorflow/serving/classify"
	methodRegress  = "tensorflow/serving/regress"
)

// maxTasks bounds a MultiInferenceRequest.
const maxTasks = 1000

// exampleRequest is a parsed ClassificationRequest, RegressionRequest or MultiInferenceRequest. Every slice in it lies in the message.
type exampleRequest struct {
	tasks []exampleTask // one, but for MultiInference
	input exampleInput
}

// exampleTask is an InferenceTask.
type exampleTask struct {
	spec   wireSpec
	method string
}

// exampleInput is an Input: an ExampleList, or an ExampleListWithContext.
type exampleInput struct {
	kind     protowire.Number // the member of the oneof that was sent last; 0: none
	examples [][]byte         // serialised
	context  []byte           // serialised
}

// decodeExamples makes a request of each task.
func decodeExamples(kind inference.RecordedKind, b []byte, signatures map[string]*inference.Signature) ([]*inference.Request, error) {
	var r exampleRequest
	if err := r.parse(kind, b); err != nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
	}
	if len(r.tasks) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "the MultiInferenceRequest has no task")
	}
	x, err := r.input.tensor(maxRecorded)
	if err != nil {
		return nil, err
	}
	list, seen := make([]*inference.Request, 0, len(r.tasks)), make(map[string]bool, len(r.tasks))
	for i := range r.tasks {
		t := &r.tasks[i]
		key := t.spec.key()
		if seen[key] {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Duplicate evaluation of signature: %s", key)
		}
		seen[key] = true
		sig := signatures[key]
		switch {
		case sig == nil && kind == inference.RecordedMultiInference:
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Requested signature not found in model graph: %s", key)
		case sig == nil:
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "No signature was found with the name: %s", key)
		}
		outputs, err := exampleOutputs(sig, t.method)
		if err != nil {
			return nil, err
		}
		list = append(list, &inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: outputs})
	}
	return list, nil
}

// exampleOutputs are the outputs that the method answers from, of a signature that has what the method takes. The signature's own method
// name does not count: TensorFlow 2 writes predict into all of them, and TensorFlow Serving looks at it only with
// --enable_signature_method_name_check.
func exampleOutputs(sig *inference.Signature, method string) ([]int, error) {
	bad := func(format string, args ...any) error {
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "signature %q: %s", sig.Key, fmt.Sprintf(format, args...))
	}
	word, from := "classification", []string{"classes", "scores"}
	switch method {
	case methodClassify:
	case methodRegress:
		word, from = "regression", []string{"outputs"}
	default:
		return nil, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "Unsupported signature method_name: %s", cutText(method))
	}
	if len(sig.Inputs) != 1 || sig.Inputs[0].Alias != "inputs" {
		return nil, bad("a %s signature has one input, \"inputs\"; this one has {%s}", word, strings.Join(aliases(sig.Inputs, all), ","))
	}
	var outputs []int
	for _, alias := range from {
		if i := sig.Output(alias); i >= 0 {
			outputs = append(outputs, i)
		}
	}
	if len(outputs) == 0 {
		return nil, bad("a %s signature has the output %s; this one has {%s}", word, strings.Join(from, " or "), strings.Join(aliases(sig.Outputs, all), ","))
	}
	return outputs, nil
}

// tensor is the examples as the graph parses them, each with the context before it: TensorFlow Serving puts the bytes of the two messages
// end to end, by which protobuf's rules merge them, and a feature that both have is the example's.
func (in *exampleInput) tensor(maxBytes int64) (*tensor.Tensor, error) {
	if len(in.examples) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Input is empty.")
	}
	all := in.examples
	if len(in.context) > 0 {
		total := int64(len(in.context)) * int64(len(in.examples))
		for _, e := range in.examples {
			total += int64(len(e))
		}
		if total > maxBytes {
			return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
				"%d examples with a context of %d bytes each take %d bytes, at most %d are made; record fewer examples", len(in.examples), len(in.context), total, maxBytes)
		}
		all = make([][]byte, len(in.examples))
		for i, e := range in.examples {
			all[i] = append(append(make([]byte, 0, len(in.context)+len(e)), in.context...), e...)
		}
	}
	return tensor.NewStrings(tensor.Shape{int64(len(all))}, all)
}

// parse reads b, which it keeps.
func (r *exampleRequest) parse(kind inference.RecordedKind, b []byte) error {
	switch kind {
	case inference.RecordedClassify:
		r.tasks = []exampleTask{{method: methodClassify}}
	case inference.RecordedRegress:
		r.tasks = []exampleTask{{method: methodRegress}}
	}
	return eachField(b, func(f *field) error {
		switch {
		case f.is(1, protowire.BytesType) && kind != inference.RecordedMultiInference:
			return r.tasks[0].spec.merge(f.b)
		case f.is(1, protowire.BytesType):
			if len(r.tasks) == maxTasks {
				return fmt.Errorf("the request has more than %d tasks", maxTasks)
			}
			var t exampleTask
			err := t.parse(f.b)
			r.tasks = append(r.tasks, t)
			return err
		case f.is(2, protowire.BytesType):
			return r.input.merge(f.b)
		}
		return nil
	})
}

func (t *exampleTask) parse(b []byte) error {
	return eachField(b, func(f *field) error {
		switch {
		case f.is(1, protowire.BytesType):
			return t.spec.merge(f.b)
		case f.is(2, protowire.BytesType):
			if !utf8.Valid(f.b) {
				return errUTF8
			}
			t.method = string(f.b)
		}
		return nil
	})
}

// merge reads an Input, or a further part of it.
func (in *exampleInput) merge(b []byte) error {
	return eachField(b, func(f *field) error {
		if f.typ != protowire.BytesType || f.num > 2 {
			return nil
		}
		if f.num != in.kind {
			*in = exampleInput{kind: f.num}
		}
		return eachField(f.b, func(f *field) error {
			switch {
			case f.is(1, protowire.BytesType):
				if len(in.examples) == maxEntries {
					return fmt.Errorf("the request has more than %d examples", maxEntries)
				}
				in.examples = append(in.examples, f.b)
			case f.is(2, protowire.BytesType) && in.kind == 2:
				in.context = append(in.context[:len(in.context):len(in.context)], f.b...) // parts of one message come together end to end
			}
			return nil
		})
	})
}

// eachField visits the fields of a message.
func eachField(b []byte, visit func(f *field) error) error {
	for len(b) > 0 {
		f, rest, err := next(b)
		if err != nil {
			return err
		}
		if err := visit(&f); err != nil {
			return err
		}
		b = rest
	}
	return nil
}

// cutText is a name for a message.
func cutText(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
