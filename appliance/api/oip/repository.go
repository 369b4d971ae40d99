// repository.go: the model repository extension: which models there are, and loading and unloading them.
package oip

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
)

const loadingRetry = time.Second

// Repository loads and unloads models. by names who asked. *updater.Controller is one.
type Repository interface {
	// Load makes the model follow its policy again and tries once more what was refused. It blocks until what the policy wants is available,
	// or has failed, which is the error.
	Load(ctx context.Context, model, by string) (string, error)
	// Unload takes every version of the model away until Load. It returns when no new request is let in; those in flight are answered.
	Unload(ctx context.Context, model, by string) (string, error)
}

// States of a model in the index.
const (
	Ready       = "READY"
	Unavailable = "UNAVAILABLE"
	Loading     = "LOADING"
	Unloading   = "UNLOADING"
)

// Indexed is one version of a model in the index, or a model of which there is no version.
type Indexed struct {
	Name    string `json:"name"`
	Version string `json:"version,omitempty"`
	State   string `json:"state,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Index is every version of every model that the grant's holder may know of, or of those that are ready.
func (s *Service) Index(grant *access.Grant, ready bool) []Indexed {
	list := []Indexed{} // not null on the wire
	for _, name := range s.svc.Models() {
		if !grant.For(name) {
			continue
		}
		versions, _ := s.svc.Status(inference.Spec{Model: name}) // none have been seen yet, or it has just gone
		if len(versions) == 0 && !ready {
			list = append(list, Indexed{Name: name, State: Unavailable, Reason: "no version of it has been loaded"})
		}
		for _, v := range versions {
			one := Indexed{Name: name, Version: strconv.FormatInt(v.Version, 10), Reason: v.Message}
			switch v.State {
			case inference.StateAvailable:
				one.State, one.Reason = Ready, ""
			case inference.StateStart, inference.StateLoading:
				one.State = Loading
			case inference.StateUnloading:
				one.State = Unloading
			default:
				if one.State = Unavailable; one.Reason == "" {
					one.Reason = "unloaded"
				}
			}
			if one.State == Ready || !ready {
				list = append(list, one)
			}
		}
	}
	return list
}

// Load loads the model. parameters are the names of those that were sent.
func (s *Service) Load(ctx context.Context, c Caller, model string, parameters []string) *inference.Error {
	if err := s.mayControl(c, model); err != nil {
		return err
	}
	if len(parameters) > 0 {
		return inference.Errorf(inference.Unimplemented, inference.ReasonInput,
			"failed to load '%s', parameter %s: models are loaded as they lie in the models directory and as inferd's configuration says; put files there, and settings into the configuration, and load without parameters", Cut(model), Cut(parameters[0]))
	}
	_, err := s.opts.Repository.Load(ctx, model, c.name())
	if err == nil {
		return nil
	}
	e := *inference.AsError(err) // it may be kept by who made it
	e.Msg = fmt.Sprintf("failed to load '%s', %s", Cut(model), e.Msg)
	return &e
}

// Unload unloads every version of the model. Nothing else here depends on a model, so that the parameter unload_dependents means nothing.
func (s *Service) Unload(ctx context.Context, c Caller, model string) *inference.Error {
	if err := s.mayControl(c, model); err != nil {
		return err
	}
	_, err := s.opts.Repository.Unload(ctx, model, c.name())
	return inference.AsError(err)
}

// mayControl says why the caller may not load and unload the model.
func (s *Service) mayControl(c Caller, model string) *inference.Error {
	if c.Asked {
		if err := c.Grant.May(access.Admin, model); err != nil {
			return err
		}
	}
	callers := s.opts.Callers()
	switch {
	case s.opts.Repository == nil || callers == NoCallers:
		return inference.Errorf(inference.Unimplemented, inference.ReasonScope,
			"loading and unloading is switched off here (oip.repository: off): this server takes its models from the models directory and its configuration")
	case c.Asked || callers == AnyCallers || c.Local:
		return nil
	}
	return inference.Errorf(inference.PermissionDenied, inference.ReasonScope,
		"models are loaded and unloaded for callers on the same machine only; set oip.repository to any to allow every caller, or give tokens out (access.tokens_file), of which those with the scope admin may")
}
