// examples.go: Classify and Regress as predictions of one tensor of serialised tf.Examples: which outputs they answer from, and what they take
// of an answer. Errors have TensorFlow Serving's texts.
package api

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	typespb "github.com/wamuir/graft/tensorflow/core/framework/types_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Method names of what takes tf.Examples, as an InferenceTask and a SignatureDef have them.
const (
	MethodClassify = "tensorflow/serving/classify"
	MethodRegress  = "tensorflow/serving/regress"
)

// MaxExamples bounds the examples of one request.
const MaxExamples = 1 << 16

// ExampleSignature is the signature of that name, or the default one.
func ExampleSignature(signatures map[string]*inference.Signature, key string) (*inference.Signature, error) {
	if key == "" {
		key = inference.DefaultSignature
	}
	sig := signatures[key]
	if sig == nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "No signature was found with the name: %s", key)
	}
	return sig, nil
}

// ExampleOutputs are the outputs that the method answers from, of a signature that has what the method takes. The signature's own method
// name does not count: TensorFlow 2 writes predict into all of them, and TensorFlow Serving looks at it only with
// --enable_signature_method_name_check.
func ExampleOutputs(sig *inference.Signature, method string) ([]int, error) {
	word, from, most := "classification", []string{"classes", "scores"}, 2
	switch method {
	case MethodClassify:
	case MethodRegress:
		word, from, most = "regression", []string{"outputs"}, 1
	default:
		return nil, inference.Errorf(inference.Unimplemented, inference.ReasonInput, "Unsupported signature method_name: %s", cutText(method))
	}
	n := len(sig.Outputs)
	switch {
	case len(sig.Inputs) != 1:
		return nil, unfit("Expected one input Tensor.")
	case n < 1 || n > most:
		if method == MethodRegress {
			return nil, unfit("Expected one output Tensor.")
		}
		return nil, unfit("Expected one or two output Tensors, found %d", n)
	case sig.Inputs[0].Alias != "inputs":
		return nil, unfit("No %s inputs found in SignatureDef: %s", word, sketch(sig))
	}
	var outputs []int
	for _, alias := range from {
		if i := sig.Output(alias); i >= 0 {
			outputs = append(outputs, i)
		}
	}
	switch {
	case len(outputs) > 0:
		return outputs, nil
	case method == MethodRegress:
		return nil, unfit("No regression outputs found in SignatureDef: %s", sketch(sig))
	default:
		return nil, unfit(`Expected classification signature outputs to contain at least one of "classes" or "scores". Signature was: %s`, sketch(sig))
	}
}

// unfit is an error of the signature that was asked for, not of what was sent to it.
func unfit(format string, args ...any) error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, format, args...)
}

// sketch is the signature in short.
func sketch(sig *inference.Signature) string {
	side := func(list []inference.TensorInfo) string {
		var names []string
		for i := range list {
			names = append(names, list[i].Alias)
		}
		return strings.Join(names, ",")
	}
	return fmt.Sprintf("inputs {%s} outputs {%s}", side(sig.Inputs), side(sig.Outputs))
}

// cutText is a name for a message.
func cutText(s string) string {
	const most = 200
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// Classes are the classes of each example: Per of them in each of Rows. The memory is the response's.
type Classes struct {
	Rows, Per      int
	labels, scores *tensor.Tensor // nil: the signature has none
}

// Label is that of class i, counted through all rows; empty where there are no labels.
func (c *Classes) Label(i int) []byte {
	if c.labels == nil {
		return nil
	}
	return c.labels.Strings[i]
}

// Score is that of class i; 0 where there are no scores.
func (c *Classes) Score(i int) float32 {
	if c.scores == nil {
		return 0
	}
	return math.Float32frombits(binary.LittleEndian.Uint32(c.scores.Data[4*i:]))
}

// Classified is what Classify answers, of a response to a request with the outputs of [ExampleOutputs].
func Classified(req *inference.Request, resp *inference.Response) (Classes, error) {
	rows := req.Inputs[0].Shape[0]
	c := Classes{Rows: int(rows)}
	per := int64(0)
	for i, t := range resp.Outputs {
		name, want := req.Signature.Outputs[req.Outputs[i]].Alias, tensor.Float
		if name == "classes" {
			want = tensor.String
		}
		switch {
		case len(t.Shape) != 2:
			return c, unfit("Expected Tensor shape: [batch_size num_classes] but got %v", t.Shape)
		case t.DType != want:
			return c, unfit("Expected %s Tensor of %s. Got: %s", name, typeName(want), typeName(t.DType))
		case t.Shape[0] != rows:
			return c, unfit("Expected %s output batch size of %d. Got: %d", name, rows, t.Shape[0])
		}
		if want == tensor.String {
			c.labels = t
		} else {
			c.scores = t
		}
		per = t.Shape[1]
	}
	if c.labels != nil && c.scores != nil && c.labels.Shape[1] != c.scores.Shape[1] {
		return c, unfit("Tensors class and score should match in dim_size(1). Got %d vs. %d", c.labels.Shape[1], c.scores.Shape[1])
	}
	c.Per = int(per)
	return c, nil
}

// Regressed is what Regress answers: a number for each example, as they lie in a tensor. The memory is the response's.
func Regressed(req *inference.Request, resp *inference.Response) ([]byte, error) {
	rows, t := req.Inputs[0].Shape[0], resp.Outputs[0]
	switch n := len(t.Shape); {
	case n != 1 && (n != 2 || t.Shape[1] != 1):
		return nil, unfit("Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got %v", t.Shape)
	case t.Shape[0] != rows:
		return nil, unfit("Input batch size did not match output batch size: %d vs. %d", rows, t.Shape[0])
	case t.DType != tensor.Float:
		return nil, unfit("Expected output Tensor of DT_FLOAT.  Got: %s", typeName(t.DType))
	}
	return t.Data, nil
}

func typeName(d tensor.DType) string { return typespb.DataType(d).String() }
