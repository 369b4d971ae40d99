// runtime.go: a change of the TensorFlow runtime, over the door.
package control

import (
	"context"
	"net/http"
	"net/url"
)

func handleRuntime(mux *http.ServeMux, use func(ctx context.Context, version, by string) (string, error)) {
	mux.HandleFunc("POST /control/runtime", func(w http.ResponseWriter, r *http.Request) {
		text, err := use(r.Context(), r.URL.Query().Get("version"), peer(r.Context()))
		if err != nil {
			answer(w, statusOf(err), Done{Error: messageOf(err)})
			return
		}
		answer(w, http.StatusOK, Done{Message: text})
	})
}

// UseRuntime has a running inferd change to the runtime of that version, and returns what it says when it has: every live model is loaded again
// first, which may take minutes.
func (c *Client) UseRuntime(ctx context.Context, version string) (string, error) {
	return c.verb(ctx, "runtime", url.Values{"version": {version}})
}
