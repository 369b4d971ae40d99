// document.go: the JSON of an infer request.
package oiprest

import (
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// document reads one request. Its memory is used again.
type document struct {
	strict   bool
	maxBytes int // that tensors may take

	b       []byte // the text, and NULs after it
	err     *inference.Error
	id      []byte
	params  oip.Parameters
	inputs  []input
	outputs []output
	values  []*rest.Value
	used    int // of values
}

// input is one member of the list of inputs.
type input struct {
	name    string
	shape   tensor.Shape
	dtype   tensor.DType
	data    int   // where its data begins; 0: it has none
	binary  int64 // how many bytes of raw data it has; -1: none
	value   *rest.Value
	has     members
	content tensor.Tensor
}

// output is one that is asked for.
type output struct {
	name      string
	binary    bool
	hasBinary bool
	has       members
}

// members are those that were there.
type members uint

const (
	hasName members = 1 << iota
	hasShape
	hasDatatype
	hasData
	hasParameters
	hasID
	hasInputs
	hasOutputs
)

func (d *document) reset(strict bool, maxBytes int) {
	*d = document{strict: strict, maxBytes: maxBytes, inputs: d.inputs[:0], outputs: d.outputs[:0], values: d.values}
}

// read reads the text in b, after which there are NULs. What lies raw beside it is not looked at.
func (d *document) read(b []byte) *inference.Error {
	d.b = b
	if rest.Begin(b) == len(b)-rest.Sentinel {
		return oip.Invalid("the request is empty; send JSON with the inputs")
	}
	var has members
	i := d.object(rest.Begin(b), "the request", func(key []byte, i int) int {
		switch string(key) {
		case "id":
			if !d.once(&has, hasID, "the request", key) {
				return -1
			}
			return d.text(i, "id", &d.id)
		case "parameters":
			if !d.once(&has, hasParameters, "the request", key) {
				return -1
			}
			return d.parameters(i, "parameters of the request", d.params.Set)
		case "inputs":
			if !d.once(&has, hasInputs, "the request", key) {
				return -1
			}
			return d.list(i, "inputs", d.input)
		case "outputs":
			if !d.once(&has, hasOutputs, "the request", key) {
				return -1
			}
			return d.list(i, "outputs", d.output)
		}
		return d.skip(i)
	})
	if i < 0 {
		return d.err
	}
	if i = rest.Space(b, i); i != len(b)-rest.Sentinel {
		return oip.Invalid("there is more after the end of the JSON, at offset %d of %d; binary tensors need the header %s, which says where they begin", i, len(b)-rest.Sentinel, LengthHeader)
	}
	return nil
}

// refuse is -1, for err, or because the document is no JSON, which is told first.
func (d *document) refuse(err *inference.Error) int {
	if d.err == nil {
		if _, d.err = rest.Skip(d.b, rest.Begin(d.b), d.strict); d.err == nil {
			d.err = err
		}
	}
	return -1
}

func (d *document) fail(format string, args ...any) int {
	return d.refuse(oip.Invalid(format, args...))
}

// once remembers a member, and fails where it is there a second time.
func (d *document) once(has *members, m members, what string, key []byte) bool {
	if *has&m != 0 {
		d.fail("%s has %q twice", what, key)
		return false
	}
	*has |= m
	return true
}

func (d *document) skip(i int) int {
	end, err := rest.Skip(d.b, i, d.strict)
	if err != nil {
		d.err = err
		return -1
	}
	return end
}

// object has member read each value of the object at i: it returns the offset after the value, or -1.
func (d *document) object(i int, what string, member func(key []byte, i int) int) int {
	b := d.b
	if b[i] != '{' {
		return d.fail("%s: not a JSON object", what)
	}
	if i = rest.Space(b, i+1); b[i] == '}' {
		return i + 1
	}
	for {
		if b[i] != '"' {
			return d.fail("%s: a name is missing", what)
		}
		end := d.skip(i)
		if end < 0 {
			return -1
		}
		key, _ := rest.Text(b, i)
		if i = rest.Space(b, end); b[i] != ':' {
			return d.fail("%s: a colon is missing", what)
		}
		if i = member(key, rest.Space(b, i+1)); i < 0 {
			return -1
		}
		i = rest.Space(b, i)
		if b[i] == '}' {
			return i + 1
		}
		if b[i] != ',' {
			return d.fail("%s: a comma is missing", what)
		}
		i = rest.Space(b, i+1)
	}
}

// list has member read each value of the list at i.
func (d *document) list(i int, what string, member func(i int) int) int {
	b := d.b
	if b[i] != '[' {
		return d.fail("%s: not a list", what)
	}
	if i = rest.Space(b, i+1); b[i] == ']' {
		return i + 1
	}
	for {
		if i = member(i); i < 0 {
			return -1
		}
		i = rest.Space(b, i)
		if b[i] == ']' {
			return i + 1
		}
		if b[i] != ',' {
			return d.fail("%s: a comma is missing", what)
		}
		i = rest.Space(b, i+1)
	}
}

func (d *document) text(i int, what string, to *[]byte) int {
	if d.b[i] != '"' {
		return d.fail("%s: not a string", what)
	}
	end := d.skip(i)
	if end >= 0 {
		*to, _ = rest.Text(d.b, i)
	}
	return end
}

// parameters hands each to set.
func (d *document) parameters(i int, what string, set func(name string, value any) *inference.Error) int {
	return d.object(i, what, func(key []byte, i int) int {
		value, end := d.scalar(i)
		if end < 0 {
			return -1
		}
		if err := set(string(key), value); err != nil {
			return d.refuse(err)
		}
		return end
	})
}

// scalar is the value at i, nil for null and a struct for lists and objects.
func (d *document) scalar(i int) (value any, end int) {
	if end = d.skip(i); end < 0 {
		return nil, -1
	}
	switch d.b[i] {
	case '"':
		text, _ := rest.Text(d.b, i)
		return string(text), end
	case 't':
		return true, end
	case 'f':
		return false, end
	case 'n':
		return nil, end
	case '[', '{':
		return struct{}{}, end
	}
	if n, at := rest.Int(d.b, i); at == end {
		return n, end
	}
	if n, at := rest.Uint(d.b, i); at == end {
		return n, end
	}
	f, _ := rest.Float(d.b, i, d.strict)
	return f, end
}

// input reads one member of the list of inputs.
func (d *document) input(i int) int {
	if len(d.inputs) == oip.MaxParts {
		return d.fail("the request has more than %d inputs", oip.MaxParts)
	}
	in := input{binary: -1}
	var word []byte
	end := d.object(i, "an input", func(key []byte, i int) int {
		switch string(key) {
		case "name":
			if !d.once(&in.has, hasName, "an input", key) {
				return -1
			}
			var name []byte
			i = d.text(i, "the name of an input", &name)
			in.name = string(name)
			return i
		case "shape":
			if !d.once(&in.has, hasShape, "input "+in.name, key) {
				return -1
			}
			return d.shape(i, &in)
		case "datatype":
			if !d.once(&in.has, hasDatatype, "input "+in.name, key) {
				return -1
			}
			return d.text(i, "the datatype of input "+oip.Cut(in.name), &word)
		case "parameters":
			if !d.once(&in.has, hasParameters, "input "+in.name, key) {
				return -1
			}
			return d.parameters(i, "parameters of input "+oip.Cut(in.name), in.set)
		case "data":
			if !d.once(&in.has, hasData, "input "+in.name, key) {
				return -1
			}
			in.data = i
			if in.has&hasDatatype != 0 { // read once, and not skipped and then read
				var err *inference.Error
				if in.dtype, err = oip.ParseDType(in.name, word); err != nil {
					return d.refuse(err)
				}
				return d.data(&in)
			}
		}
		return d.skip(i)
	})
	if end < 0 {
		return -1
	}
	switch {
	case in.has&hasName == 0:
		return d.fail("an input has no name")
	case in.has&hasDatatype == 0:
		return d.fail("input %q has no datatype", oip.Cut(in.name))
	case in.has&hasShape == 0:
		return d.fail("input %q has no shape", oip.Cut(in.name))
	case in.data != 0 && in.binary >= 0:
		return d.fail("input %q has both data and the parameter binary_data_size; send one", oip.Cut(in.name))
	case in.data == 0 && in.binary < 0:
		return d.fail("input %q has no data", oip.Cut(in.name))
	}
	if in.dtype == tensor.Invalid {
		var err *inference.Error
		if in.dtype, err = oip.ParseDType(in.name, word); err != nil {
			return d.refuse(err)
		}
	}
	if in.data != 0 {
		if in.value == nil && d.data(&in) < 0 {
			return -1
		}
		if err := in.take(); err != nil {
			return d.refuse(err)
		}
	}
	d.inputs = append(d.inputs, in)
	return end
}

// set takes a parameter of an input.
func (in *input) set(name string, value any) *inference.Error {
	if name != "binary_data_size" {
		return oip.TensorParameter(in.name, name)
	}
	n, ok := value.(int64)
	if !ok || n < 0 {
		return oip.Invalid("input %q: parameter binary_data_size is a whole number of bytes from 0 on", oip.Cut(in.name))
	}
	in.binary = n
	return nil
}

func (d *document) shape(i int, in *input) int {
	return d.list(i, "the shape of input "+oip.Cut(in.name), func(i int) int {
		n, end := rest.Int(d.b, i)
		if end < 0 || n < 0 {
			return d.fail("the shape of input %q has a dimension that is no whole number from 0 on", oip.Cut(in.name))
		}
		if len(in.shape) == tensor.MaxRank {
			return d.fail("the shape of input %q has more than %d dimensions", oip.Cut(in.name), tensor.MaxRank)
		}
		in.shape = append(in.shape, n)
		return end
	})
}

// output reads one member of the list of outputs.
func (d *document) output(i int) int {
	if len(d.outputs) == oip.MaxParts {
		return d.fail("the request asks for more than %d outputs", oip.MaxParts)
	}
	var out output
	end := d.object(i, "an output", func(key []byte, i int) int {
		switch string(key) {
		case "name":
			if !d.once(&out.has, hasName, "an output", key) {
				return -1
			}
			var name []byte
			i = d.text(i, "the name of an output", &name)
			out.name = string(name)
			return i
		case "parameters":
			if !d.once(&out.has, hasParameters, "output "+out.name, key) {
				return -1
			}
			return d.parameters(i, "parameters of output "+oip.Cut(out.name), out.set)
		}
		return d.skip(i)
	})
	if end >= 0 && out.has&hasName == 0 {
		return d.fail("an output has no name")
	}
	d.outputs = append(d.outputs, out)
	return end
}

// set takes a parameter of an output.
func (out *output) set(name string, value any) *inference.Error {
	if name != "binary_data" {
		if name == "classification" && value == int64(0) { // none
			return nil
		}
		return oip.TensorParameter(out.name, name)
	}
	on, ok := value.(bool)
	if !ok {
		return oip.Invalid("output %q: parameter binary_data is true or false", oip.Cut(out.name))
	}
	out.binary, out.hasBinary = on, true
	return nil
}
