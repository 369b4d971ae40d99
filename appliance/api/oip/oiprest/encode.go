// encode.go: the answer to an infer request.
package oiprest

import (
	"strconv"
	"unicode/utf8"

	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/appliance/api/rest"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// wanted are the outputs of a request and which of them are answered raw.
type wanted struct {
	outputs []int // indexes into the signature's
	binary  []bool
}

// want resolves what is asked for. all says whether outputs that nothing is said of are raw.
func (w *wanted) want(v *inference.Version, sig *inference.Signature, asked []output, all bool) *inference.Error {
	w.outputs, w.binary = w.outputs[:0], w.binary[:0]
	if len(asked) == 0 {
		for i := range sig.Outputs {
			w.outputs, w.binary = append(w.outputs, i), append(w.binary, all)
		}
	}
	if len(asked) > 0 {
		seen := make([]bool, len(sig.Outputs))
		for i := range asked {
			k, err := oip.Output(v, sig, asked[i].name, seen)
			if err != nil {
				return err
			}
			w.outputs = append(w.outputs, k)
			w.binary = append(w.binary, asked[i].binary || all && !asked[i].hasBinary)
		}
	}
	for i, k := range w.outputs {
		if info := &sig.Outputs[k]; !w.binary[i] && !inJSON(info.DType) {
			return oip.Invalid("output %q: tensors of datatype %s are not answered in JSON, which has no form for them; ask for binary data (binary_data, or binary_data_output for all)", info.Alias, oip.Datatype(info.DType))
		}
	}
	return nil
}

// encode appends the answer to dst: JSON, and after it the raw outputs. header is the length of the JSON where there are any, else -1.
func (w *wanted) encode(dst []byte, v *inference.Version, sig *inference.Signature, id []byte, outputs []*tensor.Tensor, strict bool) (out []byte, header int, err *inference.Error) {
	from := len(dst)
	dst = append(dst, `{"model_name":`...)
	dst = rest.AppendText(dst, []byte(v.Model))
	dst = append(dst, `,"model_version":"`...)
	dst = strconv.AppendInt(dst, v.Number, 10)
	dst = append(dst, '"')
	if len(id) > 0 {
		dst = append(dst, `,"id":`...)
		dst = rest.AppendText(dst, id)
	}
	dst = append(dst, `,"outputs":[`...)
	header = -1
	for i, t := range outputs {
		if i > 0 {
			dst = append(dst, ',')
		}
		name := sig.Outputs[w.outputs[i]].Alias
		dst = append(dst, `{"name":`...)
		dst = rest.AppendText(dst, []byte(name))
		dst = append(dst, `,"datatype":"`...)
		dst = append(dst, oip.Datatype(t.DType)...)
		dst = append(dst, `","shape":[`...)
		for k, n := range t.Shape {
			if k > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendInt(dst, n, 10)
		}
		dst = append(dst, ']')
		if w.binary[i] {
			header = 0
			dst = append(dst, `,"parameters":{"binary_data_size":`...)
			dst = strconv.AppendInt(dst, oip.RawLen(t), 10)
			dst = append(dst, "}}"...)
			continue
		}
		dst = append(dst, `,"data":`...)
		if dst, err = appendData(dst, name, t, strict); err != nil {
			return dst, -1, err
		}
		dst = append(dst, '}')
	}
	dst = append(dst, "]}"...)
	if header < 0 {
		return dst, -1, nil
	}
	header = len(dst) - from
	for i, t := range outputs {
		if w.binary[i] {
			dst = oip.AppendRaw(dst, t)
		}
	}
	return dst, header, nil
}

// appendData writes the elements in one list.
func appendData(dst []byte, name string, t *tensor.Tensor, strict bool) ([]byte, *inference.Error) {
	switch t.DType {
	case tensor.String:
		for i, s := range t.Strings {
			if !utf8.Valid(s) {
				return dst, oip.Invalid("output %q: element %d is no text, which JSON cannot carry; ask for binary data (binary_data, or binary_data_output for all)", name, i)
			}
		}
	case tensor.Uint16: // TensorFlow Serving's REST API has no numbers of this type
		dst = append(dst, '[')
		for i := 0; i+1 < len(t.Data); i += 2 {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = strconv.AppendUint(dst, uint64(t.Data[i])|uint64(t.Data[i+1])<<8, 10)
		}
		return append(dst, ']'), nil
	}
	return rest.AppendFlat(dst, t, strict)
}
