// predict.go: PredictionService.Predict.
package rpc

import (
	"context"
	"errors"
	"slices"
	"strings"

	"google.golang.org/grpc"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// predictMethod is the method of messages that are read and written by hand.
func (s *server) predictMethod() grpc.MethodDesc {
	return method(s, predictionService, "Predict", "predict", func() *request { return new(request) }, (*request).free, s.predict)
}

func (s *server) predict(ctx context.Context, req *request, o *api.Observation) (*reply, error) {
	spec, err := req.modelSpec()
	if err != nil {
		return nil, err
	}
	o.Model = spec.Model
	if err := s.may(ctx, access.Predict, spec.Model); err != nil {
		return nil, err
	}
	req.ctx, spec.Keys = ctx, req
	caller, err := req.caller()
	if err != nil {
		return nil, err
	}
	entry, refused := s.svc.Enter(spec, caller)
	if refused != nil {
		return nil, refused
	}
	defer entry.Leave()
	h, err := s.svc.Acquire(spec)
	if err != nil {
		return nil, err
	}
	defer h.Release()
	v := h.Version()
	o.Version = v.Number
	call, sig, err := req.resolve(v.Signatures, s.opts.MaxRequestBytes)
	if sig != nil {
		o.Signature = sig.Key
	}
	if err != nil {
		return nil, err
	}
	entry.Fill(call)
	defer call.Ticket.Leave()
	resp, err := s.svc.Predict(ctx, h, call)
	if err != nil {
		return nil, err
	}
	defer resp.Release()
	return encodeReply(s.pool, v, sig, call.Outputs, resp.Outputs, s.opts.SerializeAsTensorContent), nil
}

// resolve is the request for one of the signatures, which is nil when it has none of that name. The inputs may share the message's memory.
func (r *request) resolve(signatures map[string]*inference.Signature, maxBytes int64) (*inference.Request, *inference.Signature, error) {
	key := r.spec.key()
	sig := signatures[key]
	if sig == nil {
		return nil, nil, inference.Errorf(inference.FailedPrecondition, inference.ReasonModel, "Serving signature key \"%s\" not found.", key)
	}
	inputs, err := r.tensors(sig, maxBytes)
	if err != nil {
		return nil, sig, err
	}
	outputs, err := r.outputs(sig)
	if err != nil {
		return nil, sig, err
	}
	return &inference.Request{Signature: sig, Inputs: inputs, Outputs: outputs}, sig, nil
}

// modelSpec is what the catalog is asked for.
func (r *request) modelSpec() (inference.Spec, error) {
	if !r.hasSpec {
		return inference.Spec{}, errMissingSpec()
	}
	spec := inference.Spec{Model: string(r.spec.name), Version: r.spec.version, HasVersion: r.spec.choice == choiceVersion}
	if r.spec.choice == choiceLabel {
		spec.Label = string(r.spec.label)
		if spec.Label == "" && spec.Model != "" { // chosen, and empty: the catalog takes an empty label for none
			return spec, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Unrecognized servable version label: ")
		}
	}
	return spec, nil
}

func errMissingSpec() error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Missing ModelSpec")
}

// tensors are the signature's inputs in its order, from the request and the signature's defaults.
func (r *request) tensors(sig *inference.Signature, maxBytes int64) ([]*tensor.Tensor, error) {
	defaults := 0
	for i := range sig.Inputs {
		if sig.Inputs[i].Default != nil {
			defaults++
		}
	}
	if len(r.inputs) > len(sig.Inputs) || (len(r.inputs) < len(sig.Inputs) && defaults == 0) {
		return nil, r.sizeMismatch(sig)
	}
	list, used, left := make([]*tensor.Tensor, len(sig.Inputs)), 0, maxBytes
	for i := range sig.Inputs {
		info := &sig.Inputs[i]
		at := r.find([]byte(info.Alias))
		if at < 0 {
			if info.Default == nil {
				return nil, r.missing(sig, info)
			}
			list[i] = info.Default
			continue
		}
		used++
		t, err := r.inputs[at].tensor.decode(&left)
		if errors.Is(err, errTooLarge) {
			return nil, inference.Errorf(inference.ResourceExhausted, inference.ReasonTooLarge, "tensor parsing error: %s: %v", info.Alias, err)
		}
		if err != nil {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "tensor parsing error: %s: %v", info.Alias, err)
		}
		list[i] = t
	}
	if used != len(r.inputs) {
		return nil, r.invalidName(sig)
	}
	return list, nil
}

// outputs are the indexes that output_filter names, in its order, or all.
func (r *request) outputs(sig *inference.Signature) ([]int, error) {
	if len(r.filter) == 0 {
		return api.AllOutputs(sig), nil
	}
	list, seen := make([]int, 0, len(sig.Outputs)), make([]bool, len(sig.Outputs))
	for _, alias := range r.filter {
		i := sig.Output(string(alias))
		switch {
		case i < 0:
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
				"output tensor alias not found in signature: %s Outputs expected to be in the set {%s}.", alias, strings.Join(aliases(sig.Outputs, all), ","))
		case seen[i]:
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "duplicate output tensor alias: %s", alias)
		}
		seen[i] = true
		list = append(list, i)
	}
	return list, nil
}

func all(*inference.TensorInfo) bool { return true }

func withDefault(t *inference.TensorInfo) bool { return t.Default != nil }

// aliases of those in the list that pass, sorted as the list is.
func aliases(list []inference.TensorInfo, pass func(*inference.TensorInfo) bool) []string {
	var names []string
	for i := range list {
		if pass(&list[i]) {
			names = append(names, list[i].Alias)
		}
	}
	return names
}

// sent are the names of the request's inputs, sorted.
func (r *request) sent() []string {
	names := make([]string, len(r.inputs))
	for i := range r.inputs {
		names[i] = string(r.inputs[i].alias)
	}
	slices.Sort(names)
	return names
}

// without is a less b; both are sorted.
func without(a, b []string) []string {
	var left []string
	for _, s := range a {
		if _, ok := slices.BinarySearch(b, s); !ok {
			left = append(left, s)
		}
	}
	return left
}

func (r *request) sizeMismatch(sig *inference.Signature) error {
	sent, declared := r.sent(), aliases(sig.Inputs, all)
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
		"input size does not match signature: %d!=%d len({%s}) != len({%s}). Sent extra: {%s}. Missing but required: {%s}.",
		len(sent), len(declared), strings.Join(sent, ","), strings.Join(declared, ","),
		strings.Join(without(sent, declared), ","), strings.Join(without(declared, sent), ","))
}

func (r *request) missing(sig *inference.Signature, info *inference.TensorInfo) error {
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
		"Signature input alias: %s(feed name: %s) not found in request and no default value provided. Inputs expected to be in the request {%s}, or default input alias set: %s",
		info.Alias, info.Tensor, strings.Join(r.sent(), ","), strings.Join(aliases(sig.Inputs, withDefault), ","))
}

func (r *request) invalidName(sig *inference.Signature) error {
	sent, declared := r.sent(), aliases(sig.Inputs, all)
	used := without(sent, without(sent, declared))
	return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Inputs contains invalid name. Used request inputs: %s, request input: %s",
		strings.Join(used, ","), strings.Join(sent, ","))
}
