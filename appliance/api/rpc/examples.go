// examples.go: requests of tf.Examples (Classify, Regress, MultiInference) as requests of one tensor of strings.
package rpc

import (
	"fmt"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// maxTasks bounds a MultiInferenceRequest.
const maxTasks = 1000

// exampleRequest is a parsed ClassificationRequest, RegressionRequest or MultiInferenceRequest. Every slice in it lies in the message.
type exampleRequest struct {
	kind  inference.RecordedKind
	tasks []exampleTask // one, but for MultiInference
	input exampleInput

	held
}

// exampleTask is an InferenceTask.
type exampleTask struct {
	hasSpec bool
	spec    wireSpec
	method  string
}

// exampleInput is an Input: an ExampleList, or an ExampleListWithContext.
type exampleInput struct {
	kind     protowire.Number // the member of the oneof that was sent last; 0: none
	examples [][]byte         // serialised
	context  []byte           // serialised
}

// decodeExamples makes a request of each task. The models that the message names do not matter.
func decodeExamples(kind inference.RecordedKind, b []byte, signatures map[string]*inference.Signature) ([]*inference.Request, error) {
	r := exampleRequest{kind: kind}
	if err := r.parse(b); err != nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
	}
	if len(r.tasks) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "the MultiInferenceRequest has no task")
	}
	return r.resolve(signatures, false, maxRecorded)
}

// resolve makes a request of each task; they share one input. With named, every task must name the first one's model.
func (r *exampleRequest) resolve(signatures map[string]*inference.Signature, named bool, maxBytes int64) ([]*inference.Request, error) {
	multi := r.kind == inference.RecordedMultiInference
	list, seen := make([]*inference.Request, 0, len(r.tasks)), make(map[string]bool, len(r.tasks))
	for i := range r.tasks {
		t := &r.tasks[i]
		if multi && named {
			switch {
			case len(t.spec.name) == 0:
				return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Found ModelSpec with an empty model name.")
			case string(t.spec.name) != string(r.tasks[0].spec.name):
				return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "All ModelSpecs in a MultiInferenceRequest must access the same model name.")
			}
		}
		key := t.spec.key()
		if seen[key] {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Duplicate evaluation of signature: %s", key)
		}
		seen[key] = true
		sig, err := api.ExampleSignature(signatures, key)
		if err != nil && multi {
			err = inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Requested signature not found in model graph: %s", key)
		}
		if err != nil {
			return nil, err
		}
		outputs, err := api.ExampleOutputs(sig, t.method)
		if err != nil {
			return nil, err
		}
		as := inference.RecordedClassify
		if t.method == api.MethodRegress {
			as = inference.RecordedRegress
		}
		list = append(list, &inference.Request{Signature: sig, Outputs: outputs, As: as})
	}
	x, err := r.input.tensor(maxBytes)
	if err != nil {
		return nil, err
	}
	for _, req := range list {
		req.Inputs = []*tensor.Tensor{x}
	}
	return list, nil
}

// tensor is the examples as the graph parses them, each with the context before it: TensorFlow Serving puts the bytes of the two messages
// end to end, by which protobuf's rules merge them, and a feature that both have is the example's.
func (in *exampleInput) tensor(maxBytes int64) (*tensor.Tensor, error) {
	if len(in.examples) == 0 {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Input is empty.")
	}
	all := in.examples
	if len(in.context) > 0 {
		if total := in.size(); total > maxBytes {
			return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
				"%d examples with a context of %d bytes each take %d bytes, at most %d are made; send fewer examples at once", len(in.examples), len(in.context), total, maxBytes)
		}
		all = make([][]byte, len(in.examples))
		for i, e := range in.examples {
			all[i] = append(append(make([]byte, 0, len(in.context)+len(e)), in.context...), e...)
		}
	}
	return tensor.NewStrings(tensor.Shape{int64(len(all))}, all)
}

// size is how many bytes the tensor takes beside the message: none without a context, for then it lies in it.
func (in *exampleInput) size() int64 {
	if len(in.context) == 0 {
		return 0
	}
	total := int64(len(in.context)) * int64(len(in.examples))
	for _, e := range in.examples {
		total += int64(len(e))
	}
	return total
}

// parse reads b, which it keeps, as a message of r.kind.
func (r *exampleRequest) parse(b []byte) error {
	switch r.kind {
	case inference.RecordedClassify:
		r.tasks = []exampleTask{{method: api.MethodClassify}}
	case inference.RecordedRegress:
		r.tasks = []exampleTask{{method: api.MethodRegress}}
	}
	return eachField(b, func(f *field) error {
		switch {
		case f.is(1, protowire.BytesType) && r.kind != inference.RecordedMultiInference:
			r.tasks[0].hasSpec = true
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
			t.hasSpec = true
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
				if len(in.examples) == api.MaxExamples {
					return fmt.Errorf("the request has more than %d examples", api.MaxExamples)
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
