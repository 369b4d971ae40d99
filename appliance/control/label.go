// label.go: labels that an operator moves.
package control

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Label is a name for a version of a model.
type Label struct {
	Name    string `json:"label"`
	Version int64  `json:"version"`
	By      string `json:"by,omitempty"`   // the operator who moved it; empty: it is as configured
	Held    bool   `json:"held,omitempty"` // the version is not live, so requests by the label are refused
}

// labelVerbs are the part of Verbs that is about labels.
type labelVerbs interface {
	Label(ctx context.Context, model, label string, version int64, force bool, by string) (string, error)
	Unlabel(ctx context.Context, model, label, by string) (string, error)
}

func handleLabels(mux *http.ServeMux, v labelVerbs) {
	handle := func(name string, do func(ctx context.Context, q url.Values, by string) (string, error)) {
		mux.HandleFunc("POST /control/"+name, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), verbTimeout)
			defer cancel()
			text, err := do(ctx, r.URL.Query(), peer(r.Context()))
			if err != nil {
				answer(w, statusOf(err), Done{Error: messageOf(err)})
				return
			}
			answer(w, http.StatusOK, Done{Message: text})
		})
	}
	handle("label", func(ctx context.Context, q url.Values, by string) (string, error) {
		version, err := strconv.ParseInt(q.Get("version"), 10, 64)
		if err != nil {
			return "", fmt.Errorf("%q is no version number", q.Get("version"))
		}
		return v.Label(ctx, q.Get("model"), q.Get("label"), version, q.Get("force") == "true", by)
	})
	handle("unlabel", func(ctx context.Context, q url.Values, by string) (string, error) {
		return v.Unlabel(ctx, q.Get("model"), q.Get("label"), by)
	})
}

// Label makes a label name a version and returns what inferd says to it.
func (c *Client) Label(ctx context.Context, model, label string, version int64, force bool) (string, error) {
	return c.verb(ctx, "label", url.Values{"model": {model}, "label": {label}, "version": {strconv.FormatInt(version, 10)}, "force": {strconv.FormatBool(force)}})
}

// Unlabel gives a label back to the configuration and returns what inferd says to it.
func (c *Client) Unlabel(ctx context.Context, model, label string) (string, error) {
	return c.verb(ctx, "unlabel", url.Values{"model": {model}, "label": {label}})
}
