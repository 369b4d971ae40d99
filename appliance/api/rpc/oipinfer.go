// oipinfer.go: ModelInfer, and what one request of ModelStreamInfer has in common with it.
package rpc

import (
	"context"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/api/oip"
	"github.com/inferd/inferd/inference"
)

// inferMethod is the method of messages that are read and written by hand. The request's memory is [inferCall.forget]'s affair.
func (s *server) inferMethod() grpc.MethodDesc {
	return method(s, inferenceService, "ModelInfer", "predict", func() *inferRequest { return new(inferRequest) }, nil, s.modelInfer)
}

func (s *server) modelInfer(ctx context.Context, req *inferRequest, o *api.Observation) (*reply, error) {
	in := inferCall{s: s, ctx: ctx, req: req}
	defer in.forget()
	in.begin()
	defer in.leave()
	return in.answer(o, false)
}

// inferCall is one request on its way. Its owner calls begin, answer and leave, in this order, and forget after answer.
type inferCall struct {
	s      *server
	ctx    context.Context
	req    *inferRequest
	spec   inference.Spec
	params oip.Parameters
	due    time.Time // zero: the model's own deadline
	typed  bool      // of the answer
	final  bool
	entry  api.Entry
	failed error // of begin

	abandoned bool // the answer did not wait for the run
}

// begin asks whether the request is let in, before its tensors are looked at.
func (in *inferCall) begin() { in.failed = in.enter() }

func (in *inferCall) enter() error {
	req := in.req
	if req.bad != nil {
		return oip.Invalid("the message is no ModelInferRequest: %v", req.bad)
	}
	in.spec = oip.Spec(string(req.model), string(req.version))
	if err := in.s.may(in.ctx, access.Predict, in.spec.Model); err != nil {
		return err
	}
	req.ctx, in.spec.Keys = in.ctx, req
	caller, err := in.caller()
	if err != nil {
		return err
	}
	in.due = caller.Deadline
	entry, refused := in.s.svc.Enter(in.spec, caller)
	if refused != nil {
		return refused
	}
	in.entry = entry
	return nil
}

// caller is what is known of the request beside its tensors.
func (in *inferCall) caller() (api.Caller, error) {
	c := api.Caller{Bytes: int64(in.req.buffer.Len()), From: clientOf(in.ctx)}
	for i := range in.req.params {
		p := &in.req.params[i]
		switch string(p.name) {
		case "triton_enable_empty_final_response":
			in.final = p.kind == paramBool && p.bits != 0
			continue
		case "binary_data_output":
			in.typed = p.kind == paramBool && p.bits == 0
		}
		if err := in.params.Set(string(p.name), p.value()); err != nil {
			return c, err
		}
	}
	if in.params.Timeout > 0 {
		c.Deadline = time.Now().Add(in.params.Timeout)
	}
	if at, ok := in.ctx.Deadline(); ok && (c.Deadline.IsZero() || at.Before(c.Deadline)) {
		c.Deadline = at
	}
	if most := time.Now().Add(api.MaxDeadline); c.Deadline.After(most) {
		c.Deadline = most
	}
	if in.params.HasClass {
		c.Class = in.params.Class
		return c, nil
	}
	if v := metadata.ValueFromIncomingContext(in.ctx, PriorityKey); len(v) > 0 {
		var err error
		if c.Class, err = classOf(v[0]); err != nil {
			return c, err
		}
	}
	return c, nil
}

// answer has the model answer, and writes that.
func (in *inferCall) answer(o *api.Observation, streamed bool) (*reply, error) {
	o.Model = in.spec.Model
	if in.failed != nil {
		return nil, in.failed
	}
	ctx := in.ctx
	if in.params.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, in.due)
		defer cancel()
	}
	r, err := in.run(ctx, o, streamed)
	if err != nil {
		in.abandoned = ctx.Err() != nil
		return nil, err
	}
	if n := r.buffer.Len(); streamed && n > uncounted {
		if bad := in.entry.Grow(int64(in.req.buffer.Len() + n)); bad != nil {
			r.buffer.Free()
			return nil, bad
		}
	}
	return r, nil
}

// uncounted is how large an answer is that waits for its client without being booked: their number is bounded.
const uncounted = 64 << 10

// forget gives the message's memory back, unless somebody may still read the inputs: then the collector has it.
func (in *inferCall) forget() {
	if !in.abandoned {
		in.req.free()
	}
}

func (in *inferCall) run(ctx context.Context, o *api.Observation, streamed bool) (*reply, error) {
	h, bad := in.s.opts.OIP.Acquire(in.spec)
	if bad != nil {
		return nil, bad
	}
	defer h.Release()
	v := h.Version()
	o.Version = v.Number
	sig, bad := oip.Signature(v, in.params.Signature)
	if bad != nil {
		return nil, bad
	}
	o.Signature = sig.Key
	call, bad := in.req.resolve(v, sig, in.s.opts.MaxRequestBytes)
	if bad != nil {
		return nil, bad
	}
	in.entry.Fill(call)
	defer call.Ticket.Leave()
	resp, err := in.s.svc.Predict(ctx, h, call)
	if err != nil {
		return nil, err
	}
	defer resp.Release()
	a := inferAnswer{v: v, sig: sig, indexes: call.Outputs, outputs: resp.Outputs, id: in.req.id, typed: in.typed, final: in.final}
	return a.encode(in.s.pool, streamed)
}

// leave counts the request out.
func (in *inferCall) leave() { in.entry.Leave() }

// resolve is the request for the signature. The inputs may share the message's memory.
func (r *inferRequest) resolve(v *inference.Version, sig *inference.Signature, maxBytes int64) (*inference.Request, *inference.Error) {
	left := maxBytes
	sent, err := r.tensors(&left)
	if err != nil {
		return nil, err
	}
	inputs, err := oip.Inputs(v, sig, sent)
	if err != nil {
		return nil, err
	}
	if len(r.outputs) == 0 {
		return &inference.Request{Signature: sig, Inputs: inputs, Outputs: api.AllOutputs(sig)}, nil
	}
	list, seen := make([]int, 0, len(r.outputs)), make([]bool, len(sig.Outputs))
	for i := range r.outputs {
		out := &r.outputs[i]
		name := string(out.name)
		for k := range out.params {
			if err := oip.TensorParameter(name, string(out.params[k].name)); err != nil {
				return nil, err
			}
		}
		k, err := oip.Output(v, sig, name, seen)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return &inference.Request{Signature: sig, Inputs: inputs, Outputs: list}, nil
}
