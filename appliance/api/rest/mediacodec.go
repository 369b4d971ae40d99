// mediacodec.go: a file or samples alone as a request, as a frame or a job has them.
package rest

import (
	"maps"
	"slices"
	"strings"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// NewMediaCodec reads a file, or samples, as a request for the one input that takes them: that of the default signature, else of the only
// signature that has such an input. The answer is :predict's: "predictions" with a row for each picture or window where the signature's
// requests have rows, else "outputs".
func NewMediaCodec(opts CodecOptions) api.Codec {
	c, _ := NewCodec(opts).(*codec)
	return &mediaCodec{codec: c}
}

type mediaCodec struct{ *codec }

// Decode implements api.Codec. The request shares body's memory until it is answered; the file in it is decoded by [api.Service.Predict].
func (c *mediaCodec) Decode(body []byte, v *inference.Version) (api.Call, *inference.Error) {
	sig, err := mediaSignature(v)
	if err != nil {
		return nil, err
	}
	s := c.take()
	s.dec.row = sig.Batchable
	file := &tensor.Tensor{DType: tensor.String, Shape: tensor.Shape{}, Strings: [][]byte{body}}
	s.req = inference.Request{Signature: sig, Inputs: []*tensor.Tensor{file}, Outputs: api.AllOutputs(sig)}
	return s, nil
}

// mediaSignature is the one whose only input takes files.
func mediaSignature(v *inference.Version) (*inference.Signature, *inference.Error) {
	if sig := v.Signatures[inference.DefaultSignature]; sig != nil && sig.MediaInput() >= 0 {
		return sig, nil
	}
	var found []string
	for _, key := range slices.Sorted(maps.Keys(v.Signatures)) {
		if v.Signatures[key].MediaInput() >= 0 {
			found = append(found, key)
		}
	}
	switch len(found) {
	case 1:
		return v.Signatures[found[0]], nil
	case 0:
		return nil, invalid("model %s version %d has no signature whose only input takes files; send the input's tensor, or say in models[].media of inferd's configuration how the input arrives", v.Model, v.Number)
	}
	return nil, invalid("a file alone could be for the signatures %s of model %s version %d; send it as {\"b64\": ...} in a request that names one", strings.Join(found, ", "), v.Model, v.Number)
}
