// examples.go: Classify and Regress, whose requests are tf.Examples, over TensorFlow Serving's two protocols.
package conform

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	pb "github.com/wamuir/graft/tensorflow/serving/apis_go_proto"
	"google.golang.org/protobuf/encoding/protowire"
	gproto "google.golang.org/protobuf/proto"
)

// The methods beside predict. Guess is one that there is not.
const (
	Classify = "classify"
	Regress  = "regress"
	Guess    = "guess"
)

// Example is a tf.Example of floats.
type Example struct {
	Features map[string]float32
	Torn     bool // it is none
}

// verb is the method as REST has it.
func (r *Request) verb() string {
	if r.Method == "" {
		return "predict"
	}
	return r.Method
}

// rpc is the method as gRPC has it.
func (r *Request) rpc() string {
	word := r.verb()
	return "/tensorflow.serving.PredictionService/" + strings.ToUpper(word[:1]) + word[1:]
}

// body is the request as TensorFlow Serving's REST has it.
func (r *Request) body() []byte {
	if r.Method == "" {
		return r.columns()
	}
	var b strings.Builder
	b.WriteString("{")
	if r.Signature != "" {
		fmt.Fprintf(&b, "\"signature_name\":%q,", r.Signature)
	}
	b.WriteString(`"examples":[`)
	for i, e := range r.Examples {
		if i > 0 {
			b.WriteString(",")
		}
		if e.Torn {
			b.WriteString("5")
			continue
		}
		b.WriteString("{")
		for i, name := range slices.Sorted(maps.Keys(e.Features)) {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, "%q:%s", name, float(float64(e.Features[name]), 32))
		}
		b.WriteString("}")
	}
	b.WriteString("]}")
	return r.spoil([]byte(b.String()), ' ')
}

// message is the request as TensorFlow Serving's gRPC has it. ClassificationRequest and RegressionRequest have the same fields.
func (r *Request) message() ([]byte, error) {
	p := r.proto()
	if r.Method == "" {
		return gproto.Marshal(p)
	}
	b, err := gproto.Marshal(&pb.ClassificationRequest{ModelSpec: p.ModelSpec})
	if err != nil {
		return nil, err
	}
	var list []byte
	for _, e := range r.Examples {
		list = appendField(list, 1, e.wire())
	}
	return appendField(b, 2, appendField(nil, 1, list)), nil // Input.example_list
}

// wire is the tf.Example serialised, written by hand, for a client's library would not write one that is torn.
func (e *Example) wire() []byte {
	if e.Torn {
		return []byte{0x0a, 0x7f, 0xff} // 127 bytes, of which there is one
	}
	var features []byte
	for _, name := range slices.Sorted(maps.Keys(e.Features)) {
		list := appendField(nil, 1, protowire.AppendFixed32(nil, math.Float32bits(e.Features[name]))) // FloatList.value, packed
		entry := appendField(appendField(nil, 1, []byte(name)), 2, appendField(nil, 2, list))
		features = appendField(features, 1, entry)
	}
	return appendField(nil, 1, features)
}

func appendField(b []byte, number protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content)
}

// answer reads gRPC's answer to the method.
func (r *Request) answer(b []byte) (*Answer, error) {
	switch r.Method {
	case Classify:
		got := new(pb.ClassificationResponse)
		if err := gproto.Unmarshal(b, got); err != nil {
			return nil, err
		}
		var rows []string
		for _, row := range got.Result.GetClassifications() {
			var all []string
			for _, c := range row.Classes {
				all = append(all, class(c.Label, canonical(float(float64(c.Score), 32))))
			}
			rows = append(rows, strings.Join(all, ", "))
		}
		return results(rows), nil
	case Regress:
		got := new(pb.RegressionResponse)
		if err := gproto.Unmarshal(b, got); err != nil {
			return nil, err
		}
		var rows []string
		for _, v := range got.Result.GetRegressions() {
			rows = append(rows, canonical(float(float64(v.Value), 32)))
		}
		return results(rows), nil
	}
	got := new(pb.PredictResponse)
	if err := gproto.Unmarshal(b, got); err != nil {
		return nil, err
	}
	return protoAnswer(got), nil
}

// document reads REST's answer to the method.
func (r *Request) document(body []byte) (*Answer, error) {
	if r.Method == "" {
		return columnAnswer(body)
	}
	var got struct{ Results []any }
	if err := parse(body, &got); err != nil {
		return nil, fmt.Errorf("%w: %.300s", err, body)
	}
	var rows []string
	for _, row := range got.Results {
		if r.Method == Regress {
			rows = append(rows, scalar(row))
			continue
		}
		classes, ok := row.([]any)
		if !ok {
			return nil, fmt.Errorf("no list of classes: %.300s", body)
		}
		var all []string
		for _, c := range classes {
			pair, ok := c.([]any)
			if !ok || len(pair) != 2 {
				return nil, fmt.Errorf("no pair of a label and a score: %.300s", body)
			}
			label, ok := pair[0].(string)
			if !ok {
				return nil, errors.New("a label that is no string")
			}
			all = append(all, class(label, scalar(pair[1])))
		}
		rows = append(rows, strings.Join(all, ", "))
	}
	return results(rows), nil
}

func class(label, score string) string { return fmt.Sprintf("%q %s", label, score) }

func results(rows []string) *Answer {
	return &Answer{Outputs: map[string]string{"": strings.Join(rows, "; ")}}
}
