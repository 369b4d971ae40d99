// reload.go: reading the configuration again: what came of it.
package control

import (
	"context"
	"encoding/json"
	"net/http"
)

// Reloaded is what came of reading the configuration again: taken over as a whole, or, with faults, not at all.
type Reloaded struct {
	Changes []Change `json:"changes"`
	Faults  []string `json:"faults,omitempty"` // why it was refused
}

// Change is one setting that is different. Effect says when it counts: now, at the next load of a version, or after a restart.
type Change struct {
	Key    string `json:"key"`
	From   string `json:"from"`
	To     string `json:"to"`
	Effect string `json:"effect"`
}

func handleReload(mux *http.ServeMux, reload func(ctx context.Context, by string) Reloaded) {
	mux.HandleFunc("POST /control/reload", func(w http.ResponseWriter, r *http.Request) {
		// Whoever asked may go away: what is taken over is taken over.
		done := reload(context.WithoutCancel(r.Context()), "inferd reload by "+peer(r.Context()))
		code := http.StatusOK
		if len(done.Faults) > 0 {
			code = http.StatusConflict
		}
		answer(w, code, done)
	})
}

// Reload has the configuration read again. What was refused is in the result and no error.
func (c *Client) Reload(ctx context.Context) (*Reloaded, error) {
	code, body, err := c.Do(ctx, http.MethodPost, "/control/reload", nil)
	if err != nil {
		return nil, err
	}
	d := new(Reloaded)
	if code != http.StatusOK && code != http.StatusConflict || json.Unmarshal(body, d) != nil || d.Changes == nil {
		return nil, c.elsewhere("a reload", code)
	}
	return d, nil
}
