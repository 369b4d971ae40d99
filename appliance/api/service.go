// Package api is the one implementation of acquire, predict, metadata and model status. It knows no wire format but the status table.
//
// Invariants:
//  1. A request is checked here, in Go, before a worker sees it: type, bytes against shape, and with strict shapes the signature's shape.
//  2. Every request has a deadline: the client's own, else the model's default.
//  3. Every answer, good or bad, is observed exactly once.
package api

import (
	"context"
	"time"

	"github.com/inferd/inferd/inference"
)

// DefaultDeadline is TensorFlow Serving's --rest_api_timeout_in_ms.
const DefaultDeadline = 30 * time.Second

// Observation is what metrics need to know about one finished request.
type Observation struct {
	Protocol  string // "rest", "grpc", ...
	Model     string
	Version   int64 // 0 when no version was acquired
	Signature string
	Code      inference.Code
	Reason    string // one of inference.Reason..., empty when OK
	Took      time.Duration
}

// Options of a Service. Zero means default.
type Options struct {
	// Observe is called once per finished request, and must not block.
	Observe func(Observation)
}

// Service answers for every protocol.
type Service struct {
	catalog *inference.Catalog
	observe func(Observation)
}

// New is a service over the catalog.
func New(catalog *inference.Catalog, opts Options) *Service {
	if opts.Observe == nil {
		opts.Observe = func(Observation) {}
	}
	return &Service{catalog: catalog, observe: opts.Observe}
}

// Acquire pins the version that spec names. The caller releases the handle.
func (s *Service) Acquire(spec inference.Spec) (*inference.Handle, error) {
	return s.catalog.Acquire(spec)
}

// Observe records one finished request; the codecs call it once per request, also for those that never reach Predict.
func (s *Service) Observe(o Observation) { s.observe(o) }

// Predict checks the request against its signature and answers it. The response is released by the caller. Errors are *inference.Error.
func (s *Service) Predict(ctx context.Context, h *inference.Handle, req *inference.Request) (*inference.Response, error) {
	v := h.Version()
	if err := check(v, req); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		deadline := v.DefaultDeadline
		if deadline <= 0 {
			deadline = DefaultDeadline
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		defer cancel()
	}
	resp, err := h.Servable().Predict(ctx, req)
	if err != nil {
		return nil, inference.AsError(err)
	}
	return resp, nil
}

// check holds the request against its signature and marks what must run alone.
func check(v *inference.Version, req *inference.Request) error {
	sig := req.Signature
	for i := range sig.Inputs {
		info, t := &sig.Inputs[i], req.Inputs[i]
		if t.DType != info.DType {
			// The text is the runtime's own for a wrong feed.
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Expects arg[%d] to be %s but %s is provided",
				i, info.DType.Name(), t.DType.Name())
		}
		if info.Accepts(t.Shape) {
			continue
		}
		if v.StrictShapes {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput,
				"input %q has shape %v, signature %q of model %s version %d declares %v; send that shape, or set strict_shapes: false to let the graph decide",
				info.Alias, t.Shape, sig.Key, v.Model, v.Number, info.Shape)
		}
		req.Alone = true
	}
	return nil
}

// AllOutputs are the indexes of every output of the signature.
func AllOutputs(sig *inference.Signature) []int {
	all := make([]int, len(sig.Outputs))
	for i := range all {
		all[i] = i
	}
	return all
}

// Status has the public state of the model's versions, or of the one that spec names. Errors have TensorFlow Serving's texts.
func (s *Service) Status(spec inference.Spec) ([]inference.VersionStatus, error) {
	if spec.Model == "" {
		return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "ModelSpec has no name specified.")
	}
	if spec.Label != "" {
		n, ok := s.catalog.Label(spec.Model, spec.Label)
		if !ok {
			return nil, inference.Errorf(inference.InvalidArgument, inference.ReasonModel, "Unrecognized servable version label: %s", spec.Label)
		}
		spec.Version, spec.HasVersion = n, true
	}
	all, known := s.catalog.Status(spec.Model)
	if !known || (!spec.HasVersion && len(all) == 0) {
		return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "Could not find any versions of model %s", spec.Model)
	}
	if !spec.HasVersion {
		return all, nil
	}
	for _, v := range all {
		if v.Version == spec.Version {
			return []inference.VersionStatus{v}, nil
		}
	}
	return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "Could not find version %d of model %s", spec.Version, spec.Model)
}

// Models has every known model, sorted.
func (s *Service) Models() []string { return s.catalog.Models() }

// Available reports whether a model has a version that answers.
func (s *Service) Available(model string) bool { return s.catalog.Available(model) }
