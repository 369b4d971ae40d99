// explain.go: why a predict request cannot be read, in TensorFlow Serving's words and order.
package rest

import (
	"strings"

	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// explainer finds the error that TensorFlow Serving would answer with. It reads the text itself, never a tree, in a few passes.
type explainer struct {
	b        []byte
	strict   bool
	maxBytes int

	// Set by prologue: offsets of the values of the first members of these names, -1 when there is none.
	signature, instances, inputs int

	found *inference.Signature // set by explain: what the request is for, nil when it names nothing
}

func invalid(format string, args ...any) *inference.Error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, format, args...)
}

// prologue is what comes before the signature is looked up: the offset of the document's object and the signature's name, or an error.
func (e *explainer) prologue() (root int, name string, err *inference.Error) {
	b := e.b
	if len(b) == sentinel {
		return 0, "", invalid("JSON Parse error: The document is empty")
	}
	root = begin(b)
	switch b[root] {
	case 0, ']', '}', ',', ':':
		return 0, "", (&syntaxError{errEmpty, root}).client()
	}
	end, bad := skip(b, root, e.strict)
	if bad != nil {
		return 0, "", bad.client()
	}
	if end = space(b, end); e.strict && b[end] != 0 {
		return 0, "", (&syntaxError{errNotSingular, end}).client()
	}
	if b[root] != '{' {
		return 0, "", invalid("JSON Value: %s Is not object", debugText(b, root))
	}
	e.signature, e.instances, e.inputs = -1, -1, -1
	e.each(root, func(key []byte, at int) int {
		switch string(key) {
		case "signature_name":
			e.signature = first(e.signature, at)
		case "instances":
			e.instances = first(e.instances, at)
		case "inputs":
			e.inputs = first(e.inputs, at)
		}
		return e.skip(at)
	})
	if at := e.signature; at >= 0 {
		if b[at] != '"' {
			return 0, "", invalid("JSON Value: %s not formatted correctly. 'signature_name' key must be a string value.", debugText(b, root))
		}
		s, _ := text(b, at)
		name = string(s)
	}
	return root, name, nil
}

// explain is the reason why the decoder gave up on the document for version v.
func (e *explainer) explain(v *inference.Version) *inference.Error {
	root, name, err := e.prologue()
	if err != nil {
		return err
	}
	sig := signature(v, []byte(name))
	if sig == nil {
		if name == "" {
			name = inference.DefaultSignature
		}
		return inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Serving signature name: \"%s\" not found in signature def", name)
	}
	e.found = sig
	if len(sig.Inputs) == 0 {
		if name == "" {
			name = "DEFAULT"
		}
		return invalid("Failed to get input map for signature: %s", name)
	}
	instances, inputs := e.instances, e.inputs
	switch {
	case instances >= 0 && inputs >= 0:
		return invalid("JSON Value: %s Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist ", debugText(e.b, root))
	case instances >= 0 && e.b[instances] != '[':
		return invalid("JSON Value: %s Expecting 'instances' to be an list/array", debugText(e.b, root))
	case instances >= 0 && e.b[space(e.b, instances+1)] == ']':
		return invalid("JSON Value: %s No values in 'instances' array", debugText(e.b, root))
	case instances >= 0:
		err = e.rows(instances, sig)
	case inputs >= 0:
		err = e.columns(inputs, sig)
	default:
		return invalid("Missing 'inputs' or 'instances' key")
	}
	if err == nil { // the two readers disagree, which a fuzz test looks for
		err = invalid("the request was not understood; it is JSON, but not a list of numbers or strings that fits signature %q", sig.Key)
	}
	return err
}

// skip is the offset after the value at i. The document has been checked.
func (e *explainer) skip(i int) int {
	end, _ := skip(e.b, i, false)
	return end
}

// each calls f with the key and the offset of the value of each member of the object at i, until f returns an offset below zero; f
// returns the offset after the value. each returns the offset after the object, or -1.
func (e *explainer) each(i int, f func(key []byte, at int) int) int {
	b := e.b
	for i = space(b, i+1); b[i] != '}'; i = space(b, i) {
		if b[i] == ',' {
			i = space(b, i+1)
		}
		key, end := text(b, i)
		at := space(b, space(b, end)+1)
		if i = f(key, at); i < 0 {
			return -1
		}
	}
	return i + 1
}

// first is old where it is an offset, else at.
func first(old, at int) int {
	if old >= 0 {
		return old
	}
	return at
}

// isObject reports whether the value is an object that is not a string in base64.
func (e *explainer) isObject(i int) bool {
	if e.b[i] != '{' {
		return false
	}
	_, _, b64 := b64Object(e.b, i)
	return !b64
}

func (e *explainer) rows(i int, sig *inference.Signature) *inference.Error {
	b := e.b
	objects := e.isObject(space(b, i+1))
	if !objects && len(sig.Inputs) > 1 {
		return invalid("instances is a plain list, but expecting list of objects as multiple input tensors required as per tensorinfo_map")
	}
	items := make([]item, len(sig.Inputs))
	for row := 0; ; row++ {
		i = space(b, i+1)
		var err *inference.Error
		switch object := e.isObject(i); {
		case objects && !object:
			return invalid("Expecting object but got list at item %d of input list", row)
		case objects:
			i, err = e.row(i, row, sig, items)
		case object:
			return invalid("Expecting value/list but got object at item %d of input list", row)
		default:
			if i, err = e.item(i, &sig.Inputs[0], &items[0]); err != nil && err.Reason == inference.ReasonInput {
				err = invalid("Failed to process element: %d of 'instances' list. Error: %s: %s", row, err.Code, err.Msg)
			}
		}
		if err != nil {
			return err
		}
		if i = space(b, i); b[i] == ']' {
			break
		}
	}
	for k := range items {
		if len(items[k].dims) == tensor.MaxRank { // the rows are one more dimension
			return tooDeep(tensor.MaxRank + 1)
		}
	}
	return nil
}

// row explains a row that is an object.
func (e *explainer) row(i, row int, sig *inference.Signature, items []item) (int, *inference.Error) {
	var (
		err  *inference.Error
		seen = make([]bool, len(items))
		got  int
	)
	end := e.each(i, func(key []byte, at int) int {
		k := sig.Input(string(key))
		switch {
		case k < 0:
			err = invalid("JSON object: does not have named input: %s", key)
		case seen[k]:
			err = invalid("JSON object: has named input more than once: %s", key)
		default:
			seen[k] = true
			got++
			at, err = e.item(at, &sig.Inputs[k], &items[k])
		}
		if err != nil {
			if err.Reason != inference.ReasonInput {
				return -1
			}
			err = invalid("Failed to process element: %d key: %s of 'instances' list. Error: %s: %s", row, key, err.Code, err.Msg)
			return -1
		}
		return at
	})
	if err == nil && got < len(items) {
		names := make([]string, len(sig.Inputs))
		for k := range names {
			names[k] = sig.Inputs[k].Alias
		}
		err = invalid("Failed to process element: %d of 'instances' list. JSON object: %s keys must be equal to: %s", row, debugText(e.b, i),
			strings.Join(names, ","))
	}
	return end, err
}

func (e *explainer) columns(i int, sig *inference.Signature) *inference.Error {
	if !e.isObject(i) {
		if len(sig.Inputs) > 1 {
			return invalid("inputs is a plain value/list, but expecting an object as multiple input tensors required as per tensorinfo_map")
		}
		_, err := e.item(i, &sig.Inputs[0], &item{})
		return err
	}
	found := make([]int, len(sig.Inputs))
	e.each(i, func(key []byte, at int) int {
		if k := sig.Input(string(key)); k >= 0 && found[k] == 0 {
			found[k] = at
		}
		return e.skip(at)
	})
	for k := range sig.Inputs {
		info := &sig.Inputs[k]
		if found[k] == 0 {
			return invalid("Missing named input: %s in 'inputs' object.", info.Alias)
		}
		if _, err := e.item(found[k], info, &item{}); err != nil {
			return err
		}
	}
	return nil
}

// item is what the rows of one input so far have in common.
type item struct {
	dims []int64
	size int // elements
	used int // bytes that strings take, as in filler
	any  bool

	files bool // sent in the place of numbers
}

// item explains one value, which is a tensor or one row of it, and returns the offset after it.
func (e *explainer) item(i int, info *inference.TensorInfo, it *item) (int, *inference.Error) {
	d := info.DType
	if info.Media != nil && d != tensor.String {
		file := e.b[e.scalarIn(i)] == '{'
		if it.any && file != it.files {
			return e.skip(i), invalid("JSON Value: %s: files and numbers are mixed; send all rows of an input as files ({\"b64\": ...}), or all as numbers", debugText(e.b, i))
		}
		if it.files = file; file {
			d = tensor.String
		}
	}
	dims, _ := e.shape(i, nil)
	if len(dims) > tensor.MaxRank {
		return i, tooDeep(len(dims))
	}
	size := 0
	end, err := e.fill(i, 0, dims, d, it, &size)
	switch {
	case err != nil:
	case !it.any:
		it.any, it.dims, it.size = true, dims, size
	case it.size != size:
		err = invalid("Expecting tensor size: %d but got: %d", it.size, size)
	case !tensor.Shape(it.dims).Equal(dims):
		err = invalid("Expecting shape %v but got: %v", tensor.Shape(it.dims), tensor.Shape(dims))
	}
	return end, err
}

// scalarIn is the offset of the first value that is no list in the value at i, or of what closes a list without one.
func (e *explainer) scalarIn(i int) int {
	for e.b[i] == '[' {
		i = space(e.b, i+1)
	}
	return i
}

func tooDeep(rank int) *inference.Error {
	return invalid("%d lists within each other make a tensor of as many dimensions; at most %d are allowed", rank, tensor.MaxRank)
}

// shape is the number of elements of the list at i, of its first element, and so on, after dims.
func (e *explainer) shape(i int, dims []int64) ([]int64, int) {
	b := e.b
	if b[i] != '[' {
		return dims, e.skip(i)
	}
	level := len(dims)
	dims = append(dims, 0)
	n := int64(0)
	for i = space(b, i+1); b[i] != ']'; i = space(b, i) {
		if b[i] == ',' {
			i = space(b, i+1)
		}
		if n == 0 {
			dims, i = e.shape(i, dims)
		} else {
			i = e.skip(i)
		}
		n++
	}
	dims[level] = n
	return dims, i + 1
}

// fill holds the value at i, level lists deep, against dims. TensorFlow Serving looks at the length of a list before it looks inside;
// here the length is known only at its end, so a wrong one takes the place of an error found inside.
func (e *explainer) fill(i, level int, dims []int64, d tensor.DType, it *item, size *int) (int, *inference.Error) {
	b := e.b
	if b[i] != '[' {
		end := e.skip(i)
		if level != len(dims) {
			return end, invalid("JSON Value: %s found at incorrect level: %d in the JSON DOM. Expected at level: %d", debugText(b, i), level+1, len(dims))
		}
		*size++
		return end, e.scalar(i, end, d, it)
	}
	if level >= len(dims) {
		return e.skip(i), invalid("Encountered list at unexpected level: %d expected < %d", level, len(dims))
	}
	var err *inference.Error
	n := int64(0)
	for i = space(b, i+1); b[i] != ']'; i = space(b, i) {
		if b[i] == ',' {
			i = space(b, i+1)
		}
		if err == nil {
			i, err = e.fill(i, level+1, dims, d, it, size)
		} else {
			i = e.skip(i)
		}
		n++
	}
	if n != dims[level] {
		err = invalid("Encountered list at unexpected size: %d at level: %d expected size: %d", n, level, dims[level])
	}
	return i + 1, err
}

// scalar explains b[i:end], which is no list.
func (e *explainer) scalar(i, end int, d tensor.DType, it *item) *inference.Error {
	b := e.b
	if b[i] == '{' {
		if d != tensor.String {
			return e.wrongType(i, d)
		}
		at, _, ok := b64Object(b, i)
		if !ok {
			return invalid("JSON Value: %s not formatted correctly for base64 data", debugText(b, i))
		}
		encoded, _ := text(b, at)
		s, ok := decodeB64(encoded)
		if !ok {
			return invalid("Unable to base64 decode")
		}
		return e.room(it, len(s))
	}
	ok := false
	switch d {
	case tensor.Float, tensor.Double:
		ok = kindOf(b[i]) == "Number"
	case tensor.Int32, tensor.Int16, tensor.Int8, tensor.Uint8:
		v, at := intAt(b, i)
		ok = at == end && v == int64(int32(v))
	case tensor.Int64:
		_, at := intAt(b, i)
		ok = at == end
	case tensor.Uint32:
		v, at := uintAt(b, i)
		ok = at == end && v == uint64(uint32(v))
	case tensor.Uint64:
		_, at := uintAt(b, i)
		ok = at == end
	case tensor.Bool:
		ok = b[i] == 't' || b[i] == 'f'
	case tensor.String:
		if it.files {
			return invalid("JSON Value: %s Type: %s is not a file; send it as {\"b64\": ...}", debugText(b, i), kindOf(b[i]))
		}
		if ok = b[i] == '"'; ok {
			return e.room(it, 0)
		}
	default:
		return inference.Errorf(inference.Unimplemented, inference.ReasonInput, "Conversion of JSON Value: %s to type: %s", debugText(b, i), d.Name())
	}
	if !ok {
		return e.wrongType(i, d)
	}
	return nil
}

// room counts a string against the limit on one tensor.
func (e *explainer) room(it *item, n int) *inference.Error {
	if it.used += n + stringHeader; it.used > e.maxBytes {
		return inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge,
			"the strings of one input take more than %d bytes of memory; send fewer per request", e.maxBytes)
	}
	return nil
}

func (e *explainer) wrongType(i int, d tensor.DType) *inference.Error {
	return invalid("JSON Value: %s Type: %s is not of expected type: %s", debugText(e.b, i), kindOf(e.b[i]), d.Name())
}

// kindOf is RapidJSON's name for the type of a value, by its first byte.
func kindOf(c byte) string {
	switch c {
	case '"':
		return "String"
	case '[':
		return "Array"
	case '{':
		return "Object"
	case 't':
		return "True"
	case 'f':
		return "False"
	case 'n':
		return "Null"
	default:
		return "Number"
	}
}
