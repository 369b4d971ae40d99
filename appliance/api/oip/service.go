// service.go: what both transports answer, but for inference itself.
package oip

import (
	"slices"
	"strconv"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/inference"
)

// Options of a Service. Zero means default.
type Options struct {
	// Name is what the server calls itself; empty: inferd. Version is inferd's.
	Name, Version string
	// Live and Ready are the whole appliance's. Nil: live, and ready when every known model has a version that answers.
	Live, Ready func() bool
	// Serving says whether the model answers; known is false where there is no such model. Nil: it does when a version is available.
	Serving func(model string) (serving, known bool)
	// Statistics are what was counted. Nil: nothing was.
	Statistics *Statistics
	// Repository loads and unloads, for those whom Callers lets. Nil: nobody may.
	Repository Repository
	// Callers may load and unload where no tokens are asked for; where they are, the scope admin is needed, and enough.
	Callers func() Callers
}

// Callers says whose wishes are granted.
type Callers int

// From nobody, from callers on this machine, from everybody.
const (
	NoCallers Callers = iota
	LocalCallers
	AnyCallers
)

// Caller is who asks.
type Caller struct {
	Grant *access.Grant // nil where nobody is asked for a token
	Asked bool          // tokens are asked for
	Local bool          // from this machine; over a unix socket only the operators
	Name  string        // for the history; empty: the token's
}

func (c Caller) name() string {
	if n := c.Grant.Name(); n != "" {
		return "token " + n
	}
	return c.Name
}

// Service answers for both transports. It is immutable.
type Service struct {
	svc  *api.Service
	opts Options
}

// New is a service over svc.
func New(svc *api.Service, opts Options) *Service {
	if opts.Name == "" {
		opts.Name = "inferd"
	}
	if opts.Live == nil {
		opts.Live = func() bool { return true }
	}
	if opts.Ready == nil {
		opts.Ready = func() bool {
			return !slices.ContainsFunc(svc.Models(), func(m string) bool { return !svc.Available(m) })
		}
	}
	if opts.Serving == nil {
		opts.Serving = func(model string) (bool, bool) {
			_, err := svc.Status(inference.Spec{Model: model})
			return svc.Available(model), err == nil || svc.Available(model)
		}
	}
	if opts.Statistics == nil {
		opts.Statistics = NewStatistics()
	}
	if opts.Callers == nil {
		opts.Callers = func() Callers { return NoCallers }
	}
	return &Service{svc: svc, opts: opts}
}

// Live reports whether the server is alive.
func (s *Service) Live() bool { return s.opts.Live() }

// Ready reports whether requests should be sent here.
func (s *Service) Ready() bool { return s.opts.Ready() }

// Server is what the server says of itself.
func (s *Service) Server() ServerMetadata {
	return ServerMetadata{Name: s.opts.Name, Version: s.opts.Version, Extensions: Extensions}
}

// ModelReady reports whether the version (of a model that names none: any) answers. That nobody knows the model is an error.
func (s *Service) ModelReady(spec inference.Spec) (bool, *inference.Error) {
	if !spec.HasVersion && spec.Label == "" {
		serving, known := s.opts.Serving(spec.Model)
		if !known {
			return false, unknownModel(spec.Model)
		}
		return serving, nil
	}
	spec.Steady = true
	h, err := s.svc.Acquire(spec)
	if err == nil {
		h.Release()
		return true, nil
	}
	if _, err := s.svc.Status(spec); err != nil {
		return false, unknown(spec, err)
	}
	return false, nil
}

func unknownModel(model string) *inference.Error {
	return inference.Errorf(inference.NotFound, inference.ReasonModel, "Request for unknown model: '%s' is not found", Cut(model))
}

// unknown is the error for what nobody knows, in the words that programs written for Triton look for.
func unknown(spec inference.Spec, err error) *inference.Error {
	e := inference.AsError(err)
	switch {
	case e.Code != inference.NotFound:
		return e
	case spec.HasVersion:
		return inference.Errorf(inference.NotFound, inference.ReasonModel, "Request for unknown model: '%s' version %d is not found", Cut(spec.Model), spec.Version)
	}
	return unknownModel(spec.Model)
}

// Acquire is the api's, with an error that tells a model that is not ready from one that nobody knows.
func (s *Service) Acquire(spec inference.Spec) (*inference.Handle, *inference.Error) {
	h, err := s.svc.Acquire(spec)
	if err == nil {
		return h, nil
	}
	versions, nobody := s.svc.Status(spec)
	if nobody != nil || len(versions) == 0 {
		return nil, unknown(spec, err)
	}
	v := versions[0] // the highest
	switch v.State {
	case inference.StateStart, inference.StateLoading:
		e := inference.Errorf(inference.Unavailable, inference.ReasonLoading, "model %s version %d is not ready: it is being loaded; ask again in a moment", spec.Model, v.Version)
		e.RetryAfter = loadingRetry
		return nil, e
	case inference.StateEnd, inference.StateUnloading:
		if v.Message != "" {
			return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "model %s version %d is not ready: %s", spec.Model, v.Version, v.Message)
		}
		return nil, inference.Errorf(inference.NotFound, inference.ReasonModel, "model %s version %d is not ready: it was unloaded", spec.Model, v.Version)
	}
	return nil, inference.AsError(err)
}

// Model is what the model says of itself, with the inputs and outputs of the signature of that name. number is the version that answers.
func (s *Service) Model(spec inference.Spec, signature string) (m *ModelMetadata, number int64, failure *inference.Error) {
	spec.Steady = true
	h, err := s.Acquire(spec)
	if err != nil {
		return nil, 0, err
	}
	defer h.Release()
	v := h.Version()
	sig, err := Signature(v, signature)
	if err != nil {
		return nil, v.Number, err
	}
	m = &ModelMetadata{Name: v.Model, Platform: Platform, Inputs: describe(sig.Inputs), Outputs: describe(sig.Outputs)}
	if spec.HasVersion || spec.Label != "" {
		m.Versions = []string{strconv.FormatInt(v.Number, 10)}
		return m, v.Number, nil
	}
	versions, _ := s.svc.Status(inference.Spec{Model: v.Model}) // it was there a moment ago
	for _, v := range slices.Backward(versions) {
		if v.State == inference.StateAvailable {
			m.Versions = append(m.Versions, strconv.FormatInt(v.Version, 10))
		}
	}
	if len(m.Versions) == 0 {
		m.Versions = []string{strconv.FormatInt(v.Number, 10)}
	}
	return m, v.Number, nil
}
