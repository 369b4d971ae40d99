// drain.go: an operator takes the appliance out of a load balancer's choice, and puts it back.
package control

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// handleDrain has drain called with whether the appliance shall be out, and with who asked.
func handleDrain(mux *http.ServeMux, drain func(out bool, by string) string) {
	mux.HandleFunc("POST /control/drain", func(w http.ResponseWriter, r *http.Request) {
		out, err := strconv.ParseBool(r.URL.Query().Get("out"))
		if err != nil {
			answer(w, http.StatusBadRequest, Done{Error: "out is neither true nor false"})
			return
		}
		answer(w, http.StatusOK, Done{Message: drain(out, peer(r.Context()))})
	})
}

// Drain makes the appliance say that it is not ready while it goes on answering, or, with out false, lets it be ready again.
func (c *Client) Drain(ctx context.Context, out bool) (string, error) {
	return c.verb(ctx, "drain", url.Values{"out": {strconv.FormatBool(out)}})
}
