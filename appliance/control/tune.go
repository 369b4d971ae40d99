// tune.go: how versions are run, as it was measured, and measuring again.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/inferd/inferd/inference/tuning"
)

// Tuned is how one live version is run, and what was measured of it.
type Tuned struct {
	Model      string           `json:"model"`
	Version    int64            `json:"version"`
	Text       string           `json:"text"` // the plan in words
	Plan       tuning.Plan      `json:"plan"`
	Plain      tuning.Plan      `json:"plain"`                // as it was saved and configured
	Measured   time.Time        `json:"measured,omitzero"`    // zero: it was not
	TookMicros int64            `json:"took_micros,omitzero"` // to measure it
	CPU        string           `json:"cpu,omitempty"`
	Runtime    string           `json:"runtime,omitempty"`
	Tried      []tuning.Outcome `json:"tried,omitempty"`
	// Signature is the one that has run most, Runs what its runs take by their rows, as measured lately, and Rows how many one is given at most when
	// requests are joined.
	Signature string     `json:"signature,omitempty"`
	Runs      []TunedRun `json:"runs,omitempty"`
	Rows      int64      `json:"rows,omitempty"`
	Reason    string     `json:"reason,omitempty"` // why it was not measured, or why what was found is not used
}

// TunedRun is what a run takes.
type TunedRun struct {
	Rows   int64 `json:"rows"`
	Micros int64 `json:"micros"`
}

// Tuning is what can be asked about how versions are run.
type Tuning interface {
	// Tuned has the live versions of the model, highest first; NOT_FOUND when there is no such model, FAILED_PRECONDITION when none is live.
	Tuned(model string) ([]Tuned, error)
	// Retune measures the model's live versions again, beside those that serve, and lets them take over as they are run best. It says what it did.
	Retune(ctx context.Context, model, by string) (string, error)
}

func handleTuning(mux *http.ServeMux, t Tuning) {
	mux.HandleFunc("GET /control/tune", func(w http.ResponseWriter, r *http.Request) {
		list, err := t.Tuned(r.URL.Query().Get("model"))
		if err != nil {
			answer(w, statusOf(err), Done{Error: messageOf(err)})
			return
		}
		answer(w, http.StatusOK, list)
	})
	mux.HandleFunc("POST /control/tune", func(w http.ResponseWriter, r *http.Request) {
		text, err := t.Retune(r.Context(), r.URL.Query().Get("model"), peer(r.Context()))
		if err != nil {
			answer(w, statusOf(err), Done{Error: messageOf(err)})
			return
		}
		answer(w, http.StatusOK, Done{Message: text})
	})
}

// Tuned asks how the model's live versions are run.
func (c *Client) Tuned(ctx context.Context, model string) ([]Tuned, error) {
	code, body, err := c.Do(ctx, http.MethodGet, "/control/tune?"+url.Values{"model": {model}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		var d Done
		if json.Unmarshal(body, &d) == nil && d.Error != "" {
			return nil, errors.New(d.Error)
		}
		return nil, c.elsewhere("how models are run", code)
	}
	var list []Tuned
	if err := json.Unmarshal(body, &list); err != nil {
		return nil, fmt.Errorf("how model %s is run, from %s: %w; is it an inferd?", model, c.what, err)
	}
	return list, nil
}

// Retune has the model's live versions measured again, and returns what inferd says to it.
func (c *Client) Retune(ctx context.Context, model string) (string, error) {
	return c.Verb(ctx, "tune", model, 0)
}
