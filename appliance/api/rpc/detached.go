// detached.go: a PredictRequest read, and its answer written, away from the door: stored, or in a frame.
package rpc

import (
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// CodecOptions of [NewCodec]; each is as in [Options]. Zero means default.
type CodecOptions struct {
	MaxRequestBytes          int64
	SerializeAsTensorContent bool
}

// NewCodec reads PredictRequests and writes PredictResponses, for whoever has them from elsewhere. Errors are those of Predict. The model
// that a message names is passed over: see [ReadSpec].
func NewCodec(opts CodecOptions) api.Codec {
	return &detached{maxBytes: Options{MaxRequestBytes: opts.MaxRequestBytes}.maxRequestBytes(), asContent: opts.SerializeAsTensorContent}
}

// ReadSpec is what the catalog is to be asked for before a PredictRequest can be decoded. It does not look at the rest of the message.
func ReadSpec(body []byte) (inference.Spec, *inference.Error) {
	var r request
	for b := body; len(b) > 0; {
		f, rest, err := next(b)
		if err != nil {
			return inference.Spec{}, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
		}
		b = rest
		if f.is(1, protowire.BytesType) {
			r.hasSpec = true
			if err := r.spec.merge(f.b); err != nil {
				return inference.Spec{}, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
			}
		}
	}
	spec, err := r.modelSpec()
	if err != nil {
		return spec, inference.AsError(err)
	}
	return spec, nil
}

// detached is immutable.
type detached struct {
	maxBytes  int64
	asContent bool
}

// Decode implements api.Codec.
func (d *detached) Decode(body []byte, v *inference.Version) (api.Call, *inference.Error) {
	c := &call{v: v, asContent: d.asContent}
	if err := c.wire.parse(body); err != nil {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "%v", err)
	}
	req, _, err := c.wire.resolve(v.Signatures, d.maxBytes)
	if err != nil {
		return nil, inference.AsError(err)
	}
	c.req = req
	return c, nil
}

// call is an api.Call.
type call struct {
	v         *inference.Version
	wire      request
	req       *inference.Request
	asContent bool
}

// Request implements api.Call.
func (c *call) Request() *inference.Request { return c.req }

// Append implements api.Call.
func (c *call) Append(dst []byte, resp *inference.Response) ([]byte, *inference.Error) {
	a := answer{v: c.v, sig: c.req.Signature, indexes: c.req.Outputs, outputs: resp.Outputs, asContent: c.asContent}
	a.measure()
	if a.total > math.MaxInt32 { // no client could read it
		return dst, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge, "the answer has %d bytes, more than a message can have", a.total)
	}
	return a.append(slices.Grow(dst, a.total)), nil
}

// Free implements api.Call. The memory is the caller's and the collector's.
func (c *call) Free() {}
