// assert.go: a configuration's assertion about a signature, held against the real one.
package savedmodel

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	pb "github.com/wamuir/graft/tensorflow/core/protobuf/for_core_protos_go_proto"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// ErrAssertion is wrapped by every error of [Assert] and [AssertSignature].
var ErrAssertion = errors.New("the model is not what the configuration asserts")

// Assert holds every asserted signature against the model's.
func Assert(info *Info, want map[string]*pb.SignatureDef) error {
	var faults []error
	for _, key := range slices.Sorted(maps.Keys(want)) {
		got := info.Signatures[key]
		if got != nil {
			faults = append(faults, AssertSignature(want[key], key, got))
			continue
		}
		if why, ok := info.Refused[key]; ok {
			faults = append(faults, fmt.Errorf("%w: signature %q cannot be served: %s", ErrAssertion, key, why))
			continue
		}
		faults = append(faults, fmt.Errorf("%w: it has no signature %q, only [%s]", ErrAssertion, key,
			strings.Join(slices.Sorted(maps.Keys(info.Signatures)), ", ")))
	}
	return errors.Join(faults...)
}

// AssertSignature compares the name, type and shape of each asserted input and output with the signature got; what the assertion leaves
// out of one of them is not compared. An asserted shape holds if the model would accept a tensor of that shape: a number fits the same
// number, -1 or an unknown rank in the model; -1 needs -1 or an unknown rank. The model may have outputs that the assertion does not
// name, and inputs if they have a default. The error prints both side by side.
func AssertSignature(want *pb.SignatureDef, key string, got *inference.Signature) error {
	rows := append(assertSide("input", want.GetInputs(), got.Inputs), assertSide("output", want.GetOutputs(), got.Outputs)...)
	wide, bad := len("asserted"), false
	for _, r := range rows {
		wide = max(wide, len(r.want))
		bad = bad || r.fault != ""
	}
	if !bad {
		return nil
	}
	var b strings.Builder
	for _, r := range append([]row{{want: "asserted", got: "in the model"}}, rows...) {
		fmt.Fprintf(&b, "\n  %-6s  %-*s  %s", r.side, wide, r.want, r.got)
		if r.fault != "" {
			fmt.Fprintf(&b, "   <- %s", r.fault)
		}
	}
	return fmt.Errorf("%w: signature %q:%s", ErrAssertion, key, b.String())
}

// row is one input or output: as asserted, as it is, and what is wrong.
type row struct{ side, want, got, fault string }

func assertSide(side string, want map[string]*pb.TensorInfo, got []inference.TensorInfo) (rows []row) {
	real := make(map[string]*inference.TensorInfo)
	for i := range got {
		real[got[i].Alias] = &got[i]
	}
	for _, alias := range slices.Sorted(maps.Keys(want)) {
		w, g := want[alias], real[alias]
		r := row{side: side, want: describeWanted(alias, w), got: "-"}
		if g == nil {
			r.fault = "the model has no such " + side
		} else {
			r.got, r.fault = describeInfo(g), strings.Join(differences(w, g), ", ")
		}
		rows = append(rows, r)
	}
	for i := range got {
		g := &got[i]
		if _, ok := want[g.Alias]; ok {
			continue
		}
		r := row{side: side, want: "-", got: describeInfo(g)}
		if side == "input" && g.Default == nil {
			r.fault = "not asserted, and it has no default"
		}
		rows = append(rows, r)
	}
	return rows
}

func differences(w *pb.TensorInfo, g *inference.TensorInfo) (list []string) {
	if name := w.GetName(); name != "" && output0(name) != output0(g.Tensor) {
		list = append(list, "name")
	}
	if d := tensor.DType(w.GetDtype()).Base(); d != tensor.Invalid && d != g.DType {
		list = append(list, "dtype")
	}
	if !assertedShapeHolds(w, g) {
		list = append(list, "shape")
	}
	return list
}

// output0 spells out the output number that TensorFlow lets one leave out.
func output0(name string) string {
	if !strings.Contains(name, ":") {
		return name + ":0"
	}
	return name
}

func assertedShapeHolds(w *pb.TensorInfo, g *inference.TensorInfo) bool {
	p := w.GetTensorShape()
	if p == nil || g.UnknownRank {
		return true
	}
	shape, unknown, err := shapeOf(p)
	if err != nil || unknown || len(shape) != len(g.Shape) {
		return false
	}
	for i, d := range shape {
		if g.Shape[i] != -1 && g.Shape[i] != d {
			return false
		}
	}
	return true
}

func describeWanted(alias string, w *pb.TensorInfo) string {
	s := alias + ":"
	if w.GetName() != "" {
		s += " " + w.GetName()
	}
	if d := tensor.DType(w.GetDtype()).Base(); d != tensor.Invalid {
		s += " " + d.String()
	}
	if p := w.GetTensorShape(); p != nil {
		shape, unknown, err := shapeOf(p)
		switch {
		case err != nil:
			s += " " + err.Error()
		case unknown:
			s += " unknown rank"
		default:
			s += " " + shape.String()
		}
	}
	return s
}

func describeInfo(t *inference.TensorInfo) string {
	shape := t.Shape.String()
	if t.UnknownRank {
		shape = "unknown rank"
	}
	s := fmt.Sprintf("%s: %s %v %s", t.Alias, t.Tensor, t.DType, shape)
	if t.Default != nil {
		s += " (has a default)"
	}
	return s
}
