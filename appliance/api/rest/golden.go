// golden.go: golden cases: a predict request with the answer that is expected to it, in one document.
package rest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// Golden is a predict request, the answer that is expected to it, and how far the numbers of floating point in the answer may lie from it.
type Golden struct {
	Name    string // empty when the case has none
	Request *inference.Request
	// Want has one tensor per output of Request, nil where nothing is expected of it.
	Want []*tensor.Tensor
	// A number may differ from the expected one by ATol + RTol * |expected|.
	RTol, ATol float64
}

const (
	// goldenTolerance is for cases that name none: another order of summation in single precision stays below it.
	goldenTolerance = 1e-5
	maxGoldenTensor = 1 << 30 // bytes of one tensor's strings
)

// goldenKeys are what a case may have.
var goldenKeys = []string{"name", "signature_name", "instances", "inputs", "predictions", "outputs", "tolerance", "rtol", "atol"}

// DecodeGolden reads a golden case for one of the signatures: an object with the members of a predict request, those of its answer
// ("predictions", or "outputs" with all outputs or some of them by name), and perhaps "name", "tolerance" (both "rtol" and "atol", which
// may be given alone). NaN and the infinities are read. The result does not share the memory of doc. Errors are *inference.Error.
func DecodeGolden(doc []byte, signatures map[string]*inference.Signature) (Golden, error) {
	body := append(append(make([]byte, 0, len(doc)+sentinel), doc...), make([]byte, sentinel)...)
	g, err := decodeGolden(body, len(doc), signatures)
	if err != nil {
		return Golden{}, err // not a nil *inference.Error in an error
	}
	return *g, nil
}

func decodeGolden(body []byte, size int, signatures map[string]*inference.Signature) (*Golden, *inference.Error) {
	e := explainer{b: body, maxBytes: maxGoldenTensor}
	root, _, err := e.prologue()
	if err != nil {
		return nil, err
	}
	if at := space(body, e.skip(root)); at != size {
		return nil, invalid("JSON Parse error: %s at offset: %d", errNotSingular, at)
	}
	at := make(map[string]int, len(goldenKeys))
	e.each(root, func(key []byte, value int) int {
		k := string(key)
		switch _, twice := at[k]; {
		case twice:
			err = invalid("the case has %q twice", cut(k, 64))
		default:
			at[k] = value
		}
		if err != nil {
			return -1
		}
		return e.skip(value)
	})
	if err != nil {
		return nil, err
	}
	if err := checkGoldenKeys(at); err != nil {
		return nil, err
	}
	v := &inference.Version{Signatures: signatures}
	d := &decoder{maxBytes: maxGoldenTensor}
	if !d.decode(body, v) {
		return nil, e.explain(v)
	}
	g := &Golden{RTol: goldenTolerance, ATol: goldenTolerance}
	g.Request = &inference.Request{Signature: d.sig, Inputs: d.inputs}
	for i := range d.sig.Outputs {
		g.Request.Outputs = append(g.Request.Outputs, i)
	}
	if i, ok := at["name"]; ok {
		if body[i] != '"' {
			return nil, invalid("JSON Value: %s: \"name\" must be a string", debugText(body, i))
		}
		s, _ := text(body, i)
		g.Name = cut(string(s), 200)
	}
	for _, t := range []struct {
		key string
		to  []*float64
	}{{"tolerance", []*float64{&g.RTol, &g.ATol}}, {"rtol", []*float64{&g.RTol}}, {"atol", []*float64{&g.ATol}}} {
		i, ok := at[t.key]
		if !ok {
			continue
		}
		f, end := float64At(body, i, true)
		if end != e.skip(i) || !(f >= 0) {
			return nil, invalid("JSON Value: %s: %q must be a number that is not below zero", debugText(body, i), t.key)
		}
		for _, to := range t.to {
			*to = f
		}
	}
	if i, ok := at["predictions"]; ok {
		err = e.want(g, i, true)
	} else {
		err = e.want(g, at["outputs"], false)
	}
	return g, err
}

// checkGoldenKeys refuses what would otherwise be passed over in silence, a misspelt tolerance above all.
func checkGoldenKeys(at map[string]int) *inference.Error {
	for _, k := range slices.Sorted(maps.Keys(at)) {
		if !slices.Contains(goldenKeys, k) {
			return invalid("a golden case has no %q; it has %s", cut(k, 64), strings.Join(goldenKeys, ", "))
		}
	}
	_, rows := at["predictions"]
	_, columns := at["outputs"]
	if rows == columns {
		return invalid("a golden case has what is expected as either \"predictions\" or \"outputs\", as a predict answer has it")
	}
	return nil
}

// want reads the expected answer, whose value is at i, as if the outputs were a request's inputs: an answer has a request's form.
func (e *explainer) want(g *Golden, i int, row bool) *inference.Error {
	sig := g.Request.Signature
	g.Want = make([]*tensor.Tensor, len(sig.Outputs))
	as := &inference.Signature{Key: sig.Key}
	var places []int // in sig.Outputs, of those that as takes for inputs
	some := !row && e.isObject(i)
	named := make(map[string]bool)
	if some {
		var unknown string
		e.each(i, func(key []byte, at int) int {
			if named[string(key)] = true; sig.Output(string(key)) < 0 {
				unknown = string(key)
			}
			return e.skip(at)
		})
		if unknown != "" {
			return invalid("signature %q has no output %q", sig.Key, cut(unknown, 64))
		}
	}
	for k := range sig.Outputs {
		if !some || named[sig.Outputs[k].Alias] {
			as.Inputs = append(as.Inputs, sig.Outputs[k])
			places = append(places, k)
		}
	}
	if len(places) == 0 {
		return invalid("nothing is expected: \"outputs\" names no output")
	}
	d := &decoder{maxBytes: maxGoldenTensor}
	if d.value(e.b, i, row, as) < 0 {
		return e.unwanted(i, row, as)
	}
	for k, place := range places {
		g.Want[place] = d.inputs[k]
	}
	return nil
}

// unwanted is why the expected answer at i cannot be read.
func (e *explainer) unwanted(i int, row bool, as *inference.Signature) *inference.Error {
	var err *inference.Error
	switch b := e.b; {
	case row && b[i] != '[':
		err = invalid("JSON Value: %s is no list", debugText(b, i))
	case row && b[space(b, i+1)] == ']':
		err = invalid("it has no rows")
	case row:
		err = e.rows(i, as)
	default:
		err = e.columns(i, as)
	}
	if err == nil {
		err = invalid("it is not a list of numbers or strings that fits signature %q", as.Key)
	}
	err.Msg = fmt.Sprintf("what is expected (%s) cannot be read: %s", map[bool]string{true: "predictions", false: "outputs"}[row], err.Msg)
	return err
}
