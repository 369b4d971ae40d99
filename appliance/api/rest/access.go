// access.go: who may do what a request asks for.
package rest

import (
	"net/http"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/inference"
)

// enter asks who sends the request, before anything of it but the path and the header was read, and holds him to his scopes. Jobs are held to
// theirs when they have been found.
func (h *handler) enter(s *scratch, r *http.Request, to *route) (err *inference.Error) {
	if h.opts.Access == nil {
		return nil
	}
	s.unread = r.Method == http.MethodPost // if it is refused here
	if to.grant, err = h.opts.Access.HTTP(r); err != nil {
		return err
	}
	if err = to.grant.May(needs(to.act), to.spec.Model); err == nil {
		s.unread = false
	}
	return err
}

// needs are the scopes of which one is enough for the act.
func needs(act string) access.Scope {
	switch act {
	case actPredict, actClassify, actRegress:
		return access.Predict
	case actSubmit, actJob, actResult, actCancel, actRetry, actForget:
		return access.Submit
	default: // what a model is, and how it does
		return access.Predict | access.Submit
	}
}
