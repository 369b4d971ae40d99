// classify.go: PredictionService.Classify, Regress and MultiInference.
package rpc

import (
	"context"
	"sync"

	"google.golang.org/grpc"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// exampleMethod is one of the three methods, whose messages are read and written by hand: the examples stay as they were sent until the graph
// parses them.
func (s *server) exampleMethod(name, word string, kind inference.RecordedKind) grpc.MethodDesc {
	return method(s, predictionService, name, word, func() *exampleRequest { return &exampleRequest{kind: kind} }, (*exampleRequest).free, s.examples)
}

func (s *server) examples(ctx context.Context, req *exampleRequest, o *api.Observation) (*reply, error) {
	spec, err := req.modelSpec()
	if err != nil {
		return nil, err
	}
	o.Model = spec.Model
	if err := s.may(ctx, access.Predict, spec.Model); err != nil {
		return nil, err
	}
	req.ctx, spec.Keys = ctx, req
	caller, err := callerOf(ctx, req.buffer.Len())
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
	if beside := req.input.size(); beside > 0 { // a context is there once for each example
		if refused := entry.Grow(caller.Bytes + beside); refused != nil {
			return nil, refused
		}
	}
	calls, err := req.resolve(v.Signatures, true, s.opts.MaxRequestBytes)
	if err != nil {
		return nil, err
	}
	o.Signature = calls[0].Signature.Key
	for _, call := range calls {
		entry.Fill(call) // the place is the first one's, the class and the client everyone's
	}
	defer calls[0].Ticket.Leave()
	answers, err := s.each(ctx, h, calls)
	defer func() {
		for _, resp := range answers {
			if resp != nil {
				resp.Release()
			}
		}
	}()
	if err != nil {
		return nil, err
	}
	return encodeExamples(s.pool, v, req, calls, answers)
}

// each predicts the calls of one message at the same time, and returns when all of them have been answered: they share the message's memory.
// The answers are released by the caller, also after an error, which is the first call's that failed.
func (s *server) each(ctx context.Context, h *inference.Handle, calls []*inference.Request) ([]*inference.Response, error) {
	answers, errs := make([]*inference.Response, len(calls)), make([]error, len(calls))
	var others sync.WaitGroup
	for i := 1; i < len(calls); i++ {
		others.Go(func() {
			defer func() {
				if p := recover(); p != nil { // a goroutine of its own has nobody above it
					errs[i] = s.broke(p, h.Version().Model, h.Version().Number)
				}
			}()
			answers[i], errs[i] = s.svc.Predict(ctx, h, calls[i])
		})
	}
	answers[0], errs[0] = s.svc.Predict(ctx, h, calls[0])
	others.Wait()
	for _, err := range errs {
		if err != nil {
			return answers, err
		}
	}
	return answers, nil
}

// modelSpec is what the catalog is asked for: of a MultiInferenceRequest the first task's.
func (r *exampleRequest) modelSpec() (inference.Spec, error) {
	if len(r.tasks) == 0 {
		return inference.Spec{}, nil // as a spec without a name
	}
	t := &r.tasks[0]
	w := request{hasSpec: t.hasSpec || r.kind == inference.RecordedMultiInference, spec: t.spec}
	return w.modelSpec()
}
