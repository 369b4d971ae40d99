// decode.go: the fast reader of predict requests.
package rest

import (
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// decoder reads predict requests into memory of its own, which lasts until the next decode.
type decoder struct {
	strict   bool // refuses NaN, the infinities and anything after the document
	maxBytes int  // of one tensor

	sig    *inference.Signature
	row    bool             // "instances" rather than "inputs"
	inputs []*tensor.Tensor // as in inference.Request

	fills   []filler
	tensors []tensor.Tensor
	seen    []int // by input: one more than the last row that had it
}

// decode reads body, which ends in NULs. When it is false the document is not acceptable and the explainer knows why.
func (d *decoder) decode(body []byte, v *inference.Version) bool {
	i := begin(body)
	if body[i] != '{' {
		return false
	}
	var (
		name            []byte // of the signature
		named           bool
		at              = -1 // of the value of "instances" or "inputs"
		read            bool // at has been read, as d.sig
		instances, data bool
		err             *syntaxError
	)
	for i = space(body, i+1); ; i = space(body, i+1) {
		if body[i] == '}' && at < 0 && !named {
			return false // {} and {"x":1,} alike: nothing to read
		}
		if body[i] != '"' {
			return false
		}
		key := i
		if i, err = skipString(body, i); err != nil {
			return false
		}
		k, _ := text(body, key)
		if i = space(body, i); body[i] != ':' {
			return false
		}
		i = space(body, i+1)
		switch string(k) {
		case "signature_name":
			if named {
				break // only the first counts
			}
			if body[i] != '"' {
				return false
			}
			end, err := skipString(body, i)
			if err != nil {
				return false
			}
			name, _ = text(body, i)
			named, i = true, end
			goto next
		case "instances", "inputs":
			row := len(k) == len("instances")
			if data {
				if row == instances {
					break
				}
				return false
			}
			data, instances, at = true, row, i
			// The name may still come. Most requests have the default signature, so it is tried, and given up without harm.
			if end := d.value(body, i, row, signature(v, name)); end >= 0 {
				i, read = end, true
				goto next
			}
			if named {
				return false
			}
		}
		if i, err = skip(body, i, d.strict); err != nil {
			return false
		}
	next:
		i = space(body, i)
		if body[i] == '}' {
			break
		}
		if body[i] != ',' {
			return false
		}
	}
	if d.strict && body[space(body, i+1)] != 0 {
		return false
	}
	if !data {
		return false
	}
	if sig := signature(v, name); !read || sig != d.sig {
		return d.value(body, at, instances, sig) >= 0
	}
	return true
}

// signature is the one that a request names, nil when there is none of that name.
func signature(v *inference.Version, name []byte) *inference.Signature {
	if len(name) == 0 {
		return v.Signatures[inference.DefaultSignature]
	}
	return v.Signatures[string(name)]
}

// value reads the value of "instances" or "inputs" at b[i] for the signature and returns the offset after it, or -1.
func (d *decoder) value(b []byte, i int, row bool, sig *inference.Signature) int {
	if sig == nil || len(sig.Inputs) == 0 {
		return -1
	}
	d.sig, d.row = sig, row
	n := len(sig.Inputs)
	for len(d.fills) < n {
		d.fills = append(d.fills, filler{})
	}
	if len(d.tensors) < n {
		d.tensors = make([]tensor.Tensor, n)
		d.inputs = make([]*tensor.Tensor, n)
		d.seen = make([]int, n)
	}
	d.inputs = d.inputs[:n]
	for k := range n {
		d.fills[k].reset(sig.Inputs[k].DType, sig.Inputs[k].Media != nil, d.strict, d.maxBytes)
		d.seen[k] = 0
	}
	rows := -1
	switch {
	case row:
		if b[i] != '[' {
			return -1
		}
		first := space(b, i+1)
		if b[first] == ']' {
			return -1
		}
		objects := false
		if b[first] == '{' {
			_, _, b64 := b64Object(b, first)
			objects = !b64
		}
		switch {
		case objects:
			i, rows = d.objects(b, first)
		case n > 1:
			return -1
		default: // the list of rows is the tensor
			i = d.fills[0].item(b, i)
		}
	case b[i] == '{':
		if _, _, b64 := b64Object(b, i); b64 {
			if n > 1 {
				return -1
			}
			i = d.fills[0].item(b, i)
		} else {
			i = d.members(b, i, 0, false)
		}
	case n > 1:
		return -1
	default:
		i = d.fills[0].item(b, i)
	}
	if i < 0 {
		return -1
	}
	for k := range n {
		if rows >= 0 && len(d.fills[k].dims) == tensor.MaxRank { // the rows are one more dimension
			return -1
		}
		d.fills[k].done(&d.tensors[k], rows)
		d.inputs[k] = &d.tensors[k]
	}
	return i
}

// objects reads rows that are objects, the first at b[i], up to the closing bracket.
func (d *decoder) objects(b []byte, i int) (end, rows int) {
	for {
		if b[i] != '{' {
			return -1, 0
		}
		if i = d.members(b, i, rows, true); i < 0 {
			return -1, 0
		}
		rows++
		i = space(b, i)
		if b[i] == ']' {
			return i + 1, rows
		}
		if b[i] != ',' {
			return -1, 0
		}
		i = space(b, i+1)
	}
}

// members reads the object at b[i], which has a value for every input. Exact is for a row, which has nothing else; without it what is
// unknown or there already is skipped.
func (d *decoder) members(b []byte, i, row int, exact bool) int {
	got, guess := 0, 0
	n := len(d.sig.Inputs)
	i = space(b, i+1)
	for b[i] != '}' || got > 0 {
		if b[i] != '"' {
			return -1
		}
		end, err := skipString(b, i)
		if err != nil {
			return -1
		}
		key, _ := text(b, i)
		if i = space(b, end); b[i] != ':' {
			return -1
		}
		i = space(b, i+1)
		k := guess // clients mostly send the inputs in the same order
		if k >= n || d.sig.Inputs[k].Alias != string(key) {
			k = d.sig.Input(string(key))
		}
		guess = k + 1
		if k >= 0 && d.seen[k] <= row {
			d.seen[k] = row + 1
			got++
			if i = d.fills[k].item(b, i); i < 0 {
				return -1
			}
		} else {
			if exact {
				return -1
			}
			if i, err = skip(b, i, d.strict); err != nil {
				return -1
			}
		}
		i = space(b, i)
		if b[i] == '}' {
			break
		}
		if b[i] != ',' {
			return -1
		}
		i = space(b, i+1)
		if b[i] == '}' {
			return -1
		}
	}
	if got != n {
		return -1
	}
	return i + 1
}
