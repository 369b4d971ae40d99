// Package api is the one implementation of acquire, predict, metadata and model status. It knows no wire format but the status table.
//
// Invariants:
//  1. A request is checked here, in Go, before a worker sees it: type, bytes against shape, and with strict shapes the signature's shape.
//  2. Every request has a deadline: the client's own, else the model's default.
//  3. Every answer, good or bad, is observed exactly once.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/inferd/inferd/appliance/admission"
	"github.com/inferd/inferd/inference"
	"github.com/inferd/inferd/inference/tensor"
)

// DefaultDeadline is TensorFlow Serving's --rest_api_timeout_in_ms.
const DefaultDeadline = 30 * time.Second

// Observation is what metrics need to know about one finished request.
type Observation struct {
	Protocol  string // "rest", "grpc", ...
	Method    string // what was asked for, in the protocol's own word: "predict", "metadata", "status", ...; empty when it is unknown
	Model     string // empty when the catalog has never heard of it: a label must not grow with what strangers send
	Version   int64  // 0 when no version was acquired
	Signature string
	Code      inference.Code
	Reason    string // one of inference.Reason..., empty when OK
	Took      time.Duration
}

// Options of a Service. Zero means default.
type Options struct {
	// Observe is called once per finished request, and must not block.
	Observe func(Observation)
	// Gate is what every prediction passes first. nil lets everybody in.
	Gate *admission.Gate
	// Draining is closed when the appliance begins to stop; what comes then is refused. nil: never.
	Draining <-chan struct{}
	// Recorder keeps a share of the requests. nil: none is kept.
	Recorder Recorder
	// MaxTensorBytes bounds the tensor that files are made into. 0 means [DefaultMaxTensorBytes].
	MaxTensorBytes int64
	// Log gets the causes that clients are not shown. nil means discard.
	Log *slog.Logger
}

// Service answers for every protocol.
type Service struct {
	catalog *inference.Catalog
	observe func(Observation)
	gate    *admission.Gate
	drain   <-chan struct{}
	records Recorder
	largest int64 // bytes of a tensor that files are made into
	log     *slog.Logger
}

// New is a service over the catalog.
func New(catalog *inference.Catalog, opts Options) *Service {
	if opts.Observe == nil {
		opts.Observe = func(Observation) {}
	}
	if opts.MaxTensorBytes <= 0 {
		opts.MaxTensorBytes = DefaultMaxTensorBytes
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	return &Service{catalog: catalog, observe: opts.Observe, gate: opts.Gate, drain: opts.Draining, records: opts.Recorder, largest: opts.MaxTensorBytes, log: opts.Log.With("component", "api")}
}

// Acquire pins the version that spec names. The caller releases the handle.
func (s *Service) Acquire(spec inference.Spec) (*inference.Handle, error) {
	return s.catalog.Acquire(spec)
}

// Observe records one finished request; the codecs call it once per request, also for those that never reach Predict.
func (s *Service) Observe(o Observation) {
	if o.Version == 0 && o.Model != "" {
		if _, known := s.catalog.Status(o.Model); !known {
			o.Model = ""
		}
	}
	s.observe(o)
}

// Predict checks the request against its signature and answers it. The response is released by the caller. Errors are *inference.Error.
func (s *Service) Predict(ctx context.Context, h *inference.Handle, req *inference.Request) (*inference.Response, error) {
	if s.records != nil && s.records.Wants(h.Version()) {
		return s.recorded(ctx, h, req)
	}
	return s.predict(ctx, h, req)
}

func (s *Service) predict(ctx context.Context, h *inference.Handle, req *inference.Request) (*inference.Response, error) {
	v := h.Version()
	if _, ok := ctx.Deadline(); !ok {
		deadline := defaultDeadline(v)
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, deadline)
		defer cancel()
	}
	if hasFiles(req) {
		room := s.gate.Room()
		defer room.Leave()
		err := DecodeFiles(ctx, req, s.largest, func(bytes int64) error {
			if !room.Take(bytes) {
				return noRoom(bytes)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if err := check(v, req); err != nil {
		return nil, err
	}
	resp, err := h.Servable().Predict(ctx, req)
	if err != nil {
		return nil, s.clientError(v, err)
	}
	return resp, nil
}

// clientError makes err one that a client may see. What nobody has given a code is not shown: the client gets a number that is in the
// log beside it.
func (s *Service) clientError(v *inference.Version, err error) *inference.Error {
	var known *inference.Error
	if errors.As(err, &known) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return inference.AsError(err)
	}
	id := fmt.Sprintf("%08x", rand.Uint32())
	s.log.Error("request failed for a reason without a code", "model", v.Model, "version", v.Number, "id", id, "err", err)
	return &inference.Error{Code: inference.Internal, Model: v.Model, Version: v.Number, Reason: inference.ReasonRuntime, Err: err,
		Msg: fmt.Sprintf("internal error %s of model %s version %d; the log of inferd has the cause beside this number", id, v.Model, v.Number)}
}

// check holds the request against its signature and marks what must run alone.
func check(v *inference.Version, req *inference.Request) error {
	sig := req.Signature
	if len(req.Inputs) != len(sig.Inputs) {
		return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "signature %q takes %d inputs, got %d",
			sig.Key, len(sig.Inputs), len(req.Inputs))
	}
	for _, k := range req.Outputs {
		if k < 0 || k >= len(sig.Outputs) {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "signature %q has %d outputs, number %d was asked for",
				sig.Key, len(sig.Outputs), k)
		}
	}
	for i := range sig.Inputs {
		info, t := &sig.Inputs[i], req.Inputs[i]
		if t == nil {
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q of signature %q is missing", info.Alias, sig.Key)
		}
		if isFiles(info, t) {
			if err := checkFiles(info, t); err != nil {
				return err
			}
			continue
		}
		if t.DType != info.DType {
			// The text is the runtime's own for a wrong feed.
			return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "Expects arg[%d] to be %s but %s is provided",
				i, info.DType.Name(), t.DType.Name())
		}
		if err := whole(info.Alias, t); err != nil {
			return err
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

// whole reports a tensor whose shape is impossible or asks for other bytes than there are: a worker would read past its memory.
func whole(alias string, t *tensor.Tensor) error {
	want, err := t.Shape.Elements()
	got, unit := int64(len(t.Strings)), "strings"
	if t.DType != tensor.String && err == nil {
		want, err = t.Shape.Bytes(t.DType)
		got, unit = int64(len(t.Data)), "bytes"
	}
	switch {
	case err != nil:
		e := inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q: %v", alias, err)
		e.Err = err
		return e
	case want != got:
		return inference.Errorf(inference.InvalidArgument, inference.ReasonInput, "input %q of type %s and shape %v takes %d %s, got %d",
			alias, t.DType.Name(), t.Shape, want, unit, got)
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
