// examples.go: :classify and :regress: examples of JSON as serialised tf.Examples, and the results.
package rest

import (
	"math"
	"net/http"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// examples answers one of the two acts. As TensorFlow Serving does, it reads the whole document before it looks for the model.
func (h *handler) examples(s *scratch, w http.ResponseWriter, r *http.Request, to route, start time.Time, o *api.Observation) *inference.Error {
	entry, timeout, bad := h.admit(s, w, r, to.spec, start)
	if bad != nil {
		return bad
	}
	defer entry.Leave()
	e := exampleReader{b: s.body, strict: s.dec.strict, maxBytes: s.dec.maxBytes, booked: len(s.body), book: entry.Grow}
	key, x, bad := e.read()
	if bad != nil {
		return bad
	}
	to.spec.Keys = keys(r.Header)
	handle, err := h.svc.Acquire(to.spec)
	if err != nil {
		return inference.AsError(err)
	}
	defer handle.Release()
	v := handle.Version()
	o.Version = v.Number
	sig, err := api.ExampleSignature(v.Signatures, key)
	if err != nil {
		return inference.AsError(err)
	}
	o.Signature = sig.Key
	method, as := api.MethodClassify, inference.RecordedClassify
	if to.act == actRegress {
		method, as = api.MethodRegress, inference.RecordedRegress
	}
	outputs, err := api.ExampleOutputs(sig, method)
	if err != nil {
		return inference.AsError(err)
	}
	s.req = inference.Request{Signature: sig, Inputs: []*tensor.Tensor{x}, Outputs: append(s.req.Outputs[:0], outputs...), As: as}
	resp, bad := h.call(s, r, handle, &entry, start, timeout)
	if bad != nil {
		return bad
	}
	defer resp.Release()
	if method == api.MethodRegress {
		values, err := api.Regressed(&s.req, resp)
		if err != nil {
			return inference.AsError(err)
		}
		s.enc.regressions(values)
		return nil
	}
	classes, err := api.Classified(&s.req, resp)
	if err != nil {
		return inference.AsError(err)
	}
	s.enc.classifications(&classes)
	return nil
}

// regressions writes the numbers of a float tensor. There is no line break before the bracket, as there is none in TensorFlow Serving.
func (e *encoder) regressions(values []byte) {
	e.open("results")
	e.out = append(e.out, '[')
	e.floats(values)
	e.out = append(e.out, ']')
	e.shut(0)
}

// classifications writes a list of pairs of label and score for each example.
func (e *encoder) classifications(c *api.Classes) {
	comma := func(i int) {
		if i > 0 {
			if e.out = append(e.out, ','); !e.compact {
				e.out = append(e.out, ' ')
			}
		}
	}
	e.open("results")
	e.out = append(e.out, '[')
	for row := range c.Rows {
		comma(row)
		e.out = append(e.out, '[')
		for k := range c.Per {
			comma(k)
			i := row*c.Per + k
			e.out = appendString(append(e.out, '['), c.Label(i), e.strict)
			comma(1)
			e.out = append(e.float(e.out, c.Score(i)), ']')
		}
		e.out = append(e.out, ']')
	}
	e.indent(1)
	e.out = append(e.out, ']')
	e.shut(0)
}

// exampleReader makes serialised tf.Examples of a document. It reads the text itself, never a tree.
type exampleReader struct {
	b        []byte
	strict   bool
	maxBytes int
	booked   int // bytes of memory, the body's too, by book, which is asked once an example has made them more
	book     func(bytes int64) *inference.Error

	features, entry, values []byte // parts of the Example that is being made
}

// read is the signature's name, empty when there is none, and a tensor of the examples.
func (e *exampleReader) read() (key string, x *tensor.Tensor, err *inference.Error) {
	why := explainer{b: e.b, strict: e.strict, maxBytes: e.maxBytes}
	root, key, err := why.prologue()
	if err != nil {
		return "", nil, err
	}
	context, examples := -1, -1
	why.each(root, func(name []byte, at int) int {
		switch string(name) {
		case "context":
			context = first(context, at)
		case "examples":
			examples = first(examples, at)
		}
		return why.skip(at)
	})
	var before []byte // what every example begins with
	if context >= 0 {
		if before, _, err = e.example(&why, nil, context); err != nil {
			return "", nil, err
		}
	}
	switch {
	case examples < 0: // of :regress too, in these words
		return "", nil, invalid("JSON Value: %s When method is classify, key 'examples' is expected and was not found", debugText(e.b, root))
	case e.b[examples] != '[':
		return "", nil, invalid("JSON Value: %s Expecting 'examples' value to be an list/array", debugText(e.b, root))
	case e.b[space(e.b, examples+1)] == ']':
		return "", nil, invalid("JSON Value: %s 'examples' value is an empty array", debugText(e.b, root))
	}
	var all []byte
	var ends []int
	for i := examples; ; {
		if i = space(e.b, i+1); len(ends) == api.MaxExamples {
			return "", nil, invalid("the request has more than %d examples", api.MaxExamples)
		}
		if all, i, err = e.example(&why, append(all, before...), i); err != nil {
			return "", nil, err
		}
		switch n := len(all) + len(before); {
		case n > e.maxBytes:
			return "", nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
				"the examples, each with the context before it, take more than %d bytes of memory; send fewer per request", e.maxBytes)
		case len(e.b)+n > e.booked:
			e.booked = len(e.b) + 2*n
			if err = e.book(int64(e.booked)); err != nil {
				return "", nil, err
			}
		}
		ends = append(ends, len(all))
		if i = space(e.b, i); e.b[i] == ']' {
			break
		}
	}
	strings, from := make([][]byte, len(ends)), 0
	for i, end := range ends {
		strings[i], from = all[from:end:end], end
	}
	return key, &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{int64(len(strings))}, Strings: strings}, nil
}

// example appends the object at i as a serialised tf.Example and returns the offset after it.
func (e *exampleReader) example(why *explainer, dst []byte, i int) ([]byte, int, *inference.Error) {
	if e.b[i] != '{' {
		return dst, i, invalid("Example must be JSON object but got JSON %s", kindOf(e.b[i]))
	}
	var err *inference.Error
	e.features = e.features[:0]
	end := why.each(i, func(name []byte, at int) int {
		if at, err = e.feature(name, at); err != nil {
			return -1
		}
		return at
	})
	if err != nil {
		return dst, i, err
	}
	if len(e.features) == 0 {
		return dst, end, nil
	}
	return appendField(dst, 1, e.features), end, nil // Example.features
}

// The members of the oneof of a tf.train.Feature.
const (
	noList    = 0
	bytesList = 1
	floatList = 2
	int64List = 3
)

var listNames = [...]string{noList: "UNKNOWN", bytesList: "bytes", floatList: "float", int64List: "int64"}

// feature appends one entry of Features.feature: the value at i, or the values of the list there. It returns the offset after them.
func (e *exampleReader) feature(name []byte, i int) (int, *inference.Error) {
	kind := noList
	var err *inference.Error
	e.values = e.values[:0]
	if e.b[i] != '[' {
		if i, err = e.value(name, i, &kind); err != nil {
			return i, err
		}
	} else {
		for i = space(e.b, i+1); e.b[i] != ']'; i = space(e.b, i) {
			if e.b[i] == ',' {
				i = space(e.b, i+1)
			}
			if i, err = e.value(name, i, &kind); err != nil {
				return i, err
			}
		}
		i++
	}
	e.entry = appendField(e.entry[:0], 1, name)
	if kind == noList {
		e.entry = appendField(e.entry, 2, nil)
	} else {
		list, num := len(e.values), protowire.Number(kind)
		if kind != bytesList { // of numbers the list has one field, packed
			list = protowire.SizeTag(1) + protowire.SizeBytes(len(e.values))
		}
		e.entry = protowire.AppendVarint(protowire.AppendTag(e.entry, 2, protowire.BytesType), uint64(protowire.SizeTag(num)+protowire.SizeBytes(list)))
		e.entry = protowire.AppendVarint(protowire.AppendTag(e.entry, num, protowire.BytesType), uint64(list))
		if kind == bytesList {
			e.entry = append(e.entry, e.values...)
		} else {
			e.entry = appendField(e.entry, 1, e.values)
		}
	}
	e.features = appendField(e.features, 1, e.entry)
	return i, nil
}

// value appends the value at i to the list of that kind, which it decides where none has been there before. It returns the offset after it.
func (e *exampleReader) value(name []byte, i int, kind *int) (int, *inference.Error) {
	is := func(want int) *inference.Error {
		if *kind != noList && *kind != want {
			return invalid("Unexpected element type in feature: %s expecting type: %s", name, listNames[*kind])
		}
		*kind = want
		return nil
	}
	b := e.b
	switch b[i] {
	case '"':
		err := is(bytesList)
		s, end := text(b, i)
		e.values = appendField(e.values, 1, s)
		return end, err
	case 't', 'f':
		bit := byte(0)
		if b[i] == 't' {
			bit = 1
		}
		end, _ := skip(b, i, e.strict)
		e.values = append(e.values, bit)
		return end, is(int64List)
	case '{':
		at, end, ok := b64Object(b, i)
		if !ok {
			break
		}
		if err := is(bytesList); err != nil {
			return i, err
		}
		encoded, _ := text(b, at)
		s, ok := decodeB64(encoded)
		if !ok {
			return i, invalid("Unable to base64 decode")
		}
		e.values = appendField(e.values, 1, s)
		return end, nil
	case '[', 'n':
	default:
		end, number, _ := skipNumber(b, i, e.strict)
		if number != kindInteger {
			f, _ := float32At(b, i, e.strict)
			e.values = protowire.AppendFixed32(e.values, math.Float32bits(f))
			return end, is(floatList)
		}
		if err := is(int64List); err != nil {
			return i, err
		}
		v, at := intAt(b, i)
		if at != end {
			return i, invalid("Feature: %s has uint64_t element. Only int64_t is supported.", name)
		}
		e.values = protowire.AppendVarint(e.values, uint64(v))
		return end, nil
	}
	return i, invalid("Feature: %s has element with unexpected JSON type: %s", name, kindOf(b[i]))
}

func appendField(dst []byte, num protowire.Number, content []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(slices.Grow(dst, len(content)+12), num, protowire.BytesType), content)
}
