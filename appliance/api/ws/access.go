// access.go: who connects, what of a stream's requests he may make, and that his session stays his.
package ws

import (
	"net/http"
	"slices"
	"strings"

	"github.com/inferd/inferd/appliance/access"
	"github.com/inferd/inferd/appliance/api"
	"github.com/inferd/inferd/appliance/jobs"
	"github.com/inferd/inferd/inference"
)

// withoutTokens are the subprotocols that say what is spoken. None of the others is agreed to, and so none is ever sent back, or quoted.
func withoutTokens(offered []string) []string {
	if !slices.ContainsFunc(offered, isToken) {
		return offered
	}
	return slices.DeleteFunc(slices.Clone(offered), isToken)
}

func isToken(protocol string) bool { return strings.HasPrefix(protocol, access.BearerProtocol) }

// deny answers a handshake of somebody who is not let in. presented: he has shown a token.
func deny(w http.ResponseWriter, err *inference.Error, presented bool) {
	header := w.Header()
	access.Explain(header, err, presented)
	header.Set("X-Inferd-Reason", err.Reason)
	refuse(w, api.HTTPStatus(err), err.Msg)
}

// may says why a request is not the client's to make, nil when it is.
func (c *conn) may(fl *flight) *inference.Error {
	if c.holder == nil {
		return nil
	}
	scope := access.Predict
	if fl.durable {
		scope = access.Submit
	}
	return c.holder.May(scope, fl.spec.Model)
}

// forbid answers a request that is not the client's to make. It costs a credit, and gives it back. mu is held.
func (c *conn) forbid(fl *flight, err *inference.Error) {
	if !c.spend() {
		return
	}
	c.back++
	c.h.svc.Observe(api.Observation{Protocol: protocol, Method: "predict", Model: fl.spec.Model, Code: err.Code, Reason: err.Reason})
	c.putError(reply{id: fl.id}, err)
}

// mine reports whether the client may resume the session.
func (c *conn) mine(session string) bool { return c.holder.Owns(jobs.OwnerOfSession(session)) }

// newSession is the name of a session of the client's.
func (c *conn) newSession() string { return jobs.SessionOf(c.holder.Name(), newSession()) }
